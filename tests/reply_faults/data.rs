//! The small data set that every run moves, and the strangers that stand at the destination.

use std::collections::BTreeSet;

use redis::{Connection, ConnectionLike as _};

use crate::support::dataset::{command, now_ms};
use crate::support::random::Random;
use crate::support::servers::Version;

/// Commands that make the source's keys: the database, and the command in words. The first argument
/// is the key.
const COMMANDS: [(u32, &str); 41] = [
    (0, "SET int -7"),
    (0, "SET text hello"),
    (0, "SET session:1 of-database-0"),
    (0, "SET session:2 of-database-0"),
    (0, "SET ttl:text expires"),
    (
        0,
        "SET string:long xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ),
    (0, "RPUSH list a b c 7 -3000000000"),
    (0, "RPUSH ttl:list a b"),
    (0, "SADD set:int 1 -2 70000"),
    (0, "SADD set:text one two 3"),
    (0, "HSET hash name Ada born 1815"),
    (0, "HSET ttl:hash f v"),
    (0, "ZADD zset 1 one 2.5 more -3 less"),
    (0, "ZADD ttl:zset 1 m"),
    (0, "XADD stream 1-1 f v"),
    (0, "XADD stream 2-7 other fields than before"),
    (0, "XADD groups 1-0 job 1"),
    (0, "XADD groups 2-0 job 2"),
    (0, "XGROUP CREATE groups workers 0"),
    (0, "XREADGROUP GROUP workers ada COUNT 1 STREAMS groups >"),
    (0, "PFADD hll a b c"),
    (1, "SET session:1 of-database-1"),
    (1, "SET session:2 of-database-1"),
    (1, "SET only:1 one"),
    (1, "SET ttl:1 expires"),
    (1, "SADD hash a-set-under-a-hash's-name"),
    (1, "RPUSH list another"),
    (1, "ZADD z:1 -1.5 m"),
    (1, "HSET h:1 f v g w"),
    (1, "XADD stream 9-9 in database-1"),
    (3, "SET session:1 of-database-3"),
    (3, "SET session:3 of-database-3"),
    (3, "SET only:3 three"),
    (3, "SET ttl:3 expires"),
    (3, "SET text other-text"),
    (3, "HSET hash only here"),
    (3, "RPUSH l:3 x y z"),
    (3, "SADD s:3 a b c"),
    (3, "ZADD zset 9 nine"),
    (3, "SET int 33"),
    (3, "XADD x:3 3-3 in database-3"),
];

/// Databases that strangers live in; the source has nothing in the last one.
pub const STRANGER_DBS: [u32; 4] = [0, 1, 3, 5];

/// Names that never came from the source, in every database of [`STRANGER_DBS`].
const OWN: [&str; 3] = ["own:a", "own:b", "own:expires"];

const LIBRARY: &str = "#!lua name=ours\nredis.register_function('ours', \
                       function(keys, args) return args[1] end)\n";
const STRANGERS_LIBRARY: &str = "#!lua name=strangers\nredis.register_function('strangers', \
                                 function(keys, args) return 1 end)\n";

/// A key and the database it is in.
pub type Place = (u32, Vec<u8>);

/// Commands that are collected and then sent in one go, over several databases.
#[derive(Default)]
struct Script {
    packed: Vec<u8>,
    count: usize,
    db: Option<u32>,
}

impl Script {
    fn raw(&mut self, parts: &[&[u8]]) {
        command(&mut self.packed, parts);
        self.count += 1;
    }

    fn at(&mut self, db: u32, parts: &[&[u8]]) {
        if self.db != Some(db) {
            self.raw(&[b"SELECT", db.to_string().as_bytes()]);
            self.db = Some(db);
        }
        self.raw(parts);
    }

    fn words(&mut self, db: u32, text: &str) {
        let parts: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        self.at(db, &parts);
    }

    fn send(mut self, connection: &mut Connection) {
        self.raw(&[b"SELECT", b"0"]);
        let replies = connection
            .req_packed_commands(&self.packed, 0, self.count)
            .expect("a server that answers");
        let bad = replies
            .iter()
            .find(|reply| matches!(reply, redis::Value::ServerError(_)));
        assert!(bad.is_none(), "{bad:?}");
    }
}

/// Fills an empty server with what is to be moved.
pub fn fill_source(connection: &mut Connection, version: Version) {
    let mut script = Script::default();
    for (db, words) in COMMANDS {
        script.words(db, words);
    }
    // One value that is larger than the rest together.
    let mut random = Random::new(11);
    for piece in 0..40 {
        let element: Vec<u8> = random.bytes(1500);
        let element: String = element.iter().map(|b| format!("{b:02x}")).collect();
        script.words(1, &format!("RPUSH large {piece}:{element}"));
    }
    let later = now_ms() + 7_200_000;
    for (db, key) in [
        (0, "ttl:text"),
        (0, "ttl:list"),
        (0, "ttl:hash"),
        (0, "ttl:zset"),
        (1, "ttl:1"),
        (3, "ttl:3"),
    ] {
        script.words(db, &format!("PEXPIREAT {key} {later}"));
    }
    if version.has_field_ttl() {
        script.words(0, "HSET field:ttl a 1 b 2");
        script.words(0, &format!("HPEXPIREAT field:ttl {later} FIELDS 1 a"));
    }
    script.raw(&[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY.as_bytes()]);
    script.send(connection);
}

/// What stands at the destination before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Nothing.
    Empty,
    /// Keys of others, of which none is in the way.
    Beside,
    /// The same, and some under the source's own names in the same database.
    InTheWay,
    /// Exactly what the source holds.
    Same,
    /// What the source holds, but for some keys in each database.
    Similar,
}

