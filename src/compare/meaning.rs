//! What a value means, as a few hashes: equal for equal values in whatever encoding, by whatever
//! version, in whatever order sets and hashes come. The rules are those of
//! [`crate::payload::meaning`], with two exceptions: when a consumer was last
//! seen or active is left out, because asking changes it, and so are fields past their time.

use super::hashing::{Print, Prints, Role};
use crate::payload::{
    self, Field, Group, Idempotency, Kind, PathRow, PayloadError, Reader, Stream, StreamForm,
    TimeSeries, VectorSet, metadata, read,
};
use crate::record::{Family, Value};
use crate::select::module_name;

/// Fields of one hash that may expire while sides are compared and are kept one by one. Of more, the
/// first to expire are; the others make a [`Crowd`].
const SOON_FIELDS: usize = 256;

/// How long a comparison may take before fields that expire meanwhile look like differences.
const SOON_MS: u64 = 24 * 3_600_000;

/// How values are read: the key of the hashes, and the moment from which fields count.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The key.
    pub prints: Prints,
    /// Fields that expired before this moment (Unix ms) are gone; the later of the two moments
    /// at which the sides began to be read.
    pub from_ms: u64,
}

/// What a value means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meaning {
    /// How much of it could be read.
    pub depth: Depth,
    /// Elements, members, fields, entries; bytes of a string or of what cannot be read.
    pub count: u64,
    /// Everything but what follows.
    pub body: Print,
    /// Expiries of a hash's fields, consumer groups of a stream, or compaction rules of a time series
    /// and where it is compacted from; 0 for none.
    pub more: Print,
    /// What only streams of 7.0 and later say of themselves and their groups.
    pub late: Print,
    /// Settings of idempotency of a stream of Redis 8.6 or later; 0 for the default ones.
    pub idempotency: Print,
    /// Entries that were given back, of a stream of Redis 8.8 or later; 0 for none.
    pub given_back: Print,
    /// Fields that expire within a day, the first ones first.
    pub soon: Vec<Soon>,
    /// More of those, which expire later than each of `soon`.
    pub crowd: Option<Crowd>,
    /// What modules keep beside it, by class.
    pub metadata: Vec<Beside>,
    /// Whether the side keeps what modules keep beside keys: what is not there is not so there.
    pub keeps_metadata: bool,
    /// Why it could not be read, where it could not ([`Depth::Unread`]), or which keys it stands for
    /// ([`Depth::Collided`]); of a function library where it stands, if that is not on every primary
    /// of a cluster.
    pub reason: String,
}

/// Key metadata of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Stands for the class's name.
    pub class: u32,
    /// Its version, and what is in it.
    pub print: Print,
    /// It was left out on the way to the other side, which was counted and named then.
    pub left_out: bool,
}

/// How much of a value could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// All of it.
    #[default]
    Whole,
    /// A stream of the form before 7.0, which says less of itself.
    EarlyStream,
    /// All of a stream of Redis 8.6, which has settings of idempotency.
    IdempotentStream,
    /// All of a stream of Redis 8.8, which may have entries that were given back.
    GivingStream,
    /// All of a time series but, where it came from DUMP, its rules.
    TimeSeries,
    /// Nothing: a module's value, or one of an unknown type. The hash is that of its bytes.
    Opaque,
    /// Nothing: a module's value whose bytes are not the same for the same value. The hash is that of
    /// its bytes.
    Shifting,
    /// Nothing, because it is damaged. The hash is that of its bytes.
    Damaged,
    /// Nothing, because it is larger than was allowed. There is no hash.
    TooLarge,
    /// Nothing: its server did not give it, or what came is no whole payload. There is no hash.
    Unread,
    /// Nothing: several keys of the side have this name after it was changed, and which of them is
    /// meant nobody knows. There is no hash.
    Collided,
}

impl Depth {
    /// Whether [`Meaning::reason`] says more.
    pub fn has_reason(self) -> bool {
        matches!(self, Self::Unread | Self::Collided)
    }

    /// How much a stream of this form says of itself.
    fn of_stream(form: StreamForm) -> Self {
        match form {
            StreamForm::V1 => Self::EarlyStream,
            StreamForm::V2 | StreamForm::V3 => Self::Whole,
            StreamForm::V4 => Self::IdempotentStream,
            StreamForm::V5 => Self::GivingStream,
        }
    }

