//! The preamble: magic, version and feature flags, checked by itself before anything is believed.
//!
//! Versions of the format:
//! - 1.0: first.

use crate::error::{Error, Position, Result};
use crate::lookalike::LookAlike;

/// First bytes of every archive. A byte above 7F, CR LF, Ctrl-Z and LF show at once what a text
/// mode transfer did to it (as in PNG).
pub const MAGIC: [u8; 8] = *b"\x89RMZ\r\n\x1a\n";

/// Length of the preamble. Its layout never changes, so that every reader can at least name the
/// version it cannot read.
pub const PREAMBLE_LEN: usize = 16;

/// The major version this crate reads and writes.
pub const MAJOR: u8 = 1;

/// The minor version this crate writes. A reader takes every minor.
pub const MINOR: u8 = 0;

/// Required features this crate knows: none yet.
pub const KNOWN_REQUIRED: u8 = 0;

/// What the preamble says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// Layout version.
    pub major: u8,
    /// Additions that a reader may ignore.
    pub minor: u8,
    /// Features a reader must know.
    pub required: u8,
    /// Features a reader may ignore.
    pub optional: u8,
}

impl Preamble {
    /// What this crate writes.
    pub const CURRENT: Preamble = Preamble {
        major: MAJOR,
        minor: MINOR,
        required: 0,
        optional: 0,
    };

    /// Its bytes.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.major;
        bytes[9] = self.minor;
        bytes[10] = self.required;
        bytes[11] = self.optional;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks magic, checksum, major and required flags, in this order.
    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self> {
        let at = |field| Position {
            field,
            ..Position::default()
        };
        if bytes[..8] != MAGIC {
            return Err(Error::NotAnArchive(LookAlike::of(bytes)));
        }
        let found = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let computed = crc32fast::hash(&bytes[..12]);
        if found != computed {
            return Err(Error::damaged(
                at("preamble CRC"),
                format!("the preamble's checksum is {computed:08x} where it says {found:08x}"),
            ));
        }
        let preamble = Preamble {
            major: bytes[8],
            minor: bytes[9],
            required: bytes[10],
            optional: bytes[11],
        };
        if preamble.major != MAJOR {
            return Err(Error::unsupported(
                at("major"),
                format!(
                    "it has format version {}.{}, this reader knows {MAJOR}",
                    preamble.major, preamble.minor
                ),
            ));
        }
        let unknown = preamble.required & !KNOWN_REQUIRED;
        if unknown != 0 {
            return Err(Error::unsupported(
                at("flags"),
                format!("it needs features {unknown:#04x}"),
            ));
        }
        Ok(preamble)
    }
}
