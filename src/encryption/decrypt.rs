//! Reading: an age file, binary or armored, comes in, plain bytes go out.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use age::armor::ArmoredReader;
use age::stream::StreamReader;
use age::{DecryptError, Decryptor};
use anyhow::Result;

use super::{EncryptionError, Keys};

/// How a binary age file begins.
const BINARY: &[u8] = b"age-encryption.org/";
/// How an armored one begins; blank before it is not looked for.
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// Plain bytes in a chunk: <https://age-encryption.org/v1>.
pub(super) const CHUNK_BYTES: u64 = 64 * 1024;

/// So many bytes tell whether a file is encrypted.
pub(crate) const SNIFF_BYTES: usize = ARMORED.len();

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// An age file.
    Binary,
    /// An age file as text.
    Armored,
}

impl Sealed {
    /// What a file that begins like this is, if it is encrypted.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(BINARY) {
            Some(Self::Binary)
        } else if head.starts_with(ARMORED) {
            Some(Self::Armored)
        } else {
            None
        }
    }
}

/// The plain bytes of an encrypted file. What comes out is authenticated.
pub(crate) struct Unsealed<R> {
    pub(super) form: Form<R>,
    /// Where the next byte comes from; the crate's reader does not say.
    pub(super) at: u64,
    /// Of a damaged file, what cannot be read: whole chunks, ascending.
    pub(super) holes: Vec<Range<u64>>,
    /// Where it ends, if it is damaged.
    pub(super) end: Option<u64>,
}

pub(super) enum Form<R> {
    Binary(Box<StreamReader<R>>),
    Armored(Box<StreamReader<ArmoredReader<BufReader<R>>>>),
}

/// Opens an encrypted input, called `name` in messages, with `keys`. Its header is read.
///
/// # Errors
/// [`EncryptionError`]; the input's.
pub(crate) fn unseal<R: Read>(
    input: R,
    form: Sealed,
    keys: &Keys,
    name: &str,
) -> Result<Unsealed<R>> {
    let form = match form {
        Sealed::Binary => Form::Binary(Box::new(open(input, keys, name)?)),
        Sealed::Armored => Form::Armored(Box::new(open(ArmoredReader::new(input), keys, name)?)),
    };
    Ok(Unsealed {
        form,
        at: 0,
        holes: Vec::new(),
        end: None,
    })
}

fn open<R: Read>(input: R, keys: &Keys, name: &str) -> Result<StreamReader<R>> {
    let in_header = |error| match error {
        DecryptError::Io(error) => anyhow::Error::new(told(error)),
        DecryptError::UnknownFormat => EncryptionError::Unsupported {
            name: name.to_owned(),
            what: "it is of a later version of age".to_owned(),
        }
        .into(),
        _ => EncryptionError::Damaged {
            what: "its encryption header is damaged".to_owned(),
        }
        .into(),
    };
    let decryptor = Decryptor::new(input).map_err(in_header)?;
    let name = name.to_owned();
    let passphrase = decryptor.is_scrypt();
    let has_key = match passphrase {
        true => keys.has_passphrase(),
        false => keys.identities() > 0,
    };
    if !has_key {
        return Err(EncryptionError::Locked { name, passphrase }.into());
    }
    decryptor.decrypt(keys.all()).map_err(|error| match error {
        DecryptError::ExcessiveWork { .. } => EncryptionError::Unsupported {
            name,
            what: "checking its passphrase takes more work than is safe".to_owned(),
        }
        .into(),
        DecryptError::NoMatchingKeys
        | DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed => match passphrase {
            true => EncryptionError::WrongPassphrase { name },
            false => EncryptionError::WrongIdentity {
                name,
                identities: keys.identities(),
            },
        }
        .into(),
        other => in_header(other),
    })
}

/// That the passphrase of a file is wrong.
pub(super) fn wrong_passphrase(path: &Path) -> EncryptionError {
    EncryptionError::WrongPassphrase {
        name: path.display().to_string(),
    }
}

