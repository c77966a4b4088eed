//! What the destination would answer to the write of a key, asked without writing it.
//!
//! A server looks at a command's name, its keys, the user's rights, its own memory, role and
//! replicas before it looks at the arguments. So the very command that would write a key is sent
//! with an argument that no server accepts: the complaint about that argument says that everything
//! else is well, and any other error is what the run itself would be told. `--dry-run` and `doctor`
//! both ask this way, and both read the answer as the run does ([`super::refusal`]).
//!
//! A value that cannot be read here is offered as well, under a name that nobody has: the
//! destination alone knows whether it takes it ([`offer`]).
//!
//! Asking for every key would double the commands of a dry run. Which keys a user may write is
//! settled by patterns (ACL), so one key of each set of patterns stands for all keys that match
//! the same ones. Where the server does not tell its patterns, every key is asked about.

use std::collections::HashMap;

use super::prepare::{OpaqueKind, Ready, Target};
use super::try_out::{ProbeKeys, is_about_payload, offer_past};
use crate::glob::Glob;
use crate::payload::footer;
use crate::record::KeyRecord;
use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// An option that RESTORE and SET do not have.
const NO_OPTION: &[u8] = b"NOT-AN-OPTION";

/// By which command a key would get its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// RESTORE.
    Restore,
    /// RESTORE of a key that must not stand yet: asks that, too, where EXISTS is refused.
    RestoreNew,
    /// One SET.
    Set,
    /// RENAME of a value that is built under a temporary name.
    Rename,
}

impl Way {
    /// The command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Restore | Self::RestoreNew => "RESTORE",
            Self::Set => "SET",
            Self::Rename => "RENAME",
        }
    }

    /// Queues the question. Nothing is written, whatever the answer. `temp`: a temporary name of
    /// the key, which nobody has.
    ///
    /// # Errors
    /// The connection.
    pub fn queue(self, conn: &mut Conn, key: &[u8], temp: &[u8]) -> Result<(), ServerError> {
        match self {
            // The options are read before anything is done with the key (cluster.c, t_string.c).
            Self::Restore => conn.queue(&[b"RESTORE", key, b"1", b"", NO_OPTION]),
            // The key is looked for before the payload is looked at, which is none.
            Self::RestoreNew => conn.queue(&[b"RESTORE", key, b"1", b"", b"ABSTTL"]),
            Self::Set => conn.queue(&[b"SET", key, b"", NO_OPTION]),
            // Nothing is there to be renamed (db.c, renameGenericCommand).
            Self::Rename => conn.queue(&[b"RENAME", temp, key]),
        }
    }

    /// Whether an error reply to the question says that the key could be written.
    pub fn is_open(self, text: &str) -> bool {
        match self {
            Self::Set => text.starts_with("ERR syntax error"),
            // Dragonfly looks at the payload before it looks at the options (generic_family.cc).
            Self::Restore => {
                text.starts_with("ERR syntax error")
                    || text.contains("DUMP payload version or checksum")
            }
            Self::RestoreNew => text.contains("DUMP payload version or checksum"),
            Self::Rename => text.starts_with("ERR no such key"),
        }
    }
}

/// Offers a value that cannot be read here and was made ready for this destination: the server's
/// words, if it does not take it. It is restored to a name that nobody has, and past its time: the
/// server looks at it completely and keeps nothing. Of a kind that was taken before it is not asked
/// again. Answers that are about something else say nothing.
///
/// # Errors
/// The connection.
pub fn offer(
    conn: &mut Conn,
    target: &mut Target,
    kind: OpaqueKind,
    record: &KeyRecord,
    ready: Ready,
) -> Result<Option<String>, ServerError> {
    if target.has_taken(&kind) {
        return Ok(None);
    }
    let key = ProbeKeys::new(&record.key, Some(slot_of(&record.key))).alike;
    let value = record.value.bytes();
    let signed = match ready {
        Ready::AsIs => Vec::new(),
        Ready::Footer(version) => [value, &footer(value, version)].concat(),
    };
    let payload = match ready {
        Ready::AsIs => value,
        Ready::Footer(_) => &signed,
    };
    Ok(match offer_past(conn, &key, &[payload])?.pop() {
        Some(Ok(())) => {
            target.note_taken(kind);
            None
        }
        Some(Err(text)) => Some(text).filter(|text| is_about_payload(text)),
        None => None,
    })
}

/// The key patterns of a user, and what was learnt about the keys that match them.
#[derive(Debug, Default)]
pub struct KeyRights {
    /// Of all its selectors; `None` where the server does not tell.
    patterns: Option<Vec<Glob>>,
    /// By database and matching patterns: may they be written; if not, the server's words.
    known: HashMap<(u32, Vec<bool>), Result<(), String>>,
}

/// Sets of patterns that are remembered.
const MAX_KNOWN: usize = 4096;

#[cfg(test)]
impl KeyRights {
    /// Of a user with no patterns: all keys are alike.
    pub(super) fn alike() -> Self {
        Self {
            patterns: Some(Vec::new()),
            known: HashMap::new(),
        }
    }
}

