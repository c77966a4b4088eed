//! Exactness while the source is written to: a writer logs what it does, the log is replayed up to
//! the moment that the export speaks of, and both must be equal.

mod announced;
mod events;
mod exact;
mod failover;
mod following;
mod libraries;
mod limits;
mod long;
mod modules;
mod relisten;
mod run;
mod unread;
mod writer;
