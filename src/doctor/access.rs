//! Which commands this user may use here. Each is tried so that it does nothing: on a key that does
//! not exist, with an argument that cannot be right, or queued in a MULTI that is never executed.
//! What cannot be tried without doing it (PSYNC) is asked about.

use super::probes::{CommandProbe, PROBES, Trial};
use crate::server::conn::asks_for_patience;
use crate::server::reply::{Command, Reply, cmd, from_reply};
use crate::server::transaction::cause_of_discard;
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::sink::server::commands::{Features, native_commands};
use crate::sink::server::refusal::{is_about_database, is_about_key};

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
    fn of_error(text: String, fine: &[&str], cluster: bool) -> Self {
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

/// What all the tries showed.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    tried: Vec<(&'static str, Access)>,
    cluster: bool,
}

impl Rights {
    /// Tries every command of [`PROBES`]; those for clusters in a `cluster` only. `again` opens further connections as the same user, for
    /// tries that leave one unusable.
    ///
    /// # Errors
    /// The connections.
    pub fn learn(
        conn: &mut Conn,
        mut again: impl FnMut() -> Result<Conn, ServerError>,
        cluster: bool,
        features: &Features,
    ) -> Result<Self, ServerError> {
        conn.doing("trying which commands may be used");
        let mut rights = Self {
            tried: Vec::with_capacity(PROBES.len()),
            cluster,
        };
        for probe in PROBES {
            if !rights.concerns(probe) {
                continue;
            }
            let access = match probe.how {
                Trial::Sent(args) => send(conn, args, probe.proof, cluster)?,
                Trial::Native => native(&mut again()?, cluster, features)?.0,
                Trial::Queued(args) => queue(&mut again()?, [args], probe.proof, cluster)?.0,
                Trial::Transaction => {
                    // MULTI without the right to EXEC would leave it stuck.
                    let mut other = again()?;
                    match send(&mut other, &["MULTI"], &[], cluster)? {
                        Access::Allowed => send(&mut other, &["EXEC"], &[], cluster)?,
                        access => access,
                    }
                }
                Trial::Asked(args) => ask(conn, args)?,
            };
            rights.tried.push((probe.name, access));
        }
        Ok(rights)
    }

    /// Whether the command is of any use here.
    pub fn concerns(&self, probe: &CommandProbe) -> bool {
        self.cluster || !probe.only_cluster
    }

    /// What the try of one command showed.
    pub fn of(&self, name: &str) -> &Access {
        self.tried
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(&Access::Unknown, |(_, access)| access)
    }

    /// The words of a server that answers "not now" to one of these, if it does.
    pub fn later(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.of(name).later())
    }

    /// The same, of any command.
    pub fn any_later(&self) -> Option<&str> {
        self.tried.iter().find_map(|(_, access)| access.later())
    }

    /// Whether the tool can use it.
    pub fn can(&self, name: &str) -> bool {
        self.of(name).is_usable()
    }
}

fn send(
    conn: &mut Conn,
    args: &[&str],
    fine: &[&str],
    cluster: bool,
) -> Result<Access, ServerError> {
    let mut command = Command::new();
    command.arg(args);
    Ok(match conn.try_query(&command)? {
        Ok(_) => Access::Allowed,
        Err(text) => Access::of_error(text, fine, cluster),
    })
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
/// connection is not used for anything else.
fn queue(
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

/// Whether a command is there, by COMMAND INFO, and whether this user may use it, by ACL DRYRUN
/// (7.0). Where those are refused nothing is known.
fn ask(conn: &mut Conn, args: &[&str]) -> Result<Access, ServerError> {
    let mut info = cmd("COMMAND");
    info.arg("INFO").arg(args.first());
    let unknown = |text: String| match asks_for_patience(&text) {
        true => Access::Later(text),
        false => Access::Unknown,
    };
    if let Ok(Reply::Array(rows)) = conn.try_query(&info)?
        && rows
            .iter()
            .all(|row| matches!(row, Reply::Nil) || *row == Reply::Array(Vec::new()))
    {
        return Ok(Access::Absent);
    }
    let user = match conn.try_query(cmd("ACL").arg("WHOAMI"))? {
        Ok(user) => user,
        Err(text) => return Ok(unknown(text)),
    };
    let user: String = from_reply(user).unwrap_or_default();
    let mut dry_run = cmd("ACL");
    dry_run.arg("DRYRUN").arg(user).arg(args);
    Ok(match conn.try_query(&dry_run)? {
        Ok(Reply::Okay) => Access::Allowed,
        Ok(other) => Access::Refused(from_reply::<String>(other).unwrap_or_default()),
        Err(text) => unknown(text),
    })
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

    #[test]
    fn every_command_is_named_once_and_in_a_rule() {
        for (n, probe) in PROBES.iter().enumerate() {
            assert!(probe.rule().starts_with('+'), "{}", probe.name);
            assert!(PROBES[..n].iter().all(|other| other.name != probe.name));
        }
    }

    #[test]
    fn the_rule_for_native_commands_names_what_is_used() {
        use std::collections::BTreeSet;

        use crate::sink::server::commands::NATIVE_COMMANDS;
        let probe = PROBES
            .iter()
            .find(|probe| probe.name == super::super::probes::NATIVE);
        let rule: BTreeSet<String> = probe
            .unwrap()
            .rule()
            .split(' ')
            .map(|word| word[1..].to_ascii_uppercase())
            .collect();
        let used = NATIVE_COMMANDS.iter().map(|args| args[0].to_owned());
        let around = ["MULTI", "EXEC"].map(str::to_owned);
        assert_eq!(rule, used.chain(around).collect());
    }
}
