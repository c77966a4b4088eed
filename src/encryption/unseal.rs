//! Reading: an age file, binary or armored, comes in, plain bytes go out.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
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
const CHUNK_BYTES: u64 = 64 * 1024;

/// So many bytes tell whether a file is encrypted.
pub const SNIFF_BYTES: usize = ARMORED.len();

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// An age file.
    Binary,
    /// An age file as text.
    Armored,
}

impl Sealed {
    /// What a file that begins like this is, if it is encrypted.
    pub fn of(head: &[u8]) -> Option<Self> {
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
pub struct Unsealed<R> {
    form: Form<R>,
    /// Where the next byte comes from; the crate's reader does not say.
    at: u64,
    /// Where it ends, if it is damaged behind.
    end: Option<u64>,
}

enum Form<R> {
    Binary(Box<StreamReader<R>>),
    Armored(Box<StreamReader<ArmoredReader<BufReader<R>>>>),
}

/// Opens an encrypted input, called `name` in messages, with `keys`. Its header is read.
///
/// # Errors
/// [`EncryptionError`]; the input's.
pub fn unseal<R: Read>(input: R, form: Sealed, keys: &Keys, name: &str) -> Result<Unsealed<R>> {
    let form = match form {
        Sealed::Binary => Form::Binary(Box::new(open(input, keys, name)?)),
        Sealed::Armored => Form::Armored(Box::new(open(ArmoredReader::new(input), keys, name)?)),
    };
    Ok(Unsealed {
        form,
        at: 0,
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
            what: "the header of its encryption is damaged".to_owned(),
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
            what: "trying its passphrase takes more work than is safe to do".to_owned(),
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
    /// Reads on to what cannot be decrypted: the plain bytes before it, and what is wrong. After
    /// that it can no longer be read. `None` if all is well.
    ///
    /// # Errors
    /// The input's.
    pub fn find_damage(&mut self) -> io::Result<Option<(u64, io::Error)>> {
        match io::copy(self, &mut io::sink()) {
            Ok(_) => Ok(None),
            Err(error) if EncryptionError::of(&error).is_some() => Ok(Some((self.at, error))),
            Err(error) => Err(error),
        }
    }

    /// Takes so many plain bytes, from the start, for all there is.
    pub fn end_at(&mut self, end: u64) {
        self.end = Some(end);
    }

    /// Whether it is text.
    pub fn is_armored(&self) -> bool {
        matches!(self.form, Form::Armored(_))
    }
}

impl<R: Read> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.at));
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..most];
        if buffer.is_empty() {
            return Ok(0);
        }
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
        let mut seek = |to| match &mut self.form {
            Form::Binary(reader) => reader.seek(to),
            Form::Armored(reader) => reader.seek(to),
        };
        let at = match (to, self.end) {
            (_, Some(end)) => match within(to, here, end)? {
                at if at == end => Ok(end),
                // For a step to the start of a chunk the crate's reader looks for the end, and fails.
                at if at % CHUNK_BYTES == 0 => {
                    seek(SeekFrom::Start(at + 1)).and_then(|_| seek(SeekFrom::Start(at)))
                }
                at => seek(SeekFrom::Start(at)),
            },
            (SeekFrom::Start(0), None) => seek(SeekFrom::Start(0)),
            (SeekFrom::Current(0), None) => return Ok(here),
            (_, None) => {
                seek(SeekFrom::End(0)).and_then(|end| seek(SeekFrom::Start(within(to, here, end)?)))
            }
        };
        self.at = at.map_err(told)?;
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