    /// Whether a stream says what streams of 7.0 and later say of themselves.
    pub fn has_late(self) -> bool {
        self != Self::EarlyStream
    }

    /// Whether a stream says its settings of idempotency.
    pub fn has_idempotency(self) -> bool {
        matches!(self, Self::IdempotentStream | Self::GivingStream)
    }

    /// Whether a stream says which entries were given back.
    pub fn has_given_back(self) -> bool {
        self == Self::GivingStream
    }
}

/// A field that expires soon: what to take off again once it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soon {
    /// When, Unix ms.
    pub at_ms: u64,
    /// Its part of [`Meaning::body`].
    pub body: Print,
    /// Its part of [`Meaning::more`].
    pub more: Print,
}

/// Fields that expire soon and are too many to be kept one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// When the first of them expires, Unix ms.
    pub first_ms: u64,
    /// When the last of them does.
    pub last_ms: u64,
    /// How many there are.
    pub count: u64,
    /// Their part of [`Meaning::body`].
    pub body: Print,
    /// Their part of [`Meaning::more`].
    pub more: Print,
}

impl Crowd {
    fn of(soon: &Soon) -> Self {
        Self {
            first_ms: soon.at_ms,
            last_ms: soon.at_ms,
            count: 1,
            body: soon.body,
            more: soon.more,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            count: self.count + other.count,
            body: self.body.wrapping_add(other.body),
            more: self.more.wrapping_add(other.more),
        }
    }
}

impl Meaning {
    /// What is left of it at a moment, when more fields have expired. Of a crowd of which only some
    /// have ([`Self::is_unsure`]), all are left.
    pub fn at(&self, now_ms: u64) -> Self {
        let mut left = self.clone();
        for soon in self.soon.iter().take_while(|soon| soon.at_ms <= now_ms) {
            left.take_off(&Crowd::of(soon));
        }
        left.soon.clear();
        if let Some(crowd) = left.crowd.take()
            && crowd.last_ms <= now_ms
        {
            left.take_off(&crowd);
        }
        left
    }

    /// Of the fields that are kept together some have expired by a moment, and some have not: which
    /// of them are left nobody knows.
    pub fn is_unsure(&self, now_ms: u64) -> bool {
        self.crowd
            .is_some_and(|crowd| (crowd.first_ms..crowd.last_ms).contains(&now_ms))
    }

    /// What is left of it when every field that expires within a day is gone.
    pub fn lasting(&self) -> Self {
        self.at(u64::MAX)
    }

    fn take_off(&mut self, fields: &Crowd) {
        self.count -= fields.count;
        self.body = self.body.wrapping_sub(fields.body);
        self.more = self.more.wrapping_sub(fields.more);
    }

    /// Keeps the first fields to expire one by one, and the others together.
    fn crowd_in(&mut self) {
        self.soon.sort_unstable_by_key(|soon| soon.at_ms);
        let others = self.soon.drain(SOON_FIELDS.min(self.soon.len())..);
        let all = self
            .crowd
            .into_iter()
            .chain(others.map(|soon| Crowd::of(&soon)));
        self.crowd = all.reduce(Crowd::and);
    }

    /// A hash that lost all its fields by then, and so is gone.
    pub fn is_gone(&self, kind: Kind) -> bool {
        kind == Kind::Hash && self.count == 0
    }
}

/// The value without the footer that a DUMP has.
fn body_of(value: &Value) -> &[u8] {
    match value {
        Value::Compact(body) => body,
        // Without its footer the payload is damaged, and is compared as it is.
        Value::Verbatim(payload) => payload::split(payload).map_or(payload, |(body, _)| body),
        // Larger than what is compared: who reads with a limit looks at the length first.
        Value::Withheld(withheld) => &withheld.head,
    }
}

/// Whether DUMP gives other bytes for the same value of this module's type. RedisBloom writes the
/// nodes of a TopK as they lie in memory, addresses included, so that each server has its own; graphs
/// of FalkorDB differ from call to call.
fn is_shifting(body: &[u8]) -> bool {
    const TYPES: [&str; 2] = ["TopK-TYPE", "graphdata"];
    module_name(body).is_some_and(|name| TYPES.contains(&name.as_str()))
}

