//! Reading whole keys through a server's own commands, into forms that can be compared.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Connection, ConnectionLike as _, Value};

use super::cluster::{ClusterClient, slot_of};
use super::dataset::{command, escaped};
use super::old_streams;

/// The fields of a hash that expire, and when.
pub type FieldExpiries = BTreeMap<Vec<u8>, i64>;

/// What a key is and holds.
pub struct State {
    pub kind: String,
    pub expire_at: Option<u64>,
    pub field_expiries: FieldExpiries,
    pub meaning: Meaning,
}

pub enum Meaning {
    None,
    String(Vec<u8>),
    List(Vec<Value>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// The scores as their bits, so that -0 is not 0.
    SortedSet(BTreeMap<Vec<u8>, u64>),
    Stream(Value),
    /// The DUMP payload without its footer, of a type we cannot read.
    Opaque(Vec<u8>),
}

/// What is asked of the times at which consumers were seen and entries delivered.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    /// At most so many milliseconds apart.
    Within(u64),
    Any,
}

impl Times {
    fn agree(self, left: i64, right: i64) -> bool {
        match self {
            Self::Within(limit) => left.abs_diff(right) <= limit,
            Self::Any => true,
        }
    }
}

impl Meaning {
    /// How it differs from another, if it does.
    pub fn difference(&self, other: &Self, ignore_zero_sign: bool, times: Times) -> Option<String> {
        match (self, other) {
            (Self::String(l), Self::String(r)) | (Self::Opaque(l), Self::Opaque(r)) => {
                let at = l.iter().zip(r).position(|(l, r)| l != r);
                let at = at.unwrap_or(l.len().min(r.len()));
                (l != r).then(|| format!("{} and {} bytes, equal up to {at}", l.len(), r.len()))
            }
            (Self::List(l), Self::List(r)) => {
                let at = l.iter().zip(r).position(|(l, r)| l != r);
                let at = at.unwrap_or(l.len().min(r.len()));
                (l != r).then(|| format!("{} and {} elements, equal up to {at}", l.len(), r.len()))
            }
            (Self::Set(l), Self::Set(r)) => {
                let odd = l.symmetric_difference(r).next()?;
                Some(format!("member \"{}\" on one side only", escaped(odd)))
            }
            (Self::Hash(l), Self::Hash(r)) => map_difference(l, r, |v| escaped(v)),
            (Self::SortedSet(l), Self::SortedSet(r)) if ignore_zero_sign => {
                // Nothing but -0 changes when 0 is added to it.
                let unsigned = |scores: &BTreeMap<Vec<u8>, u64>| -> BTreeMap<Vec<u8>, u64> {
                    let scores = scores.iter();
                    let plain = |bits: u64| (f64::from_bits(bits) + 0.0).to_bits();
                    scores.map(|(m, s)| (m.clone(), plain(*s))).collect()
                };
                let (l, r) = (Self::SortedSet(unsigned(l)), Self::SortedSet(unsigned(r)));
                l.difference(&r, false, times)
            }
            (Self::SortedSet(l), Self::SortedSet(r)) => {
                map_difference(l, r, |bits| format!("{:?}", f64::from_bits(*bits)))
            }
            (Self::Stream(l), Self::Stream(r)) => stream_difference(l, r, "stream", times),
            _ => Some("of another kind".to_owned()),
        }
    }
}

fn map_difference<T: PartialEq>(
    left: &BTreeMap<Vec<u8>, T>,
    right: &BTreeMap<Vec<u8>, T>,
    show: impl Fn(&T) -> String,
) -> Option<String> {
    let names: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let odd = names.into_iter().find(|n| left.get(*n) != right.get(*n))?;
    let say = |side: Option<&T>| side.map_or_else(|| "nothing".to_owned(), &show);
    let (l, r) = (say(left.get(odd)), say(right.get(odd)));
    Some(format!("\"{}\": {l} against {r}", escaped(odd)))
}

