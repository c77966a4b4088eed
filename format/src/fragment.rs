//! FRAGMENT frames: the parts of one DATA body that is too large for a frame, and their joining.

use crate::body::too_large;
use crate::error::{Error, Position, Result};
use crate::limits::{Limits, MAX_JOINED_LEN};
use crate::wire::{self, FragmentHead};

/// Joins a run straight into one buffer, since that may be nearly all of the memory there is.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    joined: Vec<u8>,
    next_part: u32,
    total_len: Option<u64>,
}

impl Joiner {
    /// Appends a part after checking that it is the one that is due; true if it was the last.
    pub(crate) fn push(&mut self, body: &[u8], at: Position, limits: &Limits) -> Result<bool> {
        let damaged = |field, what: String| Error::damaged(Position { field, ..at }, what);
        let (head, bytes) = split(body).map_err(|what| damaged("fragment head", what))?;
        if head.part != self.next_part {
            let what = format!(
                "part {} stands where part {} was due",
                head.part, self.next_part
            );
            return Err(damaged("part", what));
        }
        let total_len = *self.total_len.get_or_insert(head.total_len);
        if head.total_len != total_len || total_len > MAX_JOINED_LEN {
            return Err(damaged(
                "total_len",
                format!("a total length of {} bytes", head.total_len),
            ));
        }
        // Key, lengths and CONTEXT come on top of the value; they are not what the limit is about.
        const AROUND_VALUE: u64 = 1 << 20;
        if total_len > limits.max_value_bytes.saturating_add(AROUND_VALUE) {
            return Err(too_large(at, total_len, limits));
        }
        let left = total_len - self.joined.len() as u64;
        let len = bytes.len() as u64;
        if len == 0 || len > left || head.last != (len == left) {
            let what = format!("a part of {len} bytes where {left} are left of the whole");
            return Err(damaged("part", what));
        }
        // Grows by doubling as parts arrive, and never beyond the whole: a claim buys nothing.
        if self.joined.capacity() - self.joined.len() < bytes.len() {
            let double = self.joined.len().max(bytes.len()) as u64;
            self.joined.reserve_exact(double.min(left) as usize);
        }
        self.joined.extend_from_slice(bytes);
        self.next_part += 1;
        Ok(head.last)
    }

    /// How many parts were joined: the number of the part that is due.
    pub(crate) fn parts(&self) -> u32 {
        self.next_part
    }

    /// The joined body.
    pub(crate) fn into_body(self) -> Vec<u8> {
        self.joined
    }
}

/// Which part of its run a body is.
pub(crate) fn part_of(body: &[u8]) -> Result<u32, String> {
    split(body).map(|(head, _)| head.part)
}

/// Head and bytes of a FRAGMENT body: `length of the head · head · bytes`.
fn split(body: &[u8]) -> Result<(FragmentHead, &[u8]), String> {
    // A head is shorter than 251 bytes, now and later, so that its length is one byte.
    let Some((&len, rest)) = body.split_first() else {
        return Err("it is empty".into());
    };
    match rest.split_at_checked(usize::from(len)) {
        Some((head, bytes)) if len < 251 => Ok((wire::decode_fragment_head(head)?, bytes)),
        _ => Err(format!("a head of {len} bytes in a body of {}", body.len())),
    }
}
