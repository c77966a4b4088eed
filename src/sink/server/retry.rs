//! What is to be sent again: because a connection was lost before the answer came, because another
//! node has the slot by now, or because the destination asked for patience.
//!
//! Between two connections nobody knows whether a write was carried out. Under `--on-conflict
//! replace` it is simply done again. Else it is done again in the hope that it was not, and where
//! the key then stands it is compared with what was sent: equal is ours.

use std::time::Duration;

use anyhow::Result;

use super::gate::Gate;
use super::held::Repeats;
use super::lane::Met;
use super::{Action, Sent, ServerSink};
use crate::exit::Interrupted;
use crate::host;
use crate::server::cluster::Redirect;
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};
use crate::units::plural;

/// The wait before what was put off is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// How often connections were lost, and what that cost.
#[derive(Default)]
pub(super) struct Losses {
    times: u64,
    records: u64,
    /// The first of them was told of.
    told: bool,
    /// A reconnection to somebody who does not say who it is.
    unknown: bool,
}

impl ServerSink {
    /// Puts a record off.
    pub(super) fn put_again(&mut self, sent: Sent) {
        self.prints.insert(sent.print);
        self.again.push_back(sent);
    }

    /// A lane's connection is gone: what was in flight on it is to be sent again.
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub(super) fn lost(&mut self, at: usize, error: ServerError) -> Result<()> {
        if !error.is_passing() {
            return Err(error.into());
        }
        self.suspect_size(at, &error);
        let lane = &mut self.lanes[at];
        if lane.conn.take().is_some() {
            lane.times_lost += 1;
            self.losses.times += 1;
        }
        if lane.why.is_none() {
            lane.why = Some(error);
        }
        lane.unconfirmed.is_on_new_connection();
        lane.sent_bytes = 0;
        let sent = std::mem::take(&mut lane.sent);
        lane.left_writes |= sent.iter().any(|sent| sent.action.writes());
        let held = lane.next.take().map(|next| next.held);
        for sent in sent {
            self.lose(sent);
        }
        // These had not gone out.
        for mut sent in held.into_iter().flatten() {
            sent.ask_to = None;
            self.put_again(sent);
        }
        self.is_stale();
        Ok(())
    }

    /// As [`Self::lost`], also after an answer that is not understood: which answer the next one
    /// belongs to is not known then, and only a new connection is sure to be in step.
    pub(super) fn lose_connection(&mut self, at: usize, error: ServerError) -> Result<()> {
        let error = match error {
            ServerError::Protocol {
                address,
                doing,
                reason,
            } => ServerError::Lost {
                address,
                doing,
                reason: format!("it answered what is not understood: {reason}"),
            },
            error => error,
        };
        self.lost(at, error)
    }

    /// It was in flight.
    pub(super) fn lose(&mut self, mut sent: Sent) {
        match sent.action {
            Action::Prelude(_) | Action::Select | Action::Wait => return,
            Action::Restore { .. } | Action::Delete { .. } => sent.is_doubtful = true,
            _ => {}
        }
        if let Some(Some(ticket)) = sent.by_commands.as_mut().map(Option::take)
            && let Some(temp) = ticket.temp()
        {
            self.clean_up(sent.record.db, temp.to_vec());
        }
        sent.ask_to = None;
        self.losses.records += 1;
        self.put_again(sent);
    }

    /// Reads all that a lane whose connection takes no more bytes has said before. A server that
    /// is sent more than it takes says so and hangs up.
    pub(super) fn read_last_words(&mut self, at: usize, error: ServerError) -> Result<()> {
        if !error.is_passing() {
            return Err(error.into());
        }
        let times_lost = self.lanes[at].times_lost;
        while self.lanes[at].conn.is_some() && !self.lanes[at].sent.is_empty() {
            self.read_one(at)?;
            // That was noticed meanwhile, and there may be a new connection.
            if self.lanes[at].times_lost != times_lost {
                return Ok(());
            }
        }
        self.lost(at, error)
    }

