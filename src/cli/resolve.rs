//! What the command line means: arguments and environment become the types that the verbs work
//! with. Everything here is a usage error or works; nothing connects or opens an archive.
//!
//! A password is taken from, in this order: `--askpass` or `--password-file`; the side's own
//! variable (`SOURCE_REDIS_PASSWORD`, bare, or the file that `SOURCE_REDIS_PASSWORD_FILE` names;
//! `DESTINATION_…` likewise); the URL; and on verbs with one server `REDISCLI_AUTH`. The nearer
//! somebody stands to this one run, the more it counts; a URL often comes from a stored setting.
//! That of sentinels is taken from `--sentinel-password-file` or `SOURCE_REDIS_SENTINEL_PASSWORD`
//! (and `…_FILE`) only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Result;
use redis_migrate_format::version::{MAJOR, MINOR};

use super::{ConnectArgs, SelectArgs, TimeoutArgs, WriteArgs};
use crate::dialect::{Family, Proof, RELEASES};
use crate::endpoint::{
    ConnectOptions, NodeMap, Secret, SentinelLogin, ServerAddress, TlsOptions, Transport, UrlUser,
};
use crate::exit::{Usage, usage};
use crate::glob::Glob;
use crate::place::{Endpoint, Place};
use crate::policy::{OnConflict, TtlPolicy};
use crate::record::show_key;
use crate::rewrite::{DbMap, Rewrite, TtlIntent};
use crate::select::{Selection, TEMP_KEY_PREFIX};

/// Looks up an environment variable. Unset and empty are the same.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// `0.1.0 (abc123)`.
pub fn short_version() -> String {
    match crate::version::GIT {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        git => format!("{} ({git})", env!("CARGO_PKG_VERSION")),
    }
}

/// RDB versions up to here are not worth a word: servers of both sides are tested.
const OLDEST_SHOWN: u16 = 9;

/// The version, and what it can read.
pub fn long_version() -> String {
    let newest = |family| {
        RELEASES
            .iter()
            .rfind(|row| row.family == family)
            .map_or_else(String::new, |row| {
                format!("{} ({})", row.rdb_version, row.title())
            })
    };
    let untested: Vec<String> = RELEASES
        .iter()
        .filter(|row| row.proof == Proof::FromSources && row.rdb_version > OLDEST_SHOWN)
        .map(|row| format!("{} (RDB {})", row.title(), row.rdb_version))
        .collect();
    format!(
        "{}\narchive format: {MAJOR}.{MINOR}\nreads: RDB versions up to {} and {}; newer values \
         travel as they are\nknown from published sources only, not tested with a server: {}",
        short_version(),
        newest(Family::Redis),
        newest(Family::Valkey),
        untested.join(", ")
    )
}

/// Which server of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
    /// The sides of a comparison.
    Left,
    Right,
}

impl Side {
    fn argument(self) -> &'static str {
        match self {
            Side::Source => "SRC",
            Side::Destination => "DEST",
            Side::Left => "A",
            Side::Right => "B",
        }
    }

    pub(crate) fn variable(self, suffix: &str) -> String {
        match self {
            Side::Source | Side::Left => format!("SOURCE_REDIS_{suffix}"),
            Side::Destination | Side::Right => format!("DESTINATION_REDIS_{suffix}"),
        }
    }
}

/// One server: its URL, its flags, its environment.
pub(crate) struct Server<'a> {
    pub(crate) side: Side,
    /// What was named; `None` where that is left to the environment.
    pub(crate) place: Option<&'a Place>,
    pub(crate) flags: ConnectArgs,
    pub(crate) timeouts: &'a TimeoutArgs,
    /// Whether it is the only server of the run, so that `REDISCLI_AUTH` can only mean it.
    pub(crate) alone: bool,
}

impl<'a> Server<'a> {
    /// The only one of a verb.
    pub(crate) fn alone(
        side: Side,
        place: Option<&'a Place>,
        flags: &ConnectArgs,
        timeouts: &'a TimeoutArgs,
    ) -> Self {
        Self {
            side,
            place,
            flags: flags.flags(),
            timeouts,
            alone: true,
        }
    }

    /// What it names, where that may be a file.
    pub(crate) fn endpoint(&self, env: Env<'_>) -> Result<Endpoint> {
        Ok(match self.place {
            Some(Place::Stored(location)) => Endpoint::Stored(location.clone()),
            _ => Endpoint::Server(Box::new(self.resolve(env)?)),
        })
    }

