//! Carries out what a writer wants done.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::answer;
use super::ask::Asking;
use super::commands::{CommandError, Commands, Job, Queued};
use super::compare;
use super::pack::{pack, question};
use super::port::Port;
use super::sweep::sweep;
use super::writer::{Action, AskedWith, Due, Event, How, Item, NodeSaid, Now, Question, Say};
use crate::endpoint::ConnectOptions;
use crate::exit::{self, Interrupted};
use crate::host;
use crate::observer::Observer;
use crate::server::cluster::Topology;
use crate::server::conn::asks_for_patience;
use crate::server::facts::{Facts, ServerClock};
use crate::server::{Conn, ServerError};
use crate::sink::Accepted;
use crate::stop::Stop;

/// How long one node may take to say who serves what.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a writer's actions are carried out with.
pub(super) struct Shell {
    /// A connection for each lane.
    pub ports: Vec<Port>,
    pub observer: Arc<Observer>,
    pub accepted: Option<Box<dyn Accepted>>,
    pub clock: ServerClock,
    pub stop: Stop,
    pub now: Now,
    /// Why a key that failed could not be named, while conflicts are judged.
    pub untold: Option<anyhow::Error>,
    /// The run failed: what fails from here on is the consequence of it.
    pub has_failed: bool,
}

impl Shell {
    /// Looks at the clock.
    pub fn look(&mut self) {
        self.now = Now {
            at: host::now(),
            unix_ms: self.clock.at_least_ms(),
        };
    }

    pub fn port(&mut self, at: usize) -> &mut Port {
        while self.ports.len() <= at {
            self.ports.push(Port::default());
        }
        &mut self.ports[at]
    }

    /// Carries out an action: what happened then.
    ///
    /// # Errors
    /// Interruption, the journal's, and whoever waits for accepted keys.
    pub fn carry_out(&mut self, action: Action<'_>) -> Result<Option<Event>> {
        let event = match action {
            // These look at the clock only where something was waited for.
            Action::Send { at, item, how } => return Ok(self.send(at, item, how)),
            Action::Read(at, due) => return Ok(Some(self.read(at, due))),
            Action::Peek(at, due) => return Ok(Some(self.peek(at, due))),
            Action::Flush => return Ok(self.flush()),
            Action::Queue(at, job) => return Ok(Some(self.queue(at, &job))),
            Action::Say(say) => return self.say(*say),
            Action::SendSelect(at, db) => match self.queue_select(at, db) {
                Ok(()) => return Ok(self.flush()),
                Err(error) => Event::SendFailed(at, error),
            },
            Action::SendWait(at, patience_ms) => match self.queue_wait(at, patience_ms) {
                Ok(()) => return Ok(None),
                Err(error) => Event::ReadFailed(at, error),
            },
            Action::Drop(at) => {
                self.port(at).drop_conn();
                return Ok(None);
            }
            Action::TellSource(left) => return self.tell_source(left),
            // These are carried out with nothing in flight, or nearly.
            Action::WriteAlone(at, job) => self.write_alone(at, &job),
            Action::Connect {
                at,
                to,
                retry_for,
                after,
                left_writes,
            } => self.connect(at, to, retry_for, after, left_writes)?,
            Action::Select(at, db) => self.select(at, db)?,
            Action::Ask { at, question, with } => self.ask(at, *question, with),
            Action::AskSentinels(at) => Event::SentinelsSaid(at, self.port(at).standing()),
            Action::AskTopology(candidates) => Event::Topology(ask_topology(candidates)),
            Action::AskNodes(nodes) => Event::NodesSaid(self.ask_nodes(nodes)),
            Action::Wait(time) => self.wait(time)?,
            Action::CountEvictions(at) => Event::Evicted(at, self.port(at).evictions()),
            Action::CountUpheavals(at) => Event::Upheaved(at, self.port(at).upheavals()),
            Action::Sweep(litter) => Event::Swept(sweep(litter, &self.stop)),
        };
        self.look();
        Ok(Some(event))
    }

    fn peek(&mut self, at: usize, due: Due<'_>) -> Event {
        let conn = self.port(at).open_conn();
        match conn.is_some_and(|conn| conn.has_answer()) {
            true => self.read(at, due),
            false => Event::NoReply,
        }
    }

    fn queue(&mut self, at: usize, job: &Job<'_>) -> Event {
        let queued = self.port(at).conn_and_commands();
        let queued = queued.and_then(|(conn, commands)| {
            match commands.queue_small(conn, job) {
                Ok(Queued::Sent(ticket)) => Ok(Some(Box::new(ticket))),
                // Found out without a word to the server; found out again by WriteAlone, where it
                // is counted.
                Ok(Queued::Done(..) | Queued::Large) => Ok(None),
                Err(CommandError::Connection(error)) => Err(error),
                Err(_) => Ok(None),
            }
        });
        Event::Queued(at, queued)
    }

