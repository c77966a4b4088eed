//! The writer: decides what goes to a destination, when, and what came of it. It does no I/O, has no
//! threads and reads no clock: events come in ([`Writer::on`]), actions go out ([`Writer::next`]), and
//! the shell around it ([`super::ServerSink`]) carries each action out and tells what came of it. So
//! every order of events can be tried without a server.
//!
//! What a writer is made of, each behind its own wall:
//!
//! | part | knows |
//! |---|---|
//! | [`item`] | a record on its way: what its command is to do, what it needs first, what it went through |
//! | [`traffic`], [`links`] | what is on its way, what an answer leads to, what a lost connection costs |
//! | [`fleet`], [`lane`], [`flight`], [`routes`] | the nodes, what is in flight at each, who serves which slot |
//! | [`databases`] | which databases are proved, and which are not to be had |
//! | [`kept`] | what was acknowledged and no replica has confirmed |
//! | [`backlog`] | what goes out again, and which keys have a record on its way |
//! | [`intake`] | what is done with a record before it goes out |
//! | [`judge`] | what an answer means, as pure functions |
//! | [`outcome`], [`written`] | what is counted, remembered and told of an answer, and what follows |
//! | [`memory`], [`held`], [`stood`], [`witnesses`] | which keys are this run's own, and which conflicts wait |
//! | [`ledger`] | numbers and words for others |
//! | [`trouble`] | how long a destination is waited for |
//! | [`libraries`] | function libraries |
//! | [`closing`] | the end of a run |
//!
//! At most one record comes at a time (`coming`), and at most one of those that were put off is in
//! hand. A record has a [`item::Stage`]: what it needs before it can go out. When it cannot go on, the
//! writer asks for the one thing that it lacks (a connection, a database, an answer), and looks again
//! when that was tried. Nothing that reads a reply sends anything: what follows from a reply goes to
//! the backlog, and from there it is sent.

mod actions;
mod backlog;
mod closing;
mod counting;
mod databases;
mod events;
mod fleet;
mod flight;
mod held;
mod intake;
mod io;
mod item;
mod judge;
mod kept;
mod lane;
mod ledger;
mod libraries;
mod links;
mod listed;
mod memory;
mod outcome;
mod routes;
mod settings;
mod step;
mod stood;
mod traffic;
mod trouble;
mod witnesses;
mod work;
mod written;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use self::actions::Acting;
use self::closing::Closing;
pub(super) use self::closing::Upheavals;
pub(super) use self::databases::MAX_LOSSES;
pub(super) use self::fleet::{Fleet, NodeSaid};
pub(super) use self::io::{Action, Answer, AskedWith, Due, Event, How, Litter, Now, Question};
pub(super) use self::item::{Form, Item, Task};
use self::item::{InFlight, Stage};
pub(super) use self::lane::{Introduction, Met};
use self::ledger::Ledger;
pub(super) use self::ledger::Say;
use self::libraries::Libraries;
pub(super) use self::libraries::may_pass;
use self::memory::Memory;
pub(super) use self::settings::Settings;
use self::traffic::Traffic;
use self::witnesses::Witnesses;
use self::work::{Do, Drain, Exchange, Phase};
use super::held::Repeats;
use super::witness::Acknowledged;
use crate::ledger::Deletions;
use crate::own_writes::FingerprintSet;
use crate::record::Batch;

/// At the end there is nothing behind WAIT that could be held up.
const LAST_WAIT_MS: u64 = 1000;

/// Decides what goes to a destination. See the module's text.
pub(super) struct Writer {
    /// What is on its way.
    traffic: Traffic,
    /// The record that came last, until it is in flight or done.
    coming: Option<Box<Item>>,
    /// A record that was put off and goes out now.
    hand: Option<Box<Item>>,
    /// A record whose commands or replies are exchanged.
    exchange: Option<Exchange>,
    drain: Drain,
    /// A lane's window was full: it is read until it is half empty.
    is_ebbing: bool,
    /// Answers are read as they come while records wait for a database.
    is_peeking: bool,
    libraries: Option<Libraries>,
    closing: Option<Closing>,
    phase: Phase,
    /// Batches so far.
    batches: u64,
}

impl Writer {
    /// Nothing is under way; no lane is connected. `patience`: how long nothing may be got done.
    pub fn new(settings: Settings, fleet: Fleet, patience: Duration, now: Now) -> Self {
        Self {
            traffic: Traffic::new(settings, fleet, patience, now),
            coming: None,
            hand: None,
            exchange: None,
            drain: Drain::Off,
            is_ebbing: false,
            is_peeking: false,
            libraries: None,
            closing: None,
            phase: Phase::Writing,
            batches: 0,
        }
    }

