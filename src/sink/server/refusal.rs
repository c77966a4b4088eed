//! What an error reply to RESTORE means for the key and for the run.

use crate::payload;
use crate::policy::Method;
use crate::record::{Context, Family};
use crate::select::{VECTOR_SET_TYPE, module_name};
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::facts::{Facts, family_name};

/// What to do about a destination with too few replicas.
pub const TOO_FEW_REPLICAS: &str = "too few replicas of the destination are connected, or they lag \
    behind: connect them, or lower its min-replicas-to-write, then run the same command again";

/// What an error reply means.
#[derive(Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// BUSYKEY: the key is there already.
    Standing,
    /// The server is loading or busy: the same again, later.
    Later,
    /// This key is not to be had there; the others may be.
    Key {
        /// What happened, with the server's words.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// This key is not to be had in this database.
    Database,
    /// No key is to be had there.
    Run {
        /// What to do about it.
        advice: &'static str,
    },
}

impl RestoreError {
    /// Reads the server's words. They are matched as in redis' server.c and cluster.c (RESTORE),
    /// which Valkey shares.
    pub fn of(text: &str, facts: &Facts, context: &Context) -> Self {
        let code = text.split(' ').next().unwrap_or("");
        match code {
            "BUSYKEY" => RestoreError::Standing,
            // Kvrocks (cmd_server.cc, CommandRestore).
            _ if text.starts_with("ERR target key name already exists") => RestoreError::Standing,
            // Too few replicas just now; they may come back.
            "NOREPLICAS" => RestoreError::Later,
            _ if asks_for_patience(text) => RestoreError::Later,
            "OOM" => RestoreError::Run {
                advice: "the destination is out of memory: raise maxmemory, then run the same command \
                         again, which writes what is missing",
            },
            "READONLY" => RestoreError::Run {
                advice: "the destination is a read-only replica: name its primary",
            },
            "NOAUTH" => RestoreError::Run {
                advice: "the destination wants a password: see --password-file and --user",
            },
            "MISCONF" => RestoreError::Run {
                advice: "the destination cannot save to its disk and refuses writes: see its log",
            },
            "NOPERM" if is_about_database(text) => RestoreError::Database,
            "NOPERM" if is_about_key(text) => RestoreError::Key {
                reason: text.to_owned(),
                hint: Some(
                    "the user may not write this key: widen its ACL key patterns".to_owned(),
                ),
            },
            _ if has_no_absttl(text) => RestoreError::Run {
                advice: "the destination's RESTORE has no ABSTTL: leave out --method restore, and \
                         native commands write the keys",
            },
            _ if is_forbidden(text) => RestoreError::Run {
                advice: "the user or the service does not allow RESTORE, without which nothing can \
                         be imported",
            },
            _ if text.contains("DUMP payload version or checksum are wrong") => RestoreError::Key {
                reason: text.to_owned(),
                hint: Some(version_hint(facts, context)),
            },
            _ if is_bad_format(text) => RestoreError::Key {
                reason: text.to_owned(),
                hint: Some(format!(
                    "{} does not know this encoding; {}",
                    facts.title(),
                    version_hint(facts, context)
                )),
            },
            _ => RestoreError::Key {
                reason: text.to_owned(),
                hint: None,
            },
        }
    }

    /// The same with what is known of the value: a module's is refused by the module, or because no
    /// module has its type, whatever version wrote it.
    pub fn of_value(self, family: Family, value: &[u8]) -> Self {
        match (self, module_type(family, value)) {
            (Self::Key { reason, .. }, Some(name)) if is_bad_format(&reason) => Self::Key {
                hint: Some(module_hint(&name)),
                reason,
            },
            (refusal, _) => refusal,
        }
    }
}

/// The data type of a module's value. A vector set is a server's own.
pub fn module_type(family: Family, value: &[u8]) -> Option<String> {
    let value = payload::plain(family, value);
    let is_module = payload::kind(family, value) == payload::Kind::Module;
    let name = is_module.then(|| module_name(value))??;
    (name != VECTOR_SET_TYPE).then_some(name)
}

/// What to do where a value of this data type is refused as not readable.
pub fn module_hint(name: &str) -> String {
    format!(
        "the module of the type {name} is probably not loaded at the destination, or is older than \
         the one that wrote the value: load it there"
    )
}

