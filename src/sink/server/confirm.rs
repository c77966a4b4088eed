//! What a primary acknowledged and then took with it when it died.
//!
//! Redis acknowledges a write before its replicas have it. So what was acknowledged is kept, within
//! bounds, until WAIT says that a replica has it too; after a failover it is sent again to the new
//! primary, where it counts as a doubtful write like any other: what stands there already and is
//! equal is left alone. That is for clusters, and for primaries that sentinels watch: of a destination
//! that was started anew it is told, and nothing more can be done.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Action, Counted, Sent, ServerSink, Wrote};
use crate::host;
use crate::own_writes::FingerprintSet;
use crate::server::ServerError;
use crate::server::conn::is_forbidden;
use crate::server::sentinel::{self, AGREE_WITHIN, Standing};

/// Acknowledged bytes and records after which a replica is asked for.
const ASK_BYTES: usize = 1 << 20;
const ASK_RECORDS: usize = 2_000;

/// What all lanes together may keep.
pub(super) const KEPT_BYTES: usize = 64 << 20;

/// What one lane may keep.
pub(super) const MAX_KEPT_BYTES: usize = 8 << 20;

/// A record is more than its value.
const RECORD_BYTES: usize = 512;

/// How long a primary may hold up its lane to hear from its replicas, at most.
const PATIENCE_MS: &[u8] = b"50";

/// How often sentinels are asked whom they name, at most.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);

/// At the end there is nothing behind it that could be held up.
const LAST_PATIENCE_MS: &[u8] = b"1000";

/// What was acknowledged on a lane and not confirmed by a replica.
#[derive(Default)]
pub(super) struct Unconfirmed {
    /// Whether there is a replica to wait for, and how much may be kept; 0 if not.
    pub max_bytes: usize,
    kept: VecDeque<Sent>,
    bytes: usize,
    /// Kept no more, for want of room or because WAIT is refused.
    pub dropped: u64,
    asked_bytes: usize,
    asked_records: usize,
    /// A write was acknowledged on this very connection, without which WAIT says nothing.
    wrote: bool,
    refused: bool,
}

impl Unconfirmed {
    /// The connection is a new one.
    pub fn is_on_new_connection(&mut self) {
        self.wrote = false;
    }

    /// Whether it is time to ask for replicas.
    fn is_due(&self) -> bool {
        !self.refused && (self.asked_bytes >= ASK_BYTES || self.asked_records >= ASK_RECORDS)
    }

    /// Whether there is soon no room for what no replica has.
    fn is_filling(&self) -> bool {
        self.bytes > self.max_bytes / 2
    }

    fn keep(&mut self, sent: Sent, wrote: Wrote) {
        let bytes = kept_bytes(&sent);
        self.wrote |= wrote == Wrote::Now;
        self.asked_bytes += bytes;
        self.asked_records += 1;
        if self.refused {
            self.dropped += 1;
            return;
        }
        self.bytes += bytes;
        self.kept.push_back(sent);
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= kept_bytes(&oldest);
            self.dropped += 1;
        }
    }

    /// Gives up those whose keys do not stay, in their order.
    pub fn part(&mut self, stays: impl Fn(&[u8]) -> bool) -> Vec<Sent> {
        if self.kept.iter().all(|sent| stays(&sent.record.key)) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.kept);
        let (staying, going): (Vec<Sent>, Vec<Sent>) =
            all.into_iter().partition(|sent| stays(&sent.record.key));
        self.bytes = staying.iter().map(kept_bytes).sum();
        self.kept = staying.into();
        going
    }

    /// Keeps what was acknowledged elsewhere, before all that is kept here.
    pub fn keep_as_older(&mut self, sent: Sent) {
        self.bytes += kept_bytes(&sent);
        self.kept.push_front(sent);
    }

    fn confirm(&mut self) {
        self.kept.clear();
        self.bytes = 0;
        self.dropped = 0;
    }

    fn refuse(&mut self) {
        self.refused = true;
        self.dropped += self.kept.len() as u64;
        self.kept.clear();
        self.bytes = 0;
    }

    /// The newest record of each key, and how many are not at hand any more.
    fn take(&mut self) -> (Vec<Sent>, u64) {
        self.bytes = 0;
        let mut seen = FingerprintSet::default();
        let kept = std::mem::take(&mut self.kept);
        let newest = kept.into_iter().rev();
        let newest: Vec<Sent> = newest.filter(|sent| seen.insert(sent.print)).collect();
        (newest, std::mem::take(&mut self.dropped))
    }
}

