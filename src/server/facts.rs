//! What a server says of itself. Every fact is optional: managed services refuse INFO, TIME or
//! SELECT, and then the tool goes on with less.

use std::time::{Duration, Instant};

use super::patience::STEP;
use super::{Conn, ServerError};
use crate::dialect::{Dialect, Feature, Lookalike, Version};
use crate::host;
use crate::payload::without_aux;
use crate::record::Family;
use crate::server::reply::{Reply, cmd, from_reply, from_reply_ref};

/// What stands between the name of what a server lacks and the version that brought it.
pub const CAME_WITH: &str = "which came with";

/// One line of INFO keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyspace {
    /// Database.
    pub db: u32,
    /// Keys.
    pub keys: u64,
    /// Keys with expiry.
    pub expires: u64,
}

/// What INFO told, as far as it did.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether INFO works at all.
    pub info: bool,
    /// Redis or Valkey; `Other` where it is unknown.
    pub family: Family,
    /// Version text of that family, empty where it is unknown. Of a look-alike, the version of Redis
    /// that it says it is.
    pub version: String,
    /// What it is, if it only calls itself Redis. Its family is `Other` then.
    pub lookalike: Option<Lookalike>,
    /// That one's own version.
    pub own_version: String,
    /// `run_id`.
    pub run_id: Option<String>,
    /// `uptime_in_seconds`: for how long its process has been there.
    pub uptime_secs: Option<u64>,
    /// Whether the server is a node of a cluster.
    pub cluster: bool,
    /// Whether it is a primary or a replica.
    pub role: RoleFacts,
    /// Databases with keys; `None` where INFO keyspace is refused.
    pub keyspace: Option<Vec<Keyspace>>,
    /// Its memory, and what it does when that is full.
    pub memory: MemoryFacts,
    /// Names of the modules that are loaded; `None` where INFO has no section about them (before
    /// 6.0, and where it is withheld).
    pub modules: Option<Vec<String>>,
}

/// Whether a server is a primary or a replica, and how it stands to others.
#[derive(Debug, Clone, Default)]
pub struct RoleFacts {
    /// `role:slave`, by INFO or ROLE.
    pub replica: bool,
    /// Whether INFO or ROLE told the role at all.
    pub is_told: bool,
    /// Whether HELLO says that it is a replica; asked only where INFO does not tell the version.
    pub hello_replica: Option<bool>,
    /// `slave_read_only`: a replica that takes no writes but its primary's.
    pub read_only: Option<bool>,
    /// Of a replica: what keeps it from having what its primary has, in words.
    pub out_of_step: Option<String>,
    /// `master_replid2`: whose data it had when it was last made a primary; zeros for nobody's.
    pub promoted_with: Option<String>,
    /// Replicas that are connected (`connected_slaves`).
    pub replicas: Option<u64>,
}

/// The memory of a server.
#[derive(Debug, Clone, Default)]
pub struct MemoryFacts {
    /// `maxmemory`, bytes; `None` where unknown, 0 for none.
    pub max: Option<u64>,
    /// `maxmemory_policy`.
    pub policy: Option<String>,
    /// `used_memory`, bytes.
    pub used: Option<u64>,
    /// `evicted_keys`.
    pub evicted_keys: Option<u64>,
}

