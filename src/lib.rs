//! redis-migrate.

pub mod payload;
