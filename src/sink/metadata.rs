//! Key metadata of modules that a destination does not take.

use crate::ledger::Changes;
use crate::payload::metadata::{self, NotStripped};
use crate::policy::AllowLoss;
use crate::record::{Context, KeyRecord};
use crate::refusal::Refusal;

/// Leaves a value's key metadata out and counts that. `why`: why they cannot stay, for where a class
/// says that it must not be ignored and that loss is not allowed.
///
/// # Errors
/// Why the key must be refused, and what to do about it.
pub fn leave_out(
    record: &mut KeyRecord,
    context: &Context,
    allow: AllowLoss,
    why: &str,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match metadata::strip(context.family, &mut record.value, allow.key_meta) {
        Ok(true) => changes.key_metadata_lost += 1,
        Ok(false) => {}
        Err(NotStripped::Damaged(error)) => {
            return Err(Refusal::new(format!("its payload is damaged: {error}")));
        }
        Err(NotStripped::Needed(classes)) => return Err(refusal(&classes, why)),
    }
    Ok(())
}

/// Why no native command can bring key metadata.
pub const NOT_BY_COMMANDS: &str = "native commands cannot write them";

/// Why a key is refused whose metadata of these classes cannot stay, and what to do about it.
pub fn refusal(classes: &str, why: &str) -> Refusal {
    Refusal::new(format!(
        "modules keep metadata beside it that must not be ignored (class {classes}), and {why}"
    ))
    .with_hint("--allow-loss key-meta writes the key without them")
}
