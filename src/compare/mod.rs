//! Comparing two collections of keys of any size by what they mean, and in bounded memory.
//!
//! Each side is read once, as a source. Of every record a [`row::Row`] is kept: the key, its expiry,
//! and keyed hashes of what the value means ([`meaning`]), which are equal for equal values however
//! they are stored. Rows go to a temporary file, dealt out over partitions by the key ([`store`]);
//! then partition by partition both sides are joined ([`join`]) and judged ([`judge`]). What
//! differs can be read again from a live server, in case it was only on its way.
//!
//! ```text
//! source A → rewrite → rows ─┐
//!                            ├→ partitions → join → judge → differences
//! source B ──────────→ rows ─┘
//! ```
//!
//! The hashes are keyed anew in every run: nobody can make two values that only look equal.

pub mod collect;
pub mod explain;
pub mod hashing;
pub mod join;
pub mod judge;
pub mod meaning;
pub mod names;
pub mod report;
pub mod rounds;
pub mod row;
pub mod scope;
pub mod store;
pub mod unread;
pub mod written;

pub use self::collect::Collect;
pub use self::hashing::Prints;
pub use self::join::{Join, Totals};
pub use self::judge::{Aspect, Judge, Verdict};
pub use self::meaning::Reading;
pub use self::rounds::Comparison;
pub use self::row::{Row, What};
pub use self::store::Store;
