//! Whether a command may be used, tried so that nothing comes of it: what an error reply says of it,
//! and a try in a MULTI that is never executed. `doctor` and a dry run both ask this way.

use super::commands::{Features, native_commands};
use super::refusal::{is_about_database, is_about_key};
use crate::server::conn::asks_for_patience;
use crate::server::reply::{Command, Reply, cmd};
use crate::server::transaction::cause_of_discard;
use crate::server::{ABSENT_KEY, Conn, ServerError};

/// What a try of a command showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It may be used.
    Allowed,
    /// It may be used, but not on every key.
    SomeKeys,
    /// It may be used, but does not work at present: the server is full, or a replica.
    Blocked(String),
    /// Not known: the server answers "not now" (BUSY, LOADING, CLUSTERDOWN …), in these words.
    Later(String),
    /// It is refused, in the server's words.
    Refused(String),
    /// The server does not have it.
    Absent,
    /// It could not be tried.
    Unknown,
}

impl Access {
    /// Whether the tool can use it.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Allowed | Self::SomeKeys)
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "yes",
            Self::SomeKeys => "some keys",
            Self::Blocked(_) => "not now",
            Self::Refused(_) => "refused",
            Self::Absent => "not there",
            Self::Later(_) | Self::Unknown => "unknown",
        }
    }

    /// The server's words, where it answers "not now".
    pub fn later(&self) -> Option<&str> {
        match self {
            Self::Later(text) => Some(text),
            _ => None,
        }
    }

    /// The server's words, where there are any.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Blocked(text) | Self::Later(text) | Self::Refused(text) => Some(text),
            _ => None,
        }
    }

    /// What an error reply says. `fine`: complaints about arguments that prove the right to it.
    ///
    /// In a cluster a node looks last at whose slot a key is in; anywhere else there is no other
    /// node to go to.
    pub fn of_error(text: String, fine: &[&str], cluster: bool) -> Self {
        // What EXEC answers when a command before it was not taken.
        let text = cause_of_discard(&text).map_or_else(|| text.clone(), str::to_owned);
        let is_one_of = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        if text.starts_with("ERR unknown command") {
            // Before `fine`: it repeats the arguments, which may hold the same words.
            Self::Absent
        } else if asks_for_patience(&text) {
            Self::Later(text)
        } else if fine.iter().any(|fine| text.contains(fine))
            || (cluster && is_one_of(&["MOVED", "ASK", "CROSSSLOT"]))
        {
            Self::Allowed
        } else if text.starts_with("NOPERM") {
            // "…permissions to access a key" (7.0), "…one of the keys used as arguments" (6.0).
            // Users of Valkey 9.1 have databases of their own; every connection begins in 0.
            if is_about_database(&text) || is_about_key(&text) {
                Self::SomeKeys
            } else {
                Self::Refused(text)
            }
        } else if text.to_ascii_lowercase().contains("unknown subcommand") {
            Self::Absent
        } else if is_one_of(&["OOM", "READONLY", "MISCONF", "NOREPLICAS", "MOVED", "ASK"]) {
            Self::Blocked(text)
        } else {
            Self::Refused(text)
        }
    }
}

/// Whether values can be written by native commands, and the first command that says no. `conn`
/// must not be used afterwards.
///
/// # Errors
/// The connection.
pub fn native(
    conn: &mut Conn,
    cluster: bool,
    features: &Features,
) -> Result<(Access, &'static str), ServerError> {
    queue(conn, native_commands(features), &[], cluster)
}

/// Queued commands are checked for existence, rights, memory and role. They are never executed: the
/// connection is not used for anything else. `fine`: as of [`Access::of_error`].
///
/// # Errors
/// The connection.
pub fn queue(
    conn: &mut Conn,
    commands: impl IntoIterator<Item = &'static [&'static str]>,
    fine: &[&str],
    cluster: bool,
) -> Result<(Access, &'static str), ServerError> {
    match conn.try_query(&cmd("MULTI"))? {
        Ok(Reply::Okay) => {}
        // Not understood: what is sent now might be carried out.
        Ok(_) => return Ok((Access::Unknown, "MULTI")),
        Err(text) => return Ok((Access::of_error(text, &[], cluster), "MULTI")),
    }
    // Nothing that changes anything goes out before one that changes nothing was queued.
    const HARMLESS: &[&str] = &["EXISTS", ABSENT_KEY];
    let mut worst = (Access::Allowed, "");
    for args in std::iter::once(HARMLESS).chain(commands) {
        let name = args.first().copied().unwrap_or_default();
        let mut command = Command::new();
        command.arg(args);
        match conn.try_query(&command)? {
            Ok(Reply::Status(word)) if word == "QUEUED" => {}
            Ok(_) => return Ok((Access::Unknown, name)),
            Err(text) => match Access::of_error(text, fine, cluster) {
                Access::Allowed => {}
                Access::SomeKeys => worst = (Access::SomeKeys, name),
                other => return Ok((other, name)),
            },
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_are_told_apart() {
        let of = |text: &str| Access::of_error(text.to_owned(), &["no such key"], true);
        assert_eq!(of("ERR no such key"), Access::Allowed);
        assert_eq!(of("MOVED 1 127.0.0.1:1"), Access::Allowed);
        for text in [
            "NOPERM No permissions to access a key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
        ] {
            assert_eq!(of(text), Access::SomeKeys, "{text}");
        }
        for text in [
            "NOPERM User least has no permissions to run the 'time' command",
            "NOPERM this user has no permissions to run the 'time' command or its subcommand",
        ] {
            assert_eq!(of(text), Access::Refused(text.to_owned()));
        }
        for text in [
            "ERR unknown command 'PEXPIRETIME'",
            "ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.",
            "ERR Unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.",
        ] {
            assert_eq!(of(text), Access::Absent, "{text}");
        }
        let moved = "MOVED 1 127.0.0.1:1";
        assert_eq!(
            Access::of_error(moved.to_owned(), &[], false),
            Access::Blocked(moved.to_owned())
        );
        let repeated = "ERR unknown command `X`, with args beginning with: `no such key`, ";
        assert_eq!(of(repeated), Access::Absent);
        for text in [
            "BUSY Redis is busy running a script.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
        ] {
            assert_eq!(of(text), Access::Later(text.to_owned()));
            let aborted = format!("EXECABORT Transaction discarded because of: {text}");
            assert_eq!(of(&aborted), Access::Later(text.to_owned()));
        }
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(of(full), Access::Blocked(full.to_owned()));
    }
}
