//! A data set of random keys, and random changes to it that are remembered.

use redis::Connection;

use crate::diff::found::{Found, send};
use crate::support::dataset::now_ms;
use crate::support::random::Random;

/// A key of the data set.
pub struct Key {
    db: u32,
    name: String,
    kind: usize,
    expires: bool,
    field_expires: bool,
}

const KINDS: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

fn word(random: &mut Random) -> String {
    let length = match random.below(10) {
        0 => random.between(60, 300),
        _ => random.between(1, 12),
    };
    match random.chance(30) {
        true => random.below(100_000).to_string(),
        false => (0..length)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect(),
    }
}

/// Adds elements to a value, or makes it. Ids of stream entries grow with `at`.
fn grow(key: &Key, at: u64, random: &mut Random) -> Vec<String> {
    let name = key.name.clone();
    let some =
        |head: &str, random: &mut Random, row: &mut dyn FnMut(&mut Random) -> Vec<String>| {
            let mut words = vec![head.to_owned(), name.clone()];
            // Words may come twice; so there are always two members to take one from.
            match head {
                "SADD" => words.extend(["base a", "base b"].map(str::to_owned)),
                "ZADD" => words.extend(["5", "base a", "6", "base b"].map(str::to_owned)),
                _ => {}
            }
            for _ in 0..random.between(2, 8) {
                words.extend(row(random));
            }
            words
        };
    match key.kind {
        0 => vec!["SET".into(), name, word(random)],
        1 => some("RPUSH", random, &mut |r| vec![word(r)]),
        2 => some("SADD", random, &mut |r| vec![word(r)]),
        3 => some("ZADD", random, &mut |r| {
            vec![(r.below(1_000) as f64 / 8.0).to_string(), word(r)]
        }),
        4 => some("HSET", random, &mut |r| vec![word(r), word(r)]),
        _ => ["XADD", &name, &format!("{at}-1"), "field", &word(random)]
            .map(str::to_owned)
            .into(),
    }
}

fn run(client: &mut Connection, words: &[String]) {
    send(
        client,
        &words.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

fn select(client: &mut Connection, db: u32) {
    send(client, &["SELECT", &db.to_string()]);
}

/// Makes `count` keys in two databases.
pub fn fill(
    client: &mut Connection,
    count: usize,
    field_ttl: bool,
    random: &mut Random,
) -> Vec<Key> {
    let mut keys = Vec::new();
    for n in 0..count {
        let mut key = Key {
            db: if n % 2 == 0 { 0 } else { 7 },
            // The same names in both databases.
            name: format!("{}:{}", ["user", "cart", "x"][n / 2 % 3], n / 2),
            kind: random.below(KINDS.len() as u64) as usize,
            expires: random.chance(30),
            field_expires: false,
        };
        select(client, key.db);
        run(client, &grow(&key, 1, random));
        if key.kind == 5 {
            run(client, &grow(&key, 2, random));
            run(client, &grow(&key, 3, random));
            send(client, &["XGROUP", "CREATE", &key.name, "g", "0"]);
            send(
                client,
                &[
                    "XREADGROUP",
                    "GROUP",
                    "g",
                    "c",
                    "COUNT",
                    "2",
                    "STREAMS",
                    &key.name,
                    ">",
                ],
            );
        }
        if key.kind == 4 && field_ttl && random.chance(50) {
            key.field_expires = true;
            let at = (now_ms() + random.between(10_000_000, 90_000_000)).to_string();
            send(client, &["HSET", &key.name, "expiring", "1"]);
            send(
                client,
                &["HPEXPIREAT", &key.name, &at, "FIELDS", "1", "expiring"],
            );
        }
        if key.expires {
            let at = now_ms() + random.between(10_000_000, 90_000_000);
            send(client, &["PEXPIREAT", &key.name, &at.to_string()]);
        }
        keys.push(key);
    }
    keys
}

/// Changes `count` of the keys, each in one way.
pub fn plant(
    client: &mut Connection,
    mut keys: Vec<Key>,
    count: usize,
    random: &mut Random,
) -> Found {
    let mut planted = Found::new();
    while planted.len() < count {
        let key = keys.swap_remove(random.below(keys.len() as u64) as usize);
        select(client, key.db);
        let (name, class) = change(client, &key, random);
        planted.insert((key.db.to_string(), name, class.to_owned()));
    }
    planted
}

fn change(client: &mut Connection, key: &Key, random: &mut Random) -> (String, &'static str) {
    let name = key.name.as_str();
    let class = match random.below(10) {
        0 => {
            send(client, &["DEL", name]);
            "missing"
        }
        1 => {
            let new = format!("new:{name}");
            send(client, &["SET", &new, "1"]);
            return (new, "extra");
        }
        2 => {
            send(client, &["DEL", name]);
            match key.kind {
                0 => send(client, &["SADD", name, "a"]),
                _ => send(client, &["SET", name, "a"]),
            }
            "type"
        }
        3 | 4 => {
            match key.expires && random.chance(50) {
                true => send(client, &["PERSIST", name]),
                false => send(client, &["PEXPIRE", name, "5000000"]),
            }
            "ttl"
        }
        5 if key.field_expires => {
            match random.chance(50) {
                true => send(client, &["HPERSIST", name, "FIELDS", "1", "expiring"]),
                false => send(
                    client,
                    &["HEXPIRE", name, "5000", "FIELDS", "1", "expiring"],
                ),
            }
            "field-ttl"
        }
        _ => {
            change_value(client, key, random);
            "value"
        }
    };
    (name.to_owned(), class)
}

/// Changes the value a little, and never its expiry.
fn change_value(client: &mut Connection, key: &Key, random: &mut Random) {
    let name = key.name.as_str();
    match (key.kind, random.below(4)) {
        (0, 0) => send(client, &["APPEND", name, "x"]),
        (0, 1) => send(client, &["SETRANGE", name, "0", "\u{1}"]),
        (0, _) => send(client, &["SET", name, "quite another", "KEEPTTL"]),
        (1, 0) => send(client, &["LSET", name, "-1", "changed"]),
        (1, 1) => send(client, &["LPOP", name]),
        (1, _) => send(client, &["LPUSH", name, "more"]),
        (2, 0) => send(client, &["SPOP", name]),
        (2, _) => send(client, &["SADD", name, "a member more"]),
        (3, 0) => send(client, &["ZPOPMIN", name]),
        (3, 1) => send(client, &["ZADD", name, "-1e300", "a member more"]),
        (3, _) => {
            let first: Vec<String> = redis::cmd("ZRANGE")
                .arg(&[name, "0", "0"])
                .query(client)
                .expect("a member");
            send(client, &["ZINCRBY", name, "0.125", &first[0]]);
        }
        (4, 0) => send(client, &["HSET", name, "a field more", ""]),
        (4, _) => {
            let fields: Vec<String> = redis::cmd("HKEYS").arg(name).query(client).expect("fields");
            let field = fields.iter().find(|field| *field != "expiring");
            send(client, &["HSET", name, field.expect("a field"), "changed"]);
        }
        (_, 0) => send(client, &["XADD", name, "9-9", "field", "more"]),
        (_, 1) => send(client, &["XACK", name, "g", "1-1"]),
        (_, 2) => send(client, &["XGROUP", "CREATE", name, "another", "$"]),
        (_, _) => send(client, &["XDEL", name, "3-1"]),
    }
}
