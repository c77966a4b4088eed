//! The `.rmz` archive format. `SPEC.md` beside this crate is the authority on its bytes.
//!
//! [`Writer`] turns records into an archive, [`Reader`] turns an archive into records, and neither
//! ever takes a part for the whole: an archive is complete only when [`Writer::finish`] returned,
//! and read completely only when [`Reader::next_frame`] returned `None`. [`scan`] walks the frames
//! without decompressing them; [`salvage`] finds the intact ones of a damaged archive, and [`seek`]
//! those of a complete one in any order.
//!
//! ```
//! use redis_migrate_format::header::ConsistencyReached;
//! use redis_migrate_format::{
//!     Context, EndFacts, Header, KeyRecord, Limits, Reader, Record, Value, Writer, WriterOptions,
//! };
//!
//! # fn main() -> redis_migrate_format::Result<()> {
//! let mut writer = Writer::new(Vec::new(), &Header::default(), WriterOptions::default())?;
//! writer.set_context(Context { rdb_version: 10, ..Context::default() })?;
//! writer.write(&Record::Key(KeyRecord {
//!     db: 0,
//!     key: b"greeting".to_vec(),
//!     value: Value::Compact(b"\x00\x05hello".to_vec()),
//!     expire_at_ms: None,
//!     eviction: None,
//! }))?;
//! let reached = ConsistencyReached::Scan { from_ms: 0, to_ms: 0 };
//! let archive = writer.finish(EndFacts::new(reached))?.inner;
//!
//! let mut reader = Reader::new(&archive[..], Limits::default())?;
//! let mut keys = 0;
//! while let Some(frame) = reader.next_frame()? {
//!     keys += frame.records.len();
//! }
//! assert_eq!(keys, 1);
//! # Ok(())
//! # }
//! ```
//!
//! What this crate does not do: it does not look into values (a value is a type byte and bytes),
//! does not encrypt, does not sync files, and starts no threads.

mod account;
mod body;
mod entry;
mod error;
mod fragment;
pub mod frame;
pub mod header;
mod index;
mod keyset;
mod lacks;
pub mod limits;
mod lookalike;
mod module_aux;
mod pending;
mod pieces;
mod reader;
pub mod record;
pub mod salvage;
pub mod scan;
pub mod seek;
mod skim;
mod stream;
mod totals;
pub mod trailer;
pub mod version;
mod wire;
mod writer;
mod zstandard;

pub use error::{Class, Error, Incompleteness, Position, Result, Trailing};
pub use header::{End, EndFacts, Header};
pub use lacks::{LACKS, OUTSIDE};
pub use limits::Limits;
pub use lookalike::LookAlike;
pub use module_aux::ModuleAux;
pub use reader::{Frame, Reader};
pub use record::{Context, KeyRecord, Record, Value, Withheld};
pub use wire::IndexEntry;
pub use writer::{Finished, Writer, WriterOptions};
