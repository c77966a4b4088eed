//! Whether two servers hold the same, by meaning: through the servers' own commands, and with
//! no code of the tool under test.

use std::collections::{BTreeMap, BTreeSet};

use redis::Connection;

use super::dataset::{escaped, now_ms};
use super::reading::{FieldExpiries, Meaning, Side, State, Times};
use super::servers::TestServer;

/// What counts as equal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Databases that have another number on the right: `(left, right)`.
    pub db_map: Vec<(u32, u32)>,
    /// Only these databases of the left side, and where they are mapped to.
    pub only_dbs: Option<Vec<u32>>,
    /// Keys of the left that start with this have lost it on the right, ...
    pub strip_prefix: Vec<u8>,
    /// ... and all have gained this.
    pub add_prefix: Vec<u8>,
    /// How far apart expiries may be. By default 0, or 250 where a server from before 7.0 is
    /// involved, which says only how long there is left.
    pub ttl_tolerance_ms: Option<u64>,
    pub ignore_ttl: bool,
    pub ignore_field_ttl: bool,
    /// Whether a score of -0 equals one of 0. To the servers it does, and which of the two a
    /// small sorted set says depends on the version: set it for pairs of different versions.
    pub ignore_zero_sign: bool,
    /// Whether stream consumers may have been seen, and entries delivered, at other times: so it is
    /// where one side was replayed.
    pub ignore_delivery_times: bool,
    /// Whether keys may stand on the right that are not on the left.
    pub allow_extra: bool,
    pub functions: bool,
    /// Stop after so many differences.
    pub limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            db_map: Vec::new(),
            only_dbs: None,
            strip_prefix: Vec::new(),
            add_prefix: Vec::new(),
            ttl_tolerance_ms: None,
            ignore_ttl: false,
            ignore_field_ttl: false,
            ignore_zero_sign: false,
            ignore_delivery_times: false,
            allow_extra: false,
            functions: true,
            limit: 100,
        }
    }
}

impl Options {
    fn right_db(&self, left: u32) -> u32 {
        let mapped = self.db_map.iter().find(|(from, _)| *from == left);
        mapped.map_or(left, |(_, to)| *to)
    }

    fn right_key(&self, left: &[u8]) -> Vec<u8> {
        let rest = left.strip_prefix(&self.strip_prefix[..]).unwrap_or(left);
        [&self.add_prefix[..], rest].concat()
    }

    /// The names that a key of the right may have had on the left.
    fn left_keys(&self, right: &[u8]) -> Vec<Vec<u8>> {
        let Some(rest) = right.strip_prefix(&self.add_prefix[..]) else {
            return Vec::new();
        };
        if self.strip_prefix.is_empty() {
            return vec![rest.to_vec()];
        }
        let mut names = vec![[&self.strip_prefix[..], rest].concat()];
        if !rest.starts_with(&self.strip_prefix) {
            names.push(rest.to_vec());
        }
        names
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Missing,
    Extra,
    Type,
    Value,
    Ttl,
    FieldTtl,
    Functions,
}

/// One thing that differs. `db` and `key` are the left side's, but for an extra key.
#[derive(Clone, Debug)]
pub struct Difference {
    pub kind: Kind,
    pub db: u32,
    pub key: Vec<u8>,
    pub detail: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = escaped(&self.key);
        write!(
            f,
            "{:?} db {} \"{key}\" {}",
            self.kind, self.db, self.detail
        )
    }
}

/// Panics with the differences, if there are any.
#[track_caller]
pub fn assert_equal(left: &mut Connection, right: &mut Connection) {
    assert_equal_with(left, right, &Options::default());
}

#[track_caller]
pub fn assert_equal_with(left: &mut Connection, right: &mut Connection, options: &Options) {
    assert_same(Side::new(left), Side::new(right), options);
}

/// Panics with the differences between two sides, of which each may be a cluster.
#[track_caller]
pub fn assert_same(left: Side<'_>, right: Side<'_>, options: &Options) {
    let differences = compare(left, right, options);
    let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} differences:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// Panics unless all is equal but for so many keys, which are missing on the right: for servers that
/// have no functions and tell times roughly.
#[track_caller]
pub fn assert_only_missing(left: &TestServer, right: &TestServer, missing: usize) {
    let options = Options {
        functions: false,
        ttl_tolerance_ms: Some(1000),
        ignore_zero_sign: true,
        ignore_delivery_times: true,
        limit: 10_000,
        ..Options::default()
    };
    let found = differences(&mut left.client(), &mut right.client(), &options);
    let (gone, wrong): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|one| one.kind == Kind::Missing);
    assert!(wrong.is_empty(), "{}: {wrong:?}", left.version());
    assert_eq!(gone.len(), missing, "{}: {gone:?}", left.version());
}

/// Compares everything on two servers that are not being written to. Leaves both connections
/// in database 0.
pub fn differences(
    left: &mut Connection,
    right: &mut Connection,
    options: &Options,
) -> Vec<Difference> {
    compare(Side::new(left), Side::new(right), options)
}

/// Compares everything on two sides, of which each may be a cluster.
pub fn compare(mut left: Side<'_>, mut right: Side<'_>, options: &Options) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut left_dbs = left.databases();
    if let Some(only) = &options.only_dbs {
        left_dbs.retain(|db| only.contains(db));
    }
    for &db in &left_dbs {
        left.select(db);
        right.select(options.right_db(db));
        let mut cursor = b"0".to_vec();
        loop {
            let keys = left.scan(&mut cursor);
            compare_page(&mut left, &mut right, db, &keys, options, &mut found);
            if cursor == b"0" || found.len() >= options.limit {
                break;
            }
        }
    }
    if !options.allow_extra {
        find_extra(&mut left, &mut right, options, &mut found);
    }
    if options.functions {
        compare_functions(&mut left, &mut right, &mut found);
    }
    left.select(0);
    right.select(0);
    found.truncate(options.limit);
    found
}