impl Facts {
    /// Asks INFO; a refusal leaves everything unknown.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let mut facts = Facts {
            family: Family::Other,
            ..Facts::default()
        };
        // INFO without a section is what proxies and services implement first.
        if let Some(text) = info(conn, None)? {
            facts.info = true;
            facts.read(&text);
        }
        if facts.version.is_empty()
            && let Ok(value) = conn.ask(cmd("HELLO").arg(2))?
        {
            facts.read_hello(value);
        }
        if !facts.role.is_told
            && let Ok(value) = conn.ask(&cmd("ROLE"))?
        {
            facts.read_role(&value);
        }
        Ok(facts)
    }

    /// ROLE: of a replica its name, host, port, the state of its link and its offset
    /// (replication.c, roleCommand).
    fn read_role(&mut self, value: &Reply) {
        let Reply::Array(parts) = value else { return };
        let text = |at: usize| -> Option<String> { from_reply_ref::<String>(parts.get(at)?).ok() };
        match text(0).as_deref() {
            Some("master") => self.role.is_told = true,
            Some("slave") => {
                self.role.is_told = true;
                self.role.replica = true;
                let state = text(3).unwrap_or_default();
                self.role.out_of_step = (state != "connected")
                    .then(|| format!("its link to its primary is down (ROLE says \"{state}\")"));
            }
            _ => {}
        }
    }

    /// HELLO tells the least, but from 6.2 on no ACL refuses it (acl.c exempts what may come before
    /// AUTH).
    fn read_hello(&mut self, value: Reply) {
        let Reply::Array(items) = value else { return };
        let text = |value: &Reply| from_reply_ref::<String>(value).unwrap_or_default();
        for pair in items.chunks_exact(2) {
            let name = text(&pair[0]);
            if let Some(one) = Lookalike::by_field(&name) {
                (self.lookalike, self.own_version) = (Some(one), text(&pair[1]));
            }
            match name.as_str() {
                "server" if text(&pair[1]) == "redis" => self.family = Family::Redis,
                "server" if text(&pair[1]) == "valkey" => self.family = Family::Valkey,
                "version" => self.version = text(&pair[1]),
                "role" => {
                    self.role.hello_replica = match text(&pair[1]).as_str() {
                        "master" => Some(false),
                        "replica" | "slave" => Some(true),
                        _ => None,
                    }
                }
                "mode" => self.cluster = text(&pair[1]) == "cluster",
                _ => {}
            }
        }
        if self.lookalike.is_some() {
            self.family = Family::Other;
        }
    }

    fn read(&mut self, text: &str) {
        let mut redis_version = None;
        let mut valkey_version = None;
        // Without the heading the section was withheld, which is not the same as "no keys".
        self.keyspace = keyspace(text);
        self.modules = modules(text);
        let mut link = Link::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                self.lookalike = self.lookalike.or(Lookalike::by_section(line));
                continue;
            };
            let value = value.trim_end();
            if let Some(one) = Lookalike::by_field(name) {
                (self.lookalike, self.own_version) = (Some(one), value.to_owned());
            }
            match name {
                "redis_version" => redis_version = Some(value.to_owned()),
                "valkey_version" => valkey_version = Some(value.to_owned()),
                "run_id" => self.run_id = Some(value.to_owned()),
                "uptime_in_seconds" => self.uptime_secs = value.parse().ok(),
                "redis_mode" | "server_mode" => self.cluster |= value == "cluster",
                "cluster_enabled" => self.cluster |= value == "1",
                // Some servers have roles of their own, of which nothing is known here. Dragonfly
                // says "replica" (server_family.cc).
                "role" => {
                    self.role.is_told = matches!(value, "master" | "slave" | "replica");
                    self.role.replica = matches!(value, "slave" | "replica");
                }
                "slave_read_only" => self.role.read_only = Some(value != "0"),
                "master_link_status" => link.is_up = Some(value == "up"),
                "master_sync_in_progress" => link.syncs = value != "0",
                "master_last_io_seconds_ago" => link.silent_secs = value.parse().ok(),
                "master_replid2" => self.role.promoted_with = Some(value.to_owned()),
                "connected_slaves" => self.role.replicas = value.parse().ok(),
                "maxmemory" => self.memory.max = value.parse().ok(),
                "maxmemory_policy" => self.memory.policy = Some(value.to_owned()),
                "used_memory" => self.memory.used = value.parse().ok(),
                "evicted_keys" => self.memory.evicted_keys = value.parse().ok(),
                _ => {}
            }
        }
        self.family = match (&valkey_version, &redis_version) {
            _ if self.lookalike.is_some() => Family::Other,
            (Some(_), _) => Family::Valkey,
            (None, Some(_)) => Family::Redis,
            (None, None) => Family::Other,
        };
        self.version = valkey_version.or(redis_version).unwrap_or_default();
        self.role.out_of_step = link.fault().filter(|_| self.role.replica);
    }

    /// Whether it is a replica, by whatever told; `None` where nothing did.
    pub fn role_is_replica(&self) -> Option<bool> {
        match self.role.is_told {
            true => Some(self.role.replica),
            false => self.role.hello_replica,
        }
    }

    /// Whether it was made a primary out of a replica since it said `before`, which it keeps a
    /// note of (replication.c, shiftReplicationId). `false` also where it does not tell.
    pub fn was_promoted_since(&self, before: &Self) -> bool {
        match (&before.role.promoted_with, &self.role.promoted_with) {
            (Some(before), Some(now)) => before != now && now.bytes().any(|digit| digit != b'0'),
            _ => false,
        }
    }

    /// Whether its process may have begun less than so long ago, in ms; `false` where it does not say.
    pub fn may_be_younger_than(&self, age_ms: u64) -> bool {
        // Whole seconds are told, and it has been there for a part of the next.
        self.uptime_secs
            .is_some_and(|secs| secs < age_ms.div_ceil(1000))
    }

    /// Whether it says that it was never made a primary out of a replica, or has forgotten that.
    pub fn was_never_promoted(&self) -> bool {
        let with = self.role.promoted_with.as_ref();
        with.is_some_and(|with| with.bytes().all(|digit| digit == b'0'))
    }

    /// Whether it evicts keys when it is full; `None` where that is not known.
    pub fn evicts(&self) -> Option<bool> {
        match (self.memory.max, self.memory.policy.as_deref()) {
            (Some(0), _) | (_, Some("noeviction")) => Some(false),
            (Some(_), Some(_)) => Some(true),
            _ => None,
        }
    }

    /// Asks CONFIG GET where INFO does not tell whether it evicts keys.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn learn_eviction(&mut self, conn: &mut Conn) -> Result<(), ServerError> {
        if self.evicts().is_some() {
            return Ok(());
        }
        for name in ["maxmemory", "maxmemory-policy"] {
            let answer = conn.ask(cmd("CONFIG").arg("GET").arg(name))?;
            let pair = answer.ok().map(from_reply::<(String, String)>);
            let Some(Ok((asked, value))) = pair else {
                continue;
            };
            match asked.as_str() {
                _ if asked != name => {}
                "maxmemory" => self.memory.max = value.parse().ok(),
                _ => self.memory.policy = Some(value),
            }
        }
        Ok(())
    }

    /// The version, for comparisons.
    pub fn parsed_version(&self) -> Version {
        Version::parse(&self.version)
    }

    /// What it speaks, going by what it says of itself.
    pub fn dialect(&self) -> Dialect {
        Dialect::of(self.family, self.parsed_version())
    }

    /// Why the server does not have this, if its version is known to be one that lacks it: `Redis
    /// 5.0.6 has no CLIENT TRACKING, which came with Redis 6.0`.
    pub fn came_too_early_for(&self, feature: Feature, name: &str) -> Option<String> {
        let since = feature.since(self.family)?;
        let family = family_name(self.family)?;
        let lacks = self.lookalike.is_none() && self.dialect().lacks(feature);
        lacks.then(|| {
            format!(
                "{} has no {name}, {CAME_WITH} {family} {since}",
                self.title()
            )
        })
    }

    /// Why it does not tell what changes: because it is too old, or in its own words.
    pub fn untold(&self, refusal: ServerError) -> ServerError {
        let too_old = self.came_too_early_for(Feature::Hello, "CLIENT TRACKING");
        match (too_old, refusal) {
            (Some(reason), ServerError::Refused { address, .. }) => ServerError::Refused {
                address,
                command: "CLIENT TRACKING".to_owned(),
                reason,
            },
            (_, refusal) => refusal,
        }
    }

    /// Why a database is not to be had of a look-alike that says OK to every SELECT and stays where it
    /// is: what is read there, or written, are the keys of database 0.
    pub fn lacks_database(&self, db: u32) -> Option<String> {
        let lookalike = self.lookalike.filter(|one| one.has_one_database())?;
        (db > 0).then(|| format!("{} has database 0 only", lookalike.name()))
    }

    /// A payload as DUMP gave it, without what a look-alike adds.
    pub fn dumped(&self, payload: Vec<u8>) -> Vec<u8> {
        match self.lookalike.is_some_and(Lookalike::dumps_aux) {
            true => without_aux(payload),
            false => payload,
        }
    }

    /// Whether it is known to have no function libraries.
    pub fn is_before_functions(&self) -> bool {
        match self.lookalike {
            Some(lookalike) => !lookalike.has_libraries(),
            None => self.dialect().lacks(Feature::Functions),
        }
    }

    /// RDB version that a server of this family and version writes into DUMP footers; 0 where it
    /// is unknown.
    pub fn rdb_version(&self) -> u16 {
        match self.lookalike {
            Some(lookalike) => lookalike.rdb_version(),
            None => self.dialect().rdb_version().unwrap_or(0),
        }
    }

    /// Its version, with the name before it where that is not its family's: `7.0.15`, `Dragonfly
    /// df-v1.30.0`.
    pub fn version_told(&self) -> String {
        match self.lookalike {
            None => self.version.clone(),
            Some(one) if self.own_version.is_empty() => format!("{} {}", one.name(), self.version),
            Some(one) => format!("{} {}", one.name(), self.own_version),
        }
    }

    /// `Redis 7.0.15`, `Dragonfly df-v1.30.0 (calls itself Redis 7.4.0)`, or what little is known.
    pub fn title(&self) -> String {
        if self.lookalike.is_some() {
            let told = self.version_told();
            return match self.own_version.is_empty() || self.version.is_empty() {
                true => told,
                false => format!("{told} (calls itself Redis {})", self.version),
            };
        }
        match family_name(self.family) {
            Some(name) => format!("{name} {}", self.version),
            None => "a server of unknown version".to_owned(),
        }
    }
}

