//! Following: after the scan, what changes is read as it changes, until somebody says when.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{ConvergingSource, MAX_ROUNDS, Phase};
use crate::host;
use crate::observer::Lag;
use crate::stop::Stop;

/// While following, how often a source without news is heard of.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// While following, how long changes may gather before they are read.
const GATHER: Duration = Duration::from_millis(100);

/// Until when changes are followed.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// Until nothing changed for so long.
    pub until_idle: Option<Duration>,
    /// For so long.
    pub total: Option<Duration>,
    /// Or until this is set.
    pub stop: Stop,
}

impl ConvergingSource {
    /// While following: reads what changed, or waits for it. `true` also where nothing changed for
    /// a while, so that whoever is behind can flush.
    pub(super) fn follow(&mut self) -> Result<bool> {
        let Some(follow) = self.options.follow.clone() else {
            return Ok(false);
        };
        let began = self.follow_began.unwrap_or_else(host::now);
        let waited_since = host::now();
        self.phase = Phase::Follow;
        loop {
            let (waiting, rescan) = self.tracker.waiting();
            if rescan {
                return Ok(false);
            }
            if let Some(together) = self.options.together.clone()
                && self.rests_while_following(&together, waiting > 0)?
            {
                return Ok(false);
            }
            let idle = follow
                .until_idle
                .is_some_and(|idle| waiting == 0 && self.unchanged_for() >= idle);
            // Silence is no rest where writers were sent elsewhere.
            if self.follow_sentinels(idle)? {
                return Ok(false);
            }
            let idle = idle && !self.watch.is_open();
            let over = follow
                .total
                .is_some_and(|total| host::elapsed(began) >= total);
            if follow.stop.is_set() || idle || over || self.others_are_over() {
                self.end_following();
                self.say_nothing_of_lag();
                self.rounds_began = Some(host::now());
                self.phase = Phase::Rounds {
                    left: MAX_ROUNDS,
                    last_names: usize::MAX,
                };
                return Ok(false);
            }
            if waiting > 0 && host::elapsed(waited_since) >= GATHER {
                self.last_change = host::now();
                if self.look_for_swaps()? {
                    return Ok(false);
                }
                self.look_for_databases()?;
                let since = self.tracker.lag().1;
                if let Some(names) = self.take()? {
                    // Until they have been read.
                    self.say_lag(names.len(), since);
                    self.reread(names);
                }
                return Ok(false);
            }
            let (waiting, since) = self.tracker.lag();
            self.say_lag(waiting, since);
            if host::elapsed(waited_since) >= HEARTBEAT {
                return Ok(true);
            }
            host::sleep(Duration::from_millis(10));
        }
    }

    fn say_lag(&self, names: usize, since: Option<Instant>) {
        let (server, keys) = (self.inner.conn.address(), names as u64);
        let following = &self.observer.progress.following;
        following.is_at(server, Lag { keys, since });
    }

    pub(super) fn say_nothing_of_lag(&self) {
        let following = &self.observer.progress.following;
        following.ends(self.inner.conn.address());
    }
}
