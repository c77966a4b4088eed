//! What a run that fails leaves behind: temporary keys, as far as the destination still answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lane::Lane;
use super::{Action, Sent, ServerSink};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// How long a destination that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl ServerSink {
    /// Removes temporary keys of values that were not finished. What cannot be removed is named by
    /// `doctor`.
    pub(super) fn sweep(&mut self) {
        let lanes = self.lanes.iter().flat_map(Lane::unanswered);
        let mut by_place: BTreeMap<(usize, u32), Vec<Vec<u8>>> = BTreeMap::new();
        for sent in lanes.chain(&self.again) {
            let Some(temp) = temp_of(sent) else { continue };
            let at = match &self.routes {
                None => Some(0),
                Some(routes) => routes.lane_of(slot_of(temp)),
            };
            if let Some(at) = at {
                let place = (at, sent.record.db);
                by_place.entry(place).or_default().push(temp.to_vec());
            }
        }
        for ((at, db), temps) in by_place {
            // Best effort: why the run failed is told already.
            let _left = self.remove(at, db, &temps);
        }
    }

    /// On a connection of its own: what the lane's is in the middle of is not known.
    fn remove(&self, at: usize, db: u32, temps: &[Vec<u8>]) -> Result<(), ServerError> {
        let mut to = self.lanes[at].to.clone();
        to.timeout = to.timeout.min(PATIENCE);
        to.connect_timeout = to.connect_timeout.min(PATIENCE);
        to.retry_for = to.retry_for.min(PATIENCE);
        let mut conn = Conn::open(&to)?;
        conn.heed(&to, &self.stop.flag());
        if conn.select(db)?.is_err() {
            return Ok(());
        }
        for temp in temps {
            if conn.try_query(redis::cmd("UNLINK").arg(temp))?.is_err() {
                let _refused = conn.try_query(redis::cmd("DEL").arg(temp))?;
            }
        }
        Ok(())
    }
}

fn temp_of(sent: &Sent) -> Option<&[u8]> {
    match sent.action {
        Action::CleanUp => Some(&sent.record.key),
        _ => sent
            .by_commands
            .as_ref()?
            .as_ref()
            .and_then(|ticket| ticket.temp()),
    }
}
