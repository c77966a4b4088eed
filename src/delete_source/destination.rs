//! The other end of `copy --delete-source`: a key may go from the source only while the destination
//! is a place where it stays.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::endpoint::{ConnectOptions, Transport};
use crate::exit::{Interrupted, Usage};
use crate::host;
use crate::pipe::Stop;
use crate::server::cluster::{Topology, options_for};
use crate::server::counts::CommandCounts;
use crate::server::facts::Facts;
use crate::server::reconnect::Retries;
use crate::server::sentinel::{self, Standing};
use crate::server::{Conn, ServerError};

/// How often sentinels are asked whom they name, at most.
const SENTINELS_EVERY: Duration = Duration::from_millis(250);

/// Why a destination is no place to move keys to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its primary overwrites what it holds, and perhaps is the source itself.
    Replica,
    /// It does not say whether it is a replica.
    UnknownRole,
    /// It evicts keys by this policy.
    Evicts(String),
    /// It does not say whether it evicts keys.
    UnknownEviction,
}

impl Unfit {
    /// What speaks against a server that says this of itself; `None` if nothing does.
    pub fn of(facts: &Facts) -> Option<Self> {
        // A replica in a cluster sends writes to its primary.
        match facts.role_is_replica() {
            Some(true) if !facts.cluster => return Some(Self::Replica),
            None if !facts.cluster => return Some(Self::UnknownRole),
            _ => {}
        }
        match facts.evicts() {
            Some(true) => Some(Self::Evicts(facts.policy.clone().unwrap_or_default())),
            Some(false) => None,
            None => Some(Self::UnknownEviction),
        }
    }

    /// The refusal before anything is read.
    pub fn refusal(&self, address: &str) -> anyhow::Error {
        let refused = |reason: &str| ServerError::Refused {
            address: address.to_owned(),
            command: "INFO".to_owned(),
            reason: reason.to_owned(),
        };
        match self {
            Self::Replica => Usage(
                "--delete-source needs a destination that is a primary, and it is a replica: what is \
                 written there is lost when it next synchronizes with its primary, and keys that are \
                 deleted at its primary are deleted there too; name the primary; nothing was read"
                    .to_owned(),
            )
            .into(),
            Self::Evicts(policy) => Usage(format!(
                "with --delete-source a key that the destination evicts is gone from both ends, and \
                 it evicts keys when it is full (maxmemory-policy {policy}): set its \
                 maxmemory-policy to noeviction until the copy is done, or copy without \
                 --delete-source; nothing was read"
            ))
            .into(),
            Self::UnknownRole => anyhow::Error::new(refused("neither INFO nor ROLE tells the role"))
                .context(
                    "--delete-source needs to know whether the destination is a replica, which would \
                     lose what is written there: allow its user INFO or ROLE (+info or +role), or \
                     copy without --delete-source; nothing was read",
                ),
            Self::UnknownEviction => {
                anyhow::Error::new(refused("neither INFO nor CONFIG GET tells maxmemory-policy"))
                    .context(
                        "--delete-source needs to know whether the destination evicts keys, which \
                         would then be gone from both ends: allow its user INFO or CONFIG GET (+info \
                         or +config|get), or copy without --delete-source; nothing was read",
                    )
            }
        }
    }

    /// The same in the middle of a run.
    fn now(&self) -> String {
        match self {
            Self::Replica => "became a replica during this run".to_owned(),
            Self::UnknownRole => "does not say any more whether it is a replica".to_owned(),
            Self::Evicts(policy) => {
                format!("evicts keys when it is full by now (maxmemory-policy {policy})")
            }
            Self::UnknownEviction => "does not say any more whether it evicts keys".to_owned(),
        }
    }
}

/// Watches the destination by connections of its own, one to each server that takes writes. As long
/// as a connection stands, so does the process that it was made to.
pub struct Watch {
    nodes: Vec<Watched>,
    stop: Stop,
}