fn kept_bytes(sent: &Sent) -> usize {
    sent.record.value.bytes().len() + sent.record.key.len() + RECORD_BYTES
}

impl ServerSink {
    /// Keeps what was acknowledged until a replica has it. `None`: it was kept.
    pub(super) fn keep(
        &mut self,
        at: usize,
        mut sent: Sent,
        counted: Counted,
        wrote: Wrote,
    ) -> Option<Sent> {
        let lane = &mut self.lanes[at];
        let unconfirmed = &mut lane.unconfirmed;
        if unconfirmed.max_bytes == 0 {
            lane.unkept = true;
            return Some(sent);
        }
        sent.counted = Some(counted);
        sent.is_doubtful = true;
        sent.ask_to = None;
        sent.is_recalled = false;
        unconfirmed.keep(sent, wrote);
        None
    }

    /// Asks for replicas if it is time to.
    pub(super) fn ask_for_replicas(&mut self, at: usize) -> Result<()> {
        if !self.lanes[at].unconfirmed.is_due() {
            return Ok(());
        }
        let lane = &self.lanes[at];
        let is_long_ago = |named: Instant| host::elapsed(named) >= SENTINELS_EVERY;
        if (lane.named.is_none_or(is_long_ago) || lane.unconfirmed.is_filling())
            && self.heed_sentinels(at)?
        {
            return Ok(());
        }
        match self.queue_wait(at, PATIENCE_MS) {
            Ok(()) => Ok(()),
            Err(lost) => self.lost(at, lost),
        }
    }

    /// Sentinels that put another primary in the place of one that lives leave that taking writes for
    /// seconds, and all of these are lost. So they are asked now and then, and at the end; where they
    /// name another one this lane's connection is given up, and whoever takes over is given what no
    /// replica had. `true`: that happened.
    fn heed_sentinels(&mut self, at: usize) -> Result<bool> {
        let lane = &mut self.lanes[at];
        if !lane.is_watched() {
            return Ok(false);
        }
        lane.named = Some(host::now());
        let standing = lane.standing();
        self.heed(at, standing)
    }

    /// What the sentinels said of a lane's server.
    fn heed(&mut self, at: usize, standing: Option<Standing>) -> Result<bool> {
        let lane = &mut self.lanes[at];
        let by = match standing {
            Some(Standing::Replaced(by)) => by,
            Some(Standing::Named) => {
                lane.confirmed_since = false;
                return Ok(false);
            }
            // They are asked again.
            Some(Standing::Disputed(_) | Standing::Unknown(_)) | None => return Ok(false),
        };
        lane.unkept |= lane.confirmed_since;
        lane.confirmed_since = false;
        let lost = sentinel::replaced(lane.conn()?, &by);
        self.lost(at, lost)?;
        Ok(true)
    }

    /// As [`Self::heed_sentinels`], for all lanes, once the sentinels agree; whoever took over is met
    /// before this returns.
    fn heed_all_sentinels(&mut self) -> Result<bool> {
        let mut moved = false;
        for at in 0..self.lanes.len() {
            let began = host::now();
            let mut standing = self.lanes[at].standing();
            while matches!(standing, Some(Standing::Disputed(_)))
                && host::elapsed(began) < AGREE_WITHIN
            {
                self.rest()?;
                standing = self.lanes[at].standing();
            }
            if matches!(standing, Some(Standing::Disputed(_))) {
                let text = "the sentinels of the destination do not agree on its primary: what was \
                            written may be at a server that is replaced; run the same command again \
                            when they do";
                if !self.report.problems.iter().any(|known| known == text) {
                    self.report.problems.push(text.to_owned());
                }
            }
            if !self.heed(at, standing)? {
                continue;
            }
            moved = true;
            while self.lanes[at].conn.is_none() {
                if !self.connect(at)? {
                    self.rest()?;
                }
            }
        }
        if moved {
            self.drain()?;
        }
        Ok(moved)
    }

