//! A live server as a sink: RESTORE, pipelined, with every reply matched to its key.
//!
//! What may be in flight is bounded in bytes. A key that is in flight is never sent again before
//! its reply is there, so records of the same key take effect in their order, whatever has to be
//! repeated, and wherever it goes then.
//!
//! A standalone destination has one `Lane`, a cluster one for each primary, and
//! `routes` says which key goes where. All lanes are worked by one thread: it sends to all of
//! them, and reads the replies of the one that has enough in flight, while the others work.
//! What becomes of a connection that is lost is told in `retry`, of a primary that dies in
//! `confirm`.

pub mod access;
mod answer;
mod by_commands;
pub mod commands;
pub mod compare;
mod confirm;
mod dangers;
mod drained;
mod flow;
pub mod foresee;
pub mod functions;
pub mod gate;
mod graphs;
pub mod held;
pub mod key_classes;
mod lane;
pub mod libraries;
mod limits;
mod modules;
mod outcome;
mod past;
mod prepare;
mod progress;
pub mod refusal;
mod retry;
mod routes;
mod stood;
mod sweep;
pub mod target;
mod try_out;
pub mod unfit;
mod window;
pub mod witness;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::Result;

use self::commands::Ticket;
use self::foresee::{KeyRights, Way};
use self::gate::Databases;
use self::graphs::Graphs;
use self::held::{Held, Repeats};
use self::lane::Lane;
use self::retry::Losses;
use self::routes::Routes;
use self::stood::Stood;
use self::sweep::Listed;
use self::target::Ready;
use self::window::Window;
use self::witness::Witnesses;
use super::{Accepted, Seen, Sink};
use crate::census::Census;
use crate::dialect::Lookalike;
use crate::endpoint::ConnectOptions;
use crate::exit::Usage;
use crate::host;
use crate::ledger::{Changes, SinkReport, SourceReport};
use crate::observer::Observer;
use crate::own_writes::{Fingerprint, FingerprintSet, OwnWrites};
use crate::policy::{AllowLoss, FunctionPolicy, Method, OnConflict};
use crate::record::{Batch, Context, Family, KeyRecord, Origin, Record, Value};
use crate::server::Conn;
use crate::server::facts::{Facts, ServerClock};
use crate::server::patience::Patience;
use crate::server::reconnect::Retries;
use crate::server::reply::{cmd, from_reply};
use crate::stop::Stop;

/// How to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerSinkOptions {
    /// Conflicts.
    pub on_conflict: OnConflict,
    /// Function libraries.
    pub functions: FunctionPolicy,
    /// Refuse larger values.
    pub max_value_bytes: Option<u64>,
    /// Losses that are accepted.
    pub allow_loss: AllowLoss,
    /// Write every value anew in universal forms.
    pub sanitize: bool,
    /// Send values that can stay as they are without looking at them.
    pub no_check: bool,
    /// By RESTORE or by native commands.
    pub method: Method,
    /// Different keys of the source may come under one name: it is noticed, if origins are kept.
    pub may_collide: bool,
    /// A key may come with several records.
    pub repeats: Repeats,
    /// What arrived is deleted at the source.
    pub deletes_source: bool,
    /// Change nothing, say what would happen.
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    /// A command before the next one, whose answer speaks of what this one did (ASKING, DEL of a
    /// graph).
    Prelude(&'static str),
    /// Goes to the lane's next database; see [`lane::Move`].
    Select,
    /// `own`: in place of what this run wrote earlier.
    Restore { replace: bool, own: bool },
    /// Reads back a key that stood already.
    Compare,
    /// Dry run: could it be written?
    Try(Way),
    /// Dry run: is it there?
    Look,
    /// A tombstone of a key that this run did not write: does it stand?
    Ask,
    /// Removes a key because its record is past its time, or a tombstone.
    Delete { expired: bool },
    /// Removes a temporary key that is left, or may be, by this command.
    CleanUp(&'static str),
    /// Asks whether a replica has what was acknowledged.
    Wait,
}

/// As what a record was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Restored,
    ReplacedOwn,
    Deleted,
    AlreadyGone,
    Expired,
}

impl Action {
    /// Whether the destination holds something else behind it.
    fn writes(self) -> bool {
        matches!(self, Self::Restore { .. } | Self::Delete { .. })
    }

