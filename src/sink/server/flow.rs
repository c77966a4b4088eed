//! What is in flight: commands out within the window, replies matched in order.

use anyhow::Result;

use super::compare;
use super::target::Ready;
use super::{Action, Sent, ServerSink, WINDOW_BYTES, WINDOW_RECORDS};
use crate::memory::Fingerprint;
use crate::payload::footer;
use crate::record::{Context, Eviction, KeyRecord, Value};
use crate::server::ServerError;
use crate::server::resp::{self, Item};

/// From this size on a value is written to the socket from where it is.
const LARGE_VALUE_BYTES: usize = 128 * 1024;

/// Later moments mean trouble for the server (compare `checkInvalidExpireTime`, expire.c).
const EXPIRE_MAX_MS: u64 = 1 << 62;

impl ServerSink {
    /// Waits until an earlier record of the same key has taken effect.
    pub(super) fn settle_key(&mut self, print: Fingerprint) -> Result<()> {
        if self.sent_prints.contains(&print) {
            self.drain()
        } else {
            Ok(())
        }
    }

    pub(super) fn send(&mut self, sent: Sent) -> Result<()> {
        if !self.sent.is_empty()
            && (self.sent_bytes + sent.bytes > WINDOW_BYTES || self.sent.len() >= WINDOW_RECORDS)
        {
            self.conn.flush()?;
            let low_bytes = (WINDOW_BYTES / 2).saturating_sub(sent.bytes);
            while !self.sent.is_empty()
                && (self.sent_bytes > low_bytes || self.sent.len() > WINDOW_RECORDS / 2)
            {
                self.read_one()?;
            }
        }
        self.queue(sent)
    }

    pub(super) fn queue(&mut self, mut sent: Sent) -> Result<()> {
        self.select(sent.record.db, sent.context)?;
        match &sent.action {
            Action::Select => {}
            Action::Restore { replace, .. } if sent.by_commands.is_some() => {
                let replace = *replace;
                match self.queue_commands(&sent, replace)? {
                    Some(ticket) => sent.by_commands = Some(Some(ticket)),
                    None => return self.write_alone(sent, replace),
                }
            }
            Action::Restore { replace, .. } => self.pack_restore(&sent, *replace)?,
            Action::Compare => compare::ask(&mut self.conn, &sent.record.key, self.pexpiretime)?,
            Action::Look => self.conn.queue(&[b"EXISTS", &sent.record.key])?,
            Action::Delete { .. } => self.conn.queue(&[b"DEL", &sent.record.key])?,
        }
        self.sent_bytes += sent.bytes;
        self.sent_prints.insert(sent.print);
        self.sent.push_back(sent);
        Ok(())
    }

    /// Sees to it that what is queued next goes to this database.
    pub(super) fn select(&mut self, db: u32, context: Context) -> Result<()> {
        if self.db != Some(db) {
            self.conn.queue(&[b"SELECT", db.to_string().as_bytes()])?;
            self.db = Some(db);
            let record = KeyRecord {
                db,
                key: Vec::new(),
                value: Value::Compact(Vec::new()),
                expire_at_ms: None,
                eviction: None,
            };
            self.sent.push_back(Sent {
                action: Action::Select,
                record,
                ready: Ready::AsIs,
                by_commands: None,
                original: None,
                origin: None,
                context,
                print: 0,
                bytes: 0,
                batch: 0,
            });
        }
        Ok(())
    }

    pub(super) fn pack_restore(&mut self, sent: &Sent, replace: bool) -> Result<(), ServerError> {
        let record = &sent.record;
        let footer = match sent.ready {
            Ready::AsIs => None,
            Ready::Footer(version) => Some(footer(record.value.bytes(), version)),
        };
        let body = record.value.bytes();
        let (eviction_word, eviction): (&[u8], u64) = match record.eviction {
            None => (b"", 0),
            Some(Eviction::IdleSecs(secs)) => (b"IDLETIME", secs),
            Some(Eviction::Freq(freq)) => (b"FREQ", u64::from(freq)),
        };
        let args = 5 + usize::from(replace) + 2 * usize::from(record.eviction.is_some());
        let out = self.conn.out();
        resp::pack_head(out, args);
        resp::pack_arg(out, b"RESTORE");
        resp::pack_arg(out, &record.key);
        let mut digits = Vec::with_capacity(20);
        // Absolute and never 0 for a key with expiry: relative times drift and overflow.
        resp::push_number(
            &mut digits,
            record
                .expire_at_ms
                .map_or(0, |at_ms| at_ms.clamp(1, EXPIRE_MAX_MS)),
        );
        resp::pack_arg(out, &digits);
        resp::pack_len(out, body.len() + footer.map_or(0, |footer| footer.len()));
        if body.len() >= LARGE_VALUE_BYTES {
            self.conn.write_large(body)?;
        } else {
            out.extend_from_slice(body);
        }
        let out = self.conn.out();
        if let Some(footer) = footer {
            out.extend_from_slice(&footer);
        }
        out.extend_from_slice(b"\r\n");
        resp::pack_arg(out, b"ABSTTL");
        if replace {
            resp::pack_arg(out, b"REPLACE");
        }
        if record.eviction.is_some() {
            digits.clear();
            resp::push_number(&mut digits, eviction);
            resp::pack_arg(out, eviction_word);
            resp::pack_arg(out, &digits);
        }
        self.conn.flush_if_full()
    }

    /// Reads every reply that is due.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.sent.is_empty() {
            self.read_one()?;
        }
        Ok(())
    }

    pub(super) fn read_one(&mut self) -> Result<()> {
        let Some(sent) = self.sent.front() else {
            return Ok(());
        };
        if matches!(sent.action, Action::Compare) {
            let found = compare::read(&mut self.conn, self.pexpiretime)?;
            let Some(sent) = self.take_sent() else {
                return Ok(());
            };
            return self.compared(sent, found);
        }
        if sent.by_commands.is_some() && matches!(sent.action, Action::Restore { .. }) {
            return self.read_written();
        }
        let answer = match self.conn.item()? {
            Item::Simple(_) => Ok(1),
            Item::Int(number) => Ok(number),
            Item::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(self.conn.confused("a reply of an unexpected kind").into()),
        };
        let Some(sent) = self.take_sent() else {
            return Ok(());
        };
        match (answer, &sent.action) {
            (Ok(_), Action::Select) => {}
            (Err(text), Action::Select) => return Err(self.conn.refusal("SELECT", text).into()),
            (Ok(_), Action::Restore { own, .. }) => {
                let own = *own;
                return self.stored(sent, own);
            }
            (Ok(count), Action::Look) => return self.looked(sent, count > 0),
            (Ok(_), Action::Delete { expired: true }) => self.report.expired += 1,
            (Ok(_), Action::Delete { expired: false }) => self.report.deleted += 1,
            (Err(text), _) => return self.refused(sent, text),
            (Ok(_), Action::Compare) => {}
        }
        Ok(())
    }

    pub(super) fn take_sent(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.sent_bytes -= sent.bytes;
        self.sent_prints.remove(&sent.print);
        Some(sent)
    }
}