    fn queue_select(&mut self, at: usize, db: u32) -> Result<(), ServerError> {
        let queued = self.port(at).conn().and_then(|conn| conn.queue_select(db));
        if queued.is_err() {
            // What others have queued goes out all the same.
            let _ = self.flush();
        }
        queued
    }

    fn queue_wait(&mut self, at: usize, patience_ms: u64) -> Result<(), ServerError> {
        let patience_ms = patience_ms.to_string();
        let wait: [&[u8]; 3] = [b"WAIT", b"1", patience_ms.as_bytes()];
        self.port(at).conn().and_then(|conn| conn.queue(&wait))
    }

    fn write_alone(&mut self, at: usize, job: &Job<'_>) -> Event {
        let (written, left) = match self.port(at).conn_and_commands() {
            Err(lost) => (Err(CommandError::Connection(lost)), None),
            Ok((conn, commands)) => {
                let written = commands.write(conn, job);
                conn.doing("restoring keys");
                (written, commands.take_left())
            }
        };
        Event::Wrote(at, Box::new((written, left)))
    }

    fn send(&mut self, at: usize, item: &Item, how: How) -> Option<Event> {
        let port = self.port(at);
        let database = port.open_conn().and_then(|conn| conn.database());
        if database != Some(item.record.db) {
            let lost = match port.conn() {
                Ok(conn) => conn.spoilt("it is not in the database that was selected"),
                Err(lost) => lost,
            };
            return Some(Event::ReadFailed(at, lost));
        }
        let packed = pack(port, item, how);
        packed.err().map(|error| Event::SendFailed(at, error))
    }

    /// Writes what is queued, on every connection, until one takes no more.
    fn flush(&mut self) -> Option<Event> {
        for (at, port) in self.ports.iter_mut().enumerate() {
            if let Some(conn) = port.open_conn()
                && let Err(error) = conn.flush()
            {
                return Some(Event::SendFailed(at, error));
            }
        }
        None
    }

    fn read(&mut self, at: usize, due: Due<'_>) -> Event {
        let has_reply = self
            .port(at)
            .open_conn()
            .is_some_and(|conn| conn.has_reply());
        let event = match due {
            Due::Value { db, key, ticket } => {
                let port = self.port(at);
                // Reading sends the commands of the next turn: the connection has to be where they
                // belong.
                let both = port.conn_and_commands();
                let both = both.and_then(|(conn, commands)| match conn.database() {
                    Some(now) if now == db => Ok((conn, commands)),
                    _ => Err(conn.spoilt("it went to another database before all was written")),
                });
                let said = both
                    .map_err(CommandError::from)
                    .and_then(|(conn, commands)| commands.read_small(conn, key, *ticket));
                let left = match &said {
                    Err(CommandError::Connection(_)) | Ok(_) => None,
                    Err(_) => port.commands.as_mut().and_then(Commands::take_left),
                };
                Event::Value(at, Box::new((said, left)))
            }
            Due::Found(how) => {
                let conn = self.port(at).conn();
                match conn.and_then(|conn| compare::read(conn, question(how))) {
                    Ok(found) => Event::Found(at, found),
                    Err(error) => Event::ReadFailed(at, error),
                }
            }
            due => self.read_one(at, &due),
        };
        if !has_reply {
            // It was waited for.
            self.look();
        }
        event
    }

    fn read_one(&mut self, at: usize, due: &Due<'_>) -> Event {
        let conn = match self.port(at).conn() {
            Ok(conn) => conn,
            Err(lost) => return Event::ReadFailed(at, lost),
        };
        if answer::usual(due).is_some_and(|line| conn.reads(line)) {
            return Event::Reply(at, Ok(1));
        }
        let answer = match conn.item() {
            Ok(item) => answer::read(due, item),
            Err(error) => return Event::ReadFailed(at, error),
        };
        match (answer, due) {
            (Ok(Ok(done)), Due::Select(db)) => {
                conn.arrived(*db);
                Event::Reply(at, Ok(done))
            }
            (Ok(answer), _) => Event::Reply(at, answer),
            (Err(odd), _) => Event::ReadFailed(at, conn.confused(odd)),
        }
    }

    /// Asks a question of a writer.
    fn ask(&mut self, at: usize, question: Question<'_>, with: AskedWith<'_>) -> Event {
        let observer = Arc::clone(&self.observer);
        let asking = Asking {
            with,
            observer: &observer,
        };
        let port = self.port(at);
        let answer = asking.ask(port, question);
        let database = port.open_conn().and_then(|conn| conn.database());
        Event::Answered(at, answer, database)
    }

