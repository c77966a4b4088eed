//! A stream as the commands that build it.
//!
//! XADD for every entry, XSETID for what the entries do not tell, XGROUP for the groups and their
//! consumers, XCLAIM for what is pending. An entry that is pending in a group but was deleted from
//! the stream cannot be claimed (t_stream.c, xclaimCommand: it must exist), so it is added as a
//! placeholder, claimed, and deleted again: that leaves it pending, as it was. The same is done for
//! an entry that is gone and of which a producer's id is remembered: XIDMPRECORD wants it to exist.
//!
//! XCFGSET and XIDMPRECORD set what `XADD … IDMP` goes by. XCFGSET always comes where the stream says
//! its settings, because the destination's own default may be another.

use std::collections::HashSet;

use super::fill::{Expect, Filled, Out, Target, number};
use super::{CommandError, CommandLosses, Features};
use crate::payload::{
    Consumer, ENTRIES_READ_UNKNOWN, Group, Pending, Stream, StreamForm, StreamId, with_owners,
};

/// Ids in one XCLAIM or XDEL. The server looks each of them up.
const IDS_PER_COMMAND: usize = 512;

/// What numbers the server parses (util.c, string2ll).
const NUMBER_MAX: u64 = i64::MAX as u64;

/// What was added.
#[derive(Default)]
struct Added {
    /// Entries that stay.
    alive: u64,
    /// Placeholders before the first of them.
    head: u64,
    /// Placeholders after it.
    others: Vec<StreamId>,
    /// The highest id.
    top: StreamId,
    /// As many entries as a group has read, if that is more than were ever added.
    read: u64,
}

/// An id of a producer that is to be remembered.
pub(super) struct Recorded<'s> {
    producer: &'s [u8],
    name: &'s [u8],
    entry: StreamId,
}

/// The ids of producers that XIDMPRECORD takes, in their order: none without a name, each once, and
/// of each producer no more than the stream is set to remember (the server forgets the oldest for a
/// newer one). None where XCFGSET is not to be had: which settings they would meet is not known.
pub(super) fn recorded<'s>(features: &Features, stream: &'s Stream<'_>) -> Vec<Recorded<'s>> {
    if !features.record_idempotency || !features.idempotency {
        return Vec::new();
    }
    let most = usize::try_from(stream.idempotency.max_ids).unwrap_or(usize::MAX);
    let mut recorded = Vec::new();
    for producer in &stream.idempotency.producers {
        let from = recorded.len();
        let mut names = HashSet::new();
        for id in &producer.ids {
            let can_be = could_be(id.entry, stream.last_id);
            if !producer.name.is_empty() && !id.name.is_empty() && can_be && names.insert(&*id.name)
            {
                recorded.push(Recorded {
                    producer: &producer.name,
                    name: &id.name,
                    entry: id.entry,
                });
            }
        }
        let excess = (recorded.len() - from).saturating_sub(most);
        recorded.drain(from..from + excess);
    }
    recorded
}

