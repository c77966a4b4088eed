//! What the words of an error reply mean.

use std::io;

/// How the reason begins why a command is not to be had that ends the connection.
pub(super) const ENDS_CONNECTION: &str = "the connection is closed when it is sent: ";

/// Whether an error reply asks for patience: nothing was done, and the same may work in a while.
pub fn asks_for_patience(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or("");
    matches!(
        code,
        "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN"
    )
}

/// Whether an error reply says that the command is not to be had, whatever its arguments.
pub fn is_forbidden(text: &str) -> bool {
    text.starts_with("NOPERM")
        || text.starts_with("ERR unknown command")
        || text.starts_with("ERR unknown subcommand")
        || text.starts_with("ERR Unknown subcommand")
        || text.contains("is not allowed")
        || ends_connection(text)
}

/// Whether the reason is that the command ends the connection.
pub fn ends_connection(text: &str) -> bool {
    text.starts_with(ENDS_CONNECTION)
}

/// Whether an error reply says that there is no such command, in the words of one server or another.
pub fn is_unknown_command(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "unknown command",
        "unknown subcommand",
        "unsupported",
        "not supported",
    ]
    .iter()
    .any(|words| text.contains(words))
        || ends_connection(&text)
}

/// Whether AUTH was refused because the server lets anybody in (6.0 and later, and before).
pub(super) fn has_no_password(text: &str) -> bool {
    text.contains("without any password configured") || text.contains("no password is set")
}

/// Whether a server says so and then ends the connection.
pub(super) fn turns_away(text: &str) -> bool {
    text.starts_with("DENIED") || text.starts_with("ERR max number of clients")
}

/// Whether it was the other side that ended the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}
