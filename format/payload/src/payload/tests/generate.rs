//! Arbitrary objects, all of them sound.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::pack;
use crate::payload::{
    Bytes, Consumer, Entry, Field, Group, Idempotency, IdempotentId, Member, Object, Pending,
    Producer, Stream, StreamForm, StreamId,
};

fn owned(bytes: Vec<u8>) -> Bytes<'static> {
    Cow::Owned(bytes)
}

/// Bytes: none, few, many, any, and the texts of numbers that servers store as such.
pub(super) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 0..40),
        vec(any::<u8>(), 60..300),
        vec(Just(b'x'), 16_370..16_390),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-200i64..200).prop_map(|number| number.to_string().into_bytes()),
        Just(i64::MIN.to_string().into_bytes()),
        Just(i64::MAX.to_string().into_bytes()),
        Just(b"007".to_vec()),
        Just(b"-0".to_vec()),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(0.0),
        Just(f64::MIN_POSITIVE / 2.0),
        Just(0.1),
        any::<f64>().prop_filter("a number", |score| !score.is_nan()),
        (-5i32..5).prop_map(f64::from),
    ]
}

fn names() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
    btree_set(bytes(), 1..20)
}

fn id() -> impl Strategy<Value = StreamId> {
    prop_oneof![
        (0..20u64, 0..5u64),
        (any::<u64>(), any::<u64>()),
        Just((u64::MAX, u64::MAX)),
    ]
    .prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn entries() -> impl Strategy<Value = Vec<Entry<'static>>> {
    let pairs = || vec((prop_oneof![Just(b"f".to_vec()), bytes()], bytes()), 1..4);
    btree_map(id(), pairs(), 0..8).prop_map(|entries: BTreeMap<_, Vec<_>>| {
        entries
            .into_iter()
            .map(|(id, pairs)| {
                let fields = pairs
                    .into_iter()
                    .map(|(name, value)| (owned(name), owned(value)));
                Entry {
                    id,
                    fields: fields.collect(),
                }
            })
            .collect()
    })
}

fn group(form: StreamForm) -> impl Strategy<Value = Group<'static>> {
    let pending = btree_map(id(), (any::<i64>(), any::<u64>(), any::<usize>()), 0..6);
    let consumers = btree_map(bytes(), (any::<i64>(), any::<i64>()), 1..4);
    (bytes(), id(), any::<u64>(), pending, consumers).prop_map(
        move |(name, last_id, entries_read, pending, consumers)| {
            let mut consumers: Vec<Consumer<'static>> = consumers
                .into_iter()
                .map(|(name, (seen_ms, active_ms))| Consumer {
                    name: owned(name),
                    seen_ms,
                    active_ms: if form >= StreamForm::V3 { active_ms } else { 0 },
                    pending: Vec::new(),
                })
                .collect();
            let count = consumers.len();
            let mut given_back = Vec::new();
            for (id, (_, _, owner)) in &pending {
                match owner % (count + 1) {
                    at if at < count => consumers[at].pending.push(*id),
                    _ if form < StreamForm::V5 => consumers[0].pending.push(*id),
                    _ => given_back.push(*id),
                }
            }
            given_back.reverse();
            let pending = pending
                .into_iter()
                .map(|(id, (delivered_ms, deliveries, _))| Pending {
                    id,
                    delivered_ms,
                    deliveries,
                });
            Group {
                name: owned(name),
                last_id,
                entries_read: if form >= StreamForm::V2 {
                    entries_read
                } else {
                    0
                },
                pending: pending.collect(),
                consumers,
                given_back,
            }
        },
    )
}

fn idempotency() -> impl Strategy<Value = Idempotency<'static>> {
    // A producer may have no ids, and an id may come twice.
    let producers = btree_map(bytes(), vec((bytes(), id()), 0..4), 0..4);
    let settings = (
        prop_oneof![Just(100u64), 1..=86_400u64],
        prop_oneof![Just(100u64), 1..=10_000u64],
    );
    (settings, producers, any::<u64>(), any::<u64>()).prop_map(
        |((duration_secs, max_ids), producers, ids_added, duplicates)| {
            let known = |(name, entry)| IdempotentId {
                name: owned(name),
                entry,
            };
            let producers = producers.into_iter().map(|(name, ids)| Producer {
                name: owned(name),
                ids: ids.into_iter().map(known).collect(),
            });
            Idempotency {
                duration_secs,
                max_ids,
                producers: producers.collect(),
                ids_added,
                duplicates,
            }
        },
    )
}

fn stream() -> impl Strategy<Value = Object<'static>> {
    proptest::sample::select(&StreamForm::ALL[..])
        .prop_flat_map(|form| {
            let ids = (id(), id(), id(), any::<u64>());
            let groups = vec(group(form), 0..4);
            (Just(form), entries(), 1..4usize, ids, groups, idempotency())
        })
        .prop_map(
            |(form, entries, per_node, (last, first, deleted, added), mut groups, idempotency)| {
                groups.sort_by(|a, b| a.name.cmp(&b.name));
                groups.dedup_by(|a, b| a.name == b.name);
                let more = form >= StreamForm::V2;
                Object::Stream(Stream {
                    form,
                    nodes: pack::nodes(&entries, per_node),
                    length: entries.len() as u64,
                    counter: entries.len() as u64,
                    last_id: entries.last().map_or(last, |entry| entry.id.max(last)),
                    first_id: if more { first } else { StreamId::default() },
                    max_deleted_id: if more { deleted } else { StreamId::default() },
                    entries_added: if more { added } else { 0 },
                    groups,
                    idempotency: if form >= StreamForm::V4 {
                        idempotency
                    } else {
                        Idempotency::default()
                    },
                })
            },
        )
}

/// Any object that a server could hold.
pub(super) fn object() -> impl Strategy<Value = Object<'static>> {
    let ttl = || {
        proptest::option::of(prop_oneof![
            1..(1u64 << 48),
            Just(1),
            Just((1 << 48) - 1),
            Just(1_700_000_000_000),
        ])
    };
    prop_oneof![
        bytes().prop_map(|bytes| Object::String(owned(bytes))),
        vec(bytes(), 1..20).prop_map(|rows| Object::List(rows.into_iter().map(owned).collect())),
        names().prop_map(|rows| Object::Set(rows.into_iter().map(owned).collect())),
        btree_map(bytes(), score(), 1..20).prop_map(|rows| {
            let member = |(member, score)| Member {
                member: owned(member),
                score,
            };
            Object::ZSet(rows.into_iter().map(member).collect())
        }),
        btree_map(bytes(), (bytes(), ttl()), 1..20).prop_map(|rows| {
            let field = |(name, (value, expire_at_ms))| Field {
                name: owned(name),
                value: owned(value),
                expire_at_ms,
            };
            Object::Hash(rows.into_iter().map(field).collect())
        }),
        stream(),
    ]
}
