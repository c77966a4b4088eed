//! A cluster as a source: every primary (or a replica of it) is a part, which the pipe reads on a
//! thread of its own; between two stages nothing is under way, and what concerns several nodes is
//! settled.
//!
//! First every part reads all keys of its slots, and what changed meanwhile. Then the cluster is
//! looked at: slots that lie elsewhere now, or whose keys a node did not answer for, are read anew
//! from whoever has them (`reassign`), until nothing moved any more. What comes in a later stage is
//! newer than everything before, so that no older record wins. Then comes the last round: of each
//! shard at its own instant, or of all of them at one, while writes are paused (`pause`). If slots
//! moved meanwhile it was not the last.

mod asking;
mod bystanders;
mod libraries;
mod loss;
mod open;
mod part;
mod pause;
mod reassign;
mod verdict;
mod view;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::bystanders::Bystander;
use self::libraries::When;
use self::part::{Part, Reader};
use self::view::View;
use super::server::{Disturbed, Leftovers, ServerSourceOptions, SlotSet, Together};
use super::{Estimate, Source};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::ledger::{LibraryApart, SourceReport};
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::{Consistency, ReadFrom};
use crate::record::{Batch, Record};
use crate::server::patience::Patience;
use crate::source::server::{ConvergeOptions, Follow};
use crate::stop::Stop;

/// So many names may wait for the last round.
const FEW_NAMES: usize = 50;

/// Rounds of all shards before the last one.
const MAX_REFRESHES: u32 = 3;

/// How often it is looked whether slots that were on their way have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a cluster is read.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How to reach the node that was named; the others are reached likewise.
    pub connect: ConnectOptions,
    /// How each node is scanned.
    pub scan: ServerSourceOptions,
    /// How exact.
    pub consistency: Consistency,
    /// The longest that writes may be paused, and that a last round may take.
    pub max_pause: Duration,
    /// The longest that the rounds after the scan may take, and that slots on their way are waited
    /// for.
    pub max_wait: Duration,
    /// Whether to follow changes.
    pub follow: Option<Follow>,
    /// Whether COUNT of SCAN may grow where nodes are far away.
    pub adapts_scan_count: bool,
    /// Primaries or replicas.
    pub read_from: ReadFrom,
    /// One of so many equal shares of the slots: (which, of how many), from 1.
    pub shard: Option<(u32, u32)>,
    /// The shards of these nodes only: ids, or addresses as announced.
    pub nodes: Vec<String>,
    /// The user's wish to stop.
    pub stop: Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Parts scan, and read again what changed.
    Reading,
    /// Keys of slots that are on their way are read where they go.
    Asking,
    /// The last round.
    Last,
    /// The functions are given.
    Functions,
    Over,
}

/// Reads a cluster.
pub struct ClusterSource {
    options: ClusterOptions,
    observer: Arc<Observer>,
    together: Arc<Together>,
    parts: Vec<Part>,
    pace: Option<Arc<Pace>>,
    /// The number of the next node.
    next_number: u32,
    /// The slots that are read at all.
    wanted: SlotSet,
    /// The part that each slot is read from.
    holders: BTreeMap<u16, usize>,
    /// How the cluster lay when it was last settled.
    view: View,
    /// How it lay when the last round began.
    before_last: Option<View>,
    stage: Stage,
    /// What could not be read of a slot that is on its way.
    asked: Vec<(u32, Vec<u8>)>,
    /// How often it was asked for where the slot goes.
    times_asked: u32,
    refreshes: u32,
    /// Since when everything is read but the last round.
    resting_since: Option<Instant>,
    /// How long slots may not be answered for though nothing moves.
    stalled: Patience,
    functions: Option<Vec<u8>>,
    functions_given: u64,
    /// Why function libraries, if there are any, are not known, or not all of them.
    libraries_unread: Option<String>,
    /// Why no node gave any where there may be some.
    no_libraries: Option<String>,
    /// Function libraries of which not every code was taken, a line each.
    libraries_left: Vec<String>,
    /// Those that are not the same on every primary, for a comparison.
    libraries_apart: Vec<LibraryApart>,
    /// Some node gave its libraries, or said that it has none.
    libraries_seen: bool,
    /// What was left out, for the archive's header.
    left_out: Option<String>,
    /// All shards were read at one instant.
    common: bool,
    /// The pause of all shards that was asked for was not to be had.
    pause_missed: bool,
    /// Slots on their way, of which keys were not answered for: to be read again if they stay.
    unanswered: SlotSet,
    /// Slots on their way, of which keys were with their owner again: to be read again there.
    came_back: SlotSet,
    /// Keys that were read where slots go and may be leftovers there, by the node's id.
    leftovers: BTreeMap<String, Leftovers>,
    /// There were such keys.
    has_leftovers: bool,
    /// Primaries that are not read, by id.
    bystanders: BTreeMap<String, Bystander>,
    /// Those of them that count as failed, of which that was said.
    failed_told: BTreeSet<String>,
    /// What is not known of the whole, a line each.
    not_had: Vec<String>,
    started_ms: u64,
    from_ms: u64,
}

