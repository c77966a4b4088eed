//! What time alone does: pauses end, keys expire, the cron works.

use super::Server;
use super::client::Waits;
use super::process::Cx;

/// How often a server's cron runs, in ms.
const CRON_MS: u64 = 100;

/// The server's clock, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Time {
    now: u64,
    /// When the process began; 0 for one that was there before the world.
    began: u64,
    /// Nothing has happened in the process yet.
    is_new: bool,
    next_cron: u64,
    pause: Option<Pause>,
}

/// CLIENT PAUSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub until: u64,
    pub is_of_all: bool,
}

impl Time {
    /// Of a process that was started just now.
    pub fn of_new_process() -> Self {
        Self {
            is_new: true,
            ..Self::default()
        }
    }

    pub fn seen(&mut self, now: u64) {
        self.now = self.now.max(now);
        if std::mem::take(&mut self.is_new) {
            self.began = now;
        }
    }

    /// For how long the process has been there, in ms.
    pub fn uptime_ms(&self) -> u64 {
        match self.is_new {
            true => 0,
            false => self.now.saturating_sub(self.began),
        }
    }

    /// The pause that holds now.
    pub fn pause(&self, now: u64) -> Option<Pause> {
        self.pause.filter(|pause| now < pause.until)
    }

    pub fn set_pause(&mut self, pause: Option<Pause>) {
        self.pause = pause;
    }
}

impl Server {
    /// A turn of the event loop in which only time does something.
    pub fn tick(&mut self, now_ms: u64) {
        self.time.seen(now_ms);
        if self.time.pause.is_some_and(|pause| now_ms >= pause.until) {
            self.time.pause = None;
            self.resume(now_ms);
        }
        if now_ms >= self.time.next_cron {
            self.time.next_cron = now_ms + CRON_MS;
            self.keyspace.cron();
            self.expire_actively(now_ms);
        }
        self.end_waits(now_ms);
        self.end_turn(now_ms);
    }

    /// When [`Server::tick`] has something to do; `None` while nothing waits.
    pub fn wakes_at(&self) -> Option<u64> {
        let pause = self.time.pause.map(|pause| pause.until);
        let waits = self.clients.iter().filter_map(|client| match client.waits {
            Some(Waits::Replicas { until, .. }) if until > 0 => Some(until),
            _ => None,
        });
        let expiry = self.keyspace.next_expiry().filter(|_| !self.is_replica());
        let expiry = expiry.map(|at| (at + 1).max(self.time.next_cron));
        pause.into_iter().chain(waits).chain(expiry).min()
    }

    /// Serves the clients that a pause held up.
    pub(super) fn resume(&mut self, now: u64) {
        let held: Vec<_> = self
            .clients
            .iter_mut()
            .filter(|client| client.waits == Some(Waits::Pause))
            .map(|client| {
                client.waits = None;
                client.id
            })
            .collect();
        for id in held {
            self.serve(id, now);
        }
    }

    /// The cron's search for keys that are over; it samples, so that some are found later.
    fn expire_actively(&mut self, now: u64) {
        if self.is_replica() || self.time.pause(now).is_some() {
            return;
        }
        let cx = Cx::of_world(0, now);
        for (db, key) in self.keyspace.overdue(now) {
            if self.random.chance(75) {
                self.expire(&Cx { db, ..cx }, &key);
            }
        }
        for (db, key) in self.keyspace.fields_overdue(now) {
            if self.random.chance(75) {
                self.expire_fields(&Cx { db, ..cx }, &key);
            }
        }
    }
}
