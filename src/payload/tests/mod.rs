//! Tests that cross the files of this room.

mod speed;
mod vectors;
mod walking;

use super::*;
