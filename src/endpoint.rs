//! A server, as its URL names it, and what it takes to connect to it.
//!
//! Nothing here reads the environment or opens anything. A password is a [`Secret`], which no
//! formatting shows, and no message quotes the URL it failed on, because the part that is wrong
//! is often the password.

mod nodes;
mod sentinel;
mod shunned;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

pub use self::nodes::{NodeAddress, NodeMap, parse_node_map};
pub use self::sentinel::{DEFAULT_SENTINEL_PORT, SentinelLogin, Sentinels};
pub use self::shunned::Shunned;
use crate::exit::Usage;

/// Port where a URL names none.
pub const DEFAULT_PORT: u16 = 6379;

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Hides `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that sends them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// TLS over TCP.
    Tls {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix domain socket.
    Unix {
        /// Its path.
        path: PathBuf,
    },
    /// Wherever the sentinels say that the primary is when one connects.
    Sentinel(Sentinels),
}

impl Transport {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        match self {
            Transport::Tls { .. } => true,
            Transport::Sentinel(sentinels) => sentinels.tls,
            Transport::Tcp { .. } | Transport::Unix { .. } => false,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Transport::Tcp { host, port } => ("redis", host, port),
            Transport::Tls { host, port } => ("rediss", host, port),
            Transport::Unix { path } => {
                let path = path.to_string_lossy();
                return write!(f, "unix://{}", path.escape_debug());
            }
            Transport::Sentinel(sentinels) => return sentinels.fmt(f),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{}:{port}", host.escape_debug())
        }
    }
}

/// A server, as its URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where.
    pub transport: Transport,
    /// Who, if the URL says.
    pub user: UrlUser,
    /// The database that the URL selects; `Some(0)` for `/0`.
    pub db: Option<u32>,
}

/// The part of a URL before the `@`.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum UrlUser {
    /// There is none.
    #[default]
    None,
    /// `name@`: the user name if the password comes from elsewhere, else, as in redis-cli, the
    /// password.
    Bare(Secret),
    /// `name:password@`, either of them possibly empty.
    Pair(String, Secret),
}

impl fmt::Debug for UrlUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlUser::None => f.write_str("None"),
            UrlUser::Bare(_) => f.write_str("Bare(***)"),
            UrlUser::Pair(name, _) => write!(f, "Pair({name:?}, ***)"),
        }
    }
}

/// Without user and password.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.transport)?;
        match (&self.transport, self.db) {
            (_, None) => Ok(()),
            (Transport::Unix { .. }, Some(db)) => write!(f, "?db={db}"),
            (_, Some(db)) => write!(f, "/{db}"),
        }
    }
}

/// TLS settings, named as in redis-cli.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Accept any certificate.
    pub insecure: bool,
    /// Trust the certificates of this PEM file instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Trust the certificates of this directory instead of the system's.
    pub ca_dir: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Server name to ask for and to verify, instead of the host.
    pub sni: Option<String>,
}

/// Everything that a connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Where.
    pub address: Transport,
    /// User name; `None` for the default user.
    pub username: Option<String>,
    /// Password; `None` for a server without.
    pub password: Option<Secret>,
    /// The one database that was named, in the URL or by `--db`.
    pub db: Option<u32>,
    /// TLS settings; used where the address has TLS.
    pub tls: TlsOptions,
    /// Who we are to sentinels; used with [`Transport::Sentinel`] only.
    pub sentinel: SentinelLogin,
    /// How long a server may stay silent when an answer is due.
    pub timeout: Duration,
    /// How long connecting may take, TLS handshake included.
    pub connect_timeout: Duration,
    /// How long a server is asked again that answers that it cannot just now (BUSY, LOADING,
    /// CLUSTERDOWN …); see [`crate::server::patience`].
    pub retry_for: Duration,
    /// How often in a row connecting is tried again after a connection was lost.
    pub retries: u32,
    /// Where the nodes of a cluster, or the servers that sentinels name, are reached, if not where
    /// they say.
    pub node_map: NodeMap,
    /// What was learnt about commands that end the connection.
    pub shunned: Shunned,
}

impl ConnectOptions {
    /// Default of [`ConnectOptions::timeout`].
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    /// Default of [`ConnectOptions::connect_timeout`].
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`ConnectOptions::retry_for`].
    pub const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(120);
    /// Default of [`ConnectOptions::retries`]: about half a minute.
    pub const DEFAULT_RETRIES: u32 = 8;

    /// Default settings for `address`, credentials as the URL has them.
    pub fn new(address: ServerAddress) -> Self {
        let (username, password) = match address.user {
            UrlUser::None => (None, None),
            UrlUser::Bare(word) => (None, Some(word)),
            UrlUser::Pair(name, password) => (
                Some(name).filter(|name| !name.is_empty()),
                Some(password).filter(|password| !password.is_empty()),
            ),
        };
        Self {
            address: address.transport,
            username,
            password,
            db: address.db,
            tls: TlsOptions::default(),
            sentinel: SentinelLogin::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            retry_for: Self::DEFAULT_RETRY_FOR,
            retries: Self::DEFAULT_RETRIES,
            node_map: NodeMap::default(),
            shunned: Shunned::default(),
        }
    }

    /// What must be said aloud of this connection.
    pub fn warnings(&self) -> Option<String> {
        self.tls.insecure.then(|| {
            format!(
                "--insecure: the certificate of {} is not verified; anybody in between can read \
                 and change everything",
                self.address
            )
        })
    }
}

impl ServerAddress {
    /// Reads the URL of a server.
    ///
    /// # Errors
    /// [`Usage`], with a sentence that never quotes the URL.
    pub fn parse(text: &str) -> Result<Self, Usage> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(without_scheme(text));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => Self::tcp(rest, false),
            "rediss" | "valkeys" => Self::tcp(rest, true),
            "unix" | "redis+unix" => Self::unix(rest),
            "redis-sentinel" | "valkey-sentinel" => sentinel::parse(rest, false),
            "rediss-sentinel" | "valkeys-sentinel" => sentinel::parse(rest, true),
            _ if is_scheme(scheme) => usage(format!(
                "unknown scheme {scheme}://; a server is redis://, rediss://, unix:// or \
                 redis-sentinel://"
            )),
            _ => usage(
                "this is not a URL; a server is redis://, rediss://, unix:// or redis-sentinel://",
            ),
        }
    }

    fn tcp(rest: &str, tls: bool) -> Result<Self, Usage> {
        let scheme = if tls { "rediss" } else { "redis" };
        // The scheme is written anew, so that every spelling of it parses by the same rules.
        let url = Url::parse(&format!("redis://{rest}")).map_err(|error| {
            Usage(format!(
                "the {scheme}:// URL cannot be read: {error}{}",
                encoding_hint(rest)
            ))
        })?;
        if url.fragment().is_some() {
            return usage(format!(
                "the {scheme}:// URL has a '#' in it{}",
                encoding_hint(rest)
            ));
        }
        let host = match url.host() {
            None => "127.0.0.1".to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Domain("")) => "127.0.0.1".to_owned(),
            Some(Host::Domain(name)) => decode_text(name, "host name")?,
        };
        let port = match url.port() {
            None => DEFAULT_PORT,
            Some(0) => return usage("port 0 is not a valid port"),
            Some(port) => port,
        };
        let mut query = Query::parse(url.query())?;
        let path_db = match url.path().trim_start_matches('/') {
            "" => None,
            text => Some(parse_db(text, rest)?),
        };
        let db = one_db(path_db, query.db)?;
        let raw_user = rest
            .split(['/', '?'])
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
            .map(|(user, _)| user);
        let user = match raw_user {
            Some(raw) => UrlUser::parse(raw)?,
            None => query.take_user(),
        };
        let transport = if tls {
            Transport::Tls { host, port }
        } else {
            Transport::Tcp { host, port }
        };
        Ok(Self {
            transport,
            user,
            db,
        })
    }

    fn unix(rest: &str) -> Result<Self, Usage> {
        let (before, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let Some(slash) = before.find('/') else {
            return usage("a unix:// URL needs an absolute path: unix:///run/redis.sock");
        };
        let (authority, path) = before.split_at(slash);
        let mut query = Query::parse(query)?;
        let user = match authority.rsplit_once('@') {
            Some((user, "" | "localhost")) => UrlUser::parse(user)?,
            None if matches!(authority, "" | "localhost") => query.take_user(),
            _ => {
                return usage(
                    "a unix:// URL has no host; write three slashes: unix:///run/redis.sock",
                );
            }
        };
        let path: Vec<u8> = percent_decode_str(path).collect();
        if path == b"/" {
            return usage("a unix:// URL needs the path of a socket: unix:///run/redis.sock");
        }
        Ok(Self {
            transport: Transport::Unix {
                path: path_of(path)?,
            },
            user,
            db: query.db,
        })
    }
}

impl std::str::FromStr for ServerAddress {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        Self::parse(text)
    }
}

impl UrlUser {
    /// Splits at the first colon, then decodes each side once.
    fn parse(raw: &str) -> Result<Self, Usage> {
        match raw.split_once(':') {
            None if raw.is_empty() => Ok(UrlUser::None),
            None => Ok(UrlUser::Bare(decode_secret(raw))),
            Some((name, password)) => Ok(UrlUser::Pair(
                decode_text(name, "user name")?,
                decode_secret(password),
            )),
        }
    }
}

/// What the query part of a URL may say.
#[derive(Default)]
struct Query {
    db: Option<u32>,
    user: Option<String>,
    password: Option<Secret>,
}

impl Query {
    fn parse(text: Option<&str>) -> Result<Self, Usage> {
        let mut query = Query::default();
        for pair in text
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "db" => query.db = Some(parse_db(value, value)?),
                "user" | "username" => query.user = Some(decode_text(value, "user name")?),
                "pass" | "password" => query.password = Some(decode_secret(value)),
                _ => {
                    return usage(format!(
                        "the URL has an unknown parameter after its '?'; the known ones are db, \
                         user and pass{}",
                        encoding_hint(pair)
                    ));
                }
            }
        }
        Ok(query)
    }

    fn take_user(&mut self) -> UrlUser {
        match (self.user.take(), self.password.take()) {
            (None, None) => UrlUser::None,
            (user, password) => UrlUser::Pair(
                user.unwrap_or_default(),
                password.unwrap_or_else(|| Secret::new("")),
            ),
        }
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, Usage> {
    Err(Usage(text.into()))
}

/// Whether somebody who writes this may mean a server and forgot the scheme.
pub fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn without_scheme(text: &str) -> Usage {
    if is_host_and_port(text) && !text.contains('@') {
        Usage(format!(
            "{} has no scheme; did you mean redis://{}? (rediss:// for TLS)",
            text.escape_debug(),
            text.escape_debug()
        ))
    } else {
        Usage(
            "write a server as a URL: redis://host:port, rediss://host:port (TLS), unix:///path or \
             redis-sentinel://host,host/name"
                .to_owned(),
        )
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn encoding_hint(text: &str) -> &'static str {
    if text.contains('@') {
        "; in a password, the characters # / ? @ : % must be percent-encoded, or give it without \
         any encoding in SOURCE_REDIS_PASSWORD or DESTINATION_REDIS_PASSWORD"
    } else {
        ""
    }
}

fn parse_db(text: &str, url: &str) -> Result<u32, Usage> {
    text.parse().map_err(|_| {
        Usage(format!(
            "the database in the URL is not a number{}",
            encoding_hint(url)
        ))
    })
}

fn one_db(path: Option<u32>, query: Option<u32>) -> Result<Option<u32>, Usage> {
    match (path, query) {
        (Some(a), Some(b)) if a != b => usage(format!("the URL names two databases, {a} and {b}")),
        (a, b) => Ok(a.or(b)),
    }
}

fn decode_text(raw: &str, what: &str) -> Result<String, Usage> {
    percent_decode_str(raw)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Usage(format!("the {what} in the URL is not UTF-8")))
}

fn decode_secret(raw: &str) -> Secret {
    Secret::new(percent_decode_str(raw).collect::<Vec<u8>>())
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Result<PathBuf, Usage> {
    use std::os::unix::ffi::OsStringExt;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Result<PathBuf, Usage> {
    String::from_utf8(bytes)
        .map(PathBuf::from)
        .map_err(|_| Usage("the path in the URL is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests;
