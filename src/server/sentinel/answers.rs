//! What the answers of sentinels mean together. No I/O.

use crate::endpoint::{NodeAddress, Sentinels};
use crate::server::ServerError;

/// What one sentinel says when it is asked for the primary.
#[derive(Debug)]
pub(super) enum Answer {
    /// Where it is.
    Primary(NodeAddress),
    /// It does not know the name; these it knows.
    Unknown(Vec<String>),
    /// It does not let us in, or does not let us ask.
    Forbidden(ServerError),
    /// It does not answer, or not as a sentinel does.
    Silent(String),
}

/// What the sentinels say of a primary that was found by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Every sentinel that answers still names it.
    Named,
    /// Whoever connects now is sent to this one.
    Replaced(String),
    /// Some name it, and at least one names this other one.
    Disputed(String),
    /// Nobody answers, and why.
    Unknown(String),
}

/// What they say of the server that they named before, which `is_same` recognizes. The first that
/// answers is the one that connections go by.
pub(super) fn judge(
    answers: impl IntoIterator<Item = (NodeAddress, Answer)>,
    is_same: impl Fn(&NodeAddress) -> bool,
) -> Standing {
    let mut silent = Vec::new();
    let mut is_named = false;
    for (sentinel, answer) in answers {
        match answer {
            Answer::Primary(named) if is_same(&named) => is_named = true,
            Answer::Primary(named) if is_named => return Standing::Disputed(named.to_string()),
            Answer::Primary(named) => return Standing::Replaced(named.to_string()),
            Answer::Unknown(_) => silent.push(format!("{sentinel}: it does not know the name")),
            Answer::Forbidden(error) => silent.push(format!("{sentinel}: {}", error.words())),
            Answer::Silent(reason) => silent.push(format!("{sentinel}: {reason}")),
        }
    }
    match is_named {
        true => Standing::Named,
        false => Standing::Unknown(silent.join("; ")),
    }
}

/// Looks for the primary: one sentinel after the other is asked, until one knows it.
#[derive(Debug, Default)]
pub(super) struct Search {
    forbidden: Option<ServerError>,
    /// The names that they know, if any of them answered.
    watched: Option<Vec<String>>,
    silent: Vec<String>,
}

impl Search {
    /// One answered: where the primary is, if that is known now.
    pub(super) fn on(&mut self, sentinel: &NodeAddress, answer: Answer) -> Option<NodeAddress> {
        match answer {
            Answer::Primary(node) => return Some(node),
            Answer::Unknown(names) => self.watched.get_or_insert_default().extend(names),
            Answer::Forbidden(error) => {
                self.forbidden.get_or_insert(error);
            }
            Answer::Silent(reason) => self.silent.push(format!("{sentinel}: {reason}")),
        }
        None
    }

    /// None of them knew.
    pub(super) fn failed(self, sentinels: &Sentinels) -> ServerError {
        if let Some(error) = self.forbidden {
            return error;
        }
        let reason = match self.watched {
            Some(mut names) => {
                names.sort();
                names.dedup();
                let names = match names.as_slice() {
                    [] => "nothing".to_owned(),
                    names => names.join(", "),
                };
                format!("the sentinels know no primary of this name; they watch {names}")
            }
            None => format!("no sentinel answers ({})", self.silent.join("; ")),
        };
        ServerError::Connect {
            address: sentinels.to_string(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind of answer, for all combinations of them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Same,
        Other,
        Unknown,
        Forbidden,
        Silent,
    }

    const KINDS: [Kind; 5] = [
        Kind::Same,
        Kind::Other,
        Kind::Unknown,
        Kind::Forbidden,
        Kind::Silent,
    ];

    fn node(host: &str, port: u16) -> NodeAddress {
        NodeAddress {
            host: host.to_owned(),
            port,
        }
    }

    fn answer(kind: Kind) -> Answer {
        match kind {
            Kind::Same => Answer::Primary(node("h", 1)),
            Kind::Other => Answer::Primary(node("h", 2)),
            Kind::Unknown => Answer::Unknown(vec!["other".to_owned()]),
            Kind::Forbidden => Answer::Forbidden(ServerError::Auth {
                address: "s".to_owned(),
                reason: "NOAUTH".to_owned(),
            }),
            Kind::Silent => Answer::Silent("refused".to_owned()),
        }
    }

    /// The answers of up to three sentinels, in every combination and order.
    fn combinations() -> Vec<Vec<Kind>> {
        let mut all = vec![Vec::new()];
        let mut last = all.clone();
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|kinds| KINDS.map(|kind| [kinds.as_slice(), &[kind]].concat()))
                .collect();
            all.extend(last.clone());
        }
        assert_eq!(all.len(), 1 + 5 + 25 + 125);
        all
    }

