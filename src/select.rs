//! Which records take part: by database, name, type, size and expiry. Pure, and the same on every
//! verb.
//!
//! A source asks in this order, as early as it can: [`Selection::wants_db`] before it reads a
//! database, [`Selection::push_down`] for the server, [`Selection::wants_key`] for a name,
//! [`Selection::wants_value`] for what it read, the last only if [`Selection::needs_value`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};

use redis_migrate_format::header::SelectionFacts;

use crate::glob::Glob;
use crate::payload::{self, Kind};
use crate::record::Family;
use crate::units::{bytes_text, duration_text};

/// Prefix of the tool's own temporary keys. They are never exported, copied or imported.
pub const TEMP_KEY_PREFIX: &[u8] = b"__redis-migrate:tmp:";

/// Type names that TYPE and SCAN TYPE know on every server.
pub const CORE_TYPES: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

/// Type names of single versions: arrays (Redis 8.8), hashes with paths (Valkey 9.2).
pub const RARE_TYPES: [&str; 2] = [Kind::Array.name(), Kind::PathHash.name()];

/// The types that this version of the tool cannot read.
pub const UNKNOWN_TYPE: &str = "unknown";

/// Every type of a module, vector sets among them.
pub const MODULE_TYPE: &str = "module";

/// The type of vector sets: in a payload they are a module's.
pub const VECTOR_SET_TYPE: &str = "vectorset";

/// The name of a value's type: one of [`CORE_TYPES`], or `module:NAME` with the name that TYPE
/// answers. `value` begins with the type byte, or with key metadata.
pub fn type_of(family: Family, value: &[u8]) -> Cow<'static, str> {
    let value = payload::plain(family, value);
    match payload::kind(family, value) {
        Kind::Module => match module_name(value) {
            Some(name) => format!("{MODULE_TYPE}:{name}").into(),
            None => MODULE_TYPE.into(),
        },
        kind => kind.name().into(),
    }
}

/// The name of the type of a module's value, type byte first: behind it stands the type's id as a
/// 64-bit RDB length. The rest of the value is not looked at.
pub fn module_name(value: &[u8]) -> Option<String> {
    match value {
        [_, 0x81, id @ ..] => {
            let id = u64::from_be_bytes(*id.first_chunk::<8>()?);
            Some(payload::module_name(id))
        }
        _ => None,
    }
}

/// What takes part. Empty lists and `None` restrict nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Databases.
    pub dbs: Vec<u32>,
    /// Only these keys.
    pub only_keys: Vec<Vec<u8>>,
    /// A key must match one of these.
    pub matches: Vec<Glob>,
    /// A key must match none of these.
    pub excludes: Vec<Glob>,
    /// Types: of [`CORE_TYPES`], [`MODULE_TYPE`], [`VECTOR_SET_TYPE`], or `module:NAME`.
    pub types: Vec<String>,
    /// Smallest value: bytes of the value in compact form.
    pub min_size_bytes: Option<u64>,
    /// Largest value.
    pub max_size_bytes: Option<u64>,
    /// Only keys with expiry.
    pub with_ttl: bool,
    /// Only keys without expiry.
    pub without_ttl: bool,
    /// Shortest remaining life. A key without expiry lives for ever, and so long enough.
    pub min_ttl_ms: Option<u64>,
    /// Longest remaining life. A key without expiry lives too long.
    pub max_ttl_ms: Option<u64>,
    /// A name must pass this, too.
    pub names: NameFilter,
    /// Counts the tool's own temporary keys, which never take part.
    pub passed_over: PassedOver,
}

/// Counts temporary keys of the tool itself that would take part if they were anybody else's.
/// The default does not count.
#[derive(Debug, Clone, Default)]
pub struct PassedOver(Option<Arc<Mutex<HashSet<u64>>>>);

impl PassedOver {
    /// Counts from now on.
    pub fn counting() -> Self {
        Self(Some(Arc::default()))
    }

