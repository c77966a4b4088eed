//! What comes of the events that a writer hears of.

use anyhow::Result;

use super::closing::{self, Closing};
use super::counting::{count_open, count_reply};
use super::intake::{strip_past_fields, unseen_graph};
use super::io::{Answer, Left};
use super::item::{InFlight, Item, Stage, Task};
use super::libraries::{self, Libraries};
use super::step::Stepping;
use super::work::{Do, Drain, Exchange, Phase, Query, Stepped};
use super::{Worked, Writer};
use crate::ledger::SinkReport;

use crate::server::ServerError;
use crate::server::conn::is_forbidden;
use crate::server::sentinel::Standing;
use crate::sink::server::commands::{
    self, CommandError, CommandLosses, Ticket, Written, largest_argument,
};
use crate::sink::server::held::Repeats;
use crate::sink::server::refusal::Outlook;

impl Writer {
    pub(super) fn take_record(&mut self, mut item: Box<Item>) {
        let traffic = &mut self.traffic;
        traffic.ledger.records().taken += 1;
        item.print = traffic.memory.fingerprint(item.record.db, &item.record.key);
        item.batch = self.batches;
        if item.task != Task::Ask {
            let now_ms = traffic.now.unix_ms;
            strip_past_fields(&mut item, traffic.ledger.changes(), now_ms);
        }
        self.coming = Some(item);
    }

    pub(super) fn take_libraries(&mut self, dump: &[u8]) {
        let overwritten = self.traffic.ways.take_overwritten();
        let libraries = Libraries::of(dump, overwritten, &mut self.traffic.ledger);
        self.libraries = Some(libraries);
        self.begin_drain();
    }

    /// A value larger than the window is not kept in flight beside the next one.
    pub(super) fn end_batch(&mut self) {
        let window = self.traffic.fleet.window();
        let mut lanes = self.traffic.fleet.lanes().iter();
        let is_large = lanes.any(|lane| lane.flight.unanswered_bytes() > window.bytes);
        match is_large || self.traffic.backlog.has_put_off() {
            true => self.begin_drain(),
            false => self.traffic.errands.push_back(Do::Flush),
        }
    }

    /// A record goes as far as it goes.
    pub(super) fn step(&mut self, item: Box<Item>, is_coming: bool) -> Result<Worked> {
        let stepped = Stepping {
            traffic: &mut self.traffic,
            is_ebbing: &mut self.is_ebbing,
            is_coming,
        }
        .step(item)?;
        let slot = match is_coming {
            true => &mut self.coming,
            false => &mut self.hand,
        };
        Ok(match stepped {
            Stepped::Wait(item, Do::Read(at)) => {
                *slot = Some(item);
                self.read_due(at).map_or(Worked::Again, Worked::Do)
            }
            Stepped::Wait(item, todo) => {
                *slot = Some(item);
                Worked::Do(todo)
            }
            Stepped::Drain(item) => {
                *slot = Some(item);
                self.begin_drain();
                Worked::Again
            }
            Stepped::Exchange(item, todo) => {
                self.exchange = Some(Exchange { item, temp: None });
                Worked::Do(todo)
            }
            Stepped::Over(todo) => {
                self.is_peeking |= matches!(todo, Some(Do::Peek(_)));
                todo.map_or(Worked::Again, Worked::Do)
            }
        })
    }

    /// A record that follows from an answer goes out now, or is put off.
    pub(super) fn send_next(&mut self, item: Box<Item>) -> Option<Do> {
        let stepped = Stepping {
            traffic: &mut self.traffic,
            is_ebbing: &mut self.is_ebbing,
            is_coming: false,
        }
        .send_next(item);
        match stepped {
            Stepped::Exchange(item, todo) => {
                self.exchange = Some(Exchange { item, temp: None });
                Some(todo)
            }
            Stepped::Over(todo) => {
                self.is_peeking |= matches!(todo, Some(Do::Peek(_)));
                todo
            }
            Stepped::Wait(item, _) | Stepped::Drain(item) => {
                self.traffic.backlog.put_off(item);
                None
            }
        }
    }

