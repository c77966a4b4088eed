//! What the keys of one side were during a run.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::net::{BEGAN_MS, By, Change, Held, Loss, Place, State};
use crate::script::Side;
use crate::server::{Value, slot_of};

/// What the keys of one side were during a run.
#[derive(Debug)]
pub struct Truth {
    /// The keys when it began.
    pub start: BTreeMap<Place, Held>,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// When its servers lost what they had not saved, or not given to their successors, and whether
    /// the tool could not see that; see [`State::losses`].
    pub losses: Vec<(Loss, bool)>,
    /// The end, by the servers' clock, Unix ms.
    pub end_ms: u64,
    /// How long answers were held back in all, in ms.
    pub stalled_ms: u64,
    skew_ms: i64,
    from: u64,
    to: u64,
    /// What had expired when it began, and was not yet removed.
    leftovers: BTreeMap<Place, Held>,
}

impl Truth {
    /// Of one side, between two moments of the world.
    pub fn of(state: &State, side: Side, from: u64, to: u64) -> Self {
        let node = state.nodes.iter().find(|node| node.side == side);
        let skew_ms = node.map_or(0, |node| node.skew_ms);
        let (start, changes) = state.history(side).during(from, to);
        let changes = changes.to_vec();
        let mut truth = Self {
            start,
            changes,
            losses: state.losses(side),
            end_ms: 0,
            stalled_ms: state.history(side).stalled_ms,
            skew_ms,
            from,
            to,
            leftovers: BTreeMap::new(),
        };
        truth.end_ms = truth.ms(to) + 1;
        let from_ms = truth.ms(from);
        let all = std::mem::take(&mut truth.start).into_iter();
        (truth.start, truth.leftovers) = all.partition(|(_, held)| lives(held, from_ms));
        truth
    }

    /// Something that stood still.
    pub fn still(keys: BTreeMap<Place, Held>, now: u64) -> Self {
        Self {
            start: keys,
            changes: Vec::new(),
            losses: Vec::new(),
            end_ms: BEGAN_MS + now / 1000 + 1,
            stalled_ms: 0,
            skew_ms: 0,
            from: now,
            to: now,
            leftovers: BTreeMap::new(),
        }
    }

    /// Whether this had expired when it began: a hash whose last field is past its time is told
    /// until the server removes it.
    pub fn had_expired(&self, place: &Place, held: &Held) -> bool {
        self.leftovers.get(place).is_some_and(|known| known == held)
    }

    /// Whether a hash stood there when it began whose last field was past its time: BUSYKEY is the answer
    /// until the server removes it.
    pub fn was_left_over(&self, place: &Place) -> bool {
        self.leftovers.contains_key(place)
    }

    /// Whether anything was left over when it began, which may be in the way and be gone the next time.
    pub fn had_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// Whether a key stood at any time up to this moment.
    pub fn ever_stood(&self, until: u64, place: &Place) -> bool {
        let changes = self.changes.iter();
        let mut changes = changes.filter(|change| change.place == *place && change.at <= until);
        self.start.contains_key(place) || changes.any(|change| change.after.is_some())
    }

    /// Whether a key was in another's way at any moment up to this one. A hash whose fields are all
    /// past their time is, as BUSYKEY says, until the server removes it.
    pub fn was_in_the_way(&self, until: u64, place: &Place) -> bool {
        let (from, ms) = (self.from, self.ms(self.from));
        let is_due = |held: &Held| held.expire_at.is_some_and(|at| at <= ms);
        let lived = |held: Option<&Held>| held.is_some_and(|held| !is_due(held));
        let mut changes = self
            .changes
            .iter()
            .filter(|change| change.place == *place && from < change.at && change.at <= until);
        lived(self.at(from, place))
            || lived(self.leftovers.get(place))
            || changes.any(|change| lived(change.after.as_ref()))
    }

    /// Keys that a server lost with its process, or with its replica taking over; those that expired
    /// are not among them.
    pub fn lost(&self) -> BTreeSet<&Place> {
        let lost = self.changes.iter();
        let lost = lost.filter(|change| self.is_loss(change, |_| true));
        lost.map(|change| &change.place).collect()
    }

