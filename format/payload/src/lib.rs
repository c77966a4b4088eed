//! DUMP payloads and RDB files of Redis and Valkey.

pub mod dialect;
pub mod payload;
pub mod rdb;
mod text;

pub use text::show_key;
