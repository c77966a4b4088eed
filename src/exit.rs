//! Exit codes: a promise to scripts.

use crate::encryption::EncryptionError;
use crate::observer::TooManyErrors;
use crate::rdb::RdbError;
use crate::server::ServerError;

/// Complete, ledger reconciled.
pub const OK: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Finished, but some keys failed or were refused; they are listed.
pub const SOME_KEYS: u8 = 3;
/// Finished, but the asked consistency was not reached.
pub const CONSISTENCY: u8 = 4;
/// Differences were found.
pub const DIFFERENCES: u8 = 5;
/// The archive (or the RDB file) is damaged, truncated or of a version that cannot be read.
pub const ARCHIVE: u8 = 10;
/// Wrong key or passphrase of an encrypted archive.
pub const WRONG_KEY: u8 = 11;
/// Cannot connect or authenticate.
pub const CONNECT: u8 = 12;
/// The server refuses a command that is needed.
pub const REFUSED: u8 = 13;
/// Interrupted by a signal.
pub const INTERRUPTED: u8 = 130;

/// The user stopped the run.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The destination is not what was written (`--verify`).
#[derive(Debug, thiserror::Error)]
#[error(
    "the destination is not what was written there: {} {}, or somebody else writes there too",
    crate::units::plural(*.0, "key"),
    if *.0 == 1 { "differs" } else { "differ" }
)]
pub struct Differences(pub u64);

/// The user asked for something that makes no sense; found only after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit code that an error stands for: the first of its chain that has one.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        // Who reads for somebody else can say it only by an I/O error.
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if cause.is::<Interrupted>() || inner.is_some_and(|inner| inner.is::<Interrupted>()) {
            return INTERRUPTED;
        }
        if cause.is::<Usage>() {
            return USAGE;
        }
        if cause.is::<Differences>() {
            return DIFFERENCES;
        }
        if cause.is::<TooManyErrors>() {
            return SOME_KEYS;
        }
        if let Some(error) = EncryptionError::of(cause) {
            return match error.is_wrong_key() {
                true => WRONG_KEY,
                false => ARCHIVE,
            };
        }
        if let Some(archive) = cause.downcast_ref::<redis_migrate_format::Error>()
            && archive.class() != redis_migrate_format::Class::Io
        {
            return ARCHIVE;
        }
        if let Some(rdb) = cause.downcast_ref::<RdbError>()
            && rdb.is_damage()
        {
            return ARCHIVE;
        }
        if let Some(server) = cause.downcast_ref::<ServerError>() {
            return match server {
                ServerError::Connect { .. } | ServerError::Auth { .. } => CONNECT,
                ServerError::Refused { .. } => REFUSED,
                _ => FAILED,
            };
        }
    }
    FAILED
}

/// Of several codes that apply, the one to exit with: the first of 130, 10–13, 2, 1, 5, 3, 4.
///
/// A difference that was seen comes before keys that could not be looked at: it stands whatever
/// those hold.
pub fn strongest(codes: &[u8]) -> u8 {
    const ORDER: [u8; 10] = [
        INTERRUPTED,
        ARCHIVE,
        WRONG_KEY,
        CONNECT,
        REFUSED,
        USAGE,
        FAILED,
        DIFFERENCES,
        SOME_KEYS,
        CONSISTENCY,
    ];
    ORDER
        .into_iter()
        .find(|code| codes.contains(code))
        .unwrap_or(OK)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::rdb::RdbErrorKind;

    #[test]
    fn a_damaged_rdb_file_is_no_failure_to_read() {
        let code = |kind| {
            code_of(&anyhow::Error::new(RdbError {
                offset: 0,
                last_key: None,
                kind,
            }))
        };
        assert_eq!(code(RdbErrorKind::Truncated), ARCHIVE);
        let reset = io::ErrorKind::ConnectionReset.into();
        assert_eq!(code(RdbErrorKind::Io(reset)), FAILED);
    }
}
