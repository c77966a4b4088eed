//! Trying out what a destination accepts: payloads of every version and type are restored to keys
//! that end before they begin.

use std::collections::BTreeSet;

use crate::payload::BackLengths;
use crate::payload::accept::{Accepts, Types, Versions};
use crate::payload::probe;
use crate::record::Family;
use crate::server::facts::{Facts, Version};
use crate::server::identity::random;
use crate::server::resp::Item;
use crate::server::slots::{slot_of, tag_for_slot};
use crate::server::{Conn, ServerError};

/// Names that nobody uses, to try things on.
#[derive(Debug)]
pub struct ProbeKeys {
    pub(super) plain: Vec<u8>,
    /// Begins like a key that the user may write.
    pub(super) alike: Vec<u8>,
}

impl ProbeKeys {
    /// Where `like` is a key that the user may write; in a cluster, which takes a node's own slots
    /// only, with a `slot` of the node.
    pub fn new(like: &[u8], slot: Option<u16>) -> Self {
        let name = format!("__redis-migrate:probe:{:016x}", random());
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
        }
    }
}

/// `None` where RESTORE cannot be tried.
pub(super) fn try_out(
    conn: &mut Conn,
    facts: &Facts,
    key: &[u8],
) -> Result<Option<Accepts>, ServerError> {
    let family = facts.family;
    let versions: Vec<u16> = probe::versions().collect();
    let payloads: Vec<Vec<u8>> = versions
        .iter()
        .map(|&version| probe::version_probe(version))
        .collect();
    let Some(answers) = restore_all(conn, key, &payloads)? else {
        return Ok(None);
    };
    let accepted = versions
        .into_iter()
        .zip(answers)
        .filter_map(|(version, ok)| ok.then_some(version));
    let versions: Versions = accepted.collect();
    let Some(version) = versions.highest() else {
        return Ok(None);
    };
    let mut types = Types::default();
    let mut known_family = family;
    let families = match family {
        Family::Other => &[Family::Redis, Family::Valkey][..],
        _ => std::slice::from_ref(&family),
    };
    for &family in families {
        let probes = probe::type_probes(family, version);
        let payloads: Vec<Vec<u8>> = probes.iter().map(|(_, payload)| payload.clone()).collect();
        let Some(answers) = restore_all(conn, key, &payloads)? else {
            return Ok(None);
        };
        for ((type_byte, _), ok) in probes.into_iter().zip(answers) {
            if ok {
                types.insert(type_byte);
                if type_byte >= 22 && known_family == Family::Other {
                    known_family = family;
                }
            }
        }
    }
    // A server that checks deeply takes one of the two only; one that does not gets what it writes.
    let Version { major, minor, .. } = facts.parsed_version();
    let by_version = Accepts::of_server(known_family, u32::from(major), u32::from(minor))
        .map_or(BackLengths::Early, |table| table.back_lengths);
    let both = [BackLengths::Early, BackLengths::Exact];
    let payloads = both.map(|lengths| probe::back_length_probe(lengths, version));
    let back_lengths = match restore_all(conn, key, &payloads)?.as_deref() {
        Some([true, false]) => BackLengths::Early,
        Some([false, true]) => BackLengths::Exact,
        _ => by_version,
    };
    Ok(Some(Accepts {
        family: known_family,
        versions,
        types,
        modules: BTreeSet::new(),
        back_lengths,
    }))
}

/// Which of `payloads` are accepted; `None` if that is not what the answers are about.
fn restore_all(
    conn: &mut Conn,
    key: &[u8],
    payloads: &[Vec<u8>],
) -> Result<Option<Vec<bool>>, ServerError> {
    for payload in payloads {
        // 1 ms after the epoch: checked completely, and gone before it was there.
        conn.queue(&[b"RESTORE", key, b"1", payload, b"ABSTTL"])?;
    }
    conn.flush()?;
    let mut answers = Vec::with_capacity(payloads.len());
    let mut usable = true;
    for _ in payloads {
        match conn.item()? {
            Item::Simple(_) => answers.push(true),
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text);
                usable &= text.contains("DUMP payload version or checksum")
                    || text.contains("Bad data format");
                answers.push(false);
            }
            _ => usable = false,
        }
    }
    Ok(usable.then_some(answers))
}
