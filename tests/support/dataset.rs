//! A data set with every type and encoding. For very many small keys see `many`.

use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Connection, ConnectionLike as _, Value};

use redis_migrate_payload::dialect::Feature;

use super::random::Random;
use super::servers::Version;

/// One key of a data set, and what is special about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub db: u32,
    pub key: Vec<u8>,
    pub what: &'static str,
}

/// Appends one command in the server's own protocol.
pub fn command(into: &mut Vec<u8>, parts: &[&[u8]]) {
    into.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        into.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        into.extend_from_slice(part);
        into.extend_from_slice(b"\r\n");
    }
}

/// The clock in Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("before the year 500,000,000")
}

struct Fill<'a> {
    connection: &'a mut Connection,
    version: Version,
    db: u32,
    entries: Vec<Entry>,
}

impl Fill<'_> {
    fn select(&mut self, db: u32) {
        self.db = db;
        self.run(&["SELECT", &db.to_string()]);
    }

    /// Sends one command of text; any error fails the test.
    fn run(&mut self, parts: &[&str]) -> Value {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.run_bytes(&parts)
    }

    fn run_bytes(&mut self, parts: &[&[u8]]) -> Value {
        let mut parts = parts.to_vec();
        if parts[0] == b"HSET" && !self.version.is_at_least(4, 0) {
            // There HSET takes one field.
            parts[0] = b"HMSET";
        }
        let mut packed = Vec::new();
        command(&mut packed, &parts);
        let reply = self.connection.req_packed_command(&packed);
        reply.unwrap_or_else(|error| {
            let name = String::from_utf8_lossy(parts[0]).into_owned();
            panic!("{}: {name} {}: {error}", self.version, escaped(parts[1]))
        })
    }

    /// Notes a key and makes it with one command: `NAME KEY PARTS...`.
    fn make(&mut self, what: &'static str, name: &str, key: &[u8], parts: &[&[u8]]) {
        let mut all = vec![name.as_bytes(), key];
        all.extend_from_slice(parts);
        self.run_bytes(&all);
        self.note(what, key);
    }

    fn note(&mut self, what: &'static str, key: &[u8]) {
        let (db, key) = (self.db, key.to_vec());
        self.entries.push(Entry { db, key, what });
    }

    /// The same for text, the key being named after what it is.
    fn text(&mut self, what: &'static str, name: &str, parts: &[&str]) {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.make(what, name, what.as_bytes(), &parts);
    }

    fn many(&mut self, what: &'static str, name: &str, parts: &[String]) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.text(what, name, &parts);
    }
}

/// Bytes as they can be printed.
pub fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Fills a server with every type in every encoding that its version has, over the databases
/// 0, 1, 3, 9 and 15, and with function libraries where there are any (not in the list).
/// Leaves database 0 selected. Module types are not among them: see [`fill_vector_sets`].
pub fn fill_every_type(connection: &mut Connection, version: Version) -> Vec<Entry> {
    let mut fill = Fill {
        connection,
        version,
        db: 0,
        entries: Vec::new(),
    };
    fill.select(0);
    strings(&mut fill);
    lists(&mut fill);
    sets(&mut fill);
    hashes(&mut fill);
    sorted_sets(&mut fill);
    if version.has_streams() {
        streams(&mut fill);
    }
    expiries(&mut fill);
    if version.has_field_ttl() {
        field_expiries(&mut fill);
    }
    other_databases(&mut fill);
    if version.is_at_least_7() {
        functions(&mut fill);
    }
    fill.select(0);
    fill.entries
}