    pub(crate) fn resolve(&self, env: Env<'_>) -> Result<ConnectOptions> {
        let from_env = env(&self.side.variable("URL"));
        let url = match self.place.map(Place::word).or(from_env.as_deref()) {
            Some(url) => url.to_str().ok_or_else(|| {
                Usage(format!(
                    "{} is not UTF-8; percent-encode such bytes",
                    self.side.argument()
                ))
            })?,
            None => {
                return Err(usage(format!(
                    "no {} given; name a server (redis://host:port) or set {}",
                    self.side.argument(),
                    self.side.variable("URL")
                )));
            }
        };
        let address = ServerAddress::parse(url)
            .map_err(|Usage(text)| Usage(format!("{}: {text}", self.side.argument())))?;
        let user = address.user.clone();
        let mut options = ConnectOptions::new(address);
        self.credentials(user, &mut options, env)?;
        options.tls = self.tls(&options.address)?;
        options.sentinel = self.sentinel(&options.address, env)?;
        options.timeout = self.timeouts.timeout;
        options.connect_timeout = self.timeouts.connect_timeout;
        options.retry_for = self.timeouts.retry_for;
        options.retries = self.timeouts.retries;
        options.node_map = NodeMap::new(self.flags.node_map.iter().cloned());
        if options.timeout.is_zero() || options.connect_timeout.is_zero() {
            return Err(usage(
                "a timeout of 0 leaves no time for an answer; leave the option out for the default",
            ));
        }
        Ok(options)
    }

    /// How the names of its flags begin.
    fn flag_prefix(&self) -> &'static str {
        match self.side {
            Side::Left => "a-",
            Side::Right => "b-",
            _ if self.alone => "",
            Side::Source => "source-",
            Side::Destination => "dest-",
        }
    }

    fn credentials(&self, user: UrlUser, options: &mut ConnectOptions, env: Env<'_>) -> Result<()> {
        let nearer = match self.password_from_flags()? {
            Some(secret) => Some(secret),
            None => self.password_from_env("PASSWORD", env)?,
        };
        // A lone word before the @ is a user name as soon as a password comes from elsewhere.
        let (url_name, url_password) = match (&user, &nearer) {
            (UrlUser::Bare(word), Some(_)) => {
                let name = String::from_utf8(word.expose().to_vec())
                    .map_err(|_| Usage("the user name in the URL is not UTF-8".to_owned()))?;
                (Some(name), None)
            }
            _ => (options.username.take(), options.password.take()),
        };
        options.username = self.flags.user.clone().or(url_name);
        options.password = nearer.or(url_password);
        if options.password.is_none() && self.alone {
            options.password = env("REDISCLI_AUTH").map(|value| Secret::new(value.into_vec()));
        }
        if let (Some(name), None) = (&options.username, &options.password) {
            return Err(usage(format!(
                "user {name:?} is named without a password; give --{}askpass, \
                 --{}password-file or {}",
                self.flag_prefix(),
                self.flag_prefix(),
                self.side.variable("PASSWORD")
            )));
        }
        Ok(())
    }

    fn password_from_flags(&self) -> Result<Option<Secret>> {
        if let Some(path) = &self.flags.password_file {
            return read_password(path).map(Some);
        }
        if self.flags.askpass {
            let prompt = format!("Password for {}: ", self.side.argument());
            let password = rpassword::prompt_password(prompt)
                .map_err(|error| Usage(format!("cannot ask for a password: {error}")))?;
            return Ok(Some(Secret::new(password)));
        }
        Ok(None)
    }

    /// From the side's own variable, or from the file that the same name with `_FILE` names.
    fn password_from_env(&self, suffix: &str, env: Env<'_>) -> Result<Option<Secret>> {
        let name = self.side.variable(suffix);
        let file_name = format!("{name}_FILE");
        match (env(&name), env(&file_name)) {
            (Some(_), Some(_)) => Err(usage(format!(
                "both {name} and {file_name} are set; unset one"
            ))),
            (Some(password), None) => Ok(Some(Secret::new(password.into_vec()))),
            (None, Some(path)) => read_password(Path::new(&path)).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn tls(&self, address: &Transport) -> Result<TlsOptions> {
        let flags = &self.flags;
        let tls = TlsOptions {
            insecure: flags.insecure,
            ca_file: flags.cacert.clone(),
            ca_dir: flags.cacertdir.clone(),
            cert: flags.cert.clone(),
            key: flags.key.clone(),
            sni: flags.sni.clone(),
        };
        if tls != TlsOptions::default() && !address.is_tls() {
            let scheme = match address {
                Transport::Sentinel(_) => "rediss-sentinel",
                _ => "rediss",
            };
            return Err(usage(format!(
                "TLS flags are given, but {} does not use TLS; write {scheme}://",
                self.side.argument()
            )));
        }
        Ok(tls)
    }

    fn sentinel(&self, address: &Transport, env: Env<'_>) -> Result<SentinelLogin> {
        let flags = &self.flags;
        if !matches!(address, Transport::Sentinel(_)) {
            if flags.sentinel_user.is_some() || flags.sentinel_password_file.is_some() {
                return Err(usage(format!(
                    "flags for sentinels are given, but {} is not a sentinel URL; write \
                     redis-sentinel://host,host/name",
                    self.side.argument()
                )));
            }
            return Ok(SentinelLogin::default());
        }
        let password = match &flags.sentinel_password_file {
            Some(path) => Some(read_password(path)?),
            None => self.password_from_env("SENTINEL_PASSWORD", env)?,
        };
        if let (Some(name), None) = (&flags.sentinel_user, &password) {
            return Err(usage(format!(
                "sentinel user {name:?} is named without a password; give \
                 --{}sentinel-password-file or {}",
                self.flag_prefix(),
                self.side.variable("SENTINEL_PASSWORD")
            )));
        }
        Ok(SentinelLogin {
            username: flags.sentinel_user.clone(),
            password,
        })
    }
}

/// A password from a file: everything but one line end at its end.
fn read_password(path: &Path) -> Result<Secret> {
    let mut bytes = std::fs::read(path)
        .map_err(|error| Usage(format!("cannot read the password file {path:?}: {error}")))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(usage(format!("the password file {path:?} is empty")));
    }
    Ok(Secret::new(bytes))
}

