//! The `.rmz` archive format. `SPEC.md` beside this crate is the authority on its bytes.

pub mod header;
pub mod record;