fn strings(fill: &mut Fill<'_>) {
    fill.text("string:int8", "SET", &["-7"]);
    fill.text("string:int16", "SET", &["12345"]);
    fill.text("string:int32", "SET", &["2147483647"]);
    fill.text("string:int64", "SET", &["-9223372036854775808"]);
    fill.text("string:not-quite-int", "SET", &["007"]);
    fill.text("string:embstr", "SET", &["hello"]);
    fill.text("string:empty", "SET", &[""]);
    fill.text(
        "string:compressible",
        "SET",
        &[&"the same again, ".repeat(64)],
    );
    let mut random = Random::new(1);
    fill.make("string:raw", "SET", b"string:raw", &[&random.bytes(200)]);
    let text: String = (0..20_000).map(|n| format!("{n:x} ")).collect();
    fill.text(
        "string:100k",
        "SET",
        &[&text[..60_000].repeat(2)[..100_000]],
    );
    let noise = random.bytes(100_000);
    fill.make("string:100k-noise", "SET", b"string:100k-noise", &[&noise]);
    fill.make(
        "an empty key name",
        "SET",
        b"",
        &[b"value of the empty name"],
    );
    let all: Vec<u8> = (0..=255).collect();
    fill.make("all 256 bytes", "SET", &all, &[&all]);
    fill.make(
        "newline and 0xff",
        "SET",
        b"a\r\nb\xff\x00\"'\\",
        &[b"\xff\n\x00"],
    );
    fill.make(
        "a key in UTF-8",
        "SET",
        "schlüssel:日本".as_bytes(),
        &["wert ✓".as_bytes()],
    );
    fill.make("a long key name", "SET", &[b'k'; 5000], &[b"v"]);
    fill.text("string:hll-sparse", "PFADD", &["a", "b", "c"]);
    let members: Vec<String> = (0..5000).map(|n| format!("visitor {n}")).collect();
    fill.many("string:hll-dense", "PFADD", &members);
    fill.text("string:bitmap", "SETBIT", &["70000", "1"]);
    fill.run(&["SETBIT", "string:bitmap", "7", "1"]);
}

fn lists(fill: &mut Fill<'_>) {
    fill.text("list:small", "RPUSH", &["a", "", "7", "-3000000000", "ä"]);
    let elements: Vec<String> = (0..3000).map(|n| format!("element number {n}")).collect();
    fill.many("list:3000", "RPUSH", &elements);
    let numbers: Vec<String> = (0..70)
        .flat_map(|shift: u32| [1_i64, -1].map(|sign| sign.wrapping_shl(shift).to_string()))
        .collect();
    fill.many("list:every-width-of-integer", "RPUSH", &numbers);
    let widths: Vec<String> = [1, 63, 64, 127, 128, 4094, 4095, 4096, 16_383, 16_384]
        .map(|length: usize| "x".repeat(length))
        .into();
    fill.many("list:every-width-of-length", "RPUSH", &widths);
    // Elements that get a node of their own: from 7.0 on, and only above a threshold.
    let threshold = ["DEBUG", "QUICKLIST-PACKED-THRESHOLD"];
    if fill.version.is_at_least_7() {
        fill.run(&[threshold[0], threshold[1], "1000"]);
    }
    let mut big = vec!["small".to_owned(), "big ".repeat(5000)];
    big.extend([
        "between".to_owned(),
        "large ".repeat(20_000),
        "end".to_owned(),
    ]);
    fill.many("list:plain-nodes", "RPUSH", &big);
    if fill.version.is_at_least_7() {
        fill.run(&[threshold[0], threshold[1], "0"]);
    }
    // Before 3.2 a list is one ziplist or linked nodes.
    let compresses = fill.version.is_at_least(3, 2);
    if compresses {
        fill.run(&["CONFIG", "SET", "list-compress-depth", "1"]);
    }
    let repeated: Vec<String> = (0..800)
        .map(|n| format!("{n} {}", "text ".repeat(20)))
        .collect();
    fill.many("list:compressed", "RPUSH", &repeated);
    if compresses {
        fill.run(&["CONFIG", "SET", "list-compress-depth", "0"]);
    }
}