/// Compares two `XINFO STREAM FULL`, or one group or consumer of it: every fact that both
/// servers know, but for how they keep it (the radix tree) and what follows from the rest.
fn stream_difference(left: &Value, right: &Value, place: &str, times: Times) -> Option<String> {
    let (left, right) = (facts(left), facts(right));
    for (name, l) in &left {
        let Some(r) = right.get(name) else { continue };
        let place = format!("{place} {}", escaped(name));
        match (&name[..], l, r) {
            (b"radix-tree-keys" | b"radix-tree-nodes" | b"lag", ..) => {}
            // The ids that are remembered go by the server's clock; XIDMPRECORD counts as adding.
            (b"pids-tracked" | b"iids-tracked", ..) => {}
            (b"iids-added" | b"iids-duplicates", ..) if matches!(times, Times::Any) => {}
            (b"seen-time" | b"active-time", ..) if times.agree(number(l), number(r)) => {}
            (b"pel" | b"pending", Value::Array(l), Value::Array(r)) => {
                let all = 0..l.len().max(r.len());
                let differ = |at: &usize| match (l.get(*at), r.get(*at)) {
                    (Some(l), Some(r)) => !same_entry(l, r, times),
                    _ => true,
                };
                if let Some(at) = all.into_iter().find(differ) {
                    return Some(format!(
                        "{place}: entry {at} of {} and {}",
                        l.len(),
                        r.len()
                    ));
                }
            }
            (b"groups" | b"consumers", Value::Array(l), Value::Array(r)) => {
                if l.len() != r.len() {
                    return Some(format!("{place}: {} against {}", l.len(), r.len()));
                }
                let mut pairs = l.iter().zip(r);
                if let Some(odd) = pairs.find_map(|(l, r)| stream_difference(l, r, &place, times)) {
                    return Some(odd);
                }
            }
            _ if l != r => {
                let text = format!("{place}: {l:?} against {r:?}");
                return Some(text.chars().take(600).collect());
            }
            _ => {}
        }
    }
    None
}

/// Whether two pending entries are the same. The time of the delivery stands before the count.
fn same_entry(left: &Value, right: &Value, times: Times) -> bool {
    let split = |entry: &Value| {
        let mut all = elements(entry.clone());
        let time = number(&all.remove(all.len() - 2));
        (all, time)
    };
    let ((left, at), (right, other)) = (split(left), split(right));
    left == right && times.agree(at, other)
}

/// A flat array of names and values as a map.
pub(super) fn facts(value: &Value) -> BTreeMap<Vec<u8>, &Value> {
    let Value::Array(all) = value else {
        panic!("facts in an array, not {value:?}");
    };
    let (pairs, rest) = all.as_chunks::<2>();
    assert!(rest.is_empty(), "names and values in pairs");
    pairs
        .iter()
        .map(|[name, value]| (bytes(name), value))
        .collect()
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) => text.clone().into_bytes(),
        Value::Int(number) => number.to_string().into_bytes(),
        Value::Okay => b"OK".to_vec(),
        other => panic!("a string, not {other:?}"),
    }
}

pub(super) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(all) => all,
        other => panic!("an array, not {other:?}"),
    }
}

fn pairs(value: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = elements(value);
    let (pairs, rest) = all.as_chunks::<2>();
    assert!(rest.is_empty(), "an even number of elements");
    pairs.iter().map(|[a, b]| (bytes(a), bytes(b))).collect()
}

pub(super) fn number(value: &Value) -> i64 {
    let text = String::from_utf8(bytes(value)).expect("a number");
    text.parse().expect("a number")
}

/// One of the two sides: a server, or all the primaries of a cluster together.
pub struct Side<'a> {
    nodes: Vec<&'a mut Connection>,
    /// The node of each slot; empty where there is one server only.
    owners: &'a [usize],
    /// Whether it has PEXPIRETIME.
    pub says_expiry: bool,
    /// Whether it has HPEXPIRETIME.
    says_field_expiry: bool,
    /// Whether the times in streams that were read are some milliseconds off.
    pub has_inexact_times: bool,
}

