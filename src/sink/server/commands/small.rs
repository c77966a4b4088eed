//! Many small values in a pipeline.

use super::fill::{Expect, Out, Sent, Target};
use super::swap::Swap;
use super::{CommandError, CommandLosses, Commands, Job, Replace, Written, large};
use crate::payload::{Bytes, Reader};
use crate::rewrite::EXPIRE_MAX_MS;
use crate::server::Conn;
use crate::server::resp::{self, Item};

/// Commands of a small value.
const MAX_COMMANDS: usize = 256;

/// What became of a value that was to be queued.
#[derive(Debug)]
pub enum Queued {
    /// Its commands are queued; [`Commands::read_small`] reads the replies.
    Sent(Ticket),
    /// It needs no commands: it was past its time.
    Done(Written, CommandLosses),
    /// It is none of the small ones: [`Commands::write`] takes it. Nothing was queued.
    Large,
}

/// What [`Commands::read_small`] learnt.
#[derive(Debug)]
pub enum Answer {
    /// All that there is to know.
    Written(Written, CommandLosses),
    /// More was queued on the connection, behind everything that was queued before, and this
    /// ticket is for its replies.
    Again(Ticket),
}

/// Replies that are due, all of one value. They must be read in the order in which they were
/// queued.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    due: Due,
    losses: CommandLosses,
}

#[derive(Debug)]
enum Due {
    /// One SET; with NX it may be answered with nil.
    Set(Replace),
    /// One transaction, data and all. It leaves a temporary key only where it was not carried out as
    /// a whole.
    Swap { temp: Vec<u8>, swap: Swap },
    /// The commands that build a value, to be renamed after.
    Fill {
        temp: Vec<u8>,
        sent: Vec<Sent>,
        swap: Swap,
    },
    /// The transaction that renames it.
    Rename { temp: Vec<u8>, swap: Swap },
    /// The removal of a temporary key after an error. `is_made`: a command was seen to make it.
    CleanUp {
        temp: Vec<u8>,
        is_made: bool,
        error: CommandError,
    },
}

#[cfg(test)]
impl Ticket {
    /// Of a value that is built under this name.
    pub fn of(temp: Vec<u8>) -> Self {
        Self {
            due: Due::CleanUp {
                temp,
                is_made: true,
                error: CommandError::refused("of a test"),
            },
            losses: CommandLosses::default(),
        }
    }
}

impl Ticket {
    /// The temporary key that its commands may have made.
    pub fn temp(&self) -> Option<&[u8]> {
        match &self.due {
            Due::Fill { temp, .. }
            | Due::Swap { temp, .. }
            | Due::Rename { temp, .. }
            | Due::CleanUp { temp, .. } => Some(temp),
            Due::Set(_) => None,
        }
    }

    /// How many replies it is for, at most. Each of them is short.
    pub fn replies(&self) -> usize {
        match &self.due {
            Due::Set(_) | Due::CleanUp { .. } => 1,
            Due::Swap { .. } | Due::Rename { .. } => 7,
            Due::Fill { sent, .. } => sent.len(),
        }
    }
}

