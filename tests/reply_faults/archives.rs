//! Archives that claim what they do not hold: every verb that reads one ends in bounded memory and
//! time, without a panic, and never calls a damaged one good.

use std::path::Path;
use std::time::Duration;

use super::judge::MEMORY_KIB;
use super::scenario::Guard;
use super::variable;
use crate::support::hostile_archives::{Hostile, Verdict, all};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// How long one run may take, on a busy machine and without optimisation.
const LIMIT: Duration = Duration::from_secs(90);

/// What is asked of each archive, its file taking the place of FILE, and DEST of a server. With
/// `--json`, which says everything that is said without, and more of it one by one.
const QUESTIONS: [&str; 11] = [
    "verify FILE",
    "verify --quick FILE",
    "list FILE",
    "inspect FILE",
    "report FILE -o OUT",
    "salvage FILE -o OUT",
    "convert FILE OUT --to jsonl --json",
    "convert FILE OUT --to rdb --for redis-7.0",
    "import DEST FILE --json",
    "diff FILE DEST --json",
    "doctor DEST FILE --json",
];

/// Whether exit 0 or 3 of this question says that the whole archive is good.
fn vouches(question: &str) -> bool {
    // `salvage` and `inspect` say what there is, and `--quick` looks at checksums alone.
    let vague = ["salvage", "inspect", "verify --quick"];
    !vague.iter().any(|begin| question.starts_with(begin))
}

/// Whether an archive takes so long that only the whole matrix asks for it.
fn is_heavy(hostile: &Hostile) -> bool {
    hostile.largest_bytes > 100 << 20 || hostile.name == "types-65536"
}

fn ask(question: &str, file: &Path, out: &Path, server: &TestServer) -> (Output, bool) {
    let url = server.url();
    let place = |word: &str| match word {
        "FILE" => file.to_str().expect("UTF-8").to_owned(),
        "OUT" => out.to_str().expect("UTF-8").to_owned(),
        "DEST" => url.clone(),
        word => word.to_owned(),
    };
    let arguments: Vec<String> = question.split(' ').map(place).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut running = Tool::new(&arguments).stdout_null().spawn();
    let guard = Guard::over(running.pid(), LIMIT);
    let output = running.wait();
    (output, guard.disarm())
}

/// What is wrong with an answer.
fn judge(hostile: &Hostile, question: &str, output: &Output, timed_out: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let most = MEMORY_KIB + hostile.largest_bytes / 1024;
    if output.peak_memory_kib > most {
        wrong.push(format!(
            "takes {} KiB, more than {most}",
            output.peak_memory_kib
        ));
    }
    if timed_out {
        wrong.push(format!("takes longer than {LIMIT:?}"));
        return wrong;
    }
    let last = output.stderr.lines().last().unwrap_or("");
    if output.stderr.contains("panicked") || output.stderr.contains("a mistake of the program") {
        wrong.push(format!("panics, or blames itself: {last}"));
    }
    match (output.code(), hostile.verdict) {
        (None, _) => wrong.push(format!("ends by {}", output.status)),
        (Some(0), Verdict::Damaged) if vouches(question) => {
            wrong.push("exit 0 for a damaged archive".to_owned());
        }
        (Some(0 | 1 | 3 | 5 | 10 | 13), _) => {}
        (Some(code), _) => wrong.push(format!("ends with {code}: {last}")),
    }
    wrong
}

#[test]
fn no_archive_takes_memory_or_time_without_bound() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let only = variable("HOSTILE_ONLY").unwrap_or_default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (file, out) = (
        directory.path().join("in.rmz"),
        directory.path().join("out"),
    );
    let mut wrong = Vec::new();
    let whole = variable("REPLY_FAULTS").is_some() || !only.is_empty();
    for hostile in all() {
        if is_heavy(&hostile) && !whole {
            continue;
        }
        std::fs::write(&file, &hostile.bytes).expect("a file");
        for question in QUESTIONS {
            let name = format!("{}: {question}", hostile.name);
            if !name.contains(&only) {
                continue;
            }
            redis::cmd("FLUSHALL")
                .exec(&mut server.client())
                .expect("an empty server");
            let (output, timed_out) = ask(question, &file, &out, &server);
            let _ = std::fs::remove_file(&out);
            for text in judge(&hostile, question, &output, timed_out) {
                eprintln!("{name}: {text}");
                wrong.push(format!("{name}: {text}"));
            }
            if variable("HOSTILE_TIMES").is_some() {
                let (took, peak) = (output.elapsed, output.peak_memory_kib);
                eprintln!("{name}: {} {took:?} {peak} KiB", output.status);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