impl ClusterSource {
    /// What comes after a stage.
    fn after(&mut self) -> Result<bool> {
        if self.stage == Stage::Asking {
            self.end_asking()?;
        }
        let before = self.view.clone();
        if self.settle()? {
            // Slots that are still on their way then are asked for anew.
            self.retire_asking()?;
            self.resting_since = None;
            self.stage = Stage::Reading;
            return Ok(true);
        }
        if self.resumes_following() {
            self.stage = Stage::Reading;
            return Ok(true);
        }
        if self.waits_to_know()? || (self.stage == Stage::Asking && self.asks_again()?) {
            return Ok(true);
        }
        if self.stage == Stage::Last {
            return self.after_last(&before);
        }
        let converges = self.exact_is_possible();
        let open = self.open_slots();
        if !open.is_empty() && converges && self.waits_for(&open)? {
            return Ok(true);
        }
        if !open.is_empty() && self.stage != Stage::Asking {
            self.begin_asking(&open)?;
            self.stage = Stage::Asking;
            return Ok(true);
        }
        if converges && self.refresh() {
            self.stage = Stage::Reading;
            return Ok(true);
        }
        let mut converging = self.parts.iter_mut().filter_map(Part::converging);
        if converging.any(|source| !source.is_done()) {
            self.before_last = Some(self.view.clone());
            self.stage = Stage::Last;
            self.begin_last()?;
            return Ok(true);
        }
        self.end()
    }

