//! What only some rooms may name: the redis crate, the clock, threads.

use crate::walls::sources::{self, whole_words};

/// Who may name what. A name stands in the code as it is written here, as whole words.
struct Rule {
    /// Any of these.
    names: &'static [&'static str],
    /// Files or folders below `src`.
    only: &'static [&'static str],
    /// Why nobody else.
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        names: &["redis::"],
        only: &["server/"],
        because: "others say server::cmd and read server::Reply",
    },
    Rule {
        names: &[
            "Instant::now",
            "SystemTime::now",
            "thread::sleep",
            "RandomState",
        ],
        only: &[
            "host.rs",
            // Waits for another thread of this process, which no simulated world has.
            "channel.rs",
        ],
        because: "in a simulated world time and chance come from it: ask crate::host",
    },
    Rule {
        names: &[
            "thread::spawn",
            "thread::scope",
            "spawn_scoped",
            "Builder::new().spawn",
        ],
        only: &[
            "host.rs",
            // Listens to invalidations beside the reader; in a simulated world a task of it.
            "server/tracking.rs",
            // A source and its parts beside a sink; in a simulated world they take turns.
            "pipe.rs",
            // Asks for latency.
            "pace/probe.rs",
            // Frames are read and digested ahead.
            "source/prefetch.rs",
            // Fingerprints are sorted.
            "partitions.rs",
            "sorter.rs",
            // Redraws the line.
            "ui/progress.rs",
            // Two sides are read at the same time.
            "commands/diff.rs",
        ],
        because: "in a simulated world there is one thread: let the pipe or the host run it",
    },
];

#[test]
fn names_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    let mut seen = vec![0; RULES.len()];
    for file in sources::all() {
        for (rule, seen) in RULES.iter().zip(&mut seen) {
            for name in rule.names {
                for at in whole_words(&file.code, name) {
                    match rule.only.iter().any(|only| file.path.starts_with(only)) {
                        true => *seen += 1,
                        false => wrong.push(format!(
                            "src/{}:{}: {name}: {}",
                            file.path,
                            file.line_of(at),
                            rule.because
                        )),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // A rule whose names are nowhere holds nothing.
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}
