//! Does what the rounds decide.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::attempt::Attempt;
use super::final_round::Outcome;
use super::instant::Had;
use super::listen::{another_server, blindness, listen_to_anybody};
use super::rounds::{Action, Event, Look, Pending, Reckoning, Rounds};
use super::watch::Named;
use super::{ConvergingSource, FinalRound};
use crate::exit::Interrupted;
use crate::host;
use crate::host::HashSet;
use crate::observer::Lag;
use crate::record::Batch;
use crate::server::ServerError;
use crate::server::cluster::Topology;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Facts, Keyspace, info, keyspace};
use crate::server::sentinel;
use crate::server::tracking::{FLUSHED, Heard};
use crate::source::Source;
use crate::source::server::books::DbKey;
use crate::source::server::delivered::{Given, GivenLog};
use crate::source::server::libraries::function_dump;
use crate::source::server::node::Membership;
use crate::source::server::reader::{Dump, Fate, Job};
use crate::source::server::shell::ANOTHER_PROCESS;
use crate::units::plural;

/// Names of one job, so that memory stays bounded.
const JOB_NAMES: usize = 10_000;

/// While following, how often a shard looks whether slots moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// While following, how long nothing is done where nothing changes.
const NAP: Duration = Duration::from_millis(10);

/// What a step comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// There is more to do.
    On,
    /// The batch is to be handed on, with nothing in it perhaps: a wish to stop is heard meanwhile.
    HandOn,
    /// Nothing more comes, for now or for ever.
    Nothing,
}

impl ConvergingSource {
    /// Does one thing.
    pub(super) fn step(&mut self, batch: &mut Batch) -> Result<Stepped> {
        let event = match self.rounds.next() {
            Action::Read => return self.read_backlog(batch),
            Action::Give => return self.give(batch),
            Action::Attempt => return self.attempt(),
            Action::Heartbeat => {
                self.say_lag();
                return Ok(Stepped::HandOn);
            }
            Action::Rest | Action::Done => return Ok(Stepped::Nothing),
            Action::Fail(reason) => return Err(anyhow!(reason.to_owned())),
            Action::TakeUnmet(log) => {
                let names = log.next(JOB_NAMES)?;
                self.take_unmet(names)?
            }
            Action::AddDatabases(rows) => {
                let rows = rows.to_vec();
                self.add_databases(rows);
                Event::DatabasesAdded
            }
            Action::Restart(reason) => {
                let reason = reason.to_owned();
                self.restart(&reason)?
            }
            Action::ListUnmet => self.list_unmet()?,
            Action::Listen => self.listen(),
            Action::CountSwaps => self.count_swaps()?,
            Action::LookForDatabases => self.look_for_databases()?,
            Action::Take => self.take(),
            Action::Reread(names) => self.reread(names),
            Action::BeginFollowing => self.begin_following(),
            Action::Look => self.look()?,
            Action::AskSentinels { at_once } => self.ask_sentinels(at_once)?,
            Action::Sleep => {
                self.say_lag();
                host::sleep(NAP);
                Event::Slept
            }
            Action::EndFollowing => self.end_following(),
            Action::CollectRest => self.collect_rest(),
            Action::AskIfDeaf => Event::Deaf(self.tracker.is_lost()),
            Action::Reckon => self.reckon()?,
            Action::End => {
                self.inner.functions.put(self.functions.take());
                self.inner.functions.give(batch);
                Event::Ended
            }
        };
        self.tell(event);
        Ok(match batch.is_empty() {
            true => Stepped::On,
            false => Stepped::HandOn,
        })
    }

    fn tell(&mut self, event: Event) {
        self.rounds.on(event);
        self.warn();
    }

    /// Says that it will not be exact, once.
    pub(super) fn warn(&mut self) {
        if let Some(warning) = self.rounds.take_warning() {
            self.inner.observer.warn(&warning);
        }
    }

