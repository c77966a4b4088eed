//! Random scripts: each area has commands that are mostly right and sometimes not.

use redis_migrate_world::server::{Random, Since};

use super::play::{Pair, Step};
use super::real;

const KEYS: [&str; 5] = ["a", "b", "c", "{t}1", "{t}2"];

/// Words of one command.
struct Maker {
    random: Random,
    now: u64,
    is_6_2: bool,
    is_7: bool,
}

impl Maker {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn key(&mut self) -> String {
        let n = self.random.below(KEYS.len() as u64);
        KEYS[n as usize].to_owned()
    }

    fn value(&mut self) -> String {
        match self.random.below(8) {
            0 => self.random.below(100).to_string(),
            1 => format!("-{}", self.random.below(100_000)),
            2 => (self.random.next_u64() >> 1).to_string(),
            3 => "x".repeat(self.random.below(100) as usize),
            4 => "0012".to_owned(),
            _ => format!("v{}", self.random.below(6)),
        }
    }

    fn field(&mut self) -> String {
        format!("f{}", self.random.below(5))
    }

    fn number(&mut self) -> String {
        match self.random.below(12) {
            0 => "no".to_owned(),
            1 => "-3".to_owned(),
            2 => "9223372036854775807".to_owned(),
            _ => self.random.below(6).to_string(),
        }
    }

    fn index(&mut self) -> String {
        (self.random.below(12) as i64 - 6).to_string()
    }

    fn score(&mut self) -> String {
        match self.random.below(10) {
            0 => "inf".to_owned(),
            1 => "-inf".to_owned(),
            2 => "nan".to_owned(),
            3 => "x".to_owned(),
            4 => "1.5".to_owned(),
            _ => self.random.below(7).to_string(),
        }
    }

    fn id(&mut self) -> String {
        match self.random.below(14) {
            0 => "0-0".to_owned(),
            1 => "x".to_owned(),
            2 => self.random.below(40).to_string(),
            _ => format!("{}-{}", self.random.below(40), self.random.below(3)),
        }
    }

    /// A time far ahead, one that is over, or none.
    fn at_ms(&mut self) -> String {
        match self.random.below(6) {
            0 => "1".to_owned(),
            1 => "x".to_owned(),
            _ => (self.now + 1_000_000 + self.random.below(3) * 1_000_000).to_string(),
        }
    }

    fn after_ms(&mut self) -> String {
        match self.random.below(8) {
            0 => "-1".to_owned(),
            1 => "x".to_owned(),
            2 if self.is_6_2 => "9223372036854775807".to_owned(),
            _ => (1_000_000 + self.random.below(3) * 1_000_000).to_string(),
        }
    }

    fn line(&mut self, words: &[&str]) -> Vec<String> {
        let mut line = Vec::new();
        for word in words {
            match *word {
                "KEY" => line.push(self.key()),
                "VALUE" => line.push(self.value()),
                "VALUES" => {
                    for _ in 0..=self.random.below(4) {
                        line.push(self.value());
                    }
                }
                "FIELD" => line.push(self.field()),
                "PAIRS" => {
                    for _ in 0..=self.random.below(3) {
                        line.push(self.field());
                        line.push(self.value());
                    }
                }
                "NUMBER" => line.push(self.number()),
                "INDEX" => line.push(self.index()),
                "SCORE" => line.push(self.score()),
                "ID" => line.push(self.id()),
                "AT" => line.push(self.at_ms()),
                "AT-SECS" => {
                    let ms = self.at_ms();
                    let secs = ms.parse::<u64>().map(|ms| (ms / 1000).max(1).to_string());
                    line.push(secs.unwrap_or(ms));
                }
                "AFTER" => line.push(self.after_ms()),
                "GROUP" => line.push(self.pick(&["g", "h"]).to_owned()),
                "CONSUMER" => line.push(self.pick(&["c", "d"]).to_owned()),
                word if word.starts_with('?') => {
                    if self.random.chance(40) {
                        let options: Vec<&str> = word[1..].split('|').collect();
                        let picked = self.pick(&options).to_owned();
                        let parts: Vec<&str> = picked.split(' ').collect();
                        let parts = self.line(&parts);
                        line.extend(parts);
                    }
                }
                word => line.push(word.to_owned()),
            }
        }
        line
    }

    fn step(&mut self, templates: &[&str]) -> Step {
        let mut template = self.pick(templates);
        let newer = ["CREATECONSUMER", "MINID", "ENTRIESREAD"];
        while !self.is_7 && newer.iter().any(|word| template.contains(word)) {
            template = self.pick(templates);
        }
        let words = split(template);
        let mut line = self.line(&words);
        // Versions word that differently where there are subcommands, and SPOP of one member takes any.
        let is_kept = ["XINFO", "XGROUP", "XTRIM", "SPOP"].contains(&line[0].as_str());
        if self.random.chance(2) && !is_kept {
            line.pop();
        }
        Step {
            client: 0,
            words: line.into_iter().map(String::into_bytes).collect(),
        }
    }
}

