//! What the destination's commands can do.

use super::{CommandLimits, Job, streams};
use crate::dialect::{Dialect, Feature, Version};
use crate::payload::{self, Kind, metadata};
use crate::policy::AllowLoss;
use crate::record::Family;
use crate::refusal::Refusal;
use crate::select::TEMP_KEY_PREFIX;
use crate::server::conn::is_forbidden;
use crate::server::facts::Facts;
use crate::server::reply::cmd;
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::sink::metadata::{NOT_BY_COMMANDS, refusal};
use crate::sink::server::foresee::Way;
use crate::sink::server::refusal::is_about_key;

/// The latest that HPEXPIREAT of Redis takes, which is earlier than RESTORE's (t_hash.c,
/// HFE_MAX_ABS_TIME_MSEC).
const REDIS_FIELD_TTL_MAX_MS: u64 = (1 << 46) - 1;

/// Arguments of XCFGSET and of XIDMPRECORD, for a key that is not there.
const TRY_XCFGSET: &[&str] = &["IDMP-DURATION", "1"];
const TRY_XIDMPRECORD: &[&str] = &["p", "i", "1-1"];

/// What the destination's commands can do. By default what 6.0 can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// [`Feature::Unlink`].
    pub unlink: bool,
    /// [`Feature::SetManyFields`].
    pub set_many_fields: bool,
    /// [`Feature::Streams`].
    pub streams: bool,
    /// [`Feature::SetAbsoluteTtl`].
    pub set_pxat: bool,
    /// [`Feature::CreateConsumer`].
    pub create_consumer: bool,
    /// [`Feature::StreamMetadata`].
    pub stream_metadata: bool,
    /// [`Feature::StreamIdempotency`].
    pub idempotency: bool,
    /// [`Feature::RecordIdempotency`].
    pub record_idempotency: bool,
    /// [`Feature::FieldTtl`]: the latest expiry that HPEXPIREAT takes.
    pub field_ttl_max_ms: Option<u64>,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            unlink: true,
            set_many_fields: true,
            streams: true,
            set_pxat: false,
            create_consumer: false,
            stream_metadata: false,
            idempotency: false,
            record_idempotency: false,
            field_ttl_max_ms: None,
        }
    }
}

/// Why a value that cannot be read is not written by commands.
fn unreadable(family: Family, value: &[u8]) -> String {
    let what = if payload::kind(family, value) != Kind::Module {
        let type_byte = payload::plain(family, value).first().copied();
        let number = type_byte.map_or_else(String::new, |byte| format!(" {byte}"));
        format!("a value of type{number}, which this version of the tool cannot read,")
    } else if payload::vector_set(value).is_some() {
        "a vector set".to_owned()
    } else {
        "a module's value".to_owned()
    };
    format!("{what} cannot be written by native commands")
}

impl Features {
    /// By which command a value would get its name.
    pub fn way(&self, limits: &CommandLimits, job: &Job<'_>) -> Way {
        let is_string = payload::kind(job.family, job.value) == Kind::String;
        let is_one_set = is_string
            && job.value.len() <= limits.chunk_bytes
            && (job.expire_at_ms.is_none() || self.set_pxat);
        match is_one_set {
            true => Way::Set,
            false => Way::Rename,
        }
    }

    /// Of a server that speaks this.
    pub fn of(dialect: Dialect) -> Self {
        let field_ttl_max_ms = match dialect.family() {
            Family::Valkey => 1 << 62,
            _ => REDIS_FIELD_TTL_MAX_MS,
        };
        if dialect.family() == Family::Other || dialect.version() == Version::default() {
            return Self::default();
        }
        Self {
            unlink: dialect.has(Feature::Unlink),
            set_many_fields: dialect.has(Feature::SetManyFields),
            streams: dialect.has(Feature::Streams),
            set_pxat: dialect.has(Feature::SetAbsoluteTtl),
            create_consumer: dialect.has(Feature::CreateConsumer),
            stream_metadata: dialect.has(Feature::StreamMetadata),
            idempotency: dialect.has(Feature::StreamIdempotency),
            record_idempotency: dialect.has(Feature::RecordIdempotency),
            field_ttl_max_ms: dialect.has(Feature::FieldTtl).then_some(field_ttl_max_ms),
        }
    }

