//! A cluster as a source: every primary (or a replica of it) is a part, which the pipe reads on a
//! thread of its own; between two stages nothing is under way, and what concerns several nodes is
//! decided.
//!
//! First every part reads all keys of its slots, and what changed meanwhile. Then the cluster is
//! looked at: slots that lie elsewhere now, or whose keys a node did not answer for, are read anew
//! from whoever has them, until nothing moved any more. What comes in a later stage is newer than
//! everything before, so that no older record wins. Then comes the last round: of each shard at its
//! own instant, or of all of them at one, while writes are paused. If slots moved meanwhile it was
//! not the last.
//!
//! [`stages`] decides what comes next; [`actions`] does it.

mod actions;
mod asking;
mod libraries;
mod look;
mod loss;
mod open;
mod opening;
mod part;
mod parts;
mod pause;
mod plan;
mod reassign;
mod stages;
mod verdict;
mod view;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use redis_migrate_format::header::{Mode, Node, SourceFacts};

use self::asking::Astray;
use self::libraries::{ClusterLibraries, When};
use self::look::{Bystanders, Question, ask, look};
use self::open::Opener;
use self::part::Part;
use self::parts::Parts;
use self::pause::InPause;
use self::plan::Plan;
use self::stages::{Event, Stage, Stages};
use self::verdict::Verdict;
use self::view::View;
use self::wanted::{left_out, wanted_slots};
use super::server::{ServerSourceOptions, SlotSet};
use super::{Estimate, Source};
use crate::endpoint::ConnectOptions;
use crate::exit::usage;
use crate::ledger::SourceReport;
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::{Consistency, ReadFrom};
use crate::record::{Batch, Context, Record};
use crate::server::Conn;
use crate::server::facts::Keyspace;
use crate::source::server::Follow;
use crate::stop::Stop;

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

/// Reads a cluster.
pub struct ClusterSource {
    opener: Opener,
    parts: Parts,
    /// The slots that are read at all.
    wanted: SlotSet,
    /// How the cluster lay when slots were last reassigned.
    view: View,
    /// How it lay when the last round began.
    before_last: Option<View>,
    /// A view that was taken, and what is to be reassigned because of it.
    plan: Option<(View, Plan)>,
    bystanders: Bystanders,
    astray: Astray,
    /// An attempt of all shards to read their last round at one instant.
    in_pause: Option<InPause>,
    libraries: ClusterLibraries,
    verdict: Verdict,
    stages: Stages,
}

impl ClusterSource {
    /// Opens every node that is to be read. `conn` leads to any node of the cluster.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for nodes that are not there and what does not go together, what is refused that
    /// is needed, and connection errors.
    pub fn open(mut conn: Conn, options: ClusterOptions, observer: Arc<Observer>) -> Result<Self> {
        let pauses = options.consistency == Consistency::Pause;
        if pauses && options.read_from == ReadFrom::Replica {
            return Err(usage(
                "--consistency pause pauses writes at the primaries: it does not work with \
                 --read-from replica",
            ));
        }
        conn.doing("asking for the layout of the cluster");
        let mut view = View::of(vec![ask(&mut conn)?])
            .ok_or_else(|| anyhow!("the cluster does not tell its layout"))?;
        let wanted = wanted_slots(&view, &options)?;
        let verdict = Verdict::new(left_out(&options, &wanted));
        let stages = Stages::new(options.max_wait, options.connect.retry_for, pauses);
        let mut opener = Opener::new(options, observer);
        let parts = opener.open_parts(&mut view, &wanted)?;
        let mut source = Self {
            opener,
            parts,
            wanted,
            view,
            before_last: None,
            plan: None,
            bystanders: Bystanders::default(),
            astray: Astray::default(),
            in_pause: None,
            libraries: ClusterLibraries::default(),
            verdict,
            stages,
        };
        source.begin()?;
        Ok(source)
    }

