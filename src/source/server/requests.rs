//! What is asked: pages of names, and keys in small MULTIs.

use anyhow::Result;

use super::probe::EvictionCommand;
use super::{Sent, ServerSource};
use crate::server::ServerError;

impl ServerSource {
    pub(super) fn queue_scan(&mut self, cursor: Vec<u8>) -> Result<()> {
        let count = self.scan_count().to_string();
        let push_down = self.options.selection.push_down();
        let mut args: Vec<&[u8]> = vec![b"SCAN", &cursor, b"COUNT", count.as_bytes()];
        if let Some(pattern) = push_down.match_ {
            args.extend([&b"MATCH"[..], pattern]);
        }
        if let Some(kind) = push_down.type_ {
            args.extend([&b"TYPE"[..], kind.as_bytes()]);
        }
        let queued = self.conn.queue(&args);
        self.scan_in_flight = true;
        self.sent.push_back(Sent::Scan(cursor));
        Ok(queued?)
    }

    pub(super) fn queue_group(&mut self, keys: &[Vec<u8>]) -> Result<(), ServerError> {
        let abilities = self.abilities;
        let conn = &mut self.conn;
        if abilities.multi {
            conn.queue(&[b"MULTI"])?;
        }
        if abilities.asks_time() {
            conn.queue(&[b"TIME"])?;
        }
        let expiry: &[u8] = if abilities.pexpiretime {
            b"PEXPIRETIME"
        } else {
            b"PTTL"
        };
        for key in keys {
            conn.queue(&[expiry, key])?;
        }
        // Before DUMP, which would reset it where NO-TOUCH is not known.
        if let Some(command) = abilities.eviction {
            let sub: &[u8] = if command == EvictionCommand::Freq {
                b"FREQ"
            } else {
                b"IDLETIME"
            };
            for key in keys {
                conn.queue(&[b"OBJECT", sub, key])?;
            }
        }
        for key in keys {
            conn.queue(&[b"DUMP", key])?;
        }
        if abilities.multi {
            conn.queue(&[b"EXEC"])?;
        }
        Ok(())
    }

    /// Commands between MULTI and EXEC for `keys` keys.
    pub(super) fn group_commands(&self, keys: usize) -> usize {
        let each = 2 + usize::from(self.abilities.eviction.is_some());
        each * keys + usize::from(self.abilities.asks_time())
    }
}
