//! Whether two values mean the same, however they are stored.
//!
//! Sets, hashes and sorted sets have no order; scores are numbers, zero and minus zero one of them;
//! what a stream's form cannot hold is not compared with what a server filled in for it. Of a
//! stream's idempotency the settings count, and not the ids: they are forgotten as time goes by.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};

use redis_migrate_format::record::Family;

use super::array::Array;
use super::decode::{Vector, VectorSet, decode, time_series, vector_set};
use super::encode::with_owners;
use super::error::PayloadError;
use super::metadata::{Class, classes, has_metadata, split_metadata};
use super::object::{Bytes, Consumer, Field, Group, Member, Object, Stream, StreamForm, StreamId};
use crate::dialect::is_common;

/// The first difference that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, in words: `field "a"`. Empty for the value as a whole.
    pub place: String,
    /// What is there on the left side.
    pub left: String,
    /// What is there on the right side.
    pub right: String,
}

impl Difference {
    fn new(place: impl fmt::Display, left: impl fmt::Display, right: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            left: left.to_string(),
            right: right.to_string(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{} here, {} there", self.left, self.right)
    }
}

/// What to leave out of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lenience {
    /// When entries were delivered, and when consumers were seen and active: time goes on while
    /// values are compared.
    pub ignore_delivery_times: bool,
    /// Expiry of hash fields, for destinations that have none.
    pub ignore_field_ttls: bool,
    /// Fields of a hash that are past their time at this moment (Unix ms) count for nothing: one side
    /// may have lost them, and the other not yet.
    pub fields_gone_by_ms: u64,
    /// Expiries on the right side may be earlier by so much: an earlier run of the same import counted
    /// them from an earlier moment (`--ttl rebase`).
    pub earlier_by_ms: u64,
    /// Key metadata of the left side, and rules of a time series, have to stand on the right side. What
    /// only one side has counts for nothing otherwise: its server may not keep it.
    pub metadata_must_stand: bool,
    /// Key metadata that only the right side has are a difference, too: the left side's server would
    /// keep them.
    pub no_more_metadata: bool,
}

impl Lenience {
    /// Whether an expiry counts as the same.
    pub fn same_expiry(&self, left_ms: Option<u64>, right_ms: Option<u64>) -> bool {
        match (left_ms, right_ms) {
            (Some(left), Some(right)) => left
                .checked_sub(right)
                .is_some_and(|earlier| earlier <= self.earlier_by_ms),
            (left, right) => left == right,
        }
    }
}

/// Compares two values, each with the family of the server that wrote it. Equal bytes of one family
/// are equal without being read.
pub fn same(
    left_family: Family,
    left: &[u8],
    right_family: Family,
    right: &[u8],
) -> Result<Option<Difference>, PayloadError> {
    same_but(left_family, left, right_family, right, Lenience::default())
}