/// Words, of which `[a b|c]` is one that may be left out.
fn split(template: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = template.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.starts_with('?') {
            true => rest.split_once(';').unwrap_or((rest, "")),
            false => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

const STRINGS: &[&str] = &[
    "SET KEY VALUE ?NX|XX|KEEPTTL|GET; ?PX AFTER|PXAT AT|EX 1000;",
    "SET KEY VALUE",
    "GET KEY",
    "SETNX KEY VALUE",
    "SETEX KEY 1000 VALUE",
    "PSETEX KEY AFTER VALUE",
    "GETSET KEY VALUE",
    "GETDEL KEY",
    "GETEX KEY ?PERSIST|PX AFTER|PXAT AT;",
    "APPEND KEY VALUE",
    "STRLEN KEY",
    "INCR KEY",
    "DECR KEY",
    "INCRBY KEY NUMBER",
    "DECRBY KEY NUMBER",
    "MGET KEY KEY",
    "MSET KEY VALUE KEY VALUE",
    "MSETNX KEY VALUE KEY VALUE",
    "SETRANGE KEY INDEX VALUE",
    "GETRANGE KEY INDEX INDEX",
];

const ANY: &[&str] = &[
    "DEL KEY KEY",
    "UNLINK KEY",
    "EXISTS KEY KEY",
    "TYPE KEY",
    "RENAME KEY KEY",
    "RENAMENX KEY KEY",
    "COPY KEY KEY ?REPLACE;",
    "MOVE KEY NUMBER",
    "DBSIZE",
    "KEYS *",
    "PERSIST KEY",
    "TTL KEY",
    "PTTL KEY",
    "PEXPIRETIME KEY",
    "EXPIRETIME KEY",
    "PEXPIRE KEY AFTER ?NX|XX|GT|LT;",
    "PEXPIREAT KEY AT ?NX|XX|GT|LT;",
    "EXPIREAT KEY AT-SECS",
    "EXPIRE KEY 1000",
    "DUMP KEY",
    "OBJECT FREQ KEY",
    "TOUCH KEY KEY",
    "RANDOMKEY",
];

const LISTS: &[&str] = &[
    "RPUSH KEY VALUES",
    "LPUSH KEY VALUES",
    "RPUSHX KEY VALUE",
    "LPUSHX KEY VALUE",
    "LPOP KEY ?NUMBER;",
    "RPOP KEY ?NUMBER;",
    "LLEN KEY",
    "LRANGE KEY INDEX INDEX",
    "LINDEX KEY INDEX",
    "LSET KEY INDEX VALUE",
    "LREM KEY INDEX VALUE",
    "LTRIM KEY INDEX INDEX",
    "LINSERT KEY AFTER VALUE VALUE",
    "RPOPLPUSH KEY KEY",
    "LMOVE KEY KEY LEFT RIGHT",
];

const SETS: &[&str] = &[
    "SADD KEY VALUES",
    "SREM KEY VALUES",
    "SCARD KEY",
    "SMEMBERS KEY",
    "SISMEMBER KEY VALUE",
    "SMOVE KEY KEY VALUE",
    "SPOP KEY 99",
    "SSCAN KEY 0",
];

const SORTED_SETS: &[&str] = &[
    "ZADD KEY ?NX|XX|GT|LT; ?CH; SCORE FIELD",
    "ZADD KEY SCORE FIELD SCORE FIELD",
    "ZADD KEY INCR SCORE FIELD",
    "ZINCRBY KEY SCORE FIELD",
    "ZREM KEY FIELD FIELD",
    "ZCARD KEY",
    "ZSCORE KEY FIELD",
    "ZRANGE KEY INDEX INDEX ?WITHSCORES;",
    "ZPOPMIN KEY ?NUMBER;",
];

const HASHES: &[&str] = &[
    "HSET KEY PAIRS",
    "HMSET KEY PAIRS",
    "HSETNX KEY FIELD VALUE",
    "HGET KEY FIELD",
    "HMGET KEY FIELD FIELD",
    "HDEL KEY FIELD FIELD",
    "HLEN KEY",
    "HSTRLEN KEY FIELD",
    "HEXISTS KEY FIELD",
    "HGETALL KEY",
    "HKEYS KEY",
    "HVALS KEY",
    "HINCRBY KEY FIELD NUMBER",
];

const FIELD_TTLS: &[&str] = &[
    "HSET KEY PAIRS",
    "HDEL KEY FIELD",
    "HPEXPIREAT KEY AT ?NX|XX|GT|LT; FIELDS 2 FIELD FIELD",
    "HPEXPIRE KEY AFTER FIELDS 1 FIELD",
    "HEXPIREAT KEY AT-SECS FIELDS 1 FIELD",
    "HEXPIRE KEY 1000 FIELDS 1 FIELD",
    "HPEXPIRETIME KEY FIELDS 2 FIELD FIELD",
    "HPTTL KEY FIELDS 1 FIELD",
    "HTTL KEY FIELDS 1 FIELD",
    "HPERSIST KEY FIELDS 2 FIELD FIELD",
    "HGETALL KEY",
    "HLEN KEY",
    "HGET KEY FIELD",
    "DUMP KEY",
    "HEXPIRETIME KEY FIELDS 1 FIELD",
    "HPEXPIREAT KEY AT FIELDS NUMBER FIELD",
    "SET KEY VALUE",
    "RENAME KEY KEY",
    "COPY KEY KEY",
    "HINCRBY KEY FIELD 1",
    "HPEXPIREAT KEY AT FIELD",
];

const STREAMS: &[&str] = &[
    "XADD KEY ID FIELD VALUE",
    "XADD KEY ID FIELD VALUE",
    "XADD KEY ID FIELD VALUE FIELD VALUE",
    "XADD KEY ?NOMKSTREAM; ?MAXLEN NUMBER|MINID ID; ID FIELD VALUE",
    "XLEN KEY",
    "XRANGE KEY - + ?COUNT NUMBER;",
    "XRANGE KEY ID ID",
    "XREVRANGE KEY + - ?COUNT 2;",
    "XDEL KEY ID ID",
    "XTRIM KEY MAXLEN NUMBER",
    "XTRIM KEY MINID ID",
    "XSETID KEY ID ?ENTRIESADDED NUMBER MAXDELETEDID ID;",
    "XREAD COUNT 2 STREAMS KEY ID",
    "XINFO STREAM KEY",
    "XINFO GROUPS KEY",
    "XINFO CONSUMERS KEY GROUP",
    "XGROUP CREATE KEY GROUP ID ?MKSTREAM; ?ENTRIESREAD NUMBER;",
    "XGROUP CREATE KEY GROUP $ MKSTREAM",
    "XGROUP CREATE KEY GROUP 0",
    "XGROUP SETID KEY GROUP ID",
    "XGROUP DESTROY KEY GROUP",
    "XGROUP CREATECONSUMER KEY GROUP CONSUMER",
    "XGROUP DELCONSUMER KEY GROUP CONSUMER",
    "XREADGROUP GROUP GROUP CONSUMER ?COUNT 2; STREAMS KEY >",
    "XREADGROUP GROUP GROUP CONSUMER ?NOACK; STREAMS KEY >",
    "XREADGROUP GROUP GROUP CONSUMER STREAMS KEY 0",
    "XACK KEY GROUP ID ID",
    "XCLAIM KEY GROUP CONSUMER 0 ID ?TIME 1000;?RETRYCOUNT 3;?FORCE;?JUSTID;",
    "XPENDING KEY GROUP",
    "SET KEY VALUE",
    "DEL KEY",
];

/// Areas: their commands, and what a version must have for them.
const AREAS: &[(&str, &[&[&str]], Since)] = &[
    ("strings", &[STRINGS, ANY], Since::Always),
    ("lists", &[LISTS, ANY], Since::Always),
    ("sets", &[SETS, ANY], Since::Always),
    ("sorted sets", &[SORTED_SETS, ANY], Since::Always),
    ("hashes", &[HASHES, ANY], Since::Always),
    ("field ttls", &[FIELD_TTLS], Since::FieldTtl),
    ("streams", &[STREAMS], Since::Always),
    (
        "all",
        &[STRINGS, LISTS, SETS, SORTED_SETS, HASHES, STREAMS, ANY],
        Since::Always,
    ),
];

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(or)
}

#[test]
fn random_scripts_are_answered_alike() {
    let scripts = number("REDIS_MIGRATE_WORLD_SCRIPTS", 10);
    let seed = number("REDIS_MIGRATE_WORLD_SEED", super::play::now_ms());
    println!("REDIS_MIGRATE_WORLD_SEED={seed}");
    let mut differences = Vec::new();
    for release in real::available() {
        let mut pair = Pair::new(release);
        for (n, (area, tables, since)) in AREAS.iter().enumerate() {
            if !release.has(*since) {
                continue;
            }
            for script in 0..scripts {
                let mut maker = Maker {
                    random: Random::new(seed ^ (n as u64) << 40 ^ script),
                    now: super::play::now_ms(),
                    is_6_2: release.has(Since::R62),
                    is_7: release.has(Since::R70),
                };
                let steps: Vec<Step> = (0..60)
                    .map(|_| {
                        // The area's own commands come twice as often.
                        let table = maker.random.below(tables.len() as u64 + 1) as usize;
                        maker.step(tables[table % tables.len()])
                    })
                    .collect();
                let told = pair.told(&steps).or_else(|| pair.hold_values(&KEYS));
                if let Some(text) = told {
                    differences.push(format!("{area}, script {script}: {text}"));
                    break;
                }
            }
        }
    }
    assert!(
        differences.is_empty(),
        "seed {seed}\n{}",
        differences.join("\n")
    );
}
