//! A hash table that grows and shrinks as those of real servers do, so that SCAN cursors mean the
//! same: two tables while it is being resized, one bucket moved at a time, cursors counted up from
//! the highest bit.

/// How a server's hash table behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Entries of a bucket before the table grows: 1 in Redis, 7 in Valkey from 8.1 on.
    pub per_bucket: usize,
    /// Buckets of the smallest table.
    pub least: usize,
    /// Whether a removal shrinks it at once (Redis 7.4, Valkey 8), or the server's cron does.
    pub shrinks_on_remove: bool,
    /// The table shrinks when it is filled to less than this many percent.
    pub min_fill: usize,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Node<V> {
    hash: u64,
    next: u32,
    entry: Option<(Box<[u8]>, V)>,
}

/// The table.
#[derive(Debug, Clone)]
pub(super) struct Dict<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    tables: [Vec<u32>; 2],
    used: [usize; 2],
    /// The next bucket of table 0 to be moved.
    moving: Option<usize>,
    seed: u64,
    shape: Shape,
}

/// Hash of a key under a seed.
pub(super) fn hash(seed: u64, key: &[u8]) -> u64 {
    let mut state = seed ^ (key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 32;
    }
    state = (state ^ (state >> 29)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 32)
}

impl<V> Dict<V> {
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            tables: [Vec::new(), Vec::new()],
            used: [0, 0],
            moving: None,
            seed,
            shape,
        }
    }

    pub fn len(&self) -> usize {
        self.used[0] + self.used[1]
    }

    /// Entries in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        let entries = self.nodes.iter().filter_map(|node| node.entry.as_ref());
        entries.map(|(key, value)| (&key[..], value))
    }

    /// Looks without moving a bucket: for judges, not for clients.
    pub fn peek(&self, key: &[u8]) -> Option<&V> {
        let at = self.find(key)?;
        self.nodes[at as usize]
            .entry
            .as_ref()
            .map(|(_, value)| value)
    }

    /// Looks as a client's command does, which moves a bucket of a table that is being resized.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.step(1);
        let at = self.find(key)?;
        self.nodes[at as usize]
            .entry
            .as_mut()
            .map(|(_, value)| value)
    }

    /// The entry's value, changed by whoever knows what they do; no bucket moves.
    pub fn peek_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let at = self.find(key)?;
        self.nodes[at as usize]
            .entry
            .as_mut()
            .map(|(_, value)| value)
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        if self.len() == 0 {
            return None;
        }
        let hash = hash(self.seed, key);
        for table in &self.tables {
            if table.is_empty() {
                continue;
            }
            let mut at = table[hash as usize & (table.len() - 1)];
            while at != NONE {
                let node = &self.nodes[at as usize];
                if node.hash == hash
                    && node
                        .entry
                        .as_ref()
                        .is_some_and(|(known, _)| **known == *key)
                {
                    return Some(at);
                }
                at = node.next;
            }
        }
        None
    }

    /// Puts a value in; gives back the one that stood there.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        self.step(1);
        if let Some(at) = self.find(key) {
            let (_, standing) = self.nodes[at as usize].entry.as_mut()?;
            return Some(std::mem::replace(standing, value));
        }
        self.grow_if_full();
        let node = Node {
            hash: hash(self.seed, key),
            next: NONE,
            entry: Some((key.into(), value)),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.link(usize::from(self.moving.is_some()), at);
        None
    }

    fn link(&mut self, table: usize, at: u32) {
        let mask = self.tables[table].len() - 1;
        let node = &mut self.nodes[at as usize];
        let bucket = &mut self.tables[table][node.hash as usize & mask];
        node.next = std::mem::replace(bucket, at);
        self.used[table] += 1;
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        if self.len() == 0 {
            return None;
        }
        self.step(1);
        let hash = hash(self.seed, key);
        for number in 0..2 {
            if self.tables[number].is_empty() {
                continue;
            }
            let bucket = hash as usize & (self.tables[number].len() - 1);
            let (mut before, mut at) = (NONE, self.tables[number][bucket]);
            while at != NONE {
                let node = &self.nodes[at as usize];
                let next = node.next;
                let is_it = node.hash == hash
                    && node
                        .entry
                        .as_ref()
                        .is_some_and(|(known, _)| **known == *key);
                if is_it {
                    match before {
                        NONE => self.tables[number][bucket] = next,
                        before => self.nodes[before as usize].next = next,
                    }
                    self.used[number] -= 1;
                    self.free.push(at);
                    let removed = self.nodes[at as usize].entry.take();
                    if self.shape.shrinks_on_remove {
                        self.shrink_if_empty();
                    }
                    return removed.map(|(_, value)| value);
                }
                (before, at) = (at, next);
            }
        }
        None
    }

    fn grow_if_full(&mut self) {
        if self.moving.is_some() {
            return;
        }
        let size = self.tables[0].len();
        if size == 0 {
            self.tables[0] = vec![NONE; self.shape.least];
        } else if self.used[0] >= size * self.shape.per_bucket {
            self.resize(self.used[0] + 1);
        }
    }

    /// What the server's cron does now and then; and a removal, in some versions.
    pub fn shrink_if_empty(&mut self) {
        let size = self.tables[0].len();
        let capacity = size * self.shape.per_bucket;
        if self.moving.is_none()
            && size > self.shape.least
            && self.used[0] * 100 < capacity * self.shape.min_fill
        {
            self.resize(self.used[0]);
        }
    }

    fn resize(&mut self, entries: usize) {
        let buckets = entries.div_ceil(self.shape.per_bucket);
        let size = buckets.next_power_of_two().max(self.shape.least);
        if size == self.tables[0].len() {
            return;
        }
        self.tables[1] = vec![NONE; size];
        self.moving = Some(0);
        if self.used[0] == 0 {
            self.end_moving();
        }
    }

    /// Moves up to `count` buckets; each stops after ten empty ones.
    pub fn step(&mut self, count: usize) {
        for _ in 0..count {
            let Some(mut bucket) = self.moving else {
                return;
            };
            for _ in 0..10 {
                match self.tables[0].get(bucket) {
                    Some(&NONE) => bucket += 1,
                    _ => break,
                }
            }
            if let Some(head) = self.tables[0].get_mut(bucket) {
                let mut at = std::mem::replace(head, NONE);
                if at != NONE {
                    bucket += 1;
                }
                while at != NONE {
                    let next = self.nodes[at as usize].next;
                    self.used[0] -= 1;
                    self.link(1, at);
                    at = next;
                }
            }
            self.moving = Some(bucket);
            if self.used[0] == 0 {
                self.end_moving();
            }
        }
    }

    fn end_moving(&mut self) {
        self.tables[0] = std::mem::take(&mut self.tables[1]);
        self.used = [self.used[1], 0];
        self.moving = None;
    }

    /// One step of a scan: the entries of the cursor's bucket, and of those that it is split into
    /// in the larger table. The next cursor; 0 at the end.
    pub fn scan(&self, cursor: u64, mut each: impl FnMut(&[u8], &V)) -> u64 {
        if self.len() == 0 {
            return 0;
        }
        let mut emit = |table: &[u32], bucket: u64| {
            let mut at = table[bucket as usize & (table.len() - 1)];
            while at != NONE {
                let node = &self.nodes[at as usize];
                if let Some((key, value)) = &node.entry {
                    each(key, value);
                }
                at = node.next;
            }
        };
        let next = |cursor: u64, mask: u64| {
            (cursor | !mask)
                .reverse_bits()
                .wrapping_add(1)
                .reverse_bits()
        };
        let [first, second] = &self.tables;
        if self.moving.is_none() {
            emit(first, cursor);
            return next(cursor, first.len() as u64 - 1);
        }
        let (small, large) = match first.len() <= second.len() {
            true => (first, second),
            false => (second, first),
        };
        let (low, high) = (small.len() as u64 - 1, large.len() as u64 - 1);
        emit(small, cursor);
        let mut cursor = cursor;
        loop {
            emit(large, cursor);
            cursor = next(cursor, high);
            if cursor & (low ^ high) == 0 {
                return cursor;
            }
        }
    }

    /// A key at random, as RANDOMKEY picks one.
    pub fn any(&self, random: u64) -> Option<&[u8]> {
        if self.len() == 0 {
            return None;
        }
        let wanted = random as usize % self.len();
        self.iter().nth(wanted).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::random::Random;
    use super::{Dict, Shape};

    const SHAPES: [Shape; 3] = [
        Shape {
            per_bucket: 1,
            least: 4,
            shrinks_on_remove: false,
            min_fill: 10,
        },
        Shape {
            per_bucket: 1,
            least: 4,
            shrinks_on_remove: true,
            min_fill: 13,
        },
        Shape {
            per_bucket: 7,
            least: 1,
            shrinks_on_remove: true,
            min_fill: 13,
        },
    ];

    fn name(n: u64) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    /// What stands all the time is never missed, however often the table grows and shrinks.
    #[test]
    fn a_scan_misses_nothing_that_stands() {
        let mut again = 0;
        for shape in SHAPES {
            for seed in 0..40 {
                let mut random = Random::new(seed);
                let mut dict = Dict::new(seed, shape);
                let standing: Vec<_> = (0..6).map(name).collect();
                for key in &standing {
                    dict.insert(key, 0);
                }
                for n in 0..random.below(400) {
                    dict.insert(&name(1000 + n), 0);
                }
                let mut seen = HashSet::new();
                let mut cursor = 0;
                loop {
                    cursor = dict.scan(cursor, |key, _| {
                        again += u32::from(!seen.insert(key.to_vec()));
                    });
                    if cursor == 0 {
                        break;
                    }
                    let (from, grows) = (random.below(20) * 20, random.chance(30));
                    for n in 0..random.below(60) {
                        match grows {
                            true => drop(dict.insert(&name(1000 + from + n), 0)),
                            false => drop(dict.remove(&name(1000 + from + n))),
                        }
                    }
                    if random.chance(30) {
                        dict.shrink_if_empty();
                    }
                }
                assert!(
                    standing.iter().all(|key| seen.contains(key)),
                    "{shape:?} {seed}"
                );
            }
        }
        assert!(
            again > 0,
            "a name given twice is possible, and was never seen"
        );
    }

    #[test]
    fn it_holds_what_is_put_in() {
        for shape in SHAPES {
            let (mut dict, mut random) = (Dict::new(7, shape), Random::new(7));
            let mut expected = std::collections::BTreeMap::new();
            for _ in 0..20_000 {
                let n = random.below(300);
                match random.chance(random.clone().below(100)) {
                    true => assert_eq!(dict.insert(&name(n), n), expected.insert(name(n), n)),
                    false => assert_eq!(dict.remove(&name(n)), expected.remove(&name(n))),
                }
                assert_eq!(dict.len(), expected.len());
            }
            let mut all: Vec<_> = dict
                .iter()
                .map(|(key, value)| (key.to_vec(), *value))
                .collect();
            all.sort();
            assert!(all.into_iter().eq(expected));
        }
    }
}
