//! Asking a server for a snapshot, as a replica does (replication.c, syncCommand).
//!
//! ```text
//! REPLCONF capa eof capa psync2 [version 9.1.2]   → +OK
//! PSYNC ? -1                                      → +FULLRESYNC <40 hex digits> <offset>
//!                                                   "\n" now and then, while it is prepared
//!                                                 → $<length>, or $EOF:<40 bytes>
//!                                                 → the RDB data, then the 40 bytes once more
//! ```
//!
//! The second form (without a disk, straight from the forked child) is only sent to those who say
//! `capa eof`. Where it ends is for the reader of the RDB data to find, which has an end mark and a
//! checksum of its own; the 40 bytes must follow right there. Valkey from 9.0 on asks for our
//! version: to a replica that it takes for older it writes an older RDB version, and breaks off at
//! the first hash with expiring fields. To one that it takes for 9.2 or later it may send commands
//! between the keys, so less is said ([`version_to_name_to_valkey`]). Without `capa eof` it may send
//! its own newest version whatever was said, so that is always said.

use std::io::{self, Read, Write};

use super::conn::{asks_for_patience, is_forbidden};
use super::facts::Facts;
use super::patience::{Patience, STEP};
use super::stream::{Stream, plain};
use super::{Conn, ServerError};
use crate::dialect::{Version, version_to_name_to_valkey};
use crate::host;
use crate::record::Family;
use crate::server::reply::cmd;

/// The longest line of the handshake that is listened to.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Length of the mark behind a snapshot of unknown length (CONFIG_RUN_ID_SIZE).
pub const MARK_LEN: usize = 40;

/// How the end of the snapshot is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// These bytes follow it.
    Mark([u8; MARK_LEN]),
}

/// The bytes of a snapshot as they arrive. What ends before it should is an error of kind
/// [`io::ErrorKind::UnexpectedEof`], never a quiet end.
pub struct Transfer {
    stream: Stream,
    /// Bytes that were read together with the handshake.
    early: Vec<u8>,
    used: usize,
    framing: Framing,
    /// How many bytes there are, with [`Framing::Length`].
    left: Option<u64>,
}

impl Transfer {
    /// How its end is told.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Ends the connection, so that the server does not keep the stream of writes for us.
    pub fn close(&mut self) {
        self.stream.close();
    }

    fn fill(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let early = &self.early[self.used..];
        if early.is_empty() {
            return self.stream.read(out);
        }
        let len = early.len().min(out.len());
        out[..len].copy_from_slice(&early[..len]);
        self.used += len;
        Ok(len)
    }
}

impl Read for Transfer {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = match self.left {
            Some(left) => out.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => out.len(),
        };
        if len == 0 {
            return Ok(0);
        }
        let read = self.fill(&mut out[..len])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(left) = &mut self.left {
            *left -= read as u64;
        }
        Ok(read)
    }
}

/// Asks for a snapshot, by PSYNC or, where the server does not know that, by SYNC.
///
/// # Errors
/// [`ServerError::Refused`] where the server or its provider allows no replicas; those of the
/// connection.
pub fn request_snapshot(mut conn: Conn, facts: &Facts) -> Result<Transfer, ServerError> {
    conn.doing("asking for a snapshot");
    // What is refused here is done without: then the snapshot comes with a length.
    let mut capabilities = cmd("REPLCONF");
    capabilities.arg(&["capa", "eof", "capa", "psync2"]);
    let _ = conn.ask(&capabilities)?;
    if let Some(named) = version_to_name(facts) {
        let mut version = cmd("REPLCONF");
        version.arg("version").arg(named);
        let _ = conn.ask(&version)?;
    }
    // From 7.0 on this spares the server collecting the writes that follow the snapshot.
    let _ = conn.ask(cmd("REPLCONF").arg("rdb-only").arg(1))?;

    let mut talk = Talk::new(conn);
    match talk.patiently("PSYNC", b"PSYNC ? -1\r\n")? {
        Ok(line) if line.starts_with(b"+FULLRESYNC") => {}
        Ok(line) => return Err(talk.confused(&line)),
        Err(text) if is_forbidden(&text) => {
            return match talk.patiently("SYNC", b"SYNC\r\n")? {
                Ok(line) => talk.transfer(&line),
                Err(also) if is_forbidden(&also) => Err(talk.refused("PSYNC", text)),
                Err(other) => Err(talk.reply("SYNC", other)),
            };
        }
        Err(text) => return Err(talk.reply("PSYNC", text)),
    }
    match talk.line("PSYNC")? {
        Ok(line) => talk.transfer(&line),
        Err(text) => Err(talk.reply("PSYNC", text)),
    }
}

