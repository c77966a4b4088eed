//! RDB: the file that servers load at start, and the stream that a master sends to a replica. The
//! two are the same bytes (rdb.c, rdbSaveRio).
//!
//! ```text
//! "REDIS" 4 digits | "VALKEY" 3 digits      magic and version
//! ( AUX | FUNCTION2 | MODULE_AUX )*
//! ( SELECTDB RESIZEDB? ( expiry? idle|frequency? type key body )* )*
//! EOF, CRC-64 of everything before it
//! ```
//!
//! What follows a key is exactly what DUMP gives for it (type byte and body), so this room needs
//! only to find where each value ends, which [`payload::walk`](crate::payload::walk) does.
//! [`RdbReader`] reads, [`RdbWriter`] writes; neither holds more than one value at a time.

mod envelope;
mod error;
mod functions;
mod input;
mod magic;
mod reader;
mod taken;
mod target;
mod templates;
mod writer;

pub use envelope::EnvelopeError;
pub use error::{RdbError, RdbErrorKind};
pub use functions::{
    FUNCTIONS_VERSION, Flaw, FlawKind, FunctionsError, Loadable, function_codes, functions_payload,
    library_flaws, library_name, loadable_libraries,
};
pub use magic::{Magic, begins_like_rdb};
pub use reader::{Checksum, Event, Facts, Form, RdbReader, Tail};
pub use taken::{NOT_WHOLE, Taken};
pub use target::RdbTarget;
pub use writer::RdbWriter;

#[cfg(test)]
mod tests;
