//! DUMP payloads and RDB files of Redis and Valkey: read, checked, compared, and written anew for
//! older and for other servers. No server is needed, nothing is sent, and no thread is started.
//!
//! # Map
//!
//! - [`payload`]: what `DUMP` gives and `RESTORE` takes. [`split`](payload::split) and
//!   [`sign`](payload::sign) are the footer; [`decode`](payload::decode), [`read`](payload::read)
//!   and [`check`](payload::check) read a value; [`recode`](payload::recode) writes it in other
//!   forms; [`accept`](payload::accept) says which forms a server takes, and
//!   [`meaning`](payload::meaning) compares two values by what they say.
//! - [`rdb`]: files that servers load at start, and snapshots that a primary sends a replica.
//!   [`RdbReader`](rdb::RdbReader) and [`RdbWriter`](rdb::RdbWriter) hold one value at a time.
//! - [`dialect`]: the table of what each server speaks, by family and version. Support for a server
//!   version whose types are known is one row there.
//! - [`KeyRecord`], [`Value`] and what belongs to them are the vocabulary of the archive crate,
//!   `redis-migrate-format`.
//!
//! The modules know each other in one direction: `rdb` → `payload` → `dialect`.
//!
//! # A value and its payload
//!
//! ```text
//! type (1) | body | RDB version (u16 LE) | CRC-64 (u64 LE)
//! └─── value ───┘ └────────────── footer ───────────────┘
//! ```
//!
//! What a type byte means depends on the [`Family`] of the server that wrote it: from 22 on Redis
//! and Valkey number their types apart.
//!
//! ```
//! use redis_migrate_payload::Family;
//! use redis_migrate_payload::payload::{self, Object};
//!
//! // `SET a hello`, as redis-server 6.0 dumps it.
//! let dump = b"\x00\x05hello\x09\x00\xb3\x80\x8e\xba\x31\xb2\x43\xbb";
//! let (value, rdb_version) = payload::split(dump)?;
//! assert_eq!(rdb_version, 9);
//! assert_eq!(
//!     payload::decode(Family::Redis, value)?,
//!     Object::String(b"hello".into())
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Examples
//!
//! In `examples/`, each a program of its own (`cargo run --example NAME`):
//!
//! - `decode_payload`: what stands in a DUMP payload;
//! - `list_rdb`: the keys of an RDB file, with type, size and expiry;
//! - `write_rdb`: an RDB file that a server loads at its start;
//! - `reencode_payload`: a payload for a server of another version or family.
//!
//! # Damage
//!
//! Reading is strict: whatever is not known is an error with its offset, never passed over. No claimed
//! length or count is allocated before its bytes are there, nothing recurses, and the bytes of
//! strangers cause no panic (`fuzz/`). Types of modules and of servers newer than the table are
//! [opaque](payload::PayloadError::is_opaque): they can be carried as they are, and not looked into.
#![warn(unreachable_pub)]

pub mod dialect;
pub mod payload;
pub mod rdb;
mod text;

pub use redis_migrate_format::ModuleAux;
pub use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Value, Withheld};

pub use text::show_key;
