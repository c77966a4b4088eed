//! A node that lost its data: it was restarted without them, or took over without them. What was
//! given of its slots is perhaps all that is left of them, and must not be deleted.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};

use super::*;
use crate::server::facts::Facts;

impl ClusterSource {
    /// Looks at the node that these slots are to be read from, before it takes them over: `true` if
    /// the node that had them is gone, and this one has no key. That is said, and nothing of what was
    /// given before may be deleted then.
    ///
    /// # Errors
    /// That the destination is live and would lose what came so far; and the connection.
    pub(super) fn look_for_loss(&mut self, slots: &SlotSet, target: usize) -> Result<bool> {
        let holders: BTreeSet<usize> = slots
            .iter()
            .filter_map(|slot| self.holders.get(&slot).copied())
            .filter(|&at| at != target)
            .collect();
        let process = self.parts.get(target).and_then(Part::process);
        let before = holders.iter().filter_map(|&at| self.parts.get(at));
        // A node that still answers gave slots away, and their keys with them.
        let is_another = |part: &&Part| process.is_none() || part.process() != process;
        let has_left = before
            .clone()
            .any(|part| part.left_keys() && is_another(&part));
        let has_given = before.clone().any(Part::has_given);
        let Some(part) = self.parts.get_mut(target) else {
            return Ok(false);
        };
        part.took_over |= has_given;
        let would_delete = has_given && matches!(part.reader, Reader::Converge(_));
        let Some(scan) = part.scan().filter(|_| has_left) else {
            return Ok(false);
        };
        let facts = Facts::ask(scan.conn())?;
        if !scan.holds_nothing(&facts)? {
            return Ok(false);
        }
        let what = format!(
            "node {} now serves slots {} and has no key: it was restarted without its data, or took \
             over without them",
            scan.conn().address(),
            slots.show()
        );
        if would_delete && !self.options.scan.takes_back {
            return Err(anyhow!(
                "{what}; the keys that were copied so far are left as they are, and nothing is \
                 deleted for it"
            ));
        }
        scan.all_keys_were_lost(format!(
            "{what}; what was read before is kept, and what was not read before is missing"
        ));
        Ok(true)
    }
}
