//! The compact form of a value: the same bytes with every LZF string written out plainly, because
//! the archive's own compression does better on that, and on many values at once.

use redis_migrate_format::record::Family;

use super::decode::{compact_template, is_template};
use super::error::{ErrorKind, PayloadError};
use super::metadata::{plain, type_byte};
use super::source::{Slice, Source};
use super::walk::{module_items, walk};
use super::{lzf, write};
use crate::dialect::Encoding;

/// Appends the compact form of `body` (type byte first, no footer) to `out`. The value is walked
/// completely, and must end where `body` does.
///
/// Values of modules and of unknown types are [`ErrorKind::Opaque`]: they can only be kept as they
/// came. After any error `out` is as it was.
pub fn compact(body: &[u8], family: Family, out: &mut Vec<u8>) -> Result<(), PayloadError> {
    compact_within(body, family, u64::MAX, out)
}

/// As [`compact`], but [`ErrorKind::TooLarge`] before more than `limit` bytes are appended: up to
/// 88 times as long can a value of nothing but compressed strings become.
pub fn compact_within(
    body: &[u8],
    family: Family,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    let start = out.len();
    let result = copy(body, family, limit, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The same, of items that a module wrote, up to their end mark.
pub(super) fn compact_items(items: &[u8], out: &mut Vec<u8>) -> Result<(), PayloadError> {
    let mut source = Expand {
        slice: Slice::new(items),
        body: items,
        copied: 0,
        start: out.len(),
        limit: u64::MAX,
        out,
    };
    module_items(&mut source)?;
    source.slice.end()?;
    source.flush(items.len(), 0)
}

fn copy(body: &[u8], family: Family, limit: u64, out: &mut Vec<u8>) -> Result<(), PayloadError> {
    if let Some(type_byte) = type_byte(family, body)
        && Encoding::of(family, type_byte).is_none_or(|encoding| encoding == Encoding::Module)
    {
        return Err(PayloadError::new(0, ErrorKind::Opaque(type_byte)));
    }
    let value = plain(family, body);
    if let Some(encoding) = value
        .first()
        .and_then(|&type_byte| Encoding::of(family, type_byte))
        && is_template(encoding)
    {
        let metadata = &body[..body.len() - value.len()];
        out.extend_from_slice(metadata);
        let limit = limit.saturating_sub(metadata.len() as u64);
        return compact_template(encoding, value, limit, out);
    }
    let start = out.len();
    let mut source = Expand {
        slice: Slice::new(body),
        body,
        copied: 0,
        start,
        limit,
        out,
    };
    walk(&mut source, family)?;
    source.slice.end()?;
    source.flush(body.len(), 0)
}

/// Copies in as long runs as can be: up to the next compressed string.
struct Expand<'a, 'o> {
    slice: Slice<'a>,
    body: &'a [u8],
    copied: usize,
    start: usize,
    limit: u64,
    out: &'o mut Vec<u8>,
}

impl Expand<'_, '_> {
    /// Copies what stands before `end` and is not copied yet; `more` bytes come after it.
    fn flush(&mut self, end: usize, more: u64) -> Result<(), PayloadError> {
        let run = &self.body[self.copied..end];
        let appended = (self.out.len() - self.start + run.len()) as u64;
        if appended.saturating_add(more) > self.limit {
            return Err(self.error(ErrorKind::TooLarge(self.limit)));
        }
        self.out.extend_from_slice(run);
        self.copied = end;
        Ok(())
    }
}

impl Source for Expand<'_, '_> {
    type Error = PayloadError;

    fn position(&self) -> u64 {
        self.slice.position()
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, PayloadError> {
        self.slice.byte()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        self.slice.array()
    }

    #[inline]
    fn pass(&mut self, len: u64) -> Result<(), PayloadError> {
        self.slice.pass(len)
    }

    fn pass_compressed(
        &mut self,
        header: usize,
        compressed: u64,
        plain: u64,
    ) -> Result<(), PayloadError> {
        let at = self.slice.at();
        let packed = self.slice.take(compressed)?;
        let damaged = |error: lzf::LzfError| PayloadError::new(at as u64, error.into());
        let len = usize::try_from(plain)
            .map_err(|_| damaged(lzf::LzfError::Implausible { compressed, plain }))?;
        self.flush(at - header, plain)?;
        write::length(self.out, plain);
        lzf::decompress(packed, len, self.out).map_err(damaged)?;
        self.copied = self.slice.at();
        Ok(())
    }
}
