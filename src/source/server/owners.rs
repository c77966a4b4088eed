//! The owners of slots that are on their way.
//!
//! As long as the owner of a slot has a key, clients are served the owner's value, whatever lies
//! where the slot goes: that may be what an interrupted or aborted move left there. So the node that
//! a slot goes to gives only the keys that the owner does not have.

use std::collections::BTreeSet;

use anyhow::Result;

use super::node::MAX_ASKED;
use super::slot_set::SlotSet;
use crate::endpoint::ConnectOptions;
use crate::server::cluster::Redirect;
use crate::server::conn::asks_for_patience;
use crate::server::reply::{Command, Reply};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// So many keys are asked for at once.
const AT_ONCE: usize = 500;

/// An owner, and how to reach it.
pub struct Owner {
    /// The slots that it owns, of those that are on their way.
    pub slots: SlotSet,
    /// How to reach it.
    pub connect: ConnectOptions,
    /// A connection, once there is one.
    pub conn: Option<Conn>,
}

/// What an owner says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Says {
    /// It has it.
    Here,
    /// It sends clients to where the slot goes.
    Ask,
    /// It has no such key, and sends nobody elsewhere.
    Nowhere,
    /// Why this is not known.
    Unknown(String),
}

/// All of them, and what they said.
#[derive(Default)]
pub(super) struct Owners {
    list: Vec<Owner>,
    /// Keys that may be leftovers: their owners neither have them nor send clients elsewhere.
    doubtful: BTreeSet<(u32, Vec<u8>)>,
    /// Those of them that were given.
    given: Leftovers,
}

/// Keys that were given and may be leftovers of a move that was called off.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// How many.
    pub keys: u64,
    /// Of these slots.
    pub slots: SlotSet,
}

impl Leftovers {
    fn count(&mut self, slot: u16) {
        self.keys += 1;
        self.slots.insert(slot);
    }
}

impl Owner {
    /// What it says of each key, in the order of the keys.
    fn ask(&mut self, command: &[u8], db: u32, keys: &[&[u8]]) -> Vec<Says> {
        let mut error = None;
        // A connection that was idle may be lost.
        for _ in 0..2 {
            match self.try_ask(command, db, keys) {
                Ok(said) => return said,
                Err(lost) => {
                    self.conn = None;
                    error = Some(lost.to_string());
                }
            }
        }
        let reason = error.unwrap_or_default();
        vec![Says::Unknown(reason); keys.len()]
    }

    fn try_ask(
        &mut self,
        command: &[u8],
        db: u32,
        keys: &[&[u8]],
    ) -> Result<Vec<Says>, ServerError> {
        let conn = match self.conn.take() {
            Some(conn) => self.conn.insert(conn),
            None => self.conn.insert(Conn::open(&self.connect)?),
        };
        conn.doing("asking the owner of a slot for its keys");
        if let Err(text) = conn.select(db)? {
            let refused = Says::Unknown(format!("SELECT {db} was answered with {text}"));
            return Ok(vec![refused; keys.len()]);
        }
        for key in keys {
            conn.queue(&[command, key])?;
        }
        conn.flush()?;
        let mut said = Vec::with_capacity(keys.len());
        for _ in keys {
            said.push(Says::of(conn.reply()?));
        }
        // Alone, and patiently, where it was busy.
        for (key, says) in keys.iter().zip(&mut said) {
            let is_busy = |text: &str| asks_for_patience(text) && Redirect::parse(text).is_none();
            if matches!(says, Says::Unknown(text) if is_busy(text)) {
                let mut again = Command::new();
                again.arg(command).arg(*key);
                *says = Says::of(conn.ask(&again)?);
            }
        }
        Ok(said)
    }
}

impl Says {
    /// Of the answer to PTTL or PEXPIRETIME.
    fn of(answer: Result<Reply, String>) -> Self {
        match answer {
            Ok(Reply::Int(-2)) => Self::Nowhere,
            Ok(Reply::Int(-1 | 0..)) => Self::Here,
            Ok(_) => Self::Unknown("an expiry that is no number".to_owned()),
            Err(text) => match Redirect::parse(&text) {
                Some(Redirect::Ask { .. }) => Self::Ask,
                _ => Self::Unknown(text),
            },
        }
    }
}