fn sets(fill: &mut Fill<'_>) {
    fill.text("set:intset16", "SADD", &["1", "-2", "300"]);
    fill.text("set:intset32", "SADD", &["1", "-2", "70000"]);
    fill.text("set:intset64", "SADD", &["1", "-2", "5000000000"]);
    fill.text("set:small", "SADD", &["one", "two", "", "3"]);
    fill.make(
        "set:binary",
        "SADD",
        b"set:binary",
        &[b"\x00", b"\xff\n", b"\r\n"],
    );
    let members: Vec<String> = (0..1000).map(|n| format!("member {n}")).collect();
    fill.many("set:table", "SADD", &members);
    let numbers: Vec<String> = (0..1000)
        .map(|n: i64| (n * 7_000_001).to_string())
        .collect();
    fill.many("set:table-of-integers", "SADD", &numbers);
    fill.text("set:long-member", "SADD", &["short", &"long".repeat(50)]);
}

fn hashes(fill: &mut Fill<'_>) {
    fill.text(
        "hash:small",
        "HSET",
        &["name", "Ada", "born", "1815", "", "empty field", "none", ""],
    );
    let fields: Vec<String> = (0..1000)
        .flat_map(|n| [format!("field {n}"), format!("value {}", n * n)])
        .collect();
    fill.many("hash:table", "HSET", &fields);
    fill.text(
        "hash:long-value",
        "HSET",
        &["short", "1", "long", &"v".repeat(3000)],
    );
    fill.make(
        "hash:binary",
        "HSET",
        b"hash:binary",
        &[b"\xff\x00", b"\n", b"\r\n", b"\x80"],
    );
    fill.text("hash:one-integer", "HSET", &["n", "1"]);
    fill.run(&["HINCRBY", "hash:one-integer", "n", "9223372036854775800"]);
}

fn sorted_sets(fill: &mut Fill<'_>) {
    fill.text(
        "zset:small",
        "ZADD",
        &["1", "one", "2.5", "two and a half", "-3", "minus three"],
    );
    let scored: Vec<String> = (0..1000)
        .flat_map(|n| [(f64::from(n) / 7.0).to_string(), format!("member {n}")])
        .collect();
    fill.many("zset:skiplist", "ZADD", &scored);
    let infinite = ["+inf", "up", "-inf", "down", "0", "middle"];
    fill.text("zset:infinite", "ZADD", &infinite);
    let extreme = ["5e-324", "least", "2.2250738585072011e-308", "denormal"];
    fill.text("zset:denormal", "ZADD", &extreme);
    let odd = [
        "-0",
        "minus zero",
        "0",
        "zero",
        "0.1",
        "tenth",
        "1e300",
        "huge",
    ];
    fill.text("zset:minus-zero", "ZADD", &odd);
    let whole = [
        "9007199254740993",
        "past 2^53",
        "-9007199254740992",
        "at -2^53",
        "17",
        "17",
    ];
    fill.text("zset:whole-scores", "ZADD", &whole);
    fill.text(
        "zset:equal-scores",
        "ZADD",
        &["1", "b", "1", "a", "1", "", "1", "c"],
    );
    let long = format!("long member {}", "m".repeat(200));
    fill.text(
        "zset:skiplist-of-odd-scores",
        "ZADD",
        &["-inf", &long, "-0", "z", "5e-324", "d", "inf", "i"],
    );
    let places = [
        "13.361389",
        "38.115556",
        "Palermo",
        "15.087269",
        "37.502669",
        "Catania",
    ];
    if fill.version.is_at_least(3, 2) {
        fill.text("zset:geo", "GEOADD", &places);
    }
}