    /// What a server lost of a key between these moments, as [`Self::lost`] has it.
    pub fn lost_between(&self, from: u64, until: u64, place: &Place) -> Option<&Held> {
        let between = |change: &&Change| from <= change.at && change.at <= until;
        let mut changes = self.changes.iter().filter(between);
        let lost =
            changes.find(|change| change.place == *place && self.is_loss(change, |_| true))?;
        lost.before.as_ref()
    }

    /// As [`Self::lost`], but for those that changed again since. `is_meant`: by whether the tool
    /// could not see the loss.
    pub fn lost_at_last(&self, is_meant: impl Fn(bool) -> bool) -> BTreeSet<&Place> {
        // What came back with the loss may be past its time, and is removed later.
        let expires = |change: &&Change| {
            let ms = self.ms(change.at);
            match (&change.before, &change.after) {
                (Some(before), None) => !lives(before, ms),
                // Fields did.
                (Some(before), Some(after)) => same(before, after, ms),
                (None, _) => false,
            }
        };
        let changes = self.changes.iter().filter(|change| !expires(change));
        let last: BTreeMap<&Place, &Change> =
            changes.map(|change| (&change.place, change)).collect();
        let mut last: Vec<_> = last.into_iter().collect();
        last.retain(|(_, change)| self.is_loss(change, &is_meant));
        last.into_iter().map(|(place, _)| place).collect()
    }

    fn is_loss(&self, change: &Change, is_meant: impl Fn(bool) -> bool) -> bool {
        let mut losses = self.losses.iter();
        let slot = slot_of(&change.place.1);
        change.by == By::Server
            && losses.any(|(loss, is_unseen)| {
                loss.at == change.at && is_meant(*is_unseen || loss.astray.contains(&slot))
            })
    }

    /// How far the servers' clock is ahead of the tool's, in ms.
    pub fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// A moment by the servers' clock.
    pub fn ms(&self, at: u64) -> u64 {
        (BEGAN_MS + at / 1000).saturating_add_signed(self.skew_ms)
    }

    /// A key at a moment.
    pub fn at(&self, at: u64, place: &Place) -> Option<&Held> {
        let changes = self
            .changes
            .iter()
            .rev()
            .filter(|change| change.place == *place);
        let before = changes
            .skip_while(|change| change.at > at)
            .map(|change| change.after.as_ref());
        before.chain([self.start.get(place)]).next().flatten()
    }

    /// The keys at the end.
    pub fn end(&self) -> BTreeMap<Place, Held> {
        let mut keys = self.start.clone();
        for change in &self.changes {
            match &change.after {
                Some(held) => drop(keys.insert(change.place.clone(), held.clone())),
                None => drop(keys.remove(&change.place)),
            }
        }
        keys.retain(|_, held| lives(held, self.end_ms));
        keys
    }

    /// Everything that each key was, `None` where it was not there. Keys that never stood are not in
    /// it.
    pub fn versions(&self) -> BTreeMap<&Place, Vec<Option<&Held>>> {
        let mut versions: BTreeMap<&Place, Vec<Option<&Held>>> = BTreeMap::new();
        let add = |list: &mut Vec<Option<&Held>>, held: &Held| {
            if !lives(held, self.end_ms) {
                list.push(None);
            }
        };
        for (place, held) in &self.start {
            let list = versions.entry(place).or_default();
            list.push(Some(held));
            add(list, held);
        }
        for change in &self.changes {
            let list = versions.entry(&change.place).or_insert_with(|| vec![None]);
            list.push(change.after.as_ref());
            if let Some(held) = &change.after {
                add(list, held);
            }
        }
        versions
    }

