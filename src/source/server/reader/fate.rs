//! What the answers for one key mean.

use crate::record::Eviction;
use crate::server::cluster::Redirect;
use crate::server::conn::asks_for_patience;
use crate::server::stands_by_expiry;

/// A key whose payload comes next.
#[derive(Debug)]
pub(super) struct OpenKey {
    pub key: Vec<u8>,
    pub expiry: Expiry,
    pub eviction: Option<Eviction>,
}

/// What the server says of when a key expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::server) enum Expiry {
    /// It never does.
    None,
    /// There is no such key.
    Gone,
    Refused,
    /// Refused for now, in these words.
    Later(String),
    /// At this moment (Unix ms).
    At(u64),
    /// Some time remains, but the server stood still when it was asked what its clock says.
    Blurred,
    /// Another node has to be asked.
    Elsewhere(Redirect),
}

impl Expiry {
    /// The moment was computed from two answers with too long a time between them.
    pub fn blur(&mut self) {
        if matches!(self, Self::At(_)) {
            *self = Self::Blurred;
        }
    }

    /// Whether it is the same moment, where one of them may be known as remaining time only.
    fn is(&self, other: &Self, tolerance_ms: u64) -> bool {
        match (self, other) {
            (Self::At(one), Self::At(other)) => one.abs_diff(*other) <= tolerance_ms,
            (Self::None, Self::None) | (Self::Gone, Self::Gone) => true,
            (Self::Refused, Self::Refused) => true,
            _ => false,
        }
    }
}

/// What DUMP answered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::server) enum Dumped {
    Payload(Vec<u8>),
    /// So many bytes, more than is taken.
    TooLong(u64),
    /// That there is no such key, at this moment of the server's clock (Unix ms).
    Nothing {
        now_ms: u64,
    },
    Refused(String),
}

/// A value with all that belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::server) struct Dump {
    pub payload: Vec<u8>,
    /// Unix ms.
    pub expire_at_ms: Option<u64>,
    pub eviction: Option<Eviction>,
}

/// What becomes of a key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::server) enum Fate {
    Read(Dump),
    /// It is not there.
    Gone,
    /// It is there, and DUMP answers as if it were not. Garnet dumps strings only and answers for
    /// every other type as if there were no key (KeyAdminCommands.cs, NetworkDUMP).
    Withheld,
    /// In the server's words.
    Refused(String),
    /// When it expires cannot be read.
    ExpiryUnknown,
    /// Its value has so many bytes, which is more than is taken.
    TooLong(u64),
    /// This node does not answer for it.
    Elsewhere(Redirect),
}

impl Fate {
    /// How large the reply was, for guesses about the next ones; `None` where it says nothing.
    pub fn reply_bytes(&self) -> Option<usize> {
        match self {
            Self::Read(dump) => Some(dump.payload.len()),
            Self::TooLong(bytes) => Some(usize::try_from(*bytes).unwrap_or(usize::MAX)),
            Self::Gone | Self::Withheld => Some(0),
            Self::Refused(_) | Self::ExpiryUnknown | Self::Elsewhere(_) => None,
        }
    }
}

/// What the answers for a key come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Settled(Fate),
    /// It changed between the question for its expiry and the one for its value, which are no pair.
    Changed,
    /// The server asks for patience, in these words.
    Later(String),
    /// The server loads another dataset: whatever it says says nothing of the key.
    Loading(String),
}

/// By which rules answers are judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::source::server) struct Terms {
    /// By how much two readings of one expiry may differ.
    pub tolerance_ms: u64,
    pub in_cluster: bool,
}

