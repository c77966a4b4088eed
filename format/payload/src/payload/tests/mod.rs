//! Tests that cross the files of this room.

mod accepting;
mod decoding;
mod generate;
mod handmade;
pub(crate) mod later;
mod meanings;
pub(crate) mod mutation;
mod pack;
mod roundtrip;
mod samples;
mod speed;
mod streams;
pub(crate) mod vector_sets;
pub(crate) mod vectors;
mod walking;

use super::*;
