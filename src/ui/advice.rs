//! What to do about an error, one line each.

use std::io;

use crate::encryption::EncryptionError;
use crate::exit::{Interrupted, Usage};
use crate::observer::TooManyErrors;
use crate::rdb::{EnvelopeError, RdbError, RdbErrorKind};
use crate::server::ServerError;
use crate::server::conn::ends_connection;
use crate::server::facts::CAME_WITH;

/// Advice for the first cause that we have some for.
pub fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            return None;
        }
        if cause.is::<Interrupted>() {
            return Some("run it again when you are ready".to_owned());
        }
        if cause.is::<TooManyErrors>() {
            let text = "--errors-to FILE writes every failed key down; a larger --max-errors, or \
                        none, goes on to the end";
            return Some(text.to_owned());
        }
        if let Some(error) = EncryptionError::of(cause) {
            return Some(error.advice().to_owned());
        }
        if let Some(archive) = cause.downcast_ref::<redis_migrate_format::Error>() {
            return Some(of_archive(archive));
        }
        if let Some(rdb) = cause.downcast_ref::<RdbError>()
            && rdb.is_damage()
        {
            // Where a value of an unknown type ends, nobody can say: the file cannot be read on.
            let unknown = "a server newer than this tool may have written it: read that server itself \
                           with export or copy (no --via replica), which carry values that they \
                           cannot read, or take a newer redis-migrate; if the server is not newer, \
                           the file is damaged";
            if matches!(rdb.kind, RdbErrorKind::Unknown(_)) {
                return Some(unknown.to_owned());
            }
            if let Some(text) = of_sound_rdb(&rdb.kind) {
                return Some(text.to_owned());
            }
            let text = "redis-check-rdb or valkey-check-rdb of the server that wrote it says more; \
                        fetch it again, or let the server write a new one (BGSAVE)";
            return Some(text.to_owned());
        }
        if let Some(server) = cause.downcast_ref::<ServerError>() {
            return of_server(server);
        }
        cause.downcast_ref::<io::Error>().and_then(of_io)
    })
}

/// Advice about RDB data that are not damaged: to fetch or write them again would change nothing.
fn of_sound_rdb(kind: &RdbErrorKind) -> Option<&'static str> {
    Some(match kind {
        RdbErrorKind::Version(_) | RdbErrorKind::Envelope(EnvelopeError::Header { .. }) => {
            "a server newer than this tool may have written it: take a newer redis-migrate, or read \
             that server itself with export or copy (no --via replica)"
        }
        RdbErrorKind::Envelope(EnvelopeError::Replication) => {
            "give a file that the server saved (SAVE, BGSAVE), or read the server itself with export \
             or copy"
        }
        RdbErrorKind::Envelope(EnvelopeError::Window) => {
            "compress its contents again with a smaller window, or let the server write a new file \
             with rdbcompression lz4 or yes"
        }
        RdbErrorKind::Update => {
            "the file is not damaged; a new snapshot without such commands can be read"
        }
        RdbErrorKind::Glued => {
            "split the file where the second one begins, and read each by itself"
        }
        _ => return None,
    })
}

fn of_archive(error: &redis_migrate_format::Error) -> String {
    use redis_migrate_format::Error;
    if let Error::Read { source, .. } | Error::Write { source, .. } = error {
        if let Some(error) = EncryptionError::of(source) {
            return error.advice().to_owned();
        }
        if let Some(text) = of_io(source) {
            return text;
        }
    }
    error.advice().to_owned()
}

fn of_io(error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; make room, or write the archive somewhere else"
        }
        io::ErrorKind::BrokenPipe => {
            "what was to read the archive went away; what it has got is not complete"
        }
        io::ErrorKind::PermissionDenied => "check the permissions of the file and its directory",
        io::ErrorKind::FileTooLarge => {
            "the file system or a limit (ulimit -f) does not allow a file this large"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Whether a refusal is one that other rights would change.
fn is_about_rights(reason: &str) -> bool {
    const OTHERS: [&str; 7] = [
        "READONLY",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "NOAUTH",
        "ERR syntax error",
        "ERR wrong number of arguments",
    ];
    !reason.contains(CAME_WITH) && !OTHERS.iter().any(|code| reason.starts_with(code))
}

fn of_server(error: &ServerError) -> Option<String> {
    let text = match error {
        ServerError::Connect { .. } => Some(
            "check host, port and that the server runs and can be reached from here; a server \
             that speaks TLS needs rediss://",
        ),
        ServerError::Auth { .. } => Some(
            "check user and password: --user, --askpass, --password-file, or SOURCE_REDIS_PASSWORD \
             and DESTINATION_REDIS_PASSWORD, which need no percent-encoding (with copy: \
             --source-… and --dest-…)",
        ),
        ServerError::Refused { command, .. } if command == "PSYNC" => Some(
            "managed services allow no replicas; leave --via replica out, and keys are read with \
             SCAN and DUMP; or let the user run PSYNC and REPLCONF (ACL SETUSER … +psync +replconf)",
        ),
        ServerError::Refused {
            command, reason, ..
        } if command == "SCAN" && reason.contains(CAME_WITH) => Some(
            "--via replica reads it by replication, and its RDB file can be read: see export --help",
        ),
        ServerError::Refused { reason, .. } if !is_about_rights(reason) => None,
        ServerError::Refused {
            command, reason, ..
        } => {
            if ends_connection(reason) {
                return Some(format!(
                    "something between here and the server (a proxy?) does not know {command}, \
                     which cannot be done without: connect to the server itself"
                ));
            }
            if reason.contains("DB index") {
                return Some(
                    "the server has no such database: name one that it has, in the URL or with \
                     --db (INFO keyspace lists those with keys)"
                        .to_owned(),
                );
            }
            if reason.contains("access database") {
                return Some(
                    "let the user go to this database (ACL SETUSER … db=N), or use another user"
                        .to_owned(),
                );
            }
            let rule = command.to_ascii_lowercase().replace(' ', "|");
            return Some(format!(
                "let the user run this command (ACL SETUSER … +{rule}), or use another user"
            ));
        }
        ServerError::Lost { doing, .. } if doing == "reading keys" => Some(
            "the network or the server broke the connection; its log may say why (a value of more \
             than client-output-buffer-limit normal allows?); if it took long to answer, raise \
             --timeout; then run it again",
        ),
        ServerError::Lost { .. } => Some(
            "the network or the server broke the connection; if it took long to answer, raise \
             --timeout; then run it again",
        ),
        _ => None,
    };
    text.map(str::to_owned)
}
