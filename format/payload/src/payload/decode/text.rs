//! Strings of a value, in any of their encodings.

use std::borrow::Cow;

use super::packed::{Blob, decimal};
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::lzf;
use crate::payload::object::Bytes;
use crate::payload::source::{Slice, Source};
use crate::payload::walk::{Head, compressed_lengths, head};

/// Takes a string. Integers become their decimal text, compressed strings are expanded.
#[inline]
pub(crate) fn text<'a>(source: &mut Slice<'a>) -> Result<Bytes<'a>, PayloadError> {
    match head(source)? {
        Head::Plain(len) => Ok(Cow::Borrowed(source.take(len)?)),
        Head::Encoded(code) => encoded(source, code).map(Cow::Owned),
    }
}

fn encoded(source: &mut Slice<'_>, code: u8) -> Result<Vec<u8>, PayloadError> {
    let number = match code {
        0 => i8::from_le_bytes(source.array()?).into(),
        1 => i16::from_le_bytes(source.array()?).into(),
        2 => i32::from_le_bytes(source.array()?),
        3 => {
            let (compressed, plain) = compressed_lengths(source)?;
            let at = source.position();
            let packed = source.take(compressed)?;
            let damaged = |error: lzf::LzfError| PayloadError::new(at, error.into());
            let len = usize::try_from(plain)
                .map_err(|_| damaged(lzf::LzfError::Implausible { compressed, plain }))?;
            let mut out = Vec::new();
            lzf::decompress(packed, len, &mut out).map_err(damaged)?;
            return Ok(out);
        }
        other => return Err(source.error(ErrorKind::BadEncoding(other))),
    };
    Ok(decimal(number.into()))
}

/// How long the string that comes next is once expanded. Nothing is taken.
pub(super) fn expanded_len(source: &Slice<'_>) -> Result<u64, PayloadError> {
    let source = &mut source.clone();
    match head(source)? {
        Head::Plain(len) => Ok(len),
        Head::Encoded(3) => Ok(compressed_lengths(source)?.1),
        // An integer.
        Head::Encoded(_) => Ok(0),
    }
}

/// Takes a string that is to be read on.
pub(super) fn blob<'a>(source: &mut Slice<'a>) -> Result<Blob<'a>, PayloadError> {
    let start = source.position();
    let bytes = text(source)?;
    let offset = match bytes {
        Cow::Borrowed(bytes) => source.position() - bytes.len() as u64,
        Cow::Owned(_) => start,
    };
    Ok(Blob::new(bytes, offset))
}