    /// Of the server that said this of itself. Whether this user may use the commands of idempotency
    /// is tried all the same: what is lost without them is no reason to end a run. One that did not
    /// say its version is tried out, with commands for a key that is not there: they change nothing,
    /// and the servers' complaints differ.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn ask(conn: &mut Conn, facts: &Facts) -> Result<Self, ServerError> {
        if facts.family == Family::Other || facts.version.is_empty() {
            return Self::try_out(conn);
        }
        let mut features = Self::of(facts.dialect());
        // There is no such key. Other complaints than these say nothing about others.
        let mut may = |name: &str, args: &[&str]| -> Result<bool, ServerError> {
            let answer = conn.try_query(cmd(name).arg(ABSENT_KEY).arg(args))?;
            let is_refused = |text: &String| is_forbidden(text) && !is_about_key(text);
            Ok(!answer.err().as_ref().is_some_and(is_refused))
        };
        features.idempotency = features.idempotency && may("XCFGSET", TRY_XCFGSET)?;
        features.record_idempotency = features.idempotency
            && features.record_idempotency
            && may("XIDMPRECORD", TRY_XIDMPRECORD)?;
        Ok(features)
    }

    /// Whether a stream, type byte and body, that is written by commands loses settings of
    /// idempotency or ids that it remembers.
    pub fn loses_idempotency(&self, family: Family, value: &[u8]) -> bool {
        if payload::kind(family, value) != Kind::Stream {
            return false;
        }
        match payload::decode(family, value) {
            Ok(payload::Object::Stream(stream)) => {
                streams::loses_idempotency(self, &stream, &streams::recorded(self, &stream))
            }
            _ => false,
        }
    }

    /// The command that removes a temporary key.
    pub fn remove(&self) -> &'static str {
        match self.unlink {
            true => "UNLINK",
            false => "DEL",
        }
    }

    /// The command that sets several fields of a hash.
    pub fn set_fields(&self) -> &'static str {
        match self.set_many_fields {
            true => "HSET",
            false => "HMSET",
        }
    }

    /// Checks a value, type byte and body, that is to be written by commands. `Err`: why it cannot be,
    /// and what to do about it.
    ///
    /// # Errors
    /// See above.
    pub fn check(
        &self,
        family: Family,
        value: &[u8],
        allow: AllowLoss,
    ) -> Result<payload::Checked, Refusal> {
        let checked = payload::check(family, value).map_err(|error| {
            Refusal::new(match error.is_opaque() {
                true => unreadable(family, value),
                false => format!("its value is damaged and is not sent: {error}"),
            })
        })?;
        if payload::kind(family, value) == Kind::Stream && !self.streams {
            return Err(Refusal::new("the destination has no streams"));
        }
        if payload::has_metadata(family, value) && !allow.key_meta {
            let needed =
                metadata::needed(family, value).map_err(|error| Refusal::new(error.to_string()))?;
            if let Some(classes) = needed {
                return Err(refusal(&classes, NOT_BY_COMMANDS));
            }
        }
        let drops_ttls = self.field_ttl_max_ms.is_none() && !allow.hash_field_ttl;
        if checked.expiring_fields > 0 && drops_ttls {
            let expiring = checked.expiring_fields;
            return Err(Refusal::of_field_expiry(expiring, "the destination"));
        }
        Ok(checked)
    }

    /// By trying.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn try_out(conn: &mut Conn) -> Result<Self, ServerError> {
        let absent = [TEMP_KEY_PREFIX, b"absent"].concat();
        let mut ask = |name: &str, args: &[&str]| {
            let mut command = cmd(name);
            command.arg(&absent[..]).arg(args);
            conn.try_query(&command)
        };
        // Where the option is known, its number is none.
        let set = ask("SET", &["v", "PXAT", "x"])?;
        let is_6_2 = set.is_err_and(|text| text.contains("not an integer"));
        // Where the command and its options are known, the key is missed.
        let mut misses_key = |name: &str, args: &[&str]| -> Result<bool, ServerError> {
            let is_missed = |text: String| text.starts_with("ERR no such key");
            Ok(ask(name, args)?.is_err_and(is_missed))
        };
        let is_7_0 = misses_key("XSETID", &["1-1", "ENTRIESADDED", "1"])?;
        let idempotency = misses_key("XCFGSET", TRY_XCFGSET)?;
        let record_idempotency = misses_key("XIDMPRECORD", TRY_XIDMPRECORD)?;
        let fields = ask("HPEXPIREAT", &["1", "FIELDS", "1", "f"])?;
        let is_there = |answer: Result<_, String>| {
            answer
                .err()
                .is_none_or(|text| !text.starts_with("ERR unknown command"))
        };
        let streams = is_there(ask("XLEN", &[])?);
        let unlink = is_there(ask("UNLINK", &[])?);
        Ok(Self {
            unlink,
            // To try it would write.
            set_many_fields: true,
            streams,
            set_pxat: is_6_2,
            create_consumer: is_6_2,
            stream_metadata: is_7_0,
            idempotency,
            record_idempotency,
            field_ttl_max_ms: fields.is_ok().then_some(REDIS_FIELD_TTL_MAX_MS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let of = |family, text| Features::of(Dialect::of(family, Version::parse(text)));
        assert_eq!(of(Family::Redis, "6.0.16"), Features::default());
        assert!(of(Family::Redis, "6.2.0").set_pxat);
        assert!(of(Family::Redis, "5.0.6").streams);
        let old = of(Family::Redis, "4.0.14");
        assert!(old.unlink && old.set_many_fields && !old.streams);
        let older = of(Family::Redis, "3.2.6");
        assert!(!older.unlink && !older.set_many_fields);
        assert!(!of(Family::Redis, "6.2.14").stream_metadata);
        assert_eq!(of(Family::Redis, "7.2.4").field_ttl_max_ms, None);
        assert!(of(Family::Redis, "7.4.0").field_ttl_max_ms.is_some());
        assert!(of(Family::Valkey, "7.2.9").stream_metadata);
        assert!(!of(Family::Redis, "8.4.0").idempotency);
        let early = of(Family::Redis, "8.6.1");
        assert!(early.idempotency && !early.record_idempotency);
        assert!(of(Family::Redis, "8.6.2").record_idempotency);
        assert!(!of(Family::Valkey, "9.1.2").idempotency);
        assert_eq!(of(Family::Valkey, "8.1.1").field_ttl_max_ms, None);
        assert!(of(Family::Valkey, "9.1.2").field_ttl_max_ms.is_some());
        assert_eq!(of(Family::Other, ""), Features::default());
    }
}
