//! The exit code of an error.

use crate::encryption::EncryptionError;
use crate::exit::{
    ARCHIVE, CONNECT, DIFFERENCES, Differences, FAILED, INTERRUPTED, Interrupted, REFUSED,
    SOME_KEYS, USAGE, Usage, WRONG_KEY,
};
use crate::observer::TooManyErrors;
use crate::rdb::RdbError;
use crate::server::ServerError;

/// The exit code that an error stands for: the first of its chain that has one.
pub(crate) fn of(error: &anyhow::Error) -> u8 {
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::rdb::RdbErrorKind;

    #[test]
    fn a_damaged_rdb_file_is_no_failure_to_read() {
        let code = |kind| {
            of(&anyhow::Error::new(RdbError {
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