fn streams(fill: &mut Fill<'_>) {
    fill.text("stream:plain", "XADD", &["1-1", "f", "v", "", ""]);
    fill.run(&[
        "XADD",
        "stream:plain",
        "1-2",
        "other",
        "fields",
        "than",
        "before",
        "n",
        "5",
    ]);
    fill.run(&["XADD", "stream:plain", "1700000000000-7", "f", "v"]);

    for n in 1..=1000 {
        let (id, value) = (format!("{}-{}", 1000 + n / 3, n), format!("reading {n}"));
        fill.run(&["XADD", "stream:1000", &id, "sensor", &value, "unit", "°C"]);
    }
    for id in ["1000-2", "1100-300", "1100-301", "1333-1000"] {
        fill.run(&["XDEL", "stream:1000", id]);
    }
    fill.note(
        "1000 entries, some deleted, the last one too",
        b"stream:1000",
    );

    let key = "stream:groups";
    for n in 1..=20 {
        fill.run(&["XADD", key, &format!("{n}-0"), "job", &n.to_string()]);
    }
    fill.run(&["XGROUP", "CREATE", key, "workers", "0"]);
    fill.run(&["XGROUP", "CREATE", key, "idle\n\u{7f}", "$"]);
    fill.run(&["XGROUP", "CREATE", key, "middle", "10-0"]);
    let read = [
        "XREADGROUP",
        "GROUP",
        "workers",
        "ada",
        "COUNT",
        "8",
        "STREAMS",
        key,
        ">",
    ];
    fill.run(&read);
    let read = [
        "XREADGROUP",
        "GROUP",
        "workers",
        "bob",
        "COUNT",
        "4",
        "STREAMS",
        key,
        ">",
    ];
    fill.run(&read);
    fill.run(&["XACK", key, "workers", "2-0", "9-0"]);
    let claim = [
        "XCLAIM",
        key,
        "workers",
        "cyd",
        "0",
        "3-0",
        "10-0",
        "RETRYCOUNT",
        "5",
        "TIME",
    ];
    let then = (now_ms() - 90_000).to_string();
    fill.run(&[&claim[..], &[&then]].concat());
    // An entry that is pending and no longer there.
    fill.run(&["XDEL", key, "4-0"]);
    if fill.version.has(Feature::CreateConsumer) {
        fill.run(&["XGROUP", "CREATECONSUMER", key, "workers", "never read"]);
    }
    fill.note("groups with pending entries, some claimed", key.as_bytes());

    fill.run(&["XGROUP", "CREATE", "stream:empty", "g", "$", "MKSTREAM"]);
    fill.note("empty, with a group", b"stream:empty");

    for n in 1..=3 {
        fill.run(&["XADD", "stream:trimmed", &format!("{n}-1"), "f", "v"]);
    }
    fill.run(&["XGROUP", "CREATE", "stream:trimmed", "late", "2-1"]);
    fill.run(&["XTRIM", "stream:trimmed", "MAXLEN", "0"]);
    fill.note("trimmed to zero", b"stream:trimmed");

    fill.run(&["XADD", "stream:xsetid", "5-5", "f", "v"]);
    let mut set = vec!["XSETID", "stream:xsetid", "9000-1"];
    if fill.version.is_at_least_7() {
        set.extend(["ENTRIESADDED", "77", "MAXDELETEDID", "8999-0"]);
    }
    fill.run(&set);
    fill.note("after XSETID", b"stream:xsetid");
}

fn expiries(fill: &mut Fill<'_>) {
    const SECOND: u64 = 1000;
    let now = now_ms();
    for (what, at) in [
        ("ttl:minutes", now + 900 * SECOND + 123),
        ("ttl:days", now + 3 * 86_400 * SECOND + 456),
        // The year 5138, past what 32 bits of seconds can say.
        ("ttl:far-future", 100_000_000_000_789),
    ] {
        fill.text(what, "SET", &["v"]);
        fill.run(&["PEXPIREAT", what, &at.to_string()]);
    }
    for (what, name, parts) in [
        ("ttl:list", "RPUSH", &["a", "b"][..]),
        ("ttl:set", "SADD", &["1", "2"][..]),
        ("ttl:hash", "HSET", &["f", "v"][..]),
        ("ttl:zset", "ZADD", &["1", "m"][..]),
        ("ttl:stream", "XADD", &["1-1", "f", "v"][..]),
    ] {
        if name == "XADD" && !fill.version.has_streams() {
            continue;
        }
        fill.text(what, name, parts);
        fill.run(&["PEXPIREAT", what, &(now + 7200 * SECOND + 1).to_string()]);
    }
}