    /// How many names there were: a scan may give a name twice.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |seen| {
            let seen = seen.lock().unwrap_or_else(|error| error.into_inner());
            seen.len() as u64
        })
    }

    fn note(&self, key: &[u8]) {
        if let Some(seen) = &self.0 {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            let mut seen = seen.lock().unwrap_or_else(|error| error.into_inner());
            seen.insert(hasher.finish());
        }
    }
}

impl PartialEq for PassedOver {
    /// What is counted is no part of what is selected.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for PassedOver {}

/// Any other condition on names, known only to who made it. Everything passes the default.
#[derive(Clone, Default)]
pub struct NameFilter(Option<Arc<NameCondition>>);

/// Whether a name is wanted.
pub type NameCondition = dyn Fn(&[u8]) -> bool + Send + Sync;

impl NameFilter {
    /// Names pass for which `wants` is true.
    pub fn new(wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(wants)))
    }

    fn passes(&self, key: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|wants| wants(key))
    }
}

impl fmt::Debug for NameFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "some" } else { "all" })
    }
}

impl PartialEq for NameFilter {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }
}

impl Eq for NameFilter {}

/// What a server's SCAN can filter by itself and mean exactly the same. The selection is applied
/// again to what comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushDown<'a> {
    /// For SCAN MATCH.
    pub match_: Option<&'a [u8]>,
    /// For SCAN TYPE (servers from 6.0).
    pub type_: Option<&'a str>,
}

/// Which of the keys that were asked for by name were met.
#[derive(Debug, Clone, Default)]
pub struct Sought(Arc<Mutex<HashSet<Vec<u8>>>>);

impl Sought {
    /// The same selection, which from now on remembers here which of its `only_keys` it meets.
    #[must_use]
    pub fn watch(&self, selection: Selection) -> Selection {
        if selection.only_keys.is_empty() {
            return selection;
        }
        let met = Arc::clone(&self.0);
        selection.and_names(move |key| {
            let mut met = met.lock().unwrap_or_else(|error| error.into_inner());
            if !met.contains(key) {
                met.insert(key.to_vec());
            }
            true
        })
    }

    /// Those of `only_keys` that were never met.
    pub fn missing<'a>(&self, only_keys: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        let met = self.0.lock().unwrap_or_else(|error| error.into_inner());
        let missing = only_keys.iter().filter(|key| !met.contains(*key));
        missing.map(Vec::as_slice).collect()
    }
}

impl Selection {
    /// Whether records of this database take part.
    pub fn wants_db(&self, db: u32) -> bool {
        self.dbs.is_empty() || self.dbs.contains(&db)
    }

    /// Whether a key of this name takes part. Never the tool's own temporary keys.
    pub fn wants_key(&self, key: &[u8]) -> bool {
        let is_asked = (self.only_keys.is_empty() || self.only_keys.iter().any(|only| only == key))
            && (self.matches.is_empty() || self.matches.iter().any(|glob| glob.matches(key)))
            && !self.excludes.iter().any(|glob| glob.matches(key));
        if is_asked && key.starts_with(TEMP_KEY_PREFIX) {
            self.passed_over.note(key);
            return false;
        }
        is_asked && self.names.passes(key)
    }

    /// What of it names and databases alone decide.
    #[must_use]
    pub fn by_name(&self) -> Self {
        Self {
            dbs: self.dbs.clone(),
            matches: self.matches.clone(),
            excludes: self.excludes.clone(),
            names: self.names.clone(),
            ..Self::default()
        }
    }

    /// The same, restricted by one more condition on names.
    #[must_use]
    pub fn and_names(self, wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        let before = self.names;
        Self {
            names: NameFilter::new(move |name| before.passes(name) && wants(name)),
            ..self
        }
    }