impl KeyRights {
    /// Asks for the patterns of the user that `conn` belongs to.
    ///
    /// # Errors
    /// The connection.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let Ok(user) = conn.try_query(cmd("ACL").arg("WHOAMI"))? else {
            return Ok(Self::default());
        };
        let Ok(user) = from_reply::<Vec<u8>>(user) else {
            return Ok(Self::default());
        };
        let rules = conn.try_query(cmd("ACL").arg("GETUSER").arg(user))?;
        let mut patterns = Vec::new();
        let is_told = rules.is_ok_and(|rules| read_patterns(&rules, &mut patterns).is_some());
        Ok(Self {
            patterns: is_told.then_some(patterns),
            known: HashMap::new(),
        })
    }

    fn matching(&self, key: &[u8]) -> Option<Vec<bool>> {
        let patterns = self.patterns.as_ref()?;
        Some(patterns.iter().map(|glob| glob.matches(key)).collect())
    }

    /// What is known about this key from another one that matches the same patterns.
    pub fn known(&self, db: u32, key: &[u8]) -> Option<&Result<(), String>> {
        self.known.get(&(db, self.matching(key)?))
    }

    /// Remembers what the server said about a key, for those that match the same patterns.
    pub fn note(&mut self, db: u32, key: &[u8], answer: Result<(), String>) {
        if let Some(matching) = self.matching(key)
            && self.known.len() < MAX_KNOWN
        {
            self.known.insert((db, matching), answer);
        }
    }
}

/// Adds the key patterns of an answer to ACL GETUSER, selectors included. `None` where it is not
/// understood.
///
/// Before 7.0 they are an array, `k*`; from then on one string, `~k* %R~r*`.
fn read_patterns(rules: &Reply, into: &mut Vec<Glob>) -> Option<()> {
    let fields: Vec<(&Reply, &Reply)> = match rules {
        Reply::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
        Reply::Array(items) if items.len() % 2 == 0 => items
            .chunks_exact(2)
            .map(|pair| (&pair[0], &pair[1]))
            .collect(),
        _ => return None,
    };
    let mut has_keys = false;
    for (name, value) in fields {
        match text(name)? {
            b"keys" => {
                has_keys = true;
                match value {
                    Reply::Array(patterns) => {
                        for pattern in patterns {
                            push(text(pattern)?, into)?;
                        }
                    }
                    value => {
                        for rule in text(value)?.split(|&byte| byte == b' ') {
                            if !rule.is_empty() {
                                let tilde = rule.iter().position(|&byte| byte == b'~')?;
                                push(&rule[tilde + 1..], into)?;
                            }
                        }
                    }
                }
            }
            b"selectors" => {
                let Reply::Array(selectors) = value else {
                    return None;
                };
                for selector in selectors {
                    read_patterns(selector, into)?;
                }
            }
            _ => {}
        }
    }
    has_keys.then_some(())
}

fn push(pattern: &[u8], into: &mut Vec<Glob>) -> Option<()> {
    const MAX_PATTERNS: usize = 1024;
    let glob = Glob::new(pattern);
    if !glob.is_portable() || into.len() == MAX_PATTERNS {
        return None;
    }
    // Every key matches it, so it tells no keys apart.
    if !glob.is_everything() {
        into.push(glob);
    }
    Some(())
}

fn text(value: &Reply) -> Option<&[u8]> {
    match value {
        Reply::Bulk(bytes) => Some(bytes),
        Reply::Status(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    fn patterns(rules: &Reply) -> Option<Vec<Vec<u8>>> {
        let mut into = Vec::new();
        read_patterns(rules, &mut into)?;
        Some(into.iter().map(|glob| glob.pattern().to_vec()).collect())
    }

    #[test]
    fn the_patterns_of_all_selectors_are_read() {
        let selector = Reply::Array(vec![
            bulk("commands"),
            bulk("-@all +restore"),
            bulk("keys"),
            bulk("~x:*"),
        ]);
        let rules = Reply::Array(vec![
            bulk("flags"),
            Reply::Array(vec![bulk("on")]),
            bulk("keys"),
            bulk("%R~r* %W~k~* ~*"),
            bulk("selectors"),
            Reply::Array(vec![selector]),
        ]);
        let all = [&b"r*"[..], b"k~*", b"x:*"].map(<[u8]>::to_vec);
        assert_eq!(patterns(&rules), Some(all.to_vec()));
    }

    #[test]
    fn older_servers_tell_an_array() {
        let rules = |keys: Vec<Reply>| Reply::Array(vec![bulk("keys"), Reply::Array(keys)]);
        let told = patterns(&rules(vec![bulk("*"), bulk("a~b")]));
        assert_eq!(told, Some(vec![b"a~b".to_vec()]));
        assert_eq!(patterns(&rules(vec![])), Some(vec![]));
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        assert_eq!(patterns(&Reply::Nil), None);
        assert_eq!(patterns(&Reply::Array(vec![])), None);
        assert_eq!(patterns(&Reply::Array(vec![bulk("keys")])), None);
        let odd = Reply::Array(vec![bulk("keys"), bulk("k*")]);
        assert_eq!(patterns(&odd), None);
        // ARM and x86 read this range differently.
        let range = Reply::Array(vec![
            bulk("keys"),
            Reply::Array(vec![Reply::Bulk(b"[a-\xff]".to_vec())]),
        ]);
        assert_eq!(patterns(&range), None);
    }

    #[test]
    fn one_key_stands_for_those_that_match_the_same_patterns() {
        let mut rights = KeyRights {
            patterns: Some(vec![Glob::new(b"a*"), Glob::new(b"*z")]),
            known: HashMap::new(),
        };
        rights.note(0, b"a1", Ok(()));
        rights.note(0, b"z", Err("NOPERM".to_owned()));
        assert_eq!(rights.known(0, b"a2"), Some(&Ok(())));
        assert_eq!(rights.known(0, b"yz"), Some(&Err("NOPERM".to_owned())));
        assert_eq!(rights.known(0, b"az"), None);
        assert_eq!(rights.known(1, b"a2"), None);
        let mut unknown = KeyRights::default();
        unknown.note(0, b"a1", Ok(()));
        assert_eq!(unknown.known(0, b"a1"), None);
    }
}
