//! A value of any size, one at a time.

use std::collections::VecDeque;

use super::fill::{Expect, LARGE_ARGUMENT_BYTES, Out, Sent, Target};
use super::swap::Swap;
use super::{CommandError, CommandLimits, CommandLosses, Features, Job, Written};
use crate::payload::Reader;
use crate::server::resp::{self, Item};
use crate::server::{Conn, ServerError};

/// Chunks that may be unanswered while the next one is made. A server that refuses everything, for
/// want of memory for instance, is so much ahead of what is noticed.
const UNANSWERED_CHUNKS: usize = 4;

/// Replies that may be unread, however small the commands.
const UNREAD_REPLIES: usize = 4096;

/// Builds the value under the temporary name `temp`, then gives it its own, and waits for it. Never
/// holds more of the value than a chunk and the longest of its strings.
pub(super) fn write_as(
    features: &Features,
    limits: &CommandLimits,
    conn: &mut Conn,
    job: &Job<'_>,
    reader: Reader<'_>,
    temp: &[u8],
) -> Result<(Written, CommandLosses), Abandoned> {
    let target = Target {
        key: temp,
        features,
        limits,
        now_ms: job.now_ms,
    };
    let mut flow = Flow::new(conn, limits.chunk_bytes);
    let filled = target.fill(reader, &mut flow).and_then(|filled| {
        if let Some((command, length)) = filled.length {
            flow.command(command, &[temp], Expect::Length(length))?;
        }
        flow.finish()?;
        Ok(filled)
    });
    let filled = match filled {
        Ok(filled) => filled,
        Err(error) => return Err(flow.abandon(error, temp)),
    };
    let mut losses = filled.losses;
    losses.pending += flow.losses.pending;
    if filled.nothing {
        return Ok((Written::Expired, losses));
    }
    let swap = Swap {
        data: None,
        expire_at_ms: job.expire_at_ms,
        replace: job.replace,
        may_vanish: filled.may_vanish,
        remove: features.remove(),
    };
    swap.pack(conn.out(), temp, job.key, b"");
    let mut stands = true;
    let swapped = conn.flush().map_err(CommandError::from);
    match swapped.and_then(|()| swap.read(conn, &mut stands)) {
        Ok(written) => Ok((written, losses)),
        Err(error) => {
            let mut flow = Flow::new(conn, 0);
            flow.is_made = stands;
            Err(flow.abandon(error, temp))
        }
    }
}

/// Why a value was not written, and whether its temporary key may be left.
pub(super) struct Abandoned {
    pub(super) error: CommandError,
    pub(super) is_left: bool,
}

/// Whether a key is there already. Only to spare the work: where one may not ask, RENAMENX tells.
pub(super) fn stands(conn: &mut Conn, key: &[u8]) -> Result<bool, ServerError> {
    conn.queue(&[b"EXISTS", key])?;
    conn.flush()?;
    match conn.item()? {
        Item::Int(count @ (0 | 1)) => Ok(count == 1),
        Item::Error(_) => Ok(false),
        _ => Err(conn.confused("no answer to EXISTS")),
    }
}

/// Commands on their way to the server, and what is expected of the replies.
struct Flow<'c> {
    conn: &'c mut Conn,
    chunk_bytes: usize,
    sent: VecDeque<Sent>,
    /// Commands in the chunk that is being made.
    unflushed: usize,
    /// Commands in each chunk that was sent and not answered.
    chunks: VecDeque<usize>,
    losses: CommandLosses,
    /// A command was carried out: there is a temporary key.
    is_made: bool,
}

impl<'c> Flow<'c> {
    fn new(conn: &'c mut Conn, chunk_bytes: usize) -> Self {
        Self {
            conn,
            chunk_bytes,
            sent: VecDeque::new(),
            unflushed: 0,
            chunks: VecDeque::new(),
            losses: CommandLosses::default(),
            is_made: false,
        }
    }

