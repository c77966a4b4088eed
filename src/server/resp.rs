//! Replies on the wire (RESP2 and RESP3): framing without a copy more than needed.
//!
//! Aggregates are not collected: [`Replies::next`] gives their length, and the elements follow as
//! items of their own. So a reply with a thousand payloads never exists as one value in memory.

use crate::server::reply::Reply;
use std::io::{self, Read};

/// Nesting that no server reaches; guards the recursion over replies.
const MAX_DEPTH: u32 = 32;

/// Bytes of the read buffer. Large bulks bypass it.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that the reply to a question about the server may take (INFO, TIME, CLUSTER SLOTS …).
pub const CONTROL_LIMIT: usize = 16 * 1024 * 1024;

/// Bytes that a single value may take, where nobody says less. `proto-max-bulk-len` (512 MiB) bounds
/// what a server takes, and not the payload of a large list that it sends.
pub const VALUE_LIMIT: usize = u32::MAX as usize;

/// Bytes that a reply of several elements may take when it is kept as a whole. Large values are
/// always read one by one.
const ARRAY_LIMIT: usize = 32 * 1024 * 1024;

/// A bulk that is longer than this is not even skipped: no server sends it.
const ABSURD_BYTES: u64 = 1 << 36;

/// What an item of a reply costs in memory beside its bytes.
const ITEM_OVERHEAD: usize = 64;

/// One element of a reply.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// `+OK` and the like.
    Simple(&'a [u8]),
    /// `-ERR …`, without the dash.
    Error(Vec<u8>),
    /// `:1`, also RESP3 booleans as 0 and 1.
    Int(i64),
    /// A bulk string, or RESP3's doubles, big numbers and verbatim texts as their bytes.
    Bulk(Vec<u8>),
    /// Nothing: null bulk, null array, RESP3 null.
    Nil,
    /// An array or set of so many items, which follow.
    Array(usize),
    /// A map: so many keys and values in turn (twice the number of pairs), which follow.
    Map(usize),
    /// An out-of-band push of so many items, which follow.
    Push(usize),
    /// A bulk string of so many bytes, more than was allowed. They were read and thrown away.
    TooLong(u64),
}

/// Reads replies from a stream. I/O errors pass through; what is not RESP is
/// [`io::ErrorKind::InvalidData`]; an end of stream inside a reply is `UnexpectedEof`.
#[derive(Debug)]
pub struct Replies {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }
}

impl Replies {
    /// Whether bytes were read from the stream that no item has used yet.
    pub fn has_buffered(&self) -> bool {
        self.start < self.end
    }

    /// The bytes that were read from the stream and that no item has used.
    pub fn into_buffered(self) -> Vec<u8> {
        self.buffer[self.start..self.end].to_vec()
    }

