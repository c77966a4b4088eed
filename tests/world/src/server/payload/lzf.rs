//! LZF, as strings in payloads are compressed.

/// The bytes; `None` if they are not `length` or the input is damaged.
pub(super) fn expand(input: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(length.min(1 << 20));
    let mut at = 0;
    while at < input.len() {
        let control = usize::from(input[at]);
        at += 1;
        if control < 32 {
            out.extend_from_slice(input.get(at..at + control + 1)?);
            at += control + 1;
            continue;
        }
        let mut count = control >> 5;
        if count == 7 {
            count += usize::from(*input.get(at)?);
            at += 1;
        }
        let back = (control & 31) << 8 | usize::from(*input.get(at)?);
        at += 1;
        let from = out.len().checked_sub(back + 1)?;
        for at in from..from + count + 2 {
            out.push(out[at]);
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}
