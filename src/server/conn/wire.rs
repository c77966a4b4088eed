//! The bytes of a connection, both ways: what is queued, what was read, and how long is waited.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::pace::{Heed, LISTEN_EVERY, LeastPace, Paced};
use super::words::is_closed;
use crate::host::LinkId;
use crate::server::ServerError;
use crate::server::resp::Replies;
use crate::server::stream::{Stream, plain};

/// Bytes of commands that are collected before they are written without being asked.
const OUT_BYTES: usize = 256 * 1024;

/// A stream with a queue of commands on one side and replies on the other.
pub(super) struct Wire {
    stream: Stream,
    replies: Replies,
    out: Vec<u8>,
    /// What the other side is called in messages.
    address: String,
    /// What is under way, for messages.
    doing: &'static str,
    /// Whose wish to stop is heard while nothing comes.
    heed: Option<Heed>,
    /// How long nothing may come.
    timeout: Duration,
    /// The other side ended the connection.
    closed: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream, address: String, timeout: Duration) -> Self {
        Self {
            stream,
            replies: Replies::default(),
            out: Vec::with_capacity(OUT_BYTES + 64 * 1024),
            address,
            doing: "connecting",
            heed: None,
            timeout,
            closed: false,
        }
    }

    /// From now on a wish to stop ends the waiting.
    pub(super) fn heed(&mut self, limit: Duration, stop: &Arc<AtomicBool>) {
        self.listen(Heed {
            stop: Arc::clone(stop),
            step: LISTEN_EVERY.min(limit),
            limit,
        });
    }

    /// Where the socket does not take the short timeout, waiting is as it was.
    fn listen(&mut self, heed: Heed) {
        if self.stream.set_timeout(heed.step).is_ok() {
            self.heed = Some(heed);
        }
    }

    /// Goes on with what `old` was doing, and whom it heeded.
    pub(super) fn go_on(&mut self, old: Self) {
        self.doing = old.doing;
        if let Some(heed) = old.heed {
            self.listen(heed);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        let heed = self.heed.as_ref();
        heed.is_some_and(|heed| heed.stop.load(Ordering::Relaxed))
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer()
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        self.stream.link()
    }

    pub(super) fn doing(&mut self, what: &'static str) {
        self.doing = what;
    }

    /// The queue of bytes to be written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes what is queued if it is much.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub(super) fn flush_if_full(&mut self) -> Result<(), ServerError> {
        if self.out.len() >= OUT_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub(super) fn flush(&mut self) -> Result<(), ServerError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut stream = Paced {
            stream: &mut self.stream,
            heed: self.heed.as_ref(),
            pace: LeastPace::new(self.timeout),
        };
        let written = stream.write_all(&self.out).and_then(|()| stream.flush());
        self.out.clear();
        // A single huge command must not keep its room for ever.
        self.out.shrink_to(2 * OUT_BYTES);
        written.map_err(|error| self.broke(&error))
    }

    /// Writes what is queued and then `bytes`, without copying them.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub(super) fn write_large(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        self.flush()?;
        let mut stream = Paced {
            stream: &mut self.stream,
            heed: self.heed.as_ref(),
            pace: LeastPace::new(self.timeout),
        };
        let written = stream.write_all(bytes);
        written.map_err(|error| self.broke(&error))
    }

    /// Whether something has come that was not read, be it only that the connection ended. With TLS
    /// it may say no although something has.
    pub(super) fn has_answer(&self) -> bool {
        self.has_reply() || self.stream.is_readable()
    }

    /// Whether a reply, or some of it, is at hand.
    pub(super) fn has_reply(&self) -> bool {
        self.replies.has_buffered()
    }

    /// See [`Replies::pass_over`].
    pub(super) fn pass_over(&mut self, line: &[u8]) -> bool {
        self.replies.pass_over(line)
    }

    /// Waiting for the reply to a command that was never sent would be waiting for ever. While
    /// replies are at hand, what is queued may grow into one large write.
    fn flush_before_waiting(&mut self) -> Result<(), ServerError> {
        if self.has_reply() {
            Ok(())
        } else {
            self.flush()
        }
    }

    /// Reads from the replies, and writes what is queued before it waits.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub(super) fn read<'a, T>(
        &'a mut self,
        read: impl FnOnce(&'a mut Replies, &mut Paced<'_>) -> io::Result<T>,
    ) -> Result<T, ServerError> {
        self.flush_before_waiting()?;
        // Split borrows: the error needs the address while what was read borrows the buffer.
        let Self {
            stream,
            replies,
            address,
            doing,
            heed,
            closed,
            timeout,
            ..
        } = self;
        let mut stream = Paced {
            stream,
            heed: heed.as_ref(),
            pace: LeastPace::new(*timeout),
        };
        read(replies, &mut stream).map_err(|error| {
            *closed |= is_closed(&error);
            broken(address, doing, &error)
        })
    }

    /// Whether the other side ended the connection.
    pub(super) fn was_closed(&self) -> bool {
        self.closed
    }

    /// The stream, and what was read from it already.
    pub(super) fn into_stream(self) -> (Stream, Vec<u8>) {
        if self.heed.is_some() {
            // From here on no wish to stop is heard: the stream's own timeout is the user's again. Where
            // the socket does not take it, it is as short as it was.
            let _ = self.stream.set_timeout(self.timeout);
        }
        (self.stream, self.replies.into_buffered())
    }

    /// The connection is of no more use, for this reason.
    pub(super) fn lost(&self, reason: String) -> ServerError {
        lost(&self.address, self.doing, reason)
    }

    /// The other side broke the protocol, in our words.
    pub(super) fn confused(&self, reason: String) -> ServerError {
        confused(&self.address, self.doing, reason)
    }

    fn broke(&mut self, error: &io::Error) -> ServerError {
        self.closed |= is_closed(error);
        broken(&self.address, self.doing, error)
    }
}

fn lost(address: &str, doing: &str, reason: String) -> ServerError {
    ServerError::Lost {
        address: address.to_owned(),
        doing: doing.to_owned(),
        reason,
    }
}

fn confused(address: &str, doing: &str, reason: String) -> ServerError {
    ServerError::Protocol {
        address: address.to_owned(),
        doing: doing.to_owned(),
        reason,
    }
}

fn broken(address: &str, doing: &str, error: &io::Error) -> ServerError {
    match error.kind() {
        io::ErrorKind::InvalidData => confused(address, doing, plain(error)),
        _ => lost(address, doing, plain(error)),
    }
}