    /// Whether it is about a key that somebody gave.
    fn concerns_key(self) -> bool {
        !matches!(
            self,
            Self::Prelude(_) | Self::Select | Self::CleanUp(_) | Self::Wait
        )
    }
}

/// When the destination did the write that it has acknowledged. WAIT speaks of what was written on
/// its own connection: it says nothing of what was found to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    /// With this very command.
    Now,
    /// Before, perhaps on another connection.
    Before,
}

/// A record on its way. Thousands are in flight, and each is moved several times: what is not always
/// there is boxed.
struct Sent {
    action: Action,
    record: KeyRecord,
    /// How its value goes out by RESTORE.
    ready: Ready,
    /// What was changed in it for that, if anything was.
    changes: Option<Box<Changes>>,
    /// It goes out by native commands instead; what of them is unanswered.
    by_commands: Option<Option<Box<Ticket>>>,
    origin: Option<Box<Origin>>,
    /// Its value as it came, where somebody will compare it with the source.
    original: Option<Box<Value>>,
    /// What stands there in its place, where that may differ from it.
    seen: Option<Box<Seen>>,
    /// Classes of key metadata that were left out of it.
    classes_left_out: Vec<u32>,
    /// Nobody knows whether the destination keeps each class of its key metadata.
    has_doubtful_classes: bool,
    context: Context,
    print: Fingerprint,
    bytes: usize,
    /// Number of the batch it came with, from 1; 0 for what came with none.
    batch: u64,
    /// The lane that it was made ready for.
    at: usize,
    /// The lane that it goes to this once, after ASKING.
    ask_to: Option<usize>,
    /// It may have been written already: nobody heard.
    is_doubtful: bool,
    /// It was acknowledged and counted, and is only checked again.
    counted: Option<Counted>,
    /// It was acknowledged by a primary that is gone, and is given to its successor.
    is_recalled: bool,
    /// How often it was sent to another node.
    turns: u8,
    /// How often the connection was lost while it was written alone.
    strikes: u8,
    /// How often its answer was not one that there can be.
    odd_answers: u8,
    /// It is a graph: what stands in its place is deleted before it, and not replaced.
    is_graph: bool,
}

impl Sent {
    fn new(action: Action, record: KeyRecord, context: Context, print: Fingerprint) -> Self {
        Self {
            action,
            record,
            ready: Ready::AsIs,
            changes: None,
            by_commands: None,
            origin: None,
            original: None,
            seen: None,
            classes_left_out: Vec::new(),
            has_doubtful_classes: false,
            context,
            print,
            bytes: 0,
            batch: 0,
            at: 0,
            ask_to: None,
            is_doubtful: false,
            counted: None,
            is_recalled: false,
            turns: 0,
            strikes: 0,
            odd_answers: 0,
            is_graph: false,
        }
    }

    /// It was answered with something that is no answer; whether that was once too often.
    fn is_odd_again(&mut self) -> bool {
        const MAX_ODD_ANSWERS: u8 = 3;
        self.odd_answers = self.odd_answers.saturating_add(1);
        self.odd_answers >= MAX_ODD_ANSWERS
    }

    fn without_key(action: Action) -> Self {
        let record = KeyRecord {
            db: 0,
            key: Vec::new(),
            value: Value::Compact(Vec::new()),
            expire_at_ms: None,
            eviction: None,
        };
        Self::new(action, record, Context::default(), 0)
    }
}

