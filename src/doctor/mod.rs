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

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use self::access::{Access, Rights};
use self::acl::has_database_rules;
use self::layout::{Layout, served_here};
use self::needs::Needs;
use self::server::{Leftovers, ServerLimits, Told};
use crate::endpoint::{ConnectOptions, Transport};
use crate::observer::{Observer, Recording};
use crate::outside::OutsideKeys;
use crate::policy::{AllowLoss, Method};
use crate::server::Conn;
use crate::server::conn::asks_for_patience;
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::sink::server::commands::Features;
use crate::sink::server::gate::closed_databases;
use crate::sink::server::prepare::Target;
use crate::sink::server::refusal::{Outlook, is_about_database};

/// Everything that was found out.
#[derive(Debug)]
pub struct Findings {
    /// Where; holds no password.
    pub address: String,
    /// Its URL, where that names sentinels who say where it is.
    pub sentinels: Option<String>,
    /// What the server says of itself.
    pub facts: Facts,
    pub layout: Layout,
    /// Its clock minus ours, ms; `None` where TIME is refused.
    pub clock_offset_ms: Option<i64>,
    /// Databases with keys.
    pub databases: Told<Vec<Keyspace>>,
    /// Databases that were tried, whether they have keys or not.
    pub tried: Vec<u32>,
    /// Those of them that this user may not enter, and why not.
    pub closed: BTreeMap<u32, String>,
    pub limits: ServerLimits,
    /// Names of loaded modules.
    pub modules: Told<Vec<String>>,
    pub features: Features,
    pub rights: Rights,
    pub target: Target,
    /// What was said while that was learnt.
    pub notes: Vec<String>,
    pub leftovers: Leftovers,
    /// What an archive needs here, if one was given: its name, and that.
    pub archive: Option<(String, Needs)>,
}

/// Shown in place of what a server that answers "not now" in these words does not tell:
/// `not known: the server answers BUSY`.
pub fn not_known(words: &str) -> String {
    let code = words.split(' ').next().unwrap_or_default();
    format!("not known: the server answers {code}")
}

impl Findings {
    /// The words in which the server answered "not now" to any question. The report is not complete
    /// then.
    pub fn later(&self) -> Option<&str> {
        (self.rights.any_later())
            .or(self.limits.later.as_deref())
            .or(self.leftovers.later.as_deref())
            .or(self.layout.later())
            .or(self.databases.later())
            .or(self.modules.later())
    }

    /// Why it is not known what it accepts: the server's words, where it answers "not now" to what
    /// is tried.
    pub fn accepts_later(&self) -> Option<&str> {
        match self.target.probed {
            true => None,
            false => self.rights.later(&["RESTORE"]),
        }
    }

    /// Whether an import would write by native commands.
    pub fn goes_by_commands(&self) -> bool {
        match self.rights.of("RESTORE") {
            Access::Absent => true,
            access => access
                .reason()
                .is_some_and(|text| Outlook::of(text, Method::Auto) == Outlook::ByCommands),
        }
    }

    /// Databases that were tried and may be entered.
    pub fn open(&self) -> Vec<u32> {
        let is_open = |db: &&u32| !self.closed.contains_key(db);
        self.tried.iter().filter(is_open).copied().collect()
    }
}

/// Which databases this user may not enter, and why: those with keys, and on servers whose users
/// have databases of their own all others, too. The databases that were tried come first.
fn closed(
    options: &ConnectOptions,
    facts: &Facts,
    limits: &ServerLimits,
    rows: &[Keyspace],
) -> (Vec<u32>, BTreeMap<u32, String>) {
    /// What a server has that is not configured otherwise, and what is tried at most.
    const DEFAULT: u64 = 16;
    const MOST: u64 = 1024;
    let mut tried: BTreeSet<u32> = rows.iter().map(|row| row.db).collect();
    if facts.cluster {
        return (Vec::new(), BTreeMap::new());
    }
    if has_database_rules(facts) {
        let count = limits.databases.unwrap_or(DEFAULT).min(MOST);
        tried.extend((0..).take(count as usize));
    }
    let tried: Vec<u32> = tried.into_iter().collect();
    let closed = closed_databases(options, &tried);
    let (known, others): (Vec<u32>, Vec<u32>) = tried.into_iter().partition(|db| {
        let why = closed.get(db);
        why.is_none_or(|why| !asks_for_patience(why) && (is_about_database(why) || has(rows, *db)))
    });
    let closed = closed.into_iter();
    (
        known,
        closed.filter(|(db, _)| !others.contains(db)).collect(),
    )
}

fn has(rows: &[Keyspace], db: u32) -> bool {
    rows.iter().any(|row| row.db == db)
}

/// Asks the server that `options` lead to; in a cluster also the primaries of all shards. `like`
/// begins the names on which writing is tried, for users who may write only such.
///
/// # Errors
/// The connections.
pub fn examine(conn: &mut Conn, options: &ConnectOptions, like: &[u8]) -> Result<Findings> {
    conn.doing("asking the server what it is");
    let mut facts = Facts::ask(conn)?;
    let clock = ServerClock::ask(conn)?;
    let clock_offset_ms = clock.is_servers.then(|| {
        let (theirs, ours) = (clock.now_ms(), crate::host::unix_ms());
        theirs.cast_signed() - ours.cast_signed()
    });
    let limits = ServerLimits::ask(conn)?;
    let modules = server::modules(conn)?;
    let features = Features::ask(conn, &facts)?;
    let rights = Rights::learn(conn, || Conn::open(options), facts.cluster, &features)?;
    if !facts.info && rights.can("INFO") {
        // It could not answer at first.
        facts = Facts::ask(conn)?;
    }
    let databases = server::databases(conn, &facts)?;
    let mut leftovers = Leftovers::find(conn, &databases)?;
    let (tried, closed) = match &databases {
        Told::Known(rows) => closed(options, &facts, &limits, rows),
        Told::Refused(_) => closed(options, &facts, &limits, &[]),
        Told::Later(_) => Default::default(),
    };
    let layout = Layout::ask(conn, &facts, options, &mut leftovers)?;
    let like = served_here(conn, &layout, like)?;
    let recording = Recording::default();
    let observer = Observer::new(Box::new(recording.clone()), None, None);
    let target = Target::learn(conn, &facts, &like, AllowLoss::default(), false, &observer)?;
    let mut notes = recording.lines();
    if let Told::Known(loaded) = &modules
        && !loaded.is_empty()
    {
        notes.extend(OutsideKeys::ask(options, Some(loaded.clone()), facts.cluster).lines());
    }
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
        tried,
        closed,
        limits,
        modules,
        features,
        rights,
        target,
        notes,
        leftovers,
        archive: None,
    })
}