    /// Sends what was put off.
    pub(super) fn send_again(&mut self) -> Result<()> {
        if std::mem::take(&mut self.pause) {
            self.rest()?;
        } else {
            self.refresh_routes()?;
        }
        // Not more than there is now: what comes back waits for the next round.
        for _ in 0..self.again.len() {
            let Some(sent) = self.again.pop_front() else {
                break;
            };
            self.prints.remove(&sent.print);
            if self.is_refused_size(&sent) {
                self.take_by_commands(sent)?;
            } else {
                self.queue(sent)?;
            }
        }
        self.flush()
    }

    /// Waits a little, and finds out who serves what if that is in doubt.
    pub(super) fn rest(&mut self) -> Result<()> {
        self.pause = false;
        if self.stop.is_set() {
            return Err(Interrupted.into());
        }
        host::sleep(PAUSE);
        self.refresh_routes()
    }

    /// Nothing can be done just now, and `why`.
    ///
    /// # Errors
    /// When it has been so for too long.
    pub(super) fn wait_for(&mut self, why: &str) -> Result<()> {
        self.wait_at_most(why, Duration::MAX)
    }

    /// As [`Self::wait_for`], where there is a reason to wait for less.
    pub(super) fn wait_at_most(&mut self, why: &str, less: Duration) -> Result<()> {
        self.pause = true;
        if self.stop.is_set() {
            return Err(Interrupted.into());
        }
        if !self.patience.lasts_for(less) {
            anyhow::bail!("{why}, and nothing was written ({})", self.patience.told());
        }
        Ok(())
    }

    /// A node of a cluster answered that it is not the one, or not now.
    pub(super) fn redirected(
        &mut self,
        at: usize,
        mut sent: Sent,
        redirect: Redirect,
    ) -> Result<()> {
        sent.ask_to = None;
        let patient = self.redirect(at, &mut sent, redirect);
        self.put_again(sent);
        patient
    }

    fn redirect(&mut self, at: usize, sent: &mut Sent, redirect: Redirect) -> Result<()> {
        match redirect {
            Redirect::Moved { slot, mut to } => {
                if to.host.is_empty()
                    && let Some(announced) = &self.lanes[at].announced
                {
                    to.host.clone_from(&announced.host);
                }
                sent.turns = sent.turns.saturating_add(1);
                if sent.turns > 2 {
                    self.wait_for(&format!(
                        "slot {slot} is sent from node to node (the last word was {to})"
                    ))?;
                }
                if let Some(routes) = &mut self.routes {
                    routes.is_wrong(Some(to));
                }
            }
            // Of a value that is built under another name the two names would have to be there
            // for RENAME, which is TRYAGAIN until the slot has arrived (cluster.c, getNodeByQuery).
            Redirect::Ask { slot, .. } if sent.by_commands.is_some() => {
                self.wait_for(&format!("slot {slot} is on its way to another node"))?;
            }
            Redirect::Ask { slot, mut to } => {
                if to.host.is_empty()
                    && let Some(announced) = &self.lanes[at].announced
                {
                    to.host.clone_from(&announced.host);
                }
                sent.turns = sent.turns.saturating_add(1);
                if sent.turns > 2 {
                    self.wait_for(&format!("slot {slot} is on its way to another node"))?;
                }
                sent.ask_to = self.lane_at(&to);
            }
            Redirect::TryAgain | Redirect::Down => {
                let slot = slot_of(&sent.record.key);
                self.is_stale();
                self.wait_for(&format!("the cluster does not serve slot {slot}"))?;
            }
        }
        Ok(())
    }

    /// The lane that a key goes to, connected; `None` where there is none just now.
    pub(super) fn ready(&mut self, key: &[u8], ask_to: Option<usize>) -> Result<Option<usize>> {
        let at = match (&self.routes, ask_to) {
            (None, _) => 0,
            (Some(_), Some(at)) => at,
            (Some(routes), None) => {
                let slot = slot_of(key);
                match routes.lane_of(slot) {
                    Some(at) => at,
                    None => {
                        self.is_stale();
                        self.wait_for(&Self::unserved(slot))?;
                        return Ok(None);
                    }
                }
            }
        };
        if self.lanes[at].conn.is_none() && !self.connect(at)? {
            return Ok(None);
        }
        Ok(Some(at))
    }

