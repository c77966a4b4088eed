//! Finds a primary through its sentinels, anew for each connection, so that reconnecting after a
//! failover leads to the new primary.
//!
//! During a failover the sentinels still name the server that is gone, or one that is not a primary
//! yet; so they are asked again until the connect timeout.

mod answers;

use std::net::ToSocketAddrs;
use std::time::Duration;

pub use self::answers::Standing;
use self::answers::{Answer, Search, judge};
use super::facts::info;
use super::{Conn, ServerError};
use crate::endpoint::{
    ConnectOptions, NodeAddress, NodeMap, SentinelLogin, Sentinels, Shunned, TlsOptions, Transport,
};
use crate::host;
use crate::server::reply::{Reply, cmd, from_reply};

/// How long to wait before the sentinels are asked again.
const STEP: Duration = Duration::from_millis(250);

/// The least time that each sentinel has to answer.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long all of them together may take to name the primary again.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// How long sentinels may take to agree. They tell each other every two seconds.
pub const AGREE_WITHIN: Duration = Duration::from_secs(10);

/// Whether the sentinels still name the server of `conn`. In a planned failover the old primary goes
/// on answering, and takes writes, for about ten seconds after they named the next one; nothing on
/// its own connection shows that. `None` if no sentinels named it.
pub fn standing(conn: &Conn, options: &ConnectOptions) -> Option<Standing> {
    let Transport::Sentinel(sentinels) = &options.address else {
        return None;
    };
    let node = conn.found_at()?;
    let options = ConnectOptions {
        connect_timeout: options.connect_timeout.min(LOOK_PATIENCE),
        ..options.clone()
    };
    let answers = sentinels.nodes.iter().map(|sentinel| {
        let answer = ask(sentinel, sentinels, &options);
        (sentinel.clone(), answer)
    });
    Some(judge(answers, |named| is_at(conn, node, named, &options)))
}

/// Whether `named` is the server of `conn`, which was found at `node`. One server may have several
/// names.
fn is_at(conn: &Conn, node: &NodeAddress, named: &NodeAddress, options: &ConnectOptions) -> bool {
    if named == node {
        return true;
    }
    let Some(peer) = conn.peer() else {
        return false;
    };
    let there = options.node_map.reach(named);
    let found = (there.host.as_str(), there.port).to_socket_addrs();
    found.is_ok_and(|mut found| found.any(|at| at == peer))
}

/// The error of a connection to a server that the sentinels have replaced with `by`.
pub fn replaced(conn: &Conn, by: &str) -> ServerError {
    conn.spoilt(format!(
        "the sentinels name another primary now, {by} (a failover)"
    ))
}