/// Keys in which [`Crowd::Similar`] differs from the source.
pub fn planted_differences() -> BTreeSet<Place> {
    let places = [
        (0, "session:2"),
        (0, "list"),
        (1, "only:1"),
        (1, "h:1"),
        (3, "session:3"),
        (3, "extra"),
    ];
    places.map(|(db, key)| (db, key.as_bytes().to_vec())).into()
}

/// The payload and expiry of each key of the source, as its server gives them.
pub struct Payloads(pub Vec<(Place, Vec<u8>, i64)>);

/// Makes the destination what it is before a run. It must be empty.
pub fn fill_destination(connection: &mut Connection, crowd: Crowd, source: &Payloads) {
    let mut script = Script::default();
    match crowd {
        Crowd::Empty => return,
        Crowd::Same | Crowd::Similar => restore_all(&mut script, source),
        Crowd::Beside | Crowd::InTheWay => strangers(&mut script, crowd, source),
    }
    if crowd == Crowd::Similar {
        for (db, words) in [
            (0, "SET session:2 changed"),
            (0, "DEL list"),
            (1, "SET only:1 changed"),
            (1, "HSET h:1 f changed"),
            (3, "PEXPIRE session:3 999999"),
            (3, "SET extra here"),
        ] {
            script.words(db, words);
        }
    }
    script.send(connection);
}

/// Changes and deletes keys of the source while it is exported, so that they come to the archive
/// twice, or with a tombstone: none of those that [`Crowd::Beside`] has already.
pub fn change_source(connection: &mut Connection, source: &Payloads) {
    let mut script = Script::default();
    for (number, ((db, key), ..)) in (1..).zip(&source.0) {
        match number % 8 {
            2 | 6 => script.at(*db, &[b"SET", key, b"changed since"]),
            4 => script.at(*db, &[b"DEL", key]),
            _ => {}
        }
    }
    script.send(connection);
}

/// Puts every key back as it was.
pub fn restore_source(connection: &mut Connection, source: &Payloads) {
    let mut script = Script::default();
    restore_all(&mut script, source);
    script.send(connection);
}

fn restore_all(script: &mut Script, source: &Payloads) {
    for ((db, key), payload, expire_at) in &source.0 {
        restore(script, *db, key, payload, *expire_at);
    }
    script.raw(&[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY.as_bytes()]);
}

fn restore(script: &mut Script, db: u32, key: &[u8], payload: &[u8], expire_at: i64) {
    let at = expire_at.max(0).to_string();
    script.at(
        db,
        &[
            b"RESTORE",
            key,
            at.as_bytes(),
            payload,
            b"REPLACE",
            b"ABSTTL",
        ],
    );
}

fn strangers(script: &mut Script, crowd: Crowd, source: &Payloads) {
    let ours: BTreeSet<&Place> = source.0.iter().map(|(place, ..)| place).collect();
    let later = now_ms() + 9_000_000;
    let mut number = 0;
    for ((db, key), payload, expire_at) in &source.0 {
        number += 1;
        for other in STRANGER_DBS {
            if other != *db && !ours.contains(&(other, key.clone())) && (number + other) % 2 == 0 {
                let value = format!("a stranger in {other}");
                script.at(other, &[b"SET", key, value.as_bytes()]);
            }
        }
        match number % 4 {
            // Stands there already, and is the same.
            1 if number % 8 == 1 => restore(script, *db, key, payload, *expire_at),
            0 if crowd == Crowd::InTheWay => {
                script.at(*db, &[b"SET", key, b"a stranger in the way"]);
            }
            _ => {}
        }
    }
    for db in STRANGER_DBS {
        for name in OWN {
            script.words(db, &format!("SET {name} own-{db}"));
        }
        script.words(db, &format!("PEXPIREAT own:expires {later}"));
    }
    script.raw(&[
        b"FUNCTION",
        b"LOAD",
        b"REPLACE",
        STRANGERS_LIBRARY.as_bytes(),
    ]);
}