    /// As [`Self::ready`], waiting as long as there is hope.
    pub(super) fn lane_for(&mut self, key: &[u8]) -> Result<usize> {
        loop {
            if let Some(at) = self.ready(key, None)? {
                return Ok(at);
            }
            self.rest()?;
        }
    }

    /// Asks something of the lane of `key`, with nothing in flight there, however often its
    /// connection is lost over it.
    pub(super) fn ask_lane<T>(
        &mut self,
        key: &[u8],
        mut ask: impl FnMut(&mut Self, usize) -> Result<T, ServerError>,
    ) -> Result<(usize, T)> {
        loop {
            let at = self.lane_for(key)?;
            self.drain_lane(at)?;
            match ask(self, at) {
                Ok(answer) => return Ok((at, answer)),
                Err(lost) => self.lost(at, lost)?,
            }
        }
    }

    /// As [`Self::ask_lane`], asked in this database. The inner error is why it is not to be had.
    pub(super) fn ask_in_database<T>(
        &mut self,
        db: u32,
        key: &[u8],
        mut ask: impl FnMut(&mut Self, usize) -> Result<T, ServerError>,
    ) -> Result<Result<(usize, T), String>> {
        loop {
            let at = self.lane_for(key)?;
            self.drain_lane(at)?;
            match self.enter(at, db)? {
                Gate::Open if self.lanes[at].sent.is_empty() => {}
                Gate::Open | Gate::Moving | Gate::Later => continue,
                Gate::Refused(why) => return Ok(Err(why)),
            }
            match ask(self, at) {
                Ok(answer) => return Ok(Ok((at, answer))),
                Err(lost) => self.lost(at, lost)?,
            }
        }
    }

