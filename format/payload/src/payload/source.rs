//! Where the walker gets a value's bytes from.

use super::error::{ErrorKind, PayloadError};

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