/// Connects to the primary that `sentinels` name.
///
/// # Errors
/// [`ServerError::Connect`] where no sentinel answers, none knows the name, or no primary is found
/// within [`ConnectOptions::connect_timeout`]; [`ServerError::Auth`].
pub fn open(sentinels: &Sentinels, options: &ConnectOptions) -> Result<Conn, ServerError> {
    let deadline = host::now() + options.connect_timeout;
    loop {
        let node = locate(sentinels, options)?;
        let error = match connect(&node, sentinels, options) {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        if !error.is_passing() || host::now() + STEP >= deadline {
            return Err(error);
        }
        host::sleep(STEP);
    }
}

/// Asks one sentinel after the other; the first that knows the name decides.
fn locate(sentinels: &Sentinels, options: &ConnectOptions) -> Result<NodeAddress, ServerError> {
    let mut search = Search::default();
    for sentinel in &sentinels.nodes {
        let answer = ask(sentinel, sentinels, options);
        if let Some(node) = search.on(sentinel, answer) {
            return Ok(node);
        }
    }
    Err(search.failed(sentinels))
}

/// Asks one sentinel where the primary is.
fn ask(sentinel: &NodeAddress, sentinels: &Sentinels, options: &ConnectOptions) -> Answer {
    match try_to_ask(sentinel, sentinels, options) {
        Ok(answer) => answer,
        Err(error @ ServerError::Auth { .. }) => Answer::Forbidden(error),
        Err(
            ServerError::Connect { reason, .. }
            | ServerError::Lost { reason, .. }
            | ServerError::Protocol { reason, .. }
            | ServerError::Refused { reason, .. }
            | ServerError::Reply { reason, .. },
        ) => Answer::Silent(reason),
    }
}

fn try_to_ask(
    sentinel: &NodeAddress,
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Answer, ServerError> {
    let mut conn = connect_sentinel(sentinel, sentinels, options)?;
    conn.doing("asking where the primary is");
    let mut question = cmd("SENTINEL");
    question
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(&sentinels.primary);
    let answer = match conn.try_query(&question)? {
        Ok(answer) => answer,
        Err(text) if text.starts_with("NOPERM") => {
            return Err(ServerError::Auth {
                address: conn.address().to_owned(),
                reason: text,
            });
        }
        Err(text) if super::conn::is_forbidden(&text) => {
            return Err(conn.confused(format!("it is not a sentinel ({text})")));
        }
        Err(text) => return Err(conn.confused(text)),
    };
    match from_reply::<Option<(String, u16)>>(answer) {
        Ok(Some((host, port))) => Ok(Answer::Primary(NodeAddress { host, port })),
        Ok(None) => Ok(Answer::Unknown(watched(&mut conn)?)),
        Err(_) => Err(conn.confused("it gives an address that is not valid")),
    }
}

/// Connects to a sentinel, with credentials of its own.
fn connect_sentinel(
    sentinel: &NodeAddress,
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Conn, ServerError> {
    // A sentinel that does not answer must leave time for the others.
    let count = u32::try_from(sentinels.nodes.len()).unwrap_or(u32::MAX);
    let patience = (options.connect_timeout / count.max(1)).max(LEAST_PATIENCE);
    let SentinelLogin { username, password } = options.sentinel.clone();
    let there = ConnectOptions {
        username,
        password,
        db: None,
        // The name in --sni is that of the data servers.
        tls: TlsOptions {
            sni: None,
            ..options.tls.clone()
        },
        timeout: patience,
        connect_timeout: patience,
        retry_for: patience.min(options.retry_for),
        node_map: NodeMap::default(),
        shunned: Shunned::default(),
        ..options_at(options, sentinel, sentinels.tls)
    };
    let name = format!("the sentinel {}", there.address);
    Conn::open_as(&there, name).map_err(|error| match error {
        ServerError::Auth { address, reason } => ServerError::Auth {
            address,
            reason: format!(
                "{reason} (sentinels have credentials of their own: --sentinel-user and \
                 --sentinel-password-file, or SOURCE_REDIS_SENTINEL_PASSWORD and \
                 DESTINATION_REDIS_SENTINEL_PASSWORD)"
            ),
        },
        other => other,
    })
}

/// The names that a sentinel knows, for the message.
fn watched(conn: &mut Conn) -> Result<Vec<String>, ServerError> {
    let Ok(Reply::Array(rows)) = conn.try_query(cmd("SENTINEL").arg("MASTERS"))? else {
        return Ok(Vec::new());
    };
    let name = |row: Reply| {
        let pairs: Vec<String> = from_reply(row).ok()?;
        let mut pairs = pairs.chunks_exact(2);
        pairs.find_map(|pair| (pair[0] == "name").then(|| pair[1].clone()))
    };
    Ok(rows.into_iter().filter_map(name).collect())
}

/// Connects to the server that was named, and checks that it is a primary, as far as it tells.
fn connect(
    node: &NodeAddress,
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Conn, ServerError> {
    let there = options_at(options, options.node_map.reach(node), sentinels.tls);
    let name = format!(
        "{} (primary of {})",
        there.address,
        sentinels.primary.escape_debug()
    );
    let mut conn = Conn::open_as(&there, name)?;
    if is_replica(&mut conn)? {
        return Err(ServerError::Connect {
            address: conn.address().to_owned(),
            reason: "the sentinels name it, but it is a replica; a failover may be under way"
                .to_owned(),
        });
    }
    conn.set_found_at(node);
    Ok(conn)
}

/// By INFO, or by ROLE where INFO is refused; where both are refused, the sentinels are believed.
fn is_replica(conn: &mut Conn) -> Result<bool, ServerError> {
    if let Some(text) = info(conn, Some("replication"))?
        && let Some(role) = text.lines().find_map(|line| line.strip_prefix("role:"))
    {
        return Ok(role.trim() == "slave");
    }
    let Ok(Reply::Array(parts)) = conn.ask(&cmd("ROLE"))? else {
        return Ok(false);
    };
    let role = parts
        .into_iter()
        .next()
        .and_then(|role| from_reply::<String>(role).ok());
    Ok(role.as_deref() == Some("slave"))
}

fn options_at(options: &ConnectOptions, node: &NodeAddress, tls: bool) -> ConnectOptions {
    let NodeAddress { host, port } = node.clone();
    ConnectOptions {
        address: match tls {
            true => Transport::Tls { host, port },
            false => Transport::Tcp { host, port },
        },
        ..options.clone()
    }
}