    /// What has to be known before the scan begins.
    fn begin(&mut self) -> Result<()> {
        // What moves from here on is seen.
        if let Ok(view) = self.look()? {
            self.view = view;
        }
        let observer = &self.opener.observer;
        match &self.view.unknown {
            // Whether keys may be missing for it is known at the end.
            Some(unknown) if unknown.may_pass => {
                observer.notice(&format!("{}; trying again", unknown.reason));
            }
            Some(unknown) => observer.warn(&format!(
                "{}: keys of such slots may be missing",
                unknown.reason
            )),
            None => {}
        }
        self.opener.together.settled(self.view.topology.clone());
        // If they cannot be had, now is the time to say so.
        self.read_libraries(When::AtFirst)
    }

    fn look(&mut self) -> Result<Result<View, String>> {
        let question = Question {
            connect: &self.opener.options.connect,
            wanted: &self.wanted,
            observer: &self.opener.observer,
        };
        look(question, &mut self.parts, &mut self.bystanders, &self.view)
    }

    fn read_libraries(&mut self, when: When) -> Result<()> {
        let Opener {
            options, observer, ..
        } = &self.opener;
        self.libraries
            .read(&mut self.parts, options, observer, when)
    }

    fn context(&mut self) -> Context {
        let part = self.parts.iter_mut().find(|part| part.is_live());
        part.and_then(|part| {
            let number = part.number;
            let scan = part.scan()?;
            Some(Context {
                source_time_ms: scan.clock().now_ms(),
                family: scan.facts().family,
                rdb_version: scan.facts().rdb_version(),
                node: number,
            })
        })
        .unwrap_or_default()
    }

    /// What it says of itself.
    pub fn facts(&mut self) -> SourceFacts {
        let nodes: Vec<Node> = self.parts.iter_mut().map(Part::node).collect();
        let first = self.parts.get_mut(0);
        SourceFacts {
            family: first.map(Part::family).unwrap_or_default(),
            mode: Mode::Cluster,
            nodes,
            label: None,
        }
    }

    /// Databases with keys, all shards together.
    pub fn databases(&mut self) -> Vec<Keyspace> {
        let mut rows: BTreeMap<u32, Keyspace> = BTreeMap::new();
        for row in self.parts.iter_mut().flat_map(Part::databases) {
            let sum = rows.entry(row.db).or_insert(Keyspace {
                keys: 0,
                expires: 0,
                ..row
            });
            sum.keys += row.keys;
            sum.expires += row.expires;
        }
        rows.into_values().filter(|row| row.keys > 0).collect()
    }

    /// Memory that the datasets take, together.
    pub fn used_memory(&mut self) -> Option<u64> {
        let parts = self.parts.iter_mut();
        parts.map(|part| part.scan()?.facts().memory.used).sum()
    }

    /// The clock of the first node.
    pub fn now_ms(&mut self) -> u64 {
        self.context().source_time_ms
    }

    /// What was left out of the cluster, in a line.
    pub fn left_out(&self) -> Option<&str> {
        self.verdict.left_out.as_deref()
    }
}

impl Source for ClusterSource {
    /// Without threads: one part after the other.
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            if let Some(payload) = self.libraries.take() {
                batch.context = self.context();
                batch.push(Record::Functions(payload));
                return Ok(true);
            }
            if matches!(self.stages.stage(), Stage::Functions | Stage::Over) {
                return Ok(false);
            }
            for part in self.parts.iter_mut() {
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
        self.opener.pace = Some(Arc::clone(pace));
        for part in self.parts.iter_mut() {
            part.keep_pace(pace);
        }
    }

    fn report(&self) -> SourceReport {
        let is_common = self.stages.is_common();
        self.verdict.report(&self.parts, &self.libraries, is_common)
    }

    fn estimate(&self) -> Estimate {
        let records = self.parts.iter().filter_map(|part| part.estimate().records);
        Estimate {
            records: Some(records.sum()),
            bytes: None,
        }
    }

    fn parts(&mut self) -> Vec<&mut dyn Source> {
        if matches!(self.stages.stage(), Stage::Functions | Stage::Over) {
            return Vec::new();
        }
        let live = self.parts.iter_mut().filter(|part| part.is_live());
        live.map(|part| part as &mut dyn Source).collect()
    }

    fn next_stage(&mut self) -> Result<bool> {
        self.carry_on(Event::StageEnded)?;
        Ok(self.stages.stage() != Stage::Over)
    }
}
