//! Requests as bytes: where one ends, and what its words are.

/// What the bytes at the front of a client's input are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Not all there yet.
    Partial,
    /// The words' places in the input, and where the request ends.
    Words(Vec<std::ops::Range<usize>>, usize),
    /// It breaks the protocol: the client is told, and the connection closed.
    Broken(String),
}

const MAX_WORDS: i64 = 1024 * 1024;
const MAX_INLINE: usize = 64 * 1024;

/// Reads the request at the front of `input`; bulk strings may have `max_bulk` bytes.
pub(super) fn read(input: &[u8], max_bulk: u64) -> Request {
    match input.first() {
        None => Request::Partial,
        Some(b'*') => multi_bulk(input, max_bulk),
        Some(_) => inline(input),
    }
}

fn line_end(input: &[u8], at: usize) -> Option<usize> {
    let found = input[at..].iter().position(|&byte| byte == b'\r')?;
    (input.len() > at + found + 1).then_some(at + found)
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn multi_bulk(input: &[u8], max_bulk: u64) -> Request {
    let broken = |text: &str| Request::Broken(format!("ERR Protocol error: {text}"));
    let Some(end) = line_end(input, 1) else {
        return match input.len() > MAX_INLINE {
            true => broken("too big mbulk count string"),
            false => Request::Partial,
        };
    };
    let count = match number(&input[1..end]) {
        Some(count) if count <= MAX_WORDS => count,
        _ => return broken("invalid multibulk length"),
    };
    let mut at = end + 2;
    let mut words = Vec::with_capacity(count.max(0) as usize);
    for _ in 0..count {
        match input.get(at) {
            None => return Request::Partial,
            Some(b'$') => {}
            Some(&other) => {
                return broken(&format!("expected '$', got '{}'", other as char));
            }
        }
        let Some(end) = line_end(input, at + 1) else {
            return Request::Partial;
        };
        let length = match number(&input[at + 1..end]) {
            Some(length) if length >= 0 && length as u64 <= max_bulk => length as usize,
            _ => return broken("invalid bulk length"),
        };
        let start = end + 2;
        if input.len() < start + length + 2 {
            return Request::Partial;
        }
        words.push(start..start + length);
        at = start + length + 2;
    }
    Request::Words(words, at)
}

fn inline(input: &[u8]) -> Request {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
        return match input.len() > MAX_INLINE {
            true => Request::Broken("ERR Protocol error: too big inline request".to_owned()),
            false => Request::Partial,
        };
    };
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in input[..=end].iter().enumerate() {
        match (byte.is_ascii_whitespace(), start) {
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    Request::Words(words, end + 1)
}