    /// Whether a key fits at one of these moments, by the servers' clock in ms, or within `margin` of
    /// one.
    pub fn fits_near(
        &self,
        place: &Place,
        moments: &[u64],
        margin: u64,
        fits: &dyn Fn(&Place, Option<&Held>) -> bool,
    ) -> bool {
        let changes = self.changes.iter().filter(|change| change.place == *place);
        let mut versions = vec![(self.ms(self.from), self.start.get(place))];
        versions.extend(changes.map(|change| (self.ms(change.at), change.after.as_ref())));
        let ends = versions.iter().skip(1).map(|(since, _)| *since);
        let ends: Vec<u64> = ends.chain([self.end_ms]).collect();
        versions.iter().zip(ends).any(|((since, held), until)| {
            let is_near = |at: &u64| at + margin >= *since && *at <= until + margin;
            let expires = held.is_some_and(|held| !lives(held, self.end_ms));
            moments.iter().any(is_near) && (fits(place, *held) || (expires && fits(place, None)))
        })
    }

    /// The moments, from and to by the servers' clock in ms, at which every one of `places` fits, or
    /// else the places that do not fit where the fewest do not, at last.
    pub fn instants(
        &self,
        places: &BTreeSet<Place>,
        fits: &dyn Fn(&Place, Option<&Held>) -> bool,
    ) -> Result<Vec<(u64, u64)>, Vec<Place>> {
        let fits_now = |place: &Place, held: Option<&Held>| {
            // Nobody knows at which of two moments a key that expires was looked at.
            fits(place, held)
                || held.is_some_and(|held| !lives(held, self.end_ms)) && fits(place, None)
        };
        let mut bad: BTreeSet<&Place> = places
            .iter()
            .filter(|place| !fits_now(place, self.start.get(*place)))
            .collect();
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut fewest: Vec<Place> = bad.iter().map(|place| (*place).clone()).collect();
        let mut since = self.from;
        let mut rest = self.changes.as_slice();
        loop {
            let next = rest.first();
            let until = next.map_or(self.to, |change| change.at);
            if bad.is_empty() {
                found.push((self.ms(since), self.ms(until)));
            } else if bad.len() <= fewest.len() {
                fewest = bad.iter().map(|place| (*place).clone()).collect();
            }
            let Some(next) = next else { break };
            let together = |change: &Change| change.at == next.at && change.step == next.step;
            let count = rest.iter().take_while(|change| together(change)).count();
            let (now, after) = rest.split_at(count);
            for change in now.iter().filter(|change| places.contains(&change.place)) {
                match fits_now(&change.place, change.after.as_ref()) {
                    true => drop(bad.remove(&change.place)),
                    false => drop(bad.insert(&change.place)),
                }
            }
            since = next.at;
            rest = after;
        }
        match found.is_empty() {
            true => Err(fewest),
            false => Ok(found),
        }
    }
}

/// Whether there is anything left of it at a moment.
pub fn lives(held: &Held, ms: u64) -> bool {
    if held.expire_at.is_some_and(|at| at <= ms) {
        return false;
    }
    match &held.value {
        Value::Hash(fields) => fields
            .values()
            .any(|field| field.expire_at.is_none_or(|at| at > ms)),
        _ => true,
    }
}

/// Whether both are the same to a client at that moment.
pub fn same(one: &Held, other: &Held, ms: u64) -> bool {
    one.expire_at == other.expire_at && left_of(&one.value, ms) == left_of(&other.value, ms)
}

/// A hash without its fields that have expired; a stream without the times at which its consumers
/// were seen, which no command can set.
fn left_of(value: &Value, ms: u64) -> Cow<'_, Value> {
    let is_over = |at: Option<u64>| at.is_some_and(|at| at <= ms);
    match value {
        Value::Hash(fields) if fields.values().any(|field| is_over(field.expire_at)) => {
            let mut left = fields.clone();
            left.retain(|_, field| !is_over(field.expire_at));
            Cow::Owned(Value::Hash(left))
        }
        Value::Stream(stream)
            if stream
                .groups
                .values()
                .any(|group| !group.consumers.is_empty()) =>
        {
            let mut left = stream.clone();
            for consumer in left
                .groups
                .values_mut()
                .flat_map(|group| group.consumers.values_mut())
            {
                consumer.seen = 0;
                consumer.active = None;
            }
            Cow::Owned(Value::Stream(left))
        }
        _ => Cow::Borrowed(value),
    }
}
