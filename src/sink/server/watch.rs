//! Whether a destination is what it was: a key may go from the source (`--delete-source`) only while
//! it stays at the other end, and what was read there (`--verify`) proves something only as long.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::endpoint::{ConnectOptions, Transport};
use crate::exit::Interrupted;
use crate::host;
use crate::server::cluster::{Topology, options_for};
use crate::server::counts::CommandCounts;
use crate::server::facts::Facts;
use crate::server::reconnect::Retries;
use crate::server::sentinel::{self, Standing};
use crate::server::{Conn, ServerError};
use crate::sink::server::unfit::Unfit;
use crate::stop::Stop;

/// How often sentinels are asked whom they name, at most.
const SENTINELS_EVERY: Duration = Duration::from_millis(250);

/// What a destination is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It has to be a place where keys stay. The sink is still at work: what another process or
    /// another primary lacks, it writes again.
    Deleting,
    /// Nobody writes any more: what another process lacks, it lacks.
    Verifying,
}

/// Watches the destination by connections of its own, one to each server that takes writes. As long
/// as a connection stands, so does the process that it was made to.
pub(crate) struct Watch {
    nodes: Vec<Watched>,
    stop: Stop,
}

impl Watch {
    /// Begins to watch a server, or the primaries of a cluster.
    ///
    /// # Errors
    /// The connections, and a cluster that does not tell its nodes.
    pub(crate) fn begin(
        to: &ConnectOptions,
        purpose: Purpose,
        stop: &Stop,
    ) -> Result<Self, ServerError> {
        let mut first = Watched::open(to, purpose, stop)?;
        let nodes = match first.of_cluster {
            false => vec![first],
            true => Topology::ask(&mut first.conn)?
                .shards
                .iter()
                .map(|shard| Watched::open(&options_for(to, &shard.primary), purpose, stop))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            nodes,
            stop: stop.clone(),
        })
    }

    /// What is wrong with the destination by now, in words that follow its name; `None` if it is what
    /// it was, and fit.
    ///
    /// # Errors
    /// The connection, and interruption.
    pub(crate) fn look(&mut self) -> Result<Option<String>> {
        for node in &mut self.nodes {
            if let Some(wrong) = node.look(&self.stop)? {
                return Ok(Some(wrong));
            }
        }
        // What such a node may have lost is the sink's to find out, which knows who took its place.
        self.nodes.retain(|node| !node.is_gone);
        Ok(None)
    }
}

/// One server that is watched.
struct Watched {
    conn: Conn,
    to: ConnectOptions,
    purpose: Purpose,
    retries: Retries,
    run_id: Option<String>,
    /// Where the server tells how often databases were emptied.
    counts: Option<CommandCounts>,
    of_cluster: bool,
    is_replica: Option<bool>,
    /// The connection is a new one: who answers is not known yet.
    is_new: bool,
    /// When the sentinels were asked last.
    named: Option<Instant>,
    /// The node of a cluster no longer answers.
    is_gone: bool,
}

impl Watched {
    fn open(to: &ConnectOptions, purpose: Purpose, stop: &Stop) -> Result<Self, ServerError> {
        let mut conn = Conn::open(to)?;
        conn.heed(to, &stop.flag());
        conn.doing("watching the destination");
        let facts = Facts::ask(&mut conn)?;
        let counts = CommandCounts::ask(&mut conn)?;
        // From here on another connection does not go unnoticed.
        conn.pin();
        Ok(Self {
            conn,
            to: to.clone(),
            purpose,
            retries: Retries::new(to),
            is_replica: facts.role_is_replica(),
            run_id: facts.run_id,
            counts,
            of_cluster: facts.cluster,
            is_new: false,
            named: None,
            is_gone: false,
        })
    }

    fn look(&mut self, stop: &Stop) -> Result<Option<String>> {
        loop {
            let lost = match self.ask() {
                // One that its sentinels have replaced still answers for a while. What it has taken
                // the sink gives to the one that they name.
                Ok((facts, counts)) => match self.replaced_by() {
                    Some(by) => sentinel::replaced(&self.conn, &by),
                    None => {
                        self.retries.succeeded();
                        return Ok(self.judge(&facts, counts));
                    }
                },
                Err(error @ ServerError::Protocol { .. }) => self.conn.spoilt(error.to_string()),
                Err(error) => error,
            };
            if self.of_cluster && self.purpose == Purpose::Deleting {
                self.is_gone = true;
                return Ok(None);
            }
            let is_set = || stop.is_set();
            self.conn = match self.retries.connect(&self.to, lost, &is_set) {
                Err(_) if is_set() => return Err(Interrupted.into()),
                connected => connected?,
            };
            self.conn.heed(&self.to, &stop.flag());
            self.conn.doing("watching the destination");
            self.is_new = true;
        }
    }

    /// Whom its sentinels name in its place; asked now and then.
    fn replaced_by(&mut self) -> Option<String> {
        let is_known = |at: Instant| host::elapsed(at) < SENTINELS_EVERY;
        if self.named.is_some_and(is_known) {
            return None;
        }
        self.named = Some(host::now());
        match sentinel::standing(&self.conn, &self.to)? {
            Standing::Replaced(by) => Some(by),
            _ => None,
        }
    }

    fn ask(&mut self) -> Result<(Facts, Option<CommandCounts>), ServerError> {
        let mut facts = Facts::ask(&mut self.conn)?;
        if self.purpose == Purpose::Deleting {
            facts.learn_eviction(&mut self.conn)?;
        }
        let counts = match self.counts {
            Some(_) => CommandCounts::ask(&mut self.conn)?,
            None => None,
        };
        self.conn.pin();
        Ok((facts, counts))
    }

    fn judge(&mut self, facts: &Facts, counts: Option<CommandCounts>) -> Option<String> {
        // Sentinels put another process in the place of one that dies, and the sink gives that what
        // it may lack.
        let is_watched =
            matches!(self.to.address, Transport::Sentinel(_)) && self.purpose == Purpose::Deleting;
        match (&self.run_id, &facts.run_id) {
            (Some(before), Some(now)) if before != now => {
                if !is_watched {
                    return Some("was restarted or replaced during this run".to_owned());
                }
                // Another process has counts of its own.
                self.run_id.clone_from(&facts.run_id);
                self.counts.clone_from(&counts);
            }
            (Some(_), Some(_)) => {}
            _ if self.is_new && !is_watched => {
                return Some(
                    "was reconnected to, and does not say whether it is still the same process \
                     (INFO run_id)"
                        .to_owned(),
                );
            }
            _ => {}
        }
        self.is_new = false;
        if let (Some(before), Some(now)) = (&self.counts, &counts) {
            match now.upheavals_since(before) {
                Some(0) => {}
                Some(_) => {
                    return Some(
                        "had databases emptied or swapped during this run (FLUSHALL, FLUSHDB, \
                         SWAPDB)"
                            .to_owned(),
                    );
                }
                None => {
                    return Some(
                        "had its statistics reset during this run (CONFIG RESETSTAT), and with them \
                         the count of databases that were emptied"
                            .to_owned(),
                    );
                }
            }
        }
        match self.purpose {
            Purpose::Deleting => Unfit::of(facts).map(|unfit| unfit.now()),
            // It takes over what its primary has, and drops the rest.
            Purpose::Verifying => (self.is_replica != facts.role_is_replica())
                .then(|| "became a replica, or ceased to be one, during this run".to_owned()),
        }
    }
}