    /// What was heard of slots that are read here.
    pub(super) fn heard(&mut self) -> Heard {
        let mut heard = self.tracker.take();
        if let Some(node) = &self.inner.node {
            heard.names.retain(|name| node.owns(name));
        }
        heard
    }

    fn read_backlog(&mut self, batch: &mut Batch) -> Result<Stepped> {
        if let Some(trouble) = self.look_for_trouble() {
            self.tell(trouble);
            return Ok(Stepped::On);
        }
        // Whatever was begun is read to its end first.
        if self.inner.read(batch)? {
            return Ok(Stepped::HandOn);
        }
        self.tell(Event::ReadOut(host::now()));
        Ok(Stepped::On)
    }

    /// A flush, too many changes or a lost connection: everything given so far may be wrong.
    fn look_for_trouble(&mut self) -> Option<Event> {
        if let Some(reason) = self.inner.findings.take_incomplete() {
            return Some(Event::Incomplete(reason));
        }
        if self.inner.profile.take_changed_process() {
            return Some(Event::OtherProcess);
        }
        if !self.tracker.waiting().1 || self.rounds.gave_up() {
            return None;
        }
        let heard = self.heard();
        Some(Event::Missed {
            reason: heard.means_rescan().unwrap_or("unknown").to_owned(),
            names: heard.names,
        })
    }

    fn list_unmet(&mut self) -> Result<Event> {
        let given = self.inner.books.given_mut();
        let given = given.ok_or_else(|| anyhow!("nothing is remembered"))?;
        let logs = self.heritage.iter().map(GivenLog::again);
        let mut logs = logs.collect::<Result<Vec<_>>>()?;
        logs.push(given.log()?);
        let slots = self.inner.node.as_ref().map(|node| node.reading().clone());
        Ok(Event::Unmet(given.not_met_of(logs, slots)))
    }

    fn take_unmet(&mut self, names: Vec<(u32, Vec<Vec<u8>>)>) -> Result<Event> {
        let any = !names.is_empty();
        for (db, names) in names {
            if let Some(given) = self.inner.books.given_mut()
                && !self.heritage.is_empty()
            {
                given.inherit(db, &names)?;
            }
            self.inner.reader.add(Job::Names(db, names));
        }
        Ok(Event::UnmetTaken { any })
    }

    fn listen(&mut self) -> Event {
        self.tracker.barrier();
        let (waiting, rescan) = self.tracker.waiting();
        Event::Heard {
            waiting,
            rescan,
            now: host::now(),
        }
    }

    /// Looks whether databases were swapped, or whether that can no longer be told.
    fn count_swaps(&mut self) -> Result<Event> {
        if !self.evidence.is_told() {
            return Ok(Event::Swaps(None));
        }
        let now = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        let in_cluster = self.inner.node.is_some();
        Ok(Event::Swaps(self.evidence.note(now, in_cluster)))
    }

    /// Asks whether there are keys in databases that had none before.
    fn look_for_databases(&mut self) -> Result<Event> {
        let is_told = self.inner.facts().keyspace.is_some();
        if is_told && self.inner.options.selection.dbs.is_empty() {
            let text = self.inner.ask(|conn| Ok(info(conn, Some("keyspace"))?))?;
            let now = text.and_then(|text| keyspace(&text)).unwrap_or_default();
            let new = self.inner.databases.unknown_among(&now);
            self.add_databases(new);
        }
        Ok(Event::DatabasesLookedFor)
    }

    /// Scans databases that had no keys before, besides what is read anyway.
    fn add_databases(&mut self, rows: Vec<Keyspace>) {
        for row in rows {
            self.inner.reader.add(Job::Scan(row.db));
            self.inner.databases.add(row);
        }
    }

    fn take(&mut self) -> Event {
        let since = self.tracker.lag().1;
        let heard = self.heard();
        if self.rounds.is_following() {
            // Until they have been read.
            self.say_lag_of(heard.names.len(), since);
        }
        Event::Taken {
            rescan: heard.means_rescan().map(str::to_owned),
            names: heard.names,
        }
    }

