//! Replication: what a primary changes reaches its replicas later, when the world lets it; what has
//! not reached them is lost when one takes its place.

use std::collections::VecDeque;

use super::client::{Client, WORLD, Waits};
use super::commands::Library;
use super::keyspace::Keyspace;
use super::payload;
use super::process::Cx;
use super::release::Since;
use super::reply::Reply;
use super::value::Entry;
use super::{Server, config::Config};

/// What a server is to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica {
        host: String,
        port: u16,
        is_up: bool,
    },
}

/// A replica, as its primary knows it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub host: String,
    pub port: u16,
    /// Up to where it has what the primary has.
    pub acked: u64,
    /// Changes that are on their way.
    changes: VecDeque<Change>,
}

/// A change on its way to a replica.
#[derive(Debug, Clone)]
enum Change {
    /// A key has this now, or is gone.
    Key(u32, Vec<u8>, Option<Box<Entry>>),
    Flush(Vec<u32>),
    Swap(u32, u32),
    Functions(Vec<Library>),
}

/// A server's part in replication.
#[derive(Debug, Clone)]
pub(super) struct Replication {
    pub role: Role,
    pub id: String,
    pub former_id: String,
    pub offset: u64,
    pub replicas: Vec<Link>,
}

impl Replication {
    pub fn new(id: String) -> Self {
        Self {
            role: Role::Primary,
            id,
            former_id: "0".repeat(40),
            offset: 0,
            replicas: Vec::new(),
        }
    }

    /// How many replicas have everything up to the offset.
    pub fn acked(&self, offset: u64) -> usize {
        self.replicas
            .iter()
            .filter(|replica| replica.acked >= offset)
            .count()
    }

    fn record(&mut self, change: &Change) {
        self.offset += match change {
            Change::Key(_, key, _) => 40 + key.len() as u64,
            _ => 30,
        };
        for replica in &mut self.replicas {
            replica.changes.push_back(change.clone());
        }
    }
}

/// The data of a server, as it may have been saved.
#[derive(Debug, Clone)]
pub struct Snapshot {
    keyspace: Keyspace,
    libraries: Vec<Library>,
}

/// The data of a server, and what of them is on its way to replicas.
#[derive(Debug)]
pub(super) struct Saved {
    data: Snapshot,
    replication: Replication,
}

impl Server {
    /// Its data as they are now.
    pub(super) fn save(&self) -> Saved {
        Saved {
            data: self.snapshot(),
            replication: self.replication.clone(),
        }
    }

    /// Its data are as they were.
    pub(super) fn put_back(&mut self, saved: Saved) {
        self.restore(saved.data);
        self.replication = saved.replication;
    }

    /// Whether it is a replica.
    pub fn is_replica(&self) -> bool {
        self.replication.role != Role::Primary
    }

    /// A change that nobody hears of but the replicas, as those of consumer groups are.
    pub(super) fn unsignalled(&mut self, cx: &Cx, key: &[u8]) {
        if self.replication.replicas.is_empty() {
            return;
        }
        let entry = self.keyspace.get(cx.db, key).cloned().map(Box::new);
        self.replication
            .record(&Change::Key(cx.db, key.to_vec(), entry));
    }

    /// Empties databases, and tells everybody who tracks.
    pub(super) fn flush(&mut self, cx: &Cx, databases: &[u32]) {
        for db in databases {
            self.touch_watched(*db);
            self.stats.dirty += self.keyspace.clear(*db) as u64;
        }
        self.announce_flush(cx);
        self.tell_replicas(&Change::Flush(databases.to_vec()));
    }

    pub(super) fn swap_databases(&mut self, one: u32, other: u32) {
        let spoils = self.release().has(Since::R60);
        for db in [one, other].into_iter().filter(|_| spoils) {
            self.touch_watched(db);
        }
        self.keyspace.swap(one, other);
        for db in [one, other].into_iter().filter(|_| spoils) {
            self.touch_watched(db);
        }
        self.stats.dirty += 1;
        self.tell_replicas(&Change::Swap(one, other));
    }

    pub(super) fn functions_changed(&mut self) {
        let libraries = self.libraries.clone();
        self.tell_replicas(&Change::Functions(libraries));
    }

    fn tell_replicas(&mut self, change: &Change) {
        if !self.replication.replicas.is_empty() {
            self.replication.record(change);
        }
    }