    /// Connects a lane. `false`: not yet, for in a cluster somebody else may have its slots.
    pub(super) fn connect(&mut self, at: usize) -> Result<bool> {
        loop {
            let mut conn = if self.routes.is_some() {
                match self.open_lane(at)? {
                    Some(conn) => conn,
                    None => return Ok(false),
                }
            } else {
                self.reopen_lane(at)?
            };
            conn.heed(&self.lanes[at].to, &self.stop.flag());
            let address = self.lanes[at].address();
            let met = match self.lanes[at].meet(conn) {
                Ok(met) => met,
                Err(error) if error.is_passing() => {
                    self.lanes[at].why.get_or_insert(error);
                    if self.routes.is_some() {
                        self.is_stale();
                        self.wait_for(&format!("{address} hangs up"))?;
                        return Ok(false);
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let why = self.lanes[at].why.take();
            self.met(at, met, why);
            // What a replica may have is given to it first, and then the run ends.
            if self.routes.is_none() && !self.lanes[at].is_watched() {
                self.end_if_halted()?;
            }
            return Ok(true);
        }
    }

    /// One try, and why it failed is no error as long as there is patience.
    fn open_lane(&mut self, at: usize) -> Result<Option<Conn>> {
        let lane = &mut self.lanes[at];
        if lane.to.retries == 0
            && let Some(why) = lane.why.take()
        {
            return Err(why.into());
        }
        // A node that loads its dataset is waited for as long as all of this may take together.
        let mut to = lane.to.clone();
        to.retry_for = self.patience.left();
        match Conn::open(&to) {
            Ok(conn) => Ok(Some(conn)),
            Err(error) if error.is_passing() => {
                let why = error.to_string();
                self.is_stale();
                self.wait_for(&why)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn reopen_lane(&mut self, at: usize) -> Result<Conn> {
        let lane = &mut self.lanes[at];
        let lost = lane.why.take().unwrap_or_else(|| ServerError::Lost {
            address: lane.to.address.to_string(),
            doing: "restoring keys".to_owned(),
            reason: "the server closed the connection".to_owned(),
        });
        let stop = self.stop.clone();
        let again = match &lost {
            ServerError::Lost {
                address,
                doing,
                reason,
            } => ServerError::Lost {
                address: address.clone(),
                doing: doing.clone(),
                reason: reason.clone(),
            },
            _ => ServerError::Lost {
                address: lane.to.address.to_string(),
                doing: "restoring keys".to_owned(),
                reason: lost.to_string(),
            },
        };
        match lane.retries.connect(&lane.to, again, &|| stop.is_set()) {
            Ok(conn) => {
                lane.why = Some(lost);
                Ok(conn)
            }
            Err(_) if self.stop.is_set() => Err(Interrupted.into()),
            // The code for "cannot connect" is for a run that did not begin.
            Err(ServerError::Connect { reason, .. }) => {
                Err(anyhow::Error::new(lost).context(format!("connecting again failed: {reason}")))
            }
            Err(ServerError::Lost { .. }) => Err(lost.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says what was lost and who is there now.
    fn met(&mut self, at: usize, met: Met, why: Option<ServerError>) {
        if let Some(why) = why
            && !self.losses.told
        {
            self.losses.told = true;
            let waiting = self
                .again
                .iter()
                .filter(|sent| sent.counted.is_none())
                .count() as u64;
            self.observer.notice(&format!(
                "{why}; connected again, {} sent again",
                plural(waiting, "record")
            ));
        }
        self.losses.unknown |= met == Met::Unknown;
        // A single server is watched by a connection that tells.
        if met == Met::Unknown
            && self.routes.is_some()
            && self.lanes[at].acknowledged
            && let Some(accepted) = &mut self.accepted
            && let Err(halted) = accepted.halt(
                "a node of the destination was connected to again, and does not say whether it is \
                 still the same process (INFO run_id)",
            )
        {
            self.halted.get_or_insert(halted);
        }
        if matches!(met, Met::Other | Met::Successor) {
            // What a replica confirmed is at the one that took over, and the rest is sent again.
            let lane = &self.lanes[at];
            let may_miss = match met {
                Met::Successor => lane.unkept,
                _ => lane.acknowledged,
            };
            self.check_again(at);
            if may_miss {
                self.acknowledged_is_gone(at);
            }
            self.lanes[at].acknowledged = false;
            self.lanes[at].unkept = false;
        }
    }

    /// What was acknowledged there may not stand any more, and is not at hand.
    pub(super) fn acknowledged_is_gone(&mut self, at: usize) {
        let why = format!(
            "{} was started anew, or replaced, during this run",
            self.lanes[at].address()
        );
        self.lose_memory(
            &why,
            "what it had acknowledged before and not saved is gone; run the same command again: \
             what stands as it should is left, and what is missing is written",
        );
    }

    /// What was acknowledged may be gone. Where it was deleted at the source the run ends; else
    /// `advice` says what to do.
    pub(super) fn lose_memory(&mut self, why: &str, advice: &str) {
        self.memory_lost = true;
        let accepted = self.accepted.as_mut();
        match accepted.map_or(Ok(()), |accepted| accepted.halt(why)) {
            Ok(()) => self.report.problems.push(format!("{why}: {advice}")),
            Err(halted) => _ = self.halted.get_or_insert(halted),
        }
    }

    /// # Errors
    /// Why nothing more may be deleted at the source, once.
    pub(super) fn end_if_halted(&mut self) -> Result<()> {
        self.halted.take().map_or(Ok(()), Err)
    }

    /// How often connections were lost, once at the end.
    pub(super) fn tell_losses(&mut self) {
        let Losses {
            times,
            records,
            told,
            unknown,
        } = self.losses;
        if times > 1 || (times == 1 && !told) {
            self.observer.notice(&format!(
                "connections to the destination were lost {times} times, and {} sent again",
                plural(records, "record")
            ));
        }
        if unknown && times > 0 {
            self.report.memory_unknown = true;
            self.observer.warn(
                "the destination does not say whether it is still the same process (INFO \
                 run_id): had it been started anew, what it had not saved would be missing",
            );
        }
        // Where a key comes once, what runs late writes what stands there.
        if self.options.repeats != Repeats::No && self.lanes.iter().any(|lane| lane.may_run_late) {
            self.observer.warn(
                "a connection to the destination was lost, and it does not let commands that were \
                 sent on it be called off (CLIENT ID, CLIENT KILL): one that it carried out late \
                 would have put an older value of a key in the place of the latest; --verify tells",
            );
        }
    }
}
