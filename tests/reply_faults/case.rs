//! One run of the matrix, its name, and all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scenario::{Faults, Scenario, Verb};
use super::world::Pair;
use crate::support::answers::Answer;
use crate::support::resp_proxy::Rule;

/// On which side a command is answered otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Source,
    Destination,
}

/// Whether the command is carried out, and which of its replies is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    Run,
    NotRun,
    /// Within a transaction: run, and its element of the reply to EXEC is changed.
    InExec,
}

impl How {
    const ALL: [Self; 3] = [Self::Run, Self::NotRun, Self::InExec];

    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::NotRun => "not-run",
            Self::InExec => "in-exec",
        }
    }
}

/// One run: `redis-7.0/import-skip/dest/SELECT/2x1/NOPERM/not-run`.
#[derive(Clone, Debug)]
pub struct Case {
    pub pair: Pair,
    pub scenario: &'static Scenario,
    pub side: Side,
    pub command: String,
    pub from: u32,
    pub times: u32,
    pub answer: Answer,
    pub how: How,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Source => "source",
            Side::Destination => "dest",
        };
        let times = match self.times {
            u32::MAX => "always".to_owned(),
            times => times.to_string(),
        };
        let (pair, scenario, command) = (self.pair.name(), self.scenario.name, &self.command);
        let (from, answer, how) = (self.from, self.answer.name(), self.how.name());
        write!(
            f,
            "{pair}/{scenario}/{side}/{command}/{from}x{times}/{answer}/{how}"
        )
    }
}

impl Case {
    /// Reads what [`Self::fmt`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let [pair, scenario, side, command, occurrence, answer, how] = parts[..] else {
            return None;
        };
        let (from, times) = occurrence.split_once('x')?;
        Some(Self {
            pair: Pair::by_name(pair)?,
            scenario: Scenario::by_name(scenario)?,
            side: match side {
                "source" => Side::Source,
                "dest" => Side::Destination,
                _ => return None,
            },
            command: command.to_owned(),
            from: from.parse().ok()?,
            times: match times {
                "always" => u32::MAX,
                times => times.parse().ok()?,
            },
            answer: Answer::by_name(answer)?,
            how: How::ALL.into_iter().find(|known| known.name() == how)?,
        })
    }

    pub fn faults(&self) -> Faults {
        let rule = Rule {
            command: self.command.clone(),
            from: self.from,
            times: self.times,
            answer: self.answer,
            executed: self.how != How::NotRun,
            in_exec: self.how == How::InExec,
            // The tool is run with a timeout of one second.
            delay: Duration::from_millis(1300),
        };
        match self.side {
            Side::Source => Faults {
                source: vec![rule],
                ..Faults::default()
            },
            Side::Destination => Faults {
                destination: vec![rule],
                ..Faults::default()
            },
        }
    }

    /// Whether a command is refused from the beginning and for good.
    pub fn is_lasting(&self) -> bool {
        let (always, refused) = (self.times == u32::MAX, self.how == How::NotRun);
        self.from == 1 && always && refused && self.answer.is_error()
    }

    /// How long it may take at most.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(45)
    }

    /// What it shares with others that fail for the same reason.
    pub fn group(&self) -> (Verb, String, &'static str) {
        let command = self.command.clone();
        (self.scenario.verb, command, self.answer.name())
    }
}

/// Commands that change nothing: whether they are carried out makes no difference.
const READING: [&str; 28] = [
    "SCAN",
    "DUMP",
    "TYPE",
    "PTTL",
    "PEXPIRETIME",
    "HPEXPIRETIME",
    "TIME",
    "DBSIZE",
    "EXISTS",
    "PING",
    "INFO",
    "CONFIG",
    "COMMAND",
    "MODULE",
    "XINFO",
    "OBJECT",
    "MEMORY",
    "ACL",
    "ROLE",
    "WAIT",
    "STRLEN",
    "LLEN",
    "SCARD",
    "HLEN",
    "ZCARD",
    "XLEN",
    "ECHO",
    "CLUSTER",
];

fn changes_something(command: &str) -> bool {
    let word = command.rsplit(':').next().unwrap_or(command);
    let first = word.split('.').next().unwrap_or(word);
    let reads = matches!(word, "FUNCTION.DUMP" | "FUNCTION.LIST" | "CLIENT.ID");
    !reads && !READING.contains(&first)
}

/// Every way to answer a command that comes `count` times.
fn ways(command: &str, count: u32) -> Vec<(u32, u32, Answer, How)> {
    let in_multi = command.starts_with("MULTI:");
    let changes = changes_something(command);
    let late = (count * 4).div_ceil(5).max(1);
    let mut single: Vec<u32> = match command {
        // The database decides where everything goes: each of them.
        "SELECT" => (1..=count.min(8)).collect(),
        _ => vec![1, 2, late],
    };
    single.retain(|from| *from <= count);
    single.sort_unstable();
    single.dedup();
    let mut all = Vec::new();
    for answer in Answer::ALL {
        let mut occurrences: Vec<(u32, u32)> = single.iter().map(|from| (*from, 1)).collect();
        match answer {
            Answer::Late => occurrences.retain(|(from, _)| *from == 1 || *from == late),
            _ if answer.asks_for_patience() => occurrences.push((1, 3)),
            _ => {}
        }
        if answer != Answer::Late {
            occurrences.push((1, u32::MAX));
            if late > 1 {
                occurrences.push((late, u32::MAX));
            }
        }
        for (from, times) in occurrences {
            for how in how(answer, changes, in_multi) {
                all.push((from, times, answer, how));
            }
        }
    }
    all
}

fn how(answer: Answer, changes: bool, in_multi: bool) -> Vec<How> {
    let mut all = match answer {
        Answer::Late | Answer::CloseWithin | Answer::CloseAfter => vec![How::Run],
        Answer::CloseBefore if changes => vec![How::Run, How::NotRun],
        Answer::CloseBefore => vec![How::NotRun],
        // It is the right answer there.
        Answer::Queued if in_multi => vec![],
        _ if in_multi && answer.is_error() => vec![How::NotRun],
        _ if in_multi => vec![How::Run, How::NotRun],
        _ if changes => vec![How::Run, How::NotRun],
        _ if answer.is_error() => vec![How::NotRun],
        _ => vec![How::Run],
    };
    if in_multi && !answer.closes() && answer != Answer::Late {
        all.push(How::InExec);
    }
    all
}

/// Commands and how often they came, at the source and at the destination.
pub type Seen = [BTreeMap<String, u32>; 2];

/// All cases of one scenario, of which a run without faults sent `seen`.
pub fn cases(pair: Pair, scenario: &'static Scenario, seen: &Seen) -> Vec<Case> {
    let mut all = Vec::new();
    for (side, counts) in [Side::Source, Side::Destination].into_iter().zip(seen) {
        for (command, count) in counts {
            for (from, times, answer, how) in ways(command, *count) {
                all.push(Case {
                    pair,
                    scenario,
                    side,
                    command: command.clone(),
                    from,
                    times,
                    answer,
                    how,
                });
            }
        }
    }
    all
}
