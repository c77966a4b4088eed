//! Data that a module keeps outside keys, as RDB files carry it (SPEC.md, §7.7).

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