    fn reread(&mut self, names: HashSet<Vec<u8>>) -> Event {
        let again = self.rounds.choose(names, self.inner.reader.guess_bytes());
        for db in self.inner.databases.numbers() {
            for chunk in again.chunks(JOB_NAMES) {
                // Copies, also for the last database: they lie side by side, in the order in which they
                // are asked for.
                self.inner.reader.add(Job::Names(db, chunk.to_vec()));
            }
        }
        Event::Reread
    }

    fn begin_following(&mut self) -> Event {
        if let Some(given) = self.inner.books.given_mut() {
            given.follow();
        }
        self.inner
            .observer
            .notice("everything was read once; following changes");
        Event::FollowingBegun
    }

    /// While following: how things are. Nothing is in flight.
    fn look(&mut self) -> Result<Event> {
        let (waiting, rescan) = self.tracker.waiting();
        if !rescan {
            self.inner.link.note_listening();
        }
        let mut look = Look {
            now: host::now(),
            waiting,
            rescan,
            restless: false,
            quiet_for: None,
            stop: self
                .rounds
                .follow()
                .is_some_and(|follow| follow.stop.is_set()),
            others_over: false,
        };
        if let (Some(together), false) = (self.options.together.clone(), rescan) {
            if waiting > 0 {
                together.changed();
            }
            if host::elapsed(self.looked) >= LOOK_EVERY {
                self.looked = host::now();
                if together.has_moved(&Topology::ask(&mut self.inner.conn)?) {
                    together.disturb();
                }
            }
            let node = self.inner.node.as_ref();
            if node.is_some_and(Membership::has_reason) {
                together.disturb();
            }
            look.restless = together.is_restless();
            look.quiet_for = Some(together.quiet_for());
            look.others_over = together.is_over();
        }
        Ok(Event::Looked(look))
    }

    /// While following: asks the sentinels once in a while, and `at_once` before it ends. Where they
    /// name another primary it goes on there. Nothing is in flight.
    fn ask_sentinels(&mut self, at_once: bool) -> Result<Event> {
        let mut moved = false;
        if self.watch.is_due(at_once) {
            let (conn, observer) = (&self.inner.conn, &self.inner.observer);
            if let Named::Other(by) = self.watch.ask(conn, &self.connect, observer) {
                let lost = sentinel::replaced(conn, &by);
                self.inner.resume(lost.into())?;
                moved = true;
            }
        }
        Ok(Event::Sentinels {
            moved,
            open: self.watch.is_open(),
        })
    }

    fn end_following(&mut self) -> Event {
        if let Some(together) = &self.options.together {
            together.end_following();
        }
        self.say_nothing_of_lag();
        Event::FollowingEnded(host::now())
    }

    fn say_lag(&self) {
        let (waiting, since) = self.tracker.lag();
        self.say_lag_of(waiting, since);
    }

    fn say_lag_of(&self, names: usize, since: Option<Instant>) {
        let (server, keys) = (self.inner.conn.address(), names as u64);
        let following = &self.inner.observer.progress.following;
        following.is_at(server, Lag { keys, since });
    }

    fn say_nothing_of_lag(&self) {
        let following = &self.inner.observer.progress.following;
        following.ends(self.inner.conn.address());
    }

    /// Gives what is ready of the final round.
    fn give(&mut self, batch: &mut Batch) -> Result<Stepped> {
        let mut round = take_final(&mut self.rounds)?;
        let pending = self.give_of(&mut round, batch)?;
        self.tell(Event::Gave(round, pending, host::now()));
        Ok(match pending {
            Pending::More => Stepped::HandOn,
            Pending::Nothing if !batch.is_empty() => Stepped::HandOn,
            Pending::Nothing | Pending::Exact => Stepped::On,
        })
    }

