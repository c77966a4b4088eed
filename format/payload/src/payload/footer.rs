//! The ten bytes at the end of a DUMP payload: RDB version (u16 LE) and CRC-64 (u64 LE) over
//! everything before it, the version included (cluster.c, createDumpPayload).

use super::crc64::{Crc64, crc64};

/// Length of the footer.
pub const FOOTER_LEN: usize = 10;

/// Why a payload's footer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// Shorter than a footer.
    #[error("a payload of {0} bytes has no footer")]
    TooShort(usize),
    /// The checksum is of other bytes. Zero is a checksum like any other: only RDB files use it for
    /// "not computed".
    #[error("its checksum is {stored:016x} and should be {computed:016x}")]
    Checksum {
        /// As it stands in the footer.
        stored: u64,
        /// As the bytes have it.
        computed: u64,
    },
}

/// Checks the footer of a DUMP payload and takes it off: the value (type byte and body) and the
/// RDB version. The value of FUNCTION DUMP without functions is empty.
pub fn split(payload: &[u8]) -> Result<(&[u8], u16), FooterError> {
    let Some((signed, &stored)) = payload.split_last_chunk::<8>() else {
        return Err(FooterError::TooShort(payload.len()));
    };
    let Some((body, &version)) = signed.split_last_chunk::<2>() else {
        return Err(FooterError::TooShort(payload.len()));
    };
    let stored = u64::from_le_bytes(stored);
    let computed = crc64(signed);
    if stored != computed {
        return Err(FooterError::Checksum { stored, computed });
    }
    Ok((body, u16::from_le_bytes(version)))
}

/// The footer that makes `body` a DUMP payload of RDB version `version`.
pub fn footer(body: &[u8], version: u16) -> [u8; FOOTER_LEN] {
    let version = version.to_le_bytes();
    let mut crc = Crc64::new();
    crc.update(body);
    crc.update(&version);
    let mut footer = [0; FOOTER_LEN];
    footer[..2].copy_from_slice(&version);
    footer[2..].copy_from_slice(&crc.finish().to_le_bytes());
    footer
}

/// `body` with its footer.
pub fn sign(body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = Vec::with_capacity(body.len() + FOOTER_LEN);
    payload.extend_from_slice(body);
    payload.extend_from_slice(&footer(body, version));
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SET a hello` as redis-server 6.0 dumps it.
    const HELLO: &[u8] = b"\x00\x05hello\x09\x00\xb3\x80\x8e\xba\x31\xb2\x43\xbb";

    #[test]
    fn a_real_payload() {
        assert_eq!(split(HELLO), Ok((&b"\x00\x05hello"[..], 9)));
        assert_eq!(sign(b"\x00\x05hello", 9), HELLO);
    }

    #[test]
    fn only_a_footer() {
        let empty = sign(b"", 10);
        assert_eq!(split(&empty), Ok((&b""[..], 10)));
        for len in 0..FOOTER_LEN {
            assert_eq!(split(&empty[..len]), Err(FooterError::TooShort(len)));
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..HELLO.len() * 8 {
            let mut bad = HELLO.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(split(&bad), Err(FooterError::Checksum { .. })));
        }
    }

    #[test]
    fn a_zero_checksum_is_no_excuse() {
        let mut zero = HELLO.to_vec();
        let len = zero.len();
        zero[len - 8..].fill(0);
        assert!(matches!(
            split(&zero),
            Err(FooterError::Checksum { stored: 0, .. })
        ));
    }
}
