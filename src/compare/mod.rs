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

pub(crate) mod collect;
pub(crate) mod explain;
pub(crate) mod hashing;
pub(crate) mod join;
pub(crate) mod judge;
pub(crate) mod meaning;
pub(crate) mod names;
pub(crate) mod prove;
pub(crate) mod report;
pub(crate) mod rounds;
pub(crate) mod row;
pub(crate) mod scope;
pub(crate) mod store;
pub(crate) mod unread;
pub(crate) mod written;

pub(crate) use self::hashing::Prints;
pub(crate) use self::judge::Judge;
pub(crate) use self::meaning::Reading;