impl Reading {
    /// What `value`, written by a server of this family, is and means.
    pub fn value(&self, family: Family, value: &Value) -> (Kind, Meaning) {
        let whole = body_of(value);
        let body = payload::plain(family, whole);
        let kind = payload::kind(family, body);
        let meaning = if kind == Kind::Module {
            self.of_module(family, body)
        } else {
            let meaning = self.meaning(family, body);
            meaning.map_err(|error| match error.is_opaque() {
                true => Depth::Opaque,
                false => Depth::Damaged,
            })
        };
        let mut meaning = meaning.unwrap_or_else(|depth| Meaning {
            depth,
            count: body.len() as u64,
            body: self.prints.begin(Role::Opaque).bytes(body).end(),
            ..Meaning::default()
        });
        if payload::has_metadata(family, whole) {
            meaning.metadata = self.metadata(family, whole);
        }
        (kind, meaning)
    }

    /// A value of a module, some of which can be read; else how far it can be compared.
    fn of_module(&self, family: Family, value: &[u8]) -> Result<Meaning, Depth> {
        if let Some(set) = payload::vector_set(value) {
            return Ok(self.vector_set(&set));
        }
        if let Some(series) = payload::time_series(value) {
            return Ok(self.time_series(&series));
        }
        self.meaning(family, value)
            .map_err(|_| match is_shifting(value) {
                true => Depth::Shifting,
                false => Depth::Opaque,
            })
    }

    /// A time series. What it says of rules is kept apart, because DUMP leaves that out.
    fn time_series(&self, series: &TimeSeries<'_>) -> Meaning {
        let print = |bytes: &[u8]| self.prints.begin(Role::TimeSeries).bytes(bytes).end();
        Meaning {
            depth: Depth::TimeSeries,
            count: series.samples,
            body: print(&series.own()),
            more: series.references().map_or(0, |bytes| print(&bytes)),
            ..Meaning::default()
        }
    }

    /// What modules keep beside a value; nothing where that is damaged, and so is the value then.
    fn metadata(&self, family: Family, value: &[u8]) -> Vec<Beside> {
        let classes = metadata::classes(family, value).unwrap_or_default();
        let rows = classes.iter().filter_map(|class| {
            let begun = self.prints.begin(Role::Metadata);
            let begun = begun.number(class.version().into());
            Some(Beside {
                class: class.id(),
                print: begun.bytes(&class.expanded().ok()?).end(),
                left_out: false,
            })
        });
        rows.collect()
    }

    /// A function library, by its source.
    pub fn library(&self, code: &[u8]) -> Meaning {
        Meaning {
            count: code.len() as u64,
            body: self.prints.begin(Role::Text).bytes(code).end(),
            ..Meaning::default()
        }
    }

    /// A function library that is not the same on every primary, by all the codes that it has.
    pub fn library_apart(&self, codes: &[Vec<u8>]) -> Meaning {
        let begun = self.prints.begin(Role::Opaque);
        Meaning {
            count: codes.iter().map(|code| code.len() as u64).sum(),
            body: codes.iter().fold(begun, |all, code| all.bytes(code)).end(),
            ..Meaning::default()
        }
    }