/// As [`same`], leaving some things out.
///
/// Of time series, rules that only one side says count for nothing: DUMP leaves them out. Values of
/// other modules, vector sets apart, and of unknown types are only equal byte for byte; where such a
/// value differs from one of another type byte or length, that is said, and else the
/// error is [`ErrorKind::Opaque`](super::ErrorKind::Opaque).
pub fn same_but(
    left_family: Family,
    left: &[u8],
    right_family: Family,
    right: &[u8],
    lenience: Lenience,
) -> Result<Option<Difference>, PayloadError> {
    if left == right
        && (left_family == right_family || left.first().is_some_and(|&byte| is_common(byte)))
    {
        return Ok(None);
    }
    if has_metadata(left_family, left) || has_metadata(right_family, right) {
        return beside(left_family, left, right_family, right, lenience);
    }
    if let (Some(left), Some(right)) = (vector_set(left), vector_set(right)) {
        return Ok(vector_sets(&left, &right));
    }
    // Not where they differ: in what, only the module can say.
    if let (Some(left), Some(right)) = (time_series(left), time_series(right))
        && left.is_like(&right)
        && (left.is_silent() || !right.is_silent() || !lenience.metadata_must_stand)
    {
        return Ok(None);
    }
    match (decode(left_family, left), decode(right_family, right)) {
        (Ok(left), Ok(right)) => Ok(difference_but(&left, &right, lenience)),
        (Ok(object), Err(error)) if error.is_opaque() => Ok(Some(Difference::new(
            "",
            object.kind(),
            "a value that cannot be read",
        ))),
        (Err(error), Ok(object)) if error.is_opaque() => Ok(Some(Difference::new(
            "",
            "a value that cannot be read",
            object.kind(),
        ))),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Compares two values of which one has key metadata at least: first the values themselves.
fn beside(
    left_family: Family,
    left: &[u8],
    right_family: Family,
    right: &[u8],
    lenience: Lenience,
) -> Result<Option<Difference>, PayloadError> {
    let (left_classes, right_classes) =
        (classes(left_family, left)?, classes(right_family, right)?);
    let (_, left) = split_metadata(left_family, left)?;
    let (_, right) = split_metadata(right_family, right)?;
    if let Some(difference) = same_but(left_family, left, right_family, right, lenience)? {
        return Ok(Some(difference));
    }
    for class in &left_classes {
        let place = || format!("key metadata {:?}", class.name());
        match right_classes.iter().find(|other| other.id() == class.id()) {
            Some(other) if other.version() == class.version() => {
                let (left, right) = (class.expanded()?, other.expanded()?);
                if left != right {
                    return Ok(Some(Difference::new(place(), show(&left), show(&right))));
                }
            }
            Some(other) => {
                let version = |class: &Class<'_>| format!("version {}", class.version());
                let difference = Difference::new(place(), version(class), version(other));
                return Ok(Some(difference));
            }
            None if lenience.metadata_must_stand => {
                return Ok(Some(Difference::new(place(), show(class.items), "none")));
            }
            None => {}
        }
    }
    let is_more = |class: &&Class<'_>| left_classes.iter().all(|other| other.id() != class.id());
    let more = right_classes.iter().find(is_more);
    Ok(more.filter(|_| lenience.no_more_metadata).map(|class| {
        let place = format!("key metadata {:?}", class.name());
        Difference::new(place, "none", show(class.items))
    }))
}

/// Compares two objects.
pub fn difference(left: &Object<'_>, right: &Object<'_>) -> Option<Difference> {
    difference_but(left, right, Lenience::default())
}

/// As [`difference`], leaving some things out.
pub fn difference_but(
    left: &Object<'_>,
    right: &Object<'_>,
    lenience: Lenience,
) -> Option<Difference> {
    match (left, right) {
        (Object::String(left), Object::String(right)) => strings(left, right),
        (Object::List(left), Object::List(right)) => lists(left, right),
        (Object::Set(left), Object::Set(right)) => {
            by_name(left, right, "member", |member| member, |_, _| None)
        }
        (Object::ZSet(left), Object::ZSet(right)) => {
            by_name(left, right, "member", |member| &member.member, scores)
        }
        (Object::Hash(left), Object::Hash(right)) => hashes(left, right, lenience),
        (Object::Stream(left), Object::Stream(right)) => streams(left, right, lenience),
        (Object::Array(left), Object::Array(right)) => arrays(left, right),
        (Object::PathHash(left), Object::PathHash(right)) => by_name(
            left,
            right,
            "path",
            |path| &path.path,
            |left, right| {
                by_name(
                    &left.fields,
                    &right.fields,
                    "field",
                    |field| &field.0,
                    |left, right| strings(&left.1, &right.1),
                )
            },
        ),
        (
            Object::String(_)
            | Object::List(_)
            | Object::Set(_)
            | Object::ZSet(_)
            | Object::Hash(_)
            | Object::Stream(_)
            | Object::Array(_)
            | Object::PathHash(_),
            _,
        ) => Some(Difference::new("", left.kind(), right.kind())),
    }
}

fn hashes(left: &[Field<'_>], right: &[Field<'_>], lenience: Lenience) -> Option<Difference> {
    let is_gone = |field: &Field<'_>| {
        let at_ms = field.expire_at_ms;
        at_ms.is_some_and(|at_ms| at_ms <= lenience.fields_gone_by_ms)
    };
    let compare = |left: &[&Field<'_>], right: &[&Field<'_>]| {
        by_name(
            left,
            right,
            "field",
            |field| &field.name,
            |left, right| fields(left, right, lenience),
        )
    };
    if !left.iter().chain(right).any(is_gone) {
        let [left, right] = [left, right].map(|side| side.iter().collect::<Vec<_>>());
        return compare(&left, &right);
    }
    // Of a field that is past its time on both sides, or on one side and lost on the other, nothing is
    // left; one that goes on one side only is compared.
    let both = left.iter().chain(right);
    let staying = both.filter(|field| !is_gone(field));
    let staying: HashSet<&[u8]> = staying.map(|field| &*field.name).collect();
    let counts = |field: &&Field<'_>| staying.contains(&*field.name);
    let [left, right] = [left, right].map(|side| side.iter().filter(counts).collect::<Vec<_>>());
    compare(&left, &right)
}

/// A short, printable form of any bytes.
fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let mut text = format!("\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii());
    if bytes.len() > SHOWN {
        // Writing to a string does not fail.
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

fn strings(left: &[u8], right: &[u8]) -> Option<Difference> {
    if left == right {
        return None;
    }
    let at = left
        .iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count();
    if at < 20 {
        return Some(Difference::new("", show(left), show(right)));
    }
    Some(Difference::new(
        format_args!("from byte {at}"),
        show(&left[at..]),
        show(&right[at..]),
    ))
}

fn number<T: PartialEq + fmt::Display>(place: &str, left: T, right: T) -> Option<Difference> {
    (left != right).then(|| Difference::new(place, left, right))
}

fn lists(left: &[Bytes<'_>], right: &[Bytes<'_>]) -> Option<Difference> {
    let unequal = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    if let Some(at) = unequal {
        return Some(Difference::new(
            format_args!("element {at}"),
            show(&left[at]),
            show(&right[at]),
        ));
    }
    number("number of elements", left.len(), right.len())
}

/// By index, whichever way the values are kept.
fn arrays(left: &Array<'_>, right: &Array<'_>) -> Option<Difference> {
    let by_index = |array: &Array<'_>| {
        let mut rows: Vec<usize> = (0..array.slots.len()).collect();
        rows.sort_by_key(|row| array.slots[*row].index);
        rows
    };
    for (ours, theirs) in by_index(left).into_iter().zip(by_index(right)) {
        let (ours, theirs) = (&left.slots[ours], &right.slots[theirs]);
        if ours.index != theirs.index {
            return number("next index", ours.index, theirs.index);
        }
        if ours.value != theirs.value {
            return Some(Difference::new(
                format_args!("index {}", ours.index),
                show(&ours.value.text()),
                show(&theirs.value.text()),
            ));
        }
    }
    let cursor = |array: &Array<'_>| {
        let cursor = array.cursor;
        cursor.map_or("none".to_owned(), |index| index.to_string())
    };
    number("number of indexes", left.slots.len(), right.slots.len())
        .or_else(|| number("cursor", cursor(left), cursor(right)))
}

/// Compares rows of the same name, in whatever order they come.
fn by_name<T>(
    left: &[T],
    right: &[T],
    what: &str,
    name: impl Fn(&T) -> &Bytes<'_>,
    mut compare: impl FnMut(&T, &T) -> Option<Difference>,
) -> Option<Difference> {
    let place = |row: &T| format!("{what} {}", show(name(row)));
    let mut compare = |left: &T, right: &T| {
        compare(left, right).map(|mut difference| {
            difference.place = match difference.place.as_str() {
                "" => place(left),
                within => format!("{}, {within}", place(left)),
            };
            difference
        })
    };
    let same_order = left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| name(left) == name(right));
    if same_order {
        return left
            .iter()
            .zip(right)
            .find_map(|(left, right)| compare(left, right));
    }
    let mut others: HashMap<&[u8], &T> = right.iter().map(|row| (&**name(row), row)).collect();
    for row in left {
        match others.remove(&**name(row)) {
            Some(other) => {
                if let Some(difference) = compare(row, other) {
                    return Some(difference);
                }
            }
            None => return Some(Difference::new(place(row), "present", "missing")),
        }
    }
    // The first in the order of the right side, so that the answer is always the same.
    right
        .iter()
        .find(|row| others.contains_key(&**name(row)))
        .map(|row| Difference::new(place(row), "missing", "present"))
}

