//! Opening a cluster, and its nodes one by one.

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::header::{Mode, Node, SourceFacts};

use super::libraries::When;
use super::part::is_lost;
use super::reassign::{ASK_EVERY, LOOK_FOR};
use super::view::Look;
use super::wanted::{left_out, slots_of, wanted_slots};
use super::*;
use crate::exit::Usage;
use crate::host::unix_ms;
use crate::policy::ReadFunctions;
use crate::record::Context;
use crate::server::Conn;
use crate::server::cluster::{ClusterNode, options_for};
use crate::server::facts::{Facts, Keyspace, info};
use crate::server::patience::Patience;
use crate::source::server::{ConvergingSource, Owner, Place, ServerSource};

/// After a connection was lost it is tried so often to connect again; then somebody else is looked
/// for who has the slots.
const RETRIES: u32 = 2;

impl ClusterSource {
    /// Opens every node that is to be read. `conn` leads to any node of the cluster.
    ///
    /// # Errors
    /// [`Usage`] for nodes that are not there and what does not go together, what is refused that
    /// is needed, and connection errors.
    pub fn open(mut conn: Conn, options: ClusterOptions, observer: Arc<Observer>) -> Result<Self> {
        if options.consistency == Consistency::Pause && options.read_from == ReadFrom::Replica {
            return Err(Usage(
                "--consistency pause holds up writes at the primaries: it does not go with \
                 --read-from replica"
                    .to_owned(),
            )
            .into());
        }
        conn.doing("asking how the cluster lies");
        let view = View::of(vec![Look::ask(&mut conn)?])
            .ok_or_else(|| anyhow!("the cluster does not say how it lies"))?;
        let wanted = wanted_slots(&view, &options)?;
        let left_out = left_out(&options, &wanted);
        let mut source = Self {
            together: Arc::new(Together::default()),
            parts: Vec::new(),
            pace: None,
            next_number: 0,
            holders: BTreeMap::new(),
            before_last: None,
            stage: Stage::Reading,
            asked: Vec::new(),
            times_asked: 0,
            refreshes: 0,
            resting_since: None,
            stalled: Patience::new(options.connect.retry_for),
            functions: None,
            functions_given: 0,
            libraries_unread: None,
            no_libraries: None,
            libraries_left: Vec::new(),
            libraries_apart: Vec::new(),
            libraries_seen: false,
            left_out,
            common: false,
            pause_missed: false,
            unanswered: SlotSet::default(),
            came_back: SlotSet::default(),
            leftovers: BTreeMap::new(),
            has_leftovers: false,
            bystanders: BTreeMap::new(),
            failed_told: BTreeSet::new(),
            not_had: Vec::new(),
            started_ms: unix_ms(),
            from_ms: unix_ms(),
            wanted,
            view,
            options,
            observer,
        };
        source.open_parts()?;
        // Before the scan begins: what moves from here on is seen.
        if let Ok(view) = source.look()? {
            source.view = view;
        }
        match &source.view.unknown {
            // Whether keys may be missing for it is known at the end.
            Some(unknown) if unknown.may_pass => {
                let reason = &unknown.reason;
                source.observer.notice(&format!("{reason}; trying again"));
            }
            Some(unknown) => source.observer.warn(&format!(
                "{}: keys of such slots may be missing",
                unknown.reason
            )),
            None => {}
        }
        source.together.settled(source.view.topology.clone());
        // If they cannot be had, now is the time to say so.
        source.read_functions(When::AtFirst)?;
        Ok(source)
    }

