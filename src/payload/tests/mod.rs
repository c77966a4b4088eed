//! Tests that cross the files of this room.

mod accepting;
mod decoding;
mod generate;
mod handmade;
mod meanings;
mod mutation;
mod pack;
mod roundtrip;
mod speed;
mod streams;
mod vectors;
mod walking;

use super::*;