    fn meaning(&self, family: Family, value: &[u8]) -> Result<Meaning, PayloadError> {
        let mut all = Meaning::default();
        let mut add = |print: Print| {
            all.count += 1;
            all.body = all.body.wrapping_add(print);
        };
        match read(family, value)? {
            Reader::String(text) => {
                all.count = text.len() as u64;
                all.body = self.prints.begin(Role::Text).bytes(&text).end();
            }
            Reader::List(elements) => {
                for (at, element) in elements.enumerate() {
                    let begun = self.prints.begin(Role::Element).number(at as u64);
                    add(begun.bytes(&element?).end());
                }
            }
            Reader::Set(members) => {
                for member in members {
                    add(self.prints.begin(Role::Member).bytes(&member?).end());
                }
            }
            Reader::ZSet(members) => {
                for member in members {
                    let member = member?;
                    // Nothing but -0 changes when 0 is added to it.
                    let score = (member.score + 0.0).to_bits();
                    let begun = self.prints.begin(Role::Scored).number(score);
                    add(begun.bytes(&member.member).end());
                }
            }
            Reader::Hash(fields) => {
                for field in fields {
                    self.field(&field?, &mut all);
                }
                all.crowd_in();
            }
            Reader::Stream(stream) => self.stream(&stream, &mut all)?,
            Reader::Array(slots) => {
                let cursor = slots.cursor();
                for slot in slots {
                    let slot = slot?;
                    let begun = self.prints.begin(Role::Slot).number(slot.index);
                    add(begun.bytes(&slot.value.text()).end());
                }
                if let Some(cursor) = cursor {
                    let print = self.prints.begin(Role::Cursor).number(cursor).end();
                    all.body = all.body.wrapping_add(print);
                }
            }
            Reader::PathHash(rows) => {
                let mut path = payload::Bytes::default();
                for row in rows {
                    match row? {
                        PathRow::Path(next) => path = next,
                        PathRow::Field(name, value) => {
                            let begun = self.prints.begin(Role::PathField).bytes(&path);
                            add(begun.bytes(&name).bytes(&value).end());
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    fn vector_set(&self, set: &VectorSet<'_>) -> Meaning {
        let begun = self.prints.begin(Role::VectorSet);
        let mut begun = begun.number(set.dimension).number(set.config);
        if let Some((dimension, matrix)) = &set.matrix {
            begun = begun.number(*dimension).bytes(matrix);
        }
        let prints = set.vectors.iter().map(|vector| {
            let begun = self.prints.begin(Role::Vector).bytes(&vector.name);
            let begun = begun.bytes(&vector.attributes).bytes(&vector.bytes);
            begun.number(vector.scale).end()
        });
        Meaning {
            count: set.vectors.len() as u64,
            body: prints.fold(begun.end(), Print::wrapping_add),
            ..Meaning::default()
        }
    }

    fn field(&self, field: &Field<'_>, all: &mut Meaning) {
        if field
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= self.from_ms)
        {
            return;
        }
        let begun = self.prints.begin(Role::Field).bytes(&field.name);
        let body = begun.bytes(&field.value).end();
        all.count += 1;
        all.body = all.body.wrapping_add(body);
        let Some(at_ms) = field.expire_at_ms else {
            return;
        };
        let begun = self.prints.begin(Role::FieldExpiry).bytes(&field.name);
        let more = begun.number(at_ms).end();
        all.more = all.more.wrapping_add(more);
        if at_ms - self.from_ms <= SOON_MS {
            all.soon.push(Soon { at_ms, body, more });
            // Bounded while a large hash is read, too.
            if all.soon.len() >= 4 * SOON_FIELDS {
                all.crowd_in();
            }
        }
    }

    fn stream(&self, stream: &Stream<'_>, all: &mut Meaning) -> Result<(), PayloadError> {
        let id = |id: payload::StreamId| u128::from_be_bytes(id.to_bytes());
        for entry in stream.entries() {
            let entry = entry?;
            let mut begun = self.prints.begin(Role::Entry).print(id(entry.id));
            for (name, value) in &entry.fields {
                begun = begun.bytes(name).bytes(value);
            }
            all.body = all.body.wrapping_add(begun.end());
        }
        all.count = stream.length;
        let begun = self.prints.begin(Role::Stream).number(stream.length);
        all.body = all.body.wrapping_add(begun.print(id(stream.last_id)).end());
        for group in &stream.groups {
            all.more = all.more.wrapping_add(self.group(group));
        }
        all.depth = Depth::of_stream(stream.form);
        all.idempotency = self.idempotency(&stream.idempotency);
        all.given_back = self.given_back(stream);
        if !all.depth.has_late() {
            return Ok(());
        }
        all.late = self
            .prints
            .begin(Role::StreamLate)
            .print(id(stream.first_id))
            .print(id(stream.max_deleted_id))
            .number(stream.entries_added)
            .end();
        for group in &stream.groups {
            let begun = self.prints.begin(Role::GroupLate).bytes(&group.name);
            let print = begun.number(group.entries_read).end();
            all.late = all.late.wrapping_add(print);
        }
        Ok(())
    }

    /// The settings. Not the ids: they are forgotten while time goes by.
    fn idempotency(&self, state: &Idempotency<'_>) -> Print {
        let of = |state: &Idempotency<'_>| (state.duration_secs, state.max_ids);
        if of(state) == of(&Idempotency::default()) {
            return 0;
        }
        let begun = self.prints.begin(Role::StreamIdempotency);
        begun
            .number(state.duration_secs)
            .number(state.max_ids)
            .end()
    }

    /// What was given back, in its order.
    fn given_back(&self, stream: &Stream<'_>) -> Print {
        let of_group = |group: &Group<'_>| {
            let begun = self.prints.begin(Role::GivenBack).bytes(&group.name);
            let ids = group.given_back.iter();
            ids.fold(begun, |all, id| {
                all.print(u128::from_be_bytes(id.to_bytes()))
            })
            .end()
        };
        let groups = stream.groups.iter();
        groups
            .filter(|group| !group.given_back.is_empty())
            .map(of_group)
            .fold(0, Print::wrapping_add)
    }

    /// A group. What was given back counts as what it becomes where there is no such thing.
    fn group(&self, group: &Group<'_>) -> Print {
        let owned = payload::with_owners(group);
        let group = owned.as_ref().unwrap_or(group);
        let id = |id: payload::StreamId| u128::from_be_bytes(id.to_bytes());
        let mut pending: Print = 0;
        for entry in &group.pending {
            let begun = self.prints.begin(Role::Pending).print(id(entry.id));
            let begun = begun.number(entry.delivered_ms.cast_unsigned());
            pending = pending.wrapping_add(begun.number(entry.deliveries).end());
        }
        let mut consumers: Print = 0;
        for consumer in &group.consumers {
            let mut own: Print = 0;
            for entry in &consumer.pending {
                let print = self.prints.begin(Role::ConsumerPending).print(id(*entry));
                own = own.wrapping_add(print.end());
            }
            let begun = self.prints.begin(Role::Consumer).bytes(&consumer.name);
            consumers = consumers.wrapping_add(begun.print(own).end());
        }
        self.prints
            .begin(Role::Group)
            .bytes(&group.name)
            .print(id(group.last_id))
            .print(pending)
            .print(consumers)
            .end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::judge::{Aspect, Judge, Verdict};
    use crate::compare::row::{Row, What};

    const FROM_MS: u64 = 1_000_000;

    fn reading() -> Reading {
        Reading {
            prints: Prints::with_keys((1, 2)),
            from_ms: FROM_MS,
        }
    }

    /// A hash of fields: name, value, and how many milliseconds after the beginning it expires.
    fn hash(fields: impl IntoIterator<Item = (String, &'static str, Option<u64>)>) -> Row {
        let (reading, mut meaning) = (reading(), Meaning::default());
        for (name, value, after_ms) in fields {
            let field = Field {
                name: name.into_bytes().into(),
                value: value.as_bytes().into(),
                expire_at_ms: after_ms.map(|ms| FROM_MS + ms),
            };
            reading.field(&field, &mut meaning);
        }
        meaning.crowd_in();
        Row {
            print: 1,
            what: What::Key(Kind::Hash),
            selected: true,
            db: 0,
            key: b"h".to_vec(),
            origin: None,
            expire_at_ms: None,
            meaning,
        }
    }

    /// `real`, and so many fields that expire one after the other, those that are gone at a moment
    /// left out.
    fn session(real: &'static str, fields: u64, gone_by: u64) -> Row {
        let expiring = (1..=fields)
            .filter(|ms| *ms > gone_by)
            .map(|ms| (format!("f{ms}"), "v", Some(ms)));
        hash(expiring.chain([("real".to_owned(), real, None)]))
    }

    fn judged(left: &Row, right: Option<&Row>, after_ms: u64) -> Verdict {
        let judge = Judge {
            ttl_tolerance_ms: 0,
            ignore_ttl: false,
            ignore_field_ttl: false,
            moments_ms: (0, FROM_MS + after_ms),
        };
        judge.judge(Some(left), right, false)
    }

    const EQUAL: Verdict = Verdict::Equal { partly: false };

    /// However many fields expire, and whenever it is looked: the others are compared.
    #[test]
    fn what_lasts_of_a_hash_is_always_compared() {
        for fields in [255, 256, 257, 300, 5_000] {
            for after_ms in [0, 10, 255, 256, 257, fields - 1, fields, 10_000] {
                let left = session("one", fields, 0);
                let right = session("TWO", fields, after_ms);
                let verdict = judged(&left, Some(&right), after_ms);
                let expected = Verdict::Different(vec![Aspect::Value]);
                assert_eq!(verdict, expected, "{fields} fields after {after_ms} ms");
                // The same on both sides is equal, unless not every field is known one by one.
                let same = session("one", fields, after_ms);
                let verdict = judged(&left, Some(&same), after_ms);
                let expected = match (257..fields).contains(&after_ms) {
                    true => Verdict::Incomparable(Aspect::FieldsExpiring),
                    false => EQUAL,
                };
                assert_eq!(verdict, expected, "{fields} fields after {after_ms} ms");
            }
        }
    }

    #[test]
    fn the_expiry_of_a_key_counts_also_where_its_fields_cannot_be_compared() {
        let left = session("one", 300, 0);
        let mut right = session("one", 300, 280);
        right.expire_at_ms = Some(FROM_MS + 90_000_000);
        let verdict = judged(&left, Some(&right), 280);
        assert_eq!(verdict, Verdict::Different(vec![Aspect::Ttl]));
    }

    /// A stream of two entries with a group, as a server that writes this form says it, and what is
    /// wrong with it.
    fn stream(
        form: StreamForm,
        change: impl FnOnce(&mut Stream<'static>, payload::StreamId),
    ) -> Row {
        let id = payload::StreamId { ms: 1, seq: 1 };
        let mut stream = Stream {
            form,
            nodes: Vec::new(),
            length: 0,
            counter: 0,
            last_id: id,
            first_id: payload::StreamId::default(),
            max_deleted_id: payload::StreamId::default(),
            entries_added: 0,
            groups: vec![Group {
                name: b"g"[..].into(),
                last_id: id,
                entries_read: 0,
                pending: vec![payload::Pending {
                    id,
                    delivered_ms: 7,
                    deliveries: 1,
                }],
                consumers: Vec::new(),
                given_back: vec![id],
            }],
            idempotency: Idempotency::default(),
        };
        change(&mut stream, id);
        // What the form does not hold becomes what it would be there.
        let forms = payload::Forms {
            stream: form,
            field_ttl: payload::FieldTtlForm::Dropped,
            back_lengths: payload::BackLengths::default(),
            packing: payload::Packing::None,
            intsets: false,
        };
        let mut value = Vec::new();
        let _losses = payload::encode(&payload::Object::Stream(stream), forms, &mut value);
        let (kind, meaning) = reading().value(Family::Redis, &Value::Compact(value));
        assert_eq!(meaning.depth, Depth::of_stream(form));
        Row {
            what: What::Key(kind),
            meaning,
            ..hash([])
        }
    }

    /// What both sides keep is compared, and what only one does is left out and counted.
    #[test]
    fn streams_are_compared_as_far_as_both_sides_keep_them() {
        let newer = [
            StreamForm::V2,
            StreamForm::V3,
            StreamForm::V4,
            StreamForm::V5,
        ];
        for left in newer {
            for right in newer {
                let least = left.min(right);
                let ours = stream(left, |_, _| {});
                let judge = |theirs: &Row| judged(&ours, Some(theirs), 0);
                let metadata = Verdict::Different(vec![Aspect::StreamMetadata]);
                // The entry that was given back is kept in a list, or as a consumer's.
                let gives = left >= StreamForm::V5;
                let partly = gives != (right >= StreamForm::V5);
                assert_eq!(
                    judge(&stream(right, |_, _| {})),
                    Verdict::Equal { partly },
                    "{left:?} {right:?}"
                );
                let settings = stream(right, |stream, _| stream.idempotency.max_ids = 7);
                let is_left_out = partly || right >= StreamForm::V4;
                let expected = match least >= StreamForm::V4 {
                    true => metadata.clone(),
                    false => Verdict::Equal {
                        partly: is_left_out,
                    },
                };
                assert_eq!(judge(&settings), expected, "{left:?} {right:?}");
                let deleted = stream(right, |stream, id| stream.max_deleted_id = id);
                assert_eq!(judge(&deleted), metadata, "{left:?} {right:?}");
                let ids = stream(right, |stream, _| stream.idempotency.ids_added = 7);
                assert_eq!(judge(&ids), Verdict::Equal { partly }, "{left:?} {right:?}");
                let added = stream(StreamForm::V1, |_, _| {});
                assert_eq!(judge(&added), Verdict::Equal { partly: true });
            }
        }
    }

    /// A hash of nothing else is gone when the last of its fields is, and not before.
    #[test]
    fn a_hash_is_gone_with_the_last_of_its_fields() {
        for fields in [3, 256, 257, 5_000] {
            let left = hash((1..=fields).map(|ms| (format!("f{ms}"), "v", Some(ms))));
            assert_eq!(judged(&left, None, fields), Verdict::Expired);
            let missing = Verdict::Different(vec![Aspect::Missing]);
            assert_eq!(judged(&left, None, fields - 1), missing, "{fields}");
        }
    }
}