    fn give_of(&mut self, round: &mut FinalRound, batch: &mut Batch) -> Result<Pending> {
        while let Some(shown) = round.next_ready() {
            self.inner.books.read_again(shown.db, 1);
            let key = DbKey {
                db: shown.db,
                key: shown.key,
            };
            let fate = match shown.had {
                Had::Payload(payload) => Fate::Read(Dump {
                    payload,
                    expire_at_ms: shown.expire_at_ms,
                    eviction: shown.eviction,
                }),
                Had::TooLong(bytes) => Fate::TooLong(bytes),
                Had::Nothing => Fate::Gone,
                Had::Withheld => Fate::Withheld,
            };
            self.inner.settle(key, fate, batch)?;
            self.inner.books.give_tombstones(batch);
            if batch.is_full() {
                return Ok(Pending::More);
            }
        }
        Ok(match round.is_proved() {
            true => Pending::Exact,
            false => Pending::Nothing,
        })
    }

    fn attempt(&mut self) -> Result<Stepped> {
        let mut round = take_final(&mut self.rounds)?;
        let attempt = Attempt {
            source: self,
            round: &mut round,
        };
        let outcome = match attempt.alone() {
            Err(error) if self.inner.link.may_resume(&error) => {
                self.inner.resume(error)?;
                // As long as changes were listened to all the time, nothing else is lost.
                round.forget_proof();
                Outcome::Grown
            }
            outcome => outcome?,
        };
        self.tell(Event::Attempted(round, outcome));
        // Also with nothing between two attempts, so that a wish to stop is heard.
        Ok(match self.rounds.is_at_final() {
            true => Stepped::HandOn,
            false => Stepped::On,
        })
    }

    fn collect_rest(&mut self) -> Event {
        self.tracker.barrier();
        let heard = self.heard();
        let rescan = heard.means_rescan().is_some();
        let mut names = heard.names;
        let given = self.inner.books.given().into_iter();
        names.extend(given.flat_map(Given::to_read_again));
        Event::Rest { names, rescan }
    }

    /// Begins the scan anew.
    ///
    /// # Errors
    /// Those of the connection; and, where changes are followed, that they cannot be heard any more.
    fn restart(&mut self, reason: &str) -> Result<Event> {
        if self.inner.link.is_stopped() {
            return Err(Interrupted.into());
        }
        // Elsewhere the scans that begin anew are few, and counted.
        let follows = self.rounds.follows();
        if follows && self.tracker.is_lost() && !self.inner.link.wait_to_listen_again()? {
            return Err(anyhow!("changes can no longer be followed: {reason}"));
        }
        self.say_nothing_of_lag();
        self.inner
            .observer
            .notice(&format!("the scan starts again: {reason}"));
        let dropped = self.inner.reader.abandon();
        let db = self.inner.reader.db();
        self.inner.books.superseded(db, dropped);
        while !self.inner.reader.is_idle() {
            // What is still in flight was asked before; the new scan reads it again.
            let mut dropped = Batch::new();
            self.inner.read(&mut dropped)?;
            self.inner.books.put_back(&dropped);
        }
        self.inner.reader.end_abandoned();
        let (facts, deaf) = self.listen_again()?;
        self.refuse_to_delete_all(&facts, reason)?;
        let counts = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        self.evidence.begin_anew(counts);
        self.inner.profile.begin_anew_at(&facts);
        let blind = blindness(&mut self.inner, self.evidence.is_told())?;
        self.scan_all(&facts);
        Ok(Event::Restarted { blind, deaf })
    }