/// Before 7.0 an expiry is what remains, counted from the clock: a server that stands still in between
/// for longer is asked again.
const STOOD_STILL_MS: i64 = 20;

impl<'a> Side<'a> {
    pub fn new(connection: &'a mut Connection) -> Self {
        Self::of(vec![connection], &[])
    }

    pub fn cluster(client: &'a mut ClusterClient) -> Self {
        Self::of(client.nodes.iter_mut().collect(), &client.owners)
    }

    fn of(nodes: Vec<&'a mut Connection>, owners: &'a [usize]) -> Self {
        let mut side = Self {
            nodes,
            owners,
            says_expiry: false,
            says_field_expiry: false,
            has_inexact_times: false,
        };
        // In a cluster every node knows the same commands, or says MOVED of those that it knows.
        let knows = |reply: &Value| match reply {
            Value::ServerError(error) => error.code() == "MOVED",
            _ => true,
        };
        let replies = side.try_pipeline(&[
            vec![b"PEXPIRETIME", b"redis-migrate:no such key"],
            vec![
                b"HPEXPIRETIME",
                b"redis-migrate:no such key",
                b"FIELDS",
                b"1",
                b"f",
            ],
        ]);
        side.says_expiry = knows(&replies[0]);
        side.says_field_expiry = knows(&replies[1]);
        side
    }

    /// Sends each command to the node of its key, those without a key to the first.
    fn try_pipeline(&mut self, commands: &[Vec<&[u8]>]) -> Vec<Value> {
        let mut packed = vec![Vec::new(); self.nodes.len()];
        let mut asked = vec![Vec::new(); self.nodes.len()];
        for (number, parts) in commands.iter().enumerate() {
            let node = self.node_of(parts);
            command(&mut packed[node], parts);
            asked[node].push(number);
        }
        let mut replies = vec![Value::Nil; commands.len()];
        for ((node, packed), asked) in self.nodes.iter_mut().zip(packed).zip(asked) {
            if asked.is_empty() {
                continue;
            }
            let answers = node.req_packed_commands(&packed, 0, asked.len());
            for (number, answer) in asked.iter().zip(answers.expect("the server answers")) {
                replies[*number] = answer;
            }
        }
        replies
    }

    fn node_of(&self, parts: &[&[u8]]) -> usize {
        let key = match parts {
            [b"XINFO", _, key, ..] => key,
            [b"SCAN" | b"INFO" | b"FUNCTION" | b"SELECT", ..] | [_] | [] => return 0,
            [_, key, ..] => key,
        };
        match self.owners {
            [] => 0,
            owners => owners[usize::from(slot_of(key))],
        }
    }

    /// Sends commands that must all succeed.
    pub fn pipeline(&mut self, commands: &[Vec<&[u8]>]) -> Vec<Value> {
        let replies = self.try_pipeline(commands);
        for (reply, parts) in replies.iter().zip(commands) {
            if let Value::ServerError(error) = reply {
                panic!("{}: {error:?}", escaped(&parts.join(&b' ')));
            }
        }
        replies
    }

    fn one(&mut self, parts: &[&[u8]]) -> Value {
        self.pipeline(&[parts.to_vec()]).remove(0)
    }

    pub fn select(&mut self, db: u32) {
        if !self.owners.is_empty() {
            assert_eq!(db, 0, "a cluster has one database");
            return;
        }
        self.one(&[b"SELECT", db.to_string().as_bytes()]);
    }

    /// The databases that hold keys.
    pub fn databases(&mut self) -> Vec<u32> {
        if !self.owners.is_empty() {
            return vec![0];
        }
        let info = bytes(&self.one(&[b"INFO", b"keyspace"]));
        let info = String::from_utf8(info).expect("INFO is text");
        let names = info.lines().filter_map(|line| line.strip_prefix("db"));
        names
            .filter_map(|rest| rest.split_once(':')?.0.parse().ok())
            .collect()
    }

