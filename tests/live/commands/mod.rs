//! Values by native commands: through the library, not the command line, so that sizes can be as
//! odd as they like.

mod conflict;
mod every_type;
mod measured;
mod names;
mod refused;

use std::collections::VecDeque;

use redis_migrate::endpoint::{ConnectOptions, ServerAddress};
use redis_migrate::record::Family;
use redis_migrate::select::TEMP_KEY_PREFIX;
use redis_migrate::server::facts::Facts;
use redis_migrate::server::slots::{SLOTS, slot_of, tag_for_slot};
use redis_migrate::server::{Conn, ServerError, cmd};
use redis_migrate::sink::server::commands::{
    Answer, CommandError, CommandLimits, CommandLosses, Commands, Features, Job, Queued, Replace,
    Ticket, Written,
};
use redis_migrate_payload::payload::{self, Object, meaning};

use crate::support::dataset::{fill_every_type, now_ms};
use crate::support::equality::{Kind, Options, assert_equal_with, differences};
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available, require};

type Outcome = Result<(Written, CommandLosses), CommandError>;

/// A value on its way.
#[derive(Clone, Debug)]
struct Item {
    key: Vec<u8>,
    family: Family,
    value: Vec<u8>,
    expire_at_ms: Option<u64>,
}

impl Item {
    fn job(&self, replace: Replace) -> Job<'_> {
        Job {
            key: &self.key,
            family: self.family,
            value: &self.value,
            expire_at_ms: self.expire_at_ms,
            replace,
            now_ms: now_ms(),
        }
    }
}

fn family(version: Version) -> Family {
    if version.is_valkey() {
        Family::Valkey
    } else {
        Family::Redis
    }
}

/// Limits under which nearly everything takes several chunks and commands.
fn tiny() -> CommandLimits {
    CommandLimits {
        chunk_bytes: 64,
        command_elements: 3,
        ..CommandLimits::default()
    }
}

fn open(url: &str) -> Conn {
    let address: ServerAddress = url.parse().expect("a URL");
    Conn::open(&ConnectOptions::new(address)).expect("a connection")
}

/// What writes into a server, and how.
struct Writer {
    conn: Conn,
    commands: Commands,
}

impl Writer {
    fn new(server: &TestServer, limits: CommandLimits) -> Self {
        Self::at(&server.url(), limits)
    }

    fn at(url: &str, limits: CommandLimits) -> Self {
        let mut conn = open(url);
        let facts = Facts::ask(&mut conn).expect("INFO");
        let features = Features::ask(&mut conn, &facts).expect("a known version");
        let commands = Commands::new(features, limits);
        Self { conn, commands }
    }

    fn select(&mut self, db: u32) {
        let _: String = self.conn.query(cmd("SELECT").arg(db)).expect("SELECT");
    }

    fn one(&mut self, item: &Item, replace: Replace) -> Outcome {
        self.commands.write(&mut self.conn, &item.job(replace))
    }

    fn all(&mut self, items: &[Item], replace: Replace) -> Vec<Outcome> {
        items.iter().map(|item| self.one(item, replace)).collect()
    }

    /// As a pipeline, with so many in flight.
    fn pipeline(&mut self, items: &[Item], replace: Replace, window: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
        let mut due: VecDeque<(usize, Ticket)> = VecDeque::new();
        for (n, item) in items.iter().enumerate() {
            if due.len() >= window {
                self.conn.flush().expect("the server listens");
                while due.len() > window / 2 {
                    self.read(items, &mut due, &mut outcomes);
                }
            }
            match self
                .commands
                .queue_small(&mut self.conn, &item.job(replace))
            {
                Ok(Queued::Sent(ticket)) => due.push_back((n, ticket)),
                Ok(Queued::Done(written, losses)) => outcomes[n] = Some(Ok((written, losses))),
                Ok(Queued::Large) => {
                    self.drain(items, &mut due, &mut outcomes);
                    outcomes[n] = Some(self.one(item, replace));
                }
                Err(error) => outcomes[n] = Some(Err(error)),
            }
        }
        self.drain(items, &mut due, &mut outcomes);
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("an answer for each"))
            .collect()
    }

    fn drain(
        &mut self,
        items: &[Item],
        due: &mut VecDeque<(usize, Ticket)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        while !due.is_empty() {
            self.conn.flush().expect("the server listens");
            self.read(items, due, outcomes);
        }
    }

    fn read(
        &mut self,
        items: &[Item],
        due: &mut VecDeque<(usize, Ticket)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        let Some((n, ticket)) = due.pop_front() else {
            return;
        };
        match self
            .commands
            .read_small(&mut self.conn, &items[n].key, ticket)
        {
            Ok(Answer::Written(written, losses)) => outcomes[n] = Some(Ok((written, losses))),
            Ok(Answer::Again(ticket)) => due.push_back((n, ticket)),
            Err(error) => outcomes[n] = Some(Err(error)),
        }
    }
}

/// Everything in one database.
fn read_db(server: &TestServer, db: u32) -> Vec<Item> {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let mut items = Vec::new();
    for key in keys {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut client).unwrap();
        let now = now_ms();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut client).unwrap();
        let expire_at_ms = (left >= 0).then(|| {
            if server.version().is_at_least_7() {
                let exact = redis::cmd("PEXPIRETIME").arg(&key).query(&mut client);
                exact.unwrap()
            } else {
                now + u64::try_from(left).unwrap()
            }
        });
        let (value, _) = payload::split(&dump).expect("a sound payload");
        items.push(Item {
            key,
            family: family(server.version()),
            value: value.to_vec(),
            expire_at_ms,
        });
    }
    items
}

fn dump(client: &mut redis::Connection, key: &[u8]) -> Vec<u8> {
    let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(key).query(client).unwrap();
    let dump = dump.expect("the key stands");
    payload::split(&dump).expect("a sound payload").0.to_vec()
}

fn run(client: &mut redis::Connection, command: &str) {
    let mut parts = command.split(' ');
    let mut packed = redis::cmd(parts.next().expect("a name"));
    for part in parts {
        packed.arg(part);
    }
    packed
        .exec(client)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
}

fn temporary_keys(server: &TestServer, db: u32) -> usize {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    keys.iter()
        .filter(|key| key.starts_with(TEMP_KEY_PREFIX))
        .count()
}

fn string(key: &[u8], text: &[u8], expire_at_ms: Option<u64>) -> Item {
    let mut value = vec![0];
    payload::write::string(&mut value, text);
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms,
    }
}

fn list(key: &[u8], elements: impl Iterator<Item = Vec<u8>>) -> Item {
    let mut value = vec![1];
    let elements: Vec<Vec<u8>> = elements.collect();
    payload::write::length(&mut value, elements.len() as u64);
    for element in elements {
        payload::write::string(&mut value, &element);
    }
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms: None,
    }
}

/// A hash as release candidates of Redis 7.4 wrote it, with absolute expiries.
fn hash(key: &[u8], fields: &[(&str, Option<u64>)]) -> Item {
    let mut value = vec![22];
    payload::write::length(&mut value, fields.len() as u64);
    for (name, expire_at_ms) in fields {
        payload::write::length(&mut value, expire_at_ms.unwrap_or(0));
        payload::write::string(&mut value, name.as_bytes());
        payload::write::string(&mut value, b"v");
    }
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms: None,
    }
}
