//! Where the commands of a stream end, without regard for what they mean.

use std::ops::Range;

/// The first whole command of `bytes`: where its words are, and its end. Replies that are sent as
/// lines (inline commands) are whole when their line is.
pub(super) fn first(bytes: &[u8], words: &mut Vec<Range<usize>>) -> Option<usize> {
    words.clear();
    if *bytes.first()? != b'*' {
        let end = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        words.push(0..end);
        return Some(end);
    }
    let (count, mut at) = number(bytes, 1)?;
    for _ in 0..count {
        if *bytes.get(at)? != b'$' {
            // Let the server say what is wrong.
            return Some(bytes.len());
        }
        let (len, start) = number(bytes, at + 1)?;
        let end = start + len;
        if bytes.len() < end + 2 {
            return None;
        }
        words.push(start..end);
        at = end + 2;
    }
    Some(at)
}

fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut number = 0usize;
    let mut at = at;
    loop {
        match *bytes.get(at)? {
            b'\r' => {
                bytes.get(at + 1)?;
                return Some((number, at + 2));
            }
            digit => number = number * 10 + usize::from(digit.wrapping_sub(b'0') % 10),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn a_command_is_whole_or_not_there() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
        let mut words = Vec::new();
        for end in 0..20 {
            assert_eq!(first(&bytes[..end], &mut words), None, "{end}");
        }
        assert_eq!(first(bytes, &mut words), Some(20));
        assert_eq!(&bytes[words[0].clone()], b"GET");
        assert_eq!(first(&bytes[20..], &mut words), Some(6));
    }
}
