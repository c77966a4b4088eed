//! Expiries that were computed: with the tool's own clock where the source tells no time, of which the
//! tool warns, and which is promised no better than that clock and the way of an answer allow; or from
//! what remains (PTTL) and the source's clock where it has no PEXPIRETIME, which the manual says.

use std::collections::BTreeMap;

use super::archive::Content;
use super::truth::{Truth, same};
use super::wish::{Verb, Wish};
use crate::net::{By, Held, Place};

/// What the tool says then.
pub const WARNING: &str = "warning: the source refuses both PEXPIRETIME and TIME";

/// What it says where only the moments that it tells, such as the instant of an export, are of its own
/// clock.
const WARNING_OF_MOMENTS: &str =
    "warning: the source refuses TIME: the moments that this run tells";

/// An answer may have been under way for so long, in ms.
const UNDER_WAY: u64 = 50;

/// What remains and the clock that it counts from are asked for so shortly one after the other, in ms.
const ASKED_WITHIN: u64 = 100;

/// What remains and the clock, asked one behind the other, may differ by so much from what they tell
/// the next time, in ms.
const ONE_BEHIND_THE_OTHER: u64 = 2;

/// How far off what was computed may be.
#[derive(Clone, Copy)]
pub struct Off {
    most_ms: u64,
    /// What it would be off by if no answer took any time.
    ahead_ms: i64,
}

impl Off {
    /// Of what was computed with one clock or the other.
    pub fn of(source: &Truth, by_own_clock: bool) -> Self {
        let ahead_ms = -source.skew_ms();
        match by_own_clock {
            // The clock is looked at when an answer is there, which may have been held back.
            true => Self {
                most_ms: ahead_ms.unsigned_abs() + UNDER_WAY + source.stalled_ms,
                ahead_ms,
            },
            false => Self::within(ASKED_WITHIN),
        }
    }

    fn within(most_ms: u64) -> Self {
        Self {
            most_ms,
            ahead_ms: 0,
        }
    }
}

/// How far off the instant may be that is claimed, in ms: only where the tool warned whose clock it is.
pub fn instant_off(source: &Truth, lines: &[String]) -> u64 {
    let warns = |text: &str| lines.iter().any(|line| line.starts_with(text));
    match warns(WARNING) || warns(WARNING_OF_MOMENTS) {
        true => Off::of(source, true).most_ms,
        false => 0,
    }
}

/// Gives what the tool read and wrote so the expiries that the source had, where what was computed is
/// near enough. `former`: what an archive says of keys that it says again later, with an expiry that was
/// computed once more; the one stands for the other, if they are as near as two questions lie apart.
pub fn set_right(
    source: &Truth,
    (wish, former): (&Wish, &BTreeMap<Place, Vec<Held>>),
    archive: Option<&mut Content>,
    target: &mut Truth,
    off: Off,
) {
    for (place, held) in archive.into_iter().flat_map(|content| &mut content.keys) {
        set_right_one(source, place, held, off);
    }
    let near = Off::within(ONE_BEHIND_THE_OTHER);
    let off = match wish.verb {
        Verb::Export => return,
        Verb::Copy => off,
        Verb::Import => near,
    };
    let mut came_from: BTreeMap<Place, Vec<&Place>> = BTreeMap::new();
    let counts = |place: &&Place| wish.verb == Verb::Copy || former.contains_key(*place);
    for place in source.versions().into_keys().filter(counts) {
        let into = (wish.into_db(place.0), place.1.clone());
        came_from.entry(into).or_default().push(place);
    }
    // What an earlier run has left counts as the same when it is as near as two questions lie apart.
    for (place, held) in &mut target.start {
        let from = came_from.get(place).into_iter().flatten();
        from.for_each(|place| set_right_one(source, place, held, near));
    }
    let mut now: BTreeMap<Place, Held> = BTreeMap::new();
    for change in &mut target.changes {
        if let Some(before) = now.get(&change.place) {
            change.before = Some(before.clone());
        }
        let Some(after) = &mut change.after else {
            now.remove(&change.place);
            continue;
        };
        if change.by == By::Tool {
            let from = came_from.get(&change.place);
            from.into_iter()
                .flatten()
                .for_each(|place| set_right_one(source, place, after, off));
        }
        now.insert(change.place.clone(), after.clone());
    }
}

fn set_right_one(source: &Truth, place: &Place, held: &mut Held, off: Off) {
    let Some(at) = held.expire_at else { return };
    let first = source.start.get(place);
    let changes = source
        .changes
        .iter()
        .filter(|change| change.place == *place);
    let later = changes.filter_map(|change| change.after.as_ref());
    let near = first.into_iter().chain(later).filter_map(|version| {
        let known = version
            .expire_at
            .filter(|known| known.abs_diff(at) <= off.most_ms)?;
        let read = Held {
            expire_at: Some(known),
            value: held.value.clone(),
        };
        same(version, &read, source.end_ms).then_some(known)
    });
    let strays = |known: &u64| known.saturating_add_signed(off.ahead_ms).abs_diff(at);
    if let Some(known) = near.min_by_key(strays) {
        held.expire_at = Some(known);
    }
}
