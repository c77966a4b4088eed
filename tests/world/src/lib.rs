//! The simulated world in which redis-migrate is tried: model servers with real semantics, in one
//! thread, on a virtual clock, under one seed.

pub mod server;
