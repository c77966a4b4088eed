//! Where Redis runs in earnest: behind sentinels, and at services that forbid a good part of the
//! commands.

mod doctor;
mod lookalikes;
mod profiles;
mod rights;
mod sentinel;
mod sentinel_source;
mod sources;
mod toys;
