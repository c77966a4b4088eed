//! The simulated world in which redis-migrate is tried: model servers with real semantics, in one
//! thread, on a virtual clock, under one seed.

pub mod judge;
pub mod net;
pub mod runs;
pub mod scenarios;
pub mod script;
pub mod server;
pub mod shrink;
pub mod writers;
