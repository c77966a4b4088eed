//! Opening the nodes of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::look::{LOOK_FOR, look_anywhere};
use super::opening::{Action, Event, Opening};
use super::part::{Part, Reader, is_lost};
use super::parts::Parts;
use super::stages::ASK_EVERY;
use super::view::View;
use super::wanted::slots_of;
use super::{ClusterOptions, ServerSourceOptions, SlotSet};
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::host;
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::{Consistency, ReadFrom, ReadFunctions};
use crate::server::Conn;
use crate::server::cluster::{ClusterNode, Shard, options_for};
use crate::server::facts::{Facts, info};
use crate::source::Source as _;
use crate::source::server::{
    ConvergeOptions, ConvergingSource, NodeScan, Owner, ServerSource, Together,
};

/// How often a lost connection is tried again before another owner of the slots is looked for.
const RETRIES: u32 = 2;

/// Opens nodes.
pub(super) struct Opener {
    pub options: ClusterOptions,
    pub observer: Arc<Observer>,
    /// What all parts have in common.
    pub together: Arc<Together>,
    /// For the parts that are opened from here on.
    pub pace: Option<Arc<Pace>>,
    next_number: u32,
}

impl Opener {
    pub fn new(options: ClusterOptions, observer: Arc<Observer>) -> Self {
        Self {
            options,
            observer,
            together: Arc::new(Together::default()),
            pace: None,
            next_number: 0,
        }
    }