    /// How many keys there are in all databases.
    pub fn keys(&mut self) -> u64 {
        let mut keys = 0;
        for db in self.databases() {
            self.select(db);
            keys += u64::try_from(number(&self.one(&[b"DBSIZE"]))).expect("a count");
        }
        self.select(0);
        keys
    }

    /// One step of SCAN; the cursor moves on, and from node to node.
    pub fn scan(&mut self, cursor: &mut Vec<u8>) -> Vec<Vec<u8>> {
        let text = String::from_utf8(cursor.clone()).expect("a cursor of ours");
        let (node, at) = text.split_once(':').unwrap_or(("0", &text));
        let mut node: usize = node.parse().expect("a cursor of ours");
        let mut scan = redis::cmd("SCAN");
        scan.arg(at).arg("COUNT").arg(1000);
        let (mut next, keys): (String, Vec<Vec<u8>>) =
            scan.query(self.nodes[node]).expect("the server scans");
        if next == "0" {
            node = (node + 1) % self.nodes.len();
        }
        if node != 0 {
            next = format!("{node}:{next}");
        }
        *cursor = next.into_bytes();
        keys
    }

    /// Whether any of each row of keys is there.
    pub fn exist(&mut self, rows: &[Vec<Vec<u8>>]) -> Vec<bool> {
        let commands: Vec<Vec<&[u8]>> = rows
            .iter()
            .flatten()
            .map(|key| vec![&b"EXISTS"[..], key])
            .collect();
        let mut replies = self.pipeline(&commands).into_iter();
        rows.iter()
            .map(|row| {
                let found: Vec<Value> = replies.by_ref().take(row.len()).collect();
                found.iter().any(|reply| *reply != Value::Int(0))
            })
            .collect()
    }

    /// The function libraries and their code; none on servers that have no functions.
    pub fn libraries(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let reply = self.try_pipeline(&[vec![b"FUNCTION", b"LIST", b"WITHCODE"]]);
        let Some(Value::Array(libraries)) = reply.into_iter().next() else {
            return BTreeMap::new();
        };
        let code = |library: &Value| {
            let facts = facts(library);
            let fact = |name: &[u8]| bytes(facts[name]);
            (fact(b"library_name"), fact(b"library_code"))
        };
        libraries.iter().map(code).collect()
    }

    /// Reads keys of the selected database.
    pub fn read(&mut self, keys: &[Vec<u8>]) -> Vec<State> {
        // In pieces, so that large values do not come all at once.
        keys.chunks(200)
            .flat_map(|keys| self.read_piece(keys))
            .collect()
    }