/// A key as it was given: in quotes as `list` shows it, or as it is.
///
/// # Errors
/// [`Usage`] for quotes around what `list` would not show like that.
pub fn given_key(text: &OsStr) -> Result<Vec<u8>> {
    crate::record::read_key(text.as_bytes()).map_err(usage)
}

/// What was named in the place of a server. With that one in the environment it may be a file.
pub(crate) fn url_and_file<'a>(
    named: Option<&'a Place>,
    side: Side,
    env: Env<'_>,
) -> (Option<&'a Place>, Option<&'a Place>) {
    let has_default = env(&side.variable("URL")).is_some();
    match named.is_some_and(|place| has_default && !place.is_server()) {
        true => (None, named),
        false => (named, None),
    }
}

impl SelectArgs {
    /// The selection; `url_db` is the database in a source's URL, which `--db` overrules.
    pub fn selection(&self, url_db: Option<u32>) -> Selection {
        let globs = |patterns: &[OsString]| {
            patterns
                .iter()
                .map(|pattern| Glob::new(pattern.as_bytes()))
                .collect()
        };
        let dbs = match (self.db.as_slice(), url_db) {
            ([], Some(db)) => vec![db],
            (dbs, _) => dbs.to_vec(),
        };
        Selection {
            dbs,
            only_keys: Vec::new(),
            matches: globs(&self.matches),
            excludes: globs(&self.excludes),
            types: self.types.clone(),
            min_size_bytes: self.min_size,
            max_size_bytes: self.max_size,
            with_ttl: self.with_ttl,
            without_ttl: self.without_ttl,
            min_ttl_ms: self.min_ttl,
            max_ttl_ms: self.max_ttl,
            ..Selection::default()
        }
    }
}

impl WriteArgs {
    /// What becomes of keys that stand there already.
    pub fn on_conflict(&self) -> OnConflict {
        if self.replace {
            OnConflict::Replace
        } else {
            self.on_conflict
        }
    }

    /// How records change. `now_ms` is the destination's clock.
    ///
    /// # Errors
    /// [`Usage`] for a database in the URL together with `--map-db`.
    pub fn rewrite(&self, destination: &ConnectOptions, now_ms: u64) -> Result<Rewrite> {
        let renamed = renaming(
            &self.map_db,
            &self.strip_prefix,
            &self.add_prefix,
            destination.db,
            "DEST",
        )?;
        Ok(Rewrite {
            ttl: match self.ttl {
                TtlPolicy::Keep => TtlIntent::Keep,
                TtlPolicy::Drop => TtlIntent::Drop,
                TtlPolicy::Rebase => TtlIntent::Rebase {
                    base_now_ms: now_ms,
                },
            },
            ..renamed
        })
    }
}

/// How databases and names change; `url_db` is the database in the URL of `argument`.
pub(crate) fn renaming(
    map_db: &[(Option<u32>, u32)],
    strip_prefix: &Option<OsString>,
    add_prefix: &Option<OsString>,
    url_db: Option<u32>,
    argument: &str,
) -> Result<Rewrite> {
    let mut dbs = DbMap::default();
    for (from, to) in map_db {
        match from {
            Some(from) => match dbs.pairs.iter().find(|(known, _)| known == from) {
                Some((_, other)) if other != to => {
                    return Err(usage(format!(
                        "--map-db sends database {from} to both {other} and {to}; choose one"
                    )));
                }
                _ => dbs.pairs.push((*from, *to)),
            },
            None => match dbs.rest.replace(*to) {
                Some(other) if other != *to => {
                    return Err(usage(format!(
                        "--map-db sends all others to both {other} and {to}; choose one"
                    )));
                }
                _ => {}
            },
        }
    }
    if let Some(db) = url_db {
        if !map_db.is_empty() {
            return Err(usage(format!(
                "{argument}'s URL names database {db} and --map-db is given too; use one of them"
            )));
        }
        dbs = DbMap::only_into(db);
    }
    let bytes = |text: &Option<OsString>| {
        text.as_ref()
            .map(|text| text.as_bytes().to_vec())
            .unwrap_or_default()
    };
    let add_prefix = bytes(add_prefix);
    if add_prefix.starts_with(TEMP_KEY_PREFIX) {
        return Err(usage(format!(
            "--add-prefix {} would make the keys look like temporary keys of this tool, which no \
             verb reads; choose another prefix",
            show_key(&add_prefix)
        )));
    }
    Ok(Rewrite {
        dbs,
        strip_prefix: bytes(strip_prefix),
        add_prefix,
        ttl: TtlIntent::Keep,
    })
}