    pub(super) fn replied(&mut self, at: usize, answer: Result<i64, String>) -> Result<()> {
        if matches!(self.phase, Phase::Counting { .. }) {
            count_reply(&mut self.traffic, at, answer);
            return Ok(());
        }
        self.traffic.replied(at, answer)?;
        if self.is_peeking {
            // While answers are at hand and records wait for a database.
            match self.traffic.fleet.lane(at).flight.moving_to() {
                Some(_) => self.traffic.errands.push_back(Do::Peek(at)),
                None => self.is_peeking = false,
            }
        }
        Ok(())
    }

    /// The answer that is due first is none that there can be: a new connection tells what became
    /// of the key. Where that happens again and again the key is refused.
    pub(super) fn read_failed(&mut self, at: usize, error: ServerError) -> Result<()> {
        if let Phase::Counting { at, .. } = self.phase {
            // Which answer belongs to what is not known any more: what is in flight stays there.
            self.count_next_lane(at + 1);
            return Ok(());
        }
        let traffic = &mut self.traffic;
        if matches!(error, ServerError::Protocol { .. }) {
            let first = traffic.fleet.lane_mut(at).flight.first_mut();
            if first.is_some_and(|item| item.past.note_odd_answer())
                && let Some(InFlight::Record(item)) = traffic.take_sent(at)
            {
                traffic.refuse_misunderstood(item, &error);
            }
            return traffic.lose_confused_lane(at, error);
        }
        traffic.lose_lane(at, error)
    }

    /// The commands of a value are queued, or it has to be written alone.
    pub(super) fn queued(
        &mut self,
        at: usize,
        ticket: Result<Option<Box<Ticket>>, ServerError>,
    ) -> Result<()> {
        let Some(Exchange { mut item, .. }) = self.exchange.take() else {
            return Ok(());
        };
        let traffic = &mut self.traffic;
        match ticket {
            Ok(Some(ticket)) => {
                traffic.backlog.note_open(item.print);
                let value = InFlight::Value(item, ticket);
                traffic.fleet.lane_mut(at).flight.push(value);
            }
            Ok(None) => {
                item.stage = Stage::Alone;
                item.place.at = at;
                match self.hand.is_none() {
                    true => self.hand = Some(item),
                    false => traffic.backlog.put_off(item),
                }
            }
            // How much of its commands went out is not known, and no answer will tell.
            Err(error) => {
                traffic.lose_record(item, None);
                traffic.send_failed(at, error)?;
            }
        }
        Ok(())
    }

    /// A value was written with nothing else in flight.
    pub(super) fn wrote(
        &mut self,
        at: usize,
        written: Result<(Written, CommandLosses), CommandError>,
        left: Left,
    ) -> Result<()> {
        let Some(Exchange { mut item, .. }) = self.exchange.take() else {
            return Ok(());
        };
        let traffic = &mut self.traffic;
        if let Some(temp) = left {
            traffic.clean_up(item.record.db, temp);
        }
        item.stage = Stage::Place;
        let lost = match written {
            Err(CommandError::Connection(lost)) => lost,
            written => {
                let then = traffic.outcome(at).written(item, written)?;
                return traffic.conclude(at, then);
            }
        };
        // The connection was lost while it was written: was it for an element?
        item.past.strikes = item.past.strikes.saturating_add(1);
        let value = item.record.value.bytes();
        let kind = crate::payload::kind(item.context.family, value);
        // A string goes in pieces.
        if kind != crate::payload::Kind::String {
            let largest = largest_argument(item.context.family, value);
            let takes = &mut traffic.fleet.lane_mut(at).takes;
            takes.suspect_element(largest, item.past.strikes, &lost);
        }
        self.lose_exchanged(at, item, lost)
    }

