//! What may take away at the destination what was written there: said before the first key, counted
//! at the end, and refused where the source's keys are deleted.

use anyhow::Result;

use super::ServerSink;
use super::unfit::Unfit;
use crate::policy::OnConflict;

impl ServerSink {
    /// Before anything is read.
    ///
    /// # Errors
    /// With `--delete-source` a destination that may not keep what it acknowledges.
    pub(super) fn say_what_may_go_wrong(&self) -> Result<()> {
        if self.options.deletes_source {
            for lane in &self.lanes {
                if let Some(unfit) = Unfit::of(&lane.facts) {
                    return Err(unfit.refusal(&lane.address()));
                }
            }
        }
        let facts = self.lanes.iter().map(|lane| &lane.facts);
        if let Some(evicting) = facts.clone().find(|facts| facts.evicts() == Some(true)) {
            let policy = evicting.policy.as_deref().unwrap_or_default();
            let counted = match evicting.evicted_keys {
                Some(_) => "will be counted",
                None => "cannot be counted, because INFO is refused",
            };
            self.observer.warn(&format!(
                "the destination evicts keys when it is full (maxmemory-policy {policy}); \
                 evictions during this run {counted}"
            ));
        }
        // One that takes no writes says so itself.
        let mut single = facts.filter(|facts| !facts.cluster);
        let is_lost_on_resync = single
            .any(|facts| facts.role_is_replica() == Some(true) && facts.read_only != Some(true));
        if is_lost_on_resync {
            self.observer.warn(
                "the destination is a replica: what is written there is lost when it next \
                 synchronizes fully with its primary, and is not at its primary; name the primary",
            );
        }
        if self.options.may_collide && self.options.on_conflict == OnConflict::Replace {
            self.observer.warn(
                "with these databases or prefixes different keys may get the same name, and under \
                 --on-conflict replace the last one wins unseen",
            );
        }
        Ok(())
    }

    /// Evictions since the start: accepted, and lost after all.
    pub(super) fn count_evictions(&mut self) -> Result<()> {
        let mut is_unknown = false;
        for lane in &mut self.lanes {
            // Of a connection that is lost only this is not known; all is acknowledged.
            let count = match lane.evictions() {
                Ok(count) => count,
                Err(error) if error.is_passing() => None,
                Err(error) => return Err(error.into()),
            };
            is_unknown |=
                count.is_none() && lane.acknowledged && lane.facts.evicts() != Some(false);
            self.report.evicted += count.unwrap_or(0);
        }
        if is_unknown && !self.options.dry_run {
            self.observer.warn(
                "whether the destination evicted keys during this run is not known: its user may \
                 not see it (+info); --verify tells which keys stand",
            );
        }
        if self.report.evicted > 0 {
            self.report.problems.push(format!(
                "the destination evicted {} keys during this run, perhaps some of those just written; \
                 raise maxmemory and run again",
                self.report.evicted
            ));
        }
        Ok(())
    }

    /// Somebody emptied or swapped whole databases while they were written: what was acknowledged may
    /// be gone, or stand in another one.
    pub(super) fn count_upheavals(&mut self) -> Result<()> {
        let (mut times, mut is_unknown) = (0, false);
        for lane in self.lanes.iter_mut().filter(|lane| lane.acknowledged) {
            match lane.upheavals() {
                Ok(Some(count)) => times += count,
                // Where nothing was counted before, nobody expects to hear of it.
                Ok(None) => is_unknown |= lane.has_counts(),
                Err(error) if error.is_passing() => is_unknown = true,
                Err(error) => return Err(error.into()),
            }
        }
        self.report.may_be_emptied = times > 0 || is_unknown;
        if is_unknown && times == 0 && !self.options.dry_run {
            self.observer.warn(
                "the destination does not tell any more whether its databases were emptied or swapped \
                 during this run (CONFIG RESETSTAT, or INFO is refused): had they been, keys would \
                 be missing; diff tells",
            );
        }
        if times > 0 {
            let advice = match self.report.source_deleted {
                0 => "look which, and run the same command again, which writes what is missing",
                _ => {
                    "and may be gone from both ends, because it was deleted at the source: look \
                     which, before anything else, and in the destination's own files and backups"
                }
            };
            self.report.problems.push(format!(
                "somebody emptied or swapped databases at the destination during this run (FLUSHALL, \
                 FLUSHDB, SWAPDB: {}; which databases is not told): what was written may be gone, or \
                 stand in another database; {advice}",
                crate::units::plural(times, "time")
            ));
        }
        Ok(())
    }
}