    fn queue_wait(&mut self, at: usize, patience_ms: &[u8]) -> Result<(), ServerError> {
        let lane = &mut self.lanes[at];
        lane.unconfirmed.asked_bytes = 0;
        lane.unconfirmed.asked_records = 0;
        lane.conn()?.queue(&[b"WAIT", b"1", patience_ms])?;
        lane.push(Sent::without_key(Action::Wait));
        Ok(())
    }

    /// What WAIT said.
    pub(super) fn waited(&mut self, at: usize, answer: Result<i64, String>) {
        let lane = &mut self.lanes[at];
        let unconfirmed = &mut lane.unconfirmed;
        match answer {
            Ok(1..) if unconfirmed.wrote => {
                unconfirmed.confirm();
                lane.confirmed_since = true;
                // It has all that the primary wrote before, whoever asked for it.
                lane.unkept = false;
            }
            Ok(_) => {}
            Err(text) if is_forbidden(&text) => unconfirmed.refuse(),
            // A primary no more, and MOVED follows: "UNBLOCKED … instance state changed", or "WAIT
            // cannot be used with replica instances".
            Err(_) => {}
        }
    }

    /// Before the end: what is acknowledged shall survive the primary's death just now.
    pub(super) fn confirm_all(&mut self) -> Result<()> {
        const ROUNDS: usize = 5;
        for _ in 0..ROUNDS {
            for at in 0..self.lanes.len() {
                let unconfirmed = &self.lanes[at].unconfirmed;
                if unconfirmed.kept.is_empty() || unconfirmed.refused {
                    continue;
                }
                if let Err(lost) = self.queue_wait(at, LAST_PATIENCE_MS) {
                    self.lost(at, lost)?;
                    // Nothing else asks for this lane any more.
                    self.is_stale();
                }
            }
            self.drain()?;
            // After WAIT: only then it is the primary's replica that has confirmed.
            let moved = self.heed_all_sentinels()?;
            if !moved
                && self
                    .lanes
                    .iter()
                    .all(|lane| lane.unconfirmed.kept.is_empty())
            {
                return Ok(());
            }
            self.reconnect_kept()?;
        }
        let left: u64 = self
            .lanes
            .iter()
            .map(|lane| &lane.unconfirmed)
            .filter(|unconfirmed| !unconfirmed.refused)
            .map(|unconfirmed| unconfirmed.kept.len() as u64 + unconfirmed.dropped)
            .sum();
        if left > 0 {
            self.observer.notice(&format!(
                "{} are at the primaries and not yet at a replica",
                crate::units::plural(left, "key")
            ));
        }
        Ok(())
    }

    /// A lane that was lost after all was acknowledged is asked for by no key any more; what it
    /// kept is.
    fn reconnect_kept(&mut self) -> Result<()> {
        for at in 0..self.lanes.len() {
            while self.lanes[at].conn.is_none() && !self.lanes[at].unconfirmed.kept.is_empty() {
                if !self.connect(at)? {
                    self.rest()?;
                }
            }
        }
        self.drain()
    }

    /// Another node has taken over from a lane's, or its process was started anew: what is not
    /// known to have reached it is sent again.
    pub(super) fn check_again(&mut self, at: usize) {
        let (kept, dropped) = self.lanes[at].unconfirmed.take();
        let address = self.lanes[at].address();
        if dropped > 0 {
            let why = format!(
                "{address} is the primary no more, and no replica had confirmed the last {} that \
                 it acknowledged",
                crate::units::plural(dropped, "key")
            );
            self.lose_memory(
                &why,
                "they may be missing; run the same command again, which writes what is missing",
            );
        }
        if !kept.is_empty() {
            self.observer.notice(&format!(
                "{address} was started anew, or is the primary of its slots no more; {} that it \
                 acknowledged last are checked again where their slots are now",
                crate::units::plural(kept.len() as u64, "key")
            ));
        }
        for mut sent in kept {
            // Where ASK leads, a later record of the same key may be on its way already.
            let mut in_flight = self.lanes.iter().flat_map(|lane| &lane.sent);
            if in_flight.any(|other| other.print == sent.print) {
                continue;
            }
            // Not only before what comes later: whatever becomes of that, this one was acknowledged.
            sent.is_recalled = true;
            self.recalls = true;
            self.prints.insert(sent.print);
            self.again.push_front(sent);
        }
    }
}