    #[test]
    fn one_that_names_another_is_enough_to_doubt_and_silence_is_not() {
        for kinds in combinations() {
            let answers = kinds
                .iter()
                .zip(1..)
                .map(|(&kind, port)| (node("s", port), answer(kind)));
            let standing = judge(answers, |named| named.port == 1);
            let named: Vec<Kind> = kinds
                .iter()
                .copied()
                .filter(|kind| matches!(kind, Kind::Same | Kind::Other))
                .collect();
            let other = "h:2".to_owned();
            match named.as_slice() {
                [] => {
                    let Standing::Unknown(why) = standing else {
                        panic!("{kinds:?}: {standing:?}");
                    };
                    // Each of them is named, with its reason.
                    let mut sentinels = (1..).take(kinds.len());
                    assert!(
                        sentinels.all(|port| why.contains(&format!("s:{port}: "))),
                        "{why}"
                    );
                    assert_eq!(why.contains("NOAUTH"), kinds.contains(&Kind::Forbidden));
                }
                // Connections go by the first that answers.
                [Kind::Other, ..] => assert_eq!(standing, Standing::Replaced(other), "{kinds:?}"),
                names if names.contains(&Kind::Other) => {
                    assert_eq!(standing, Standing::Disputed(other), "{kinds:?}");
                }
                _ => assert_eq!(standing, Standing::Named, "{kinds:?}"),
            }
        }
    }

    #[test]
    fn the_first_that_knows_the_primary_decides() {
        let sentinels = Sentinels {
            nodes: vec![node("s", 1)],
            primary: "mine".to_owned(),
            tls: false,
        };
        for kinds in combinations() {
            let mut search = Search::default();
            let mut asked = kinds.iter().zip(1..);
            let found = asked.find_map(|(&kind, port)| search.on(&node("s", port), answer(kind)));
            let named = kinds
                .iter()
                .find(|kind| matches!(kind, Kind::Same | Kind::Other));
            if let Some(&kind) = named {
                let Answer::Primary(expected) = answer(kind) else {
                    unreachable!()
                };
                assert_eq!(found, Some(expected), "{kinds:?}");
                continue;
            }
            assert_eq!(found, None);
            // Wrong credentials come first, since whoever asks can mend them; then a wrong name.
            let error = search.failed(&sentinels);
            match error {
                ServerError::Auth { .. } => assert!(kinds.contains(&Kind::Forbidden), "{kinds:?}"),
                ServerError::Connect { reason, .. } => {
                    assert!(!kinds.contains(&Kind::Forbidden), "{kinds:?}");
                    let words = match kinds.contains(&Kind::Unknown) {
                        true => "they watch other",
                        false => "no sentinel answers",
                    };
                    assert!(reason.contains(words), "{kinds:?}: {reason}");
                }
                other => panic!("{kinds:?}: {other}"),
            }
        }
    }

    #[test]
    fn sentinels_that_watch_nothing_say_so() {
        let sentinels = Sentinels {
            nodes: Vec::new(),
            primary: "mine".to_owned(),
            tls: false,
        };
        let mut search = Search::default();
        for names in [
            vec![],
            vec!["b".to_owned(), "a".to_owned()],
            vec!["b".to_owned()],
        ] {
            let none = names.is_empty();
            search.on(&node("s", 1), Answer::Unknown(names));
            if none {
                let error = std::mem::take(&mut search).failed(&sentinels).to_string();
                assert!(error.contains("they watch nothing"), "{error}");
            }
        }
        let error = search.failed(&sentinels).to_string();
        assert!(error.contains("they watch a, b"), "{error}");
    }
}