    /// Notes a command that was packed; sends the chunk if it is full.
    fn note(&mut self, sent: Sent) -> Result<(), CommandError> {
        self.sent.push_back(sent);
        self.unflushed += 1;
        if self.conn.out().len() >= self.chunk_bytes || self.unflushed >= UNREAD_REPLIES / 4 {
            self.flush()?;
            while self.chunks.len() > UNANSWERED_CHUNKS || self.sent.len() > UNREAD_REPLIES {
                self.read_chunk()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CommandError> {
        self.conn.flush()?;
        self.chunks.push_back(std::mem::take(&mut self.unflushed));
        Ok(())
    }

    fn read_chunk(&mut self) -> Result<(), CommandError> {
        for _ in 0..self.chunks.pop_front().unwrap_or(0) {
            if let Some(sent) = self.sent.pop_front() {
                self.read(sent)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, sent: Sent) -> Result<(), CommandError> {
        sent.read(self.conn, &mut self.losses)?;
        self.is_made = true;
        Ok(())
    }

    /// Sends and reads all the rest.
    fn finish(&mut self) -> Result<(), CommandError> {
        self.flush()?;
        while let Some(sent) = self.sent.pop_front() {
            self.read(sent)?;
        }
        self.chunks.clear();
        Ok(())
    }

    /// After `error`: reads what is due and removes the temporary key. Gives the error back, or
    /// that the connection is gone too: a server that is sent more than it takes says so and hangs
    /// up (networking.c, setProtocolError).
    fn abandon(mut self, error: CommandError, temp: &[u8]) -> Abandoned {
        let is_left = true;
        if matches!(error, CommandError::Connection(_)) {
            return Abandoned { error, is_left };
        }
        match self.clean_up(temp) {
            Ok(is_removed) => Abandoned {
                error,
                is_left: self.is_made && !is_removed,
            },
            Err(ServerError::Lost {
                address,
                doing,
                reason,
            }) => Abandoned {
                error: CommandError::Connection(ServerError::Lost {
                    address,
                    doing,
                    reason: format!("{reason}, after: {error}"),
                }),
                is_left,
            },
            Err(lost) => Abandoned {
                error: lost.into(),
                is_left,
            },
        }
    }

    /// Whether the temporary key was removed. What made the write fail may refuse this, too.
    fn clean_up(&mut self, temp: &[u8]) -> Result<bool, ServerError> {
        self.conn.flush()?;
        while let Some(sent) = self.sent.pop_front() {
            if let Err(CommandError::Connection(lost)) = self.read(sent) {
                return Err(lost);
            }
        }
        for command in [&b"UNLINK"[..], b"DEL"] {
            self.conn.queue(&[command, temp])?;
            self.conn.flush()?;
            match self.conn.item()? {
                Item::Int(0 | 1) => return Ok(true),
                Item::Error(_) => {}
                _ => return Err(self.conn.confused("no answer to UNLINK")),
            }
        }
        Ok(false)
    }
}

impl Out for Flow<'_> {
    fn command(
        &mut self,
        name: &'static str,
        args: &[&[u8]],
        expect: Expect,
    ) -> Result<(), CommandError> {
        let out = self.conn.out();
        resp::pack_head(out, 1 + args.len());
        resp::pack_arg(out, name.as_bytes());
        for arg in args {
            let out = self.conn.out();
            if arg.len() >= LARGE_ARGUMENT_BYTES {
                resp::pack_len(out, arg.len());
                self.conn.write_large(arg)?;
                self.conn.out().extend_from_slice(b"\r\n");
            } else {
                resp::pack_arg(out, arg);
            }
        }
        let sent = Sent {
            command: name,
            expect,
        };
        self.note(sent)
    }

    fn packed(
        &mut self,
        name: &'static str,
        head: &[&[u8]],
        args: &[u8],
        count: usize,
        expect: Expect,
    ) -> Result<(), CommandError> {
        let out = self.conn.out();
        pack(out, name, head, args, count);
        self.note(Sent {
            command: name,
            expect,
        })
    }
}

/// Appends a command of which the arguments after `head` are packed already.
pub(super) fn pack(
    out: &mut Vec<u8>,
    name: &'static str,
    head: &[&[u8]],
    args: &[u8],
    count: usize,
) {
    resp::pack_head(out, 1 + head.len() + count);
    resp::pack_arg(out, name.as_bytes());
    for arg in head {
        resp::pack_arg(out, arg);
    }
    out.extend_from_slice(args);
}
