//! Data that a module keeps outside keys, as RDB files carry it (SPEC.md, §7.7).

use std::collections::BTreeSet;

use crate::limits::{MAX_MODULE_AUX_KEPT, MAX_MODULES_NAMED};
use crate::record::Family;

/// What one module has written for itself into an RDB file, such as the definitions of its search
/// indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleAux {
    /// Whose module it is.
    pub family: Family,
    /// Version of the RDB file it stood in.
    pub rdb_version: u16,
    /// Whether it stood behind the keys.
    pub after_keys: bool,
    /// Name of the module's data type, nine characters. Anybody's text: escape it before showing it.
    pub module: String,
    /// What stood behind the opcode: the type's id, the moment, the items and their end mark.
    pub data: Vec<u8>,
}

impl ModuleAux {
    /// Bytes of memory that it counts for: many tiny parts take far more than their data.
    pub fn cost(&self) -> usize {
        /// The part itself, and what two allocations take around their bytes.
        const AROUND: usize = size_of::<ModuleAux>() + 64;
        self.module.len() + self.data.len() + AROUND
    }
}

/// What MODULE_AUX frames said, as much of it as is kept.
#[derive(Debug, Default)]
pub(crate) struct KeptAux {
    kept: Vec<ModuleAux>,
    /// What they cost.
    bytes: usize,
    /// Frames that were more than is kept, since it was asked last.
    lost: u64,
    /// Whose they were, of all that was read; the first ones.
    pub(crate) left_out: BTreeSet<String>,
}

impl KeptAux {
    /// One more came.
    pub(crate) fn add(&mut self, aux: ModuleAux) {
        let bytes = self.bytes + aux.cost();
        if bytes <= MAX_MODULE_AUX_KEPT {
            self.bytes = bytes;
            self.kept.push(aux);
            return;
        }
        self.lost += 1;
        if self.left_out.len() < MAX_MODULES_NAMED {
            self.left_out.insert(aux.module);
        }
    }

    /// What came since this was asked last, and how many frames were more than is kept.
    pub(crate) fn take(&mut self) -> (Vec<ModuleAux>, u64) {
        self.bytes = 0;
        let lost = std::mem::take(&mut self.lost);
        (std::mem::take(&mut self.kept), lost)
    }
}