/// The family, as people call it, where it is one.
pub fn family_name(family: Family) -> Option<&'static str> {
    match family {
        Family::Redis => Some("Redis"),
        Family::Valkey => Some("Valkey"),
        Family::Other => None,
    }
}

/// What INFO replication says of a replica's link to its primary.
#[derive(Debug, Default)]
struct Link {
    is_up: Option<bool>,
    syncs: bool,
    silent_secs: Option<u64>,
}

impl Link {
    /// Why the replica may lack what its primary has. A link in order is heard of at least every
    /// ten seconds (`repl-ping-replica-period`).
    fn fault(&self) -> Option<String> {
        const SILENT_SECS: u64 = 30;
        if self.syncs {
            return Some("its primary is still sending it the whole dataset".to_owned());
        }
        if self.is_up == Some(false) {
            return Some("its link to its primary is down".to_owned());
        }
        let silent = self.silent_secs.filter(|secs| *secs >= SILENT_SECS)?;
        Some(format!(
            "it has heard nothing from its primary for {silent} s"
        ))
    }
}

/// The names in an INFO modules (module.c, genModulesInfoString: `module:name=search,ver=21005,…`);
/// `None` where there is no such section.
fn modules(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.find(|line| line.starts_with("# Modules"))?;
    let section = lines.take_while(|line| !line.starts_with('#'));
    let name = |line: &str| {
        let fields = line.strip_prefix("module:name=")?;
        Some(fields.split(',').next()?.trim_end().to_owned())
    };
    Some(section.filter_map(name).collect())
}