/// What a destination that refuses every RESTORE with these words means for a run: `import`,
/// `copy`, their `--dry-run` and `doctor` all go by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Some keys may be restored all the same.
    Open,
    /// Native commands take the place of RESTORE.
    ByCommands,
    /// Nothing can be written, and what to do about it.
    Nothing(&'static str),
}

impl Outlook {
    /// By the server's words.
    pub fn of(text: &str, method: Method) -> Self {
        match RestoreError::of(text, &Facts::default(), &Context::default()) {
            RestoreError::Run { .. } if is_replaceable(text) && method == Method::Auto => {
                Self::ByCommands
            }
            RestoreError::Run { advice } => Self::Nothing(advice),
            RestoreError::Later if is_too_few_replicas(text) => Self::Nothing(TOO_FEW_REPLICAS),
            _ => Self::Open,
        }
    }
}

/// Whether RESTORE does not know its argument ABSTTL: old servers do not (cluster.c), nor does Garnet,
/// whose RESTORE takes exactly three arguments (KeyAdminCommands.cs).
pub fn has_no_absttl(text: &str) -> bool {
    text.starts_with("ERR syntax error") || text.starts_with("ERR wrong number of arguments")
}

/// Whether native commands take the place of a RESTORE that is refused in these words.
pub(super) fn is_replaceable(text: &str) -> bool {
    is_forbidden(text) || has_no_absttl(text)
}

/// Whether an error reply says that too few replicas are connected (min-replicas-to-write).
pub fn is_too_few_replicas(text: &str) -> bool {
    text.starts_with("NOREPLICAS")
}

/// Whether an error reply to RESTORE says that the value cannot be read (cluster.c).
pub fn is_bad_format(text: &str) -> bool {
    text.contains("Bad data format")
}

/// Whether an error reply says that this user may not use the database that is selected (Valkey
/// 9.1, acl.c).
pub fn is_about_database(text: &str) -> bool {
    text.starts_with("NOPERM") && text.contains("access database")
}

/// Whether an error reply says that this user may not use this key: "…permissions to access a key"
/// (7.0, acl.c), "…to access one of the keys used as arguments" (6.0).
pub fn is_about_key(text: &str) -> bool {
    text.starts_with("NOPERM") && text.contains("key") && !text.contains("command")
}

fn version_hint(facts: &Facts, context: &Context) -> String {
    let source = family_name(context.family).unwrap_or("an unknown server");
    let own = match facts.rdb_version() {
        0 => String::new(),
        version => format!(", {} writes {version}", facts.title()),
    };
    format!(
        "the value was written by {source} in RDB version {}{own}: the destination must be of the \
         same version or newer",
        context.rdb_version
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> RestoreError {
        RestoreError::of(text, &Facts::default(), &Context::default())
    }

    #[test]
    fn the_servers_words_are_told_apart() {
        assert_eq!(
            of("BUSYKEY Target key name already exists."),
            RestoreError::Standing
        );
        assert_eq!(
            of("LOADING Redis is loading the dataset in memory"),
            RestoreError::Later
        );
        assert!(matches!(
            of("OOM command not allowed when used memory > 'maxmemory'."),
            RestoreError::Run { .. }
        ));
        assert!(matches!(
            of("READONLY You can't write against a read only replica."),
            RestoreError::Run { .. }
        ));
        assert!(matches!(
            of("NOPERM this user has no permissions to run the 'restore' command"),
            RestoreError::Run { .. }
        ));
        assert!(matches!(
            of("NOPERM User u has no permissions to run the 'restore' command"),
            RestoreError::Run { .. }
        ));
        assert!(matches!(
            of("NOPERM No permissions to access a key"),
            RestoreError::Key { .. }
        ));
        assert!(matches!(
            of("NOPERM this user has no permissions to access one of the keys used as arguments"),
            RestoreError::Key { .. }
        ));
        assert!(matches!(
            of("ERR unknown command `RESTORE`, with args"),
            RestoreError::Run { .. }
        ));
        let RestoreError::Key {
            hint: Some(hint), ..
        } = of("ERR DUMP payload version or checksum are wrong")
        else {
            panic!()
        };
        assert!(hint.contains("RDB version"), "{hint}");
    }
}
