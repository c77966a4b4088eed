//! Trying out what a destination accepts: payloads of every version and type are restored to keys
//! that end before they begin.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::dialect::{Dialect, is_common};
use crate::host;
use crate::payload::BackLengths;
use crate::payload::accept::{Accepts, Types, Versions};
use crate::payload::probe;
use crate::record::Family;
use crate::server::conn::asks_for_patience;
use crate::server::facts::Facts;
use crate::server::patience::{Patience, STEP};
use crate::server::reply::Reply;
use crate::server::resp::Item;
use crate::server::slots::{slot_of, tag_for_slot};
use crate::server::{Conn, ServerError};
use crate::sink::server::refusal::is_too_few_replicas;

/// How long replicas are waited for before anything was written: one that has just connected is
/// counted within a second or two (replication.c, refreshGoodSlavesCount).
pub(super) const REPLICAS_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a server that refuses with these words is to be asked again.
fn may_pass(patience: &mut Patience, text: &str) -> bool {
    match text {
        // Whether a cluster or a primary is there is for others to wait for.
        _ if text.starts_with("BUSY ") || text.starts_with("LOADING ") => patience.lasts(),
        _ if is_too_few_replicas(text) => patience.lasts_for(REPLICAS_PATIENCE),
        _ => false,
    }
}

/// Whether a refusal is about the payload and nothing else.
pub(super) fn is_about_payload(text: &str) -> bool {
    text.contains("DUMP payload version or checksum") || text.contains("Bad data format")
}

/// Names that nobody uses, to try things on.
#[derive(Debug)]
pub struct ProbeKeys {
    pub(super) plain: Vec<u8>,
    /// Begins like a key that the user may write.
    pub(super) alike: Vec<u8>,
    /// How long a server that is busy or loading is waited for; not at all by default.
    pub(super) patience: Duration,
}

impl ProbeKeys {
    /// Where `like` is a key that the user may write; in a cluster, which takes a node's own slots
    /// only, with a `slot` of the node.
    pub fn new(like: &[u8], slot: Option<u16>) -> Self {
        let name = format!("__redis-migrate:probe:{:016x}", host::random());
        let of = |start: &[u8], slot: Option<u16>| {
            let tag = slot.map_or_else(String::new, tag_for_slot);
            [start, tag.as_bytes(), name.as_bytes()].concat()
        };
        // A key with a tag keeps its slot, whatever comes behind it.
        let alike = of(like, None);
        let alike = match slot {
            Some(_) if slot_of(&alike) != slot_of(like) => of(like, Some(slot_of(like))),
            _ => alike,
        };
        Self {
            plain: of(b"", slot),
            alike,
            patience: Duration::ZERO,
        }
    }
}

/// What a try showed.
pub(super) enum Tried {
    /// What is accepted.
    Accepts(Accepts),
    /// Every RESTORE was refused with these words, whatever it carried.
    Refused(String),
    /// It says OK to a value of a type that nobody has: it does not look at what is past its time
    /// (Dragonfly, generic_family.cc, OpRestore; Kvrocks, cmd_server.cc, CommandRestore). The
    /// versions that it accepts, unless it says OK to one that nobody writes, too.
    Blind(Option<Versions>),
    /// The answers are about something else.
    Unclear,
}

/// What the answers to several RESTOREs showed.
enum Answers {
    /// Which were accepted.
    Each(Vec<bool>),
    Refused(String),
    Unclear,
}

/// Tries RESTORE; a server that asks for patience is waited for.
pub(super) fn try_out(
    conn: &mut Conn,
    facts: &Facts,
    key: &[u8],
    patience: &mut Patience,
) -> Result<Tried, ServerError> {
    let versions = match try_versions(conn, key, patience)? {
        Ok(versions) => versions,
        Err(tried) => return Ok(tried),
    };
    let Some(version) = versions.highest() else {
        return Ok(Tried::Unclear);
    };
    match restore_patiently(conn, key, &probe::nonsense(version), patience)? {
        Answers::Each(ok) if ok == [true, true] => return Ok(Tried::Blind(None)),
        Answers::Each(ok) if ok[0] => return Ok(Tried::Blind(Some(versions))),
        Answers::Each(_) => {}
        Answers::Refused(_) | Answers::Unclear => return Ok(Tried::Unclear),
    }
    let Some((types, family)) = try_types(conn, facts.family, key, version, patience)? else {
        return Ok(Tried::Unclear);
    };
    // A server that checks deeply takes one of the two only; one that does not gets what it writes.
    let by_version = Accepts::of_server(Dialect::of(family, facts.parsed_version()))
        .map_or(BackLengths::Early, |table| table.back_lengths);
    let both = [BackLengths::Early, BackLengths::Exact];
    let payloads = both.map(|lengths| probe::back_length_probe(lengths, version));
    let back_lengths = match restore_patiently(conn, key, &payloads, patience)? {
        Answers::Each(both) if both == [true, false] => BackLengths::Early,
        Answers::Each(both) if both == [false, true] => BackLengths::Exact,
        _ => by_version,
    };
    Ok(Tried::Accepts(Accepts {
        family,
        versions,
        types,
        modules: BTreeSet::new(),
        back_lengths,
        vector_layout: Accepts::vector_layout(facts.dialect()),
        answers: true,
    }))
}

