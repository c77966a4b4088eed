//! Asking the nodes for their view of the cluster: those that are read, and all other primaries,
//! since slots may be moving to one of them and no other node may know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::SlotSet;
use super::parts::Parts;
use super::view::{Look, Nodes, Unknown, View};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::observer::Observer;
use crate::server::cluster::{ClusterNode, Topology, options_for};
use crate::server::facts::{info, keyspace};
use crate::server::reply::{Reply, cmd};
use crate::server::resp::VALUE_LIMIT;
use crate::server::{Conn, ServerError};

/// How long to wait for a node that loads its dataset, where it is only asked for its view.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(2);

/// A node that imports more slots than this is not asked whether it has keys of them.
const MOST_COUNTED: usize = 100;

/// How long a node that could not be reached is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What all questions have in common.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// How to reach the node that the user named.
    pub connect: &'a ConnectOptions,
    /// The slots that are read.
    pub wanted: &'a SlotSet,
    pub observer: &'a Observer,
}

/// Asks every node that is read, or else any known node, and then all other primaries. The inner
/// `Err` says why there is no usable view yet.
///
/// # Errors
/// What a node refuses.
pub(super) fn look(
    question: Question<'_>,
    parts: &mut Parts,
    bystanders: &mut Bystanders,
    known: &View,
) -> Result<Result<View, String>> {
    let mut looks = Vec::new();
    for part in parts.iter_mut().filter(|part| part.is_owner()) {
        let Some(conn) = part.conn() else { continue };
        match ask(conn) {
            Ok(look) => looks.push(look),
            Err(error) if error.is_passing() => part.lost = Some(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    parts.retire_lost(question.observer)?;
    if looks.is_empty() {
        match look_anywhere(question.connect, known) {
            Ok(look) => looks.push(look),
            Err(error) => return Ok(Err(error)),
        }
    }
    let Some(mut view) = View::of(looks) else {
        return Ok(Err(
            "the nodes do not agree on which node serves which slots".to_owned(),
        ));
    };
    let mut wanted = question.wanted.iter();
    if let Some(slot) = wanted.find(|&slot| view.owner(slot).is_none()) {
        return Ok(Err(format!("no node serves slot {slot}")));
    }
    bystanders.ask_all(question, parts, &mut view);
    Ok(Ok(view))
}

/// Asks the node that the user named, or else any known node; the error is the last node's.
pub(super) fn look_anywhere(connect: &ConnectOptions, known: &View) -> Result<Look, String> {
    let mut last = "no node is known".to_owned();
    let shards = known.topology.shards.iter();
    let known = shards
        .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
        .map(|node| options_for(connect, node));
    for mut options in std::iter::once(connect.clone()).chain(known) {
        options.retry_for = options.retry_for.min(LOOK_FOR);
        match Conn::open(&options).and_then(|mut conn| ask(&mut conn)) {
            Ok(look) => return Ok(look),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Asks one node for its view of the cluster.
///
/// # Errors
/// A node that does not say who serves which slots, and connection errors.
pub(super) fn ask(conn: &mut Conn) -> Result<Look, ServerError> {
    let topology = Topology::ask(conn)?;
    Ok(Look::new(topology, ask_nodes(conn)?))
}

/// Asks one node which slots are being moved. The inner error says why it does not tell.
fn ask_nodes(conn: &mut Conn) -> Result<Result<Nodes, Unknown>, ServerError> {
    let answer = conn.ask_within(cmd("CLUSTER").arg("NODES"), VALUE_LIMIT)?;
    let told = match answer {
        Ok(Reply::Bulk(bytes)) => Nodes::read(&String::from_utf8_lossy(&bytes)),
        Ok(Reply::Status(text)) => Nodes::read(&text),
        Ok(_) => Err("it is not a text".to_owned()),
        Err(text) => Err(text),
    };
    let text = match told {
        Ok(mut nodes) => {
            let empty = without_keys(conn, nodes.coming())?;
            nodes.lacks_keys_of(empty);
            return Ok(Ok(nodes));
        }
        Err(text) => text,
    };
    let advice = match text.starts_with("NOPERM") {
        true => "; +cluster|nodes allows it",
        false => "",
    };
    Ok(Err(Unknown {
        reason: format!(
            "{} does not tell which slots are migrating (CLUSTER NODES: {text}{advice})",
            conn.address()
        ),
        may_pass: false,
    }))
}

/// Of the slots that this node imports those of which it has no key; none where it does not tell.
fn without_keys(conn: &mut Conn, coming: &BTreeSet<u16>) -> Result<BTreeSet<u16>, ServerError> {
    let mut empty = BTreeSet::new();
    if coming.is_empty() || coming.len() > MOST_COUNTED || conn.database() != Some(0) {
        return Ok(empty);
    }
    for &slot in coming {
        let count = cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot).to_owned();
        match conn.ask(&count)? {
            Ok(Reply::Int(0)) => empty.insert(slot),
            Ok(_) => false,
            Err(_) => return Ok(BTreeSet::new()),
        };
    }
    // COUNTKEYSINSLOT counts one database. Asked last, so that keys that came meanwhile are seen.
    let text = info(conn, Some("keyspace"))?;
    let rows = text.and_then(|text| keyspace(&text));
    let in_0_only = rows.is_some_and(|rows| rows.iter().all(|row| row.db == 0 || row.keys == 0));
    match in_0_only {
        true => Ok(empty),
        false => Ok(BTreeSet::new()),
    }
}

/// A primary that is asked but not read.
enum Bystander {
    Reached(Box<Conn>),
    /// Since when, and what is unknown because of it.
    NotReached(Instant, Unknown),
}

/// Primaries that are not read, by id: those without slots, and those of shards that are not wanted.
#[derive(Default)]
pub(super) struct Bystanders {
    nodes: BTreeMap<String, Bystander>,
    /// Failed nodes that were reported.
    failed_told: BTreeSet<String>,
}

impl Bystanders {
    /// Asks all primaries that have not said yet which slots are being moved.
    fn ask_all(&mut self, question: Question<'_>, parts: &Parts, view: &mut View) {
        for (id, has_failed) in view.not_asked() {
            // Nodes that are read were asked already.
            if parts.of_primary(&id).is_some() {
                continue;
            }
            let node = view.node(&id);
            if has_failed && !is_concerned(question.wanted, view, &id) {
                let name = node.map_or_else(|| id.clone(), |node| node.announced.to_string());
                self.tell_failed(question.observer, id, &name);
                continue;
            }
            let told = match node {
                Some(node) => self.ask(question.connect, &node),
                None => Err(Unknown {
                    reason: format!("node {id} has no address"),
                    may_pass: false,
                }),
            };
            match told {
                Ok(nodes) => view.add(nodes),
                Err(unknown) => view.lacks(unknown),
            }
        }
    }

    /// A node that the others consider dead, and that nothing is read from, is not waited for: many
    /// clusters list such nodes for ever, and users read single shards while others are down.
    fn tell_failed(&mut self, observer: &Observer, id: String, name: &str) {
        if self.failed_told.insert(id) {
            observer.notice(&format!(
                "node {name} counts as failed, and is not asked whether slots were migrating to \
                 it; CLUSTER FORGET removes it from the list of nodes"
            ));
        }
    }

    fn ask(&mut self, connect: &ConnectOptions, node: &ClusterNode) -> Result<Nodes, Unknown> {
        match self.nodes.remove(&node.id) {
            Some(Bystander::Reached(mut conn)) => {
                if let Ok(told) = ask_nodes(&mut conn) {
                    let reached = Bystander::Reached(conn);
                    self.nodes.insert(node.id.clone(), reached);
                    return told;
                }
            }
            Some(Bystander::NotReached(since, unknown)) if host::elapsed(since) < AGAIN_AFTER => {
                let again = Bystander::NotReached(since, unknown.clone());
                self.nodes.insert(node.id.clone(), again);
                return Err(unknown);
            }
            _ => {}
        }
        let (known, told) = reach(connect, node);
        self.nodes.insert(node.id.clone(), known);
        told
    }
}

/// Connects to a node and asks it.
fn reach(connect: &ConnectOptions, node: &ClusterNode) -> (Bystander, Result<Nodes, Unknown>) {
    let mut options = options_for(connect, node);
    options.retry_for = options.retry_for.min(LOOK_FOR);
    let asked = Conn::open(&options).and_then(|mut conn| {
        conn.doing("asking which slots are migrating");
        Ok((ask_nodes(&mut conn)?, conn))
    });
    match asked {
        Ok((told, conn)) => (Bystander::Reached(Box::new(conn)), told),
        Err(error) => {
            let at = &node.announced;
            let unknown = Unknown {
                reason: format!(
                    "primary {at} cannot be asked whether slots are migrating to it: {error} \
                     (--node-map {at}=HOST:PORT if it is at another address from here)"
                ),
                may_pass: error.is_passing(),
            };
            let failed = Bystander::NotReached(host::now(), unknown.clone());
            (failed, Err(unknown))
        }
    }
}

/// Whether a slot that is read belongs to this node or is known to be moving to it.
fn is_concerned(wanted: &SlotSet, view: &View, id: &str) -> bool {
    let goes_to = |slot| view.open.get(&slot).is_some_and(|to| to.contains(id));
    let mut wanted = wanted.iter();
    wanted.any(|slot| view.owner(slot) == Some(id) || goes_to(slot))
}
