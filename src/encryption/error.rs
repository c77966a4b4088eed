//! What can be wrong with an encrypted archive.

use std::error::Error as StdError;
use std::io;

/// Why an encrypted archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EncryptionError {
    /// No key was given.
    #[error("{name} is encrypted{}", match .passphrase {
        true => " with a passphrase, and none was given",
        false => ", and no identity was given",
    })]
    Locked {
        /// The file, for people.
        name: String,
        /// Whether a passphrase opens it, and not an identity.
        passphrase: bool,
    },
    /// Keys were given, and none opens it.
    #[error("{name} is encrypted for others: {}", match .identities {
        1 => "the identity that was given does not open it".to_owned(),
        n => format!("none of the {n} identities that were given opens it"),
    })]
    WrongIdentity {
        /// The file, for people.
        name: String,
        /// How many were tried.
        identities: usize,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {name}")]
    WrongPassphrase {
        /// The file, for people.
        name: String,
    },
    /// Bytes of it were changed.
    #[error("{what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// Its end is missing.
    #[error("its encrypted form is cut off")]
    Cut,
    /// age has gone on.
    #[error("{name} needs a newer redis-migrate: {what}")]
    Unsupported {
        /// The file, for people.
        name: String,
        /// What is unknown.
        what: String,
    },
}

impl EncryptionError {
    /// This error, if `cause` is one, or an I/O error that carries one.
    pub(crate) fn of<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        if let Some(error) = cause.downcast_ref::<Self>() {
            return Some(error);
        }
        let carried = cause.downcast_ref::<io::Error>()?.get_ref()?;
        carried.downcast_ref::<Self>()
    }

    /// Whether another key would help, and not another copy of the file.
    pub(crate) fn is_wrong_key(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. } | Self::WrongIdentity { .. } | Self::WrongPassphrase { .. }
        )
    }

    /// One line of what to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Locked {
                passphrase: false, ..
            } => {
                "give --age-identity FILE: the private key (AGE-SECRET-KEY-…) of one of those it is \
                 encrypted for"
            }
            Self::Locked {
                passphrase: true, ..
            } => "give --age-passphrase to be asked for it, or --age-passphrase-file FILE",
            Self::WrongIdentity { .. } => {
                "give --age-identity FILE of one of those it is encrypted for; if you did, its \
                 first bytes are damaged: fetch it again"
            }
            Self::WrongPassphrase { .. } => {
                "try again; if it is the right one, the file's first bytes are damaged: fetch it \
                 again"
            }
            Self::Damaged { .. } => {
                "compare its SHA-256 with the one the export printed and fetch it again"
            }
            Self::Cut => {
                "the export or a transfer was interrupted; fetch the file again or export again"
            }
            Self::Unsupported { .. } => {
                "decrypt it with a newer age, and give what comes out to redis-migrate"
            }
        }
    }

    /// As an I/O error, for those who read the stream.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}
