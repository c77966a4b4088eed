//! What a server is, what this user may do there, and what an export or import there can promise.
//! Nothing is written to it.
//!
//! [`examine`] asks, [`promise`] draws the conclusions, [`report`] puts them into words and JSON.

pub mod access;
pub mod acl;
pub mod keys;
pub mod layout;
pub mod needs;
pub mod probes;
pub mod promise;
pub mod report;
pub mod server;

use anyhow::Result;

use self::access::Rights;
use self::layout::{Layout, served_here};
use self::needs::Needs;
use self::server::{Leftovers, Limits};
use crate::endpoint::{ConnectOptions, Transport};
use crate::observer::{Observer, Recording};
use crate::policy::AllowLoss;
use crate::server::Conn;
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::sink::server::target::Target;

/// Everything that was found out.
#[derive(Debug)]
pub struct Findings {
    /// Where; holds no password.
    pub address: String,
    /// Its URL, where that names sentinels who say where it is.
    pub sentinels: Option<String>,
    /// What the server says of itself.
    pub facts: Facts,
    /// How it stands among others.
    pub layout: Layout,
    /// Its clock minus ours, ms; `None` where TIME is refused.
    pub clock_offset_ms: Option<i64>,
    /// Databases with keys; `None` where that could not be learnt.
    pub databases: Option<Vec<Keyspace>>,
    /// Limits.
    pub limits: Limits,
    /// Names of loaded modules; `None` where MODULE LIST is refused.
    pub modules: Option<Vec<String>>,
    /// Which commands may be used.
    pub rights: Rights,
    /// What it accepts.
    pub target: Target,
    /// What was said while that was learnt.
    pub notes: Vec<String>,
    /// Temporary keys of killed runs.
    pub leftovers: Leftovers,
    /// What an archive needs here, if one was given: its name, and that.
    pub archive: Option<(String, Needs)>,
}

/// Asks the server that `options` lead to; in a cluster also the primaries of all shards. `like`
/// begins the names on which writing is tried, for users who may write only such.
///
/// # Errors
/// The connections.
pub fn examine(conn: &mut Conn, options: &ConnectOptions, like: &[u8]) -> Result<Findings> {
    conn.doing("asking the server what it is");
    let facts = Facts::ask(conn)?;
    let clock = ServerClock::ask(conn)?;
    let clock_offset_ms = clock.is_servers.then(|| {
        let (theirs, ours) = (clock.now_ms(), crate::units::now_ms());
        theirs.cast_signed() - ours.cast_signed()
    });
    let limits = Limits::ask(conn)?;
    let modules = server::modules(conn)?;
    let rights = Rights::learn(conn, || Conn::open(options), facts.cluster)?;
    let databases = server::databases(conn, &facts)?;
    let mut leftovers = Leftovers::find(conn, databases.as_deref().unwrap_or_default())?;
    let layout = Layout::ask(conn, &facts, options, &mut leftovers)?;
    let like = served_here(conn, &layout, like)?;
    let recording = Recording::default();
    let observer = Observer::new(Box::new(recording.clone()), None, None);
    let target = Target::learn(conn, &facts, &like, AllowLoss::default(), false, &observer)?;
    Ok(Findings {
        address: conn.address().to_owned(),
        sentinels: match &options.address {
            address @ Transport::Sentinel(_) => Some(address.to_string()),
            _ => None,
        },
        facts,
        layout,
        clock_offset_ms,
        databases,
        limits,
        modules,
        rights,
        target,
        notes: recording.lines(),
        leftovers,
        archive: None,
    })
}
