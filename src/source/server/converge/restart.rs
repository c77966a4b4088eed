//! Beginning anew: where changes were missed, only another scan tells what the source holds.

use anyhow::Result;

use super::counts::CommandCounts;
use super::verdict::blindness;
use super::{ConvergeOptions, ConvergingSource, Phase};
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::pipe::Stop;
use crate::policy::Consistency;
use crate::record::{Batch, Record};
use crate::server::ServerError;
use crate::server::facts::Facts;
use crate::server::tracking::Tracker;
use crate::source::Source;
use crate::source::server::{Job, ServerSource};

/// Scans that may be begun anew before giving up.
const MAX_RESTARTS: u32 = 3;

impl ConvergingSource {
    /// A flush, too many changes or a lost connection: everything given so far may be wrong.
    pub(super) fn restart_if_needed(&mut self) -> Result<bool> {
        if let Some(reason) = self.inner.incomplete.take() {
            self.lost_track = true;
            self.miss(reason);
        }
        if std::mem::take(&mut self.inner.process_changed) && self.missed.is_none() {
            return self.restart("the source was restarted, or is another one");
        }
        if !self.tracker.waiting().1 || self.missed.is_some() {
            return Ok(false);
        }
        let heard = self.heard();
        let reason = heard.means_rescan().unwrap_or("unknown").to_owned();
        let again = self.restart(&reason)?;
        if !again {
            self.reread(heard.names);
        }
        Ok(again)
    }

    /// Begins the scan anew, within bounds; `false` if that is not to be done any more.
    pub(super) fn restart(&mut self, reason: &str) -> Result<bool> {
        if !may_begin_anew(&self.options) || self.restarts >= MAX_RESTARTS {
            self.lost_track = true;
            self.miss(format!("changes can no longer be followed: {reason}"));
            return Ok(false);
        }
        if self.inner.stop().is_some_and(Stop::is_set) {
            return Err(Interrupted.into());
        }
        self.restarts += 1;
        self.began_anew = true;
        self.say_nothing_of_lag();
        self.observer
            .notice(&format!("the scan begins anew: {reason}"));
        self.inner.abandon();
        while !self.inner.sent.is_empty() || !self.inner.awaited.is_empty() {
            // What is still in flight was asked before; the new scan reads it again.
            let mut dropped = Batch::new();
            self.inner.read(&mut dropped)?;
            self.put_back(&dropped);
        }
        self.inner.abandoned = false;
        self.tracker = match start_tracker(&mut self.inner, &self.connect)? {
            Ok(tracker) => tracker,
            Err(refusal) => {
                self.lost_track = true;
                let words = refusal.words();
                self.miss(format!("changes can no longer be listened to: {words}"));
                return Ok(false);
            }
        };
        self.counts = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        self.counts_at_start = self.counts.clone();
        let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
        self.inner.facts.run_id = facts.run_id.clone();
        self.inner.facts.replica = facts.replica;
        // Another server may tell less.
        self.inner.facts.keyspace = facts.keyspace.clone();
        self.blind = blindness(&mut self.inner, self.counts.is_some())?;
        // Heard of while the scan was at rest: it begins anew anyway.
        self.inner.process_changed = false;
        // Those that held keys before stay: they may again.
        self.inner
            .learn_databases(facts.keyspace.as_deref().unwrap_or_default());
        self.inner.waiting = self
            .inner
            .databases
            .iter()
            .map(|row| Job::Scan(row.db))
            .collect();
        self.inner.read_all_owned();
        if let Some(given) = &mut self.inner.given {
            given.begin_again();
        }
        self.postponed.clear();
        self.phase = Phase::Scan;
        Ok(true)
    }

    /// Records that were read but are not given: they did not happen.
    fn put_back(&mut self, batch: &Batch) {
        for record in &batch.records {
            let db = match record {
                Record::Key(key) => key.db,
                Record::Deleted { db, .. } => *db,
                _ => continue,
            };
            let counts = self.inner.counts.of(db);
            counts.written -= 1;
            counts.superseded += 1;
        }
    }
}

/// Only then are the names of everything given kept in a file: a plain scan never begins anew. In a
/// cluster any shard may have to, when another node takes its place.
pub(super) fn may_begin_anew(options: &ConvergeOptions) -> bool {
    options.consistency != Consistency::Auto
        || options.follow.is_some()
        || options.together.is_some()
}

/// Begins to listen. The inner error is why the server cannot be listened to.
pub(super) fn start_tracker(
    inner: &mut ServerSource,
    connect: &ConnectOptions,
) -> Result<Result<Tracker, ServerError>> {
    let started = inner.open_beside(|inner| {
        let selection = inner.options.selection.clone();
        let slots = inner.cluster.as_ref().map(|cluster| cluster.owned.clone());
        let wanted = move |name: &[u8]| {
            selection.wants_key(name) && slots.as_ref().is_none_or(|slots| slots.has_key(name))
        };
        let stop = inner.stop().map(Stop::flag);
        Tracker::start(connect, stop.as_ref(), wanted)
    });
    let started = started.map(|started| {
        started.map(|mut tracker| {
            if let Some(stop) = inner.stop() {
                tracker.heed(&stop.flag());
            }
            tracker
        })
    });
    match started {
        // Lost before it began is lost all the same, and says nothing of the other connection.
        Err(error @ ServerError::Lost { .. }) => Ok(Err(error)),
        Ok(Ok(tracker)) if !tracker.listens_to(inner.facts.run_id.as_deref()) => Ok(Err(inner
            .conn
            .confused("a second connection to the same address reached another server"))),
        started => Ok(started?),
    }
}
