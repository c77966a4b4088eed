//! Writing: plain bytes go in, an age file comes out.

use std::io::{self, Write};

use age::stream::StreamWriter;
use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest, Sha256};

use super::Recipients;
use crate::units::hex;

/// What stands in the file, where that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAs {
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex, as `sha256sum` prints it.
    pub sha256: String,
}

/// An output that encrypts if there are recipients.
///
/// Dropped without [`Sealing::finish`], it still ends the encrypted stream as well as it can: an
/// archive says by its own trailer whether it is complete, and an aborted one says why, which can
/// only be read if the bytes before are whole.
pub(crate) struct Sealing<W: Write>(Option<Inner<W>>);

enum Inner<W: Write> {
    Plain(W),
    Age(Box<StreamWriter<Digested<W>>>),
}

/// Counts and digests what goes through.
struct Digested<W> {
    out: W,
    bytes: u64,
    digest: Sha256,
}

impl<W: Write> Sealing<W> {
    /// Encrypts for `recipients`, or for nobody if there are none.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for recipients that cannot be used together; the output's.
    pub(crate) fn new(out: W, recipients: &Recipients) -> Result<Self> {
        if recipients.is_empty() {
            return Ok(Self(Some(Inner::Plain(out))));
        }
        let digested = Digested {
            out,
            bytes: 0,
            digest: Sha256::new(),
        };
        let writer = recipients
            .encryptor()?
            .wrap_output(digested)
            .context("cannot write the archive")?;
        Ok(Self(Some(Inner::Age(Box::new(writer)))))
    }

    /// Ends the encrypted stream: the output, and what was written to it if it was encrypted.
    ///
    /// # Errors
    /// The output's.
    pub(crate) fn finish(mut self) -> Result<(W, Option<StoredAs>)> {
        match self.0.take() {
            Some(Inner::Plain(out)) => Ok((out, None)),
            Some(Inner::Age(writer)) => {
                let mut digested = writer.finish().context("cannot write the archive")?;
                digested.flush().context("cannot write the archive")?;
                let stored = StoredAs {
                    bytes: digested.bytes,
                    sha256: hex(&digested.digest.finalize()),
                };
                Ok((digested.out, Some(stored)))
            }
            None => Err(anyhow!("the archive is closed already")),
        }
    }
}

impl<W: Write> Drop for Sealing<W> {
    fn drop(&mut self) {
        if let Some(Inner::Age(writer)) = self.0.take() {
            // Best effort: what was written is incomplete with or without it.
            let _ = writer.finish();
        }
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Some(Inner::Plain(out)) => out.write(bytes),
            Some(Inner::Age(writer)) => writer.write(bytes),
            None => Err(io::Error::other("closed already")),
        }
    }

    /// Whole chunks only: what a chunk still lacks is written with it.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Some(Inner::Plain(out)) => out.flush(),
            Some(Inner::Age(writer)) => writer.flush(),
            None => Ok(()),
        }
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
