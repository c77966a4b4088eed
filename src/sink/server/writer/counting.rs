//! After a run that failed: what is still answered is only counted.

use std::collections::BTreeMap;

use super::fleet::Way;
use super::io::Litter;
use super::item::{InFlight, Item, Task};
use super::traffic::Traffic;

/// Counts what an answer says; nothing follows from it.
pub(super) fn count_reply(traffic: &mut Traffic, at: usize, answer: Result<i64, String>) {
    let Some(InFlight::Record(item)) = traffic.take_sent(at) else {
        return;
    };
    let is_new = item.past.counted.is_none();
    match (item.task, answer) {
        (Task::Restore { own, .. }, Ok(_)) => {
            traffic.ledger.note_standing(item.print, false);
            if is_new {
                let is_first = traffic.memory.touch(item.print).unwrap_or_default();
                traffic.ledger.count_write(&item, own && !is_first);
            }
        }
        (Task::Delete { expired }, Ok(count)) => {
            traffic.ledger.note_standing(item.print, true);
            let records = traffic.ledger.records();
            match count {
                _ if !is_new => {}
                _ if expired => records.expired += 1,
                1 => records.deleted += 1,
                _ => records.already_gone += 1,
            }
        }
        // It is tried once more.
        (Task::CleanUp(_), Err(_)) => traffic.backlog.put_off(item),
        _ if !is_new => {}
        // Perhaps it is there, and perhaps it is ours.
        (Task::Restore { .. }, Err(_)) if item.past.is_doubtful => traffic.backlog.put_off(item),
        (Task::Restore { .. } | Task::Delete { .. }, Err(_)) => {
            traffic.ledger.records().refused += 1;
        }
        (Task::Ask, Ok(0)) => traffic.ledger.records().already_gone += 1,
        (Task::Ask, _) => {
            let reason = "was deleted at the source".to_owned();
            // What cannot be remembered any more is not told, either.
            let _ = traffic.outcome(at).left_alone(item, reason);
        }
        _ => {}
    }
}

/// Counts what nobody heard of, and says which temporary keys are to be removed once more.
pub(super) fn count_open(traffic: &mut Traffic) -> Vec<Litter> {
    let (fleet, backlog) = (&traffic.fleet, &traffic.backlog);
    let lanes = || fleet.lanes().iter();
    let open = || {
        let in_flight = lanes().flat_map(|lane| lane.flight.unanswered());
        in_flight.chain(backlog.waiting())
    };
    let is_uncounted = |item: &&Item| item.past.counted.is_none() && item.task.concerns_key();
    let unacknowledged = open().filter(is_uncounted).count() as u64;
    let unfinished = lanes().flat_map(|lane| lane.flight.temps());
    let unfinished = unfinished.map(|(item, temp)| (item.record.db, temp));
    let not_removed = open().filter(|item| matches!(item.task, Task::CleanUp(_)));
    let not_removed = not_removed.map(|item| (item.record.db, item.record.key.as_slice()));
    let mut by_place: BTreeMap<(Option<usize>, u32), Vec<Vec<u8>>> = BTreeMap::new();
    for (db, temp) in unfinished.chain(not_removed) {
        let at = match fleet.way(temp, None) {
            Way::Lane(at) => Some(at),
            Way::Unserved(_) => None,
        };
        by_place.entry((at, db)).or_default().push(temp.to_vec());
    }
    let litter = by_place.into_iter();
    let litter = litter
        .map(|((at, db), temps)| Litter {
            to: at.map(|at| fleet.lane(at).to().clone()),
            db,
            temps,
        })
        .collect();
    traffic.ledger.report().unacknowledged = unacknowledged;
    litter
}
