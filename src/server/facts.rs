//! What a server says of itself. Every fact is optional: managed services refuse INFO, TIME or
//! SELECT, and then the tool goes on with less.

use std::time::{Duration, Instant};

use redis::Value;

use super::{Conn, ServerError};
use crate::record::Family;
use crate::units::now_ms;

/// A server's version, for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch.
    pub patch: u16,
}

impl Version {
    /// Reads `7.0.15`; missing or odd parts count as 0.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        let mut next = || parts.next().unwrap_or(0);
        Self {
            major: next(),
            minor: next(),
            patch: next(),
        }
    }
}

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
    /// Version text of that family, empty where it is unknown.
    pub version: String,
    /// `run_id`.
    pub run_id: Option<String>,
    /// Whether the server is a node of a cluster.
    pub cluster: bool,
    /// `role:slave`.
    pub replica: bool,
    /// Replicas that are connected (`connected_slaves`).
    pub replicas: Option<u64>,
    /// Databases with keys; `None` where INFO keyspace is refused.
    pub keyspace: Option<Vec<Keyspace>>,
    /// `maxmemory`, bytes; `None` where unknown, 0 for none.
    pub maxmemory: Option<u64>,
    /// `maxmemory_policy`.
    pub policy: Option<String>,
    /// `used_memory`, bytes.
    pub used_memory: Option<u64>,
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
            && let Ok(value) = conn.try_query(redis::cmd("HELLO").arg(2))?
        {
            facts.read_hello(value);
        }
        Ok(facts)
    }

    /// HELLO tells the least, but from 6.2 on no ACL refuses it (acl.c exempts what may come before
    /// AUTH).
    fn read_hello(&mut self, value: Value) {
        let Value::Array(items) = value else { return };
        let text = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap_or_default();
        for pair in items.chunks_exact(2) {
            match text(&pair[0]).as_str() {
                "server" if text(&pair[1]) == "redis" => self.family = Family::Redis,
                "server" if text(&pair[1]) == "valkey" => self.family = Family::Valkey,
                "version" => self.version = text(&pair[1]),
                "mode" => self.cluster = text(&pair[1]) == "cluster",
                _ => {}
            }
        }
    }

    fn read(&mut self, text: &str) {
        let mut redis_version = None;
        let mut valkey_version = None;
        let mut keyspace = Vec::new();
        let mut has_keyspace = false;
        for line in text.lines() {
            has_keyspace |= line.starts_with("# Keyspace");
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            match name {
                "redis_version" => redis_version = Some(value.to_owned()),
                "valkey_version" => valkey_version = Some(value.to_owned()),
                "run_id" => self.run_id = Some(value.to_owned()),
                "redis_mode" | "server_mode" => self.cluster |= value == "cluster",
                "cluster_enabled" => self.cluster |= value == "1",
                "role" => self.replica = value == "slave",
                "connected_slaves" => self.replicas = value.parse().ok(),
                "maxmemory" => self.maxmemory = value.parse().ok(),
                "maxmemory_policy" => self.policy = Some(value.to_owned()),
                "used_memory" => self.used_memory = value.parse().ok(),
                "evicted_keys" => self.evicted_keys = value.parse().ok(),
                _ => keyspace.extend(keyspace_line(name, value)),
            }
        }
        self.family = match (&valkey_version, &redis_version) {
            (Some(_), _) => Family::Valkey,
            (None, Some(_)) => Family::Redis,
            (None, None) => Family::Other,
        };
        self.version = valkey_version.or(redis_version).unwrap_or_default();
        // Without the heading the section was withheld, which is not the same as "no keys".
        self.keyspace = has_keyspace.then_some(keyspace);
    }

    /// The version, for comparisons.
    pub fn parsed_version(&self) -> Version {
        Version::parse(&self.version)
    }

    /// RDB version that a server of this family and version writes into DUMP footers; 0 where it
    /// is unknown (`rdb.h`, RDB_VERSION, of each release).
    pub fn rdb_version(&self) -> u16 {
        let Version { major, minor, .. } = self.parsed_version();
        match (self.family, major, minor) {
            (Family::Redis, 5 | 6, _) => 9,
            (Family::Redis, 7, 0) => 10,
            (Family::Redis, 7, 2) | (Family::Valkey, 7 | 8, _) => 11,
            (Family::Redis, 7, 4) | (Family::Redis, 8, 0..=4) => 12,
            (Family::Valkey, 9, 0 | 1) => 80,
            _ => 0,
        }
    }

    /// `Redis 7.0.15`, or what little is known.
    pub fn title(&self) -> String {
        let name = match self.family {
            Family::Redis => "Redis",
            Family::Valkey => "Valkey",
            Family::Other => return "a server of unknown version".to_owned(),
        };
        format!("{name} {}", self.version)
    }
}

/// The databases of an INFO keyspace.
pub fn keyspace(text: &str) -> Vec<Keyspace> {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    rows.filter_map(|(name, value)| keyspace_line(name, value))
        .collect()
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

/// The text of INFO, `None` where it is refused.
///
/// # Errors
/// [`ServerError::Lost`] and [`ServerError::Protocol`].
pub fn info(conn: &mut Conn, section: Option<&str>) -> Result<Option<String>, ServerError> {
    let mut command = redis::cmd("INFO");
    if let Some(section) = section {
        command.arg(section);
    }
    Ok(match conn.try_query(&command)? {
        Ok(Value::BulkString(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Ok(Value::SimpleString(text)) => Some(text),
        _ => None,
    })
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
        let before = Instant::now();
        let answer = conn.try_query(&redis::cmd("TIME"))?;
        let round_trip = before.elapsed();
        // Half the round trip is the best guess at when the server looked at its clock.
        let asked = before + round_trip / 2;
        if let Ok(value) = answer
            && let Ok((secs, micros)) = redis::from_redis_value::<(u64, u64)>(value)
        {
            return Ok(Self {
                at_ms: secs * 1000 + micros / 1000,
                asked,
                is_servers: true,
                round_trip,
            });
        }
        Ok(Self {
            at_ms: now_ms(),
            asked: Instant::now(),
            is_servers: false,
            round_trip,
        })
    }

    /// Now, on the server's clock, Unix ms.
    pub fn now_ms(&self) -> u64 {
        self.at_ms + u64::try_from(self.asked.elapsed().as_millis()).unwrap_or(0)
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
        assert!(!facts.cluster && !facts.replica);
    }

    #[test]
    fn a_withheld_keyspace_is_not_an_empty_one() {
        let mut facts = Facts::default();
        facts.read("redis_version:6.0.16\r\n");
        assert_eq!(facts.keyspace, None);
        facts.read("redis_version:6.0.16\r\n# Keyspace\r\n");
        assert_eq!(facts.keyspace, Some(Vec::new()));
    }
}