/// Whether a stream loses settings of idempotency, or ids, if these are recorded. The counts of ids
/// ever added and of duplicates are statistics that no command sets.
pub(super) fn loses_idempotency(
    features: &Features,
    stream: &Stream<'_>,
    recorded: &[Recorded<'_>],
) -> bool {
    let state = &stream.idempotency;
    let ids = state.producers.iter().map(|producer| producer.ids.len());
    match features.idempotency {
        true => recorded.len() < ids.sum::<usize>(),
        false => !state.is_default(),
    }
}

/// Whether there may have been such an entry: XADD takes no 0-0, and nothing above the last id may
/// ever have been.
fn could_be(id: StreamId, last_id: StreamId) -> bool {
    id > StreamId::default() && id <= last_id
}

impl Added {
    fn count(&self) -> u64 {
        self.alive + self.head + self.others.len() as u64
    }

    fn has_placeholders(&self) -> bool {
        self.head > 0 || !self.others.is_empty()
    }

    /// Whether the stream has to say something else while its groups are made.
    fn is_passing(&self) -> bool {
        self.has_placeholders() || self.read > 0
    }
}

impl Target<'_> {
    /// Gives the commands for a stream.
    pub(super) fn stream(
        &self,
        stream: &Stream<'_>,
        out: &mut impl Out,
    ) -> Result<Filled, CommandError> {
        let mut losses = CommandLosses::default();
        let recorded = recorded(self.features, stream);
        let mut added = self.entries(stream, &recorded, out)?;
        added.read = self.read_beyond(stream);
        let is_passing = added.is_passing();
        self.set_id(stream, &added, is_passing, &mut losses, out)?;
        self.idempotency(stream, &recorded, &mut losses, out)?;
        for group in &stream.groups {
            let owned = with_owners(group);
            if owned.is_some() {
                losses.given_back += group.given_back.len() as u64;
            }
            let group = owned.as_ref().unwrap_or(group);
            self.group(stream.form, group, &mut losses, out)?;
        }
        if is_passing {
            self.remove_placeholders(&added, out)?;
            let left = Added {
                alive: added.alive,
                top: added.top,
                ..Added::default()
            };
            self.set_id(stream, &left, true, &mut losses, out)?;
        }
        Ok(Filled {
            losses,
            ..Filled::of_length("XLEN", added.alive)
        })
    }

    /// Sets what `XADD … IDMP` goes by. The settings come first: a change of them makes the server
    /// forget all ids.
    fn idempotency(
        &self,
        stream: &Stream<'_>,
        recorded: &[Recorded<'_>],
        losses: &mut CommandLosses,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let state = &stream.idempotency;
        losses.idempotency = loses_idempotency(self.features, stream, recorded);
        if !self.features.idempotency || stream.form < StreamForm::V4 {
            return Ok(());
        }
        let (duration, most) = (number(state.duration_secs), number(state.max_ids));
        let settings = [
            self.key,
            b"IDMP-DURATION",
            &duration,
            b"IDMP-MAXSIZE",
            &most,
        ];
        out.command("XCFGSET", &settings, Expect::Done)?;
        for id in recorded {
            let entry = id.entry.to_string();
            let args = [self.key, id.producer, id.name, entry.as_bytes()];
            out.command("XIDMPRECORD", &args, Expect::Done)?;
        }
        Ok(())
    }

    fn add(
        &self,
        id: StreamId,
        fields: impl Iterator<Item = impl AsRef<[u8]>>,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let id = id.to_string();
        let fields: Vec<_> = fields.collect();
        let mut args = Vec::with_capacity(2 + fields.len());
        args.extend([self.key, id.as_bytes()]);
        args.extend(fields.iter().map(AsRef::as_ref));
        out.command("XADD", &args, Expect::Done)
    }

    /// Adds the entries and the placeholders, lowest id first.
    fn entries(
        &self,
        stream: &Stream<'_>,
        recorded: &[Recorded<'_>],
        out: &mut impl Out,
    ) -> Result<Added, CommandError> {
        let mut added = Added::default();
        let pending = stream.groups.iter().flat_map(|group| &group.pending);
        let mut pending: Vec<StreamId> = pending.map(|pending| pending.id).collect();
        pending.extend(recorded.iter().map(|id| id.entry));
        pending.sort_unstable();
        pending.dedup();
        pending.retain(|&id| could_be(id, stream.last_id));
        let mut pending = pending.into_iter().peekable();
        let placeholder = |id, added: &mut Added, out: &mut _| {
            if added.alive == 0 {
                added.head += 1;
            } else {
                added.others.push(id);
            }
            added.top = id;
            self.add(id, [b"x"; 2].iter(), out)
        };
        for entry in stream.entries() {
            let entry = entry.map_err(|error| CommandError::damaged(&error))?;
            while let Some(id) = pending.next_if(|&id| id < entry.id) {
                placeholder(id, &mut added, out)?;
            }
            pending.next_if_eq(&entry.id);
            let fields = entry.fields.iter().flat_map(|(name, value)| [name, value]);
            self.add(entry.id, fields, out)?;
            added.alive += 1;
            added.top = entry.id;
        }
        for id in pending {
            placeholder(id, &mut added, out)?;
        }
        if added.count() == 0 {
            let name = b"x";
            let create = [b"CREATE", self.key, name, b"0", b"MKSTREAM"];
            out.command("XGROUP", &create, Expect::Done)?;
            out.command("XGROUP", &[b"DESTROY", self.key, name], Expect::Done)?;
        }
        Ok(added)
    }

    /// The most entries that a group has read, if that is more than were ever added, else 0. XGROUP
    /// CREATE of Redis 8.2 and later sets no more than were added by then (8.2 and 8.6.3; others take
    /// any number), and XSETID later does not change it. So the stream says more while groups are
    /// made.
    fn read_beyond(&self, stream: &Stream<'_>) -> u64 {
        if !self.features.stream_metadata || stream.form < StreamForm::V2 {
            return 0;
        }
        let read = stream.groups.iter().map(|group| group.entries_read);
        let settable = |&read: &u64| read <= NUMBER_MAX && read > stream.entries_added;
        read.filter(settable).max().unwrap_or(0)
    }

    /// Sets what the entries do not tell. XSETID takes nothing that contradicts what is there
    /// (t_stream.c, xsetidCommand); before 7.0 it takes the last id only.
    fn set_id(
        &self,
        stream: &Stream<'_>,
        added: &Added,
        always: bool,
        losses: &mut CommandLosses,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let id = stream.last_id.to_string();
        if !self.features.stream_metadata {
            losses.stream_metadata |= stream.form >= StreamForm::V2;
            return if always || stream.last_id != added.top {
                out.command("XSETID", &[self.key, id.as_bytes()], Expect::Done)
            } else {
                Ok(())
            };
        }
        let (ever, deleted) = match stream.form {
            // As a server does that loads this form (rdb.c, rdbLoadObject).
            StreamForm::V1 => (stream.length, StreamId::default()),
            _ => (stream.entries_added, stream.max_deleted_id),
        };
        let least = ever.clamp(added.count(), NUMBER_MAX).max(added.read);
        // While it is passing it comes again. What is deleted after the first entry
        // counts as deleted: there is no way back to a stream that nothing was deleted from.
        losses.stream_metadata |= (least != ever && !added.is_passing())
            || deleted > stream.last_id
            || (deleted == StreamId::default()
                && stream.form >= StreamForm::V2
                && !added.others.is_empty());
        let deleted =
            (deleted != StreamId::default() && deleted <= stream.last_id).then_some(deleted);
        if !always && stream.last_id == added.top && least == added.count() && deleted.is_none() {
            return Ok(());
        }
        let ever = number(least);
        let mut args = vec![self.key, id.as_bytes(), b"ENTRIESADDED", &ever];
        let deleted = deleted.map(|id| id.to_string());
        if let Some(deleted) = &deleted {
            args.extend([&b"MAXDELETEDID"[..], deleted.as_bytes()]);
        }
        out.command("XSETID", &args, Expect::Done)
    }

    fn group(
        &self,
        form: StreamForm,
        group: &Group<'_>,
        losses: &mut CommandLosses,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let id = group.last_id.to_string();
        let mut create = vec![&b"CREATE"[..], self.key, &group.name, id.as_bytes()];
        let read = number(group.entries_read);
        if form >= StreamForm::V2
            && self.features.stream_metadata
            && group.entries_read != ENTRIES_READ_UNKNOWN
        {
            if group.entries_read <= NUMBER_MAX {
                create.extend([&b"ENTRIESREAD"[..], &read]);
            } else {
                losses.stream_metadata = true;
            }
        }
        out.command("XGROUP", &create, Expect::Done)?;
        let mut pending: Vec<&Pending> = group.pending.iter().collect();
        pending.sort_unstable_by_key(|pending| pending.id);
        for consumer in &group.consumers {
            let (group, name) = (&*group.name, &*consumer.name);
            if self.features.create_consumer {
                let create = [b"CREATECONSUMER", self.key, group, name];
                out.command("XGROUP", &create, Expect::Done)?;
            } else {
                let read = [b"GROUP", group, name, b"STREAMS", self.key, b"0"];
                out.command("XREADGROUP", &read, Expect::Done)?;
            }
            losses.consumer_times += 1;
            self.claim(group, consumer, &pending, out)?;
        }
        Ok(())
    }

    /// Gives a consumer what is pending for it: those with one time and count together.
    fn claim(
        &self,
        group: &[u8],
        consumer: &Consumer<'_>,
        pending: &[&Pending],
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let find = |id: &StreamId| {
            let at = pending.binary_search_by_key(id, |pending| pending.id);
            at.ok().map(|at| pending[at])
        };
        let own: Vec<&Pending> = consumer.pending.iter().filter_map(find).collect();
        let alike = |a: &&Pending, b: &&Pending| {
            a.delivered_ms == b.delivered_ms && a.deliveries == b.deliveries
        };
        for run in own.chunk_by(alike) {
            for run in run.chunks(IDS_PER_COMMAND) {
                let ids: Vec<String> = run.iter().map(|pending| pending.id.to_string()).collect();
                let time = number(u64::try_from(run[0].delivered_ms).unwrap_or(0));
                let count = number(run[0].deliveries.min(NUMBER_MAX));
                let mut args = vec![self.key, group, &consumer.name, b"0"];
                args.extend(ids.iter().map(String::as_bytes));
                args.extend([&b"TIME"[..], &time, b"RETRYCOUNT", &count]);
                args.extend([&b"FORCE"[..], b"JUSTID"]);
                out.command("XCLAIM", &args, Expect::Claimed(ids.len() as u64))?;
            }
        }
        Ok(())
    }

    /// Trimming leaves the highest deleted id as it is, deleting does not: what stood before the
    /// first entry may as well have been trimmed.
    fn remove_placeholders(&self, added: &Added, out: &mut impl Out) -> Result<(), CommandError> {
        if added.head > 0 {
            let keep = number(added.count() - added.head);
            out.command("XTRIM", &[self.key, b"MAXLEN", &keep], Expect::Done)?;
        }
        for ids in added.others.chunks(IDS_PER_COMMAND) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let mut args = vec![self.key];
            args.extend(ids.iter().map(String::as_bytes));
            out.command("XDEL", &args, Expect::Done)?;
        }
        Ok(())
    }
}
