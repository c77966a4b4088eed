//! export, import and copy against real servers: everything that a user would lose sleep over.
//!
//! Left out: what goes wrong on the network and in mid-run (`tests/faults`), and the command line
//! itself (`tests/cli`).

mod answers;
mod archives;
mod between;
mod commands;
mod conflict;
mod connecting;
mod copying;
mod corruption;
mod databases;
mod doctor;
mod foretold;
mod functions;
mod idempotency;
mod key_metadata;
mod large;
mod leftovers;
mod matrix;
mod methods;
mod moving;
mod newer;
mod old_servers;
mod refused;
mod rerun;
mod selection;
mod soundness;
mod square;
mod standstill;
mod succession;
mod transactions;
mod ttl;
mod unknown_newer;
mod vectors;
mod versions;
