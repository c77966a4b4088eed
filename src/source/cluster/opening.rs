//! How long is waited, when the nodes of a cluster are opened, for one that is lost: for itself, or
//! for a replica that takes its place. No I/O, no clock.

use std::time::{Duration, Instant};

use crate::server::patience::Patience;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// To [`Action::Open`]: a node was not opened; whether it is lost.
    NotOpened { is_lost: bool },
    /// To [`Action::LookForReplica`]: whether a replica of it answers. Where none does, waiting is in
    /// vain, or the nodes announce addresses that lead nowhere.
    Replica(bool),
    /// To [`Action::RestAndLook`]: whether somebody else serves its slots now, or it answers again.
    Looked(bool),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Open all nodes.
    Open,
    /// Look whether a replica of the node that is lost answers.
    LookForReplica,
    /// Say that it is waited for.
    Say,
    /// Wait a little, and look who serves the slots of the node that is lost.
    RestAndLook,
    /// Give up, with the error of the node.
    Fail,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Opening {
    /// A connection that is lost may be tried again at all.
    may_wait: bool,
    patience: Patience,
    said: bool,
}

impl Opening {
    pub fn new(retries: u32, retry_for: Duration) -> Self {
        Self {
            may_wait: retries > 0,
            patience: Patience::new(retry_for),
            said: false,
        }
    }

    /// Something happened, now. All but the last of what is to be done are not answered.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::NotOpened { is_lost } => {
                let waits = is_lost && self.may_wait && self.patience.lasts_at(now);
                vec![match waits {
                    true => Action::LookForReplica,
                    false => Action::Fail,
                }]
            }
            Event::Replica(false) => vec![Action::Fail],
            Event::Replica(true) => match std::mem::replace(&mut self.said, true) {
                false => vec![Action::Say, Action::RestAndLook],
                true => vec![Action::RestAndLook],
            },
            Event::Looked(is_there) => {
                vec![match is_there || !self.patience.lasts_at(now) {
                    true => Action::Open,
                    false => Action::RestAndLook,
                }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;

    const RETRY_FOR: Duration = Duration::from_secs(10);
    const LOST: Event = Event::NotOpened { is_lost: true };

    #[test]
    fn a_lost_node_is_waited_for_as_long_as_a_replica_may_take_its_place() {
        let now = host::now();
        let late = now + RETRY_FOR;
        let mut opening = Opening::new(1, RETRY_FOR);
        assert_eq!(opening.on(LOST, now), [Action::LookForReplica]);
        let first = opening.on(Event::Replica(true), now);
        assert_eq!(first, [Action::Say, Action::RestAndLook]);
        assert_eq!(opening.on(Event::Looked(false), now), [Action::RestAndLook]);
        assert_eq!(opening.on(Event::Looked(true), now), [Action::Open]);
        // It is said once.
        assert_eq!(opening.on(LOST, now), [Action::LookForReplica]);
        assert_eq!(opening.on(Event::Replica(true), now), [Action::RestAndLook]);
        // One more attempt at the end, for the error.
        assert_eq!(opening.on(Event::Looked(false), late), [Action::Open]);
        assert_eq!(opening.on(LOST, late), [Action::Fail]);
    }

    #[test]
    fn what_waiting_does_not_mend_fails_at_once() {
        let now = host::now();
        let mut opening = Opening::new(1, RETRY_FOR);
        let refused = Event::NotOpened { is_lost: false };
        assert_eq!(opening.on(refused, now), [Action::Fail]);
        assert_eq!(opening.on(LOST, now), [Action::LookForReplica]);
        assert_eq!(opening.on(Event::Replica(false), now), [Action::Fail]);
        for mut opening in [Opening::new(0, RETRY_FOR), Opening::new(1, Duration::ZERO)] {
            assert_eq!(opening.on(LOST, now), [Action::Fail]);
        }
    }
}