    /// Spoils the transactions of those who watch a key of the database that stands.
    fn touch_watched(&mut self, db: u32) {
        let keyspace = &self.keyspace;
        for client in &mut self.clients {
            let stands = |key: &[u8]| keyspace.get(db, key).is_some();
            if client
                .watched
                .iter()
                .any(|watched| watched.db == db && stands(&watched.key))
            {
                client.is_dirty = true;
            }
        }
    }

    pub(super) fn libraries(&self) -> &[Library] {
        &self.libraries
    }

    pub(super) fn libraries_mut(&mut self) -> &mut Vec<Library> {
        &mut self.libraries
    }

    /// Makes `replica` a replica of this server, with all that this server has.
    pub fn attach(&mut self, replica: &mut Server) {
        let Config { host, port, .. } = &self.config;
        replica.replication.role = Role::Replica {
            host: host.clone(),
            port: *port,
            is_up: true,
        };
        replica.replication.id.clone_from(&self.replication.id);
        replica.replication.offset = self.replication.offset;
        replica.replication.replicas.clear();
        replica.restore(self.snapshot());
        let cx = Cx::of_world(0, 0);
        replica.announce_flush(&cx);
        self.detach(replica);
        self.replication.replicas.push(Link {
            host: replica.config.host.clone(),
            port: replica.config.port,
            acked: self.replication.offset,
            changes: VecDeque::new(),
        });
    }

    /// Forgets a replica: nothing reaches it any more.
    pub fn detach(&mut self, replica: &Server) {
        let Config { host, port, .. } = &replica.config;
        self.replication
            .replicas
            .retain(|link| link.host != *host || link.port != *port);
    }

    /// Lets up to `most` changes reach the replica. How many did.
    pub fn replicate(&mut self, replica: &mut Server, most: usize, now_ms: u64) -> usize {
        let Config { host, port, .. } = &replica.config;
        let is_it = |link: &&mut Link| link.host == *host && link.port == *port;
        let Some(link) = self.replication.replicas.iter_mut().find(is_it) else {
            return 0;
        };
        let count = most.min(link.changes.len());
        let changes: Vec<Change> = link.changes.drain(..count).collect();
        if link.changes.is_empty() {
            link.acked = self.replication.offset;
        }
        let all = link.acked;
        for change in changes {
            replica.apply(change, now_ms);
        }
        replica.replication.offset = replica.replication.offset.max(all);
        self.end_waits(now_ms);
        count
    }

    /// How many changes are on their way to the replica.
    pub fn lag(&self, replica: &Server) -> usize {
        let Config { host, port, .. } = &replica.config;
        let is_it = |link: &&Link| link.host == *host && link.port == *port;
        self.replication
            .replicas
            .iter()
            .find(is_it)
            .map_or(0, |link| link.changes.len())
    }

    fn apply(&mut self, change: Change, now: u64) {
        let cx = Cx::of_world(0, now);
        match change {
            Change::Key(db, key, entry) => {
                match entry {
                    Some(entry) => drop(self.keyspace.put(db, &key, *entry)),
                    None => drop(self.keyspace.remove(db, &key)),
                }
                self.signal(&Cx { db, ..cx }, &key);
            }
            Change::Flush(databases) => self.flush(&cx, &databases),
            Change::Swap(one, other) => self.swap_databases(one, other),
            Change::Functions(libraries) => self.libraries = libraries,
        }
    }

    /// Says whether a replica's link to its primary is up.
    pub fn set_link(&mut self, up: bool) {
        if let Role::Replica { is_up, .. } = &mut self.replication.role {
            *is_up = up;
        }
    }

    /// Makes a replica a primary, as a failover does. What had not reached it is lost.
    pub fn promote(&mut self) {
        self.replication.role = Role::Primary;
        let id = self.random.hex40();
        self.replication.former_id = std::mem::replace(&mut self.replication.id, id);
    }

