//! What is on its way, and what its answers lead to. What follows from an answer is put into the
//! backlog; nothing is sent from here.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::backlog::Backlog;
use super::databases::{Databases, another_database, no_database};
use super::fleet::Fleet;
use super::intake::{Intake, Ways};
use super::io::Now;
use super::item::{InFlight, Item, Spares, Stage, Task};
use super::ledger::Ledger;
use super::memory::Memory;
use super::outcome::{Outcome, Then};
use super::settings::Settings;
use super::trouble::Trouble;
use super::witnesses::Witnesses;
use super::work::Do;
use crate::server::ServerError;
use crate::server::cluster::Redirect;
use crate::server::slots::slot_of;
use crate::sink::server::refusal::{TOO_FEW_REPLICAS, is_too_few_replicas};
use crate::sink::server::try_out::REPLICAS_PATIENCE;
use crate::units::duration_text;

/// How long a primary that became a replica is waited for where nobody names another one.
const DEMOTED_PATIENCE: Duration = Duration::from_secs(10);

/// How long a primary may hold up its lane to hear from its replicas, at most.
const WAIT_MS: u64 = 50;

/// What is on its way.
pub(super) struct Traffic {
    pub settings: Settings,
    pub fleet: Fleet,
    pub databases: Databases,
    pub memory: Memory,
    pub ledger: Ledger,
    /// Keys by which a later run sees that what was acknowledged stands, where it may come.
    pub witnesses: Option<Witnesses>,
    pub backlog: Backlog,
    pub ways: Ways,
    pub trouble: Trouble,
    /// What goes before anything else.
    pub errands: VecDeque<Do>,
    pub spares: Spares,
    pub now: Now,
}

impl Traffic {
    /// Nothing is on its way; no lane is connected.
    pub fn new(settings: Settings, fleet: Fleet, patience: Duration, now: Now) -> Self {
        let options = &settings.options;
        Self {
            memory: Memory::new(options.on_conflict, options.repeats, options.may_collide),
            ways: Ways::new(options.method),
            settings,
            fleet,
            databases: Databases::default(),
            ledger: Ledger::default(),
            witnesses: None,
            backlog: Backlog::default(),
            trouble: Trouble::new(patience),
            errands: VecDeque::new(),
            spares: Spares::default(),
            now,
        }
    }

