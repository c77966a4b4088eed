//! Primaries that are not read: those without slots, and those of shards that are not wanted. Slots
//! may be on their way to them, and it may be that nobody else tells.

use super::view::{Nodes, Unknown};
use super::*;
use crate::host;
use crate::server::Conn;
use crate::server::cluster::{ClusterNode, options_for};

/// How long it may take to reach one.
const REACH_FOR: Duration = Duration::from_secs(2);

/// One that was not reached is not tried again for so long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A node that is asked, and not read.
pub(super) enum Bystander {
    Reached(Box<Conn>),
    /// Since when, and what follows.
    NotReached(Instant, Unknown),
}

impl ClusterSource {
    /// Asks all primaries that did not tell yet which slots are on their way.
    pub(super) fn ask_bystanders(&mut self, view: &mut View) {
        for (id, has_failed) in view.not_asked() {
            let node = view.node(&id);
            let name = node
                .as_ref()
                .map_or_else(|| id.clone(), |node| node.announced.to_string());
            // Whoever is read was asked already.
            let is_read = |part: &Part| part.primary == id && part.is_live() && !part.asking;
            if self.parts.iter().any(is_read) {
                continue;
            }
            if has_failed && !self.is_concerned(view, &id) {
                self.tell_failed(&id, &name);
                continue;
            }
            let told = match node {
                Some(node) => self.ask_bystander(&node),
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

    /// Whether a slot that is read belongs to a node, or is known to be on its way to it.
    fn is_concerned(&self, view: &View, id: &str) -> bool {
        let goes_to = |slot| view.open.get(&slot).is_some_and(|to| to.contains(id));
        let mut wanted = self.wanted.iter();
        wanted.any(|slot| view.owner(slot) == Some(id) || goes_to(slot))
    }

    /// A node that the others take for dead, and that nothing is read from, is not waited for: many
    /// clusters keep such a node on their list for ever, and single shards are read where others died.
    fn tell_failed(&mut self, id: &str, name: &str) {
        if self.failed_told.insert(id.to_owned()) {
            self.observer.notice(&format!(
                "node {name} counts as failed, and is not asked whether slots were on their way to \
                 it; CLUSTER FORGET takes it off the list"
            ));
        }
    }

    fn ask_bystander(&mut self, node: &ClusterNode) -> Result<Nodes, Unknown> {
        match self.bystanders.remove(&node.id) {
            Some(Bystander::Reached(mut conn)) => {
                if let Ok(told) = Nodes::ask(&mut conn) {
                    let reached = Bystander::Reached(conn);
                    self.bystanders.insert(node.id.clone(), reached);
                    return told;
                }
            }
            Some(Bystander::NotReached(since, unknown)) if host::elapsed(since) < AGAIN_AFTER => {
                let again = Bystander::NotReached(since, unknown.clone());
                self.bystanders.insert(node.id.clone(), again);
                return Err(unknown);
            }
            _ => {}
        }
        let mut options = options_for(&self.options.connect, node);
        options.retry_for = options.retry_for.min(REACH_FOR);
        let asked = Conn::open(&options).and_then(|mut conn| {
            conn.doing("asking which slots are on their way");
            Ok((Nodes::ask(&mut conn)?, conn))
        });
        match asked {
            Ok((told, conn)) => {
                let reached = Bystander::Reached(Box::new(conn));
                self.bystanders.insert(node.id.clone(), reached);
                told
            }
            Err(error) => {
                let at = &node.announced;
                let unknown = Unknown {
                    reason: format!(
                        "primary {at} cannot be asked whether slots are on their way to it: \
                         {error} (--node-map {at}=HOST:PORT if it is at another address from here)"
                    ),
                    may_pass: error.is_passing(),
                };
                let failed = Bystander::NotReached(host::now(), unknown.clone());
                self.bystanders.insert(node.id.clone(), failed);
                Err(unknown)
            }
        }
    }

    /// Which slots are on their way is not known: then nothing is exact. Waits for a node that may yet
    /// tell, and gives up where none will; `true` if there is something to be read on.
    pub(super) fn waits_to_know(&mut self) -> Result<bool> {
        let Some(unknown) = self.view.unknown.clone() else {
            return Ok(false);
        };
        if !self.exact_is_possible() {
            return Ok(false);
        }
        let since = *self.resting_since.get_or_insert_with(host::now);
        if !unknown.may_pass || host::elapsed(since) > self.options.max_wait {
            self.give_up(&unknown.reason);
        } else {
            self.rest(LOOK_EVERY)?;
        }
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.more_rounds();
        }
        self.stage = Stage::Reading;
        Ok(true)
    }
}