fn scores(left: &Member<'_>, right: &Member<'_>) -> Option<Difference> {
    let equal = left.score == right.score;
    (!equal).then(|| {
        Difference::new(
            "",
            format_args!("{:?}", left.score),
            format_args!("{:?}", right.score),
        )
    })
}

fn fields(left: &Field<'_>, right: &Field<'_>, lenience: Lenience) -> Option<Difference> {
    strings(&left.value, &right.value).or_else(|| {
        if lenience.ignore_field_ttls || lenience.same_expiry(left.expire_at_ms, right.expire_at_ms)
        {
            return None;
        }
        let show = |ms: Option<u64>| ms.map_or("none".to_owned(), |ms| ms.to_string());
        Some(Difference::new(
            "expiry",
            show(left.expire_at_ms),
            show(right.expire_at_ms),
        ))
    })
}

fn vector_sets(left: &VectorSet<'_>, right: &VectorSet<'_>) -> Option<Difference> {
    let matrix = |set: &VectorSet<'_>| set.matrix.as_ref().map_or(0, |(dimension, _)| *dimension);
    number("dimension", left.dimension, right.dimension)
        .or_else(|| number("reduced from", matrix(left), matrix(right)))
        .or_else(|| number("quantization and links", left.config, right.config))
        .or_else(|| {
            let differs = left.matrix != right.matrix;
            differs.then(|| Difference::new("matrix", "one", "another"))
        })
        .or_else(|| {
            by_name(
                &left.vectors,
                &right.vectors,
                "element",
                |vector| &vector.name,
                vectors,
            )
        })
}

