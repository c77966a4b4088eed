//! The transaction that gives a finished value its expiry and its name.

use super::fill::{confused, fits};
use super::{CommandError, Replace, Written};
use crate::rewrite::EXPIRE_MAX_MS;
use crate::server::Conn;
use crate::server::resp::{self, Item};
use crate::server::transaction::{DISCARDED, cause_of_discard};

/// `MULTI; [a command with data]; [PEXPIREAT]; RENAME | RENAMENX, UNLINK; EXEC`. DEL where there is
/// no UNLINK.
///
/// A command that is refused when it is queued takes the whole transaction with it (EXECABORT). One
/// that fails in EXEC does not: so there is one with data at most, and when it fails there is
/// nothing to rename. PEXPIREAT fails for no number that is sent here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swap {
    /// The name of the command with data, and the number it must answer with, if it does.
    pub data: Option<(&'static str, Option<u64>)>,
    pub expire_at_ms: Option<u64>,
    pub replace: Replace,
    /// The value may be gone by itself, field by field.
    pub may_vanish: bool,
    /// What removes the temporary key: UNLINK or DEL.
    pub remove: &'static str,
}

impl Swap {
    /// Appends the transaction, with the packed command `data` if it has one.
    pub fn pack(&self, out: &mut Vec<u8>, temp: &[u8], key: &[u8], data: &[u8]) {
        resp::pack(out, &[b"MULTI"]);
        out.extend_from_slice(data);
        if let Some(at_ms) = self.expire_at_ms {
            let at_ms = super::fill::number(at_ms.clamp(1, EXPIRE_MAX_MS));
            resp::pack(out, &[b"PEXPIREAT", temp, &at_ms]);
        }
        match self.replace {
            Replace::Always => resp::pack(out, &[b"RENAME", temp, key]),
            Replace::IfAbsent => {
                resp::pack(out, &[b"RENAMENX", temp, key]);
                // There only if the key stood already.
                resp::pack(out, &[self.remove.as_bytes(), temp]);
            }
        }
        resp::pack(out, &[b"EXEC"]);
    }

    /// The commands between MULTI and EXEC.
    fn commands(&self) -> impl Iterator<Item = &'static str> + use<> {
        let (rename, remove) = match self.replace {
            Replace::Always => ("RENAME", None),
            Replace::IfAbsent => ("RENAMENX", Some(self.remove)),
        };
        let data = self.data.map(|(name, _)| name);
        let expire = self.expire_at_ms.map(|_| "PEXPIREAT");
        let all = [data, expire, Some(rename), remove];
        all.into_iter().flatten()
    }

    /// Reads all the replies.
    ///
    /// What MULTI was answered proves nothing: the server, or something before it, may have refused
    /// it, and then each command was carried out at once. So the answers themselves tell. Where all
    /// of them were queued, EXEC's reply holds what became of them; where none was, each was answered
    /// itself. The value was built under another name, so that it stands as a whole or not at all
    /// either way.
    ///
    /// `stands`: whether the temporary key is known to stand, before and after.
    pub fn read(&self, conn: &mut Conn, stands: &mut bool) -> Result<Written, CommandError> {
        let multi = match conn.item()? {
            Item::Error(text) => Some(CommandError::answer("MULTI", &text)),
            // Which answers are its elements, and which those to the next commands?
            Item::Array(_) | Item::Map(_) | Item::Push(_) => return Err(confused(conn)),
            _ => None,
        };
        let mut judge = Judge::new(self);
        let mut queued = 0;
        for name in self.commands() {
            match conn.item()? {
                Item::Simple(b"QUEUED") => queued += 1,
                item if fits(name, &item) => judge.see(name, item),
                _ => return Err(confused(conn)),
            }
        }
        let refused = match conn.item()? {
            Item::Error(text) => text,
            Item::Array(count) if count == self.commands().count() && queued == count => {
                return self.read_done(conn, stands);
            }
            _ => return Err(conn.confused("no answer to a transaction").into()),
        };
        *stands = judge.is_temp_left(*stands);
        // One that was neither queued nor refused was carried out at once: there was no transaction.
        let is_none = queued == 0
            && (judge.acted || multi.is_some() || refused.starts_with(b"ERR EXEC without MULTI"));
        if is_none && judge.acted && (multi.is_none() || judge.is_done()) {
            return judge.verdict();
        }
        if !is_none && !refused.starts_with(DISCARDED.as_bytes()) {
            // Carried out or not, over or not: nobody knows. The next command would perhaps be
            // queued behind it.
            let text = String::from_utf8_lossy(&refused).into_owned();
            return Err(conn.spoilt(format!("EXEC was answered with {text}")).into());
        }
        let first = multi.or(judge.failed).or(judge.no_expiry);
        Err(first.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&refused);
            let cause = cause_of_discard(&text).unwrap_or(&text);
            CommandError::answer("EXEC", cause.as_bytes())
        }))
    }

    /// Reads what became of the commands of a transaction that was carried out.
    fn read_done(&self, conn: &mut Conn, stands: &mut bool) -> Result<Written, CommandError> {
        let mut judge = Judge::new(self);
        for name in self.commands() {
            let item = conn.item()?;
            if !fits(name, &item) {
                return Err(confused(conn));
            }
            judge.see(name, item);
        }
        *stands = judge.is_temp_left(*stands);
        judge.verdict()
    }
}

