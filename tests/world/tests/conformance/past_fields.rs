//! RESTORE of a hash of which fields are past their time: what stands there, and for how long.

use std::time::Duration;

use redis_migrate_world::server::{Config, Release, Server};

use super::real::{self, Real};
use super::resp::{self, Value};

/// How long the fields live, in ms.
const LIFE_MS: u64 = 60;

/// So long after the payload was taken it is given back, in ms.
const LATER_MS: u64 = 150;

/// A server has removed by itself what is past its time, in ms.
const SWEPT_MS: u64 = 2_000;

/// The fields that expire, of those of a hash of `a` and `b`.
const SCRIPTS: [&str; 2] = ["2 a b", "1 a"];

const RIGHT_AFTER: [&str; 7] = [
    "EXISTS new",
    "TYPE new",
    "HLEN new",
    "HGET new a",
    "HGET new b",
    "PTTL new",
    "DBSIZE",
];

/// What stands there once the server has looked after itself.
const LATER: [&str; 3] = ["EXISTS new", "HLEN new", "DBSIZE"];

/// Something that answers commands, and whose time goes on.
trait Answers {
    fn ask(&mut self, words: &[Vec<u8>]) -> Value;
    fn wait(&mut self, ms: u64);
}

struct RealOne {
    connection: real::Connection,
    _server: Real,
}

impl Answers for RealOne {
    fn ask(&mut self, words: &[Vec<u8>]) -> Value {
        self.connection.ask(words).expect("an answer")
    }

    fn wait(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

struct Model {
    server: Server,
    client: u64,
    now_ms: u64,
}

impl Answers for Model {
    fn ask(&mut self, words: &[Vec<u8>]) -> Value {
        self.server
            .receive(self.client, &resp::pack(words), self.now_ms);
        let said = self.server.outbox(self.client);
        resp::read(&said).expect("an answer").0
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            if self.now_ms.is_multiple_of(100) {
                self.server.tick(self.now_ms);
            }
        }
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// The answers; `None` where fields do not expire.
fn play(server: &mut impl Answers, fields: &str) -> Option<Vec<(String, Value)>> {
    server.ask(&words("FLUSHALL"));
    server.ask(&words("HSET old a 1 b 2"));
    let expire = format!("HPEXPIRE old {LIFE_MS} FIELDS {fields}");
    if matches!(server.ask(&words(&expire)), Value::Error(_)) {
        return None;
    }
    let Value::Bulk(payload) = server.ask(&words("DUMP old")) else {
        panic!("no payload");
    };
    server.ask(&words("DEL old"));
    server.wait(LATER_MS);
    let mut restore = words("RESTORE new 0");
    restore.push(payload);
    let mut said = vec![("RESTORE".to_owned(), server.ask(&restore))];
    // Right behind it, before the server looks after itself; again, as whoever was not heard does.
    said.push(("RESTORE again".to_owned(), server.ask(&restore)));
    let first = RIGHT_AFTER.iter();
    said.extend(first.map(|line| ((*line).to_owned(), server.ask(&words(line)))));
    server.wait(SWEPT_MS);
    let later = LATER.iter();
    said.extend(later.map(|line| (format!("later: {line}"), server.ask(&words(line)))));
    Some(said)
}

fn real(release: &'static Release) -> RealOne {
    let server = Real::start(release, &[]);
    RealOne {
        connection: server.connect(),
        _server: server,
    }
}

fn model(release: &'static Release) -> Model {
    let mut server = Server::new(Config::new(release), 1);
    let client = server.connect().expect("a client");
    let now_ms = 1_764_000_000_000;
    Model {
        server,
        client,
        now_ms,
    }
}

#[test]
fn restore_of_fields_past_their_time_leaves_the_same() {
    for release in real::available() {
        let (mut model, mut real) = (model(release), real(release));
        for fields in SCRIPTS {
            let (model, real) = (play(&mut model, fields), play(&mut real, fields));
            assert_eq!(model, real, "{} {fields}", release.name);
        }
    }
}
