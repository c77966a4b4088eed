//! How a record comes to be sent: stage by stage, until something is to be done first.

use anyhow::Result;

use super::databases::{Gate, no_database};
use super::fleet::Way;
use super::intake::{Judged, strip_past_fields, unseen_graph};
use super::item::{Form, InFlight, Item, Stage, Task};
use super::links::Reach;
use super::traffic::Traffic;
use super::work::{Do, Query, Staged, Stepped};
use crate::payload::has_metadata;
use crate::policy::OnConflict;
use crate::sink::server::foresee;

/// No server takes less than this unless it was told to, and few were.
const SURELY_SMALL_BYTES: usize = 256 * 1024;

/// So many records are put together to wait before it is looked whether answers have come.
const HELD_BETWEEN_LOOKS: usize = 64;

/// The lane of a record in its database, with nothing in flight.
enum Inside {
    There(usize),
    First(Do),
    Refused(String),
}

/// A record on its way out.
pub(super) struct Stepping<'a> {
    pub traffic: &'a mut Traffic,
    /// A lane's window was full: it is read until it is half empty.
    pub is_ebbing: &'a mut bool,
    /// It came just now, and was not put off before.
    pub is_coming: bool,
}

impl Stepping<'_> {
    /// Takes a record as far as it goes.
    ///
    /// # Errors
    /// What ends the run.
    pub fn step(&mut self, mut item: Box<Item>) -> Result<Stepped> {
        self.drop_past_fields(&mut item);
        let staged = loop {
            #[cfg(test)]
            super::tests::mark(&item.stage);
            match self.stage(&mut item) {
                Ok(Staged::Go) => {}
                Ok(staged) => break staged,
                Err(error) => {
                    // It was made ready, and perhaps on its way before.
                    if !self.is_coming || item.stage >= Stage::Place {
                        self.traffic.backlog.put_off(item);
                    }
                    return Err(error);
                }
            }
        };
        #[cfg(test)]
        super::tests::mark(&staged);
        let traffic = &mut *self.traffic;
        Ok(match staged {
            Staged::Go | Staged::Over => OVER,
            Staged::Wait(todo) => Stepped::Wait(item, todo),
            Staged::Drain => Stepped::Drain(item),
            Staged::PutOff => {
                traffic.backlog.put_off(item);
                OVER
            }
            Staged::Refused(reason, hint) => {
                traffic.ledger.refuse(item, reason, hint);
                OVER
            }
            Staged::NoDatabase(why) => {
                traffic.refuse_database(item, &why);
                OVER
            }
            Staged::Send(at) => self.send(item, at),
            Staged::Hold(at, first) => self.hold(item, at, first),
            Staged::Exchange(todo) => Stepped::Exchange(item, todo),
            Staged::Answered(at, answer) => {
                let then = match answer {
                    Ok(()) => traffic.outcome(at).looked(item, false)?,
                    Err(text) => traffic.outcome(at).refused(item, text)?,
                };
                traffic.conclude(at, then)?;
                OVER
            }
        })
    }

    /// A record may have waited for long, and fields of it have gone by. What may have been written
    /// already where no field ever goes is sent as it was: by that it is known again.
    fn drop_past_fields(&mut self, item: &mut Item) {
        if !matches!(item.task, Task::Restore { .. }) {
            return;
        }
        let features = self.traffic.fleet.lane(item.place.at).takes.features;
        let lets_none_go = features.is_some_and(|features| features.field_ttl_max_ms.is_none());
        if !(lets_none_go && item.is_by_commands() && item.past.is_doubtful) {
            let now_ms = self.traffic.now.unix_ms;
            strip_past_fields(item, self.traffic.ledger.changes(), now_ms);
        }
    }

    fn stage(&mut self, item: &mut Item) -> Result<Staged> {
        match item.stage {
            Stage::Settle | Stage::Route => self.begin(item),
            Stage::Judge => self.judge(item),
            Stage::Size | Stage::NewSize => self.size(item),
            Stage::Learn | Stage::Classes | Stage::Prepare => self.make_ready(item),
            Stage::Ready => self.ready(item),
            Stage::Graph | Stage::Offer => self.ask_about_value(item),
            Stage::Strip | Stage::Features | Stage::Native | Stage::Check => {
                self.make_ready_for_commands(item)
            }
            Stage::Rights(way) => self.rights(item, way),
            Stage::Refit | Stage::PrepareAnew => Ok(self.refit(item)),
            Stage::Place => self.place(item),
            Stage::Alone => self.alone(item),
        }
    }

    /// A record that follows from an answer goes out now, or is put off.
    pub fn send_next(&mut self, mut item: Box<Item>) -> Stepped {
        self.drop_past_fields(&mut item);
        let traffic = &mut *self.traffic;
        let Way::Lane(at) = traffic.fleet.way(&item.record.key, item.place.ask_to) else {
            traffic.backlog.put_off(item);
            return OVER;
        };
        let lane = traffic.fleet.lane(at);
        let is_ready = item.stage == Stage::Place
            && at == item.place.at
            && lane.is_up()
            && (!item.is_by_commands() || lane.takes.features.is_some());
        if !is_ready || traffic.backlog.follows_recalled(&item, &traffic.fleet) {
            traffic.backlog.put_off(item);
            return OVER;
        }
        let db = item.record.db;
        match traffic.databases.gate(lane, db, &mut traffic.ledger) {
            Gate::Open => self.send(item, at),
            Gate::Moving => self.hold(item, at, None),
            Gate::Refused(why) => {
                traffic.refuse_database(item, &why);
                OVER
            }
            Gate::Free | Gate::Select | Gate::Busy => {
                traffic.backlog.put_off(item);
                OVER
            }
        }
    }

    fn begin(&mut self, item: &mut Item) -> Result<Staged> {
        if item.stage == Stage::Settle {
            if self.traffic.backlog.is_open(item.print) {
                return Ok(Staged::Drain);
            }
            item.stage = Stage::Route;
        }
        match self.traffic.reach(item)? {
            Reach::There(at) => {
                item.place.at = at;
                begin_stage(item, Stage::Judge);
                self.judge(item)
            }
            Reach::First(todo) => Ok(Staged::Wait(todo)),
        }
    }

    fn judge(&mut self, item: &mut Item) -> Result<Staged> {
        let traffic = &mut *self.traffic;
        let is_tombstone = item.task == Task::Ask;
        let why_closed = traffic.databases.why_closed(item.record.db);
        let why_closed = why_closed.map(str::to_owned);
        let mut intake = traffic.intake(item.place.at);
        let judged = match (is_tombstone, why_closed.is_some()) {
            (true, _) => intake.judge_tombstone(item)?,
            (false, false) => intake.judge_key(item)?,
            (false, true) => Judged::Goes(Stage::Place),
        };
        #[cfg(test)]
        super::tests::mark(&judged);
        Ok(match (judged, why_closed) {
            (Judged::Over, _) => Staged::Over,
            (Judged::Refused(reason, hint), _) => Staged::Refused(reason, hint),
            (Judged::Goes(_), Some(why)) => Staged::NoDatabase(why),
            (Judged::Goes(Stage::Size), None) => {
                begin_stage(item, Stage::Size);
                return self.size(item);
            }
            (Judged::Goes(stage), None) => {
                item.stage = stage;
                Staged::Go
            }
        })
    }

    /// Whether a payload is more than the destination takes in one piece.
    fn size(&mut self, item: &mut Item) -> Result<Staged> {
        let is_new = item.stage == Stage::NewSize;
        let bytes = match is_new {
            true => item.bytes,
            false => item.record.value.bytes().len(),
        };
        let takes = &self.traffic.fleet.lane(item.place.at).takes;
        let is_too_large = match bytes <= SURELY_SMALL_BYTES {
            true => Some(false),
            false => takes.is_too_large(bytes),
        };
        match is_too_large {
            Some(true) => item.stage = Stage::Strip,
            Some(false) if !is_new => {
                begin_stage(item, Stage::Learn);
                return self.make_ready(item);
            }
            Some(false) if matches!(item.form, Form::Graph(_)) => item.stage = Stage::Graph,
            Some(false) => {
                begin_stage(item, Stage::Ready);
                return self.ready(item);
            }
            None => {
                return Ok(match self.quiet(item)? {
                    Reach::There(at) => {
                        item.place.at = at;
                        Staged::Wait(Do::Ask(at, Query::Limits))
                    }
                    Reach::First(todo) => Staged::Wait(todo),
                });
            }
        }
        Ok(Staged::Go)
    }

    /// A value is ready for RESTORE, and its destination has nothing against it so far.
    fn ready(&mut self, item: &mut Item) -> Result<Staged> {
        let intake = self.traffic.intake(item.place.at);
        if intake.settings.options.dry_run {
            item.stage = Stage::Offer;
            return Ok(Staged::Go);
        }
        item.task = intake.restores();
        begin_stage(item, Stage::Place);
        self.place(item)
    }

    fn make_ready(&mut self, item: &mut Item) -> Result<Staged> {
        let at = item.place.at;
        if self.traffic.fleet.lane(at).takes.target.is_none() {
            item.stage = Stage::Learn;
            return self.ask_inside(item, Query::Target);
        }
        if item.stage == Stage::Learn {
            if self.traffic.ways.all_by_commands() {
                item.stage = Stage::Strip;
                return Ok(Staged::Go);
            }
            item.stage = Stage::Classes;
        }
        let mut intake = self.traffic.intake(at);
        if item.stage == Stage::Classes && intake.must_ask_for_classes(item) {
            return self.ask_quietly(item, Query::Classes);
        }
        match intake.prepare(item, true) {
            Ok(()) => {
                begin_stage(item, Stage::NewSize);
                self.size(item)
            }
            Err((reason, hint)) => Ok(Staged::Refused(reason, hint)),
        }
    }

    fn ask_about_value(&mut self, item: &mut Item) -> Result<Staged> {
        if item.stage == Stage::Graph {
            if let Some((reason, hint)) = self.traffic.ways.graph_in_the_way(item) {
                return Ok(Staged::Refused(reason, hint));
            }
            return self.ask_inside(item, Query::Graph);
        }
        let takes = &self.traffic.fleet.lane(item.place.at).takes;
        let target = takes.target.as_ref();
        if target.is_some_and(|target| target.opaque().is_some()) {
            return self.ask_quietly(item, Query::Offer);
        }
        item.stage = Stage::Rights(foresee::Way::Restore);
        Ok(Staged::Go)
    }

    fn make_ready_for_commands(&mut self, item: &mut Item) -> Result<Staged> {
        let at = item.place.at;
        item.stage = match item.stage {
            Stage::Strip => {
                if let Err((reason, hint)) = self.traffic.intake(at).strip(item) {
                    return Ok(Staged::Refused(reason, hint));
                }
                Stage::Features
            }
            Stage::Features => match self.inside(item)? {
                Inside::There(at) if self.traffic.fleet.lane(at).takes.features.is_none() => {
                    return Ok(Staged::Wait(Do::Ask(at, Query::Features)));
                }
                Inside::There(at) => {
                    item.place.at = at;
                    Stage::Native
                }
                Inside::First(todo) => return Ok(Staged::Wait(todo)),
                Inside::Refused(why) => {
                    let reason = no_database(item.record.db, &why);
                    return Ok(Staged::Refused(reason, None));
                }
            },
            Stage::Native if self.traffic.intake(at).tries_native() => {
                return Ok(Staged::Wait(Do::Ask(at, Query::Native)));
            }
            Stage::Native => Stage::Check,
            _ => {
                let mut intake = self.traffic.intake(at);
                if let Err((reason, hint)) = intake.check(item) {
                    return Ok(Staged::Refused(reason, hint));
                }
                if intake.settings.options.dry_run {
                    Stage::Rights(intake.way(item))
                } else {
                    item.task = intake.restores();
                    Stage::Place
                }
            }
        };
        Ok(Staged::Go)
    }

    /// Dry run: could this key be written, and then, does it stand already?
    fn rights(&mut self, item: &mut Item, way: foresee::Way) -> Result<Staged> {
        // The nodes of a cluster have users of their own each.
        if !self.traffic.ways.has_rights() && !self.traffic.fleet.is_cluster() {
            return self.ask_quietly(item, Query::Rights);
        }
        let known = self.traffic.ways.right_to(item);
        let replaces = self.traffic.settings.options.on_conflict == OnConflict::Replace;
        let at = item.place.at;
        item.stage = Stage::Place;
        item.task = match known.filter(|_| way == foresee::Way::Restore) {
            Some(Err(text)) => return Ok(Staged::Answered(at, Err(text))),
            Some(Ok(())) if replaces => return Ok(Staged::Answered(at, Ok(()))),
            Some(Ok(())) => Task::Look,
            None => Task::Try(way),
        };
        Ok(Staged::Go)
    }

    /// Makes a record ready for another lane than the one it was made ready for.
    fn refit(&mut self, item: &mut Item) -> Staged {
        let way = self.traffic.fleet.way(&item.record.key, item.place.ask_to);
        let at = match way {
            Way::Lane(at) if self.traffic.fleet.lane(at).is_up() => at,
            _ => {
                item.stage = Stage::Place;
                return Staged::Go;
            }
        };
        let lane = self.traffic.fleet.lane(at);
        let is_quiet = lane.flight.is_empty();
        let query = match lane.takes.target {
            None => Some(Query::Target),
            Some(_) if item.stage == Stage::PrepareAnew => None,
            Some(_) => {
                let intake = self.traffic.intake(at);
                let must_ask = intake.must_ask_for_classes(item);
                must_ask.then_some(Query::Classes)
            }
        };
        if let Some(query) = query {
            return Staged::Wait(match is_quiet {
                true => Do::Ask(at, query),
                false => Do::Read(at),
            });
        }
        item.place.at = at;
        match self.traffic.intake(at).prepare(item, false) {
            Ok(()) => {
                item.stage = Stage::Place;
                Staged::Go
            }
            Err((reason, hint)) => Staged::Refused(reason, hint),
        }
    }

    /// Queues a record on its connection.
    fn place(&mut self, item: &mut Item) -> Result<Staged> {
        if self.is_coming {
            if self.traffic.backlog.has_put_off() {
                return Ok(Staged::Drain);
            }
            if let Some(todo) = self.ebb(item) {
                return Ok(Staged::Wait(todo));
            }
        }
        let at = match self.reach_or_put_off(item)? {
            Some(Reach::There(at)) => at,
            Some(Reach::First(todo)) => return Ok(Staged::Wait(todo)),
            None => return Ok(Staged::PutOff),
        };
        let traffic = &mut *self.traffic;
        let (lane, db) = (traffic.fleet.lane(at), item.record.db);
        match traffic.databases.gate(lane, db, &mut traffic.ledger) {
            Gate::Open => {}
            Gate::Moving => return Ok(Staged::Hold(at, None)),
            Gate::Free => {
                let lane = traffic.fleet.lane_mut(at);
                lane.database = None;
                lane.flight.start_move(db);
                return Ok(Staged::Hold(at, Some(Do::SendSelect(at, db))));
            }
            Gate::Select => return Ok(Staged::Wait(Do::Select(at, db))),
            Gate::Busy => return Ok(Staged::Wait(Do::Read(at))),
            Gate::Refused(why) => return Ok(Staged::NoDatabase(why)),
        }
        if let Some(staged) = self.fit(item, at) {
            return Ok(staged);
        }
        let traffic = &*self.traffic;
        Ok(
            match traffic.backlog.follows_recalled(item, &traffic.fleet) {
                true => Staged::PutOff,
                false => Staged::Send(at),
            },
        )
    }

    /// The window of a lane is full: what is to be done before more goes there.
    fn ebb(&mut self, item: &Item) -> Option<Do> {
        let window = self.traffic.fleet.window();
        let at = item.place.at;
        let flight = &self.traffic.fleet.lane(at).flight;
        if flight.is_empty() {
            *self.is_ebbing = false;
            return None;
        }
        let (bytes, count) = (flight.unanswered_bytes(), flight.unanswered_count());
        if !*self.is_ebbing {
            if bytes + item.bytes <= window.bytes && count < window.records {
                return None;
            }
            *self.is_ebbing = true;
            // The others work while this one is waited for.
            return Some(Do::Flush);
        }
        let low_bytes = (window.bytes / 2).saturating_sub(item.bytes);
        if bytes > low_bytes || count > window.records / 2 {
            return Some(Do::Read(at));
        }
        *self.is_ebbing = false;
        None
    }

    /// `None`: the lane is not to be had just now.
    fn reach_or_put_off(&mut self, item: &Item) -> Result<Option<Reach>> {
        let way = self.traffic.fleet.way(&item.record.key, item.place.ask_to);
        match way {
            Way::Lane(at) if self.traffic.fleet.lane(at).is_up() => Ok(Some(Reach::There(at))),
            Way::Lane(_) if self.traffic.fleet.is_cluster() && self.traffic.backlog.is_paused() => {
                Ok(None)
            }
            Way::Lane(at) => Ok(Some(Reach::First(self.traffic.connect(at)?))),
            Way::Unserved(slot) => {
                self.traffic.fleet.doubt(None);
                self.traffic
                    .wait_for(&format!("no node of the cluster serves slot {slot}"))?;
                Ok(None)
            }
        }
    }

    /// Keeps a record until its SELECT is answered. Answers are read as they come meanwhile, without
    /// a wait: that comes when the window is full.
    fn hold(&mut self, item: Box<Item>, at: usize, first: Option<Do>) -> Stepped {
        let traffic = &mut *self.traffic;
        let print = item.print;
        match traffic.fleet.lane_mut(at).flight.hold(item) {
            Ok(held) => {
                traffic.backlog.note_open(print);
                let looks = first.is_none() && held.is_multiple_of(HELD_BETWEEN_LOOKS);
                Stepped::Over(first.or(looks.then_some(Do::Peek(at))))
            }
            Err(item) => {
                traffic.backlog.put_off(item);
                Stepped::Over(first)
            }
        }
    }

    /// A record that was made ready for another lane is made ready for this one: what is to be done
    /// for that, if anything.
    fn fit(&mut self, item: &mut Item, at: usize) -> Option<Staged> {
        let former = item.place.at;
        let lane = self.traffic.fleet.lane(at);
        let lacks_features = item.is_by_commands() && lane.takes.features.is_none();
        if former == at && !lacks_features {
            return None;
        }
        if matches!(item.task, Task::Restore { .. } | Task::Look | Task::Try(_)) {
            if lacks_features {
                return Some(Staged::Wait(match lane.flight.is_empty() {
                    true => Do::Ask(at, Query::Features),
                    false => Do::Read(at),
                }));
            }
            // Which modules a node has is another matter than its version.
            let has_metadata = has_metadata(item.context.family, item.record.value.head());
            let is_alike = lane.is_like(self.traffic.fleet.lane(former)) && !has_metadata;
            if !item.is_by_commands() && !is_alike {
                item.stage = Stage::Refit;
                return Some(Staged::Go);
            }
        }
        item.place.at = at;
        None
    }

    /// Puts a record in flight.
    fn send(&mut self, item: Box<Item>, at: usize) -> Stepped {
        if item.writes_by_commands() {
            return Stepped::Exchange(item, Do::Queue(at));
        }
        let traffic = &mut *self.traffic;
        traffic.backlog.note_open(item.print);
        let flight = &mut traffic.fleet.lane_mut(at).flight;
        let asking = item.place.ask_to.is_some() && item.task != Task::Compare;
        if asking {
            flight.push(InFlight::Asking);
        }
        let is_graph = matches!(item.form, Form::Graph(_));
        if is_graph && matches!(item.task, Task::Restore { replace: true, .. }) {
            flight.push(InFlight::Cleared);
            if asking {
                flight.push(InFlight::Asking);
            }
        }
        flight.push(InFlight::Record(item));
        Stepped::Over(Some(Do::Send(at)))
    }

    /// Writes one value with nothing else in flight on its lane, however large it is.
    fn alone(&mut self, item: &mut Item) -> Result<Staged> {
        let at = match self.inside(item)? {
            Inside::There(at) => at,
            Inside::First(todo) => return Ok(Staged::Wait(todo)),
            Inside::Refused(why) => return Ok(Staged::NoDatabase(why)),
        };
        let traffic = &*self.traffic;
        if traffic.backlog.follows_recalled(item, &traffic.fleet) {
            return Ok(Staged::PutOff);
        }
        // Another node answers there by now.
        if item.place.at != at || traffic.fleet.lane(at).takes.features.is_none() {
            item.stage = Stage::Place;
            return Ok(Staged::Go);
        }
        Ok(Staged::Exchange(Do::WriteAlone(at)))
    }

    /// The lane of a record, with nothing in flight.
    fn quiet(&mut self, item: &Item) -> Result<Reach> {
        Ok(match self.traffic.reach(item)? {
            Reach::There(at) if !self.traffic.fleet.lane(at).flight.is_empty() => {
                Reach::First(Do::Read(at))
            }
            reach => reach,
        })
    }

    /// Asks something of the lane of a record.
    fn ask_quietly(&mut self, item: &mut Item, query: Query) -> Result<Staged> {
        Ok(match self.quiet(item)? {
            Reach::First(todo) => Staged::Wait(todo),
            Reach::There(at) if at == item.place.at || query == Query::Rights => {
                Staged::Wait(Do::Ask(at, query))
            }
            // Another node has its slot by now.
            Reach::There(at) => {
                item.place.at = at;
                item.stage = Stage::Learn;
                Staged::Go
            }
        })
    }

    /// The lane of a record, with nothing in flight and proved to be in its database.
    fn inside(&mut self, item: &Item) -> Result<Inside> {
        let at = match self.quiet(item)? {
            Reach::There(at) => at,
            Reach::First(todo) => return Ok(Inside::First(todo)),
        };
        let traffic = &mut *self.traffic;
        let (lane, db) = (traffic.fleet.lane(at), item.record.db);
        Ok(
            match traffic.databases.gate(lane, db, &mut traffic.ledger) {
                Gate::Open => Inside::There(at),
                Gate::Refused(why) => Inside::Refused(why),
                _ => Inside::First(Do::Select(at, db)),
            },
        )
    }

    /// Asks something in the record's database.
    fn ask_inside(&mut self, item: &mut Item, query: Query) -> Result<Staged> {
        Ok(match self.inside(item)? {
            Inside::There(at) => {
                item.place.at = at;
                Staged::Wait(Do::Ask(at, query))
            }
            Inside::First(todo) => Staged::Wait(todo),
            Inside::Refused(why) if query == Query::Graph => {
                let (reason, hint) = unseen_graph(&why);
                Staged::Refused(reason, hint)
            }
            Inside::Refused(why) => Staged::NoDatabase(why),
        })
    }
}

/// The stage begins at once, not by way of [`Stepping::stage`]: nearly every record goes from one of these
/// to the next.
fn begin_stage(item: &mut Item, stage: Stage) {
    item.stage = stage;
    #[cfg(test)]
    super::tests::mark(&item.stage);
}

/// Nothing more is to be done with a record.
const OVER: Stepped = Stepped::Over(None);