    /// Replies of a value that native commands write were read.
    pub(super) fn value_said(
        &mut self,
        at: usize,
        said: Result<commands::Answer, CommandError>,
        left: Left,
    ) -> Result<()> {
        let Some(Exchange { item, temp }) = self.exchange.take() else {
            return Ok(());
        };
        let traffic = &mut self.traffic;
        let written = match said {
            Ok(commands::Answer::Again(ticket)) => {
                let value = InFlight::Value(item, Box::new(ticket));
                traffic.fleet.lane_mut(at).flight.push(value);
                return Ok(());
            }
            Ok(commands::Answer::Written(written, losses)) => Ok((written, losses)),
            Err(CommandError::Connection(lost)) => {
                if let Some(temp) = temp {
                    traffic.clean_up(item.record.db, temp);
                }
                return self.lose_exchanged(at, item, lost);
            }
            Err(error) => {
                if let Some(temp) = left {
                    traffic.clean_up(item.record.db, temp);
                }
                Err(error)
            }
        };
        traffic.backlog.note_answered(item.print);
        let then = traffic.outcome(at).written(item, written)?;
        traffic.conclude(at, then)
    }

    /// The connection was lost, or is not understood, while this was written.
    fn lose_exchanged(&mut self, at: usize, mut item: Box<Item>, lost: ServerError) -> Result<()> {
        let traffic = &mut self.traffic;
        if matches!(lost, ServerError::Protocol { .. }) && item.past.note_odd_answer() {
            traffic.backlog.note_answered(item.print);
            traffic.refuse_misunderstood(item, &lost);
        } else {
            traffic.lose_record(item, None);
        }
        if let Phase::Counting { at, .. } = self.phase {
            self.count_next_lane(at + 1);
            return Ok(());
        }
        self.traffic.lose_confused_lane(at, lost)
    }

