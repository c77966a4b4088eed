//! Connections: how they are made, whom they lead to, and what becomes of what was in flight when one
//! is lost.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;

use super::fleet::{NodeSaid, Way};
use super::item::{InFlight, Item, Task};
use super::lane::{Introduction, Link, Met};
use super::ledger::Say;
use super::routes::{Before, Refresh};
use super::traffic::Traffic;
use super::work::Do;
use crate::server::ServerError;
use crate::server::cluster::Topology;
use crate::server::conn::asks_for_patience;
use crate::server::sentinel::Standing;
use crate::sink::server::refusal::is_about_database;
use crate::units::{bytes_text, plural};

/// The wait before what was put off is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a record gets to its lane.
pub(super) enum Reach {
    /// It is connected.
    There(usize),
    /// It is not, and this is to be done about it.
    First(Do),
}

impl Traffic {
    /// The lane that a key goes to, connected.
    ///
    /// # Errors
    /// When there has been none for too long.
    pub fn reach(&mut self, item: &Item) -> Result<Reach> {
        match self.fleet.way(&item.record.key, item.place.ask_to) {
            Way::Lane(at) if self.fleet.lane(at).is_up() => Ok(Reach::There(at)),
            _ if self.backlog.is_paused() => Ok(Reach::First(self.rest())),
            Way::Lane(at) => Ok(Reach::First(self.connect(at)?)),
            Way::Unserved(slot) => {
                self.fleet.doubt(None);
                self.wait_for(&format!("no node of the cluster serves slot {slot}"))?;
                Ok(Reach::First(self.rest()))
            }
        }
    }

    /// Waits a little, and finds out who serves what if that is in doubt.
    pub fn rest(&mut self) -> Do {
        self.backlog.end_pause();
        self.fleet.begin_refresh();
        Do::Wait(PAUSE)
    }

    /// What is to be done before it is known who serves what; `None` where it is.
    pub fn refresh(&mut self) -> Option<Do> {
        match self.fleet.refresh(self.now.at) {
            Refresh::Nothing => {
                self.fleet.end_refresh();
                None
            }
            Refresh::Wait(time) => Some(Do::Wait(time)),
            Refresh::Ask(candidates) => Some(Do::AskTopology(candidates)),
        }
    }

    /// A node of the cluster said who serves what, or none did.
    ///
    /// # Errors
    /// When none has said so for too long.
    pub fn topology(&mut self, topology: Option<Topology>) -> Result<()> {
        self.fleet.note_asked(self.now.at);
        self.fleet.end_refresh();
        let Some(topology) = topology else {
            let waited = self.wait_for("no node of the cluster says which node serves which slot");
            return waited.map_err(|error| error.context("asking the cluster for its slots"));
        };
        let Some(before) = self.fleet.renew(topology) else {
            return Ok(());
        };
        let asked = self.fleet.witnesses_of(&before);
        if asked.is_empty() {
            self.leave_lanes(&before, &[]);
        } else {
            self.fleet.leave(before);
            self.errands
                .push_back(Do::AskNodes(asked.into_iter().collect()));
        }
        Ok(())
    }

    /// The nodes whose slots went elsewhere, and those that have them now, say what they are.
    pub fn nodes_said(&mut self, said: &[NodeSaid]) {
        if let Some(before) = self.fleet.left() {
            self.leave_lanes(&before, said);
        }
    }

    /// What was acknowledged by nodes that serve no slot any more follows its slots: to the nodes
    /// that they were given to, or once more to the one that took over. Where some of it may be
    /// gone, that is told.
    fn leave_lanes(&mut self, before: &Before, said: &[NodeSaid]) {
        let unsure = self.fleet.unsure(before, said);
        for (from, to) in self.fleet.strayed(before, said) {
            self.follow_strayed((from, to), before);
        }
        self.fleet.inherit(before, &unsure);
        for at in 0..self.fleet.lanes().len() {
            if self.fleet.is_primary(at) {
                continue;
            }
            let is_unsure = unsure.contains(&at);
            if !is_unsure {
                self.fleet.lane_mut(at).kept.hand_over();
            }
            self.recall(at);
            // Behind ASK it still has what it acknowledged.
            if is_unsure || before.shard_at(at).is_some() {
                let was_unkept = self.fleet.lane_mut(at).kept.forget_unkept();
                if was_unkept && is_unsure {
                    self.acknowledged_is_gone(at);
                }
            }
        }
        self.fleet.follow_kept();
    }