/// The version that we say we have, to those who ask for one. Who hears none takes us for old, so
/// what nobody knows is not made up.
fn version_to_name(facts: &Facts) -> Option<String> {
    if facts.family != Family::Valkey || facts.version.is_empty() {
        return None;
    }
    let own = Version::parse(&facts.version);
    Some(version_to_name_to_valkey(own).full())
}

/// The lines before the snapshot.
struct Talk {
    address: String,
    stream: Stream,
    buffer: Vec<u8>,
    used: usize,
    patience: Patience,
}

impl Talk {
    fn new(conn: Conn) -> Self {
        let address = conn.address().to_owned();
        let patience = Patience::new(conn.retry_for());
        let (stream, buffer) = conn.into_stream();
        Self {
            address,
            patience,
            stream,
            buffer,
            used: 0,
        }
    }

    fn send(&mut self, command: &str, bytes: &[u8]) -> Result<(), ServerError> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|error| self.lost(command, &error))
    }

    /// Sends a command, again while the server asks for patience; its line is as of
    /// [`Self::line`].
    fn patiently(
        &mut self,
        command: &str,
        bytes: &[u8],
    ) -> Result<Result<Vec<u8>, String>, ServerError> {
        loop {
            self.send(command, bytes)?;
            match self.line(command)? {
                Err(text) if asks_for_patience(&text) => {
                    if !self.patience.lasts() {
                        return Ok(Err(format!("{text} ({})", self.patience.told())));
                    }
                    host::sleep(STEP);
                }
                answer => return Ok(answer),
            }
        }
    }

    /// The next line that is not empty, without its end; an error reply is `Err` inside.
    fn line(&mut self, command: &str) -> Result<Result<Vec<u8>, String>, ServerError> {
        loop {
            let rest = &self.buffer[self.used..];
            if let Some(len) = rest.iter().position(|&byte| byte == b'\n') {
                let line = rest[..len].trim_ascii_end().to_vec();
                self.used += len + 1;
                match line.first() {
                    // Bare newlines say that the server is alive (replicationCron).
                    None => continue,
                    Some(b'-') => {
                        return Ok(Err(String::from_utf8_lossy(&line[1..]).into_owned()));
                    }
                    Some(_) => return Ok(Ok(line)),
                }
            }
            if rest.len() > MAX_LINE_BYTES {
                return Err(self.protocol("a line without an end".to_owned()));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            self.more().map_err(|error| self.lost(command, &error))?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    self.buffer.extend_from_slice(&bytes[..len]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn transfer(self, line: &[u8]) -> Result<Transfer, ServerError> {
        let Some(framing) = framing(line) else {
            return Err(self.confused(line));
        };
        Ok(Transfer {
            stream: self.stream,
            early: self.buffer,
            used: self.used,
            framing,
            left: match framing {
                Framing::Length(len) => Some(len),
                Framing::Mark(_) => None,
            },
        })
    }

    fn lost(&self, command: &str, error: &io::Error) -> ServerError {
        ServerError::Lost {
            address: self.address.clone(),
            doing: format!("waiting for the answer to {command}"),
            reason: plain(error),
        }
    }

    fn refused(&self, command: &str, reason: String) -> ServerError {
        ServerError::Refused {
            address: self.address.clone(),
            command: command.to_owned(),
            reason,
        }
    }

    fn reply(&self, command: &str, reason: String) -> ServerError {
        if is_forbidden(&reason) {
            return self.refused(command, reason);
        }
        ServerError::Reply {
            address: self.address.clone(),
            command: command.to_owned(),
            reason,
        }
    }

    fn confused(&self, line: &[u8]) -> ServerError {
        let shown = &line[..line.len().min(80)];
        self.protocol(format!("\"{}\" to PSYNC", shown.escape_ascii()))
    }

    fn protocol(&self, reason: String) -> ServerError {
        ServerError::Protocol {
            address: self.address.clone(),
            doing: "asking for a snapshot".to_owned(),
            reason,
        }
    }
}

/// The announcement of the snapshot.
fn framing(line: &[u8]) -> Option<Framing> {
    let rest = line.strip_prefix(b"$")?;
    if let Some(mark) = rest.strip_prefix(b"EOF:") {
        return mark.try_into().ok().map(Framing::Mark);
    }
    let len = std::str::from_utf8(rest).ok()?.parse().ok()?;
    Some(Framing::Length(len))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn talk(said: &[u8]) -> (Talk, UnixStream) {
        let (mut server, client) = UnixStream::pair().unwrap();
        server.write_all(said).unwrap();
        let talk = Talk {
            address: "test".to_owned(),
            stream: Stream::Unix(client),
            buffer: b"\n\n".to_vec(),
            used: 0,
            patience: Patience::new(std::time::Duration::ZERO),
        };
        (talk, server)
    }

    #[test]
    fn nobody_is_told_that_commands_between_keys_are_read() {
        let named = |family, version: &str| {
            version_to_name(&Facts {
                family,
                version: version.to_owned(),
                ..Facts::default()
            })
        };
        assert_eq!(named(Family::Valkey, "9.1.2").as_deref(), Some("9.1.2"));
        assert_eq!(named(Family::Valkey, "9.2.0").as_deref(), Some("9.1.0"));
        assert_eq!(named(Family::Valkey, "10.0.1").as_deref(), Some("9.1.0"));
        assert_eq!(named(Family::Valkey, ""), None);
        assert_eq!(named(Family::Redis, "8.6.3"), None);
    }

    #[test]
    fn announcements() {
        assert_eq!(framing(b"$177"), Some(Framing::Length(177)));
        let mark = [b'a'; MARK_LEN];
        let line = [&b"$EOF:"[..], &mark].concat();
        assert_eq!(framing(&line), Some(Framing::Mark(mark)));
        for bad in [&b"$"[..], b"$-1", b"$EOF:abc", b"+OK", b"177", b"$1x"] {
            assert_eq!(framing(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn newlines_between_the_lines_are_passed_over() {
        let (mut talk, server) = talk(b"\n+FULLRESYNC x 1\r\n\n\n\n$5\r\nREDISmore of the stream");
        drop(server);
        assert_eq!(talk.line("PSYNC").unwrap().unwrap(), b"+FULLRESYNC x 1");
        let line = talk.line("PSYNC").unwrap().unwrap();
        let mut transfer = talk.transfer(&line).ok().unwrap();
        let mut bytes = Vec::new();
        transfer.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"REDIS");
    }

    #[test]
    fn an_early_end_is_an_error() {
        let (mut talk, server) = talk(b"$50\r\nREDIS");
        drop(server);
        let line = talk.line("PSYNC").unwrap().unwrap();
        let mut transfer = talk.transfer(&line).ok().unwrap();
        let error = transfer.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        let (mut talk, server) = super::tests::talk(b"-NOMASTERLINK no\r\n");
        drop(server);
        assert_eq!(
            talk.line("PSYNC").unwrap(),
            Err("NOMASTERLINK no".to_owned())
        );
        assert!(matches!(talk.line("PSYNC"), Err(ServerError::Lost { .. })));
    }
}