    /// Opens whoever serves the slots that are wanted. A node that dies meanwhile is waited for, or
    /// for its replica to take its place, as it is later on.
    fn open_parts(&mut self) -> Result<()> {
        let mut patience = Patience::new(self.options.connect.retry_for);
        let mut said = false;
        loop {
            let (primary, error) = match self.try_to_open_parts() {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let waits = is_lost(&error)
                && self.options.connect.retries > 0
                && patience.lasts()
                && self.may_be_replaced(&primary);
            if !waits {
                return Err(error);
            }
            if !std::mem::replace(&mut said, true) {
                self.observer.notice(&format!(
                    "{error:#}; waiting for it, or for a replica to take its place"
                ));
            }
            self.wait_for_owner(&primary, &mut patience)?;
        }
    }

    /// The inner error comes with the id of the primary it is about.
    fn try_to_open_parts(&mut self) -> Result<(), (String, anyhow::Error)> {
        self.parts.clear();
        self.holders.clear();
        self.next_number = 0;
        for shard in self.view.topology.shards.clone() {
            let of_shard = slots_of(std::slice::from_ref(&shard));
            let slots = SlotSet::of(of_shard.filter(|&slot| self.wanted.contains(slot)));
            if slots.is_empty() {
                continue;
            }
            let part = self
                .open_part(&shard.primary, &shard.replicas, &slots)
                .with_context(|| format!("the node that serves slots {}", slots.show()))
                .map_err(|error| (shard.primary.id.clone(), error))?;
            let at = self.parts.len();
            self.parts.push(part);
            self.holders.extend(slots.iter().map(|slot| (slot, at)));
        }
        Ok(())
    }

    /// Whether a replica of this primary can be reached. Where none can, waiting is in vain, or the
    /// nodes announce addresses that lead nowhere.
    fn may_be_replaced(&self, primary: &str) -> bool {
        let mut shards = self.view.topology.shards.iter();
        let shard = shards.find(|shard| shard.primary.id == primary);
        shard.is_some_and(|shard| {
            let mut replicas = shard.replicas.iter();
            replicas.any(|replica| self.reaches(replica))
        })
    }

    /// Waits until somebody else serves the slots of this primary, or it answers again.
    fn wait_for_owner(&mut self, primary: &str, patience: &mut Patience) -> Result<()> {
        loop {
            self.rest(ASK_EVERY)?;
            if let Ok(look) = self.look_anywhere()
                && let Some(view) = View::of(vec![look])
                && self.wanted.iter().all(|slot| view.owner(slot).is_some())
            {
                self.view = view;
            }
            let known = self.view.node(primary);
            let serves = self
                .wanted
                .iter()
                .any(|slot| self.view.owner(slot) == Some(primary));
            let answers = || known.is_some_and(|node| self.reaches(&node));
            if !serves || answers() || !patience.lasts() {
                return Ok(());
            }
        }
    }

    /// Opens a primary, or a replica of it.
    pub(super) fn open_part(
        &mut self,
        primary: &ClusterNode,
        replicas: &[ClusterNode],
        slots: &SlotSet,
    ) -> Result<Part> {
        let (node, conn, primary_conn) = match self.options.read_from {
            ReadFrom::Primary => (primary, self.connect(primary)?, None),
            ReadFrom::Replica => self.connect_replica(primary, replicas)?,
        };
        let place = Place {
            slots: slots.clone(),
            asking: false,
            replica: primary_conn.is_some(),
        };
        let mut scan = ServerSource::open_node(
            conn,
            &place,
            self.scan_options(),
            Arc::clone(&self.observer),
        )?;
        let mut connect = options_for(&self.options.connect, node);
        connect.retries = connect.retries.min(RETRIES);
        // A replica has to be told again that it may answer.
        if !place.replica {
            // While changes are followed the wish to stop means that the last round is to come.
            let stop = self.options.stop.of_pipe(self.options.follow.is_some());
            scan.endure(connect.clone(), stop);
        }
        if let Some(pace) = &self.pace {
            scan.keep_pace(pace);
        }
        if self.options.adapts_scan_count {
            scan.adapt_scan_count()?;
        }
        let keys_at_first = scan.databases().iter().map(|row| row.keys).sum();
        let reader = self.reader(scan, connect)?;
        self.next_number += 1;
        Ok(Part {
            number: self.next_number - 1,
            primary: primary.id.clone(),
            reader,
            primary_conn,
            lost: None,
            asking: false,
            keys_at_first,
            took_over: false,
            share: self.share_of(&primary.id, slots),
        })
    }

    /// Opens a node that slots are on their way to.
    pub(super) fn open_asking(
        &mut self,
        node: &ClusterNode,
        slots: &SlotSet,
        names: Vec<(u32, Vec<u8>)>,
    ) -> Result<Part> {
        let place = Place {
            slots: slots.clone(),
            asking: true,
            replica: false,
        };
        let conn = self.connect(node)?;
        let options = self.scan_options();
        let mut scan = ServerSource::open_node(conn, &place, options, Arc::clone(&self.observer))?;
        if self.options.consistency != Consistency::Scan {
            scan.remember_given()?;
        }
        scan.heed_owners(self.owners_of(slots));
        scan.read_names(names)?;
        self.next_number += 1;
        Ok(Part {
            number: self.next_number - 1,
            primary: node.id.clone(),
            reader: Reader::Scan(Box::new(scan)),
            primary_conn: None,
            lost: None,
            asking: true,
            keys_at_first: 0,
            took_over: false,
            share: (0, 0),
        })
    }

    /// Who owns these slots, each with its own.
    fn owners_of(&self, slots: &SlotSet) -> Vec<Owner> {
        let mut by_owner: BTreeMap<&str, SlotSet> = BTreeMap::new();
        for slot in slots.iter() {
            if let Some(owner) = self.view.owner(slot) {
                by_owner.entry(owner).or_default().insert(slot);
            }
        }
        let owner = |(id, slots): (&str, SlotSet)| {
            let node = self.view.node(id)?;
            let mut connect = options_for(&self.options.connect, &node);
            connect.retry_for = connect.retry_for.min(LOOK_FOR);
            Some(Owner {
                slots,
                connect,
                conn: None,
            })
        };
        by_owner.into_iter().filter_map(owner).collect()
    }

    /// How many slots of a primary are read, and how many it serves; 0 where none is read yet.
    fn share_of(&self, primary: &str, slots: &SlotSet) -> (u64, u64) {
        let read = slots.len() as u64;
        let shards = self.view.topology.shards.iter();
        let of_primary = shards.filter(|shard| shard.primary.id == primary);
        let served = of_primary.flat_map(|shard| slots_of(std::slice::from_ref(shard)));
        match read {
            0 => (0, 0),
            _ => (read, served.count() as u64),
        }
    }

    fn scan_options(&self) -> ServerSourceOptions {
        ServerSourceOptions {
            // They are the same everywhere, and read once, for all.
            functions: ReadFunctions::No,
            ..self.options.scan.clone()
        }
    }

    fn connect(&self, node: &ClusterNode) -> Result<Conn> {
        Ok(Conn::open(&options_for(&self.options.connect, node))?)
    }

    /// Whether a node answers just now. One that loads its dataset does not.
    fn reaches(&self, node: &ClusterNode) -> bool {
        let mut options = options_for(&self.options.connect, node);
        options.retry_for = Duration::ZERO;
        Conn::open(&options).is_ok()
    }

    /// The first replica that is in step, or else the primary; and the primary besides.
    fn connect_replica<'a>(
        &self,
        primary: &'a ClusterNode,
        replicas: &'a [ClusterNode],
    ) -> Result<(&'a ClusterNode, Conn, Option<Conn>)> {
        let mut at_primary = self.connect(primary)?;
        for replica in replicas {
            let opened = self.connect(replica).and_then(|mut conn| {
                let facts = Facts::ask(&mut conn)?;
                let text = info(&mut conn, Some("replication"))?.unwrap_or_default();
                Ok((conn, facts, text))
            });
            let (conn, facts, text) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.observer
                        .notice(&format!("replica {}: {error:#}", replica.announced));
                    continue;
                }
            };
            if let Some(reason) = why_not_read(&facts) {
                self.observer.notice(&format!(
                    "replica {} is not read: {reason}; another is looked for",
                    replica.announced
                ));
                continue;
            }
            let ahead = info(&mut at_primary, Some("replication"))?.unwrap_or_default();
            let behind = offset(&ahead, "master_repl_offset:")
                .zip(offset(&text, "slave_repl_offset:"))
                .map_or(0, |(primary, replica)| primary.saturating_sub(replica));
            if behind > 0 {
                self.observer.notice(&format!(
                    "replica {} is {} behind its primary",
                    replica.announced,
                    crate::units::bytes_text(behind)
                ));
            }
            return Ok((replica, conn, Some(at_primary)));
        }
        self.observer.warn(&format!(
            "primary {} has no replica that can be read; it is read itself",
            primary.announced
        ));
        Ok((primary, at_primary, None))
    }

    fn reader(&mut self, scan: ServerSource, connect: ConnectOptions) -> Result<Reader> {
        let asked = self.options.consistency;
        if asked == Consistency::Scan {
            return Ok(Reader::Scan(Box::new(scan)));
        }
        let converge = ConvergeOptions {
            consistency: asked,
            max_pause: self.options.max_pause,
            max_wait: Some(self.options.max_wait),
            follow: self.options.follow.clone(),
            together: Some(Arc::clone(&self.together)),
        };
        match ConvergingSource::open(scan, connect, converge)? {
            Ok(source) => Ok(Reader::Converge(Box::new(source))),
            Err((scan, refusal)) if self.options.follow.is_some() => {
                let refusal = scan.facts().untold(refusal);
                let what = "--follow needs CLIENT TRACKING of every node of the cluster";
                Err(anyhow::Error::new(refusal).context(what))
            }
            Err((mut scan, refusal)) => {
                let refusal = scan.facts().untold(refusal);
                let text = format!(
                    "a node does not tell what changes ({}): a plain scan of it, exact only if \
                     nothing is written meanwhile",
                    refusal.words()
                );
                if asked == Consistency::Auto {
                    self.observer.notice(&text);
                } else {
                    self.observer.warn(&text);
                    scan.miss_consistency();
                }
                Ok(Reader::Scan(Box::new(scan)))
            }
        }
    }

    pub(super) fn context(&mut self) -> Context {
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
        SourceFacts {
            family: self.parts.first_mut().map(Part::family).unwrap_or_default(),
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
        parts.map(|part| part.scan()?.facts().used_memory).sum()
    }

    /// The clock of the first node.
    pub fn now_ms(&mut self) -> u64 {
        self.context().source_time_ms
    }

    /// What was left out of the cluster, in a line.
    pub fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }
}

/// Why a replica is not to be read: only one that is known to hear of its primary has what it has.
fn why_not_read(facts: &Facts) -> Option<String> {
    if !facts.knows_role {
        return Some(
            "it refuses INFO and ROLE, so it is not known whether it is in step with its primary"
                .to_owned(),
        );
    }
    if !facts.replica {
        return Some("it is no replica any more".to_owned());
    }
    facts.out_of_step.clone()
}

/// An offset that INFO replication tells.
fn offset(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replica_that_is_known_to_be_in_step_is_read() {
        let replica = Facts {
            knows_role: true,
            replica: true,
            ..Facts::default()
        };
        assert_eq!(why_not_read(&replica), None);
        let stale = Facts {
            out_of_step: Some("its link is down".to_owned()),
            ..replica.clone()
        };
        let promoted = Facts {
            replica: false,
            ..replica
        };
        for facts in [stale, promoted, Facts::default()] {
            assert!(why_not_read(&facts).is_some(), "{facts:?}");
        }
    }
}
