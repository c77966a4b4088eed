//! Asking the nodes how the cluster lies: those that are read, and all other primaries, since slots
//! may be on their way to one of these, and it may be that nobody else tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::SlotSet;
use super::parts::Parts;
use super::view::{Look, Nodes, Unknown, View};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::observer::Observer;
use crate::server::Conn;
use crate::server::cluster::{ClusterNode, options_for};

/// How long a node that is only asked for what it knows may load its dataset.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(2);

/// A node that was not reached is not tried again for so long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Who is asked for what.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// How the node that was named is reached.
    pub connect: &'a ConnectOptions,
    /// The slots that are read.
    pub wanted: &'a SlotSet,
    pub observer: &'a Observer,
}

/// Asks every node that is read, or else any that is known, and all other primaries; the inner `Err`
/// says why there is nothing to go by yet.
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
        match Look::ask(conn) {
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
            "the nodes do not agree on who serves which slots".to_owned()
        ));
    };
    let mut wanted = question.wanted.iter();
    if let Some(slot) = wanted.find(|&slot| view.owner(slot).is_none()) {
        return Ok(Err(format!("nobody serves slot {slot}")));
    }
    bystanders.ask_all(question, parts, &mut view);
    Ok(Ok(view))
}

/// Asks the node that was named, or any that is known; the error is of the last one.
pub(super) fn look_anywhere(connect: &ConnectOptions, known: &View) -> Result<Look, String> {
    let mut last = "no node is known".to_owned();
    let shards = known.topology.shards.iter();
    let known = shards
        .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
        .map(|node| options_for(connect, node));
    for mut options in std::iter::once(connect.clone()).chain(known) {
        options.retry_for = options.retry_for.min(LOOK_FOR);
        match Conn::open(&options).and_then(|mut conn| Look::ask(&mut conn)) {
            Ok(look) => return Ok(look),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// A node that is asked, and not read.
enum Bystander {
    Reached(Box<Conn>),
    /// Since when, and what follows.
    NotReached(Instant, Unknown),
}

/// Primaries that are not read, by id: those without slots, and those of shards that are not wanted.
#[derive(Default)]
pub(super) struct Bystanders {
    nodes: BTreeMap<String, Bystander>,
    /// Those that count as failed, of which that was said.
    failed_told: BTreeSet<String>,
}

impl Bystanders {
    /// Asks all primaries that did not tell yet which slots are on their way.
    fn ask_all(&mut self, question: Question<'_>, parts: &Parts, view: &mut View) {
        for (id, has_failed) in view.not_asked() {
            // Whoever is read was asked already.
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

    /// A node that the others take for dead, and that nothing is read from, is not waited for: many
    /// clusters keep such a node on their list for ever, and single shards are read where others died.
    fn tell_failed(&mut self, observer: &Observer, id: String, name: &str) {
        if self.failed_told.insert(id) {
            observer.notice(&format!(
                "node {name} counts as failed, and is not asked whether slots were on their way to \
                 it; CLUSTER FORGET takes it off the list"
            ));
        }
    }

    fn ask(&mut self, connect: &ConnectOptions, node: &ClusterNode) -> Result<Nodes, Unknown> {
        match self.nodes.remove(&node.id) {
            Some(Bystander::Reached(mut conn)) => {
                if let Ok(told) = Nodes::ask(&mut conn) {
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
        conn.doing("asking which slots are on their way");
        Ok((Nodes::ask(&mut conn)?, conn))
    });
    match asked {
        Ok((told, conn)) => (Bystander::Reached(Box::new(conn)), told),
        Err(error) => {
            let at = &node.announced;
            let unknown = Unknown {
                reason: format!(
                    "primary {at} cannot be asked whether slots are on their way to it: {error} \
                     (--node-map {at}=HOST:PORT if it is at another address from here)"
                ),
                may_pass: error.is_passing(),
            };
            let failed = Bystander::NotReached(host::now(), unknown.clone());
            (failed, Err(unknown))
        }
    }
}

/// Whether a slot that is read belongs to a node, or is known to be on its way to it.
fn is_concerned(wanted: &SlotSet, view: &View, id: &str) -> bool {
    let goes_to = |slot| view.open.get(&slot).is_some_and(|to| to.contains(id));
    let mut wanted = wanted.iter();
    wanted.any(|slot| view.owner(slot) == Some(id) || goes_to(slot))
}