fn vectors(left: &Vector<'_>, right: &Vector<'_>) -> Option<Difference> {
    if left.attributes != right.attributes {
        let (left, right) = (show(&left.attributes), show(&right.attributes));
        return Some(Difference::new("attributes", left, right));
    }
    strings(&left.bytes, &right.bytes).or_else(|| number("scale", left.scale, right.scale))
}

fn streams(left: &Stream<'_>, right: &Stream<'_>, lenience: Lenience) -> Option<Difference> {
    let form = left.form.min(right.form);
    entries(left, right)
        .or_else(|| number("length", left.length, right.length))
        .or_else(|| number("last id", left.last_id, right.last_id))
        .or_else(|| {
            if form < StreamForm::V2 {
                return None;
            }
            number("first id", left.first_id, right.first_id)
                .or_else(|| {
                    number(
                        "highest deleted id",
                        left.max_deleted_id,
                        right.max_deleted_id,
                    )
                })
                .or_else(|| number("entries added", left.entries_added, right.entries_added))
        })
        .or_else(|| {
            if form < StreamForm::V4 {
                return None;
            }
            let (left, right) = (&left.idempotency, &right.idempotency);
            number(
                "idempotency duration",
                left.duration_secs,
                right.duration_secs,
            )
            .or_else(|| number("most idempotency ids", left.max_ids, right.max_ids))
        })
        .or_else(|| {
            by_name(
                &left.groups,
                &right.groups,
                "group",
                |group| &group.name,
                |left, right| groups(left, right, form, lenience),
            )
        })
}

