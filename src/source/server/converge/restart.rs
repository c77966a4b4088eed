//! Beginning anew: where changes were missed, only another scan tells what the source holds.

use anyhow::{Result, anyhow};

use super::verdict::blindness;
use super::{ConvergeOptions, ConvergingSource, Phase};
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::policy::Consistency;
use crate::record::{Batch, Record};
use crate::server::ServerError;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Facts, Keyspace};
use crate::server::tracking::{FLUSHED, Tracker};
use crate::source::Source;
use crate::source::server::{Job, ServerSource};
use crate::stop::Stop;
use crate::units::plural;

/// Scans that may be begun anew before giving up.
const MAX_RESTARTS: u32 = 3;

impl ConvergingSource {
    /// A flush, too many changes or a lost connection: everything given so far may be wrong.
    pub(super) fn restart_if_needed(&mut self) -> Result<bool> {
        if let Some(reason) = self.inner.incomplete.take() {
            self.lost_track = true;
            self.miss(reason);
        }
        if std::mem::take(&mut self.inner.process_changed) {
            if !self.gave_up() {
                return self.restart("the source was restarted, or is another one");
            }
            self.lost_track = true;
        }
        if !self.tracker.waiting().1 || self.gave_up() {
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

    /// Whether changes are being followed, and have to be until somebody says when.
    pub(super) fn follows(&self) -> bool {
        self.options.follow.is_some() && !self.follow_over
    }

    /// Whether nothing is left to be won by another scan. Following goes on without exactness.
    pub(super) fn gave_up(&self) -> bool {
        self.missed.is_some() && !self.follows()
    }

    /// Begins the scan anew, within bounds; `false` if that is not to be done any more.
    ///
    /// # Errors
    /// Those of the connection; and, where changes are followed, that they cannot be heard any more.
    pub(super) fn restart(&mut self, reason: &str) -> Result<bool> {
        if !may_begin_anew(&self.options) || self.restarts >= MAX_RESTARTS {
            if self.follows() && self.tracker.is_lost() {
                return Err(anyhow!("changes can no longer be followed: {reason}"));
            }
            self.lost_track = true;
            self.miss(format!("changes can no longer be followed: {reason}"));
            return Ok(false);
        }
        if self.inner.stop().is_some_and(Stop::is_set) {
            return Err(Interrupted.into());
        }
        self.restarts += 1;
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
        let facts = self.listen_again()?;
        self.refuse_to_delete_all(&facts, reason)?;
        self.counts = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        self.counts_at_start = self.counts.clone();
        self.swapped = false;
        self.inner.facts.run_id = facts.run_id.clone();
        self.inner.facts.replica = facts.replica;
        // Another server may tell less.
        self.inner.facts.keyspace = facts.keyspace.clone();
        self.blind = blindness(&mut self.inner, self.counts.is_some())?;
        // Heard of while the scan was at rest: it begins anew anyway.
        self.inner.process_changed = false;
        self.scan_all(&facts);
        Ok(true)
    }

    /// Begins to listen anew, and tells what the server is. Where that is refused the scan goes on
    /// without it: every key is still to be read, and only exactness is lost.
    fn listen_again(&mut self) -> Result<Facts> {
        /// The server may be restarted between the two questions.
        const ATTEMPTS: u32 = 3;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let begun = begin_to_listen(&mut self.inner, &self.connect)?;
            // Asked after that: a source that was restarted while nothing was in flight is known
            // to be another process only when it is asked something.
            let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
            let refusal = match begun {
                Ok(tracker) if tracker.listens_to(facts.run_id.as_deref()) => {
                    self.tracker = tracker;
                    return Ok(facts);
                }
                Ok(_) if attempts < ATTEMPTS => continue,
                Ok(_) => another_server(&self.inner),
                Err(refusal) => refusal,
            };
            if self.follows() {
                let what = "changes can no longer be followed";
                return Err(anyhow::Error::new(refusal).context(what));
            }
            self.lost_track = true;
            let words = refusal.words();
            self.miss(format!("changes can no longer be listened to: {words}"));
            return Ok(facts);
        }
    }

    /// A process that was started without its data would have all deleted at a live destination that
    /// was given so far: the only copy, perhaps. A node of a cluster counts as lost then: the keys may
    /// be at another node, and who knows all of them looks for it.
    fn refuse_to_delete_all(&mut self, facts: &Facts, reason: &str) -> Result<()> {
        let is_another = match (&self.process, &facts.run_id) {
            (Some(before), Some(now)) => before != now,
            // Nobody says. That somebody flushed it was heard from the process itself.
            _ => reason != FLUSHED,
        };
        let given: u64 = self.inner.counts.rows().iter().map(|row| row.written).sum();
        let is_node = self.inner.cluster.is_some();
        let would_delete = given > 0 || !self.heritage.is_empty();
        let matters = is_node || !self.inner.options.takes_back;
        if !is_another || !would_delete || !matters || !self.holds_nothing(facts)? {
            self.process = facts.run_id.clone();
            return Ok(());
        }
        if is_node {
            let lost = ServerError::Lost {
                address: self.inner.conn.address().to_owned(),
                doing: "listening to its changes".to_owned(),
                reason: "it was restarted, or is another one, and has no key any more".to_owned(),
            };
            return Err(lost.into());
        }
        Err(anyhow!(
            "the source was restarted, or is another one, and has no key any more: the {} that \
             came so far are left as they are, and nothing is deleted for it",
            plural(given, "record")
        ))
    }

    fn holds_nothing(&mut self, facts: &Facts) -> Result<bool> {
        loop {
            match self.inner.holds_nothing(facts) {
                Err(error) if self.inner.may_resume(&error) => self.inner.resume(error)?,
                done => return done,
            }
        }
    }

    /// The process that the scan began at, where it says.
    pub(in crate::source) fn process(&self) -> Option<&str> {
        self.process.as_deref()
    }

    /// All of every database is to be read again, and then what was given and is not met again.
    fn scan_all(&mut self, facts: &Facts) {
        // Those that held keys before stay: they may again.
        self.inner
            .learn_databases(facts.keyspace.as_deref().unwrap_or_default());
        let scan = |row: &Keyspace| Job::Scan(row.db);
        self.inner.waiting = self.inner.databases.iter().map(scan).collect();
        self.inner.read_all_owned();
        if let Some(given) = &mut self.inner.given {
            given.begin_again();
        }
        self.began_anew = true;
        self.postponed.clear();
        self.phase = Phase::Scan;
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

/// Begins to listen to the server that is read. The inner error is why it cannot be listened to.
pub(super) fn start_tracker(
    inner: &mut ServerSource,
    connect: &ConnectOptions,
) -> Result<Result<Tracker, ServerError>> {
    Ok(match begin_to_listen(inner, connect)? {
        Ok(tracker) if !tracker.listens_to(inner.facts.run_id.as_deref()) => {
            Err(another_server(inner))
        }
        begun => begun,
    })
}

fn another_server(inner: &ServerSource) -> ServerError {
    inner
        .conn
        .confused("a second connection to the same address reached another server")
}

/// Begins to listen, to whatever server answers at that address.
fn begin_to_listen(
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
    match started {
        Ok(Ok(mut tracker)) => {
            if let Some(stop) = inner.stop() {
                tracker.heed(&stop.flag());
            }
            Ok(Ok(tracker))
        }
        // Lost before it began is lost all the same, and says nothing of the other connection.
        Err(error @ ServerError::Lost { .. }) => Ok(Err(error)),
        started => Ok(started?),
    }
}
