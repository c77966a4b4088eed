//! The `.rmz` archive format. `SPEC.md` beside this crate is the authority on its bytes.

mod body;
mod entry;
mod error;
pub mod frame;
pub mod header;
mod index;
mod keyset;
pub mod limits;
mod lookalike;
mod pending;
mod reader;
pub mod record;
mod stream;
mod totals;
pub mod trailer;
pub mod version;
mod wire;
mod writer;
mod zstandard;

pub use error::{Class, Error, Incompleteness, Position, Result, Trailing};
pub use header::{End, EndFacts, Header};
pub use limits::Limits;
pub use lookalike::LookAlike;
pub use reader::{Frame, Reader};
pub use record::{Context, KeyRecord, Record, Value};
pub use wire::IndexEntry;
pub use writer::{Finished, Writer, WriterOptions};
