//! RESP2 and RESP3 as bytes: where one command, or one reply, ends.

/// Where the line that starts at `at` ends, its CRLF included.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
    Some(at + found + 2)
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.trim_end().parse().ok()
}

/// Where the value that starts at `at` ends; `None` while it is not all there.
pub fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    let kind = *bytes.get(at)?;
    let mut end = line_end(bytes, at)?;
    let count = || number(&bytes[at + 1..end - 2]);
    let members = match kind {
        b'$' | b'=' | b'!' => {
            if let Some(length) = count().and_then(|length| usize::try_from(length).ok()) {
                end += length + 2;
            }
            return (end <= bytes.len()).then_some(end);
        }
        b'*' | b'~' | b'>' => count().unwrap_or(0),
        b'%' | b'|' => 2 * count().unwrap_or(0),
        _ => 0,
    };
    for _ in 0..members {
        end = value_end(bytes, end)?;
    }
    // An attribute stands before the value that it belongs to.
    if kind == b'|' {
        end = value_end(bytes, end)?;
    }
    Some(end)
}

/// The elements of an array, as bytes of their own; `None` if it is none.
pub fn elements(array: &[u8]) -> Option<Vec<&[u8]>> {
    if array.first() != Some(&b'*') {
        return None;
    }
    let mut at = line_end(array, 0)?;
    let count = usize::try_from(number(&array[1..at - 2])?).ok()?;
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let end = value_end(array, at)?;
        found.push(&array[at..end]);
        at = end;
    }
    Some(found)
}

/// The content of a bulk string.
pub fn bulk(value: &[u8]) -> Option<&[u8]> {
    if value.first() != Some(&b'$') {
        return None;
    }
    let at = line_end(value, 0)?;
    let length = usize::try_from(number(&value[1..at - 2])?).ok()?;
    value.get(at..at + length)
}

/// The arguments of the command that `bytes` begin with, and how many bytes it takes.
pub fn command(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let end = value_end(bytes, 0)?;
    let arguments = match elements(&bytes[..end]) {
        Some(parts) => parts
            .into_iter()
            .filter_map(bulk)
            .map(<[u8]>::to_vec)
            .collect(),
        // Inline, as people type it.
        None => {
            let words = bytes[..end].split(u8::is_ascii_whitespace);
            words
                .filter(|word| !word.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        }
    };
    Some((arguments, end))
}

/// A bulk string of these bytes.
pub fn to_bulk(content: &[u8]) -> Vec<u8> {
    let head = format!("${}\r\n", content.len());
    [head.as_bytes(), content, b"\r\n"].concat()
}
