//! Expanding LZF, in which rdb.c stores strings of more than 20 bytes that get smaller by it.
//!
//! A control byte below 32 announces that many literal bytes and one. Any other is a copy of
//! earlier output: length in its upper three bits (7: one more byte adds to it) plus two, distance
//! in its lower five and the next byte, plus one. A copy may overlap what it produces (lzf_d.c).

/// Why a compressed string does not expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LzfError {
    /// More is claimed than these bytes can ever expand to.
    #[error("claims {plain} bytes out of {compressed}")]
    Implausible {
        /// Length of the compressed bytes.
        compressed: u64,
        /// Length they are said to expand to.
        plain: u64,
    },
    /// A control byte asks for input beyond the end.
    #[error("input ends early")]
    Input,
    /// A copy from before the beginning.
    #[error("copies from before its start")]
    Distance,
    /// The output is longer than it is said to be.
    #[error("expands to more than it claims")]
    Long,
    /// The output is shorter than it is said to be.
    #[error("expands to less than it claims")]
    Short,
    /// No damage: there is not enough memory for the output.
    #[error("its {plain} bytes do not fit into memory")]
    Memory {
        /// Length it is said to expand to.
        plain: u64,
    },
}

/// Checks lengths before anything is allocated for them: three bytes make at most 264, and nothing
/// makes nothing.
pub fn plausible(compressed: u64, plain: u64) -> Result<(), LzfError> {
    if plain == 0 || plain > compressed.saturating_mul(88) {
        return Err(LzfError::Implausible { compressed, plain });
    }
    Ok(())
}

/// Output that is made room for before there is any: more is only believed as it comes.
const FIRST_BYTES: usize = 64 * 1024;

/// Expands `input` to exactly `plain` bytes at the end of `out`. After an error `out` is as it was.
///
/// Memory follows what the input really expands to, not what it claims: at most twice as much.
pub fn decompress(input: &[u8], plain: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
    plausible(input.len() as u64, plain as u64)?;
    let start = out.len();
    let mut room = Room {
        start,
        plain,
        at: 0,
        out,
    };
    let result = room.fill(input);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The output while it grows: `plain` bytes are claimed, `at` of them stand behind `start`.
struct Room<'o> {
    start: usize,
    plain: usize,
    at: usize,
    out: &'o mut Vec<u8>,
}

impl Room<'_> {
    /// Makes room for `len` more bytes, and gives all bytes of the output that there is room for.
    #[inline]
    fn more(&mut self, len: usize) -> Result<&mut [u8], LzfError> {
        if len > self.plain - self.at {
            return Err(LzfError::Long);
        }
        if self.start + self.at + len > self.out.len() {
            self.grow(self.at + len)?;
        }
        Ok(&mut self.out[self.start..])
    }

    #[cold]
    fn grow(&mut self, least: usize) -> Result<(), LzfError> {
        let wanted = FIRST_BYTES
            .max(self.at.saturating_mul(2))
            .max(least)
            .min(self.plain);
        let more = self.start + wanted - self.out.len();
        self.out.try_reserve(more).map_err(|_| LzfError::Memory {
            plain: self.plain as u64,
        })?;
        self.out.resize(self.start + wanted, 0);
        Ok(())
    }

    fn fill(&mut self, mut input: &[u8]) -> Result<(), LzfError> {
        while let Some((&control, rest)) = input.split_first() {
            let control = usize::from(control);
            let at = self.at;
            if control < 32 {
                let len = control + 1;
                let (literal, rest) = rest.split_at_checked(len).ok_or(LzfError::Input)?;
                self.more(len)?[at..at + len].copy_from_slice(literal);
                self.at += len;
                input = rest;
                continue;
            }
            let mut rest = rest.iter();
            let mut next = || {
                rest.next()
                    .map(|&byte| usize::from(byte))
                    .ok_or(LzfError::Input)
            };
            let len = match control >> 5 {
                7 => next()? + 9,
                short => short + 2,
            };
            let distance = ((control & 31) << 8 | next()?) + 1;
            input = rest.as_slice();
            let from = at.checked_sub(distance).ok_or(LzfError::Distance)?;
            let out = self.more(len)?;
            if distance >= len {
                out.copy_within(from..from + len, at);
            } else {
                repeat(&mut out[from..at + len], distance);
            }
            self.at += len;
        }
        if self.at == self.plain {
            Ok(())
        } else {
            Err(LzfError::Short)
        }
    }
}

