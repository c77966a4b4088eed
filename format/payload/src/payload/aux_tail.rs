//! The aux field that KeyDB puts between a value and its footer: `FA "mvcc-tstamp" "number"`, when the
//! value was last changed (cluster.cpp, createDumpPayload). No other server has a use for it, and
//! nothing that reads a value to its exact end takes it.

use super::footer::{sign, split};
use crate::dialect::Opcode;

/// The name, as an RDB string.
const NAME: &[u8] = b"\x0bmvcc-tstamp";

/// A string of the longest number there is, with its length before it.
const MAX_NUMBER: usize = 21;

/// The payload without the aux field, with a footer of the same version. One that has none, or whose
/// checksum is wrong, is left as it is.
pub fn without_aux(dump: Vec<u8>) -> Vec<u8> {
    let cut = split(&dump)
        .ok()
        .and_then(|(body, version)| Some(sign(cut(body)?, version)));
    cut.unwrap_or(dump)
}

fn cut(body: &[u8]) -> Option<&[u8]> {
    let head = [&[Opcode::Aux.byte()], NAME].concat();
    let from = body.len().saturating_sub(head.len() + MAX_NUMBER);
    let tail = &body[from..];
    let mut places = tail.windows(head.len()).enumerate();
    let (at, _) = places.rfind(|(at, window)| {
        *window == head.as_slice() && is_one_number(&tail[at + head.len()..])
    })?;
    Some(&body[..from + at])
}

/// Whether this is exactly one RDB string that is a number: digits, or one of the three packed forms.
fn is_one_number(rest: &[u8]) -> bool {
    match rest.split_first() {
        Some((0xC0, number)) => number.len() == 1,
        Some((0xC1, number)) => number.len() == 2,
        Some((0xC2, number)) => number.len() == 4,
        Some((&len, digits)) => {
            digits.len() == usize::from(len) && digits.iter().all(u8::is_ascii_digit)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aux_field_is_cut_off_and_nothing_else() {
        let plain = sign(b"\x00\x05hello", 9);
        for number in [
            &b"\x131871646719795724288"[..],
            b"\xc0\x00",
            b"\xc1\x00\x01",
            b"\xc2\x00\x00\x01\x00",
            b"\x0212",
        ] {
            let dump = sign(&[b"\x00\x05hello\xfa\x0bmvcc-tstamp", number].concat(), 9);
            assert_eq!(without_aux(dump), plain);
        }
        assert_eq!(without_aux(plain.clone()), plain);
        // A value that ends so by itself, and the field behind it.
        let twice = b"\x00\x0f\xfa\x0bmvcc-tstamp\x011\xfa\x0bmvcc-tstamp\x012";
        let once = sign(&twice[..17], 9);
        assert_eq!(without_aux(sign(twice, 9)), once);
        for odd in [
            &b"\x00\x01a\xfa\x0bmvcc-tstamp"[..],
            b"\x00\x01a\xfa\x0bmvcc-tstamp\x01x",
            b"\x00\x01a\xfa\x0bmvcc-tstamp\x0112",
            b"",
        ] {
            let dump = sign(odd, 9);
            assert_eq!(without_aux(dump.clone()), dump);
        }
        let mut broken = sign(b"\x00\x01a\xfa\x0bmvcc-tstamp\x011", 9);
        broken[2] ^= 1;
        assert_eq!(without_aux(broken.clone()), broken);
    }
}
