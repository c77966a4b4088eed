//! What the server is, and what it lets us do.

use super::probe::Abilities;
use super::wire::Form;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Facts, ServerClock};

/// The server that is read, as far as it is known.
pub(super) struct Profile {
    facts: Facts,
    clock: ServerClock,
    abilities: Abilities,
    /// How often each command had been called when the scan began, until it has ended; `None` where
    /// the server does not say, and where others look at it.
    counts_before: Option<CommandCounts>,
    /// The server that was found when connecting again is another process, and nobody asked since.
    changed_process: bool,
    /// It became another process since the scan began.
    became_another: bool,
}

impl Profile {
    pub fn new(
        facts: Facts,
        clock: ServerClock,
        abilities: Abilities,
        counts: Option<CommandCounts>,
    ) -> Self {
        Self {
            facts,
            clock,
            abilities,
            counts_before: counts,
            changed_process: false,
            became_another: false,
        }
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn clock(&self) -> ServerClock {
        self.clock
    }

    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// How its keys are asked for.
    pub fn form(&self, asking: bool, in_cluster: bool) -> Form {
        Form {
            abilities: self.abilities,
            asking,
            in_cluster,
            clock: self.clock,
        }
    }

    /// Transactions turned out to work after all.
    pub fn trust_multi(&mut self) {
        self.abilities.multi = true;
    }

    /// Whether this is the same process, in the same role.
    pub fn is_same_process(&self, facts: &Facts) -> bool {
        facts.run_id.is_some() && self.is_same_run(facts)
    }

    /// The same, where two servers that do not say count as the same.
    pub fn is_same_run(&self, facts: &Facts) -> bool {
        (&facts.run_id, facts.role.replica) == (&self.facts.run_id, self.facts.role.replica)
    }

    /// Another process was found.
    pub fn replace(&mut self, facts: Facts, clock: ServerClock, abilities: Option<Abilities>) {
        self.facts = facts;
        self.clock = clock;
        if let Some(abilities) = abilities {
            self.abilities = abilities;
        }
    }

    pub fn note_changed_process(&mut self) {
        (self.changed_process, self.became_another) = (true, true);
    }

    /// Whether it became another process since the scan began: it has forgotten what it had counted.
    pub fn became_another(&self) -> bool {
        self.became_another
    }

    /// Whether it became another process since this was last asked.
    pub fn take_changed_process(&mut self) -> bool {
        std::mem::take(&mut self.changed_process)
    }

    /// The scan begins anew at this server.
    pub fn begin_anew_at(&mut self, facts: &Facts) {
        self.facts.run_id.clone_from(&facts.run_id);
        self.facts.role.replica = facts.role.replica;
        // Another server may tell less.
        self.facts.keyspace.clone_from(&facts.keyspace);
        // Heard of while the scan was at rest: it begins anew anyway.
        (self.changed_process, self.became_another) = (false, false);
    }

    pub fn counts_before(&self) -> Option<&CommandCounts> {
        self.counts_before.as_ref()
    }

    pub fn take_counts_before(&mut self) -> Option<CommandCounts> {
        self.counts_before.take()
    }
}