/// Repeats the first `period` bytes of `out` all over it.
fn repeat(out: &mut [u8], period: usize) {
    if period == 1 {
        let byte = out[0];
        out.fill(byte);
        return;
    }
    let mut done = period;
    while done < out.len() {
        let more = done.min(out.len() - done);
        out.copy_within(..more, done);
        done += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(input: &[u8], plain: usize) -> Result<Vec<u8>, LzfError> {
        let mut out = b"before".to_vec();
        let result = decompress(input, plain, &mut out);
        assert_eq!(&out[..6], b"before");
        match result {
            Ok(()) => Ok(out.split_off(6)),
            Err(error) => {
                assert_eq!(out, b"before");
                Err(error)
            }
        }
    }

    #[test]
    fn literals_and_copies() {
        assert_eq!(expand(b"\x02abc", 3).unwrap(), b"abc");
        // Three bytes back, five long: overlaps itself.
        assert_eq!(expand(b"\x02abc\x60\x02", 8).unwrap(), b"abcabcab");
        // The long form, one byte back.
        assert_eq!(expand(b"\x00x\xe0\xff\x00", 265).unwrap(), [b'x'; 265]);
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(expand(b"\x02ab", 3), Err(LzfError::Input));
        assert_eq!(expand(b"\x00x\xe0", 20), Err(LzfError::Input));
        assert_eq!(expand(b"\x00x\xe0\x01", 20), Err(LzfError::Input));
        assert_eq!(expand(b"\x00x\x20", 20), Err(LzfError::Input));
        assert_eq!(expand(b"\x00x\x20\x01", 4), Err(LzfError::Distance));
        assert_eq!(expand(b"\x02abc", 2), Err(LzfError::Long));
        assert_eq!(expand(b"\x00x\x20\x00", 3), Err(LzfError::Long));
        assert_eq!(expand(b"\x02abc", 4), Err(LzfError::Short));
    }

    /// A claim that could be true, and is not: the first copy is from before the beginning.
    #[test]
    fn a_claim_is_not_allocated_before_it_is_seen() {
        let input = vec![0xff; 1 << 20];
        let mut out = Vec::new();
        let result = decompress(&input, 88 << 20, &mut out);
        assert_eq!(result, Err(LzfError::Distance));
        assert_eq!(out.capacity(), 0);
        // The output ends long before the claim.
        let mut input = b"\x00x".to_vec();
        input.resize(1 << 20, 31);
        let result = decompress(&input, 88 << 20, &mut out);
        assert_eq!(result, Err(LzfError::Input));
        assert!(
            out.is_empty() && out.capacity() < 4 << 20,
            "{}",
            out.capacity()
        );
    }

    #[test]
    fn long_outputs_grow() {
        let mut input = b"\x00x".to_vec();
        for _ in 0..1000 {
            input.extend_from_slice(b"\xe0\xff\x00");
        }
        assert_eq!(expand(&input, 264_001).unwrap(), vec![b'x'; 264_001]);
        assert_eq!(expand(&input, 264_000), Err(LzfError::Long));
        assert_eq!(expand(&input, 264_002), Err(LzfError::Short));
    }

    #[test]
    fn absurd_claims_allocate_nothing() {
        for (input, plain) in [
            (&b""[..], 1),
            (b"", 0),
            (b"\x00x", 0),
            (b"\x00x", usize::MAX),
        ] {
            assert!(matches!(
                expand(input, plain),
                Err(LzfError::Implausible { .. })
            ));
        }
    }
}
