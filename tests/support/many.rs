//! A data set of very many small keys, as applications keep them.

use redis::{Connection, ConnectionLike as _, Value};

use super::dataset::command;
use super::random::Random;

const NAMES: [&str; 24] = [
    "maria", "james", "wei", "fatima", "olga", "pedro", "aisha", "john", "yuki", "lars", "nina",
    "omar", "priya", "carlos", "emma", "ivan", "chloe", "ahmed", "sofia", "david", "mei", "noah",
    "elena", "kwame",
];
const FAMILIES: [&str; 20] = [
    "keller", "smith", "zhang", "hassan", "ivanova", "garcia", "khan", "brown", "tanaka", "berg",
    "rossi", "farouk", "patel", "mendez", "dubois", "petrov", "martin", "ali", "lopez", "mensah",
];
const STATES: [&str; 6] = [
    "active", "pending", "closed", "blocked", "trial", "archived",
];
const TAGS: [&str; 16] = [
    "new",
    "sale",
    "vip",
    "mobile",
    "web",
    "beta",
    "returning",
    "newsletter",
    "b2b",
    "refund",
    "express",
    "gift",
    "loyalty",
    "promo",
    "priority",
    "internal",
];
const FIELDS: [&str; 10] = [
    "name", "email", "status", "created", "updated", "visits", "balance", "locale", "plan", "token",
];

/// A value as applications keep it for such a field.
fn value_of(field: &str, random: &mut Random) -> String {
    match field {
        "name" => format!("{} {}", random.pick(&NAMES), random.pick(&FAMILIES)),
        "email" => format!(
            "{}.{}{}@example.com",
            random.pick(&NAMES),
            random.pick(&FAMILIES),
            random.below(1000)
        ),
        "status" => random.pick(&STATES).to_owned(),
        "created" | "updated" => format!(
            "2026-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            random.between(1, 12),
            random.between(1, 28),
            random.below(24),
            random.below(60),
            random.below(60)
        ),
        "balance" => format!("{}.{:02}", random.below(10_000), random.below(100)),
        "locale" => random
            .pick(&["en_US", "de_DE", "fr_FR", "ja_JP"])
            .to_owned(),
        "plan" => random
            .pick(&["free", "pro", "team", "enterprise"])
            .to_owned(),
        "token" => format!("{:016x}", random.next_u64()),
        "tags" => format!("{},{}", random.pick(&TAGS), random.pick(&TAGS)),
        _ => random.below(100_000).to_string(),
    }
}

/// A JSON object of about the length asked for.
fn json(length: usize, random: &mut Random) -> String {
    let mut text = format!("{{\"id\":{}", random.below(10_000_000));
    let mut field = random.below(10) as usize;
    while text.len() + 12 < length {
        let name = FIELDS[field % FIELDS.len()];
        text.push_str(&format!(",\"{name}\":\"{}\"", value_of(name, random)));
        field += 1;
    }
    text.push('}');
    text
}

/// Appends the commands that make key number `number`; returns how many there are.
fn small_key(number: u64, random: &mut Random, into: &mut Vec<u8>) -> usize {
    let kind = random.below(100);
    let family = match kind {
        0..70 => random.pick(&["user", "session", "cache:item", "product", "order"]),
        70..80 => "profile",
        80..88 => "tags",
        88..96 => "ranking",
        96..98 => "queue",
        _ => "events",
    };
    let key = format!("{family}:{number}");
    let mut parts: Vec<String> = vec![String::new(), key.clone()];
    let mut count = 1;
    parts[0] = match kind {
        0..70 => {
            let length = random.between(20, 200) as usize;
            parts.push(json(length, random));
            "SET"
        }
        70..80 => {
            for field in FIELDS {
                parts.extend([field.to_owned(), value_of(field, random)]);
            }
            "HSET"
        }
        80..88 => {
            let numbers = random.chance(50);
            for _ in 0..random.between(3, 16) {
                let member = random.below(1_000_000);
                parts.push(match numbers {
                    true => member.to_string(),
                    false => format!("{}:{}", random.pick(&TAGS), member % 1000),
                });
            }
            "SADD"
        }
        88..96 => {
            for _ in 0..random.between(3, 16) {
                let score = random.below(1_000_000) as f64 / 100.0;
                parts.extend([
                    score.to_string(),
                    format!("player:{}", random.below(100_000)),
                ]);
            }
            "ZADD"
        }
        96..98 => {
            for _ in 0..50 {
                parts.push(format!(
                    "job:{}:{}",
                    random.pick(&STATES),
                    random.below(1_000_000)
                ));
            }
            "RPUSH"
        }
        _ => {
            let start = 1_700_000_000_000 + random.below(10_000_000_000);
            for n in 0..20 {
                let id = format!("{}-0", start + n * 1000 + random.below(999));
                let state = random.pick(&STATES);
                let visits = random.below(1000).to_string();
                let event = ["XADD", &key, &id, "state", state, "visits", &visits];
                command(into, &event.map(str::as_bytes));
            }
            count = 20;
            ""
        }
    }
    .to_owned();
    if !parts[0].is_empty() {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        command(into, &parts);
    }
    if random.chance(30) {
        let ttl = random.between(3_600_000, 30 * 86_400_000).to_string();
        command(into, &[b"PEXPIRE", key.as_bytes(), ttl.as_bytes()]);
        count += 1;
    }
    count
}

/// Fills the selected database with `count` small mixed keys, the same for the same seed:
/// 70 % strings of 20–200 bytes, 10 % hashes of 10 fields, 8 % sets, 8 % sorted sets, 2 % lists
/// of 50, 2 % streams of 20; 30 % with an expiry an hour to 30 days from now.
pub fn fill_many(connection: &mut Connection, count: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut packed = Vec::new();
    let mut commands = 0;
    for number in 0..count {
        commands += small_key(number, &mut random, &mut packed);
        if packed.len() > 512 * 1024 || number + 1 == count {
            let replies = connection.req_packed_commands(&packed, 0, commands);
            for reply in replies.expect("the server takes small keys") {
                assert!(!matches!(reply, Value::ServerError(_)), "{reply:?}");
            }
            packed.clear();
            commands = 0;
        }
    }
}