    /// What a record is judged by that goes to this lane.
    pub fn intake(&mut self, at: usize) -> Intake<'_> {
        Intake {
            lane: self.fleet.lane_mut(at),
            ledger: &mut self.ledger,
            memory: &mut self.memory,
            ways: &mut self.ways,
            settings: &self.settings,
            now_ms: self.now.unix_ms,
        }
    }

    /// What an answer of this lane is judged by.
    pub fn outcome(&mut self, at: usize) -> Outcome<'_> {
        let (is_cluster, has_acknowledged) =
            (self.fleet.is_cluster(), self.fleet.has_acknowledged());
        Outcome {
            at,
            lane: self.fleet.lane_mut(at),
            ledger: &mut self.ledger,
            memory: &mut self.memory,
            witnesses: &mut self.witnesses,
            spares: &mut self.spares,
            settings: &self.settings,
            is_cluster,
            has_acknowledged,
            now_ms: self.now.unix_ms,
        }
    }

    /// Takes what is due first on a lane: it is answered.
    pub fn take_sent(&mut self, at: usize) -> Option<InFlight> {
        let sent = self.fleet.lane_mut(at).flight.pop()?;
        #[cfg(test)]
        super::tests::mark_sent(&sent);
        if let Some(item) = sent.item() {
            self.backlog.note_answered(item.print);
        }
        Some(sent)
    }

    /// The answer that was due first, but of a comparison or a value of native commands.
    ///
    /// # Errors
    /// What ends the run.
    pub fn replied(&mut self, at: usize, answer: Result<i64, String>) -> Result<()> {
        if let Err(text) = &answer
            && text.starts_with("ERR Protocol error")
        {
            // These are the last words of a server that hangs up.
            let lost = self.fleet.lane(at).lost("restoring keys", text.as_str());
            return self.lose_lane(at, lost);
        }
        match self.take_sent(at) {
            Some(InFlight::Record(item)) => {
                let concerns_key = item.task.concerns_key();
                let then = self.outcome(at).answered(item, answer)?;
                match concerns_key {
                    true => self.conclude(at, then),
                    false => self.settle(at, then).map(|_| ()),
                }
            }
            Some(InFlight::Select) => {
                self.moved(at, answer.is_ok());
                Ok(())
            }
            Some(InFlight::Wait) => {
                self.fleet.note_waited(at, answer, self.now.unix_ms);
                Ok(())
            }
            Some(InFlight::Asking) => match answer {
                Err(text) if crate::server::conn::is_forbidden(&text) => {
                    Err(self.fleet.lane(at).refusal("ASKING", text).into())
                }
                // The answer to the command behind it says what that means.
                _ => Ok(()),
            },
            Some(InFlight::Cleared | InFlight::Value(..)) | None => Ok(()),
        }
    }

    /// Does what the answer to a key's record leads to.
    ///
    /// # Errors
    /// What ends the run.
    pub fn conclude(&mut self, at: usize, then: Then) -> Result<()> {
        if self.settle(at, then)? {
            self.trouble.patience().progress();
        }
        self.ask_for_replicas(at);
        Ok(())
    }

    /// Does what an answer leads to. Whether it is progress: while the destination is waited for, every
    /// answer that needs no repetition is, also that a key stands already, or is refused.
    ///
    /// # Errors
    /// What ends the run.
    fn settle(&mut self, at: usize, mut then: Then) -> Result<bool> {
        loop {
            #[cfg(test)]
            super::tests::mark(&then);
            match then {
                Then::Nothing => return Ok(true),
                Then::Next(item) => {
                    self.backlog.push_next(item);
                    return Ok(true);
                }
                Then::PutOff(item) => self.backlog.put_off(item),
                Then::Later(item, command, text) => self.later(at, item, command, text)?,
                Then::Redirected(item, redirect) => self.redirected(at, item, redirect)?,
                Then::Demoted(item, text) => self.demoted(at, item, text)?,
                Then::Lose(item, lost) => {
                    self.backlog.put_off(item);
                    self.lose_lane(at, lost)?;
                }
                Then::NoDatabase { item, why, for_all } => {
                    if for_all {
                        let db = item.record.db;
                        self.databases.close(db, why.clone(), &mut self.ledger);
                    }
                    self.refuse_database(item, &why);
                    return Ok(true);
                }
                Then::ByCommands(mut item, text) => {
                    self.write_by_commands(&text);
                    item.stage = Stage::Strip;
                    self.backlog.push_next(item);
                    return Ok(true);
                }
                Then::Rights(item, answer) => {
                    self.ways.note_right(&item, &answer);
                    then = match answer {
                        Ok(()) => self.outcome(at).may_be_written(item)?,
                        Err(text) => self.outcome(at).refused(item, text)?,
                    };
                    continue;
                }
            }
            return Ok(false);
        }
    }

    /// RESTORE is not to be had, in these words.
    pub fn write_by_commands(&mut self, text: &str) {
        let title = self.fleet.lane(0).facts.title();
        self.ways.write_by_commands(text, &title, &mut self.ledger);
    }

    /// A key of a database that is not to be had.
    pub fn refuse_database(&mut self, item: Box<Item>, why: &str) {
        let db = item.record.db;
        if matches!(item.task, Task::CleanUp(_)) {
            self.ledger.leave_behind(db, &item.record.key, why);
            return;
        }
        let hint = another_database(item.origin().map(|origin| origin.db));
        self.ledger.refuse(item, no_database(db, why), Some(hint));
    }

    /// SELECT was answered behind what was in flight; anything but OK is asked again, with nothing else
    /// in flight, and judged there.
    fn moved(&mut self, at: usize, is_ok: bool) {
        let lane = self.fleet.lane_mut(at);
        let Some((db, held)) = lane.flight.end_move() else {
            return;
        };
        if is_ok {
            lane.database = Some(db);
            self.databases.entered(db);
            self.backlog.release(held);
        } else {
            held.into_iter().for_each(|item| self.backlog.put_off(item));
        }
    }

    /// The destination asks for patience: the same again, in a while.
    fn later(&mut self, at: usize, item: Box<Item>, command: &str, text: String) -> Result<()> {
        let now = self.now.at;
        let patience = self.trouble.patience();
        if matches!(item.task, Task::CleanUp(_)) {
            if patience.lasts_at(now) {
                self.backlog.put_off(item);
                self.backlog.pause();
            } else {
                let record = &item.record;
                self.ledger.leave_behind(record.db, &record.key, &text);
            }
            return Ok(());
        }
        self.backlog.put_off(item);
        // Replicas that were never there are not waited for as long as those that went away.
        let text_told = |told: String| format!("{text} ({told})");
        if is_too_few_replicas(&text)
            && !patience.lasts_within(REPLICAS_PATIENCE, now)
            && !self.fleet.has_acknowledged()
        {
            let told = text_told(self.trouble.patience().told_at(now));
            let error = self.fleet.lane(at).refused(command, told);
            return Err(anyhow::Error::new(error).context(TOO_FEW_REPLICAS));
        }
        if !self.trouble.patience().lasts_at(now) {
            let told = text_told(self.trouble.patience().told_at(now));
            return Err(self.fleet.lane(at).refusal(command, told).into());
        }
        self.backlog.pause();
        Ok(())
    }

    /// Nothing can be done just now, and `why`.
    ///
    /// # Errors
    /// When it has been so for too long.
    pub fn wait_for(&mut self, why: &str) -> Result<()> {
        self.backlog.pause();
        self.trouble.wait(why, Duration::MAX, self.now.at)
    }

    /// A node of a cluster answered that it is not the one, or not now.
    fn redirected(&mut self, at: usize, mut item: Box<Item>, redirect: Redirect) -> Result<()> {
        item.place.ask_to = None;
        let patient = self.redirect(at, &mut item, redirect);
        self.backlog.put_off(item);
        patient
    }

    fn redirect(&mut self, at: usize, item: &mut Item, redirect: Redirect) -> Result<()> {
        let own_host = |fleet: &Fleet| fleet.lane(at).announced().map(|own| own.host.clone());
        match redirect {
            Redirect::Moved { slot, mut to } => {
                if to.host.is_empty() {
                    to.host = own_host(&self.fleet).unwrap_or(to.host);
                }
                item.past.turns = item.past.turns.saturating_add(1);
                self.fleet.doubt(Some(to.clone()));
                if item.past.turns > 2 {
                    self.wait_for(&format!(
                        "slot {slot} is redirected from node to node (last to {to})"
                    ))?;
                }
            }
            // Of a value that is built under another name the two names would have to be there
            // for RENAME, which is TRYAGAIN until the slot has arrived (cluster.c, getNodeByQuery).
            Redirect::Ask { slot, .. } if item.is_by_commands() => {
                self.wait_for(&format!("slot {slot} is migrating to another node"))?;
            }
            Redirect::Ask { slot, mut to } => {
                if to.host.is_empty() {
                    to.host = own_host(&self.fleet).unwrap_or(to.host);
                }
                item.past.turns = item.past.turns.saturating_add(1);
                if item.past.turns > 2 {
                    self.wait_for(&format!("slot {slot} is migrating to another node"))?;
                }
                item.place.ask_to = self.fleet.lane_at(&to);
            }
            Redirect::TryAgain | Redirect::Down => {
                let slot = slot_of(&item.record.key);
                self.fleet.doubt(None);
                self.wait_for(&format!("the cluster does not serve slot {slot}"))?;
            }
        }
        Ok(())
    }

    /// A primary that became a replica: behind the same address, or elsewhere in the cluster, there
    /// should be another one soon.
    fn demoted(&mut self, at: usize, mut item: Box<Item>, text: String) -> Result<()> {
        let lost = self.fleet.lane(at).lost("restoring keys", text.as_str());
        // It was not written.
        item.place.ask_to = None;
        self.backlog.put_off(item);
        let may_move = self.fleet.may_move(at);
        let retry_for = self.trouble.patience().limit();
        let patience = match may_move {
            true => retry_for,
            false => retry_for.min(DEMOTED_PATIENCE),
        };
        if !may_move {
            let address = self.fleet.lane(at).address();
            self.ledger.warn_demoted(|| {
                format!(
                    "{address} became a read-only replica during this run ({text}); waiting up to {} \
                     for a primary to answer there",
                    duration_text(patience)
                )
            });
        }
        self.backlog.pause();
        let waited = self.trouble.wait(&text, patience, self.now.at);
        let patient = waited.context(
            "the destination became a read-only replica during this run: name its primary, and run \
             the same command again there",
        );
        // It answers; how often is bounded by the patience.
        self.fleet.lane_mut(at).retries.succeeded();
        self.lose_lane(at, lost)?;
        patient
    }

    /// What the destination says about this key cannot be understood.
    pub fn refuse_misunderstood(&mut self, item: Box<Item>, error: &ServerError) {
        if matches!(item.task, Task::CleanUp(_)) {
            let (record, why) = (&item.record, error.to_string());
            self.ledger.leave_behind(record.db, &record.key, &why);
            return;
        }
        let reason = format!("{error}: it is not known what became of the key");
        let hint = "look at the key at the destination, and run the same command again".to_owned();
        self.ledger.refuse(item, reason, Some(hint));
    }

    /// A temporary key may be left in this database: it is removed when its turn comes.
    pub fn clean_up(&mut self, db: u32, temp: Vec<u8>) {
        let print = self.memory.fingerprint(db, &temp);
        self.backlog.put_off(Item::clean_up(db, temp, print));
    }

    /// Asks for replicas if it is time to; sentinels first, where some watch the lane.
    pub fn ask_for_replicas(&mut self, at: usize) {
        let now = self.now.at;
        let lane = self.fleet.lane_mut(at);
        if !lane.is_up() || !lane.kept.is_due() {
            return;
        }
        // Until the answer is read, nothing more is due.
        lane.kept.asked();
        if lane.is_time_for_sentinels(now) {
            lane.note_sentinels_asked(now);
            self.errands.push_back(Do::AskSentinels(at));
        }
        self.errands.push_back(Do::SendWait(at, WAIT_MS));
    }
}
