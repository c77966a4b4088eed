//! Whether a destination is a place where keys stay that go from the source.

use crate::exit::usage;
use crate::server::ServerError;
use crate::server::facts::Facts;

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
            Some(true) => Some(Self::Evicts(
                facts.memory.policy.clone().unwrap_or_default(),
            )),
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
            Self::Replica => usage("--delete-source needs a destination that is a primary, and it is a replica: what is \
                 written there is lost when it next synchronizes with its primary, and keys that are \
                 deleted at its primary are deleted there too; name the primary; nothing was read"),
            Self::Evicts(policy) => usage(format!(
                "with --delete-source a key that the destination evicts is gone from both ends, and \
                 it evicts keys when it is full (maxmemory-policy {policy}): set its \
                 maxmemory-policy to noeviction until the copy is done, or copy without \
                 --delete-source; nothing was read"
            )),
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
    pub fn now(&self) -> String {
        match self {
            Self::Replica => "became a replica during this run".to_owned(),
            Self::UnknownRole => "no longer says whether it is a replica".to_owned(),
            Self::Evicts(policy) => {
                format!("now evicts keys when it is full (maxmemory-policy {policy})")
            }
            Self::UnknownEviction => "no longer says whether it evicts keys".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_destination_is_not_taken_for_good() {
        let mut fit = Facts::default();
        fit.role.is_told = true;
        fit.memory.max = Some(0);
        assert_eq!(Unfit::of(&fit), None);
        let silent = Facts::default();
        assert_eq!(Unfit::of(&silent), Some(Unfit::UnknownRole));
        // HELLO is enough.
        let mut hello = fit.clone();
        hello.role.is_told = false;
        hello.role.hello_replica = Some(false);
        assert_eq!(Unfit::of(&hello), None);
        let mut replica = fit.clone();
        replica.role.replica = true;
        hello.role.hello_replica = Some(true);
        for replica in [replica, hello] {
            assert_eq!(Unfit::of(&replica), Some(Unfit::Replica));
        }
        let evicting = |maxmemory: Option<u64>, policy: Option<&str>| {
            let mut facts = fit.clone();
            facts.memory.max = maxmemory;
            facts.memory.policy = policy.map(str::to_owned);
            Unfit::of(&facts)
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
