//! One value written by native commands instead of RESTORE: for payloads larger than the
//! destination takes in one piece, and for destinations that do not allow RESTORE.
//!
//! A value is built under a temporary name without expiry ([`TEMP_KEY_PREFIX`], then a hash tag
//! that puts it into the slot of its key, then what no other run has), in commands of bounded
//! size of which a bounded number is unanswered. Its length is checked, and one transaction gives
//! it its expiry and its name: `MULTI; PEXPIREAT; RENAME` or `RENAMENX; EXEC`. So no half-written
//! value ever stands under its name. The temporary key is removed after every error; what a killed
//! run leaves behind is told by its prefix.
//!
//! Two ways to the same end:
//!
//! - [`Commands::write`] takes a value of any size and waits until it is done;
//! - [`Commands::queue_small`] and [`Commands::read_small`] are for pipelines of many small ones.
//!   What takes a single command goes in one transaction with its renaming: should the command
//!   fail, there is nothing to rename. A string is a single `SET` where the server has `PXAT`.
//!   Streams and hashes with expiring fields take two turns.
//!
//! The commands that a user needs for that: SET APPEND STRLEN, RPUSH LLEN, SADD SCARD, ZADD ZCARD,
//! HSET HPEXPIREAT HLEN (HMSET before 4.0), XADD XLEN XSETID XDEL XTRIM XCLAIM XGROUP (XREADGROUP
//! before 6.2), EXISTS MULTI EXEC PEXPIREAT RENAME RENAMENX UNLINK (DEL before 4.0), for its own keys and
//! for those with the prefix. XCFGSET and XIDMPRECORD are used where the server has them and takes
//! them of this user: what streams lose without them is counted.

mod features;
mod fill;
mod large;
mod small;
mod streams;
mod swap;

pub use self::features::Features;
use self::large::Abandoned;
pub use self::small::{Answer, Queued, Ticket};
use crate::host;
use crate::payload::{self, PayloadError, Reader};
use crate::record::Family;
use crate::select::TEMP_KEY_PREFIX;
use crate::server::conn::is_forbidden;
use crate::server::slots::{slot_of, tag_for_slot};
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::sink::server::foresee::Way;
use crate::sink::server::refusal::is_about_database;

/// Every command that [`Commands`] uses on a server of any version, in a form that can be queued in a
/// MULTI. `doctor` and the dry run try these.
pub const NATIVE_COMMANDS: &[&[&str]] = &[
    &["SET", ABSENT_KEY, "v"],
    &["APPEND", ABSENT_KEY, "v"],
    &["STRLEN", ABSENT_KEY],
    &["RPUSH", ABSENT_KEY, "v"],
    &["LLEN", ABSENT_KEY],
    &["SADD", ABSENT_KEY, "v"],
    &["SCARD", ABSENT_KEY],
    &["ZADD", ABSENT_KEY, "1", "v"],
    &["ZCARD", ABSENT_KEY],
    &["HSET", ABSENT_KEY, "f", "v"],
    &["HLEN", ABSENT_KEY],
    &["XADD", ABSENT_KEY, "1-1", "f", "v"],
    &["XLEN", ABSENT_KEY],
    &["XSETID", ABSENT_KEY, "1-1"],
    &["XDEL", ABSENT_KEY, "1-1"],
    &["XTRIM", ABSENT_KEY, "MAXLEN", "0"],
    &["XCLAIM", ABSENT_KEY, "g", "c", "0", "1-1"],
    &["XGROUP", "CREATE", ABSENT_KEY, "g", "$"],
    &["XREADGROUP", "GROUP", "g", "c", "STREAMS", ABSENT_KEY, "0"],
    &["EXISTS", ABSENT_KEY],
    &["PEXPIREAT", ABSENT_KEY, "1"],
    &["RENAME", ABSENT_KEY, ABSENT_KEY],
    &["RENAMENX", ABSENT_KEY, ABSENT_KEY],
    &["UNLINK", ABSENT_KEY],
];

/// Of [`NATIVE_COMMANDS`], those that a server with these features has.
pub fn native_commands(features: &Features) -> impl Iterator<Item = &'static [&'static str]> {
    let (streams, unlink) = (features.streams, features.unlink);
    NATIVE_COMMANDS.iter().copied().filter(move |args| {
        let name = args.first().copied().unwrap_or_default();
        (streams || !name.starts_with('X')) && (unlink || name != "UNLINK")
    })
}