    /// Slots went to a node that may lack the keys: what is at hand is sent there once more, and of
    /// the rest it is told.
    fn follow_strayed(&mut self, (from, to): (usize, usize), before: &Before) {
        let has_let_go = self.fleet.lane(from).kept.has_let_go();
        let moved = self.fleet.take_moved((from, to), before);
        self.check_again(from, moved);
        if has_let_go {
            let why = format!(
                "slots of {} are at {} now, which took over from another node or was started anew, \
                 and nobody says that it has their keys",
                self.fleet.lane(from).address(),
                self.fleet.lane(to).address()
            );
            self.trouble.lose_memory(
                why,
                "they may be missing; run the same command again, which writes what is missing",
                &mut self.ledger,
            );
        }
    }

    /// Another node has taken over from a lane's, or its process was started anew: what is not
    /// known to have reached it is sent again.
    fn recall(&mut self, at: usize) {
        let (kept, dropped) = self.fleet.lane_mut(at).kept.take();
        let address = self.fleet.lane(at).address();
        if dropped > 0 {
            let why = format!(
                "{address} is no longer the primary, and no replica had confirmed the last {} that \
                 it acknowledged",
                plural(dropped, "key")
            );
            self.trouble.lose_memory(
                why,
                "they may be missing; run the same command again, which writes what is missing",
                &mut self.ledger,
            );
        }
        self.check_again(at, kept);
    }

    /// What a lane acknowledged is sent once more to whoever has its slots now.
    fn check_again(&mut self, at: usize, kept: VecDeque<Box<Item>>) {
        if !kept.is_empty() {
            self.ledger.notice(format!(
                "{} was restarted, or no longer serves all of its slots; what it acknowledged last \
                 ({}) is checked again where its slots are now",
                self.fleet.lane(at).address(),
                plural(kept.len() as u64, "key")
            ));
        }
        for item in kept {
            // Where ASK leads, a later record of the same key may be on its way already.
            let lanes = self.fleet.lanes().iter();
            let mut in_flight = lanes.flat_map(|lane| lane.flight.sent());
            if in_flight.any(|other| other.print == item.print) {
                continue;
            }
            // Not only before what comes later: whatever becomes of that, this one was acknowledged.
            self.backlog.recall(item);
        }
    }

    /// What was acknowledged there may not stand any more, and is not at hand.
    fn acknowledged_is_gone(&mut self, at: usize) {
        let why = format!(
            "{} was restarted or replaced during this run",
            self.fleet.lane(at).address()
        );
        self.trouble.lose_memory(
            why,
            "what it had acknowledged before and not saved is gone; run the same command again, \
             which writes what is missing",
            &mut self.ledger,
        );
    }

