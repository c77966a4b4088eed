//! Where the walker gets a value's bytes from.

use std::io::{self, Read};

use super::error::{ErrorKind, PayloadError};
use super::lzf;

/// How much room a claimed length may ask for before its bytes are there.
const READ_AHEAD: u64 = 64 << 10;

/// Bytes of a value, taken from front to back. The walker ([`walk`](super::walk)) tells lengths
/// apart from contents and asks a source to pass over the contents; what a source does with what
/// it passes is its own matter: nothing, record it, expand it.
pub trait Source {
    /// What can go wrong: damage, and whatever the source adds to it.
    type Error: From<PayloadError>;

    /// How many bytes were taken.
    fn position(&self) -> u64;

    /// Takes one byte.
    fn byte(&mut self) -> Result<u8, Self::Error>;

    /// Takes `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Self::Error>;

    /// Takes `len` bytes that need no looking at.
    fn pass(&mut self, len: u64) -> Result<(), Self::Error>;

    /// Takes the `compressed` bytes of a string that expand to `plain`, after its header of
    /// `header` bytes was taken.
    fn pass_compressed(
        &mut self,
        header: usize,
        compressed: u64,
        plain: u64,
    ) -> Result<(), Self::Error> {
        let _ = (header, plain);
        self.pass(compressed)
    }

    /// An error of `kind` here.
    fn error(&self, kind: ErrorKind) -> Self::Error {
        PayloadError::new(self.position(), kind).into()
    }
}

/// A source over bytes in memory.
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Slice<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Index of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Takes `len` bytes.
    pub fn take(&mut self, len: u64) -> Result<&'a [u8], PayloadError> {
        let rest = self.rest();
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.error(ErrorKind::Truncated)),
        }
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), PayloadError> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.error(ErrorKind::Trailing(left as u64))),
        }
    }
}

impl Source for Slice<'_> {
    type Error = PayloadError;

    fn position(&self) -> u64 {
        self.at as u64
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, PayloadError> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => Err(self.error(ErrorKind::Truncated)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        match self.rest().first_chunk::<N>() {
            Some(&array) => {
                self.at += N;
                Ok(array)
            }
            None => Err(self.error(ErrorKind::Truncated)),
        }
    }

    #[inline]
    fn pass(&mut self, len: u64) -> Result<(), PayloadError> {
        self.take(len).map(drop)
    }
}

/// What can go wrong while a value is read from a stream.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The value is damaged. Its offsets count from where the recorder started.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A source over a reader that appends what it takes to a buffer: this is how the length of a
/// value within an RDB stream is learnt, and the value with it. A claimed length is never
/// allocated: the buffer grows with what really arrives.
///
/// Single bytes are read one by one, so the reader should be buffered.
pub struct Recorder<'a, R> {
    reader: R,
    out: &'a mut Vec<u8>,
    expand: bool,
    limit: u64,
    position: u64,
}

impl<'a, R: Read> Recorder<'a, R> {
    /// Appends to `out` exactly what is taken from `reader`.
    pub fn verbatim(reader: R, out: &'a mut Vec<u8>) -> Self {
        Self {
            reader,
            out,
            expand: false,
            limit: u64::MAX,
            position: 0,
        }
    }

    /// Appends to `out` what is taken from `reader`, compressed strings expanded, as
    /// [`compact`](super::compact) does.
    pub fn compact(reader: R, out: &'a mut Vec<u8>) -> Self {
        Self {
            expand: true,
            ..Self::verbatim(reader, out)
        }
    }

    /// Fails with [`ErrorKind::TooLarge`] before `out` holds more than `limit` bytes.
    pub fn within(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    fn room(&self, more: u64) -> Result<(), ReadError> {
        if (self.out.len() as u64).saturating_add(more) > self.limit {
            return Err(self.error(ErrorKind::TooLarge(self.limit)));
        }
        Ok(())
    }

    fn take_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.room(buffer.len() as u64)?;
        match self.reader.read_exact(buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.error(ErrorKind::Truncated));
            }
            Err(error) => return Err(error.into()),
        }
        self.position += buffer.len() as u64;
        self.out.extend_from_slice(buffer);
        Ok(())
    }
}

impl<R: Read> Source for Recorder<'_, R> {
    type Error = ReadError;

    fn position(&self) -> u64 {
        self.position
    }

    fn byte(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut array = [0; N];
        self.take_exact(&mut array)?;
        Ok(array)
    }

    fn pass(&mut self, len: u64) -> Result<(), ReadError> {
        self.room(len)?;
        self.out.reserve(len.min(READ_AHEAD) as usize);
        let read = self.reader.by_ref().take(len).read_to_end(self.out)? as u64;
        self.position += read;
        if read < len {
            Err(self.error(ErrorKind::Truncated))
        } else {
            Ok(())
        }
    }

    fn pass_compressed(
        &mut self,
        header: usize,
        compressed: u64,
        plain: u64,
    ) -> Result<(), ReadError> {
        if !self.expand {
            return self.pass(compressed);
        }
        let start = self.position;
        let head = self.out.len() - header;
        self.room(plain)?;
        self.pass(compressed)?;
        let packed = self.out.split_off(head);
        super::write::length(self.out, plain);
        // A length beyond the address space was refused by the room or the pass before.
        let plain = usize::try_from(plain).unwrap_or(usize::MAX);
        lzf::decompress(&packed[header..], plain, self.out)
            .map_err(|error| PayloadError::new(start, error.into()).into())
    }
}