impl Commands {
    /// Queues a small value on `conn`, without flushing.
    ///
    /// # Errors
    /// [`CommandError::Refused`] for a value that cannot be written: nothing was queued then.
    /// [`CommandError::Connection`].
    pub fn queue_small(&mut self, conn: &mut Conn, job: &Job<'_>) -> Result<Queued, CommandError> {
        if job.is_past() {
            return Ok(Queued::Done(Written::Expired, CommandLosses::default()));
        }
        if job.value.len() > self.limits.chunk_bytes {
            return Ok(Queued::Large);
        }
        let reader = match self.open(job)? {
            Reader::String(string) if job.expire_at_ms.is_none() || self.features.set_pxat => {
                return self.queue_string(conn, job, &string);
            }
            reader => reader,
        };
        let temp = self.temp_key(job.key);
        let target = Target {
            key: &temp,
            features: &self.features,
            limits: &self.limits,
            now_ms: job.now_ms,
        };
        let mut scratch = Scratch {
            bytes: Vec::new(),
            sent: Vec::new(),
            max_bytes: self.limits.chunk_bytes,
        };
        let filled = target.fill(reader, &mut scratch)?;
        if filled.nothing {
            return Ok(Queued::Done(Written::Expired, filled.losses));
        }
        if scratch.is_full() {
            return Ok(Queued::Large);
        }
        let mut swap = Swap {
            data: None,
            expire_at_ms: job.expire_at_ms,
            replace: job.replace,
            may_vanish: filled.may_vanish,
            remove: self.features.remove(),
        };
        let due = match (&scratch.sent[..], filled.length) {
            ([only], Some((_, length))) => {
                swap.data = Some((only.command, Some(length)));
                swap.pack(conn.out(), &temp, job.key, &scratch.bytes);
                Due::Swap { temp, swap }
            }
            (_, length) => {
                if let Some((command, length)) = length {
                    scratch.command(command, &[&temp], Expect::Length(length))?;
                }
                conn.out().extend_from_slice(&scratch.bytes);
                let sent = scratch.sent;
                Due::Fill { temp, sent, swap }
            }
        };
        conn.flush_if_full()?;
        let losses = filled.losses;
        Ok(Queued::Sent(Ticket { due, losses }))
    }

    /// SET replaces value and expiry in one.
    fn queue_string(
        &self,
        conn: &mut Conn,
        job: &Job<'_>,
        string: &Bytes<'_>,
    ) -> Result<Queued, CommandError> {
        let out = conn.out();
        let options = 2 * usize::from(job.expire_at_ms.is_some())
            + usize::from(job.replace == Replace::IfAbsent);
        resp::pack_head(out, 3 + options);
        for arg in [&b"SET"[..], job.key, string] {
            resp::pack_arg(out, arg);
        }
        if let Some(at_ms) = job.expire_at_ms {
            resp::pack_arg(out, b"PXAT");
            let at_ms = super::fill::number(at_ms.clamp(1, EXPIRE_MAX_MS));
            resp::pack_arg(out, &at_ms);
        }
        if job.replace == Replace::IfAbsent {
            resp::pack_arg(out, b"NX");
        }
        conn.flush_if_full()?;
        Ok(Queued::Sent(Ticket {
            due: Due::Set(job.replace),
            losses: CommandLosses::default(),
        }))
    }

    /// Reads the replies of one ticket. `key` is its value's. What [`Commands::queue_small`] queued
    /// must have been flushed.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn read_small(
        &mut self,
        conn: &mut Conn,
        key: &[u8],
        ticket: Ticket,
    ) -> Result<Answer, CommandError> {
        let Ticket { due, losses } = ticket;
        let is_built = matches!(due, Due::Rename { .. });
        if is_built || matches!(due, Due::CleanUp { .. }) {
            // Queued here and not by the caller, who may not have flushed since.
            conn.flush()?;
        }
        let remove = self.features.remove();
        let written = match due {
            Due::Set(replace) => read_set(conn, replace)?,
            Due::Fill { temp, sent, swap } => {
                let losses = match read_fill(conn, sent, losses)? {
                    Fill::Built(losses) => losses,
                    Fill::Failed { error, is_made } => {
                        return clean_up(conn, remove, temp, is_made, error);
                    }
                };
                swap.pack(conn.out(), &temp, key, b"");
                conn.flush_if_full()?;
                let due = Due::Rename { temp, swap };
                return Ok(Answer::Again(Ticket { due, losses }));
            }
            Due::Swap { temp, swap } | Due::Rename { temp, swap } => {
                let mut is_made = is_built;
                match swap.read(conn, &mut is_made) {
                    Ok(written) => written,
                    Err(error) => return clean_up(conn, remove, temp, is_made, error),
                }
            }
            Due::CleanUp {
                temp,
                is_made,
                error,
            } => {
                let is_removed = read_removal(conn)?;
                if !is_removed {
                    self.left = is_made.then_some(temp);
                }
                return Err(error);
            }
        };
        Ok(Answer::Written(written, losses))
    }
}