    /// How a lane gets its connection.
    ///
    /// # Errors
    /// Where no more may be tried.
    pub fn connect(&mut self, at: usize) -> Result<Do> {
        let is_cluster = self.fleet.is_cluster();
        // The clock's last digits are chance enough here.
        let random = self.now.unix_ms;
        let lane = self.fleet.lane_mut(at);
        let retries = lane.to().retries;
        let closed = lane.lost("restoring keys", "the server closed the connection");
        let Link::Down {
            why, last, was_up, ..
        } = &mut lane.link
        else {
            return Ok(Do::Wait(Duration::ZERO));
        };
        let was_up = std::mem::take(was_up);
        if is_cluster {
            if retries == 0
                && let Some(why) = why.take()
            {
                return Err(why.into());
            }
            // Patience bounds how long a node may be unreachable. One that lets itself be connected
            // to, and hangs up before anything is written, would be connected to for ever.
            if !was_up {
                return Ok(Do::Connect(at, Duration::ZERO));
            }
            let lost = why.take().unwrap_or(closed);
            let Some(after) = lane.retries.after(&lost, random) else {
                return Err(lost.into());
            };
            *why = Some(lost);
            return Ok(Do::Connect(at, after));
        }
        let error = last.as_ref().unwrap_or(&closed);
        if let Some(after) = lane.retries.after(error, random) {
            return Ok(Do::Connect(at, after));
        }
        let (lost, last) = (why.take().unwrap_or(closed), last.take());
        Err(match last {
            // The code for "cannot connect" is for a run that did not begin.
            Some(ServerError::Connect { reason, .. }) => {
                anyhow::Error::new(lost).context(format!("connecting again failed: {reason}"))
            }
            None | Some(ServerError::Lost { .. }) => lost.into(),
            Some(error) => error.into(),
        })
    }

    /// There is no connection after a try; `was_open`: there was, and it was lost at once.
    ///
    /// # Errors
    /// Where no more is to be tried.
    pub fn not_connected(&mut self, at: usize, error: ServerError, was_open: bool) -> Result<()> {
        let is_cluster = self.fleet.is_cluster();
        if !error.is_passing() && (is_cluster || was_open) {
            return Err(error.into());
        }
        let lane = self.fleet.lane_mut(at);
        if let Link::Down { why, last, .. } = &mut lane.link {
            match was_open {
                true => {
                    *last = None;
                    why.get_or_insert(error);
                }
                false => {
                    lane.retries.failed(&error);
                    *last = Some(error);
                }
            }
        }
        if !is_cluster {
            return Ok(());
        }
        let why = match was_open {
            true => format!("{} hangs up", self.fleet.lane(at).address()),
            false => match &self.fleet.lane(at).link {
                Link::Down {
                    last: Some(last), ..
                } => last.to_string(),
                _ => String::new(),
            },
        };
        self.fleet.doubt(None);
        self.wait_for(&why)
    }

    /// A connection is there: says what was lost and who answers now.
    pub fn met(&mut self, at: usize, introduction: Introduction) {
        let met = introduction.met;
        #[cfg(test)]
        super::tests::mark(&met);
        let lane = self.fleet.lane_mut(at);
        let former = std::mem::replace(&mut lane.link, Link::Up);
        lane.introduce(introduction);
        if let Link::Down { why: Some(why), .. } = former {
            let is_uncounted = |item: &&Item| item.past.counted.is_none();
            let waiting = self.backlog.put_off_items().filter(is_uncounted).count();
            self.ledger.notice_loss(|| {
                format!(
                    "{why}; reconnected, {} sent again",
                    plural(waiting as u64, "record")
                )
            });
        }
        if met == Met::Unknown {
            self.trouble.note_unknown();
            // A single server is watched by a connection that tells.
            if self.fleet.is_cluster() && self.fleet.lane(at).kept.is_relied_on() {
                let why = "a node of the destination was reconnected to, and does not say \
                           whether it is still the same process (INFO run_id)";
                self.ledger.say(Say::Lost(why.to_owned(), None));
            }
        }
        // It took over from another before it was ever spoken to.
        let has_inherited = met == Met::First && self.fleet.lane(at).kept.is_relied_on();
        let has_begun_since = self.fleet.may_have_begun_since(at, self.now.unix_ms);
        if has_inherited && has_begun_since {
            self.acknowledged_is_gone(at);
        }
        if matches!(met, Met::Other | Met::Successor) {
            // What a replica confirmed is at the one that took over, and the rest is sent again.
            let kept = &self.fleet.lane(at).kept;
            let may_miss = match met {
                Met::Successor => kept.has_unkept() || has_begun_since && kept.has_let_go(),
                _ => kept.is_relied_on(),
            };
            self.recall(at);
            if may_miss {
                self.acknowledged_is_gone(at);
            }
            self.fleet.lane_mut(at).kept.begin_anew();
        }
        // What a replica may have is given to it first, and then the run ends.
        if !self.fleet.may_move(at) {
            self.trouble.look_for_halt();
        }
    }

