//! CRC-64/Jones, the checksum of DUMP payloads and RDB files (crc64.c): reflected, polynomial
//! 0xad93d23594c935a9, nothing inverted.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Redis, bytes)
}

/// The checksum of bytes that come in pieces.
#[derive(Clone)]
pub(crate) struct Crc64(Digest);

impl Crc64 {
    /// The checksum of nothing, so far.
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Redis))
    }

    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything taken in.
    pub(crate) fn finish(self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn pieces_are_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for cut in [0, 1, 15, 16, 17, 500, 1000] {
            let mut crc = Crc64::new();
            crc.update(&bytes[..cut]);
            crc.update(&bytes[cut..]);
            assert_eq!(crc.finish(), crc64(&bytes));
        }
    }

    /// What the processor computes is what tables say, at every length and alignment.
    #[test]
    fn it_is_that_of_the_tables() {
        let tables = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_REDIS);
        let bytes: Vec<u8> = (0..5000_u32).map(|n| ((n * n) >> 5) as u8).collect();
        for begin in 0..32 {
            for length in (0..300).chain([511, 1024, 4000]) {
                let piece = &bytes[begin..begin + length];
                assert_eq!(crc64(piece), tables.checksum(piece), "{begin}+{length}");
            }
        }
    }
}
