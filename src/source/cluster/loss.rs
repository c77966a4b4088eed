//! A node that lost its data: it was restarted, or promoted, without them. What was copied from its
//! slots before may be all that is left, and must not be deleted.

use anyhow::{Result, anyhow};

use super::SlotSet;
use super::part::{Part, Reader};
use super::parts::Parts;
use crate::server::facts::Facts;

/// Checks the node that is about to be read for these slots: `true` if the node that had them is gone
/// and this one has no keys. That is reported, and nothing that was copied before may be deleted
/// then. `takes_back`: the destination is an archive, where a deletion takes back older records.
///
/// # Errors
/// A live destination would lose what was copied so far; connection errors.
pub(super) fn look_for_loss(
    parts: &mut Parts,
    slots: &SlotSet,
    target: usize,
    takes_back: bool,
) -> Result<bool> {
    let process = parts.get(target).and_then(Part::process);
    // A node that still answers handed its slots over together with their keys.
    let is_another = |part: &&Part| process.is_none() || part.process() != process;
    let before = parts.holders_but(slots, target);
    let mut left = before.iter().copied().filter(is_another);
    let has_left = left.any(Part::left_keys);
    let has_given = before.iter().any(|part| part.has_given());
    let Some(part) = parts.get_mut(target) else {
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
    if would_delete && !takes_back {
        return Err(anyhow!(
            "{what}; the keys that were copied so far are left as they are, and nothing is deleted \
             because of it"
        ));
    }
    scan.all_keys_were_lost(format!(
        "{what}; what was read before is kept, and what was not read before is missing"
    ));
    Ok(true)
}