/// What an error of the crate's readers means. Those of the system stay as they are.
fn told(error: io::Error) -> io::Error {
    match error.kind() {
        _ if error.raw_os_error().is_some() => error,
        io::ErrorKind::UnexpectedEof => EncryptionError::Cut.into_io(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => EncryptionError::Damaged {
            what: "the check of its encryption fails: it is damaged, cut off or changed".to_owned(),
        }
        .into_io(),
        _ => error,
    }
}

impl<R: Read> Unsealed<R> {
    /// Whether it is text.
    pub(crate) fn is_armored(&self) -> bool {
        matches!(self.form, Form::Armored(_))
    }
}

impl<R: Read + Seek> Unsealed<R> {
    /// To a place of the crate's reader.
    pub(super) fn seek_form(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match &mut self.form {
            Form::Binary(reader) => reader.seek(to),
            Form::Armored(reader) => reader.seek(to),
        };
        at.map_err(told)
    }

    /// The hole that the next byte lies in, or else the next one.
    fn next_hole(&self) -> Option<Range<u64>> {
        let next = self.holes.partition_point(|hole| hole.end <= self.at);
        self.holes.get(next).cloned()
    }

    fn read_zeros(&mut self, buffer: &mut [u8], hole: &Range<u64>) -> io::Result<usize> {
        let len = at_most(buffer.len(), hole.end - self.at);
        buffer[..len].fill(0);
        let at = self.at + len as u64;
        if at == hole.end && self.end != Some(at) {
            self.go_to_chunk(at / CHUNK_BYTES)?;
        }
        self.at = at;
        Ok(len)
    }
}

fn at_most(len: usize, bytes: u64) -> usize {
    usize::try_from(bytes).map_or(len, |bytes| bytes.min(len))
}

impl<R: Read + Seek> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.end.unwrap_or(u64::MAX);
        let mut most = at_most(buffer.len(), end.saturating_sub(self.at));
        if most == 0 {
            return Ok(0);
        }
        if let Some(hole) = self.next_hole() {
            if hole.contains(&self.at) {
                return self.read_zeros(&mut buffer[..most], &hole);
            }
            most = at_most(most, hole.start - self.at);
        }
        let buffer = &mut buffer[..most];
        let read = match &mut self.form {
            Form::Binary(reader) => reader.read(buffer),
            Form::Armored(reader) => reader.read(buffer),
        };
        let len = read.map_err(told)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl<R: Read + Seek> Seek for Unsealed<R> {
    /// To a place of the plain bytes, at most to their end: behind it the crate's reader fails.
    /// The end is found by opening the last chunk, so a cut file is found out here. In armor every
    /// step goes through all that is before it.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let here = self.at;
        self.at = match (to, self.end) {
            (_, Some(end)) => {
                self.at = within(to, here, end)?;
                let in_hole = self.next_hole().is_some_and(|hole| hole.contains(&self.at));
                // At the end, and in a hole, the crate's reader is not asked.
                if self.at != end && !in_hole {
                    match self.at {
                        at if at % CHUNK_BYTES == 0 => self.go_to_chunk(at / CHUNK_BYTES)?,
                        at => self.at = self.seek_form(SeekFrom::Start(at))?,
                    }
                }
                self.at
            }
            (SeekFrom::Start(0), None) => self.seek_form(SeekFrom::Start(0))?,
            (SeekFrom::Current(0), None) => here,
            (_, None) => {
                let end = self.seek_form(SeekFrom::End(0))?;
                self.seek_form(SeekFrom::Start(within(to, here, end)?))?
            }
        };
        Ok(self.at)
    }
}

/// Where that is, and at most the end.
fn within(to: SeekFrom, here: u64, end: u64) -> io::Result<u64> {
    let wanted = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::End(by) => end.checked_add_signed(by),
        SeekFrom::Current(by) => here.checked_add_signed(by),
    };
    let wanted =
        wanted.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
    Ok(wanted.min(end))
}