    /// The next item. A bulk of more than [`VALUE_LIMIT`] bytes is an error.
    ///
    /// # Errors
    /// See the type.
    pub fn next(&mut self, stream: &mut impl Read) -> io::Result<Item<'_>> {
        self.next_within(stream, VALUE_LIMIT, Longer::IsAnError(VALUE_LIMIT))
    }

    /// The next item; a bulk string of more than `max` bytes is skipped ([`Item::TooLong`]).
    ///
    /// # Errors
    /// See the type.
    pub fn next_or_skip(&mut self, stream: &mut impl Read, max: usize) -> io::Result<Item<'_>> {
        self.next_within(stream, max, Longer::IsSkipped)
    }

    /// Passes over this line, if it is what comes next and all of it is at hand.
    pub fn pass_over(&mut self, line: &[u8]) -> bool {
        let is_next = self.buffer[self.start..self.end].starts_with(line);
        if is_next {
            self.start += line.len();
        }
        is_next
    }

    fn next_within(
        &mut self,
        stream: &mut impl Read,
        max: usize,
        longer: Longer,
    ) -> io::Result<Item<'_>> {
        let kind = self.buffer[self.start..self.end].first();
        if let Some(&kind @ (b':' | b'$' | b'*')) = kind
            && let Some(number) = self.number_at_hand()
        {
            return match kind {
                b':' => Ok(Item::Int(number)),
                b'$' => self.bulk_or_nil(stream, length(number)?, max, longer),
                _ => Ok(length(number)?.map_or(Item::Nil, Item::Array)),
            };
        }
        self.next_of_any_kind(stream, max, longer)
    }

    /// The number of the line that is next, behind its first byte, where it is a plain one and all of
    /// it is at hand. Most are, and so many come that it counts; any other is left to be read as a line.
    fn number_at_hand(&mut self) -> Option<i64> {
        /// So many never overflow.
        const MOST_DIGITS: usize = 18;
        let (_, rest) = self.buffer[self.start..self.end].split_first()?;
        let is_negative = rest.first() == Some(&b'-');
        let digits = &rest[usize::from(is_negative)..];
        let mut number = 0;
        for (at, byte) in digits.iter().take(MOST_DIGITS + 1).enumerate() {
            match byte {
                b'0'..=b'9' if at < MOST_DIGITS => number = number * 10 + i64::from(byte - b'0'),
                b'\r' if at > 0 && digits.get(at + 1) == Some(&b'\n') => {
                    self.start += 1 + usize::from(is_negative) + at + 2;
                    return Some(if is_negative { -number } else { number });
                }
                _ => return None,
            }
        }
        None
    }

    fn bulk_or_nil(
        &mut self,
        stream: &mut impl Read,
        len: Option<usize>,
        max: usize,
        longer: Longer,
    ) -> io::Result<Item<'_>> {
        Ok(match len {
            Some(len) if len > max && longer == Longer::IsSkipped => {
                self.skip(stream, len as u64)?;
                Item::TooLong(len as u64)
            }
            Some(len) => Item::Bulk(self.bulk(stream, len, max, longer)?),
            None => Item::Nil,
        })
    }

    fn next_of_any_kind(
        &mut self,
        stream: &mut impl Read,
        max: usize,
        longer: Longer,
    ) -> io::Result<Item<'_>> {
        let (from, to) = self.line(stream)?;
        let Some((&kind, _)) = self.buffer[from..to].split_first() else {
            return Err(invalid("an empty line"));
        };
        let rest = from + 1..to;
        Ok(match kind {
            b'+' => Item::Simple(&self.buffer[rest]),
            b'-' => Item::Error(self.buffer[rest].to_vec()),
            b':' => Item::Int(self.number(rest)?),
            b'$' | b'=' => {
                let len = self.length(rest)?;
                return self.bulk_or_nil(stream, len, max, longer);
            }
            b'!' => match self.length(rest)? {
                Some(len) => Item::Error(self.bulk(stream, len, max, longer)?),
                None => Item::Nil,
            },
            b'*' | b'~' => self.length(rest)?.map_or(Item::Nil, Item::Array),
            b'>' => self.length(rest)?.map_or(Item::Nil, Item::Push),
            b'%' => match self.length(rest)? {
                Some(pairs) => Item::Map(
                    pairs
                        .checked_mul(2)
                        .ok_or_else(|| invalid("an absurd map length"))?,
                ),
                None => Item::Nil,
            },
            b'_' => Item::Nil,
            b'#' => Item::Int(i64::from(self.buffer[rest] == *b"t")),
            b',' | b'(' => Item::Bulk(self.buffer[rest].to_vec()),
            other => {
                return Err(invalid(&format!(
                    "a reply that begins with byte {other:#04x}"
                )));
            }
        })
    }

    /// The next reply as one value, of at most `max` bytes, for replies that are not keys and values.
    ///
    /// # Errors
    /// See the type.
    pub fn value(&mut self, stream: &mut impl Read, max: usize) -> io::Result<Reply> {
        self.value_at(stream, 0, &mut { max }, max)
    }

    fn value_at(
        &mut self,
        stream: &mut impl Read,
        depth: u32,
        left: &mut usize,
        max: usize,
    ) -> io::Result<Reply> {
        if depth > MAX_DEPTH {
            return Err(invalid("a reply nested too deeply"));
        }
        let item = self.next_within(stream, *left, Longer::IsAnError(max))?;
        let bytes = match &item {
            Item::Bulk(bytes) | Item::Error(bytes) => bytes.len(),
            Item::Simple(text) => text.len(),
            _ => 0,
        };
        *left = left
            .checked_sub(bytes.saturating_add(if depth > 0 { ITEM_OVERHEAD } else { 0 }))
            .ok_or_else(|| too_long(max))?;
        let (count, is_map) = match item {
            Item::Simple(b"OK") => return Ok(Reply::Okay),
            Item::Simple(text) => {
                return Ok(Reply::Status(String::from_utf8_lossy(text).into_owned()));
            }
            Item::Error(text) => {
                return Ok(Reply::Error(String::from_utf8_lossy(&text).into_owned()));
            }
            Item::Int(number) => return Ok(Reply::Int(number)),
            Item::Bulk(bytes) => return Ok(Reply::Bulk(bytes)),
            Item::Nil => return Ok(Reply::Nil),
            Item::TooLong(_) => return Err(too_long(max)),
            Item::Array(count) | Item::Push(count) => (count, false),
            Item::Map(count) => (count, true),
        };
        let max = max.min(ARRAY_LIMIT);
        *left = (*left).min(max);
        if count > *left / ITEM_OVERHEAD {
            return Err(too_long(max));
        }
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(self.value_at(stream, depth + 1, left, max)?);
        }
        if !is_map {
            return Ok(Reply::Array(items));
        }
        let mut pairs = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((key, value));
        }
        Ok(Reply::Map(pairs))
    }

    /// One line without its CRLF, as a range of the buffer.
    fn line(&mut self, stream: &mut impl Read) -> io::Result<(usize, usize)> {
        const MAX_LINE_BYTES: usize = 64 * 1024;
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread[searched..].iter().position(|&byte| byte == b'\n') {
                let newline = searched + at;
                if newline == 0 || unread[newline - 1] != b'\r' {
                    return Err(invalid("a line without carriage return"));
                }
                let from = self.start;
                self.start += newline + 1;
                return Ok((from, from + newline - 1));
            }
            searched = unread.len();
            if searched > MAX_LINE_BYTES {
                return Err(invalid("an endless line"));
            }
            self.fill(stream)?;
        }
    }

    fn fill(&mut self, stream: &mut impl Read) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.end += read;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn number(&self, range: std::ops::Range<usize>) -> io::Result<i64> {
        let digits = &self.buffer[range];
        std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| invalid("a number that is none"))
    }

    fn length(&self, range: std::ops::Range<usize>) -> io::Result<Option<usize>> {
        length(self.number(range)?)
    }

    fn bulk(
        &mut self,
        stream: &mut impl Read,
        len: usize,
        max: usize,
        longer: Longer,
    ) -> io::Result<Vec<u8>> {
        if len > max {
            return Err(match longer {
                Longer::IsAnError(limit) => too_long(limit),
                Longer::IsSkipped => too_long(max),
            });
        }
        if len < self.end - self.start {
            let bytes = self.buffer[self.start..self.start + len].to_vec();
            self.start += len;
            self.bulk_end(stream)?;
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("no memory for a value of {len} bytes"),
            )
        })?;
        let buffered = len.min(self.end - self.start);
        bytes.extend_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        let missing = len - bytes.len();
        if missing > BUFFER_BYTES / 2 {
            // `Take` reads straight into the vector's spare room.
            let read = stream.take(missing as u64).read_to_end(&mut bytes)?;
            if read < missing {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            while bytes.len() < len {
                self.fill(stream)?;
                let more = (len - bytes.len()).min(self.end - self.start);
                bytes.extend_from_slice(&self.buffer[self.start..self.start + more]);
                self.start += more;
            }
        }
        self.bulk_end(stream)?;
        Ok(bytes)
    }

    fn bulk_end(&mut self, stream: &mut impl Read) -> io::Result<()> {
        while self.end - self.start < 2 {
            self.fill(stream)?;
        }
        if self.buffer[self.start..self.start + 2] != *b"\r\n" {
            return Err(invalid("a bulk without its end"));
        }
        self.start += 2;
        Ok(())
    }

    /// Reads a bulk of `len` bytes and throws it away.
    fn skip(&mut self, stream: &mut impl Read, len: u64) -> io::Result<()> {
        if len > ABSURD_BYTES {
            return Err(invalid(&format!("a value of {len} bytes")));
        }
        let mut left = len;
        loop {
            let here = left.min((self.end - self.start) as u64);
            self.start += usize::try_from(here).unwrap_or(0);
            left -= here;
            if left == 0 {
                return self.bulk_end(stream);
            }
            self.fill(stream)?;
        }
    }
}