/// Writes a live server, or a cluster.
pub struct ServerSink {
    /// One for a standalone destination; for a cluster one for each node that was ever needed.
    lanes: Vec<Lane>,
    /// Of a cluster.
    routes: Option<Routes>,
    /// From when `--ttl rebase` counts, Unix ms.
    rebased_from_ms: Option<u64>,
    /// How many databases a cluster has.
    cluster_databases: u32,
    /// Which databases are not to be had.
    databases: Databases,
    /// A lane is being drained to go to another database.
    is_entering: bool,
    /// That the destination became a replica was told.
    told_demoted: bool,
    /// That it cuts long expiries was told.
    told_cut_short: bool,
    /// Classes of key metadata of which it was told that they are left out, or may be.
    told_classes: BTreeSet<u32>,
    /// A dry run tried whether native commands may be used.
    tried_native: bool,
    /// A dry run: which keys may be written, once that was asked.
    key_rights: Option<KeyRights>,
    clock: ServerClock,
    options: ServerSinkOptions,
    observer: Arc<Observer>,
    stop: Stop,
    accepted: Option<Box<dyn Accepted>>,
    /// In a dry run: the libraries that would have been written by now.
    overwritten: HashSet<String>,
    /// The values come straight from live servers of this family and version.
    twin_of: Option<(Family, String)>,
    /// RESTORE is not to be used, or not to be had.
    all_by_commands: bool,
    /// Graphs that were sent.
    graphs: Graphs,
    own: OwnWrites,
    /// Of those, what stood there before this run wrote anything.
    stood: Stood,
    /// Where what this run wrote came from, if different keys may come under one name.
    own_origins: Option<OwnWrites>,
    /// Conflicts that are not judged before the end.
    held: Held,
    /// Keys by which a later run sees that what was acknowledged stands, where it may come.
    witnesses: Option<Witnesses>,
    /// A process that had acknowledged something was started anew, or replaced.
    memory_lost: bool,
    /// Why nothing more may be deleted at the source, until the run ends because of it.
    halted: Option<anyhow::Error>,
    /// What is in flight on any lane, or to be sent again.
    prints: FingerprintSet,
    /// Whether some of that was acknowledged by a primary that is gone: no later record of its key
    /// goes out before it.
    recalls: bool,
    /// Those of them that are about to be queued; one within the other.
    in_hand: Vec<Fingerprint>,
    /// What is to be sent again.
    again: VecDeque<Sent>,
    /// But not at once.
    pause: bool,
    /// Temporary keys that could not be removed.
    left_behind: Listed,
    /// Keys that stand without their expiry, because PEXPIREAT is not allowed.
    lasting: Listed,
    /// How long nothing may be got done.
    patience: Patience,
    /// Batches so far.
    batches: u64,
    /// What may be in flight on a lane.
    window: Window,
    /// The same before several lanes shared it.
    whole_window: Window,
    losses: Losses,
    report: SinkReport,
    /// Which keys stand there because of this run.
    census: Census,
}

impl ServerSink {
    /// Prepares to write what `conn`, made by `to`, leads to.
    ///
    /// # Errors
    /// Connection errors, and a cluster that is not whole.
    pub fn open(
        to: &ConnectOptions,
        mut conn: Conn,
        options: ServerSinkOptions,
        accepted: Option<Box<dyn Accepted>>,
        observer: Arc<Observer>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut retries = Retries::new(to);
        let (facts, clock, window) = loop {
            conn.doing("asking the destination what it is");
            let facts = Facts::ask(&mut conn);
            let asked = host::now();
            match facts.and_then(|facts| Ok((facts, ServerClock::ask(&mut conn)?))) {
                Ok((facts, clock)) => {
                    break (facts, clock, Window::for_round_trip(host::elapsed(asked)));
                }
                Err(lost) => conn = retries.connect(to, lost, &|| stop.is_set())?,
            }
            conn.heed(to, &stop.flag());
        };
        let mut sink = Self {
            lanes: Vec::new(),
            routes: None,
            rebased_from_ms: None,
            cluster_databases: u32::MAX,
            databases: Databases::default(),
            is_entering: false,
            told_demoted: false,
            told_cut_short: false,
            told_classes: BTreeSet::new(),
            tried_native: false,
            key_rights: None,
            clock,
            options,
            observer,
            stop: stop.clone(),
            accepted,
            twin_of: None,
            all_by_commands: options.method == Method::Commands,
            graphs: Graphs::default(),
            own: OwnWrites::default(),
            stood: Stood::default(),
            own_origins: options.may_collide.then(OwnWrites::default),
            held: Held::default(),
            witnesses: None,
            memory_lost: false,
            overwritten: HashSet::new(),
            halted: None,
            prints: FingerprintSet::default(),
            recalls: false,
            in_hand: Vec::new(),
            again: VecDeque::new(),
            pause: false,
            left_behind: Listed::default(),
            lasting: Listed::default(),
            patience: Patience::new(to.retry_for),
            batches: 0,
            window,
            whole_window: window,
            losses: Losses::default(),
            report: SinkReport::default(),
            census: Census::default(),
        };
        if facts.lookalike.is_some_and(Lookalike::has_one_database) {
            sink.cluster_databases = 1;
        }
        if facts.cluster {
            sink.cluster_databases = cluster_databases(&mut conn)?;
            sink.open_cluster(to, &mut conn)?;
        } else {
            let mut lane = Lane::new(to.clone(), None);
            let met = lane.meet_as(conn, facts);
            sink.lanes.push(lane);
            match met {
                Err(lost) if lost.is_passing() => {
                    sink.lanes[0].why = Some(lost);
                    sink.connect(0)?;
                }
                met => _ = met?,
            }
        }
        sink.say_what_may_go_wrong()?;
        Ok(sink)
    }