/// A setting, by CONFIG GET; `None` where nothing of that name is told. The inner `Err` is a refusal.
///
/// # Errors
/// [`ServerError::Lost`] and [`ServerError::Protocol`].
pub fn setting(conn: &mut Conn, name: &str) -> Result<Result<Option<String>, String>, ServerError> {
    let answer = conn.try_query(cmd("CONFIG").arg("GET").arg(name))?;
    Ok(answer.map(|value| {
        let pair: Vec<String> = from_reply(value).unwrap_or_default();
        pair.into_iter().nth(1)
    }))
}

/// The databases of an INFO keyspace; `None` where it has no such section, or one that is not
/// understood: then what it does not tell is not known.
pub fn keyspace(text: &str) -> Option<Vec<Keyspace>> {
    let mut rows = None;
    for line in text.lines() {
        if line.starts_with('#') {
            if line.starts_with("# Keyspace") {
                rows.get_or_insert_with(Vec::new);
            }
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        // Other sections have names that begin so, too.
        if let (Some(number), Some(rows)) = (name.strip_prefix("db"), &mut rows)
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            rows.push(keyspace_line(name, value)?);
        }
    }
    rows
}

fn keyspace_line(name: &str, value: &str) -> Option<Keyspace> {
    let db = name.strip_prefix("db")?.parse().ok()?;
    let field = |wanted: &str| {
        value
            .split(',')
            .find_map(|part| part.strip_prefix(wanted)?.strip_prefix('=')?.parse().ok())
    };
    Some(Keyspace {
        db,
        keys: field("keys")?,
        expires: field("expires").unwrap_or(0),
    })
}

/// Bytes that INFO may take: some hundred times what it takes anywhere.
const INFO_LIMIT: usize = 4 * 1024 * 1024;