impl Owners {
    /// What the owners say of keys of this database, in the order of the keys.
    fn ask(&mut self, command: &[u8], db: u32, keys: &[Vec<u8>]) -> Vec<Says> {
        let unowned = Says::Unknown("no node serves the slot".to_owned());
        let mut said = vec![unowned; keys.len()];
        for owner in &mut self.list {
            let own = (0..keys.len()).filter(|&at| owner.slots.has_key(&keys[at]));
            let mut own: Vec<usize> = own.collect();
            // The second time those are asked for that it did not have: it may have had an expired
            // key, and sends clients elsewhere as soon as that is gone.
            for _ in 0..2 {
                for some in own.chunks(AT_ONCE) {
                    let names: Vec<&[u8]> = some.iter().map(|&at| keys[at].as_slice()).collect();
                    for (&at, says) in some.iter().zip(owner.ask(command, db, &names)) {
                        said[at] = says;
                    }
                }
                own.retain(|&at| said[at] == Says::Nowhere);
            }
        }
        said
    }
}

/// Names, by who is to be asked for them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// The node that the slot goes to.
    pub here: Vec<Vec<u8>>,
    /// The owner, who has it.
    pub with_owner: Vec<Vec<u8>>,
    /// It is not known, for this reason.
    pub unknown: Vec<(Vec<u8>, String)>,
}

impl Owners {
    pub fn new(list: Vec<Owner>) -> Self {
        Self {
            list,
            ..Self::default()
        }
    }

    /// Asks the owners about these names of a database by `command`.
    pub fn sort_out(&mut self, command: &[u8], db: u32, names: Vec<Vec<u8>>) -> Sorted {
        let said = self.ask(command, db, &names);
        let mut sorted = Sorted::default();
        for (key, says) in names.into_iter().zip(said) {
            match says {
                Says::Ask => sorted.here.push(key),
                Says::Nowhere => {
                    // Whether it is given or filtered is known later; of more than so many not.
                    if self.doubtful.len() < MAX_ASKED {
                        self.doubtful.insert((db, key.clone()));
                    } else {
                        self.given.count(slot_of(&key));
                    }
                    sorted.here.push(key);
                }
                Says::Here => sorted.with_owner.push(key),
                Says::Unknown(reason) => sorted.unknown.push((key, reason)),
            }
        }
        sorted
    }

    /// Takes note that this key's fate is known; whether it may be a leftover.
    pub fn take_doubtful(&mut self, db: u32, key: &[u8]) -> bool {
        self.doubtful.remove(&(db, key.to_vec()))
    }

    /// One that may be was given.
    pub fn gave_doubtful(&mut self, slot: u16) {
        self.given.count(slot);
    }

    /// Keys that were given and may be leftovers of a move that was called off.
    pub fn leftovers(&self) -> Leftovers {
        self.given.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_the_owner_is_known_not_to_have_is_read_elsewhere() {
        let error = |text: &str| Err(text.to_owned());
        assert_eq!(Says::of(Ok(Reply::Int(-2))), Says::Nowhere);
        assert_eq!(Says::of(Ok(Reply::Int(-1))), Says::Here);
        assert_eq!(Says::of(Ok(Reply::Int(1_700_000_000_000))), Says::Here);
        assert_eq!(Says::of(error("ASK 100 127.0.0.1:7001")), Says::Ask);
        for answer in [
            error("MOVED 100 127.0.0.1:7001"),
            error("CLUSTERDOWN The cluster is down"),
            error("NOPERM no"),
            Ok(Reply::Nil),
            Ok(Reply::Int(-3)),
            Ok(Reply::Status("QUEUED".to_owned())),
        ] {
            assert!(
                matches!(Says::of(answer.clone()), Says::Unknown(_)),
                "{answer:?}"
            );
        }
    }
}