impl Watch {
    /// Begins to watch a server, or the primaries of a cluster.
    ///
    /// # Errors
    /// The connections, and a cluster that does not tell its nodes.
    pub fn begin(to: &ConnectOptions, stop: &Stop) -> Result<Self, ServerError> {
        let mut first = Watched::open(to, stop)?;
        let nodes = match first.of_cluster {
            false => vec![first],
            true => Topology::ask(&mut first.conn)?
                .shards
                .iter()
                .map(|shard| Watched::open(&options_for(to, &shard.primary), stop))
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
    pub fn look(&mut self) -> Result<Option<String>> {
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
    retries: Retries,
    run_id: Option<String>,
    /// Where the server tells how often databases were emptied.
    counts: Option<CommandCounts>,
    of_cluster: bool,
    /// The connection is a new one: who answers is not known yet.
    is_new: bool,
    /// When the sentinels were asked last.
    named: Option<Instant>,
    /// The node of a cluster no longer answers.
    is_gone: bool,
}

impl Watched {
    fn open(to: &ConnectOptions, stop: &Stop) -> Result<Self, ServerError> {
        let mut conn = Conn::open(to)?;
        conn.heed(to, &stop.flag());
        conn.doing("watching the destination");
        let facts = Facts::ask(&mut conn)?;
        let counts = CommandCounts::ask(&mut conn)?;
        // From here on another connection does not go unnoticed.
        conn.settle();
        Ok(Self {
            conn,
            to: to.clone(),
            retries: Retries::new(to),
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
            if self.of_cluster {
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
        facts.learn_eviction(&mut self.conn)?;
        let counts = match self.counts {
            Some(_) => CommandCounts::ask(&mut self.conn)?,
            None => None,
        };
        self.conn.settle();
        Ok((facts, counts))
    }

    fn judge(&mut self, facts: &Facts, counts: Option<CommandCounts>) -> Option<String> {
        // Sentinels put another process in the place of one that dies, and the sink gives that what
        // it may lack.
        let is_watched = matches!(self.to.address, Transport::Sentinel(_));
        match (&self.run_id, &facts.run_id) {
            (Some(before), Some(now)) if before != now => {
                if !is_watched {
                    return Some("was started anew, or replaced, during this run".to_owned());
                }
                // Another process has counts of its own.
                self.run_id.clone_from(&facts.run_id);
                self.counts.clone_from(&counts);
            }
            (Some(_), Some(_)) => {}
            _ if self.is_new && !is_watched => {
                return Some(
                    "was connected to again, and does not say whether it is still the same process \
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
        Unfit::of(facts).map(|unfit| unfit.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_destination_is_not_taken_for_good() {
        let fit = Facts {
            knows_role: true,
            maxmemory: Some(0),
            ..Facts::default()
        };
        assert_eq!(Unfit::of(&fit), None);
        let silent = Facts::default();
        assert_eq!(Unfit::of(&silent), Some(Unfit::UnknownRole));
        // HELLO is enough.
        let hello = Facts {
            knows_role: false,
            hello_replica: Some(false),
            ..fit.clone()
        };
        assert_eq!(Unfit::of(&hello), None);
        for replica in [
            Facts {
                replica: true,
                ..fit.clone()
            },
            Facts {
                hello_replica: Some(true),
                ..hello
            },
        ] {
            assert_eq!(Unfit::of(&replica), Some(Unfit::Replica));
        }
        let evicting = |maxmemory: Option<u64>, policy: Option<&str>| {
            Unfit::of(&Facts {
                maxmemory,
                policy: policy.map(str::to_owned),
                ..fit.clone()
            })
        };
        assert_eq!(evicting(Some(1), Some("noeviction")), None);
        assert_eq!(evicting(None, Some("noeviction")), None);
        let lru = Unfit::Evicts("allkeys-lru".to_owned());
        assert_eq!(evicting(Some(1), Some("allkeys-lru")), Some(lru));
        for (maxmemory, policy) in [(None, None), (Some(1), None), (None, Some("allkeys-lru"))] {
            assert_eq!(evicting(maxmemory, policy), Some(Unfit::UnknownEviction));
        }
    }
}
