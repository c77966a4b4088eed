//! Who may do what, and how keys are looked up, changed and told of.

use super::Server;
use super::client::{ClientId, WORLD};
use super::config::User;
use super::process::Cx;
use super::release::Since;
use super::table::{self, Row};
use super::value::Entry;

impl Server {
    /// As whom a new client is let in; `None` if it has to say a password.
    pub(super) fn first_user(&self) -> Option<String> {
        let default = self.user("default");
        let is_free = default.is_none_or(|user| user.password.is_none());
        is_free.then(|| "default".to_owned())
    }

    /// A user that was set up. The default one is not, and may do everything, unless it was.
    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.config.users.iter().find(|user| user.name == name)
    }

    /// The user of a client, if rules hold for it.
    pub(super) fn user_of(&self, id: ClientId) -> Option<&User> {
        if self.config.users.is_empty() {
            return None;
        }
        let name = self.client(id)?.session.user.as_deref()?;
        self.user(name)
    }

    /// Why the client may not do this: by the rules of its user.
    pub(super) fn forbids(&self, cx: &Cx, row: &'static Row, args: &[&[u8]]) -> Option<String> {
        let user = self.user_of(cx.client)?;
        self.rule_against(user, cx, row, args)
    }

    /// Which rule of the user's stands against the command.
    pub(super) fn rule_against(
        &self,
        user: &User,
        cx: &Cx,
        row: &Row,
        args: &[&[u8]],
    ) -> Option<String> {
        let release = self.release();
        let command = row.name.split('|').next().unwrap_or_default();
        if row.flags & table::NO_AUTH == 0 && !user.may(command, row.name) {
            return Some(match () {
                () if release.has(Since::R72) => format!(
                    "NOPERM User {} has no permissions to run the '{}' command",
                    user.name, row.name
                ),
                () if release.has(Since::R70) => format!(
                    "NOPERM this user has no permissions to run the '{}' command",
                    row.name
                ),
                () => format!(
                    "NOPERM this user has no permissions to run the '{command}' command or its \
                     subcommand"
                ),
            });
        }
        if self.forbidden_database(user, cx, row, args).is_some() {
            return Some("NOPERM No permissions to access database".to_owned());
        }
        let mut keys = table::keys_of(row, args).into_iter();
        let refused = keys.any(|key| !user.may_use(key));
        refused.then(|| match release.has(Since::R72) {
            true => "NOPERM No permissions to access a key".to_owned(),
            false => "NOPERM this user has no permissions to access one of the keys used as \
                      arguments"
                .to_owned(),
        })
    }

    /// A database that the command is for, and the user may not use.
    pub(super) fn forbidden_database(
        &self,
        user: &User,
        cx: &Cx,
        row: &Row,
        args: &[&[u8]],
    ) -> Option<u32> {
        let allowed = user
            .databases
            .as_ref()
            .filter(|_| self.release().has(Since::V91))?;
        let number =
            |at: usize| -> Option<u32> { std::str::from_utf8(args.get(at)?).ok()?.parse().ok() };
        let of_keys = row.keys != table::Keys::None
            || matches!(
                row.name,
                "scan" | "dbsize" | "keys" | "randomkey" | "flushdb"
            );
        let databases = match row.name {
            "select" => vec![number(1)],
            "copy" => {
                let at = args
                    .iter()
                    .position(|word| word.eq_ignore_ascii_case(b"db"));
                vec![Some(cx.db), at.and_then(|at| number(at + 1))]
            }
            "swapdb" => vec![number(1), number(2)],
            "move" => vec![Some(cx.db), number(2)],
            "flushall" => (0..self.keyspace.databases()).map(Some).collect(),
            _ if of_keys => vec![Some(cx.db)],
            _ => Vec::new(),
        };
        databases
            .into_iter()
            .flatten()
            .find(|db| !allowed.contains(db))
    }

    /// Evicts keys until there is memory; `false` if there is none to be had.
    pub(super) fn make_room(&mut self, cx: &Cx) -> bool {
        let max = self.config.limits.max_memory;
        if max == 0 || self.is_replica() {
            return true;
        }
        while self.used_memory() > max {
            let policy = self.config.limits.policy.clone();
            if policy == "noeviction" {
                return false;
            }
            let Some((db, key)) = self.victim(policy.starts_with("volatile")) else {
                return false;
            };
            let cx = Cx {
                db,
                client: WORLD,
                ..*cx
            };
            self.keyspace.remove(db, &key);
            self.stats.evicted += 1;
            self.signal(&cx, &key);
        }
        true
    }

    /// The key that was not used for longest.
    fn victim(&self, only_expiring: bool) -> Option<(u32, Vec<u8>)> {
        let all = (0..self.keyspace.databases()).flat_map(|db| {
            self.keyspace
                .iter(db)
                .map(move |(key, entry)| (db, key, entry))
        });
        let may_go = all.filter(|(_, _, entry)| !only_expiring || entry.expire_at.is_some());
        let first = may_go.min_by_key(|(db, key, entry)| (entry.used_at, *db, *key));
        first.map(|(db, key, _)| (db, key.to_vec()))
    }

    /// About how many bytes of memory are used.
    pub(super) fn used_memory(&self) -> u64 {
        (1 << 20) + self.keyspace.bytes() as u64
    }

    /// The key's entry as a command sees it: not if its time is over. A primary removes it then.
    pub(super) fn look(&mut self, cx: &Cx, key: &[u8]) -> Option<&mut Entry> {
        let entry = self.keyspace.look(cx.db, key)?;
        if entry.is_expired(cx.now) {
            self.expire(cx, key);
            return None;
        }
        self.keyspace.entry(cx.db, key)
    }

    /// The same, and it counts as a use of the key.
    pub(super) fn read(&mut self, cx: &Cx, key: &[u8]) -> Option<&mut Entry> {
        let no_touch = self
            .client(cx.client)
            .is_some_and(|client| client.session.no_touch);
        self.remember_read(cx, key);
        let entry = self.look(cx, key)?;
        if !no_touch {
            entry.used_at = cx.now;
        }
        Some(entry)
    }

    /// Removes a key that is over, unless that is the primary's business or a pause forbids it.
    pub(super) fn expire(&mut self, cx: &Cx, key: &[u8]) {
        if self.is_replica() || self.time.pause(cx.now).is_some() {
            return;
        }
        if self.keyspace.remove(cx.db, key).is_some() {
            self.stats.expired += 1;
            // Before 6.0 nobody who watches it hears of that.
            if self.release().has(Since::R60) {
                self.signal(
                    &Cx {
                        client: WORLD,
                        ..*cx
                    },
                    key,
                );
            } else {
                self.unsignalled(cx, key);
            }
        }
    }

    /// Puts a value in place of what stands there, and tells of it.
    pub(super) fn put(&mut self, cx: &Cx, key: &[u8], entry: Entry) {
        self.keyspace.put(cx.db, key, entry);
        self.signal(cx, key);
    }

    /// Removes a key and tells of it; whether there was one.
    pub(super) fn delete(&mut self, cx: &Cx, key: &[u8]) -> bool {
        if self.look(cx, key).is_none() {
            return false;
        }
        let found = self.keyspace.remove(cx.db, key).is_some();
        if found {
            self.signal(cx, key);
        }
        found
    }

    /// After a value was changed in place: an empty one goes, and the change is told.
    pub(super) fn changed(&mut self, cx: &Cx, key: &[u8]) {
        let is_empty = self
            .keyspace
            .get(cx.db, key)
            .is_some_and(|entry| entry.value.is_empty());
        if is_empty {
            self.keyspace.remove(cx.db, key);
        } else {
            self.keyspace.fields_changed(cx.db, key);
        }
        self.signal(cx, key);
    }

    /// Tells of a change of a key: to those who watch it, those who track it, and the replicas.
    pub(super) fn signal(&mut self, cx: &Cx, key: &[u8]) {
        self.stats.dirty += 1;
        for client in &mut self.clients {
            let watches =
                |watched: &super::client::Watched| watched.db == cx.db && watched.key == key;
            if client.watched.iter().any(watches) {
                client.is_dirty = true;
            }
        }
        self.announce(cx, key);
        self.unsignalled(cx, key);
    }
}

impl Server {
    /// Removes the fields of a hash that are over.
    pub(super) fn expire_fields(&mut self, cx: &Cx, key: &[u8]) {
        if self.is_replica() || self.time.pause(cx.now).is_some() {
            return;
        }
        let Some(entry) = self.keyspace.entry(cx.db, key) else {
            return;
        };
        if let super::value::Value::Hash(fields) = &mut entry.value {
            fields.retain(|_, field| field.expire_at.is_none_or(|at| at >= cx.now));
        }
        self.changed(
            &Cx {
                client: WORLD,
                ..*cx
            },
            key,
        );
    }
}
