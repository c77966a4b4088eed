//! What to do about an error, one line each.

use std::borrow::Cow;
use std::io;

use crate::encryption::EncryptionError;
use crate::exit::{Interrupted, Usage};
use crate::observer::TooManyErrors;
use crate::rdb::{EnvelopeError, RdbError, RdbErrorKind};
use crate::server::ServerError;
use crate::server::conn::ends_connection;
use crate::server::facts::CAME_WITH;

type Advice = Option<Cow<'static, str>>;

/// Advice for the first cause that we have some for.
pub fn of(error: &anyhow::Error) -> Advice {
    error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            None
        } else if cause.is::<Interrupted>() {
            Some("run it again when you are ready".into())
        } else if cause.is::<TooManyErrors>() {
            let text = "--errors-to FILE records every failed key; with a larger --max-errors, or \
                        without it, the run goes on to the end";
            Some(text.into())
        } else if let Some(error) = EncryptionError::of(cause) {
            Some(error.advice().into())
        } else if let Some(archive) = cause.downcast_ref::<redis_migrate_format::Error>() {
            Some(of_archive(archive))
        } else if let Some(rdb) = cause.downcast_ref::<RdbError>()
            && rdb.is_damage()
        {
            Some(of_rdb(&rdb.kind).into())
        } else if let Some(server) = cause.downcast_ref::<ServerError>() {
            of_server(server)
        } else {
            cause.downcast_ref::<io::Error>().and_then(of_io)
        }
    })
}

fn of_rdb(kind: &RdbErrorKind) -> &'static str {
    match kind {
        // Where a value of an unknown type ends, nobody can say: the file cannot be read on.
        RdbErrorKind::Unknown(_) => {
            "a server newer than this tool may have written it: export or copy from that server itself \
             (without --via replica), which also moves values that this tool cannot read, or use a \
             newer redis-migrate; if the server is not newer, the file is damaged"
        }
        // These are not damaged: to fetch or write them again would change nothing.
        RdbErrorKind::Version(_) | RdbErrorKind::Envelope(EnvelopeError::Header { .. }) => {
            "a server newer than this tool may have written it: use a newer redis-migrate, or export \
             or copy from that server itself (without --via replica)"
        }
        RdbErrorKind::Envelope(EnvelopeError::Replication) => {
            "give a file that the server saved (SAVE, BGSAVE), or export or copy from the server itself"
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
        _ => {
            "check it with the redis-check-rdb or valkey-check-rdb of the server that wrote it; then \
             fetch it again, or let the server write a new one (BGSAVE)"
        }
    }
}

fn of_archive(error: &redis_migrate_format::Error) -> Cow<'static, str> {
    use redis_migrate_format::Error;
    if let Error::Read { source, .. } | Error::Write { source, .. } = error {
        if let Some(error) = EncryptionError::of(source) {
            return error.advice().into();
        }
        if let Some(text) = of_io(source) {
            return text;
        }
    }
    error.advice().into()
}

fn of_io(error: &io::Error) -> Advice {
    let text = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: make room, or write to another place"
        }
        io::ErrorKind::BrokenPipe => {
            "the program that read the output ended; what it received is not complete"
        }
        io::ErrorKind::PermissionDenied => "check the permissions of the file and its directory",
        io::ErrorKind::FileTooLarge => {
            "the file system or a limit (ulimit -f) does not allow a file this large"
        }
        _ => return None,
    };
    Some(text.into())
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

fn of_server(error: &ServerError) -> Advice {
    let text = match error {
        ServerError::Connect { .. } => {
            "check the host and port, and that the server runs and can be reached from here; a TLS \
             server needs rediss://"
        }
        ServerError::Auth { .. } => {
            "check the user and password: --user, --askpass, --password-file, or SOURCE_REDIS_PASSWORD \
             and DESTINATION_REDIS_PASSWORD, which need no percent-encoding (with copy: \
             --source-… and --dest-…)"
        }
        ServerError::Refused {
            command, reason, ..
        } => return of_refusal(command, reason),
        ServerError::Lost { doing, .. } if doing == "reading keys" => {
            "the network or the server broke the connection. The server's log may say why (a value \
             larger than client-output-buffer-limit normal?). If the server was slow to answer, raise \
             --timeout; then run it again"
        }
        ServerError::Lost { .. } => {
            "the network or the server broke the connection; if the server was slow to answer, raise \
             --timeout; then run it again"
        }
        _ => return None,
    };
    Some(text.into())
}

/// The server refuses a command that is needed.
fn of_refusal(command: &str, reason: &str) -> Advice {
    let text = if command == "PSYNC" {
        "managed services allow no replicas: without --via replica, keys are read with SCAN and DUMP; \
         or let the user run PSYNC and REPLCONF (ACL SETUSER … +psync +replconf)"
    } else if command == "SCAN" && reason.contains(CAME_WITH) {
        "--via replica reads it by replication, and its RDB file can be read: see export --help"
    } else if !is_about_rights(reason) {
        return None;
    } else if ends_connection(reason) {
        return Some(
            format!(
                "something between here and the server (a proxy?) does not know {command}, which is \
                 needed: connect to the server itself"
            )
            .into(),
        );
    } else if reason.contains("DB index") {
        "the server has no such database: name one that it has, in the URL or with --db (INFO keyspace \
         lists those with keys)"
    } else if reason.contains("access database") {
        "let the user enter this database (ACL SETUSER … db=N), or use another user"
    } else {
        let rule = command.to_ascii_lowercase().replace(' ', "|");
        return Some(
            format!("let the user run this command (ACL SETUSER … +{rule}), or use another user")
                .into(),
        );
    };
    Some(text.into())
}