    /// Waits, unless the user wants to stop. While following, a stop ends the following instead.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn rest(&self, time: Duration) -> Result<()> {
        if self.options.stop.is_set() && self.options.follow.is_none() {
            return Err(Interrupted.into());
        }
        host::sleep(time);
        Ok(())
    }

    /// Opens the nodes that serve the wanted slots. If one dies meanwhile, this waits for it or for a
    /// replica to take its place, and updates `view`.
    ///
    /// # Errors
    /// What a node refuses, and connections.
    pub fn open_parts(&mut self, view: &mut View, wanted: &SlotSet) -> Result<Parts> {
        let connect = &self.options.connect;
        let mut opening = Opening::new(connect.retries, connect.retry_for);
        loop {
            let (primary, error) = match self.try_to_open_parts(view, wanted) {
                Ok(parts) => return Ok(parts),
                Err(failed) => failed,
            };
            let mut event = Event::NotOpened {
                is_lost: is_lost(&error),
            };
            'waiting: loop {
                for action in opening.on(event, host::now()) {
                    match action {
                        Action::Open => break 'waiting,
                        Action::Fail => return Err(error),
                        Action::Say => self.observer.notice(&format!(
                            "{error:#}; waiting for it, or for a replica to take its place"
                        )),
                        Action::LookForReplica => {
                            event = Event::Replica(self.reaches_replica(view, &primary));
                        }
                        Action::RestAndLook => {
                            self.rest(ASK_EVERY)?;
                            event = Event::Looked(self.has_owner(view, wanted, &primary));
                        }
                    }
                }
            }
        }
    }

    /// The error comes with the id of the primary that it is about.
    fn try_to_open_parts(
        &mut self,
        view: &View,
        wanted: &SlotSet,
    ) -> Result<Parts, (String, anyhow::Error)> {
        let mut parts = Parts::default();
        self.next_number = 0;
        for shard in &view.topology.shards {
            let of_shard = slots_of(std::slice::from_ref(shard));
            let slots = SlotSet::of(of_shard.filter(|&slot| wanted.contains(slot)));
            if slots.is_empty() {
                continue;
            }
            let part = self
                .open_part(shard, &slots)
                .with_context(|| format!("the node that serves slots {}", slots.show()))
                .map_err(|error| (shard.primary.id.clone(), error))?;
            let at = parts.push(part);
            parts.hold(&slots, at);
        }
        Ok(parts)
    }

    /// Whether a replica of this primary can be reached.
    fn reaches_replica(&self, view: &View, primary: &str) -> bool {
        let mut shards = view.topology.shards.iter();
        let shard = shards.find(|shard| shard.primary.id == primary);
        shard.is_some_and(|shard| {
            let mut replicas = shard.replicas.iter();
            replicas.any(|replica| self.reaches(replica))
        })
    }

    /// Updates the view: whether another node serves the slots of this primary now, or it answers
    /// again.
    fn has_owner(&self, view: &mut View, wanted: &SlotSet, primary: &str) -> bool {
        if let Ok(look) = look_anywhere(&self.options.connect, view)
            && let Some(now) = View::of(vec![look])
            && wanted.iter().all(|slot| now.owner(slot).is_some())
        {
            *view = now;
        }
        let mut wanted = wanted.iter();
        let serves = wanted.any(|slot| view.owner(slot) == Some(primary));
        let answers = || view.node(primary).is_some_and(|node| self.reaches(&node));
        !serves || answers()
    }

    /// Opens a primary, or a replica of it, to read these slots.
    ///
    /// # Errors
    /// What the node refuses, and the connection.
    pub fn open_part(&mut self, shard: &Shard, slots: &SlotSet) -> Result<Part> {
        let primary = &shard.primary;
        let (node, conn, primary_conn) = match self.options.read_from {
            ReadFrom::Primary => (primary, self.connect(primary)?, None),
            ReadFrom::Replica => self.connect_replica(primary, &shard.replicas)?,
        };
        let place = NodeScan {
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
        // A new connection to a replica would have to say READONLY again.
        if !place.replica {
            // While following, a stop means that the last round comes next.
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
        Ok(Part {
            number: self.number(),
            primary: primary.id.clone(),
            reader,
            primary_conn,
            lost: None,
            asking: false,
            keys_at_first,
            took_over: false,
            share: share_of(shard, slots),
        })
    }

    fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Opens a node that imports slots.
    ///
    /// # Errors
    /// What the node refuses, and the connection.
    pub fn open_asking(
        &mut self,
        view: &View,
        node: &ClusterNode,
        slots: &SlotSet,
        names: Vec<(u32, Vec<u8>)>,
    ) -> Result<Part> {
        let place = NodeScan {
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
        scan.heed_owners(owners_of(&self.options.connect, view, slots));
        scan.read_names(names)?;
        Ok(Part {
            number: self.number(),
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

    fn scan_options(&self) -> ServerSourceOptions {
        ServerSourceOptions {
            // Read once for all nodes.
            functions: ReadFunctions::No,
            ..self.options.scan.clone()
        }
    }

    fn connect(&self, node: &ClusterNode) -> Result<Conn> {
        Ok(Conn::open(&options_for(&self.options.connect, node))?)
    }

    /// Whether a node answers right now. One that loads its dataset does not.
    fn reaches(&self, node: &ClusterNode) -> bool {
        let mut options = options_for(&self.options.connect, node);
        options.retry_for = Duration::ZERO;
        Conn::open(&options).is_ok()
    }

    /// The first replica that is in sync, or else the primary; besides a replica, also its primary.
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
                    "replica {} is not read: {reason}; looking for another",
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
            "primary {} has no replica that can be read; reading the primary itself",
            primary.announced
        ));
        Ok((primary, at_primary, None))
    }

    fn reader(&self, scan: ServerSource, connect: ConnectOptions) -> Result<Reader> {
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
                    "a node does not report changes ({}): a plain scan of it, exact only if \
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
}

/// How many slots of a shard are read, and how many it serves; zeros where none is read yet.
fn share_of(shard: &Shard, slots: &SlotSet) -> (u64, u64) {
    let read = slots.len() as u64;
    match read {
        0 => (0, 0),
        _ => (read, slots_of(std::slice::from_ref(shard)).count() as u64),
    }
}

/// The owners of these slots, each with its slots.
fn owners_of(connect: &ConnectOptions, view: &View, slots: &SlotSet) -> Vec<Owner> {
    let mut by_owner: BTreeMap<&str, SlotSet> = BTreeMap::new();
    for slot in slots.iter() {
        if let Some(owner) = view.owner(slot) {
            by_owner.entry(owner).or_default().insert(slot);
        }
    }
    let owner = |(id, slots): (&str, SlotSet)| {
        let node = view.node(id)?;
        let mut connect = options_for(connect, &node);
        connect.retry_for = connect.retry_for.min(LOOK_FOR);
        Some(Owner {
            slots,
            connect,
            conn: None,
        })
    };
    by_owner.into_iter().filter_map(owner).collect()
}

/// Why a replica must not be read: only one that is known to follow its primary has all the data.
fn why_not_read(facts: &Facts) -> Option<String> {
    if !facts.role.is_told {
        return Some(
            "it refuses INFO and ROLE, so it is not known whether it is in step with its primary"
                .to_owned(),
        );
    }
    if !facts.role.replica {
        return Some("it is not a replica any more".to_owned());
    }
    facts.role.out_of_step.clone()
}

/// An offset in INFO replication.
fn offset(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replica_that_is_known_to_be_in_step_is_read() {
        let mut replica = Facts::default();
        (replica.role.is_told, replica.role.replica) = (true, true);
        assert_eq!(why_not_read(&replica), None);
        let (mut stale, mut promoted) = (replica.clone(), replica);
        stale.role.out_of_step = Some("its link is down".to_owned());
        promoted.role.replica = false;
        for facts in [stale, promoted, Facts::default()] {
            assert!(why_not_read(&facts).is_some(), "{facts:?}");
        }
    }
}