/// How much may be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Longest argument: `proto-max-bulk-len` (config.c; 512 MiB by default, which is also the
    /// longest string that APPEND makes: t_string.c, checkStringLength).
    pub max_bulk_bytes: u64,
    /// What the server keeps of unread commands before it closes the connection:
    /// `client-query-buffer-limit` (1 GiB by default).
    pub max_query_bytes: u64,
    /// Bytes of commands that are sent together, and the size from which on a value is no small
    /// one. What a string is cut into.
    pub chunk_bytes: usize,
    /// Elements, members, fields or ids in one command. It bounds how long the server is busy with
    /// one, and servers before 7.0 take no more than 1,048,576 arguments (networking.c).
    pub command_elements: usize,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            max_bulk_bytes: 512 << 20,
            max_query_bytes: 1 << 30,
            chunk_bytes: 256 << 10,
            command_elements: 4096,
        }
    }
}

impl CommandLimits {
    /// The longest argument that both limits allow: a long one comes to lie in the query buffer
    /// with a little of what is around it (networking.c, processMultibulkBuffer).
    pub fn max_argument_bytes(&self) -> u64 {
        self.max_bulk_bytes
            .min(self.max_query_bytes.saturating_sub(64 << 10))
    }
}

/// What becomes of a key that stands already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It is replaced.
    Always,
    /// It is left alone.
    IfAbsent,
}

/// A value to be written, into the database that is selected.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Whose type bytes the value has.
    pub family: Family,
    /// The value: type byte and body, no footer.
    pub value: &'a [u8],
    /// Absolute expiry, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// What becomes of a key that stands already.
    pub replace: Replace,
    /// Now, on the destination's clock, Unix ms.
    pub now_ms: u64,
}

impl Job<'_> {
    fn is_past(&self) -> bool {
        self.expire_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It stands under its name.
    Stored,
    /// The key stood already and was left alone ([`Replace::IfAbsent`] only).
    Standing,
    /// It was past its time, or all its fields were, and was not written. A key that stood already
    /// still stands.
    Expired,
}

/// What a value lost on its way through commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct CommandLosses {
    /// Hash fields that live for ever now, because the destination has no expiry of fields.
    pub field_ttls: u64,
    /// Hash fields that expire earlier than they should, at the latest moment that the server
    /// takes. No one will live to see the difference.
    pub field_ttls_clamped: u64,
    /// A stream lost its highest deleted id, entries added or entries read: the server has no
    /// commands for them before 7.0, and takes no inconsistent ones.
    pub stream_metadata: bool,
    /// Consumers of streams that count as seen just now. There is no command for these times.
    pub consumer_times: u64,
    /// Entries pending in a stream's groups that the server did not take.
    pub pending: u64,
    /// A stream lost its settings of idempotency, or ids that it remembered of producers: the server
    /// has no commands for them or refuses them, the id is one that XIDMPRECORD does not take, or
    /// there are more than the stream is set to remember.
    pub idempotency: bool,
    /// Entries of a stream that had been given back, and belong to a consumer again
    /// ([`payload::GIVEN_BACK`]).
    pub given_back: u64,
}

impl CommandLosses {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a value was not written. The connection is usable again and all replies are read, but after
/// [`CommandError::Connection`]. The temporary key is gone, unless [`Commands::take_left`] names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The connection broke; a temporary key may be left.
    #[error(transparent)]
    Connection(#[from] ServerError),
    /// This value cannot be written there. Found out before anything was sent, or by the check of
    /// its length.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The user or the service does not allow a command at all.
    #[error("{command} is not allowed: {text}")]
    Forbidden {
        /// The command.
        command: &'static str,
        /// The server's words.
        text: String,
    },
    /// Any other error reply: out of memory, read-only, loading, no right to this key, …
    #[error("{text} (in answer to {command})")]
    Answer {
        /// The command.
        command: &'static str,
        /// The server's words.
        text: String,
    },
    /// There was no transaction, or not all of it was carried out: the value stands under its name,
    /// and lives for ever.
    #[error("it exists without its expiry: {why}")]
    NoExpiry {
        /// Why PEXPIREAT did not set it.
        why: Box<CommandError>,
    },
}

impl CommandError {
    fn answer(command: &'static str, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text).into_owned();
        // "No permissions to access a key", "… one of the keys used as arguments".
        let of_key =
            text.starts_with("NOPERM") && text.contains("key") && !text.contains("command");
        if is_forbidden(&text) && !of_key && !is_about_database(&text) {
            Self::Forbidden { command, text }
        } else {
            Self::Answer { command, text }
        }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }

    fn damaged(error: &PayloadError) -> Self {
        Self::refused(if error.is_opaque() {
            format!("{error}: there are no commands for it")
        } else {
            format!("its value is damaged: {error}")
        })
    }
}

/// Writes values by commands.
#[derive(Debug)]
pub struct Commands {
    features: Features,
    limits: CommandLimits,
    /// What tells this run's temporary keys from all others'.
    run: u64,
    serial: u64,
    /// The temporary key that the last value may have left.
    left: Option<Vec<u8>>,
}

impl Commands {
    /// What the destination's commands can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// For a destination that has these features and limits.
    pub fn new(features: Features, limits: CommandLimits) -> Self {
        Self {
            features,
            limits,
            run: host::random(),
            serial: 0,
            left: None,
        }
    }

    /// The temporary key that may be left after an error of [`Commands::write`] (its connection was
    /// lost, or the removal was refused) or of [`Commands::read_small`] (the removal was refused; if
    /// the connection was lost, [`Ticket::temp`] names the key). To be asked after each error.
    pub fn take_left(&mut self) -> Option<Vec<u8>> {
        self.left.take()
    }

    /// By which command a value would get its name.
    pub fn way(&self, job: &Job<'_>) -> Way {
        self.features.way(&self.limits, job)
    }

    /// A new temporary name in the slot of `key`.
    pub fn temp_key(&mut self, key: &[u8]) -> Vec<u8> {
        self.serial += 1;
        let tag = tag_for_slot(slot_of(key));
        let own = format!("{tag}:{:016x}:{:x}", self.run, self.serial);
        [TEMP_KEY_PREFIX, own.as_bytes()].concat()
    }

    /// Writes one value and waits for it. Nothing may be in flight on `conn`. Never holds more of
    /// the value than a chunk and the longest of its strings.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn write(
        &mut self,
        conn: &mut Conn,
        job: &Job<'_>,
    ) -> Result<(Written, CommandLosses), CommandError> {
        if job.is_past() {
            return Ok((Written::Expired, CommandLosses::default()));
        }
        let reader = self.open(job)?;
        if job.replace == Replace::IfAbsent && large::stands(conn, job.key)? {
            return Ok((Written::Standing, CommandLosses::default()));
        }
        let temp = self.temp_key(job.key);
        match large::write_as(&self.features, &self.limits, conn, job, reader, &temp) {
            Ok(written) => Ok(written),
            Err(Abandoned { error, is_left }) => {
                self.left = is_left.then_some(temp);
                Err(error)
            }
        }
    }

    /// Reads and checks a value completely. Nothing was sent yet when this fails.
    fn open<'a>(&self, job: &Job<'a>) -> Result<Reader<'a>, CommandError> {
        let damaged = |error: PayloadError| CommandError::damaged(&error);
        payload::check(job.family, job.value).map_err(damaged)?;
        let limit = self.limits.max_argument_bytes();
        // Compressed strings expand to 88 times their size at most (lzf_d.c: three bytes to 264).
        if (job.value.len() as u64).saturating_mul(100) > limit {
            let reader = payload::read(job.family, job.value).map_err(damaged)?;
            let largest = fill::largest_argument(reader).map_err(damaged)?;
            if largest > limit {
                return Err(CommandError::refused(format!(
                    "it holds a single string of {largest} bytes, and the destination takes no \
                     more than {limit} in one piece"
                )));
            }
        }
        payload::read(job.family, job.value).map_err(damaged)
    }
}

/// Bytes of the longest argument that a value's commands would have; `None` for one that cannot be
/// read.
pub fn largest_argument(family: Family, value: &[u8]) -> Option<u64> {
    let reader = payload::read(family, value).ok()?;
    fill::largest_argument(reader).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_keys_lie_in_the_slot_of_their_key_and_never_twice() {
        let new = || Commands::new(Features::default(), CommandLimits::default());
        let (mut one, mut other) = (new(), new());
        for key in [
            &b""[..],
            b"k",
            b"{a}b",
            b"a{}b",
            b"}{",
            b"{{x}}",
            b"\xff\r\n",
        ] {
            let (a, b, c) = (one.temp_key(key), one.temp_key(key), other.temp_key(key));
            assert!(a != b && a != c);
            for temp in [a, b, c] {
                assert!(temp.starts_with(TEMP_KEY_PREFIX));
                assert_eq!(slot_of(&temp), slot_of(key));
            }
        }
    }

    #[test]
    fn errors_of_commands_are_told_from_those_of_keys() {
        let of = |text: &str| CommandError::answer("SADD", text.as_bytes());
        for text in [
            "NOPERM this user has no permissions to run the 'sadd' command",
            "NOPERM User u has no permissions to run the 'sadd' command",
            "ERR unknown command 'SADD', with args beginning with: 'key'",
        ] {
            assert!(matches!(of(text), CommandError::Forbidden { .. }), "{text}");
        }
        for text in [
            "NOPERM No permissions to access a key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            assert!(matches!(of(text), CommandError::Answer { .. }), "{text}");
        }
    }
}