/// The versions of footers that are accepted; `Err` inside is what the try showed instead.
fn try_versions(
    conn: &mut Conn,
    key: &[u8],
    patience: &mut Patience,
) -> Result<Result<Versions, Tried>, ServerError> {
    let payloads: Vec<Vec<u8>> = probe::versions().map(probe::version_probe).collect();
    Ok(match restore_patiently(conn, key, &payloads, patience)? {
        Answers::Each(answers) => Ok(probe::versions()
            .zip(answers)
            .filter_map(|(version, ok)| ok.then_some(version))
            .collect()),
        Answers::Refused(text) => Err(Tried::Refused(text)),
        Answers::Unclear => Err(Tried::Unclear),
    })
}

/// The types that are accepted, and the family whose numbers they are: that of the first type that
/// only one family has, where the server is of neither. `None` if the answers are about something
/// else.
fn try_types(
    conn: &mut Conn,
    family: Family,
    key: &[u8],
    version: u16,
    patience: &mut Patience,
) -> Result<Option<(Types, Family)>, ServerError> {
    let mut types = Types::default();
    let mut known_family = family;
    let families = match family {
        Family::Other => &[Family::Redis, Family::Valkey][..],
        _ => std::slice::from_ref(&family),
    };
    for &family in families {
        let probes = probe::type_probes(family, version);
        let payloads: Vec<Vec<u8>> = probes.iter().map(|(_, payload)| payload.clone()).collect();
        let Answers::Each(answers) = restore_patiently(conn, key, &payloads, patience)? else {
            return Ok(None);
        };
        for ((type_byte, _), ok) in probes.into_iter().zip(answers) {
            if ok {
                types.insert(type_byte);
                if !is_common(type_byte) && known_family == Family::Other {
                    known_family = family;
                }
            }
        }
    }
    Ok(Some((types, known_family)))
}

/// Offers payloads under a name that nobody has, past their time: the server looks at each completely
/// and keeps nothing. What it says of each: OK, or the words of an error. Whatever is neither (`QUEUED`,
/// nil) says nothing, and is given as words that are about no payload.
///
/// # Errors
/// The connection.
pub(super) fn offer_past(
    conn: &mut Conn,
    key: &[u8],
    payloads: &[&[u8]],
) -> Result<Vec<Result<(), String>>, ServerError> {
    for payload in payloads {
        queue_past(conn, key, payload)?;
    }
    conn.flush()?;
    payloads.iter().map(|_| Ok(said(conn.reply()?))).collect()
}

/// 1 ms after the epoch: checked completely, and gone before it was there.
fn queue_past(conn: &mut Conn, key: &[u8], payload: &[u8]) -> Result<(), ServerError> {
    conn.queue(&[b"RESTORE", key, b"1", payload, b"ABSTTL"])
}

fn said(answer: Result<Reply, String>) -> Result<(), String> {
    match answer? {
        Reply::Okay => Ok(()),
        odd => Err(format!("{odd:?}")),
    }
}

fn restore_patiently(
    conn: &mut Conn,
    key: &[u8],
    payloads: &[Vec<u8>],
    patience: &mut Patience,
) -> Result<Answers, ServerError> {
    loop {
        match restore_all(conn, key, payloads)? {
            Answers::Refused(text) if may_pass(patience, &text) => {
                host::sleep(STEP);
            }
            answers => return Ok(answers),
        }
    }
}

/// Which of `payloads` are accepted, in one round trip.
fn restore_all(conn: &mut Conn, key: &[u8], payloads: &[Vec<u8>]) -> Result<Answers, ServerError> {
    for payload in payloads {
        queue_past(conn, key, payload)?;
    }
    conn.flush()?;
    let mut answers = Vec::with_capacity(payloads.len());
    let mut refused: Option<String> = None;
    let (mut refusals, mut usable) = (0, true);
    for _ in payloads {
        match conn.item()? {
            Item::Simple(b"OK") => answers.push(true),
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text);
                if !is_about_payload(&text) {
                    refusals += 1;
                    refused.get_or_insert_with(|| text.into_owned());
                }
                answers.push(false);
            }
            Item::Simple(_) | Item::Int(_) | Item::Nil | Item::Bulk(_) => usable = false,
            _ => return Err(conn.confused("no answer to RESTORE")),
        }
    }
    Ok(match refused {
        Some(text) if refusals == payloads.len() || asks_for_patience(&text) => {
            Answers::Refused(text)
        }
        None if usable => Answers::Each(answers),
        _ => Answers::Unclear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction that somebody left open, a proxy: what is no answer says nothing for the payload
    /// and nothing against it.
    #[test]
    fn only_ok_says_that_a_payload_was_taken() {
        assert_eq!(said(Ok(Reply::Okay)), Ok(()));
        let queued = Reply::Status("QUEUED".to_owned());
        for odd in [queued, Reply::Nil, Reply::Int(1)] {
            let words = said(Ok(odd)).unwrap_err();
            assert!(!is_about_payload(&words), "{words}");
        }
        assert_eq!(
            said(Err("ERR Bad data format".to_owned())).unwrap_err(),
            "ERR Bad data format"
        );
    }
}