    /// The values will come straight from a live server of this family and version.
    pub fn expect_twin(&mut self, family: Family, version: &str) {
        self.twin_of = (!version.is_empty()).then(|| (family, version.to_owned()));
    }

    /// What the server said of itself, or the first primary of a cluster.
    pub fn facts(&self) -> &Facts {
        &self.lanes[0].facts
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.clock
    }

    /// Refuses what would go into a database that a cluster does not have, before anything is
    /// written. `moves`: databases of the source, and where each goes.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn check_databases(
        &self,
        moves: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<(), Usage> {
        let mut moves = moves.into_iter();
        match moves.find(|(_, to)| *to >= self.cluster_databases) {
            None => Ok(()),
            Some((from, to)) => {
                let mapped = match from == to {
                    true => String::new(),
                    false => format!(" as database {to}"),
                };
                let what = match self.facts().lookalike {
                    Some(lookalike) => lookalike.name(),
                    None => "a cluster",
                };
                Err(Usage(format!(
                    "the destination is {what}, which has database 0 only, and keys of database \
                     {from} would go there{mapped}; --map-db {from}:0 (or *:0) puts them into \
                     database 0, --db leaves databases out"
                )))
            }
        }
    }

    /// Warns if `coming_bytes` of values are likely to exceed the destination's memory.
    pub fn check_memory(&self, coming_bytes: u64) {
        let (mut all_max, mut all_used) = (0_u64, 0_u64);
        for lane in &self.lanes {
            let (Some(max @ 1..), Some(used)) = (lane.facts.maxmemory, lane.facts.used_memory)
            else {
                return;
            };
            all_max = all_max.saturating_add(max);
            all_used = all_used.saturating_add(used);
        }
        if all_used.saturating_add(coming_bytes) > all_max {
            self.observer.warn(&format!(
                "the destination is likely to run full: maxmemory {}, used {}, coming at least {}",
                crate::units::bytes_text(all_max),
                crate::units::bytes_text(all_used),
                crate::units::bytes_text(coming_bytes),
            ));
        }
    }

    /// Reads what is still due after a failure, only to count what was applied.
    fn count_rest(&mut self) {
        for at in 0..self.lanes.len() {
            // These had not gone out, and will not.
            let held = self.lanes[at].next.take().map(|next| next.held);
            self.again.extend(held.into_iter().flatten());
            // What cannot be read stays in flight and is counted below.
            let _lost = self.count_lane(at);
        }
        let lanes = self.lanes.iter().flat_map(Lane::unanswered);
        let open = lanes
            .chain(&self.again)
            .filter(|sent| sent.counted.is_none() && sent.action.concerns_key());
        self.report.unacknowledged = open.count() as u64;
    }