    fn read_piece(&mut self, keys: &[Vec<u8>]) -> Vec<State> {
        let expiry: &[u8] = if self.says_expiry {
            b"PEXPIRETIME"
        } else {
            b"PTTL"
        };
        let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"TIME"]];
        commands.extend(keys.iter().map(|key| vec![expiry, key]));
        commands.push(vec![b"TIME"]);
        commands.extend(keys.iter().map(|key| vec![&b"TYPE"[..], key]));
        let ms = |reply: &Value| {
            let time = elements(reply.clone());
            number(&time[0]) * 1000 + number(&time[1]) / 1000
        };
        let mut replies = self.pipeline(&commands);
        for _ in 0..20 {
            let stood_still = ms(&replies[1 + keys.len()]) - ms(&replies[0]) > STOOD_STILL_MS;
            if self.says_expiry || !stood_still {
                break;
            }
            replies = self.pipeline(&commands);
        }
        let now = ms(&replies[0]);
        let expiries = &replies[1..=keys.len()];
        let kinds = &replies[2 + keys.len()..];
        let kinds: Vec<Vec<u8>> = kinds.iter().map(bytes).collect();

        let commands: Vec<Vec<&[u8]>> = keys.iter().zip(&kinds).map(|(k, t)| query(k, t)).collect();
        let values = self.values(&commands);
        let mut states: Vec<State> = std::iter::zip(&kinds, values)
            .zip(expiries)
            .map(|((kind, value), expiry)| State {
                kind: String::from_utf8_lossy(kind).into_owned(),
                expire_at: match number(expiry) {
                    left if left < 0 => None,
                    at if self.says_expiry => u64::try_from(at).ok(),
                    left => u64::try_from(now + left).ok(),
                },
                field_expiries: FieldExpiries::new(),
                meaning: meaning(kind, value),
            })
            .collect();
        if self.says_field_expiry {
            self.read_field_expiries(keys, &mut states);
        }
        states
    }

    /// The replies to what [`query`] asks.
    fn values(&mut self, commands: &[Vec<&[u8]>]) -> Vec<Value> {
        let mut values = self.try_pipeline(commands);
        for (value, parts) in values.iter_mut().zip(commands) {
            let Value::ServerError(error) = value else {
                continue;
            };
            let text = error.details().unwrap_or_default();
            match parts[..] {
                [b"XINFO", b"STREAM", key, ..] if text.contains("Unknown subcommand") => {
                    *value = old_streams::whole(self, key);
                    self.has_inexact_times = true;
                }
                _ => panic!("{}: {error:?}", escaped(&parts.join(&b' '))),
            }
        }
        values
    }

    fn read_field_expiries(&mut self, keys: &[Vec<u8>], states: &mut [State]) {
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let mut counts = Vec::new();
        for (key, state) in keys.iter().zip(&*states) {
            if let Meaning::Hash(fields) = &state.meaning {
                counts.push(fields.len().to_string());
                commands.push(vec![b"HPEXPIRETIME", key, b"FIELDS"]);
            }
        }
        let hashes = states.iter().filter_map(|state| match &state.meaning {
            Meaning::Hash(fields) => Some(fields),
            _ => None,
        });
        for ((parts, count), fields) in commands.iter_mut().zip(&counts).zip(hashes) {
            parts.push(count.as_bytes());
            parts.extend(fields.keys().map(Vec::as_slice));
        }
        let mut replies = self.pipeline(&commands).into_iter();
        for state in states {
            if let Meaning::Hash(fields) = &state.meaning
                && let Some(Value::Array(expiries)) = replies.next()
            {
                let expiries = fields.keys().cloned().zip(expiries.iter().map(number));
                state.field_expiries = expiries.filter(|(_, at)| *at >= 0).collect();
            }
        }
    }
}

/// The command that says everything of a key of that type.
fn query<'a>(key: &'a [u8], kind: &[u8]) -> Vec<&'a [u8]> {
    match kind {
        b"string" => vec![b"GET", key],
        b"list" => vec![b"LRANGE", key, b"0", b"-1"],
        b"set" => vec![b"SMEMBERS", key],
        b"hash" => vec![b"HGETALL", key],
        b"zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        b"stream" => vec![b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"],
        b"none" => vec![b"TYPE", key],
        _ => vec![b"DUMP", key],
    }
}

fn meaning(kind: &[u8], value: Value) -> Meaning {
    if matches!(value, Value::Nil) {
        // It has gone since we asked for its type.
        return Meaning::None;
    }
    match kind {
        b"none" => Meaning::None,
        b"string" => Meaning::String(bytes(&value)),
        b"list" => Meaning::List(elements(value)),
        b"set" => Meaning::Set(elements(value).iter().map(bytes).collect()),
        b"hash" => Meaning::Hash(pairs(value).into_iter().collect()),
        b"zset" => {
            let score = |text: Vec<u8>| -> u64 {
                let text = String::from_utf8(text).expect("a score");
                text.parse::<f64>().expect("a score").to_bits()
            };
            let pairs = pairs(value).into_iter();
            Meaning::SortedSet(pairs.map(|(member, text)| (member, score(text))).collect())
        }
        b"stream" => Meaning::Stream(value),
        _ => {
            let mut payload = bytes(&value);
            payload.truncate(payload.len().saturating_sub(10));
            Meaning::Opaque(payload)
        }
    }
}