/// A length; `None` stands for nothing.
fn length(number: i64) -> io::Result<Option<usize>> {
    match number {
        -1 => Ok(None),
        number => usize::try_from(number)
            .map(Some)
            .map_err(|_| invalid("a negative length")),
    }
}

/// What becomes of a bulk that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Longer {
    /// Of the whole reply's limit, which the error names.
    IsAnError(usize),
    IsSkipped,
}

fn too_long(max: usize) -> io::Error {
    invalid(&format!(
        "a reply of more than {} is not taken here",
        crate::units::bytes_text(max as u64)
    ))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Appends one command in RESP to `out`.
pub fn pack(out: &mut Vec<u8>, args: &[&[u8]]) {
    pack_head(out, args.len());
    for arg in args {
        pack_arg(out, arg);
    }
}

/// Appends a command of which all but the last argument is packed already.
pub fn pack_behind(out: &mut Vec<u8>, head: &[u8], arg: &[u8]) {
    out.extend_from_slice(head);
    pack_arg(out, arg);
}

/// Appends the head of a command of `count` arguments.
pub fn pack_head(out: &mut Vec<u8>, count: usize) {
    push_line(out, b'*', count as u64);
}

/// Appends one argument.
pub fn pack_arg(out: &mut Vec<u8>, arg: &[u8]) {
    pack_len(out, arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

/// Appends the length line of an argument whose bytes are sent apart.
pub fn pack_len(out: &mut Vec<u8>, len: usize) {
    push_line(out, b'$', len as u64);
}

/// Appends a number behind what it is for. Nearly all of them are short, and so many that it counts.
fn push_line(out: &mut Vec<u8>, what: u8, number: u64) {
    let digit = |number: u64| b'0' + (number % 10) as u8;
    match number {
        0..10 => out.extend_from_slice(&[what, digit(number), b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (digit(number / 10), digit(number));
            out.extend_from_slice(&[what, tens, ones, b'\r', b'\n']);
        }
        _ => {
            out.push(what);
            push_number(out, number);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends decimal digits.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; MAX_DIGITS];
    out.extend_from_slice(digits_of(number, &mut digits));
}

/// Appends one argument: a number in decimal digits.
pub fn pack_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; MAX_DIGITS];
    pack_arg(out, digits_of(number, &mut digits));
}

/// Decimal digits of the largest number.
const MAX_DIGITS: usize = 20;

fn digits_of(mut number: u64, digits: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.split_first() {
                Some((&byte, rest)) if !out.is_empty() => {
                    out[0] = byte;
                    self.0 = rest;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }

    #[test]
    fn lengths_are_decimal() {
        for len in [0, 1, 9, 10, 11, 99, 100, 101, 65_536, usize::MAX] {
            let mut out = Vec::new();
            pack_len(&mut out, len);
            pack_head(&mut out, len);
            let want = format!("${len}\r\n*{len}\r\n");
            assert_eq!(out, want.as_bytes());
        }
    }

    const EVERY_KIND: &[u8] = b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n$0\r\n\r\n*-1\r\n%1\r\n+k\r\n_\r\n#t\r\n,1.5\r\n>1\r\n+p\r\n!3\r\nBAD\r\n";

    fn check(mut stream: impl Read) {
        let mut replies = Replies::default();
        let mut next = |want: Item<'_>| assert_eq!(replies.next(&mut stream).unwrap(), want);
        next(Item::Simple(b"OK"));
        next(Item::Error(b"ERR no".to_vec()));
        next(Item::Int(-7));
        next(Item::Bulk(b"a\r\n".to_vec()));
        next(Item::Nil);
        next(Item::Array(2));
        next(Item::Int(1));
        next(Item::Bulk(Vec::new()));
        next(Item::Nil);
        next(Item::Map(2));
        next(Item::Simple(b"k"));
        next(Item::Nil);
        next(Item::Int(1));
        next(Item::Bulk(b"1.5".to_vec()));
        next(Item::Push(1));
        next(Item::Simple(b"p"));
        next(Item::Error(b"BAD".to_vec()));
        assert_eq!(
            replies.next(&mut stream).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        check(EVERY_KIND);
        check(Trickle(EVERY_KIND));
    }

    #[test]
    fn a_bulk_larger_than_the_buffer_is_read_whole() {
        let value = vec![7u8; 3 * BUFFER_BYTES + 5];
        let mut wire = Vec::new();
        pack(&mut wire, &[&value, b"next"]);
        let mut stream = &wire[..];
        let mut replies = Replies::default();
        assert_eq!(replies.next(&mut stream).unwrap(), Item::Array(2));
        assert_eq!(replies.next(&mut stream).unwrap(), Item::Bulk(value));
        assert_eq!(
            replies.next(&mut stream).unwrap(),
            Item::Bulk(b"next".to_vec())
        );
    }

    #[test]
    fn what_is_not_resp_is_an_error() {
        for bad in [
            &b"hello\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b"\r\n",
            b"+a\n",
            b"$1\r\nabc\r\n",
            b"$99999999999999999\r\n",
        ] {
            let mut stream = bad;
            assert!(
                Replies::default().next(&mut stream).is_err(),
                "{}",
                bad.escape_ascii()
            );
        }
        let deep = b"*1\r\n".repeat(100);
        assert!(
            Replies::default()
                .value(&mut &deep[..], CONTROL_LIMIT)
                .is_err()
        );
    }

    #[test]
    fn numbers_are_read_up_to_the_largest() {
        for number in [i64::MAX, i64::MIN, 999_999_999_999_999_999, 0] {
            let wire = format!(":{number}\r\n");
            assert_eq!(
                Replies::default().next(&mut wire.as_bytes()).unwrap(),
                Item::Int(number)
            );
        }
        for bad in [
            &b":9999999999999999999\r\n"[..],
            b":-9223372036854775809\r\n",
            b"$99999999999999999999\r\n",
        ] {
            let mut bytes = bad;
            assert!(Replies::default().next(&mut bytes).is_err(), "{bad:?}");
        }
    }

    /// Whatever is claimed, and however much comes: no more than the limit is kept.
    #[test]
    fn replies_are_bounded() {
        let limit = 64 * 1024;
        let bulk = [&b"$70000\r\n"[..], &[b'x'; 70_000], b"\r\n+next\r\n"].concat();
        let short = [&b"*2\r\n$60000\r\n"[..], &[b'x'; 60_000], b"\r\n:1\r\n"].concat();
        let long = [&b"*2\r\n$60000\r\n"[..], &[b'x'; 60_000], b"\r\n$6000\r\n"].concat();
        let many = b"*1000000000\r\n:1\r\n";
        let endless = [&b"*1000\r\n"[..], &b"*1000\r\n:1\r\n".repeat(100)].concat();
        let value = |wire: &[u8]| Replies::default().value(&mut &wire[..], limit);
        assert!(value(&short).is_ok());
        for wire in [&bulk[..], &long, many, &endless] {
            let error = value(wire).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(error.to_string().contains("64.0 KiB"), "{error}");
        }
        let mut stream = &bulk[..];
        let mut replies = Replies::default();
        let item = replies.next_or_skip(&mut stream, limit).unwrap();
        assert_eq!(item, Item::TooLong(70_000));
        assert_eq!(replies.next(&mut stream).unwrap(), Item::Simple(b"next"));
        let absurd = b"$4611686018427387904\r\n";
        assert!(
            Replies::default()
                .next_or_skip(&mut &absurd[..], limit)
                .is_err()
        );
        assert!(
            Replies::default()
                .next(&mut &b"$4294967296\r\n"[..])
                .is_err()
        );
    }

    #[test]
    fn errors_inside_values_are_told_from_texts() {
        let mut replies = Replies::default();
        let value = replies
            .value(&mut &b"*2\r\n-NOPERM x\r\n+fine\r\n"[..], CONTROL_LIMIT)
            .unwrap();
        let Reply::Array(items) = value else { panic!() };
        assert_eq!(items[0], Reply::Error("NOPERM x".to_owned()));
    }

    #[test]
    fn commands_are_packed_like_the_redis_crate_packs_them() {
        let mut ours = Vec::new();
        pack(&mut ours, &[b"SET", b"k\r\n", b""]);
        let theirs = redis::cmd("SET").arg(b"k\r\n").arg("").get_packed_command();
        assert_eq!(ours, theirs);
    }
}
