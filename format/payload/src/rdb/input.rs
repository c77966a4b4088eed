//! The bytes of an RDB stream: buffered, counted, summed up, and recorded where they are a value.
//!
//! A claimed length is never allocated: what is recorded grows with what really arrives.

use std::io::{self, Read};

use super::envelope::Envelope;
use super::error::{Fault, RdbErrorKind};
use crate::payload::crc64::Crc64;
use crate::payload::{ErrorKind, PayloadError, Source, lzf, write};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of a large string that are read at a time, around the buffer.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A reader that knows where it is and what the checksum of everything taken is.
pub(super) struct Input<R: Read> {
    reader: Envelope<R>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offset of the buffer's first byte in the stream.
    base: u64,
    /// From where on the bytes of the buffer are not in the checksum yet.
    summed: usize,
    crc: Crc64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: Envelope::new(reader),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            base: 0,
            summed: 0,
            crc: Crc64::new(),
        }
    }

    /// What is read from; `None` after an envelope could not be opened.
    pub(super) fn get_mut(&mut self) -> Option<&mut R> {
        self.reader.get_mut()
    }

    /// See [`Envelope::has_checksum`].
    pub(super) fn envelope_has_checksum(&self) -> Option<bool> {
        self.reader.has_checksum()
    }

    /// Bytes taken.
    pub(super) fn position(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Checksum of all bytes taken.
    pub(super) fn checksum(&mut self) -> u64 {
        self.sum();
        self.crc.clone().finish()
    }

    fn sum(&mut self) {
        self.crc.update(&self.buffer[self.summed..self.start]);
        self.summed = self.start;
    }

    pub(super) fn fault(&self, kind: RdbErrorKind) -> Fault {
        Fault {
            offset: self.position(),
            kind,
        }
    }

    /// Fills the empty buffer; `false` at the end of the stream.
    fn refill(&mut self) -> Result<bool, Fault> {
        self.sum();
        self.base += self.end as u64;
        (self.start, self.end, self.summed) = (0, 0, 0);
        self.end = self.read_some()?;
        Ok(self.end > 0)
    }

    fn read_some(&mut self) -> Result<usize, Fault> {
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault(error.into())),
            }
        }
    }

    /// See [`Envelope::behind`].
    pub(super) fn behind_envelope(&mut self, most: u64) -> Result<Vec<u8>, Fault> {
        let found = self.reader.behind(most);
        found.map_err(|error| self.fault(error.into()))
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.start == self.end && !self.refill()?)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        if self.start == self.end && !self.refill()? {
            return Err(self.fault(RdbErrorKind::Truncated));
        }
        let byte = self.buffer[self.start];
        self.start += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        if let Some(&array) = self.buffer[self.start..self.end].first_chunk::<N>() {
            self.start += N;
            return Ok(array);
        }
        let mut array = [0; N];
        for byte in &mut array {
            *byte = self.byte()?;
        }
        Ok(array)
    }

    /// Takes `len` bytes to the end of `out`.
    pub(super) fn take(&mut self, mut len: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            let here = (self.end - self.start).min(usize::try_from(len).unwrap_or(usize::MAX));
            out.extend_from_slice(&self.buffer[self.start..self.start + here]);
            self.start += here;
            len -= here as u64;
            if len == 0 {
                return Ok(());
            }
            if len >= CHUNK_BYTES {
                let chunk = self.take_around(CHUNK_BYTES, out)?;
                len -= chunk;
            } else if !self.refill()? {
                return Err(self.fault(RdbErrorKind::Truncated));
            }
        }
    }

    /// Takes up to `len` bytes past the buffer, which is empty.
    fn take_around(&mut self, len: u64, out: &mut Vec<u8>) -> Result<u64, Fault> {
        self.sum();
        let from = out.len();
        let result = self.reader.by_ref().take(len).read_to_end(out);
        let read = (out.len() - from) as u64;
        self.crc.update(&out[from..]);
        self.base += read;
        match result {
            Ok(_) if read > 0 => Ok(read),
            Ok(_) => Err(self.fault(RdbErrorKind::Truncated)),
            Err(error) => Err(self.fault(error.into())),
        }
    }

    /// Takes `len` bytes for a look; copied only if they do not stand in the buffer.
    fn look<T>(&mut self, len: u64, look: impl FnOnce(&[u8]) -> T) -> Result<T, Fault> {
        let buffered = &self.buffer[self.start..self.end];
        if let Some(bytes) = usize::try_from(len)
            .ok()
            .and_then(|len| buffered.get(..len))
        {
            self.start += bytes.len();
            return Ok(look(bytes));
        }
        let mut bytes = Vec::new();
        self.take(len, &mut bytes)?;
        Ok(look(&bytes))
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<(), Fault> {
        loop {
            let here = (self.end - self.start).min(usize::try_from(len).unwrap_or(usize::MAX));
            self.start += here;
            len -= here as u64;
            if len == 0 {
                return Ok(());
            }
            if !self.refill()? {
                return Err(self.fault(RdbErrorKind::Truncated));
            }
        }
    }

    /// A length (rdb.c, rdbLoadLen).
    pub(super) fn length(&mut self) -> Result<u64, Fault> {
        crate::payload::walk::length(&mut Take::nothing(self))
    }

    /// A string, whatever its encoding, as its plain bytes (rdb.c, rdbGenericLoadStringObject); `None`
    /// for one of more than `limit` bytes, which is passed over.
    pub(super) fn string_within(&mut self, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let at = self.position();
        let damaged = |kind: ErrorKind| Fault::from(PayloadError::new(at, kind));
        let first = self.byte()?;
        let len = match first {
            0xc0 => {
                let [byte] = self.array()?;
                return Ok(Some(i8::from_le_bytes([byte]).to_string().into_bytes()));
            }
            0xc1 => {
                let number = i16::from_le_bytes(self.array()?);
                return Ok(Some(number.to_string().into_bytes()));
            }
            0xc2 => {
                let number = i32::from_le_bytes(self.array()?);
                return Ok(Some(number.to_string().into_bytes()));
            }
            0xc3 => return self.compressed_within(limit, at),
            0..0x40 => first.into(),
            0x40..0x80 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            0x80 => u32::from_be_bytes(self.array()?).into(),
            0x81 => u64::from_be_bytes(self.array()?),
            0x82..0xc0 => return Err(damaged(ErrorKind::BadLength(first))),
            other => return Err(damaged(ErrorKind::BadEncoding(other & 0x3f))),
        };
        if len > limit {
            self.skip(len)?;
            return Ok(None);
        }
        let mut out = Vec::new();
        self.take(len, &mut out)?;
        Ok(Some(out))
    }

    /// A compressed string, its first byte taken, which stood at `at`.
    fn compressed_within(&mut self, limit: u64, at: u64) -> Result<Option<Vec<u8>>, Fault> {
        let damaged = |kind: ErrorKind| Fault::from(PayloadError::new(at, kind));
        let (compressed, plain) = (self.length()?, self.length()?);
        lzf::plausible(compressed, plain).map_err(|error| damaged(error.into()))?;
        if plain > limit {
            self.skip(compressed)?;
            return Ok(None);
        }
        let plain = usize::try_from(plain).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        self.look(compressed, |packed| {
            lzf::decompress(packed, plain, &mut out)
        })?
        .map_err(|error| damaged(error.into()))?;
        Ok(Some(out))
    }
}