    /// The last round was read. Is it?
    fn after_last(&mut self, view: &View) -> Result<bool> {
        let open = self.open_slots();
        let mut converging = self.parts.iter_mut().filter_map(Part::converging);
        let done = converging.all(|source| source.is_done());
        let still = self
            .before_last
            .as_ref()
            .is_some_and(|before| before.is_same(&self.view) && before.is_same(view));
        if done && (still || !self.exact_is_possible()) {
            if open.is_empty() {
                return self.end();
            }
            // Not exact anyway: what went with them meanwhile is read once more.
            self.before_last = None;
            self.begin_asking(&open)?;
            self.stage = Stage::Asking;
            return Ok(true);
        }
        let since = *self.resting_since.get_or_insert_with(host::now);
        if host::elapsed(since) > self.options.max_wait {
            self.give_up(&format!(
                "slots of the cluster kept moving for {} (--max-wait)",
                humantime::format_duration(self.options.max_wait)
            ));
        }
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.more_rounds();
        }
        self.stage = Stage::Reading;
        Ok(true)
    }

    /// Whether some shard may still be exact.
    fn exact_is_possible(&mut self) -> bool {
        let mut converging = self.parts.iter_mut().filter_map(Part::converging);
        converging.any(|source| !source.has_missed())
    }

    fn give_up(&mut self, reason: &str) {
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.give_up(reason);
        }
    }

    /// Following goes on after something was settled.
    fn resumes_following(&mut self) -> bool {
        let mut converging = self.parts.iter_mut().filter_map(Part::converging);
        converging.any(|source| source.is_following())
    }

    /// Slots on their way that are of interest, by where they go.
    fn open_slots(&self) -> BTreeMap<String, SlotSet> {
        let mut open: BTreeMap<String, SlotSet> = BTreeMap::new();
        for (&slot, to) in &self.view.open {
            for id in to.iter().filter(|_| self.wanted.contains(slot)) {
                open.entry(id.clone()).or_default().insert(slot);
            }
        }
        open
    }

    /// While slots are on their way nothing is exact: waits a little, and reads on.
    fn waits_for(&mut self, open: &BTreeMap<String, SlotSet>) -> Result<bool> {
        let since = *self.resting_since.get_or_insert_with(host::now);
        if host::elapsed(since) > self.options.max_wait {
            let slots: Vec<String> = open.values().map(SlotSet::show).collect();
            self.give_up(&format!(
                "slots were on their way from one node to another for {} (--max-wait): {}",
                humantime::format_duration(self.options.max_wait),
                slots.join(",")
            ));
            return Ok(false);
        }
        self.rest(LOOK_EVERY)?;
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.more_rounds();
        }
        self.stage = Stage::Reading;
        Ok(true)
    }

    /// Some shards waited for others, and much changed there.
    fn refresh(&mut self) -> bool {
        self.refreshes += 1;
        if self.refreshes > MAX_REFRESHES {
            return false;
        }
        let mut any = false;
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            if source.names_waiting() > FEW_NAMES {
                source.more_rounds();
                any = true;
            }
        }
        any
    }

    fn begin_last(&mut self) -> Result<()> {
        self.resting_since.get_or_insert_with(host::now);
        self.common = false;
        if self.options.consistency == Consistency::Pause
            && self.exact_is_possible()
            && self.pause_together()?
        {
            return Ok(());
        }
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.begin_last();
        }
        Ok(())
    }

    /// All keys were given; then come the functions. They do not belong to any slot: who is lost now
    /// is not needed any more.
    fn end(&mut self) -> Result<bool> {
        if self.fail_unserved()? {
            self.stage = Stage::Asking;
            return Ok(true);
        }
        self.retire_asking()?;
        self.tell_leftovers();
        if let Some(unknown) = &self.view.unknown {
            let reason = &unknown.reason;
            self.not_had
                .push(format!("{reason}: keys of such slots may be missing"));
        }
        self.functions = self.read_functions(When::AtTheEnd)?;
        self.stage = match self.functions {
            Some(_) => Stage::Functions,
            None => Stage::Over,
        };
        Ok(self.stage == Stage::Functions)
    }
}

impl Source for ClusterSource {
    /// Without threads: one part after the other.
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            if let Some(payload) = self.functions.take() {
                batch.context = self.context();
                self.functions_given += 1;
                batch.push(Record::Functions(payload));
                return Ok(true);
            }
            if matches!(self.stage, Stage::Functions | Stage::Over) {
                return Ok(false);
            }
            for part in &mut self.parts {
                if part.read(batch)? {
                    return Ok(true);
                }
            }
            if !self.next_stage()? {
                return Ok(false);
            }
        }
    }

    fn keep_pace(&mut self, pace: &Arc<Pace>) {
        self.pace = Some(Arc::clone(pace));
        for part in &mut self.parts {
            part.keep_pace(pace);
        }
    }

    fn report(&self) -> SourceReport {
        self.verdict()
    }

    fn estimate(&self) -> Estimate {
        let records = self.parts.iter().filter_map(|part| part.estimate().records);
        Estimate {
            records: Some(records.sum()),
            bytes: None,
        }
    }

    fn parts(&mut self) -> Vec<&mut dyn Source> {
        if matches!(self.stage, Stage::Functions | Stage::Over) {
            return Vec::new();
        }
        let live = self.parts.iter_mut().filter(|part| part.is_live());
        live.map(|part| part as &mut dyn Source).collect()
    }

    fn next_stage(&mut self) -> Result<bool> {
        match self.stage {
            Stage::Over => Ok(false),
            Stage::Functions => {
                self.stage = Stage::Over;
                Ok(false)
            }
            Stage::Reading | Stage::Asking | Stage::Last => self.after(),
        }
    }
}