/// The text of INFO, `None` where it is refused.
///
/// # Errors
/// [`ServerError::Lost`] and [`ServerError::Protocol`].
pub fn info(conn: &mut Conn, section: Option<&str>) -> Result<Option<String>, ServerError> {
    let mut command = cmd("INFO");
    if let Some(section) = section {
        command.arg(section);
    }
    Ok(match conn.ask_within(&command, INFO_LIMIT)? {
        Ok(Reply::Bulk(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        // Not what a transaction answers that nobody knows of.
        Ok(Reply::Status(text)) => Some(text).filter(|text| text.contains(':')),
        _ => None,
    })
}

/// The moment that TIME tells in seconds and microseconds, Unix ms; `None` beyond what can be.
pub fn unix_ms(secs: u64, micros: u64) -> Option<u64> {
    secs.checked_mul(1000)?.checked_add(micros / 1000)
}

/// The server's clock, kept by ours from one question on.
#[derive(Debug, Clone, Copy)]
pub struct ServerClock {
    at_ms: u64,
    asked: Instant,
    /// Whether TIME was answered; else this is our own clock.
    pub is_servers: bool,
    /// How long the answer took, or the refusal.
    pub round_trip: Duration,
}

impl ServerClock {
    /// Asks TIME; falls back to this machine's clock where that is refused.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let mut before = host::now();
        let mut answer = conn.ask(&cmd("TIME"))?;
        if host::elapsed(before) >= STEP {
            // Far away, or the server asked for patience first, which would be taken for the way.
            before = host::now();
            answer = conn.ask(&cmd("TIME"))?;
        }
        let round_trip = host::elapsed(before);
        // Half the round trip is the best guess at when the server looked at its clock.
        let asked = before + round_trip / 2;
        if let Ok(value) = answer
            && let Ok((secs, micros)) = from_reply::<(u64, u64)>(value)
            && let Some(at_ms) = unix_ms(secs, micros)
        {
            return Ok(Self {
                at_ms,
                asked,
                is_servers: true,
                round_trip,
            });
        }
        Ok(Self {
            at_ms: host::unix_ms(),
            asked: host::now(),
            is_servers: false,
            round_trip,
        })
    }

    /// Now, on the server's clock, Unix ms.
    pub fn now_ms(&self) -> u64 {
        self.since(self.asked)
    }

    /// A moment that the server's clock has surely reached, Unix ms: counted from when its answer was
    /// read. What is past its time by then is past its time there.
    pub fn at_least_ms(&self) -> u64 {
        self.since(self.asked + self.round_trip / 2)
    }

    fn since(&self, looked: Instant) -> u64 {
        let since_ms = u64::try_from(host::elapsed(looked).as_millis()).unwrap_or(0);
        self.at_ms.saturating_add(since_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_as_far_as_it_goes() {
        let mut facts = Facts::default();
        facts.read("# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nrun_id:abc\r\nredis_mode:standalone\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n# Keyspace\r\ndb0:keys=7,expires=2,avg_ttl=0,keys_with_volatile_items=1\r\ndb15:keys=1,expires=0\r\n");
        assert_eq!(facts.family, Family::Valkey);
        assert_eq!(
            facts.parsed_version(),
            Version {
                major: 9,
                minor: 1,
                patch: 2
            }
        );
        assert_eq!(facts.rdb_version(), 80);
        assert_eq!(
            facts.keyspace,
            Some(vec![
                Keyspace {
                    db: 0,
                    keys: 7,
                    expires: 2
                },
                Keyspace {
                    db: 15,
                    keys: 1,
                    expires: 0
                }
            ])
        );
        assert!(!facts.cluster && !facts.role.replica);
    }

    #[test]
    fn look_alikes_are_known_by_what_they_say_and_named() {
        let facts = |text: &str| {
            let mut facts = Facts::default();
            facts.read(text);
            facts
        };
        for (text, told, title) in [
            (
                "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.30.0\r\n",
                "Dragonfly df-v1.30.0",
                "Dragonfly df-v1.30.0 (calls itself Redis 7.4.0)",
            ),
            (
                "# Server\r\ngarnet_version:1.0.84\r\nserver_name:garnet\r\nredis_version:7.4.3\r\n",
                "Garnet 1.0.84",
                "Garnet 1.0.84 (calls itself Redis 7.4.3)",
            ),
            (
                "# Server\r\nversion:2.10.0\r\nkvrocks_version:2.10.0\r\nredis_version:4.0.0\r\n",
                "Kvrocks 2.10.0",
                "Kvrocks 2.10.0 (calls itself Redis 4.0.0)",
            ),
            (
                "# Server\r\nredis_version:6.3.4\r\n\r\n# KeyDB\r\nmvcc_depth:0\r\n",
                "KeyDB 6.3.4",
                "KeyDB 6.3.4",
            ),
        ] {
            let facts = facts(text);
            assert_eq!(facts.family, Family::Other, "{told}");
            assert_eq!(
                (facts.version_told(), facts.title()),
                (told.to_owned(), title.to_owned())
            );
            assert_ne!(facts.rdb_version(), 0);
        }
        // Dragonfly's word for a replica.
        assert!(
            facts("redis_version:7.4.0\r\nrole:replica\r\n")
                .role
                .replica
        );
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let mut by_hello = Facts::default();
        let pairs = [
            "server",
            "redis",
            "version",
            "7.4.0",
            "dragonfly_version",
            "df-v1.30.0",
        ];
        by_hello.read_hello(Reply::Array(pairs.map(bulk).to_vec()));
        assert_eq!(by_hello.family, Family::Other);
        assert_eq!(
            by_hello.title(),
            "Dragonfly df-v1.30.0 (calls itself Redis 7.4.0)"
        );
    }

    #[test]
    fn a_withheld_keyspace_is_not_an_empty_one() {
        let mut facts = Facts::default();
        facts.read("redis_version:6.0.16\r\n");
        assert_eq!(facts.keyspace, None);
        facts.read("redis_version:6.0.16\r\n# Keyspace\r\n");
        assert_eq!(facts.keyspace, Some(Vec::new()));
        // Nor is one of which a line is not understood a shorter one.
        for line in [
            "db0:keys=x,expires=0",
            "db0:",
            "db3:expires=1",
            "db99999999999:keys=1",
        ] {
            facts.read(&format!("# Keyspace\r\ndb1:keys=1,expires=0\r\n{line}\r\n"));
            assert_eq!(facts.keyspace, None, "{line}");
        }
    }

    #[test]
    fn a_replica_that_was_made_a_primary_is_known_by_what_it_had_then() {
        let facts = |text: &str| {
            let mut facts = Facts::default();
            facts.read(text);
            facts
        };
        let never = facts("role:master\r\nmaster_replid2:0000000000\r\n");
        let once = facts("role:master\r\nmaster_replid2:8a10b2c3d4\r\n");
        let silent = facts("role:master\r\n");
        assert!(never.was_never_promoted());
        assert!(!once.was_never_promoted() && !silent.was_never_promoted());
        assert!(once.was_promoted_since(&never));
        assert!(!never.was_promoted_since(&never) && !once.was_promoted_since(&once));
        // What it noted is forgotten once its own history begins anew.
        assert!(!never.was_promoted_since(&once));
        assert!(!once.was_promoted_since(&silent) && !silent.was_promoted_since(&once));
    }

    #[test]
    fn a_process_that_may_have_begun_since_is_told_from_an_older_one() {
        let up_for = |secs: &str| {
            let mut facts = Facts::default();
            facts.read(&format!("uptime_in_seconds:{secs}\r\n"));
            facts
        };
        let may_be_younger = [0, 1, 1000, 1001].map(|ms| up_for("1").may_be_younger_than(ms));
        assert_eq!(may_be_younger, [false, false, false, true]);
        assert!(up_for("0").may_be_younger_than(1) && !up_for("x").may_be_younger_than(5000));
    }

    #[test]
    fn a_replica_that_lags_is_told_from_one_that_does_not() {
        let out_of_step = |text: &str| {
            let mut facts = Facts::default();
            facts.read(text);
            assert!(facts.role.is_told);
            facts.role.out_of_step
        };
        let up = "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:";
        assert_eq!(
            out_of_step("role:master\r\nmaster_link_status:down\r\n"),
            None
        );
        assert_eq!(
            out_of_step(&format!("{up}9\r\nmaster_sync_in_progress:0\r\n")),
            None
        );
        for stale in [
            "role:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n",
            &format!("{up}-1\r\nmaster_sync_in_progress:1\r\n"),
            &format!("{up}3600\r\n"),
        ] {
            assert!(out_of_step(stale).is_some(), "{stale}");
        }
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let role = |state: &str| {
            let parts = vec![
                bulk("slave"),
                bulk("h"),
                Reply::Int(1),
                bulk(state),
                Reply::Int(7),
            ];
            let mut facts = Facts::default();
            facts.read_role(&Reply::Array(parts));
            (
                facts.role.is_told,
                facts.role.replica,
                facts.role.out_of_step.is_some(),
            )
        };
        assert_eq!(role("connected"), (true, true, false));
        assert_eq!(role("connect"), (true, true, true));
        for other in [
            Reply::Nil,
            Reply::Array(Vec::new()),
            bulk("slave"),
            Reply::Okay,
        ] {
            let mut facts = Facts::default();
            facts.read_role(&other);
            assert!(!facts.role.is_told);
        }
    }
}
