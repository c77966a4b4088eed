//! What is run: each verb, with each policy where it matters.

use std::time::Duration;

use serde_json::Value;

use super::data::{Crowd, Place};
use super::world::World;
use crate::support::resp_proxy::Rule;
use crate::support::tool::{Output, Tool};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Export,
    Import,
    Copy,
    Diff,
    Against,
    /// `doctor DEST ARCHIVE`.
    Doctor,
    /// `doctor --source SRC`.
    DoctorSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Fail,
    Skip,
    Replace,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Replace => "replace",
        }
    }
}

/// One way to run the tool.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub verb: Verb,
    pub policy: Policy,
    pub crowd: Crowd,
    /// More arguments, in one text.
    extra: &'static str,
    /// Whether keys come more than once in the archive.
    pub repeats: bool,
}

const fn scenario(
    name: &'static str,
    verb: Verb,
    policy: Policy,
    crowd: Crowd,
    extra: &'static str,
) -> Scenario {
    Scenario {
        name,
        verb,
        policy,
        crowd,
        extra,
        repeats: false,
    }
}

const fn repeating(scenario: Scenario) -> Scenario {
    Scenario {
        repeats: true,
        ..scenario
    }
}

pub const SCENARIOS: [Scenario; 34] = {
    use Crowd::{Beside, Empty, InTheWay, Same, Similar};
    use Policy::{Fail, Replace, Skip};
    use Verb::{Against, Copy, Diff, Doctor, DoctorSource, Export, Import};
    let again = "--consistency scan --resume";
    let until_idle = "--follow --until-idle 150ms";
    let commands = "--method commands";
    let recheck = "--recheck 0";
    [
        scenario("export", Export, Fail, Empty, ""),
        scenario("export-scan", Export, Fail, Empty, "--consistency scan"),
        scenario("export-pause", Export, Fail, Empty, "--consistency pause"),
        scenario("export-db", Export, Fail, Empty, "--db 1,3"),
        scenario("export-replica", Export, Fail, Empty, "--via replica"),
        scenario("export-resume", Export, Fail, Empty, again),
        scenario("import-fail", Import, Fail, Beside, ""),
        scenario("import-conflicts", Import, Fail, InTheWay, ""),
        scenario("import-skip", Import, Skip, InTheWay, ""),
        scenario("import-replace", Import, Replace, InTheWay, ""),
        scenario("import-jobs", Import, Replace, InTheWay, "--jobs 2"),
        scenario("import-verify", Import, Replace, InTheWay, "--verify"),
        scenario("import-commands", Import, Replace, InTheWay, commands),
        scenario("import-commands-fail", Import, Fail, Beside, commands),
        scenario("import-resume", Import, Skip, InTheWay, "--resume"),
        scenario("import-dry", Import, Replace, InTheWay, "--dry-run"),
        repeating(scenario("repeats-fail", Import, Fail, Beside, "")),
        repeating(scenario("repeats-skip", Import, Skip, Beside, "")),
        repeating(scenario("repeats-replace", Import, Replace, Beside, "")),
        repeating(scenario("repeats-resume", Import, Skip, Beside, "--resume")),
        scenario("copy-fail", Copy, Fail, Beside, ""),
        scenario("copy-skip", Copy, Skip, InTheWay, ""),
        scenario("copy-replace", Copy, Replace, InTheWay, ""),
        scenario("copy-verify", Copy, Replace, InTheWay, "--verify"),
        scenario("copy-commands", Copy, Replace, InTheWay, commands),
        scenario("copy-move", Copy, Skip, InTheWay, "--delete-source"),
        scenario(
            "copy-move-replace",
            Copy,
            Replace,
            InTheWay,
            "--delete-source",
        ),
        scenario("copy-follow", Copy, Replace, InTheWay, until_idle),
        scenario("diff-same", Diff, Fail, Same, recheck),
        scenario("diff-similar", Diff, Fail, Similar, recheck),
        scenario("against-same", Against, Fail, Same, recheck),
        scenario("against-similar", Against, Fail, Similar, recheck),
        scenario("doctor", Doctor, Fail, Beside, ""),
        scenario("doctor-source", DoctorSource, Fail, Empty, ""),
    ]
};

impl Scenario {
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    fn has(&self, flag: &str) -> bool {
        self.extra.split(' ').any(|word| word == flag)
    }

    /// Whether it writes to the destination.
    pub fn writes(&self) -> bool {
        matches!(self.verb, Verb::Import | Verb::Copy) && !self.has("--dry-run")
    }

    pub fn deletes_source(&self) -> bool {
        self.has("--delete-source")
    }

    pub fn resumes(&self) -> bool {
        self.has("--resume")
    }

    /// The exit code of a run without faults.
    pub fn code(&self) -> i32 {
        match (self.verb, self.crowd, self.policy) {
            (Verb::Diff | Verb::Against, Crowd::Similar, _) => 5,
            (Verb::Import | Verb::Copy, Crowd::InTheWay, Policy::Fail) => 3,
            _ => 0,
        }
    }

    /// Whether a database of the source takes part.
    pub fn wants_db(&self, db: u32) -> bool {
        !self.has("--db") || matches!(db, 1 | 3)
    }