/// What becomes of the bytes that the walker takes.
enum Record<'a> {
    Nothing,
    Verbatim(&'a mut Vec<u8>),
    /// Compressed strings are expanded, as [`compact`](crate::payload::compact) does.
    Compact(&'a mut Vec<u8>),
}

/// The walker's view of an input.
pub(super) struct Take<'i, 'o, R: Read> {
    input: &'i mut Input<R>,
    record: Record<'o>,
    limit: u64,
    is_over: bool,
}

impl<'i, 'o, R: Read> Take<'i, 'o, R> {
    /// Takes, and keeps nothing.
    pub(super) fn nothing(input: &'i mut Input<R>) -> Self {
        Self {
            input,
            record: Record::Nothing,
            limit: u64::MAX,
            is_over: false,
        }
    }

    /// Appends what it takes to `out`, as long as that holds `limit` bytes at most.
    pub(super) fn verbatim(input: &'i mut Input<R>, out: &'o mut Vec<u8>, limit: u64) -> Self {
        Self {
            input,
            record: Record::Verbatim(out),
            limit,
            is_over: false,
        }
    }

    /// As [`Self::verbatim`], compressed strings expanded.
    pub(super) fn compact(input: &'i mut Input<R>, out: &'o mut Vec<u8>, limit: u64) -> Self {
        Self {
            input,
            record: Record::Compact(out),
            limit,
            is_over: false,
        }
    }

    /// Whether more came than `out` may hold: then nothing was kept.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Makes sure that `out` may hold so much more; otherwise nothing is kept from now on.
    #[inline]
    fn room(&mut self, len: u64) {
        if let Record::Verbatim(out) | Record::Compact(out) = &mut self.record
            && (out.len() as u64).saturating_add(len) > self.limit
        {
            **out = Vec::new();
            self.record = Record::Nothing;
            self.is_over = true;
        }
    }
}

impl<R: Read> Source for Take<'_, '_, R> {
    type Error = Fault;

    fn position(&self) -> u64 {
        self.input.position()
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.input.byte()?;
        self.room(1);
        if let Record::Verbatim(out) | Record::Compact(out) = &mut self.record {
            out.push(byte);
        }
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let array = self.input.array()?;
        self.room(N as u64);
        if let Record::Verbatim(out) | Record::Compact(out) = &mut self.record {
            out.extend_from_slice(&array);
        }
        Ok(array)
    }

    #[inline]
    fn pass(&mut self, len: u64) -> Result<(), Fault> {
        self.room(len);
        match &mut self.record {
            Record::Nothing => self.input.skip(len),
            Record::Verbatim(out) | Record::Compact(out) => self.input.take(len, out),
        }
    }

    fn pass_compressed(&mut self, header: usize, compressed: u64, plain: u64) -> Result<(), Fault> {
        if matches!(self.record, Record::Compact(_)) {
            self.room(plain);
        }
        let Record::Compact(out) = &mut self.record else {
            return self.pass(compressed);
        };
        let at = self.input.position();
        // The header stands in `out` already; it is another one now.
        out.truncate(out.len() - header);
        write::length(out, plain);
        let plain = usize::try_from(plain).unwrap_or(usize::MAX);
        self.input
            .look(compressed, |packed| lzf::decompress(packed, plain, out))?
            .map_err(|error| PayloadError::new(at, error.into()).into())
    }
}
