//! Tests that cross the files of this room.

mod handmade;
mod pack;
mod speed;
mod streams;
mod vectors;
mod walking;

use super::*;
