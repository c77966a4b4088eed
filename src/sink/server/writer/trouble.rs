//! How long a destination is waited for, and what was lost meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::ledger::{Ledger, Say};
use crate::server::patience::Patience;
use crate::units::plural;

/// What goes wrong, and how long it may.
pub(super) struct Trouble {
    /// How long nothing may be got done.
    patience: Patience,
    /// How often connections were lost.
    times: u64,
    /// Records that were in flight then.
    records: u64,
    /// A reconnection to somebody who does not say who it is.
    unknown: bool,
    /// A process that had acknowledged something was started anew, or replaced.
    memory_lost: bool,
    /// Why nothing more may be deleted at the source, until the run ends because of it.
    halted: Option<anyhow::Error>,
    /// It is looked whether the run ends because of that.
    looks_for_halt: bool,
}

impl Trouble {
    /// `limit`: how long nothing may be got done.
    pub fn new(limit: Duration) -> Self {
        Self {
            patience: Patience::new(limit),
            times: 0,
            records: 0,
            unknown: false,
            memory_lost: false,
            halted: None,
            looks_for_halt: false,
        }
    }

    pub fn patience(&mut self) -> &mut Patience {
        &mut self.patience
    }

    /// Nothing can be done just now, and `why`. `less`: where there is a reason to wait for less than
    /// the whole patience.
    ///
    /// # Errors
    /// When it has been so for too long.
    pub fn wait(&mut self, why: &str, less: Duration, now: Instant) -> Result<()> {
        if !self.patience.lasts_within(less, now) {
            anyhow::bail!(
                "{why}, and nothing was written ({})",
                self.patience.told_at(now)
            );
        }
        Ok(())
    }

    pub fn note_lost_connection(&mut self) {
        self.times += 1;
    }

    pub fn note_lost_record(&mut self) {
        self.records += 1;
    }

    /// Somebody answers who does not say who it is.
    pub fn note_unknown(&mut self) {
        self.unknown = true;
    }

    /// What was acknowledged may be gone. Where it was deleted at the source the run ends; else
    /// `advice` says what to do.
    pub fn lose_memory(&mut self, why: String, advice: &'static str, ledger: &mut Ledger) {
        self.memory_lost = true;
        ledger.say(Say::Lost(why, Some(advice)));
    }

    /// Whether a process that had acknowledged something was started anew, or replaced.
    pub fn has_lost_memory(&self) -> bool {
        self.memory_lost
    }

    /// Nothing more may be deleted at the source.
    pub fn halt(&mut self, why: anyhow::Error) {
        self.halted.get_or_insert(why);
    }

    /// Looks whether the run ends because of that, once everything was said.
    pub fn look_for_halt(&mut self) {
        self.looks_for_halt = true;
    }

    /// # Errors
    /// Why nothing more may be deleted at the source, once.
    pub fn end_if_halted(&mut self) -> Result<()> {
        match std::mem::take(&mut self.looks_for_halt) {
            true => self.halted.take().map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// How often connections were lost, once at the end. `may_run_late`: what was in flight on one of
    /// them could not be called off, and matters.
    pub fn tell(&self, ledger: &mut Ledger, may_run_late: bool) {
        if self.times > 1 || (self.times == 1 && !ledger.has_told_loss()) {
            ledger.notice(format!(
                "lost connections to the destination: {}; {} sent again",
                self.times,
                plural(self.records, "record")
            ));
        }
        if self.unknown && self.times > 0 {
            ledger.report().doubts.memory_unknown = true;
            ledger.warn(
                "the destination does not say whether it is still the same process (INFO run_id): \
                 if it was restarted, what it had not saved is missing",
            );
        }
        if may_run_late {
            ledger.warn(
                "a connection to the destination was lost, and the destination does not let this \
                 run cancel the commands sent on it (CLIENT ID, CLIENT KILL): if it ran one late, \
                 a key may have an older value instead of its latest; --verify tells",
            );
        }
    }
}