/// The answer to a SET, with NX unless it replaces always.
fn read_set(conn: &mut Conn, replace: Replace) -> Result<Written, CommandError> {
    match conn.item()? {
        Item::Simple(b"OK") => Ok(Written::Stored),
        Item::Nil if replace == Replace::IfAbsent => Ok(Written::Standing),
        Item::Error(text) => Err(CommandError::answer("SET", &text)),
        _ => Err(conn.confused("no answer to SET").into()),
    }
}

/// What the commands that build a value came to.
enum Fill {
    /// It stands under its temporary name, less these losses.
    Built(CommandLosses),
    /// The first error. `is_made`: a command was seen to make the temporary key.
    Failed { error: CommandError, is_made: bool },
}

/// Reads all replies of the commands that build a value, also behind one that failed.
///
/// # Errors
/// [`CommandError::Connection`] only.
fn read_fill(
    conn: &mut Conn,
    sent: Vec<Sent>,
    mut losses: CommandLosses,
) -> Result<Fill, CommandError> {
    let (mut failed, mut is_made) = (None, false);
    for sent in sent {
        match sent.read(conn, &mut losses) {
            Ok(()) => is_made = true,
            Err(error @ CommandError::Connection(_)) => return Err(error),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    Ok(match failed {
        Some(error) => Fill::Failed { error, is_made },
        None => Fill::Built(losses),
    })
}

/// Whether the temporary key was removed. What made the write fail may refuse this, too.
fn read_removal(conn: &mut Conn) -> Result<bool, CommandError> {
    match conn.item()? {
        Item::Int(0 | 1) => Ok(true),
        Item::Error(_) => Ok(false),
        _ => Err(conn.confused("no answer to the removal of a key").into()),
    }
}

/// Queues the removal of a temporary key after `error`, which is told when that is done.
fn clean_up(
    conn: &mut Conn,
    remove: &str,
    temp: Vec<u8>,
    is_made: bool,
    error: CommandError,
) -> Result<Answer, CommandError> {
    if matches!(error, CommandError::Connection(_)) {
        return Err(error);
    }
    conn.queue(&[remove.as_bytes(), &temp])?;
    Ok(Answer::Again(Ticket {
        due: Due::CleanUp {
            temp,
            is_made,
            error,
        },
        losses: CommandLosses::default(),
    }))
}

/// Commands that may yet turn out to be too many.
struct Scratch {
    bytes: Vec<u8>,
    sent: Vec<Sent>,
    max_bytes: usize,
}

impl Scratch {
    fn is_full(&self) -> bool {
        self.bytes.len() > self.max_bytes || self.sent.len() > MAX_COMMANDS
    }

    fn note(&mut self, command: &'static str, expect: Expect) {
        self.sent.push(Sent { command, expect });
    }
}

impl Out for Scratch {
    fn command(
        &mut self,
        name: &'static str,
        args: &[&[u8]],
        expect: Expect,
    ) -> Result<(), CommandError> {
        if !self.is_full() {
            resp::pack_head(&mut self.bytes, 1 + args.len());
            resp::pack_arg(&mut self.bytes, name.as_bytes());
            for arg in args {
                resp::pack_arg(&mut self.bytes, arg);
            }
            self.note(name, expect);
        }
        Ok(())
    }

    fn packed(
        &mut self,
        name: &'static str,
        head: &[&[u8]],
        args: &[u8],
        count: usize,
        expect: Expect,
    ) -> Result<(), CommandError> {
        if !self.is_full() {
            large::pack(&mut self.bytes, name, head, args, count);
            self.note(name, expect);
        }
        Ok(())
    }
}