    /// Whether type, size or expiry are asked for, so that names alone do not decide.
    pub fn needs_value(&self) -> bool {
        !self.types.is_empty() || self.needs_size() || self.needs_ttl()
    }

    /// Whether the size is asked for.
    pub fn needs_size(&self) -> bool {
        self.min_size_bytes.is_some() || self.max_size_bytes.is_some()
    }

    /// Whether the expiry is asked for.
    pub fn needs_ttl(&self) -> bool {
        self.with_ttl || self.without_ttl || self.min_ttl_ms.is_some() || self.max_ttl_ms.is_some()
    }

    /// Whether a key of this type, size and expiry takes part. `value_bytes` are the bytes of the
    /// value in compact form (type byte and body, LZF expanded, no footer), so that a size means
    /// the same at a server and in an archive. `now_ms` is the clock that remaining life is
    /// counted on: the server's where there is one.
    pub fn wants_value(
        &self,
        type_name: &str,
        value_bytes: u64,
        expire_at_ms: Option<u64>,
        now_ms: u64,
    ) -> bool {
        let remaining_ms = expire_at_ms.map(|at| at.saturating_sub(now_ms));
        self.wants_type(type_name)
            && self.min_size_bytes.is_none_or(|min| value_bytes >= min)
            && self.max_size_bytes.is_none_or(|max| value_bytes <= max)
            && !(self.with_ttl && expire_at_ms.is_none())
            && !(self.without_ttl && expire_at_ms.is_some())
            && self
                .min_ttl_ms
                .is_none_or(|min| remaining_ms.is_none_or(|left| left >= min))
            && self
                .max_ttl_ms
                .is_none_or(|max| remaining_ms.is_some_and(|left| left <= max))
    }

    /// Whether a type takes part, as [`type_of`] names it. Case does not matter.
    pub fn wants_type(&self, type_name: &str) -> bool {
        let module = type_name
            .strip_prefix(MODULE_TYPE)
            .map(|rest| rest.trim_start_matches(':'));
        self.types.is_empty()
            || self.types.iter().any(|wanted| {
                wanted.eq_ignore_ascii_case(type_name)
                    || module.is_some_and(|name| {
                        wanted.eq_ignore_ascii_case(MODULE_TYPE)
                            || (wanted == VECTOR_SET_TYPE && name == VECTOR_SET_TYPE)
                    })
            })
    }

    /// Whether a type of this kind may take part. For modules only the value tells.
    pub fn may_want_kind(&self, kind: Kind) -> bool {
        let is_of_module =
            |wanted: &String| wanted == VECTOR_SET_TYPE || wanted.starts_with(MODULE_TYPE);
        match kind {
            Kind::Module => self.types.is_empty() || self.types.iter().any(is_of_module),
            kind => self.wants_type(kind.name()),
        }
    }

    /// Whether what modules keep outside keys may go along: it belongs to no key, but a server
    /// without the modules refuses it, and so it does not go where no type of theirs is wanted.
    /// Vector sets need no module.
    pub fn wants_module_data(&self) -> bool {
        let is_of_module = |wanted: &String| {
            let wanted = wanted.to_ascii_lowercase();
            wanted.starts_with(MODULE_TYPE) && wanted != "module:vectorset"
        };
        self.types.is_empty() || self.types.iter().any(is_of_module)
    }

