//! A model of a server: a keyspace, clients, transactions, tracking, replication and a cluster's
//! node, in one value without sockets, threads or a clock of its own.
//!
//! The world gives it bytes and the time, and takes what it has to say:
//!
//! ```
//! use redis_migrate_world::server::{Config, Release, Server};
//!
//! let release = Release::named("redis-7.0").unwrap();
//! let mut server = Server::new(Config::new(release), 1);
//! let client = server.connect().unwrap();
//! server.receive(client, b"SET k v\r\nGET k\r\n", 1000);
//! server.end_turn(1000);
//! assert_eq!(server.outbox(client), b"+OK\r\n$1\r\nv\r\n");
//! ```
//!
//! A *turn* is one turn of a server's event loop: what arrived is served, then the invalidations of
//! keys that were written leave, after all replies of the turn. So the world calls [`Server::receive`]
//! for the clients that have sent something, and then [`Server::end_turn`]. [`Server::tick`] is a
//! turn of its own, in which time alone does something.
//!
//! The model does not use the tool or any of its code: it is the judge. What it says is held against
//! real servers by `tests/conformance.rs`.

mod access;
mod client;
mod cluster;
mod commands;
mod config;
mod dict;
mod fault;
mod flags;
mod glob;
mod keyspace;
mod payload;
mod process;
mod random;
mod release;
mod replication;
mod reply;
mod request;
mod sentinel;
mod slots;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod tracking;
mod value;

pub use client::ClientId;
pub use cluster::{Cluster, Node as ClusterNode};
pub use config::{Commands, Config, Limits, ModuleInfo, Refusal, User};
pub use fault::{Answer, Conditions, Fault};
pub use keyspace::{Keyspace, Touched};
pub use payload::{PayloadError, crc64, dump, module_id, restore};
pub use random::Random;
pub use release::{Family, RELEASES, Release, Since};
pub use replication::Snapshot;
pub use reply::Reply;
pub use sentinel::{Sentinel, Watched};
pub use slots::{SLOTS, slot_of};
pub use value::{
    Consumer, Entry, Field, Group, Idempotency, Module, Pending, Stream, StreamEntry, StreamId,
    Value,
};

use client::{Client, WORLD};
use commands::Library;
use fault::Faults;
use process::Cx;
use replication::Replication;
use stats::Stats;
use time::Time;

/// One server process.
#[derive(Debug)]
pub struct Server {
    config: Config,
    random: Random,
    run_id: String,
    keyspace: Keyspace,
    clients: Vec<Client>,
    last_id: ClientId,
    stats: Stats,
    time: Time,
    faults: Faults,
    libraries: Vec<Library>,
    replication: Replication,
    cluster: Option<Box<Cluster>>,
}

impl Server {
    /// A server that has just been started, and is empty.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let run_id = random.hex40();
        let replication = Replication::new(random.hex40());
        let release = config.release;
        let keyspace = Keyspace::new(release, config.databases, config.cluster, random.next_u64());
        Self {
            clients: vec![Client::new(WORLD, Some("default".to_owned()))],
            config,
            random,
            run_id,
            keyspace,
            last_id: WORLD,
            stats: Stats::default(),
            time: Time::default(),
            faults: Faults::default(),
            libraries: Vec::new(),
            replication,
            cluster: None,
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same, to be changed while it runs, as CONFIG SET and ACL SETUSER do.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Which version it is.
    pub fn release(&self) -> &'static Release {
        self.config.release
    }

    /// The commands and subcommands (`client|id`) that it knows.
    pub fn command_names(&self) -> Vec<&'static str> {
        table::rows(self.release())
            .into_iter()
            .map(|row| row.name)
            .collect()
    }

    /// What tells this process from others.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The keys, for judges.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The keys, for whoever plants some and wants nobody to hear of it.
    pub fn keyspace_mut(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// A new connection.
    ///
    /// # Errors
    /// What the server says before it closes a connection that is one too many.
    pub fn connect(&mut self) -> Result<ClientId, Vec<u8>> {
        if self.is_dead() {
            return Err(Vec::new());
        }
        if self.clients.len() > self.config.limits.max_clients {
            return Err(b"-ERR max number of clients reached\r\n".to_vec());
        }
        self.last_id += 1;
        let user = self.first_user();
        self.clients.push(Client::new(self.last_id, user));
        Ok(self.last_id)
    }

    /// The client is gone.
    pub fn disconnect(&mut self, id: ClientId) {
        if id != WORLD {
            self.clients.retain(|client| client.id != id);
        }
    }

    /// Whether the connection is open. One that the server closed still has its outbox: what is in
    /// it reaches the client before the end.
    pub fn is_open(&self, id: ClientId) -> bool {
        self.clients
            .iter()
            .any(|client| client.id == id && !client.is_closed)
    }

    /// Takes what is to be sent to the client.
    pub fn outbox(&mut self, id: ClientId) -> Vec<u8> {
        self.client_mut(id)
            .map(|client| std::mem::take(&mut client.output))
            .unwrap_or_default()
    }

    /// How many bytes wait to be sent to the client.
    pub fn outbox_len(&self, id: ClientId) -> usize {
        let client = self.clients.iter().find(|client| client.id == id);
        client.map_or(0, |client| client.output.len())
    }

    /// Carries out a command as the world itself, whom no ACL, pause or cluster slot holds up.
    pub fn execute(&mut self, db: u32, args: &[&[u8]], now_ms: u64) -> Reply {
        let cx = Cx {
            in_exec: true,
            ..Cx::of_world(db, now_ms)
        };
        self.time.seen(now_ms);
        self.run(&cx, args)
    }

    fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    fn client_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }
}
