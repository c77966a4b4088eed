//! Which commands this user may use here. Each is tried so that it does nothing: on a key that does
//! not exist, with an argument that cannot be right, or queued in a MULTI that is never executed.
//! What cannot be tried without doing it (PSYNC) is asked about.

use super::probes::{CommandProbe, PROBES, Trial};
use crate::server::conn::asks_for_patience;
use crate::server::reply::{Command, Reply, cmd, from_reply};
use crate::server::{Conn, ServerError};
pub use crate::sink::server::access::Access;
use crate::sink::server::access::{native, queue};
use crate::sink::server::commands::Features;

/// What all the tries showed.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    tried: Vec<(&'static str, Access)>,
    cluster: bool,
}

impl Rights {
    /// Tries every command of [`PROBES`]; those for clusters in a `cluster` only. `again` opens
    /// further connections as the same user, for tries that leave one unusable.
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