    fn count_lane(&mut self, at: usize) -> Result<()> {
        if let Some(conn) = &mut self.lanes[at].conn {
            conn.flush()?;
        }
        while let Some(sent) = self.lanes[at].sent.front() {
            if self.lanes[at].conn.is_none() {
                break;
            }
            if matches!(sent.action, Action::Compare)
                || (sent.by_commands.is_some() && matches!(sent.action, Action::Restore { .. }))
            {
                let due = self.lanes[at].sent.len();
                let read = self.read_one(at);
                // What ends the run may be true of the next one as well: each is to be counted.
                if self.lanes[at].sent.len() >= due {
                    read?;
                }
                continue;
            }
            let action = sent.action;
            let answer = answer::read(action, self.lanes[at].conn()?.item()?);
            // Which answer belongs to what is not known any more.
            let Ok(answer) = answer else { break };
            let accepted = answer.is_ok();
            let count = answer.ok();
            let Some(sent) = self.take_sent(at) else {
                break;
            };
            match sent.action {
                Action::Restore { .. } if accepted => self.census.add_print(sent.print, false),
                Action::Delete { .. } if accepted => self.census.add_print(sent.print, true),
                _ => {}
            }
            match sent.action {
                _ if sent.counted.is_some() => {}
                Action::Restore { own, .. } if accepted => _ = self.count_write(&sent, own)?,
                // Perhaps it is there, and perhaps it is ours.
                Action::Restore { .. } if sent.is_doubtful => self.again.push_back(sent),
                Action::Restore { .. } => self.report.refused += 1,
                Action::Delete { .. } if !accepted => self.report.refused += 1,
                // `sweep` tries once more.
                Action::CleanUp(_) if !accepted => self.again.push_back(sent),
                Action::Delete { expired: true } => self.report.expired += 1,
                Action::Delete { .. } if count == Some(1) => self.report.deleted += 1,
                Action::Ask | Action::Delete { .. } if count == Some(0) => {
                    self.report.already_gone += 1;
                }
                Action::Ask | Action::Delete { .. } => {
                    self.left_alone(sent, "was deleted at the source".to_owned())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn closing_report(mut self) -> SinkReport {
        if self.options.repeats == Repeats::No {
            self.report.left_standing = self.report.skipped + self.report.conflicts;
        }
        self.report.keys = self.census.keys();
        let told = [
            self.left_behind.told_as_left(),
            self.lasting.told_as_lasting(),
        ];
        self.report.problems.extend(told.into_iter().flatten());
        self.report.memory_lost = self.memory_lost;
        self.report
    }

    /// The run failed: says what became of the source's keys all the same.
    fn leave_source(&mut self) {
        let left = self.report.left();
        if let Some(mut accepted) = self.accepted.take() {
            accepted.left(left);
            // What failed is told already, or is the consequence of it.
            let _ = accepted.finish();
            (self.report.source_deleted, self.report.source_kept) = accepted.counts();
            self.report.source_kept_because = accepted.kept_because();
        }
    }

    fn complete(&mut self) -> Result<()> {
        self.drain()?;
        self.judge_held()?;
        self.confirm_all()?;
        if let Some(accepted) = &mut self.accepted {
            accepted.left(self.report.left());
            let finished = accepted.finish();
            (self.report.source_deleted, self.report.source_kept) = accepted.counts();
            self.report.source_kept_because = accepted.kept_because();
            self.accepted = None;
            finished?;
        }
        self.count_evictions()?;
        self.count_upheavals()?;
        self.tell_losses();
        Ok(())
    }
}

/// Valkey has clusters of several databases from 9.0 on.
fn cluster_databases(conn: &mut Conn) -> Result<u32> {
    let answer = conn.try_query(cmd("CONFIG").arg("GET").arg("cluster-databases"))?;
    let pair = answer
        .ok()
        .and_then(|value| from_reply::<Vec<String>>(value).ok());
    Ok(pair.and_then(|pair| pair.get(1)?.parse().ok()).unwrap_or(1))
}

impl Sink for ServerSink {
    fn write(&mut self, mut batch: Batch) -> Result<()> {
        self.batches += 1;
        self.by_database(&mut batch);
        let context = batch.context;
        let mut origins = batch.origins.into_iter();
        for record in batch.records {
            let origin = origins.next();
            match record {
                Record::Key(record) => self.take_key(record, origin, context)?,
                Record::Deleted { db, key } => self.take_tombstone(db, key, context)?,
                Record::Functions(payload) => {
                    self.drain()?;
                    self.take_functions(&payload)?;
                }
                _ => {}
            }
        }
        self.flush()?;
        // A value larger than the window is not kept in flight beside the next one.
        let is_large = self
            .lanes
            .iter()
            .any(|lane| lane.unanswered_bytes() > self.window.bytes);
        if is_large || !self.again.is_empty() {
            self.drain()
        } else {
            Ok(())
        }
    }

    fn idle(&mut self) -> Result<()> {
        // A key that is ours but in the way is written again only when its refusal is read.
        self.drain()
    }

    fn finish(mut self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        let done = self.complete();
        if done.is_err() {
            self.count_rest();
            self.sweep();
            // Why the run failed is told already.
            let _ = self.judge_held();
            self.leave_source();
        }
        (self.closing_report(), done)
    }

    fn abort(mut self: Box<Self>, _: &str) -> SinkReport {
        self.count_rest();
        self.sweep();
        let _ = self.judge_held();
        self.leave_source();
        self.closing_report()
    }
}
