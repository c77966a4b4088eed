//! Streams that remember ids of producers (`XADD … IDMP`): whether one is still what was read.

use std::collections::HashSet;

use crate::payload::{self, Object, Stream, StreamForm};
use crate::record::Family;

/// Deletes a stream if these are still its settings of idempotency and its number of ids ever added,
/// and it still has no groups.
pub(super) const DELETE_IF_SET_SO: &str = "local facts, has = redis.call('XINFO', 'STREAM', KEYS[1]), {} \
    for n = 1, #facts, 2 do has[facts[n]] = facts[n + 1] end \
    for n, name in ipairs({'idmp-duration', 'idmp-maxsize', 'iids-added'}) do \
    if has[name] ~= tonumber(ARGV[n]) then return 0 end end \
    if has['groups'] ~= 0 then return 0 end \
    return redis.call('DEL', KEYS[1])";

/// What the source answers to [`DELETE_IF_SET_SO`] for a key that is not there.
pub(super) const NO_SUCH_KEY: &str = "no such key";

/// A stream that may remember ids of producers, and what else its payload says.
#[derive(PartialEq)]
pub(super) struct Remembering<'a> {
    rdb_version: u16,
    beside: &'a [u8],
    pub stream: Stream<'a>,
}

impl<'a> Remembering<'a> {
    /// `None` for what is no such stream.
    pub(super) fn of(family: Family, payload: &'a [u8]) -> Option<Self> {
        let (body, rdb_version) = payload::split(payload).ok()?;
        let (beside, body) = payload::split_metadata(family, body).ok()?;
        match payload::decode(family, body) {
            Ok(Object::Stream(stream)) if stream.form >= StreamForm::V4 => Some(Self {
                rdb_version,
                beside,
                stream,
            }),
            _ => None,
        }
    }

    /// Whether `now` is this, apart from ids that were forgotten since, and the count of duplicates.
    pub(super) fn same_as(mut self, now: &Self) -> bool {
        let (then, left) = (&mut self.stream.idempotency, &now.stream.idempotency);
        let ids = |state: &payload::Idempotency<'a>| -> Vec<_> {
            let of = |one: &payload::Producer<'a>| {
                let name = one.name.clone();
                let ids = one.ids.clone().into_iter();
                ids.map(move |id| (name.clone(), id.name, id.entry))
            };
            state.producers.iter().flat_map(of).collect()
        };
        let known: HashSet<_> = ids(then).into_iter().collect();
        let is_fewer = ids(left).iter().all(|id| known.contains(id));
        then.producers.clone_from(&left.producers);
        then.duplicates = left.duplicates;
        is_fewer && self == *now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Idempotency, IdempotentId, Producer, StreamId};

    fn stream(ids: &[&'static [u8]]) -> Remembering<'static> {
        let id = |name: &&'static [u8]| IdempotentId {
            name: (*name).into(),
            entry: StreamId { ms: 1, seq: 1 },
        };
        let value = b"\x1a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x64\x40\x64\x00\x00\x00";
        let Ok(Object::Stream(mut stream)) = payload::decode(Family::Redis, value) else {
            panic!("an empty stream");
        };
        stream.idempotency = Idempotency {
            producers: vec![Producer {
                name: (&b"p"[..]).into(),
                ids: ids.iter().map(id).collect(),
            }],
            ids_added: 3,
            ..stream.idempotency
        };
        Remembering {
            rdb_version: 13,
            beside: b"",
            stream,
        }
    }

    #[test]
    fn only_forgetting_is_no_change() {
        let read = || stream(&[b"a", b"b", b"c"]);
        assert!(read().same_as(&read()));
        assert!(read().same_as(&stream(&[b"b", b"c"])));
        assert!(!read().same_as(&stream(&[b"b", b"d"])));
        let mut none = read();
        none.stream.idempotency.producers.clear();
        none.stream.idempotency.duplicates = 9;
        assert!(read().same_as(&none));
        let changes: [fn(&mut Stream<'_>); 4] = [
            |stream| stream.idempotency.duration_secs = 7,
            |stream| stream.idempotency.max_ids = 7,
            |stream| stream.idempotency.ids_added = 4,
            |stream| stream.entries_added = 4,
        ];
        for change in changes {
            let mut now = read();
            change(&mut now.stream);
            assert!(!read().same_as(&now));
        }
    }
}