    fn connect(
        &mut self,
        at: usize,
        to: &ConnectOptions,
        retry_for: Option<Duration>,
        after: Duration,
        left_writes: bool,
    ) -> Result<Event> {
        if !after.is_zero() && !host::wait(after, &|| self.stop.is_set()) {
            return Err(Interrupted.into());
        }
        let mut options = to.clone();
        // A node that loads its dataset is waited for as long as all of this may take together.
        options.retry_for = retry_for.unwrap_or(options.retry_for);
        let mut conn = match Conn::open(&options) {
            Ok(conn) => conn,
            Err(_) if self.stop.is_set() => return Err(Interrupted.into()),
            Err(error) => {
                return Ok(Event::NotConnected {
                    at,
                    error,
                    was_open: false,
                });
            }
        };
        conn.heed(to, &self.stop.flag());
        Ok(match self.port(at).meet(to, conn, left_writes) {
            Ok(introduction) => Event::Met(at, Box::new(introduction)),
            Err(error) => Event::NotConnected {
                at,
                error,
                was_open: true,
            },
        })
    }

    fn select(&mut self, at: usize, db: u32) -> Result<Event> {
        let answer = self.port(at).conn().and_then(|conn| {
            let answer = conn.select(db)?;
            if answer.is_err() {
                // An error is no proof that it is where it was.
                conn.forget_database();
            }
            Ok(answer)
        });
        if let Ok(Err(text)) = &answer
            && asks_for_patience(text)
            && self.stop.is_set()
        {
            return Err(Interrupted.into());
        }
        Ok(Event::Selected(at, db, answer))
    }

    fn wait(&self, time: Duration) -> Result<Event> {
        exit::unless_stopped(&self.stop)?;
        host::sleep(time);
        Ok(Event::Waited)
    }

    /// What nodes say of themselves just now, on connections of their own.
    fn ask_nodes(&mut self, nodes: Vec<(usize, ConnectOptions)>) -> Vec<NodeSaid> {
        let ask = |options: ConnectOptions| -> Result<Facts, ServerError> {
            Facts::ask(&mut Conn::open(&briefly(options))?)
        };
        let said = |(at, options): (usize, ConnectOptions)| NodeSaid {
            at,
            facts: ask(options).ok(),
            is_quiet: self
                .port(at)
                .open_conn()
                .is_some_and(|conn| !conn.has_answer()),
        };
        nodes.into_iter().map(said).collect()
    }

    /// Tells others. What happens then, if anything.
    fn say(&mut self, say: Say) -> Result<Option<Event>> {
        match say {
            Say::Notice(text) => self.observer.notice(&text),
            Say::Warn(text) => self.observer.warn(&text),
            Say::Failed(failure) => {
                if let Err(error) = self.observer.key_failed(&failure) {
                    self.untold.get_or_insert(error);
                    return Ok(Some(Event::Untold));
                }
            }
            Say::Accepted(origin, record, landed) => {
                if let Some(accepted) = &mut self.accepted {
                    accepted.accepted(origin, record, landed)?;
                }
            }
            Say::Stands(origin, record, landed) => {
                if let Some(accepted) = &mut self.accepted {
                    accepted.stands(origin, record, landed)?;
                }
            }
            Say::Deleted(db, key) => {
                if let Some(accepted) = &mut self.accepted {
                    accepted.deleted(db, &key)?;
                }
            }
            Say::Library(name, code) => {
                if let Some(accepted) = &mut self.accepted {
                    accepted.library(&name, &code)?;
                }
            }
            Say::Lost(why, advice) => {
                let accepted = self.accepted.as_mut();
                return Ok(
                    match (
                        accepted.map_or(Ok(()), |accepted| accepted.halt(&why)),
                        advice,
                    ) {
                        (Err(halted), _) => Some(Event::Halted(halted)),
                        (Ok(()), Some(advice)) => Some(Event::Problem(format!("{why}: {advice}"))),
                        (Ok(()), None) => None,
                    },
                );
            }
        }
        Ok(None)
    }

    /// Whoever waits for accepted keys does the rest.
    fn tell_source(&mut self, left: u64) -> Result<Option<Event>> {
        let Some(mut accepted) = self.accepted.take() else {
            return Ok(None);
        };
        accepted.left(left);
        let finished = accepted.finish();
        Ok(Some(Event::SourceTold {
            deletions: accepted.counts(),
            // Where the run failed, what fails now is told already, or is the consequence of it.
            finished: if self.has_failed { Ok(()) } else { finished },
        }))
    }
}

/// The first that answers says who serves what.
fn ask_topology(candidates: Vec<ConnectOptions>) -> Option<Topology> {
    let ask = |options: ConnectOptions| {
        Conn::open(&briefly(options)).and_then(|mut conn| Topology::ask(&mut conn))
    };
    let mut answers = candidates.into_iter().filter_map(|to| ask(to).ok());
    answers.find(|topology| !topology.shards.is_empty())
}

/// How to ask a node that others can stand in for.
fn briefly(mut options: ConnectOptions) -> ConnectOptions {
    options.timeout = options.timeout.min(ASK_TIMEOUT);
    options.connect_timeout = options.connect_timeout.min(ASK_TIMEOUT);
    options.retry_for = options.retry_for.min(ASK_TIMEOUT);
    options
}