fn entries(left: &Stream<'_>, right: &Stream<'_>) -> Option<Difference> {
    if left.nodes == right.nodes {
        return None;
    }
    let mut right = right.entries();
    for entry in left.entries() {
        match (entry, right.next()) {
            (Ok(left), Some(Ok(right))) if left == right => {}
            (Ok(left), Some(Ok(right))) if left.id == right.id => {
                let place = format!("entry {}", left.id);
                let show = |pairs: &[(Bytes<'_>, Bytes<'_>)]| {
                    let pairs = pairs
                        .iter()
                        .map(|(name, value)| [show(name), show(value)].join("="));
                    pairs.collect::<Vec<_>>().join(" ")
                };
                return Some(Difference::new(
                    place,
                    show(&left.fields),
                    show(&right.fields),
                ));
            }
            (Ok(left), Some(Ok(right))) => {
                return Some(Difference::new("next entry", left.id, right.id));
            }
            (Ok(left), None) => return Some(Difference::new("next entry", left.id, "none")),
            (Err(_), _) => return Some(Difference::new("entries", "damaged", "present")),
            (_, Some(Err(_))) => return Some(Difference::new("entries", "present", "damaged")),
        }
    }
    right.next().map(|entry| match entry {
        Ok(entry) => Difference::new("next entry", "none", entry.id),
        Err(_) => Difference::new("entries", "present", "damaged"),
    })
}

/// Compares two groups. Where one of the servers knows no entries that were given back, they count
/// as what they become there.
fn groups(
    left: &Group<'_>,
    right: &Group<'_>,
    form: StreamForm,
    lenience: Lenience,
) -> Option<Difference> {
    if form >= StreamForm::V5 {
        return owned_groups(left, right, form, lenience)
            .or_else(|| given_back(&left.given_back, &right.given_back));
    }
    let (ours, theirs) = (with_owners(left), with_owners(right));
    owned_groups(
        ours.as_ref().unwrap_or(left),
        theirs.as_ref().unwrap_or(right),
        form,
        lenience,
    )
}

/// Compares what was given back: a list, in its order.
fn given_back(left: &[StreamId], right: &[StreamId]) -> Option<Difference> {
    let unequal = left.iter().zip(right).find(|(left, right)| left != right);
    match unequal {
        Some((left, right)) => number("next entry given back", left, right),
        None => number("number of entries given back", left.len(), right.len()),
    }
}

fn owned_groups(
    left: &Group<'_>,
    right: &Group<'_>,
    form: StreamForm,
    lenience: Lenience,
) -> Option<Difference> {
    if let Some(difference) = number("last id", left.last_id, right.last_id) {
        return Some(difference);
    }
    if form >= StreamForm::V2 && left.entries_read != right.entries_read {
        return number("entries read", left.entries_read, right.entries_read);
    }
    let sorted = |group: &Group<'_>| {
        let mut pending = group.pending.clone();
        pending.sort_unstable_by_key(|pending| pending.id);
        pending
    };
    let (ours, theirs) = (sorted(left), sorted(right));
    for (left, right) in ours.iter().zip(&theirs) {
        if left.id != right.id {
            return number("next pending entry", left.id, right.id);
        }
        let place = format!("pending entry {}", left.id);
        if left.deliveries != right.deliveries {
            return number(
                &format!("{place}, deliveries"),
                left.deliveries,
                right.deliveries,
            );
        }
        if !lenience.ignore_delivery_times && left.delivered_ms != right.delivered_ms {
            return number(
                &format!("{place}, delivered"),
                left.delivered_ms,
                right.delivered_ms,
            );
        }
    }
    number("number of pending entries", ours.len(), theirs.len()).or_else(|| {
        by_name(
            &left.consumers,
            &right.consumers,
            "consumer",
            |consumer| &consumer.name,
            |left, right| consumers(left, right, form, lenience),
        )
    })
}

fn consumers(
    left: &Consumer<'_>,
    right: &Consumer<'_>,
    form: StreamForm,
    lenience: Lenience,
) -> Option<Difference> {
    let sorted = |consumer: &Consumer<'_>| {
        let mut pending = consumer.pending.clone();
        pending.sort_unstable();
        pending
    };
    let (ours, theirs) = (sorted(left), sorted(right));
    if let Some((left, right)) = ours.iter().zip(&theirs).find(|(left, right)| left != right) {
        return number("next pending entry", *left, *right);
    }
    if ours.len() != theirs.len() {
        return number("number of pending entries", ours.len(), theirs.len());
    }
    if lenience.ignore_delivery_times {
        return None;
    }
    number("seen", left.seen_ms, right.seen_ms).or_else(|| {
        if form >= StreamForm::V3 {
            number("active", left.active_ms, right.active_ms)
        } else {
            None
        }
    })
}