    /// A question was answered, about the record in hand or a library.
    pub(super) fn answered(
        &mut self,
        at: usize,
        answer: Result<Answer, ServerError>,
    ) -> Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(lost) if self.libraries.is_some() && self.hand.is_none() => {
                return self.library_lost(at, lost);
            }
            Err(lost) => return self.traffic.lose_lane(at, lost),
        };
        let takes = &mut self.traffic.fleet.lane_mut(at).takes;
        match answer {
            Answer::Limits { limits, is_known } => takes.set_limits(limits, is_known),
            Answer::Target(target) => {
                takes.target = Some(*target);
                return self.look_out(at);
            }
            Answer::Features { features, limits } => {
                if let Some((limits, is_known)) = limits {
                    takes.set_limits(limits, is_known);
                }
                takes.features = Some(features);
            }
            Answer::OddTransaction(lost) => {
                takes.odd_transactions = takes.odd_transactions.saturating_add(1);
                return self.traffic.lose_lane(at, lost);
            }
            Answer::Rights(rights) => self.traffic.ways.set_rights(rights),
            Answer::Classes => {
                if let Some(item) = self.item_mut() {
                    item.stage = match item.stage {
                        Stage::Refit => Stage::PrepareAnew,
                        _ => Stage::Prepare,
                    };
                }
            }
            Answer::Graph(stands) => self.graph_said(stands),
            Answer::Offered(refused) => return self.offered(at, refused),
            Answer::Native(refused) => return self.native_said(at, refused),
            Answer::Library { fate, is_unkept } => {
                let kept = &mut self.traffic.fleet.lane_mut(at).kept;
                kept.note_unkept(is_unkept);
                return self.library_put(at, fate);
            }
        }
        Ok(())
    }

    /// The record that a question was about.
    fn item_mut(&mut self) -> Option<&mut Item> {
        self.hand.as_deref_mut().or(self.coming.as_deref_mut())
    }

    fn take_item(&mut self) -> Option<Box<Item>> {
        self.hand.take().or_else(|| self.coming.take())
    }

    /// What a node accepts was learnt: whether it takes anything.
    fn look_out(&mut self, at: usize) -> Result<()> {
        let item = self.hand.as_ref().or(self.coming.as_ref());
        if item.is_some_and(|item| item.stage != Stage::Learn) {
            return Ok(());
        }
        let is_record = item.is_some();
        let is_cluster = self.traffic.fleet.is_cluster();
        let title = self.traffic.fleet.lane(0).facts.title();
        let looked = self.traffic.intake(at).look_out(is_cluster, &title);
        if looked.is_err() && is_record {
            self.traffic.ledger.records().refused += 1;
        }
        looked
    }

    fn graph_said(&mut self, stands: Result<bool, String>) {
        let Some(mut item) = self.take_item() else {
            return;
        };
        let (reason, hint) = match stands {
            Ok(false) => {
                self.traffic.ways.note_graph(&item);
                item.stage = Stage::Ready;
                self.hand = Some(item);
                return;
            }
            Ok(true) => (
                "a graph of that name exists in another database of the destination, and the \
                 module would load this one into it"
                    .to_owned(),
                Some("delete that graph first, or import into another server".to_owned()),
            ),
            Err(why) => unseen_graph(&why),
        };
        self.traffic.ledger.refuse(item, reason, hint);
    }

    /// Dry run: whether the destination takes a value that cannot be read here.
    fn offered(&mut self, at: usize, refused: Option<String>) -> Result<()> {
        let Some(text) = refused else {
            if let Some(item) = self.item_mut() {
                item.stage = Stage::Rights(crate::sink::server::foresee::Way::Restore);
            }
            return Ok(());
        };
        let Some(item) = self.take_item() else {
            return Ok(());
        };
        let then = self.traffic.outcome(at).refused(item, text)?;
        self.traffic.conclude(at, then)
    }

    /// Dry run: whether native commands may be used.
    fn native_said(&mut self, at: usize, refused: Option<(String, String)>) -> Result<()> {
        if let Some(item) = self.item_mut() {
            item.stage = Stage::Check;
        }
        let Some((command, reason)) = refused else {
            return Ok(());
        };
        let lane = self.traffic.fleet.lane(at);
        let refused = anyhow::Error::new(lane.refused(&command, reason.clone()));
        let method = self.traffic.settings.options.method;
        Err(match Outlook::of(&reason, method) {
            Outlook::Nothing(advice) if !is_forbidden(&reason) => refused.context(advice),
            _ => refused,
        })
    }

    pub(super) fn sentinels_said(&mut self, at: usize, standing: Option<Standing>) -> Result<()> {
        let now = self.traffic.now.at;
        if let Some(closing) = &mut self.closing {
            let ledger = &mut self.traffic.ledger;
            if closing.sentinels_said(at, standing.as_ref(), now, ledger) {
                let rest = self.traffic.rest();
                self.traffic.errands.push_back(rest);
                return Ok(());
            }
        }
        self.traffic.heed_sentinels(at, standing)
    }

    /// What libraries need next.
    pub(super) fn library_step(&mut self) -> Result<Worked> {
        let Some(libraries) = &mut self.libraries else {
            return Ok(Worked::Nothing);
        };
        let traffic = &mut self.traffic;
        let need = libraries.need(
            &traffic.fleet,
            &mut traffic.databases,
            &traffic.settings,
            &mut traffic.ledger,
        );
        #[cfg(test)]
        super::tests::mark(&need);
        Ok(Worked::Do(match need {
            libraries::Need::Nothing => {
                let done = self.libraries.take();
                let overwritten = done.map(Libraries::into_overwritten).unwrap_or_default();
                self.traffic.ways.set_overwritten(overwritten);
                return Ok(Worked::Again);
            }
            libraries::Need::Connection(_) if traffic.backlog.is_paused() => {
                libraries.begin_again();
                traffic.rest()
            }
            libraries::Need::Connection(at) => traffic.connect(at)?,
            libraries::Need::Quiet(at) => {
                return Ok(self.read_due(at).map_or(Worked::Again, Worked::Do));
            }
            libraries::Need::Database(at, db) => Do::Select(at, db),
            libraries::Need::Target(at) => Do::Ask(at, Query::Target),
            libraries::Need::Put(at) => Do::Ask(at, Query::Library),
        }))
    }

    /// A library was given to a node.
    fn library_put(&mut self, at: usize, fate: crate::sink::server::functions::Fate) -> Result<()> {
        let Some(libraries) = &mut self.libraries else {
            return Ok(());
        };
        if let Err(text) = libraries.answered(at, fate, &self.traffic.fleet) {
            libraries.begin_again();
            self.traffic.fleet.doubt(None);
            self.traffic.wait_for(&text)?;
            let rest = self.traffic.rest();
            self.traffic.errands.push_back(rest);
        }
        Ok(())
    }

    /// A connection was lost over a library.
    fn library_lost(&mut self, at: usize, lost: ServerError) -> Result<()> {
        if let Some(libraries) = &mut self.libraries {
            libraries.begin_again();
        }
        self.traffic.lose_confused_lane(at, lost)?;
        let rest = self.traffic.rest();
        self.traffic.errands.push_back(rest);
        Ok(())
    }

    pub(super) fn evicted(
        &mut self,
        at: usize,
        count: Result<Option<u64>, ServerError>,
    ) -> Result<()> {
        let Some(closing) = &mut self.closing else {
            return Ok(());
        };
        let lost = closing.evicted(at, count, &self.traffic.fleet)?;
        self.lost_at_the_end(at, lost)
    }

    pub(super) fn upheaved(
        &mut self,
        at: usize,
        count: Result<closing::Upheavals, ServerError>,
    ) -> Result<()> {
        let Some(closing) = &mut self.closing else {
            return Ok(());
        };
        let lost = closing.upheaved(at, count, &self.traffic.fleet)?;
        self.lost_at_the_end(at, lost)
    }

    /// A connection was lost when all had been written: who answers there now is looked at, and gets
    /// what it lacks.
    fn lost_at_the_end(&mut self, at: usize, lost: Option<ServerError>) -> Result<()> {
        if let Some(lost) = lost {
            self.traffic.lose_lane(at, lost)?;
            let rest = self.traffic.rest();
            self.traffic.errands.push_back(rest);
        }
        Ok(())
    }

    pub(super) fn untold(&mut self) {
        if let Some(judging) = self.closing.as_mut().and_then(Closing::judging) {
            judging.name_no_more();
        }
    }

    /// The run failed: what is in flight is read, only to count it.
    pub(super) fn give_up(&mut self) {
        self.libraries = None;
        self.closing = None;
        self.drain = Drain::Off;
        self.traffic.errands.clear();
        let hand = self.hand.take();
        let coming = self.coming.take().filter(|item| item.stage >= Stage::Place);
        let exchanged = self.exchange.take().map(|exchange| exchange.item);
        for item in hand.into_iter().chain(coming).chain(exchanged) {
            self.traffic.backlog.put_off(item);
        }
        self.count_next_lane(0);
    }

    fn count_next_lane(&mut self, at: usize) {
        self.phase = Phase::Counting { at, flushed: false };
    }

    /// Reads what is still due on a lane, only to count what was applied.
    pub(super) fn count_lane(&mut self, at: usize, flushed: bool) -> Option<Do> {
        #[cfg(test)]
        super::tests::mark(&self.phase);
        let lanes = self.traffic.fleet.lanes_mut();
        let Some(lane) = lanes.get_mut(at) else {
            self.phase = Phase::Sweeping;
            return Some(Do::Sweep(count_open(&mut self.traffic)));
        };
        if !flushed {
            // These had not gone out, and will not.
            if let Some((_, held)) = lane.flight.end_move() {
                held.into_iter()
                    .for_each(|item| self.traffic.backlog.put_off(item));
            }
            self.phase = Phase::Counting { at, flushed: true };
            return self.traffic.fleet.lane(at).is_up().then_some(Do::Flush);
        }
        let todo = match lane.is_up() {
            true => self.read_due(at),
            false => None,
        };
        if todo.is_none() {
            self.count_next_lane(at + 1);
        }
        todo
    }

    /// Temporary keys were removed: the run is closed.
    pub(super) fn swept(&mut self, left: Vec<(u32, Vec<u8>, String)>) {
        for (db, temp, why) in left {
            self.traffic.ledger.leave_behind(db, &temp, &why);
        }
        let judging = self.traffic.memory.begin_judging().ok();
        self.closing = Some(Closing::after_failure(judging));
        self.phase = Phase::Failed;
    }

    /// The whole report.
    pub fn into_report(mut self) -> SinkReport {
        let repeats = self.traffic.settings.options.repeats;
        let report = self.traffic.ledger.report();
        if repeats == Repeats::No {
            report.doubts.left_standing = report.records.skipped + report.records.conflicts;
        }
        report.doubts.memory_lost = self.traffic.trouble.has_lost_memory();
        self.traffic.ledger.close()
    }
}