    /// A lane's connection is gone: what was in flight on it is to be sent again.
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub fn lose_lane(&mut self, at: usize, error: ServerError) -> Result<()> {
        if !error.is_passing() {
            return Err(error.into());
        }
        self.suspect_size(at, &error);
        let lane = self.fleet.lane_mut(at);
        let (sent, held) = lane.flight.take();
        let has_writes = sent
            .iter()
            .filter_map(InFlight::item)
            .any(|item| item.task.writes());
        lane.kept.on_new_connection();
        lane.database = None;
        match &mut lane.link {
            Link::Down {
                why, left_writes, ..
            } => {
                why.get_or_insert(error);
                *left_writes |= has_writes;
            }
            Link::Up | Link::Dying(_) => {
                lane.link = Link::Down {
                    why: Some(error),
                    last: None,
                    left_writes: has_writes,
                    was_up: true,
                };
                self.trouble.note_lost_connection();
                self.errands.push_front(Do::Drop(at));
            }
        }
        for sent in sent {
            self.lose(sent);
        }
        // These had not gone out.
        for mut item in held {
            item.place.ask_to = None;
            self.backlog.put_off(item);
        }
        self.fleet.doubt(None);
        #[cfg(test)]
        super::tests::mark(&self.fleet.lane(at).link);
        Ok(())
    }

    /// As [`Self::lose_lane`], also after an answer that is not understood: which answer the next one
    /// belongs to is not known then, and only a new connection is sure to be in step.
    ///
    /// # Errors
    /// As there.
    pub fn lose_confused_lane(&mut self, at: usize, error: ServerError) -> Result<()> {
        let error = match error {
            ServerError::Protocol {
                address,
                doing,
                reason,
            } => ServerError::Lost {
                address,
                doing,
                reason: format!("it gave an answer that is not understood: {reason}"),
            },
            error => error,
        };
        self.lose_lane(at, error)
    }

    /// It was in flight.
    fn lose(&mut self, sent: InFlight) {
        match sent {
            InFlight::Asking | InFlight::Cleared | InFlight::Select | InFlight::Wait => {}
            InFlight::Record(item) => self.lose_record(item, None),
            InFlight::Value(item, ticket) => {
                let temp = ticket.temp().map(<[u8]>::to_vec);
                self.lose_record(item, temp);
            }
        }
    }

    /// A record was on its way; `temp`: the temporary key that it may have left.
    pub fn lose_record(&mut self, mut item: Box<Item>, temp: Option<Vec<u8>>) {
        if matches!(item.task, Task::Restore { .. } | Task::Delete { .. }) {
            item.past.is_doubtful = true;
        }
        if let Some(temp) = temp {
            self.clean_up(item.record.db, temp);
        }
        item.place.ask_to = None;
        self.trouble.note_lost_record();
        self.backlog.put_off(item);
    }

    /// The connection was lost: was it for the size of what is the first without an answer?
    fn suspect_size(&mut self, at: usize, error: &ServerError) {
        let lane = self.fleet.lane_mut(at);
        let Some(InFlight::Record(first)) = lane.flight.first() else {
            return;
        };
        let bytes = first.bytes as u64;
        if first.is_restored()
            && let Some(max_bytes) = lane.takes.suspect_size(bytes, error)
        {
            self.ledger.notice(format!(
                "the destination closed the connection at a value of {}, and does not say how \
                 large a value may be: from now on, values of more than {} are written by native \
                 commands",
                bytes_text(bytes),
                bytes_text(max_bytes)
            ));
        }
    }