    /// Begins to listen anew, and tells what the server is, and why it cannot be listened to, if it
    /// cannot. Where that is refused the scan goes on without it: every key is still to be read, and
    /// only exactness is lost.
    fn listen_again(&mut self) -> Result<(Facts, Option<String>)> {
        /// The server may be restarted between the two questions.
        const ATTEMPTS: u32 = 3;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let begun = listen_to_anybody(&mut self.inner, &self.connect)?;
            // Asked after that: a source that was restarted while nothing was in flight is known
            // to be another process only when it is asked something.
            let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
            let refusal = match begun {
                Ok(tracker) if tracker.listens_to(facts.run_id.as_deref()) => {
                    self.tracker = tracker;
                    return Ok((facts, None));
                }
                Ok(_) if attempts < ATTEMPTS => continue,
                Ok(_) => another_server(&self.inner),
                Err(refusal) => refusal,
            };
            if self.rounds.follows() {
                let what = "changes can no longer be followed";
                return Err(anyhow::Error::new(refusal).context(what));
            }
            return Ok((facts, Some(refusal.words())));
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
        let given = self.inner.books.written();
        let is_node = self.inner.node.is_some();
        let would_delete = given > 0 || !self.heritage.is_empty();
        let matters = is_node || !self.inner.options.takes_back;
        if !is_another || !would_delete || !matters || !self.holds_nothing(facts)? {
            self.process.clone_from(&facts.run_id);
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
             came so far are left as they are, and nothing is deleted because of it",
            plural(given, "record")
        ))
    }

    fn holds_nothing(&mut self, facts: &Facts) -> Result<bool> {
        loop {
            match self.inner.holds_nothing(facts) {
                Err(error) if self.inner.link.may_resume(&error) => self.inner.resume(error)?,
                done => return done,
            }
        }
    }

    /// All of every database is to be read again, and then what was given and is not met again.
    fn scan_all(&mut self, facts: &Facts) {
        // Those that held keys before stay: they may again.
        let inner = &mut self.inner;
        let rows = facts.keyspace.as_deref().unwrap_or_default();
        inner.databases.learn(rows, &inner.options.selection);
        inner.reader.read_databases(inner.databases.numbers());
        if let Some(node) = &mut inner.node {
            node.read_all();
        }
        if let Some(given) = inner.books.given_mut() {
            given.begin_again();
        }
    }

    /// Not exact: what is known at the end.
    fn reckon(&mut self) -> Result<Event> {
        let from_ms = self.inner.findings.scan_from_ms();
        let to_ms = self.inner.clock().now_ms();
        self.tracker.barrier();
        // Nobody looked since exactness was given up.
        let mut missed_some = self.rounds.has_lost_track();
        if let Event::Swaps(Some(_)) = self.count_swaps()? {
            missed_some = true;
        }
        if self.evidence.has_swapped() {
            self.inner.swapped_meanwhile();
        } else if self.inner.profile.became_another() {
            self.inner.swaps_untold(ANOTHER_PROCESS);
        }
        // A replica that no longer hears of its primary tells no changes, and lacks them.
        if self.inner.facts().role.replica && !missed_some {
            let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
            missed_some = !facts.role.is_told || facts.role.out_of_step.is_some();
        }
        self.read_functions()?;
        // Not every change was heard of.
        let given = self.inner.books.given();
        missed_some |= given.is_some_and(Given::forgot_unheard);
        let (waiting, rescan) = self.tracker.waiting();
        Ok(Event::Reckoned(Reckoning {
            waiting,
            rescan,
            missed_some,
            from_ms,
            to_ms,
        }))
    }

    /// Function libraries: in an exact end they come with the final round.
    fn read_functions(&mut self) -> Result<()> {
        if self.inner.functions.by().is_none() {
            return Ok(());
        }
        let wish = self.inner.options.functions;
        let conn = &mut self.inner.conn;
        let libraries = function_dump(conn, wish, self.inner.profile.facts())?;
        // It gave them when the reading began: a refusal now leaves out what is known to be there.
        if let Some(reason) = libraries.unknown() {
            self.inner.findings.libraries_unread(reason);
        }
        self.functions = libraries.payload;
        Ok(())
    }
}

fn take_final(rounds: &mut Rounds) -> Result<FinalRound> {
    let round = rounds.take_final();
    round.ok_or_else(|| anyhow!("there is no final round; this is a bug"))
}