impl Terms {
    /// Whether an error is one after which the same may work in a while. A node of a cluster that
    /// does not serve a slot, or has lost its primary, is left for another.
    pub fn may_pass(self, text: &str) -> bool {
        const OF_CLUSTERS: [&str; 3] = ["MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];
        let elsewhere = self.in_cluster && OF_CLUSTERS.iter().any(|code| text.starts_with(code));
        asks_for_patience(text) && !is_loading(text) && !elsewhere
    }

    fn redirect(self, dumped: &Dumped) -> Option<Redirect> {
        match dumped {
            Dumped::Refused(text) if self.in_cluster => Redirect::parse(text),
            _ => None,
        }
    }
}

pub(super) fn is_loading(text: &str) -> bool {
    text.starts_with("LOADING")
}

/// What becomes of a key: its expiry as it was asked for before the value, the value, and, where
/// the three are not of one transaction, the expiry as it was asked for after it.
pub(super) fn judge(
    mut expiry: Expiry,
    eviction: Option<Eviction>,
    dumped: Dumped,
    after: Option<Expiry>,
    terms: Terms,
) -> Judgement {
    if let Some(refused) = refused_for_now(&expiry, &dumped, after.as_ref(), terms) {
        return refused;
    }
    if expiry == Expiry::Blurred {
        return Judgement::Changed;
    }
    let mut stood_behind = false;
    if let Some(after) = after {
        let is_same = after.is(&expiry, terms.tolerance_ms);
        if matches!(after, Expiry::Elsewhere(_)) {
            expiry = after;
        } else if !is_same && !matches!(dumped, Dumped::Refused(_)) {
            return Judgement::Changed;
        } else if let (Expiry::At(at_ms), Expiry::At(after_ms)) = (&mut expiry, &after) {
            // TIME is asked before what remains: of two, the later is nearer to the truth.
            *at_ms = (*at_ms).max(*after_ms);
            stood_behind = true;
        }
    }
    let redirect = match &expiry {
        Expiry::Elsewhere(redirect) => Some(redirect.clone()),
        _ => terms.redirect(&dumped),
    };
    Judgement::Settled(match redirect {
        Some(redirect) => Fate::Elsewhere(redirect),
        // Whatever its clock says: what expires later than DUMP was asked for had not expired then.
        None if stood_behind && matches!(dumped, Dumped::Nothing { .. }) => Fate::Withheld,
        None => settled(&expiry, eviction, dumped),
    })
}

/// Whether the server asks for patience before it answers for the key.
fn refused_for_now(
    expiry: &Expiry,
    dumped: &Dumped,
    after: Option<&Expiry>,
    terms: Terms,
) -> Option<Judgement> {
    let text = match (expiry, dumped, after) {
        (Expiry::Later(text), _, _) | (_, _, Some(Expiry::Later(text))) => text,
        (_, Dumped::Refused(text), _) => text,
        _ => return None,
    };
    if is_loading(text) {
        return Some(Judgement::Loading(text.clone()));
    }
    terms.may_pass(text).then(|| Judgement::Later(text.clone()))
}

fn settled(expiry: &Expiry, eviction: Option<Eviction>, dumped: Dumped) -> Fate {
    let payload = match dumped {
        Dumped::Payload(payload) => payload,
        Dumped::Nothing { now_ms } if stands(expiry, now_ms) => return Fate::Withheld,
        Dumped::Nothing { .. } => return Fate::Gone,
        Dumped::Refused(text) => return Fate::Refused(text),
        Dumped::TooLong(bytes) => return Fate::TooLong(bytes),
    };
    let expire_at_ms = match expiry {
        Expiry::Gone => return Fate::Gone,
        Expiry::Refused | Expiry::Later(_) | Expiry::Blurred | Expiry::Elsewhere(_) => {
            return Fate::ExpiryUnknown;
        }
        Expiry::None => None,
        Expiry::At(at_ms) => Some(*at_ms),
    };
    Fate::Read(Dump {
        payload,
        expire_at_ms,
        eviction,
    })
}

/// Whether a key is there that DUMP says nothing of. Its expiry was read in the same transaction, or
/// is the same before and after.
fn stands(expiry: &Expiry, now_ms: u64) -> bool {
    match expiry {
        Expiry::None => stands_by_expiry(None, now_ms),
        Expiry::At(at_ms) => stands_by_expiry(Some(*at_ms), now_ms),
        Expiry::Gone | Expiry::Refused | Expiry::Later(_) => false,
        Expiry::Blurred | Expiry::Elsewhere(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Terms = Terms {
        tolerance_ms: 0,
        in_cluster: false,
    };

    const NODE: Terms = Terms {
        tolerance_ms: 0,
        in_cluster: true,
    };

    fn payload(text: &str) -> Dumped {
        Dumped::Payload(text.as_bytes().to_vec())
    }

    fn read(expire_at_ms: Option<u64>) -> Fate {
        Fate::Read(Dump {
            payload: b"1".to_vec(),
            expire_at_ms,
            eviction: None,
        })
    }

    fn error(text: &str) -> Dumped {
        Dumped::Refused(text.to_owned())
    }

    fn judged(expiry: Expiry, dumped: Dumped, after: Option<Expiry>, terms: Terms) -> Judgement {
        judge(expiry, None, dumped, after, terms)
    }

    fn settled(fate: Fate) -> Judgement {
        Judgement::Settled(fate)
    }

    #[test]
    fn what_answers_mean() {
        let nothing = || Dumped::Nothing { now_ms: 5_000 };
        let cases = [
            (Expiry::None, payload("1"), settled(read(None))),
            (Expiry::Gone, payload("1"), settled(Fate::Gone)),
            (Expiry::Blurred, payload("1"), Judgement::Changed),
            (Expiry::Refused, payload("1"), settled(Fate::ExpiryUnknown)),
            (Expiry::None, Dumped::TooLong(9), settled(Fate::TooLong(9))),
            (Expiry::Gone, nothing(), settled(Fate::Gone)),
            (Expiry::None, nothing(), settled(Fate::Withheld)),
            (Expiry::At(9_000), nothing(), settled(Fate::Withheld)),
            (Expiry::At(5_500), nothing(), settled(Fate::Gone)),
            (
                Expiry::None,
                error("NOPERM no"),
                settled(Fate::Refused("NOPERM no".to_owned())),
            ),
            (
                Expiry::Later("BUSY no".to_owned()),
                payload("1"),
                Judgement::Later("BUSY no".to_owned()),
            ),
            (
                Expiry::None,
                error("LOADING no"),
                Judgement::Loading("LOADING no".to_owned()),
            ),
        ];
        for (expiry, dumped, expected) in cases {
            let label = format!("{expiry:?} {dumped:?}");
            assert_eq!(judged(expiry, dumped, None, SERVER), expected, "{label}");
        }
    }

    /// Of two readings of an expiry the later is nearer to the truth, and too far apart they are two.
    #[test]
    fn value_and_expiry_are_a_pair_or_are_asked_for_again() {
        let near = Terms {
            tolerance_ms: 100,
            ..SERVER
        };
        for (before, after, expected) in [
            (1_000, 1_050, settled(read(Some(1_050)))),
            (1_050, 1_000, settled(read(Some(1_050)))),
            (1_000, 1_101, Judgement::Changed),
        ] {
            let after = Some(Expiry::At(after));
            let judged = judged(Expiry::At(before), payload("1"), after, near);
            assert_eq!(judged, expected);
        }
        // It expires soon, and had not expired behind a DUMP that knew nothing of it.
        let nothing = || Dumped::Nothing { now_ms: 5_000 };
        let soon = || Expiry::At(5_050);
        let withheld = judged(soon(), nothing(), Some(soon()), SERVER);
        assert_eq!(withheld, settled(Fate::Withheld));
        let changed = judged(soon(), nothing(), Some(Expiry::Gone), SERVER);
        assert_eq!(changed, Judgement::Changed);
        // A key that is refused is refused, whatever its expiry does.
        let refused = judged(Expiry::None, error("ERR no"), Some(Expiry::Gone), SERVER);
        assert_eq!(refused, settled(Fate::Refused("ERR no".to_owned())));
    }

    #[test]
    fn in_a_cluster_only_another_node_has_to_be_asked() {
        let moved = Redirect::parse("MOVED 1 127.0.0.1:7001").expect("a redirect");
        for (expiry, dumped, after) in [
            (Expiry::Elsewhere(moved.clone()), payload("1"), None),
            (Expiry::None, error("MOVED 1 127.0.0.1:7001"), None),
            (
                Expiry::None,
                payload("1"),
                Some(Expiry::Elsewhere(moved.clone())),
            ),
        ] {
            let elsewhere = settled(Fate::Elsewhere(moved.clone()));
            assert_eq!(judged(expiry, dumped, after, NODE), elsewhere);
        }
        let alone = judged(Expiry::None, error("MOVED 1 127.0.0.1:7001"), None, SERVER);
        assert!(matches!(alone, Judgement::Settled(Fate::Refused(_))));
    }

    /// A node that has lost its primary is left for another; a server is waited for.
    #[test]
    fn what_may_pass_is_waited_for() {
        let down = "MASTERDOWN Link with MASTER is down";
        assert!(SERVER.may_pass(down) && !NODE.may_pass(down));
        let busy = "BUSY Redis is busy";
        assert!(SERVER.may_pass(busy) && NODE.may_pass(busy));
        assert!(!SERVER.may_pass("LOADING no") && !SERVER.may_pass("ERR no"));
    }
}
