//! Servers that want to hurt: each verb ends in bounded memory and time, with a word, and what it
//! says is as true as ever.

use super::case::{Case, How, Seen, Side};
use super::scenario::Scenario;
use super::world::Pair;
use crate::support::answers::Answer;

/// Which answers a command may have that hurt.
fn answers(command: &str) -> Vec<Answer> {
    let mut all = Answer::HOSTILE.to_vec();
    all.retain(|answer| match answer {
        Answer::SameCursor | Answer::EndlessPage => command == "SCAN",
        Answer::HugeString | Answer::HugeLzf | Answer::EndlessSnapshot => command == "PSYNC",
        // It takes as long as the tool allows.
        Answer::Trickle => matches!(command, "PING" | "INFO" | "SCAN" | "EXEC" | "RESTORE"),
        _ => true,
    });
    all
}

/// The scenarios in which all commands come up.
pub const SCENARIOS: [&str; 9] = [
    "export",
    "export-replica",
    "import-replace",
    "import-commands",
    "copy-verify",
    "diff-same",
    "against-same",
    "doctor",
    "doctor-source",
];

/// Every command of a scenario, answered so from its first or from a later occurrence on.
pub fn cases(pair: Pair, scenario: &'static Scenario, seen: &Seen) -> Vec<Case> {
    let mut all = Vec::new();
    for (side, counts) in [Side::Source, Side::Destination].into_iter().zip(seen) {
        for (command, count) in counts {
            for answer in answers(command) {
                for from in [1, count.div_ceil(2)] {
                    if from == 1 || answer == Answer::EndlessBulk || answer == Answer::SameCursor {
                        all.push(Case {
                            pair,
                            scenario,
                            side,
                            command: command.clone(),
                            from,
                            times: u32::MAX,
                            answer,
                            how: How::Run,
                        });
                    }
                }
            }
        }
    }
    all.sort_by_key(ToString::to_string);
    all.dedup_by_key(|case| case.to_string());
    all
}
