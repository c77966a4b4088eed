//! Function libraries, one after the other: in a cluster every primary has to have each of them.

use std::collections::{HashSet, VecDeque};

use super::databases::{Databases, Gate};
use super::fleet::Fleet;
use super::ledger::{Ledger, Say};
use super::settings::Settings;
use crate::observer::{FailureKind, KeyFailure};
use crate::policy::{FunctionPolicy, OnConflict};
use crate::rdb::FUNCTIONS_VERSION;
use crate::server::conn::asks_for_patience;
use crate::sink::server::functions::{Fate, Library, Put, Standings, split_libraries};

/// The libraries that are being restored.
pub(super) struct Libraries {
    queue: VecDeque<Library>,
    /// The nodes that the first of them goes to, under one and the same topology.
    primaries: Vec<usize>,
    /// What became of it at the first of these.
    fates: Vec<(Fate, usize)>,
    /// A connection was lost over it: it may be there already.
    is_doubtful: bool,
    /// In a dry run: the libraries that would have been written by now.
    overwritten: HashSet<String>,
}

/// What libraries need next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: all are done.
    Nothing,
    /// A connection to this lane.
    Connection(usize),
    /// What is in flight on this lane is answered.
    Quiet(usize),
    /// This database on this lane.
    Database(usize, u32),
    /// What this lane's node accepts.
    Target(usize),
    /// The library is given to this lane's node.
    Put(usize),
}

impl Libraries {
    /// Those of a FUNCTION DUMP. `overwritten`: what an earlier dump of a dry run would have written.
    pub fn of(dump: &[u8], overwritten: HashSet<String>, ledger: &mut Ledger) -> Self {
        let queue = split_libraries(dump).unwrap_or_else(|reason| {
            ledger.report().functions.taken += 1;
            refuse(ledger, "all", FailureKind::Refused, reason, None);
            Vec::new()
        });
        Self {
            queue: queue.into(),
            primaries: Vec::new(),
            fates: Vec::new(),
            is_doubtful: false,
            overwritten,
        }
    }

    /// In a dry run: the libraries that would have been written.
    pub fn into_overwritten(self) -> HashSet<String> {
        self.overwritten
    }

    /// What is needed next.
    pub fn need(
        &mut self,
        fleet: &Fleet,
        databases: &mut Databases,
        settings: &Settings,
        ledger: &mut Ledger,
    ) -> Need {
        if settings.options.functions == FunctionPolicy::Skip {
            let skipped = self.queue.drain(..).count() as u64;
            ledger.report().functions.taken += skipped;
            ledger.report().functions.skipped += skipped;
        }
        loop {
            if self.queue.is_empty() {
                return Need::Nothing;
            }
            if self.primaries.is_empty() {
                self.primaries = fleet.primaries();
            }
            let Some(&at) = self.primaries.get(self.fates.len()) else {
                self.conclude(fleet, ledger);
                continue;
            };
            let lane = fleet.lane(at);
            if !lane.is_up() {
                return Need::Connection(at);
            }
            if !lane.flight.is_empty() {
                return Need::Quiet(at);
            }
            // Libraries belong to no database, but what is accepted is tried in one.
            if let Some(db) = databases.first()
                && databases.gate(lane, db, ledger) == Gate::Select
            {
                return Need::Database(at, db);
            }
            return match lane.takes.target {
                None => Need::Target(at),
                Some(_) => Need::Put(at),
            };
        }
    }

    /// What is to be put to a node.
    pub fn put<'a>(&'a self, fleet: &Fleet, at: usize, settings: &Settings) -> Option<Put<'a>> {
        let library = self.queue.front()?;
        let lane = fleet.lane(at);
        // Read completely above, so that it may be signed for another version.
        let target = lane.takes.target.as_ref();
        let versions = target.map(|target| &target.accepts().versions);
        let version =
            versions.and_then(|versions| versions.nearest(library.version(), FUNCTIONS_VERSION));
        let options = &settings.options;
        Some(Put {
            library,
            version: version.unwrap_or(library.version()),
            standings: Standings {
                replaces: options.functions == FunctionPolicy::Replace
                    || options.on_conflict == OnConflict::Replace,
                skips: options.on_conflict == OnConflict::Skip,
                may_be_lost: options.allow_loss.functions,
                is_doubtful: self.is_doubtful,
                may_move: fleet.may_move(at),
            },
            waits: lane.kept.waits_for_replicas(),
            dry_run: options.dry_run,
            title: lane.facts.title(),
            overwritten: &self.overwritten,
        })
    }

    /// All is to be done again, under the topology that there is then.
    pub fn begin_again(&mut self) {
        self.is_doubtful = true;
        self.primaries.clear();
        self.fates.clear();
    }

    /// What became of it at a node. The error: what the node may say otherwise in a while, or another
    /// one in its place.
    pub fn answered(&mut self, at: usize, fate: Fate, fleet: &Fleet) -> Result<(), String> {
        if let Fate::Refused(_, text, _) = &fate
            && may_pass(fleet.may_move(at), text)
        {
            return Err(text.clone());
        }
        if let (Fate::Foreseen, Some(library)) = (&fate, self.queue.front()) {
            self.overwritten.insert(library.name.clone());
        }
        self.fates.push((fate, at));
        Ok(())
    }

    /// The first of them was given to all nodes.
    fn conclude(&mut self, fleet: &Fleet, ledger: &mut Ledger) {
        let Some(library) = self.queue.pop_front() else {
            return;
        };
        self.primaries.clear();
        self.is_doubtful = false;
        let mut refused = None;
        let (mut restored, mut lost, mut left_standing) = (false, false, false);
        for (fate, at) in self.fates.drain(..) {
            match fate {
                Fate::Restored | Fate::Foreseen => restored = true,
                Fate::Equal => {}
                Fate::LeftOut => left_standing = true,
                Fate::Lost => lost = true,
                Fate::Refused(kind, reason, hint) => {
                    left_standing |= kind == FailureKind::Conflict;
                    let place = match fleet.is_cluster() {
                        true => format!("{}: ", fleet.lane(at).address()),
                        false => String::new(),
                    };
                    refused.get_or_insert((kind, place + &reason, hint));
                }
            }
        }
        let report = ledger.report();
        report.functions.taken += 1;
        report.functions.left_standing += u64::from(left_standing);
        match refused {
            Some((kind, reason, hint)) => refuse(ledger, &library.name, kind, reason, hint),
            None if restored => {
                report.functions.restored += 1;
                ledger.say(Say::Library(library.name, library.code));
            }
            None => {
                report.functions.skipped += 1;
                report.changes.functions_lost += u64::from(lost);
            }
        }
    }
}

/// Whether a node may say something else in a while, or another one in its place.
pub(in crate::sink::server) fn may_pass(may_move: bool, text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or("");
    let is_redirection = matches!(code, "READONLY" | "MOVED" | "ASK");
    asks_for_patience(text) || text.starts_with("NOREPLICAS") || (may_move && is_redirection)
}

fn refuse(
    ledger: &mut Ledger,
    name: &str,
    kind: FailureKind,
    reason: String,
    hint: Option<String>,
) {
    ledger.report().functions.refused += 1;
    ledger.say(Say::Failed(KeyFailure {
        db: 0,
        key: format!("function library {name}").into_bytes(),
        kind,
        reason,
        hint,
    }));
}

#[cfg(test)]
super::tests::named!(Need: Nothing, Connection, Quiet, Database, Target, Put);