    /// The arguments; `source` and `destination` are URLs.
    fn arguments(&self, world: &World, source: &str, destination: &str) -> Vec<String> {
        let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        let archive = path(world.archive_of(self));
        let mut all: Vec<String> = match self.verb {
            Verb::Export => vec!["export", source, "--scan-count", "5", "-v", "-o"],
            Verb::Import => vec!["import", destination, &archive, "-v"],
            Verb::Copy => vec!["copy", source, destination, "--scan-count", "5", "-v"],
            Verb::Diff => vec!["diff", source, destination],
            Verb::Against => vec!["verify", &archive, "--against", destination],
            Verb::Doctor => vec!["doctor", destination, &archive],
            Verb::DoctorSource => vec!["doctor", "--source", source],
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        if self.verb == Verb::Export {
            all.push(path(&world.file("made.rmz")));
        }
        if matches!(self.verb, Verb::Import | Verb::Copy) {
            all.extend(["--on-conflict".to_owned(), self.policy.name().to_owned()]);
        }
        for extra in self.extra.split_whitespace() {
            all.push(match extra {
                "--resume" if self.verb == Verb::Import => {
                    format!("--resume={}", path(&world.file("state")))
                }
                _ => extra.to_owned(),
            });
        }
        all.push("--json".to_owned());
        // Longer than three times "not now" take.
        let trying = ["--retries", "2", "--retry-for", "1s"];
        all.extend(trying.map(str::to_owned));
        all
    }

    /// Runs it once between the servers, with these rules in the way.
    pub fn run(&self, world: &World, faults: Faults, limit: Duration) -> Ran {
        let [source, destination] = &world.proxies;
        let mut arguments = self.arguments(world, &source.url(), &destination.url());
        // Only what is to fail is waited for shortly: a busy machine is slow, too.
        let [timeout, connecting] = match faults.source.is_empty() && faults.destination.is_empty()
        {
            true => ["20s", "20s"],
            false => ["1s", "2s"],
        };
        let waiting = ["--timeout", timeout, "--connect-timeout", connecting];
        arguments.extend(waiting.map(str::to_owned));
        source.begin(faults.source);
        destination.begin(faults.destination);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut running = Tool::new(&arguments).spawn();
        let guard = Guard::over(running.pid(), limit);
        let output = running.wait();
        let timed_out = guard.disarm();
        // All that went out has reached the servers, and was carried out.
        for proxy in &world.proxies {
            assert!(
                proxy.wait_until_quiet(Duration::from_secs(20)),
                "a connection does not end"
            );
        }
        Ran {
            events: events(&output),
            output,
            timed_out,
            fired: source.fired() + destination.fired(),
            seen: [source.seen(), destination.seen()],
        }
    }
}

/// The rules of the two proxies.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub source: Vec<Rule>,
    pub destination: Vec<Rule>,
}

/// Kills a process that takes too long.
pub struct Guard {
    done: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Guard {
    pub fn over(pid: u32, limit: Duration) -> Self {
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let is_late = ended.recv_timeout(limit) == Err(Timeout);
            if is_late {
                let mut kill = std::process::Command::new("kill");
                // It may have ended at this very moment.
                let _ = kill.args(["-9", &pid.to_string()]).status();
            }
            is_late
        });
        Self { done, thread }
    }

    /// Whether it had to act.
    pub fn disarm(self) -> bool {
        drop(self.done);
        self.thread.join().unwrap_or(true)
    }
}

/// What a run left.
pub struct Ran {
    pub output: Output,
    /// Every JSON object that was printed, on either stream.
    pub events: Vec<Value>,
    pub timed_out: bool,
    /// How often a rule was applied.
    pub fired: u32,
    /// The commands that came to the source and to the destination.
    pub seen: [std::collections::BTreeMap<String, u32>; 2],
}

fn events(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout.lines().chain(output.stderr.lines());
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

impl Ran {
    pub fn code(&self) -> Option<i32> {
        self.output.code()
    }

    fn of<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(move |object| object["event"] == event)
    }

    pub fn summary(&self) -> Option<&Value> {
        self.of("summary").last()
    }

    /// A number of the summary, such as `/sink/restored`; 0 where there is none.
    pub fn number(&self, pointer: &str) -> u64 {
        let value = self.summary().and_then(|summary| summary.pointer(pointer));
        value.and_then(Value::as_u64).unwrap_or(0)
    }

    /// The keys that it says failed.
    pub fn failures(&self) -> Vec<Place> {
        self.of("key_failed").filter_map(place).collect()
    }

    /// The keys that `diff` says differ.
    pub fn differences(&self) -> Vec<Place> {
        self.of("difference").filter_map(place).collect()
    }

    /// The keys that `diff` says could not be read.
    pub fn unread(&self) -> Vec<Place> {
        self.of("unread").filter_map(place).collect()
    }

    /// Warnings, errors and problems: all that it says went wrong.
    pub fn complaints(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for event in ["warning", "error"] {
            all.extend(self.of(event).map(|object| object["text"].to_string()));
        }
        if let Some(summary) = self.summary() {
            all.push(summary["problems"].to_string());
            all.push(summary["not_had"].to_string());
            all.push(summary["error"].to_string());
        }
        all.extend(self.output.stderr.lines().map(str::to_owned));
        all.join("\n")
    }
}

fn place(object: &Value) -> Option<Place> {
    let db = u32::try_from(object["db"].as_u64()?).ok()?;
    let key = match object["key_hex"].as_str() {
        Some(hex) => (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok())
            .collect::<Option<Vec<u8>>>()?,
        None => object["key"].as_str()?.as_bytes().to_vec(),
    };
    Some((db, key))
}
