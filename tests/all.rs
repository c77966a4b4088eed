//! The tests that take a server, a cluster, a bad network or the program as a whole: one program, so
//! that it is linked once and its tests fill both cores to the end. `cargo test --test all live::`
//! runs one of its rooms. What each room tries stands at the head of its `mod.rs`.

use redis_migrate_test_support as support;

mod cli;
mod cluster;
mod converge;
mod diff;
mod encryption;
mod faults;
mod live;
mod network;
mod pipeline;
mod rdb;
mod report;
mod runbooks;
mod servers;
mod services;
mod tools;
mod walls;
