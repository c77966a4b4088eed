//! Are two connections to the same server? Where nothing else tells, a key does: it is written
//! through one and looked for through the other.
//!
//! The key has a name of the tool's own and expires by itself within seconds, in the same command
//! that writes it. So it also goes where the connection breaks.

use std::time::Duration;

use super::identity::Identity;
use super::{Conn, ServerError};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::payload::sign;
use crate::select::TEMP_KEY_PREFIX;
use crate::server::reply::{Reply, cmd};

/// How long the key stands at most, ms.
const EXPIRES_MS: u64 = 10_000;

/// How often it is looked for: who answers may lag behind.
const LOOKS: u32 = 4;

/// How many names are tried where nodes of a cluster say that they do not serve a slot.
const NAMES: u32 = 64;

/// How such a node begins its answer (cluster.c, `clusterRedirectClient`).
const MOVED: &str = "MOVED ";

/// The wait between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The string "1" as a DUMP payload of a version that every server takes.
fn payload() -> Vec<u8> {
    const VERSION: u16 = 9;
    sign(&[0, 0xC0, 1], VERSION)
}

/// What writes the key. Neither overwrites a key that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Restore,
    Set,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Done,
    /// The key stands already.
    Stands,
    /// Anything else, in words.
    Refused(String),
}

/// Writes a key at the destination and looks for it at the source, in the same database. `dbs`: the
/// databases to try in turn; `prefixes`: how names may have to begin, where a user is held to some.
///
/// That it is not seen proves something only if it stood at the destination all the while, so it is
/// written once more at the end, which has to be refused.
///
/// # Errors
/// The connections.
pub fn by_probe_key(
    source: &ConnectOptions,
    destination: &ConnectOptions,
    dbs: &[u32],
    prefixes: &[&[u8]],
) -> Result<Identity, ServerError> {
    let (mut source, mut destination) = (Conn::open(source)?, Conn::open(destination)?);
    let mut why = None;
    let mut beginnings: Vec<&[u8]> = vec![b""];
    beginnings.extend(prefixes.iter().filter(|prefix| !prefix.is_empty()));
    for (db, prefix) in dbs
        .iter()
        .flat_map(|db| beginnings.iter().map(move |prefix| (*db, *prefix)))
    {
        match at_these_nodes(&mut source, &mut destination, db, prefix)? {
            Identity::Unknown(words) => _ = why.get_or_insert(words),
            known => return Ok(known),
        }
    }
    Ok(Identity::Unknown(why.unwrap_or_default()))
}

/// Tries names until one has a slot that both nodes serve, where they are of clusters.
fn at_these_nodes(
    source: &mut Conn,
    destination: &mut Conn,
    db: u32,
    prefix: &[u8],
) -> Result<Identity, ServerError> {
    let mut tries = 0..NAMES;
    loop {
        let suffix = format!("probe:{:016x}", host::random());
        let name = [prefix, TEMP_KEY_PREFIX, suffix.as_bytes()].concat();
        match probe(source, destination, db, &name)? {
            Identity::Unknown(why) if why.contains(MOVED) && tries.next().is_some() => {}
            found => return Ok(found),
        }
    }
}

fn probe(
    source: &mut Conn,
    destination: &mut Conn,
    db: u32,
    key: &[u8],
) -> Result<Identity, ServerError> {
    for (conn, whose) in [(&mut *source, "source"), (&mut *destination, "destination")] {
        if let Err(text) = conn.select(db)? {
            return Ok(Identity::Unknown(format!(
                "the {whose} answers SELECT {db} with {text}"
            )));
        }
    }
    let mut by = By::Restore;
    let mut put = write(destination, by, key)?;
    if matches!(put, Put::Refused(_)) {
        by = By::Set;
        if let Put::Done = write(destination, by, key)? {
            put = Put::Done;
        }
    }
    if let Put::Refused(text) = &put
        && text.starts_with(MOVED)
    {
        return Ok(Identity::Unknown(format!(
            "the destination answers RESTORE with {text}"
        )));
    }
    // From here on it may stand.
    let looked = look(source, key);
    let again = write(destination, by, key);
    remove(destination, key)?;
    Ok(match (put, looked?, again?) {
        (_, Ok(true), _) => Identity::Same,
        (Put::Done, Ok(false), Put::Stands) => Identity::Another,
        (Put::Done, Ok(false), _) => {
            Identity::Unknown("the destination did not hold a key that it had accepted".to_owned())
        }
        (Put::Refused(text), Ok(false), _) => {
            Identity::Unknown(format!("the destination answers RESTORE with {text}"))
        }
        (Put::Stands, Ok(false), _) => {
            Identity::Unknown("the destination answers RESTORE with BUSYKEY".to_owned())
        }
        (_, Err(text), _) => Identity::Unknown(format!("the source answers PTTL with {text}")),
    })
}

fn write(conn: &mut Conn, by: By, key: &[u8]) -> Result<Put, ServerError> {
    let mut command = cmd(match by {
        By::Restore => "RESTORE",
        By::Set => "SET",
    });
    match by {
        By::Restore => command.arg(key).arg(EXPIRES_MS).arg(payload()),
        By::Set => command.arg(key).arg(1).arg("PX").arg(EXPIRES_MS).arg("NX"),
    };
    Ok(match (by, conn.ask(&command)?) {
        (_, Ok(Reply::Okay)) => Put::Done,
        (By::Set, Ok(Reply::Nil)) => Put::Stands,
        (By::Restore, Err(text)) if text.starts_with("BUSYKEY") => Put::Stands,
        (_, Err(text)) => Put::Refused(text),
        (_, Ok(other)) => Put::Refused(format!("{other:?}")),
    })
}

/// Whether the key stands; the inner error is why that is not known.
fn look(conn: &mut Conn, key: &[u8]) -> Result<Result<bool, String>, ServerError> {
    for turn in 0..LOOKS {
        if turn > 0 {
            host::sleep(PAUSE);
        }
        match conn.ask(cmd("PTTL").arg(key))? {
            Ok(Reply::Int(-2)) => continue,
            Ok(Reply::Int(-1..)) => return Ok(Ok(true)),
            odd => match conn.ask(cmd("EXISTS").arg(key))? {
                Ok(Reply::Int(0)) => continue,
                Ok(Reply::Int(1)) => return Ok(Ok(true)),
                _ => {
                    return Ok(Err(
                        odd.map_or_else(|text| text, |other| format!("{other:?}"))
                    ));
                }
            },
        }
    }
    Ok(Ok(false))
}

/// Takes the key away. Where nothing may be deleted it is replaced by one that is past its time.
fn remove(conn: &mut Conn, key: &[u8]) -> Result<(), ServerError> {
    if let Ok(Reply::Int(_)) = conn.ask(cmd("DEL").arg(key))? {
        return Ok(());
    }
    let mut restore = cmd("RESTORE");
    restore.arg(key).arg(1).arg(payload());
    restore.arg("REPLACE").arg("ABSTTL");
    // Refused, it expires by itself.
    conn.ask(&restore)?.ok();
    Ok(())
}
