//! What may take away at the destination what was written there: said before the first key, and
//! refused where the source's keys are deleted.

use anyhow::Result;

use super::ServerSink;
use super::unfit::Unfit;
use crate::policy::OnConflict;

impl ServerSink {
    /// Before anything is read.
    ///
    /// # Errors
    /// With `--delete-source` a destination that may not keep what it acknowledges.
    pub(super) fn say_what_may_go_wrong(&mut self) -> Result<()> {
        let options = self.writer.settings().options;
        let lanes = self.writer.fleet().lanes();
        if options.deletes_source {
            for lane in lanes {
                if let Some(unfit) = Unfit::of(&lane.facts) {
                    return Err(unfit.refusal(&lane.address()));
                }
            }
        }
        let facts = lanes.iter().map(|lane| &lane.facts);
        if let Some(evicting) = facts.clone().find(|facts| facts.evicts() == Some(true)) {
            let policy = evicting.memory.policy.as_deref().unwrap_or_default();
            let counted = match evicting.memory.evicted_keys {
                Some(_) => "will be counted",
                None => "cannot be counted, because INFO is refused",
            };
            self.shell.observer.warn(&format!(
                "the destination evicts keys when it is full (maxmemory-policy {policy}); \
                 evictions during this run {counted}"
            ));
        }
        // One that takes no writes says so itself.
        let mut single = facts.filter(|facts| !facts.cluster);
        let is_lost_on_resync = single.any(|facts| {
            facts.role_is_replica() == Some(true) && facts.role.read_only != Some(true)
        });
        if is_lost_on_resync {
            self.shell.observer.warn(
                "the destination is a replica: what is written there is lost when it next \
                 synchronizes fully with its primary, and is not at its primary; name the primary",
            );
        }
        if options.may_collide && options.on_conflict == OnConflict::Replace {
            self.shell.observer.warn(
                "with these databases or prefixes different keys may get the same name, and under \
                 --on-conflict replace the last one silently wins",
            );
        }
        Ok(())
    }
}
