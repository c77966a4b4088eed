//! redis-migrate.
