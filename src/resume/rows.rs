//! The records of which state files and journals are made: each with its length, its kind and its
//! checksum, so that what a kill left half written is told from what is whole.

use std::io::{self, Read};

use crate::payload::crc64::crc64;
use crate::record::Mark;

/// Bodies are at most so long: anything longer is not ours.
pub(super) const MAX_BODY: usize = 1 << 20;

/// Puts rows of one kind, a bounded number of bytes at a time.
pub(super) fn put_all<T>(
    out: &mut Vec<u8>,
    kind: u8,
    rows: &[T],
    put_row: impl Fn(&T, &mut Vec<u8>),
) {
    let (mut body, mut row) = (Vec::new(), Vec::new());
    for one in rows {
        row.clear();
        put_row(one, &mut row);
        if !body.is_empty() && body.len() + row.len() > MAX_BODY {
            put(out, kind, &body);
            body.clear();
        }
        body.extend_from_slice(&row);
    }
    if !body.is_empty() {
        put(out, kind, &body);
    }
}

/// A mark, as records hold it.
pub(super) fn mark_bytes(mark: Mark) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&mark.archive.to_le_bytes());
    bytes[4..].copy_from_slice(&mark.frame.to_le_bytes());
    bytes
}

/// The mark at the beginning of a body, and what is behind it.
pub(super) fn mark_of(body: &[u8]) -> Option<(Mark, &[u8])> {
    let (archive, rest) = body.split_first_chunk()?;
    let (frame, rest) = rest.split_first_chunk()?;
    let mark = Mark {
        archive: u32::from_le_bytes(*archive),
        frame: u64::from_le_bytes(*frame),
    };
    Some((mark, rest))
}

/// Appends one record.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let from = out.len();
    out.push(kind);
    out.extend_from_slice(body);
    let crc = crc64(&out[from..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The next record: its kind and its length in the file; `None` at the end of what is whole.
pub(super) fn take(reader: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<(u8, u64)>> {
    let mut len = [0; 4];
    if !fill(reader, &mut len)? {
        return Ok(None);
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_BODY {
        return Ok(None);
    }
    body.resize(1 + len + 8, 0);
    if !fill(reader, body)? {
        return Ok(None);
    }
    let (record, crc) = body.split_at(1 + len);
    if crc64(record).to_le_bytes() != crc {
        return Ok(None);
    }
    let kind = body[0];
    body.truncate(1 + len);
    body.remove(0);
    Ok(Some((kind, 4 + 1 + len as u64 + 8)))
}

fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