    /// The data as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            keyspace: self.keyspace.clone(),
            libraries: self.libraries.clone(),
        }
    }

    fn restore(&mut self, snapshot: Snapshot) {
        self.keyspace = snapshot.keyspace;
        self.libraries = snapshot.libraries;
        for client in &mut self.clients {
            client.is_dirty |= !client.watched.is_empty();
        }
    }

    /// Ends the process and starts another one on the same port, with the data of `snapshot`, or
    /// with all that it had. All connections are gone.
    pub fn restart(&mut self, snapshot: Option<Snapshot>) {
        let snapshot = snapshot.unwrap_or_else(|| self.snapshot());
        self.run_id = self.random.hex40();
        self.clients.retain(|client| client.id == WORLD);
        self.stats = super::stats::Stats::default();
        self.time = super::time::Time::of_new_process();
        self.faults.is_dead = false;
        self.faults.conditions = super::fault::Conditions::default();
        let id = self.random.hex40();
        let role = self.replication.role.clone();
        self.replication = Replication {
            role,
            ..Replication::new(id)
        };
        self.restore(snapshot);
    }

    /// The process ends, and nobody starts it again until [`Server::restart`].
    pub fn die(&mut self) {
        self.faults.is_dead = true;
        for client in &mut self.clients {
            if client.id != WORLD {
                client.is_closed = true;
                client.output.clear();
            }
        }
    }

    /// Whether the process has ended.
    pub fn is_dead(&self) -> bool {
        self.faults.is_dead
    }

    /// Answers the clients whose WAIT is over.
    pub(super) fn end_waits(&mut self, now: u64) {
        let is_over = |client: &Client| match client.waits {
            Some(Waits::Replicas {
                count,
                offset,
                until,
            }) => self.replication.acked(offset) >= count || (until > 0 && now >= until),
            _ => false,
        };
        let over: Vec<_> = self
            .clients
            .iter()
            .filter(|client| is_over(client))
            .map(|client| client.id)
            .collect();
        for id in over {
            let Some(client) = self.client_mut(id) else {
                continue;
            };
            let Some(Waits::Replicas { offset, .. }) = client.waits.take() else {
                continue;
            };
            let acked = self.replication.acked(offset);
            self.say(id, &Reply::count(acked));
            self.serve(id, now);
        }
    }

    pub(super) fn replication_lines(&self) -> Vec<String> {
        let replication = &self.replication;
        let mut lines = Vec::new();
        match &replication.role {
            Role::Primary => lines.push("role:master".to_owned()),
            Role::Replica { host, port, is_up } => lines.extend([
                "role:slave".to_owned(),
                format!("master_host:{host}"),
                format!("master_port:{port}"),
                format!("master_link_status:{}", if *is_up { "up" } else { "down" }),
                format!("master_last_io_seconds_ago:{}", if *is_up { 0 } else { -1 }),
                "master_sync_in_progress:0".to_owned(),
                "slave_read_only:1".to_owned(),
            ]),
        }
        lines.push(format!("connected_slaves:{}", replication.replicas.len()));
        for (n, replica) in replication.replicas.iter().enumerate() {
            lines.push(format!(
                "slave{n}:ip={},port={},state=online,offset={},lag=0",
                replica.host, replica.port, replica.acked
            ));
        }
        lines.push(format!("master_replid:{}", replication.id));
        lines.push(format!("master_replid2:{}", replication.former_id));
        lines.push(format!("master_repl_offset:{}", replication.offset));
        lines
    }

    /// All keys as an RDB file.
    pub fn rdb_file(&self) -> Vec<u8> {
        let release = self.release();
        let mut out = match release.rdb {
            rdb @ 80.. => format!("VALKEY{rdb:03}").into_bytes(),
            rdb => format!("REDIS{rdb:04}").into_bytes(),
        };
        let name = if release.is_valkey() {
            "valkey-ver"
        } else {
            "redis-ver"
        };
        for (name, value) in [
            (name, release.version_text()),
            ("redis-bits", "64".to_owned()),
        ] {
            out.push(0xfa);
            payload::put_string(&mut out, name.as_bytes());
            payload::put_string(&mut out, value.as_bytes());
        }
        for library in &self.libraries {
            out.push(0xf5);
            payload::put_string(&mut out, &library.code);
        }
        for db in (0..self.keyspace.databases()).filter(|db| self.keyspace.len(*db) > 0) {
            out.push(0xfe);
            payload::put_length(&mut out, u64::from(db));
            out.push(0xfb);
            payload::put_length(&mut out, self.keyspace.len(db) as u64);
            payload::put_length(&mut out, self.keyspace.expiring(db) as u64);
            for (key, entry) in self.keyspace.iter(db) {
                if let Some(at) = entry.expire_at {
                    out.push(0xfc);
                    out.extend_from_slice(&at.to_le_bytes());
                }
                payload::put_keyed(release, key, &entry.value, &mut out);
            }
        }
        out.push(0xff);
        let crc = payload::crc64(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}
