//! Commands that end the connection where they are sent: what some proxies do with a command that
//! they do not know (twemproxy), instead of an error.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Which commands end the connection, as far as is known; all connections of one run that are made
/// from the same options share it.
#[derive(Debug, Clone, Default)]
pub struct Shunned(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// How often in a row the connection ended at a command.
    strikes: HashMap<String, u32>,
    /// Commands that were answered: whatever ends a connection at them later, they are not to blame.
    answered: HashSet<String>,
}

/// It is what was learnt about a server, and no part of how to reach it.
impl PartialEq for Shunned {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Shunned {}

impl Shunned {
    /// The connection must end so many times in a row at one command to say something about it: once
    /// may be chance.
    pub const PROOF: u32 = 2;

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// The connection ended while the answer to this command was due.
    pub fn ended_by(&self, command: &str) {
        *self.lock().strikes.entry(command.to_owned()).or_default() += 1;
    }

    /// It was not the one to blame.
    pub fn acquit(&self, command: &str) {
        self.lock().strikes.remove(command);
    }

    /// It was answered.
    pub fn answered(&self, command: &str) {
        let mut known = self.lock();
        known.strikes.remove(command);
        if !known.answered.contains(command) {
            known.answered.insert(command.to_owned());
        }
    }

    /// Whether it was ever answered.
    pub fn was_answered(&self, command: &str) -> bool {
        self.lock().answered.contains(command)
    }

    /// Whether it is not to be sent any more.
    pub fn has(&self, command: &str) -> bool {
        self.strikes(command) >= Self::PROOF && !self.was_answered(command)
    }

    /// How often in a row the connection ended at it.
    pub fn strikes(&self, command: &str) -> u32 {
        self.lock().strikes.get(command).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_chance_and_twice_in_a_row_is_not() {
        let shunned = Shunned::default();
        let other = shunned.clone();
        shunned.ended_by("INFO");
        assert!(!other.has("INFO"));
        shunned.acquit("INFO");
        shunned.ended_by("INFO");
        assert!(!other.has("INFO"));
        shunned.ended_by("INFO");
        assert!(other.has("INFO") && !other.has("TIME"));
    }

    #[test]
    fn what_was_answered_is_not_to_blame_for_what_ends_a_connection_later() {
        let shunned = Shunned::default();
        shunned.answered("INFO");
        for _ in 0..Shunned::PROOF {
            shunned.ended_by("INFO");
        }
        assert!(!shunned.has("INFO") && shunned.was_answered("INFO"));
    }
}