    /// What the server can do of it.
    pub fn push_down(&self) -> PushDown<'_> {
        let match_ = match self.matches.as_slice() {
            [glob] if glob.is_portable() && !glob.is_everything() => Some(glob.pattern()),
            _ => None,
        };
        let type_ = match self.types.as_slice() {
            [name] => CORE_TYPES
                .into_iter()
                .find(|core| core.eq_ignore_ascii_case(name)),
            _ => None,
        };
        PushDown { match_, type_ }
    }

    /// Whether nothing is restricted (temporary keys of the tool aside).
    pub fn is_everything(&self) -> bool {
        self.dbs.is_empty()
            && self.only_keys.is_empty()
            && (self.matches.is_empty() || self.matches.iter().any(Glob::is_everything))
            && self.excludes.is_empty()
            && self.names == NameFilter::default()
            && !self.needs_value()
    }

    /// For the header of an archive.
    pub fn facts(&self) -> SelectionFacts {
        let patterns = |globs: &[Glob]| globs.iter().map(|glob| glob.pattern().to_vec()).collect();
        let millis = |ms: u64| duration_text(std::time::Duration::from_millis(ms));
        let mut other = Vec::new();
        for key in &self.only_keys {
            other.push(format!("only key {}", crate::record::show_key(key)));
        }
        if let Some(min) = self.min_size_bytes {
            other.push(format!("values of at least {}", bytes_text(min)));
        }
        if let Some(max) = self.max_size_bytes {
            other.push(format!("values of at most {}", bytes_text(max)));
        }
        if self.with_ttl {
            other.push("only keys with expiry".to_owned());
        }
        if self.without_ttl {
            other.push("only keys without expiry".to_owned());
        }
        if let Some(min) = self.min_ttl_ms {
            other.push(format!("only keys that live at least {} more", millis(min)));
        }
        if let Some(max) = self.max_ttl_ms {
            other.push(format!(
                "only keys that expire within {} at most",
                millis(max)
            ));
        }
        SelectionFacts {
            dbs: self.dbs.clone(),
            matches: patterns(&self.matches),
            excludes: patterns(&self.excludes),
            types: self.types.clone(),
            other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|p| Glob::new(p.as_bytes())).collect()
    }

    #[test]
    fn each_kind_can_be_selected_by_its_name() {
        let others = [MODULE_TYPE, UNKNOWN_TYPE];
        for kind in Kind::ALL {
            let name = kind.name();
            let is_listed = [&CORE_TYPES[..], &RARE_TYPES, &others]
                .concat()
                .contains(&name);
            assert!(is_listed, "{name} is no --type");
        }
    }

    #[test]
    fn nothing_asked_is_everything_but_our_own_temporary_keys() {
        let all = Selection::default();
        assert!(all.is_everything());
        assert!(!all.needs_value());
        assert!(all.wants_db(7));
        assert!(all.wants_key(b""));
        assert!(!all.wants_key(b"__redis-migrate:tmp:1"));
        assert!(all.wants_key(b"__redis-migrate:tmp"));
        assert_eq!(all.push_down(), PushDown::default());
        assert_eq!(all.facts(), SelectionFacts::default());
        let star = Selection {
            matches: globs(&["*"]),
            ..Selection::default()
        };
        assert!(star.is_everything());
        assert_eq!(star.push_down(), PushDown::default());
    }

    #[test]
    fn a_key_must_match_one_and_no_exclude() {
        let selection = Selection {
            matches: globs(&["user:*", "session:*"]),
            excludes: globs(&["*:tmp"]),
            ..Selection::default()
        };
        assert!(selection.wants_key(b"user:1"));
        assert!(selection.wants_key(b"session:1"));
        assert!(!selection.wants_key(b"cart:1"));
        assert!(!selection.wants_key(b"user:1:tmp"));
        assert!(!selection.is_everything());
    }

    #[test]
    fn only_what_scan_means_exactly_the_same_is_pushed_down() {
        let one = Selection {
            matches: globs(&["user:*"]),
            types: vec!["Hash".to_owned()],
            ..Selection::default()
        };
        assert_eq!(one.push_down().match_, Some(b"user:*".as_slice()));
        assert_eq!(one.push_down().type_, Some("hash"));
        let several = Selection {
            matches: globs(&["a*", "b*"]),
            types: vec!["hash".to_owned(), "set".to_owned()],
            ..Selection::default()
        };
        assert_eq!(several.push_down(), PushDown::default());
        let unsure = Selection {
            matches: vec![Glob::new(b"[a-\xff]")],
            types: vec!["module:ReJSON-RL".to_owned()],
            ..Selection::default()
        };
        assert_eq!(unsure.push_down(), PushDown::default());
    }

    #[test]
    fn module_data_go_with_types_of_modules() {
        for (types, wants) in [
            (vec![], true),
            (vec!["hash", "module"], true),
            (vec!["module:ReJSON-RL"], true),
            (vec!["hash", "vectorset", "module:vectorset"], false),
        ] {
            let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
            let of = Selection {
                types,
                ..Selection::default()
            };
            assert_eq!(of.wants_module_data(), wants, "{:?}", of.types);
        }
    }

    #[test]
    fn types_of_modules_are_chosen_by_name_or_all_together() {
        let wants = |wanted: &str, name: &str| {
            let types = vec![wanted.to_owned()];
            let selection = Selection {
                types,
                ..Selection::default()
            };
            let kind = match name.starts_with("module") {
                true => Kind::Module,
                false => Kind::Hash,
            };
            let wants = selection.wants_type(name);
            assert!(!wants || selection.may_want_kind(kind), "{wanted} {name}");
            wants
        };
        assert!(wants("module", "module:ReJSON-RL"));
        assert!(wants("module", "module"));
        assert!(wants("module:ReJSON-RL", "module:ReJSON-RL"));
        assert!(!wants("module:ReJSON-RL", "module:TSDB-TYPE"));
        assert!(!wants("module:ReJSON-RL", "hash"));
        assert!(wants("vectorset", "module:vectorset"));
        assert!(wants("module", "module:vectorset"));
        assert!(!wants("vectorset", "module:ReJSON-RL"));
        assert!(!wants("hash", "module"));
        // A module's value of the second version: the id, then what the module wrote.
        let id = u64::from_be_bytes([0x80, 0, 0, 0, 0, 0, 0, 0]);
        let mut value = vec![7, 0x81];
        value.extend(id.to_be_bytes());
        assert!(type_of(Family::Redis, &value).starts_with("module:"));
        assert_eq!(type_of(Family::Redis, &[0, 1, b'x']), "string");
        assert_eq!(type_of(Family::Redis, &[]), "unknown");
    }

    #[test]
    fn values_are_chosen_by_type_size_and_expiry() {
        let now = 1_000_000;
        let wants = |selection: &Selection, expire_at_ms| {
            selection.wants_value("string", 100, expire_at_ms, now)
        };
        let with = |change: fn(&mut Selection)| {
            let mut selection = Selection::default();
            change(&mut selection);
            assert!(selection.needs_value());
            selection
        };
        assert!(!wants(&with(|s| s.types = vec!["hash".into()]), None));
        assert!(wants(&with(|s| s.types = vec!["STRING".into()]), None));
        assert!(wants(&with(|s| s.min_size_bytes = Some(100)), None));
        assert!(!wants(&with(|s| s.min_size_bytes = Some(101)), None));
        assert!(wants(&with(|s| s.max_size_bytes = Some(100)), None));
        assert!(!wants(&with(|s| s.max_size_bytes = Some(99)), None));
        assert!(!wants(&with(|s| s.with_ttl = true), None));
        assert!(wants(&with(|s| s.with_ttl = true), Some(now + 1)));
        assert!(!wants(&with(|s| s.without_ttl = true), Some(now + 1)));
        let min = with(|s| s.min_ttl_ms = Some(10));
        assert!(wants(&min, None) && wants(&min, Some(now + 10)));
        assert!(!wants(&min, Some(now + 9)) && !wants(&min, Some(5)));
        let max = with(|s| s.max_ttl_ms = Some(10));
        assert!(!wants(&max, None) && wants(&max, Some(now + 10)) && wants(&max, Some(5)));
        assert!(!wants(&max, Some(now + 11)));
        assert_eq!(max.facts().other.len(), 1);
    }
}
