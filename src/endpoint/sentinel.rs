//! Servers that are found by their sentinels: `redis-sentinel://h1:26379,h2/mymaster/0`.
//!
//! What the URL's userinfo says is for the data servers; sentinels have credentials of their own
//! ([`SentinelLogin`]), because they are often open where the servers are not.

use std::fmt;

use super::nodes::NodeAddress;
use super::{
    Query, Secret, ServerAddress, Transport, UrlUser, decode_text, encoding_hint, one_db, parse_db,
    usage,
};
use crate::exit::Usage;

/// Port where the URL names none for a sentinel.
pub const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// Who knows where the primary is, and what they call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// The sentinels, in the order in which they are asked; at least one.
    pub nodes: Vec<NodeAddress>,
    /// The name under which they watch the primary.
    pub primary: String,
    /// Whether TLS is spoken: with the sentinels, and with the servers they name.
    pub tls: bool,
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls {
            "rediss-sentinel://"
        } else {
            "redis-sentinel://"
        })?;
        for (number, node) in self.nodes.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{}", node.to_string().escape_debug())?;
        }
        write!(f, "/{}", self.primary.escape_debug())
    }
}

/// Who we are to the sentinels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentinelLogin {
    /// User name; `None` for the default user.
    pub username: Option<String>,
    /// Password; `None` for sentinels without.
    pub password: Option<Secret>,
}

/// Reads what stands behind `redis-sentinel://`.
pub(super) fn parse(rest: &str, tls: bool) -> Result<ServerAddress, Usage> {
    let scheme = if tls {
        "rediss-sentinel"
    } else {
        "redis-sentinel"
    };
    if rest.contains('#') {
        return usage(format!(
            "the {scheme}:// URL has a '#' in it; the primary's name is the first part of the \
             path, {scheme}://host:port,host:port/name/0{}",
            encoding_hint(rest)
        ));
    }
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let mut query = Query::parse(query)?;
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (UrlUser::parse(user)?, hosts),
        None => (query.take_user(), authority),
    };
    let nodes = hosts
        .split(',')
        .map(|host| sentinel(host, scheme, rest))
        .collect::<Result<Vec<_>, _>>()?;
    // Likelier a password with a slash in it than a name with an at sign.
    if path.contains('@') {
        return usage(format!(
            "the {scheme}:// URL has an '@' after its first '/'{}",
            encoding_hint(rest)
        ));
    }
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    let primary = decode_text(name, "primary's name")?;
    if primary.is_empty() {
        return usage(format!(
            "the {scheme}:// URL does not say which primary; its name is the first part of the \
             path: {scheme}://host:port,host:port/name"
        ));
    }
    let path_db = match db.trim_end_matches('/') {
        "" => None,
        text => Some(parse_db(text, rest)?),
    };
    Ok(ServerAddress {
        transport: Transport::Sentinel(Sentinels {
            nodes,
            primary,
            tls,
        }),
        user,
        db: one_db(path_db, query.db)?,
    })
}

/// One of the hosts: `name`, `name:port`, `[v6]` or `[v6]:port`.
fn sentinel(text: &str, scheme: &str, url: &str) -> Result<NodeAddress, Usage> {
    let refused = || {
        Usage(format!(
            "the {scheme}:// URL has a sentinel that is not host or host:port{}",
            encoding_hint(url)
        ))
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(refused)?;
            (host.to_owned(), port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            (decode_text(&text[..at], "host name")?, &text[at..])
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|&port| port != 0),
        None if port.is_empty() => Some(DEFAULT_SENTINEL_PORT),
        None => None,
    };
    match port {
        Some(port) if !host.is_empty() => Ok(NodeAddress { host, port }),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ServerAddress {
        ServerAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn sentinels_a_name_and_a_database() {
        let address = parse("redis-sentinel://u:p%40@h1:1,h2,[::1],[::2]:5/my%20master/3");
        let Transport::Sentinel(sentinels) = &address.transport else {
            panic!("{address:?}")
        };
        let nodes: Vec<String> = sentinels.nodes.iter().map(ToString::to_string).collect();
        assert_eq!(nodes, ["h1:1", "h2:26379", "[::1]:26379", "[::2]:5"]);
        assert_eq!(sentinels.primary, "my master");
        assert!(!sentinels.tls);
        assert_eq!(address.db, Some(3));
        assert_eq!(
            address.user,
            UrlUser::Pair("u".to_owned(), Secret::new("p@"))
        );
        assert_eq!(
            address.to_string(),
            "redis-sentinel://h1:1,h2:26379,[::1]:26379,[::2]:5/my master/3"
        );
        let tls = parse("REDISS-SENTINEL://h/m?db=2&user=a&pass=b");
        assert_eq!(tls.db, Some(2));
        assert_eq!(tls.user, UrlUser::Pair("a".to_owned(), Secret::new("b")));
        assert_eq!(tls.to_string(), "rediss-sentinel://h:26379/m/2");
        for text in ["redis-sentinel://h/m", "redis-sentinel://h/m/"] {
            assert_eq!(parse(text).db, None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for (text, part) in [
            ("redis-sentinel://h1,h2", "which primary"),
            ("redis-sentinel://h1,h2/", "which primary"),
            ("redis-sentinel:///m", "not host"),
            ("redis-sentinel://h1,,h2/m", "not host"),
            ("redis-sentinel://:s3cret@h:0/m", "not host"),
            ("redis-sentinel://:s3cret@h:x/m", "not host"),
            ("redis-sentinel://:s3cret@[::1/m", "not host"),
            ("redis-sentinel://:s3cret@[::1]1/m", "not host"),
            ("redis-sentinel://:s3cret@h/0#m", "first part of the path"),
            ("redis-sentinel://u:1/s3cret@h/m", "percent-encoded"),
            ("redis-sentinel://h/m/x", "not a number"),
            ("redis-sentinel://h/m/1/2", "not a number"),
            ("redis-sentinel://h/m/1?db=2", "two databases"),
        ] {
            let Usage(message) = ServerAddress::parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}
