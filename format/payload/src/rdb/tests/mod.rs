//! RDB made by hand: what no server at hand writes any more, and what none should.

mod build;
mod envelope;
mod later;
mod mutation;
mod reading;
mod taking;
mod writing;