    /// Sentinels that put another primary in the place of one that lives leave that taking writes for
    /// seconds, and all of these are lost. Where they name another one this lane's connection is given
    /// up, and whoever takes over is given what no replica had.
    ///
    /// # Errors
    /// What ends the run.
    pub fn heed_sentinels(&mut self, at: usize, standing: Option<Standing>) -> Result<()> {
        let lane = self.fleet.lane_mut(at);
        match standing {
            Some(Standing::Replaced(by)) => {
                lane.kept.named_another();
                let lost = lane.lost(
                    "restoring keys",
                    format!("the sentinels name another primary now, {by} (a failover)"),
                );
                self.lose_lane(at, lost)
            }
            Some(Standing::Named) => {
                lane.kept.still_named();
                Ok(())
            }
            // They are asked again.
            Some(Standing::Disputed(_) | Standing::Unknown(_)) | None => Ok(()),
        }
    }

    /// A connection takes no more bytes: what it said before is still read.
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub fn send_failed(&mut self, at: usize, error: ServerError) -> Result<()> {
        if !error.is_passing() {
            return Err(error.into());
        }
        let lane = self.fleet.lane_mut(at);
        if lane.is_up() {
            lane.link = Link::Dying(error);
            #[cfg(test)]
            super::tests::mark(&lane.link);
        }
        Ok(())
    }

    /// All that a connection which takes no more bytes has said was read.
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub fn bury(&mut self, at: usize) -> Result<()> {
        match std::mem::replace(&mut self.fleet.lane_mut(at).link, Link::Up) {
            Link::Dying(error) => self.lose_lane(at, error),
            link => {
                self.fleet.lane_mut(at).link = link;
                Ok(())
            }
        }
    }

    /// The answer to SELECT with nothing else in flight.
    ///
    /// # Errors
    /// What ends the run.
    pub fn selected(
        &mut self,
        at: usize,
        db: u32,
        answer: Result<Result<(), String>, ServerError>,
    ) -> Result<()> {
        let lane = self.fleet.lane_mut(at);
        match answer {
            Ok(Ok(())) => {
                lane.database = Some(db);
                self.databases.entered(db);
                Ok(())
            }
            Ok(Err(text)) => {
                // An error is no proof that it is where it was.
                lane.database = None;
                self.not_selected(at, db, text)
            }
            Err(error) => {
                let may_try = lane.to().retries > 0;
                let is_over = self.databases.note_loss(db);
                let reason = error.to_string();
                self.lose_confused_lane(at, error)?;
                if is_over && may_try {
                    self.databases.close(db, reason, &mut self.ledger);
                }
                Ok(())
            }
        }
    }

    /// An error reply to SELECT.
    fn not_selected(&mut self, at: usize, db: u32, text: String) -> Result<()> {
        let lane = self.fleet.lane_mut(at);
        if asks_for_patience(&text) {
            return Err(anyhow::Error::new(lane.refusal("SELECT", text))
                .context("the destination answered SELECT with \"not now\" for too long"));
        }
        if text.starts_with("NOAUTH") && !self.databases.note_loss(db) {
            let lost = lane.lost("selecting a database", text);
            return self.lose_lane(at, lost);
        }
        if db == 0 && !is_about_database(&text) {
            // Every connection begins there, also where SELECT is not to be had.
            lane.kept.on_new_connection();
            lane.link = Link::Down {
                why: None,
                last: None,
                left_writes: false,
                // It is given up on purpose, and once.
                was_up: false,
            };
            self.errands.push_front(Do::Drop(at));
            return Ok(());
        }
        self.databases.close(db, text, &mut self.ledger);
        Ok(())
    }

    /// Something that goes before anything else, if it is still to be done.
    pub fn run_errand(&mut self, errand: Do) -> Option<Do> {
        match errand {
            Do::SendWait(at, patience_ms) => {
                let lane = self.fleet.lane_mut(at);
                if !lane.is_up() {
                    return None;
                }
                lane.kept.asked();
                lane.flight.push(InFlight::Wait);
                Some(Do::SendWait(at, patience_ms))
            }
            Do::AskSentinels(at) => self.fleet.lane(at).is_up().then_some(errand),
            Do::Peek(at) => {
                let is_moving = self.fleet.lane(at).flight.moving_to().is_some();
                is_moving.then_some(errand)
            }
            errand => Some(errand),
        }
    }
}