/// What the answers to the commands say.
struct Judge<'s> {
    swap: &'s Swap,
    written: Option<Written>,
    failed: Option<CommandError>,
    /// Why the expiry was not set.
    no_expiry: Option<CommandError>,
    /// PEXPIREAT found no key.
    is_vain: bool,
    /// One of them was carried out.
    acted: bool,
}

impl<'s> Judge<'s> {
    fn new(swap: &'s Swap) -> Self {
        Self {
            swap,
            written: None,
            failed: None,
            no_expiry: None,
            is_vain: false,
            acted: false,
        }
    }

    /// Takes the answer to the next command, which is one that fits it.
    fn see(&mut self, name: &'static str, item: Item<'_>) {
        let answer = match item {
            Item::Error(text) => Err(text),
            Item::Int(number) => Ok(Some(number)),
            _ => Ok(None),
        };
        self.acted |= answer.is_ok();
        let may_be_gone = self.swap.expire_at_ms.is_some() || self.swap.may_vanish;
        match (name, answer) {
            ("RENAMENX", Ok(Some(0))) => self.written = Some(Written::Standing),
            ("RENAME" | "RENAMENX", Ok(_)) => self.written = Some(Written::Stored),
            ("RENAME" | "RENAMENX", Err(text))
                if may_be_gone && text.starts_with(b"ERR no such key") =>
            {
                self.written = Some(Written::Expired);
            }
            // It had got its name already, or was gone.
            ("UNLINK" | "DEL", Err(_))
                if matches!(self.written, Some(Written::Stored | Written::Expired)) => {}
            ("PEXPIREAT", Ok(done)) => self.is_vain = done == Some(0),
            ("PEXPIREAT", Err(text)) => self.no_expiry = Some(CommandError::answer(name, &text)),
            ("UNLINK" | "DEL", Ok(_)) => {}
            (_, Ok(Some(found))) => {
                let want = self.swap.data.and_then(|(_, want)| want);
                if want.is_some_and(|want| u64::try_from(found) != Ok(want)) {
                    self.fail(CommandError::refused(format!(
                        "{name} accepted only {found} elements"
                    )));
                }
            }
            (_, Ok(None)) => {}
            (name, Err(text)) => self.fail(CommandError::answer(name, &text)),
        }
    }

    /// Whether the temporary key stands after these answers; `stood`: whether it did before.
    fn is_temp_left(&self, stood: bool) -> bool {
        match self.written {
            Some(Written::Stored | Written::Expired) => false,
            Some(Written::Standing) | None => stood || self.acted,
        }
    }

    fn fail(&mut self, error: CommandError) {
        self.failed.get_or_insert(error);
    }

    /// Whether the value stands under its name, or nothing was refused.
    fn is_done(&self) -> bool {
        self.written == Some(Written::Stored) || (self.failed.is_none() && self.no_expiry.is_none())
    }

    fn verdict(self) -> Result<Written, CommandError> {
        let vain = || CommandError::refused("PEXPIREAT found no key, and RENAME found one");
        let no_expiry = self.no_expiry.or_else(|| self.is_vain.then(vain));
        match (no_expiry, self.written) {
            (Some(why), Some(Written::Stored)) => {
                let why = Box::new(why);
                return Err(CommandError::NoExpiry { why });
            }
            (Some(why), _) if !self.is_vain => return Err(self.failed.unwrap_or(why)),
            _ => {}
        }
        match (self.failed, self.written) {
            (Some(error), _) => Err(error),
            (None, Some(written)) => Ok(written),
            (None, None) => Err(CommandError::refused("it was not renamed")),
        }
    }
}
