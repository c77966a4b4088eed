//! The transaction that gives a finished value its expiry and its name.

use super::fill::{confused, fits};
use super::{CommandError, Replace, Written};
use crate::rewrite::EXPIRE_MAX_MS;
use crate::server::Conn;
use crate::server::resp::{self, Item};

/// `MULTI; [a command with data]; [PEXPIREAT]; RENAME | RENAMENX, UNLINK; EXEC`.
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
                resp::pack(out, &[b"UNLINK", temp]);
            }
        }
        resp::pack(out, &[b"EXEC"]);
    }

    /// The commands between MULTI and EXEC.
    fn commands(&self) -> impl Iterator<Item = &'static str> + use<> {
        let last: &[&str] = match self.replace {
            Replace::Always => &["RENAME"],
            Replace::IfAbsent => &["RENAMENX", "UNLINK"],
        };
        let data = self.data.map(|(name, _)| name);
        let expire = self.expire_at_ms.map(|_| "PEXPIREAT");
        data.into_iter().chain(expire).chain(last.iter().copied())
    }

    /// Reads all the replies.
    pub fn read(&self, conn: &mut Conn) -> Result<Written, CommandError> {
        let mut failed = None;
        let mut expect = |conn: &mut Conn, name, word: &[u8]| -> Result<(), CommandError> {
            match conn.item()? {
                Item::Simple(said) if said == word => Ok(()),
                Item::Error(text) => {
                    failed.get_or_insert_with(|| CommandError::answer(name, &text));
                    Ok(())
                }
                // It was carried out, or was not: not in a transaction, in any case.
                _ => Err(confused(conn)),
            }
        };
        expect(conn, "MULTI", b"OK")?;
        for name in self.commands() {
            expect(conn, name, b"QUEUED")?;
        }
        match conn.item()? {
            // EXECABORT says no more than that a command before was refused.
            Item::Error(text) => {
                return Err(failed.unwrap_or_else(|| CommandError::answer("EXEC", &text)));
            }
            Item::Array(count) if count == self.commands().count() => {}
            _ => return Err(conn.confused("no answer to a transaction").into()),
        }
        let mut written = Err(CommandError::refused("it was not renamed"));
        for name in self.commands() {
            let item = conn.item()?;
            if !fits(name, &item) {
                return Err(confused(conn));
            }
            let answer = match item {
                Item::Error(text) => Err(text),
                Item::Int(number) => Ok(Some(number)),
                _ => Ok(None),
            };
            match (name, answer) {
                ("RENAMENX", Ok(Some(0))) => written = Ok(Written::Standing),
                ("RENAME" | "RENAMENX", Ok(_)) => written = Ok(Written::Stored),
                ("RENAME" | "RENAMENX", Err(text))
                    if text.starts_with(b"ERR no such key")
                        && (self.expire_at_ms.is_some() || self.may_vanish) =>
                {
                    written = Ok(Written::Expired);
                }
                ("UNLINK" | "PEXPIREAT", Ok(_)) => {}
                (_, Ok(Some(found))) => {
                    let want = self.data.and_then(|(_, want)| want);
                    if want.is_some_and(|want| u64::try_from(found) != Ok(want)) {
                        failed.get_or_insert_with(|| {
                            CommandError::refused(format!("{name} took {found} elements only"))
                        });
                    }
                }
                (_, Ok(None)) => {}
                (name, Err(text)) => {
                    failed.get_or_insert_with(|| CommandError::answer(name, &text));
                }
            }
        }
        match failed {
            None => written,
            Some(error) => Err(error),
        }
    }
}