    /// Something happened.
    ///
    /// # Errors
    /// What ends the run. Only [`Event::GiveUp`] may follow.
    pub fn on(&mut self, event: Event, now: Now) -> Result<()> {
        self.traffic.now = now;
        let done = self.take_event(event);
        match self.phase {
            Phase::Writing => done,
            // It failed already, for another reason.
            Phase::Counting { .. } | Phase::Sweeping | Phase::Failed => Ok(()),
        }
    }

    fn take_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::BatchBegins => self.batches += 1,
            Event::Record(item) => self.take_record(item),
            Event::Libraries(dump) => self.take_libraries(&dump),
            Event::BatchEnds => self.end_batch(),
            // A key that is ours but in the way is written again only when its refusal is read.
            Event::Idle => self.begin_drain(),
            Event::Finish => self.closing = Some(Closing::begin()),
            Event::GiveUp => self.give_up(),
            Event::Waited => {}
            Event::Halted(why) => self.traffic.trouble.halt(why),
            Event::Untold => self.untold(),
            Event::Problem(text) => self.traffic.ledger.problem(text),
            Event::SourceTold {
                deletions,
                finished,
            } => {
                let told = &mut self.traffic.ledger.report().deletions;
                *told = Deletions {
                    kept_for_another: told.kept_for_another,
                    ..deletions
                };
                return finished;
            }
            Event::Evicted(at, count) => self.evicted(at, count)?,
            Event::Upheaved(at, count) => self.upheaved(at, count)?,
            Event::Swept(left) => self.swept(left),
            event => return self.take_lane_event(event),
        }
        Ok(())
    }

    /// What concerns a connection.
    fn take_lane_event(&mut self, event: Event) -> Result<()> {
        let traffic = &mut self.traffic;
        match event {
            Event::SendFailed(at, error) => traffic.send_failed(at, error),
            Event::Reply(at, answer) => self.replied(at, answer),
            Event::NoReply => {
                self.is_peeking = false;
                Ok(())
            }
            Event::Found(at, found) => match traffic.take_sent(at) {
                Some(InFlight::Record(item)) => {
                    let then = traffic.outcome(at).compared(item, found)?;
                    traffic.conclude(at, then)
                }
                _ => Ok(()),
            },
            Event::Value(at, said) => self.value_said(at, said.0, said.1),
            Event::ReadFailed(at, error) => self.read_failed(at, error),
            Event::Queued(at, ticket) => self.queued(at, ticket),
            Event::Wrote(at, written) => self.wrote(at, written.0, written.1),
            Event::Selected(at, db, answer) => traffic.selected(at, db, answer),
            Event::Met(at, introduction) => {
                traffic.met(at, *introduction);
                Ok(())
            }
            Event::NotConnected {
                at,
                error,
                was_open,
            } => traffic.not_connected(at, error, was_open),
            Event::Answered(at, answer, database) => {
                traffic.fleet.lane_mut(at).database = database;
                self.answered(at, answer)
            }
            Event::Topology(topology) => traffic.topology(topology),
            Event::NodesSaid(said) => {
                traffic.nodes_said(&said);
                Ok(())
            }
            Event::SentinelsSaid(at, standing) => self.sentinels_said(at, standing),
            _ => Ok(()),
        }
    }

    /// The box of a record that is done, for the one that comes.
    pub fn spare(&mut self) -> Option<Box<Item>> {
        self.traffic.spares.take()
    }

    /// What the user wishes.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.traffic.settings
    }

    /// The nodes.
    pub fn fleet(&self) -> &Fleet {
        &self.traffic.fleet
    }

    /// Whether conflicts that were held are judged.
    pub fn is_judging(&mut self) -> bool {
        let closing = self.closing.as_mut();
        closing.is_some_and(|closing| closing.judging().is_some())
    }

    /// What is known of keys.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.traffic.memory
    }

    /// From now on, notes keys by which a later run sees that what was acknowledged stands; `known`
    /// were noted by an earlier run.
    pub fn keep_witnesses(&mut self, known: FingerprintSet) {
        self.traffic.witnesses = Some(Witnesses::new(known));
    }

    /// An earlier run wrote what stands at the nodes, and this one goes by that.
    pub fn rely_on_what_stands(&mut self) {
        self.traffic.fleet.note_stood();
    }

    /// See [`Witnesses::take_unsaved`].
    pub fn take_acknowledged(&mut self) -> Vec<Acknowledged> {
        let Traffic {
            witnesses, backlog, ..
        } = &mut self.traffic;
        let witnesses = witnesses.as_mut();
        witnesses.map_or_else(Vec::new, |some| {
            some.take_unsaved(|print| backlog.is_open(print))
        })
    }

    /// See [`Witnesses::about_to_change`].
    pub fn about_to_change(&self, batch: &Batch) -> Vec<Acknowledged> {
        let memory = &self.traffic.memory;
        let witnesses = self.traffic.witnesses.as_ref();
        witnesses.map_or_else(Vec::new, |some| {
            some.about_to_change(batch, |db, key| memory.fingerprint(db, key))
        })
    }

    /// Whether a process that had acknowledged something was started anew, or replaced.
    pub fn has_lost_memory(&self) -> bool {
        self.traffic.trouble.has_lost_memory()
    }

    /// How many batches, from the first, have every record answered.
    pub fn settled_batches(&self) -> u64 {
        let lanes = self.traffic.fleet.lanes().iter();
        let in_flight = lanes.flat_map(|lane| lane.flight.unanswered());
        let open = in_flight
            .chain(self.traffic.backlog.waiting())
            .map(|item| item.batch)
            .filter(|batch| *batch > 0);
        open.min().map_or(self.batches, |oldest| oldest - 1)
    }

    /// These databases were tried before the first key; `expected`: those that keys will go to.
    pub fn note_databases(
        &mut self,
        refused: BTreeMap<u32, String>,
        expected: impl Iterator<Item = u32>,
    ) {
        self.traffic.databases.tried(refused, expected);
    }

    /// Numbers and words.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.traffic.ledger
    }

    /// The next thing that is to be done; `None` until something happens.
    ///
    /// # Errors
    /// As of [`Self::on`].
    pub fn next(&mut self) -> Result<Option<Action<'_>>> {
        let Some(todo) = self.decide()? else {
            return Ok(None);
        };
        #[cfg(test)]
        tests::mark_all(&todo, &self.drain, &self.phase);
        let acting = Acting {
            traffic: &mut self.traffic,
            item: self.hand.as_deref().or(self.coming.as_deref()),
            exchange: self.exchange.as_ref(),
            libraries: self.libraries.as_ref(),
        };
        match acting.action(todo) {
            Some(action) => Ok(Some(action)),
            None => anyhow::bail!("the writer lost what it was about to do (a bug)"),
        }
    }

    fn decide(&mut self) -> Result<Option<Do>> {
        loop {
            if self.traffic.ledger.has_more_to_say() {
                return Ok(Some(Do::Say));
            }
            if self.phase != Phase::Writing {
                // Nothing is sent any more.
                self.traffic.errands.clear();
            }
            if let Some(errand) = self.traffic.errands.pop_front() {
                match self.traffic.run_errand(errand) {
                    Some(todo) => return Ok(Some(todo)),
                    None => continue,
                }
            }
            match self.phase {
                Phase::Writing => {}
                Phase::Counting { at, flushed } => match self.count_lane(at, flushed) {
                    Some(todo) => return Ok(Some(todo)),
                    None => continue,
                },
                Phase::Sweeping => return Ok(None),
                Phase::Failed => return self.close(),
            }
            self.traffic.trouble.end_if_halted()?;
            let todo = match self.urgent()? {
                Urgent::Do(todo) => Some(todo),
                Urgent::Again => None,
                Urgent::Nothing => match self.work()? {
                    Worked::Do(todo) => Some(todo),
                    Worked::Again => None,
                    Worked::Nothing => return self.close(),
                },
            };
            if todo.is_some() {
                return Ok(todo);
            }
        }
    }

    /// What goes before any record that waits.
    fn urgent(&mut self) -> Result<Urgent> {
        let traffic = &mut self.traffic;
        if let Some(at) = traffic.fleet.dying() {
            if let Some(todo) = self.read_due(at) {
                return Ok(Urgent::Do(todo));
            }
            self.traffic.bury(at)?;
            return Ok(Urgent::Again);
        }
        if traffic.fleet.is_refreshing() {
            return Ok(traffic.refresh().map_or(Urgent::Again, Urgent::Do));
        }
        if traffic.backlog.must_flush_released() {
            return Ok(Urgent::Do(Do::Flush));
        }
        Ok(match traffic.backlog.pop_next() {
            Some(item) => self.send_next(item).map_or(Urgent::Again, Urgent::Do),
            None => Urgent::Nothing,
        })
    }

    /// What is under way.
    fn work(&mut self) -> Result<Worked> {
        if let Some(item) = self.hand.take() {
            return self.step(item, false);
        }
        if self.drain != Drain::Off {
            return self.drain();
        }
        if let Some(item) = self.coming.take() {
            return self.step(item, true);
        }
        self.library_step()
    }

    fn begin_drain(&mut self) {
        if self.drain == Drain::Off {
            self.drain = Drain::Flush;
        }
    }

    /// Reads every reply that is due, and sends again what has to be, until nothing is open.
    fn drain(&mut self) -> Result<Worked> {
        #[cfg(test)]
        tests::mark(&self.drain);
        match self.drain {
            Drain::Off => {}
            Drain::Flush => {
                self.drain = Drain::Read;
                return Ok(Worked::Do(Do::Flush));
            }
            Drain::Read => {
                for at in 0..self.traffic.fleet.lanes().len() {
                    if let Some(todo) = self.read_due(at) {
                        return Ok(Worked::Do(todo));
                    }
                }
                if !self.traffic.backlog.has_put_off() {
                    self.traffic.backlog.rest_is_done();
                    self.traffic.trouble.look_for_halt();
                    self.drain = Drain::Off;
                    if let Some(closing) = &mut self.closing {
                        let memory = &mut self.traffic.memory;
                        closing.drained(|| memory.begin_judging())?;
                    }
                    return Ok(Worked::Again);
                }
                self.traffic.backlog.begin_round();
                self.drain = Drain::Round;
                if self.traffic.backlog.is_paused() {
                    return Ok(Worked::Do(self.traffic.rest()));
                }
                self.traffic.fleet.begin_refresh();
            }
            Drain::Round => match self.traffic.backlog.pop_round() {
                Some(mut item) => {
                    let takes = &self.traffic.fleet.lane(item.place.at).takes;
                    if item.is_restored() && takes.is_too_large(item.bytes) == Some(true) {
                        item.stage = Stage::Strip;
                    }
                    self.hand = Some(item);
                }
                None => self.drain = Drain::Flush,
            },
        }
        Ok(Worked::Again)
    }

    /// The end of a run.
    fn close(&mut self) -> Result<Option<Do>> {
        loop {
            let Some(closing) = &mut self.closing else {
                return Ok(None);
            };
            let traffic = &mut self.traffic;
            return Ok(Some(
                match closing.need(&mut traffic.fleet, &mut traffic.ledger) {
                    closing::Need::Drain => {
                        self.begin_drain();
                        match self.drain()? {
                            Worked::Do(todo) => todo,
                            Worked::Again | Worked::Nothing => Do::Flush,
                        }
                    }
                    closing::Need::Judge => {
                        closing.judge(&mut traffic.memory, &mut traffic.ledger)?;
                        match traffic.ledger.has_more_to_say() {
                            true => Do::Say,
                            false => continue,
                        }
                    }
                    closing::Need::Confirm(at) => {
                        let lane = traffic.fleet.lane_mut(at);
                        lane.kept.asked();
                        lane.flight.push(InFlight::Wait);
                        Do::SendWait(at, LAST_WAIT_MS)
                    }
                    closing::Need::Sentinels(at) => Do::AskSentinels(at),
                    closing::Need::Connection(_) if traffic.backlog.is_paused() => traffic.rest(),
                    closing::Need::Connection(at) => traffic.connect(at)?,
                    closing::Need::Slots => {
                        traffic.fleet.doubt(None);
                        traffic.fleet.begin_refresh();
                        Do::Flush
                    }
                    closing::Need::Source => {
                        closing.told();
                        Do::TellSource(traffic.ledger.records().left())
                    }
                    closing::Need::Evictions(at) => Do::CountEvictions(at),
                    closing::Need::Upheavals(at) => Do::CountUpheavals(at),
                    closing::Need::Nothing => {
                        let told = self.closing.take();
                        self.tell_the_end(told);
                        match self.traffic.ledger.has_more_to_say() {
                            true => Do::Say,
                            false => return Ok(None),
                        }
                    }
                },
            ));
        }
    }

    fn tell_the_end(&mut self, closing: Option<Closing>) {
        let traffic = &mut self.traffic;
        let options = &traffic.settings.options;
        if self.phase != Phase::Writing {
            return;
        }
        if let Some(closing) = closing {
            closing.tell_counts(&mut traffic.ledger, options.dry_run);
        }
        // Where a key comes once, what runs late writes what stands there.
        let may_run_late = options.repeats != Repeats::No
            && traffic.fleet.lanes().iter().any(|lane| lane.may_run_late);
        traffic.trouble.tell(&mut traffic.ledger, may_run_late);
    }

    /// The reply that is due first on a lane is to be read, if one is.
    fn read_due(&mut self, at: usize) -> Option<Do> {
        let flight = &mut self.traffic.fleet.lane_mut(at).flight;
        if !matches!(flight.first()?, InFlight::Value(..)) {
            return Some(Do::Read(at));
        }
        let (item, ticket) = flight.pop_value()?;
        let temp = ticket.temp().map(<[u8]>::to_vec);
        self.exchange = Some(Exchange { item, temp });
        Some(Do::ReadValue(at, ticket))
    }
}

/// What goes before any record that waits.
enum Urgent {
    Do(Do),
    /// Something has changed.
    Again,
    Nothing,
}

/// What came of a step of what is under way.
enum Worked {
    Do(Do),
    /// Something has changed.
    Again,
    Nothing,
}