fn compare_page(
    left: &mut Side<'_>,
    right: &mut Side<'_>,
    db: u32,
    keys: &[Vec<u8>],
    options: &Options,
    found: &mut Vec<Difference>,
) {
    let right_keys: Vec<Vec<u8>> = keys.iter().map(|key| options.right_key(key)).collect();
    let inexact = !(left.says_expiry && right.says_expiry);
    let tolerance = options
        .ttl_tolerance_ms
        .unwrap_or(if inexact { 250 } else { 0 });
    let (left_states, right_states) = std::thread::scope(|scope| {
        let other = scope.spawn(|| right.read(&right_keys));
        (left.read(keys), other.join().expect("the right side reads"))
    });
    let times = match options.ignore_delivery_times {
        true => Times::Any,
        false if left.has_inexact_times || right.has_inexact_times => Times::Within(250),
        false => Times::Within(0),
    };
    for ((key, l), r) in keys.iter().zip(left_states).zip(right_states) {
        let mut note = |kind, detail| {
            let key = key.clone();
            found.push(Difference {
                kind,
                db,
                key,
                detail,
            });
        };
        let over = |state: &State| {
            let limit = now_ms().saturating_add(tolerance).saturating_add(1000);
            state.expire_at.is_some_and(|at| at <= limit)
        };
        if over(&l) || over(&r) || matches!(l.meaning, Meaning::None) {
            // It expires while we look. A key that has just gone is no difference either;
            // if the right still has it, the search for extra keys finds it.
            continue;
        }
        if matches!(r.meaning, Meaning::None) {
            note(Kind::Missing, format!("({})", l.kind));
            continue;
        }
        if l.kind != r.kind {
            note(Kind::Type, format!("{} against {}", l.kind, r.kind));
            continue;
        }
        if let Some(detail) = l
            .meaning
            .difference(&r.meaning, options.ignore_zero_sign, times)
        {
            note(Kind::Value, format!("({}) {detail}", l.kind));
        }
        if !options.ignore_field_ttl
            && let Some(detail) = field_ttl_difference(&l.field_expiries, &r.field_expiries)
        {
            note(Kind::FieldTtl, detail);
        }
        if !options.ignore_ttl {
            let equal = match (l.expire_at, r.expire_at) {
                (Some(l), Some(r)) => l.abs_diff(r) <= tolerance,
                (None, None) => true,
                _ => false,
            };
            if !equal {
                note(
                    Kind::Ttl,
                    format!("{:?} against {:?}", l.expire_at, r.expire_at),
                );
            }
        }
    }
}

fn find_extra(
    left: &mut Side<'_>,
    right: &mut Side<'_>,
    options: &Options,
    found: &mut Vec<Difference>,
) {
    let mut sources: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let left_dbs = options.only_dbs.clone().unwrap_or_else(|| left.databases());
    for db in left_dbs {
        sources.entry(options.right_db(db)).or_default().push(db);
    }
    for db in right.databases() {
        right.select(db);
        let mut cursor = b"0".to_vec();
        loop {
            let mut unknown: BTreeSet<Vec<u8>> = right.scan(&mut cursor).into_iter().collect();
            for &source in sources.get(&db).map_or(&[][..], Vec::as_slice) {
                left.select(source);
                let asked: Vec<Vec<u8>> = unknown.iter().cloned().collect();
                let names: Vec<Vec<Vec<u8>>> = asked.iter().map(|k| options.left_keys(k)).collect();
                for (key, there) in asked.iter().zip(left.exist(&names)) {
                    // A name that cannot come from the left is not asked for, and is extra.
                    if there {
                        unknown.remove(key);
                    }
                }
            }
            // What expired between the two looks is gone on the right too.
            let keys: Vec<Vec<u8>> = unknown.into_iter().collect();
            let states = right.read(&keys);
            for (key, state) in keys.into_iter().zip(states) {
                if !matches!(state.meaning, Meaning::None) {
                    let detail = format!("({})", state.kind);
                    let kind = Kind::Extra;
                    found.push(Difference {
                        kind,
                        db,
                        key,
                        detail,
                    });
                }
            }
            if cursor == b"0" || found.len() >= options.limit {
                break;
            }
        }
    }
}

fn compare_functions(left: &mut Side<'_>, right: &mut Side<'_>, found: &mut Vec<Difference>) {
    let (left, right) = (left.libraries(), right.libraries());
    let names: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    for name in names {
        if left.get(name) != right.get(name) {
            let detail = match (left.contains_key(name), right.contains_key(name)) {
                (true, false) => "library is missing",
                (false, true) => "library is extra",
                _ => "library has other code",
            };
            found.push(Difference {
                kind: Kind::Functions,
                db: 0,
                key: name.clone(),
                detail: detail.to_owned(),
            });
        }
    }
}

fn field_ttl_difference(left: &FieldExpiries, right: &FieldExpiries) -> Option<String> {
    let fields: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let odd = fields.into_iter().find(|f| left.get(*f) != right.get(*f))?;
    let (l, r) = (left.get(odd), right.get(odd));
    Some(format!("field \"{}\": {l:?} against {r:?}", escaped(odd)))
}