fn field_expiries(fill: &mut Fill<'_>) {
    let (soon, later) = (now_ms() + 1_800_111, now_ms() + 90_000_222);
    let expire = |fill: &mut Fill<'_>, key: &str, at: u64, fields: &[&str]| {
        let (at, count) = (at.to_string(), fields.len().to_string());
        fill.run(&[&["HPEXPIREAT", key, &at, "FIELDS", &count], fields].concat());
    };
    fill.text("hash:field-ttl", "HSET", &["a", "1", "b", "2", "c", "3"]);
    expire(fill, "hash:field-ttl", soon, &["a"]);
    expire(fill, "hash:field-ttl", later, &["c"]);

    fill.text("hash:field-ttl-all", "HSET", &["a", "1", "b", "2"]);
    expire(fill, "hash:field-ttl-all", soon, &["a", "b"]);

    let names: Vec<String> = (0..1000).map(|n| format!("field {n}")).collect();
    let pairs: Vec<String> = names
        .iter()
        .flat_map(|n| [n.clone(), n.repeat(2)])
        .collect();
    fill.many("hash:field-ttl-table", "HSET", &pairs);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    expire(fill, "hash:field-ttl-table", soon, &names[..300]);
    expire(fill, "hash:field-ttl-table", later, &names[300..400]);

    fill.text("hash:field-ttl-persisted", "HSET", &["a", "1", "b", "2"]);
    expire(fill, "hash:field-ttl-persisted", soon, &["a"]);
    fill.run(&["HPERSIST", "hash:field-ttl-persisted", "FIELDS", "1", "a"]);

    fill.text("hash:field-ttl-and-ttl", "HSET", &["a", "1", "b", ""]);
    expire(fill, "hash:field-ttl-and-ttl", soon, &["b"]);
    fill.run(&["PEXPIREAT", "hash:field-ttl-and-ttl", &later.to_string()]);
}

fn other_databases(fill: &mut Fill<'_>) {
    fill.select(1);
    // The same names as in database 0, with other contents.
    fill.text("string:embstr", "SET", &["not the one of database 0"]);
    fill.text("list:small", "RPUSH", &["another type's", "name"]);
    fill.text("hash:small", "SADD", &["a set", "under a hash's name"]);
    fill.select(3);
    fill.text("zset:small", "ZADD", &["-1.5", "only here"]);
    fill.text("ttl:minutes", "SET", &["with another expiry"]);
    fill.run(&["PEXPIRE", "ttl:minutes", "1234567"]);
    fill.select(9);
    if fill.version.has_streams() {
        fill.text("stream:plain", "XADD", &["9-9", "in", "database 9"]);
    } else {
        fill.text("list:small", "RPUSH", &["in", "database 9"]);
    }
    fill.select(15);
    fill.text("string:int16", "SET", &["15"]);
}

fn functions(fill: &mut Fill<'_>) {
    for (library, function) in [("first", "echo_first"), ("second", "echo_second")] {
        let code = format!(
            "#!lua name={library}\n-- of the test data\n\
             redis.register_function('{function}', function(keys, args) return args[1] end)\n"
        );
        fill.run(&["FUNCTION", "LOAD", "REPLACE", &code]);
    }
}

/// Adds a vector set where the server has them: a module's type, which only such a server
/// takes back. Returns nothing where there are none.
pub fn fill_vector_sets(connection: &mut Connection, version: Version) -> Vec<Entry> {
    if !version.has(Feature::VectorSets) {
        return Vec::new();
    }
    let mut fill = Fill {
        connection,
        version,
        db: 0,
        entries: Vec::new(),
    };
    fill.select(0);
    for (name, x) in [("a", "1.5"), ("b", "-2"), ("c", "0.25")] {
        fill.run(&["VADD", "vectorset", "VALUES", "3", x, "1", "2", name]);
    }
    fill.note("a vector set", b"vectorset");
    fill.entries
}
