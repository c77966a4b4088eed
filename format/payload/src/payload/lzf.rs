//! Expanding LZF, in which rdb.c stores strings of more than 20 bytes that get smaller by it.
//!
//! A control byte below 32 announces that many literal bytes and one. Any other is a copy of
//! earlier output: length in its upper three bits (7: one more byte adds to it) plus two, distance
//! in its lower five and the next byte, plus one. A copy may overlap what it produces (lzf_d.c).

/// Why a compressed string does not expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LzfError {
    /// More is claimed, or less, than these bytes can ever expand to.
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

/// Checks lengths before anything is allocated for them: three bytes make at most 264, nothing makes
/// nothing, and no two bytes make less than one.
pub(crate) fn plausible(compressed: u64, plain: u64) -> Result<(), LzfError> {
    let is_too_much = plain > compressed.saturating_mul(88);
    let is_too_little = compressed > plain.saturating_mul(2);
    if plain == 0 || is_too_much || is_too_little {
        return Err(LzfError::Implausible { compressed, plain });
    }
    Ok(())
}

/// Output that is made room for before there is any: more is only believed as it comes.
const FIRST_BYTES: usize = 64 * 1024;

/// Expands `input` to exactly `plain` bytes at the end of `out`. After an error `out` is as it was.
///
/// Memory follows what the input really expands to, not what it claims: at most twice as much.
pub(crate) fn decompress(input: &[u8], plain: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
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

/// Whether `input` expands to exactly `plain` bytes, without expanding it: so long as nobody wants to
/// see them, where each copy comes from is all that can be wrong.
pub(crate) fn expands_to(input: &[u8], plain: u64) -> bool {
    if plausible(input.len() as u64, plain).is_err() {
        return false;
    }
    let (mut rest, mut at) = (input, 0_u64);
    while let Some((&control, after)) = rest.split_first() {
        let control = usize::from(control);
        if control < 32 {
            let Some(behind) = after.get(control + 1..) else {
                return false;
            };
            (rest, at) = (behind, at + control as u64 + 1);
            continue;
        }
        let (len, low, behind) = match (control >> 5, after) {
            (7, [more, low, behind @ ..]) => (usize::from(*more) + 9, low, behind),
            (short @ 1..7, [low, behind @ ..]) => (short + 2, low, behind),
            _ => return false,
        };
        let distance = ((control & 31) << 8 | usize::from(*low)) as u64 + 1;
        if distance > at {
            return false;
        }
        (rest, at) = (behind, at + len as u64);
    }
    at == plain
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

    /// What is only followed is found whole exactly where it expands.
    #[test]
    fn following_finds_what_expanding_finds() {
        let mut state = 11_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let mut whole = 0;
        for _ in 0..200_000 {
            let mut input = Vec::new();
            let mut made = 0;
            while input.len() < 12 {
                if next() % 2 == 0 {
                    let len = next() % 5;
                    input.push(len as u8);
                    input.extend(std::iter::repeat_n(b'x', len + 1));
                    made += len + 1;
                } else {
                    let short = next() % 7 + 1;
                    input.push((short << 5) as u8 | u8::from(next() % 40 == 0));
                    let more = (short == 7).then(|| next() % 4);
                    input.extend(more.map(|more| more as u8));
                    input.push((next() % 9) as u8);
                    made += short + 2 + more.unwrap_or(0);
                }
            }
            let cut = next() % (input.len() * 4);
            input.truncate(cut);
            let plain = if next() % 8 == 0 { next() % 40 } else { made };
            let expands = expand(&input, plain).is_ok();
            assert_eq!(
                expands_to(&input, plain as u64),
                expands,
                "{input:?} {plain}"
            );
            whole += usize::from(expands);
        }
        assert!(whole > 10_000, "{whole}");
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
