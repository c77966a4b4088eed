//! Who reads: identities and passphrases.

use std::fmt;
use std::iter;
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use age::{Decryptor, Identity, IdentityFile, scrypt};
use anyhow::Result;

use super::decrypt::wrong_passphrase;
use super::{Sealed, ask_passphrase, read_passphrase_file, read_secret_file};
use crate::exit::{Usage, usage};

/// The most work that a file may ask for before its passphrase can be tried: 2^22, as in the age
/// program, some 16 s and 4 GiB.
const MAX_WORK_FACTOR: u8 = 22;

/// What opens encrypted archives. Several threads may use the same. Never printed.
#[derive(Default)]
pub struct Keys {
    identities: Vec<Box<dyn Identity + Send + Sync>>,
    passphrase: Option<scrypt::Identity>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// No keys, which open what is not encrypted.
    pub const NONE: &'static Keys = &Keys {
        identities: Vec::new(),
        passphrase: None,
    };

    /// Reads the identity files and the passphrase. `ask` asks for it on the terminal. An identity
    /// file that is itself encrypted is opened with the passphrase, or by asking for its own.
    ///
    /// # Errors
    /// [`Usage`]: files that cannot be read, or hold no identity.
    pub fn load(files: &[PathBuf], passphrase_file: Option<&Path>, ask: bool) -> Result<Self> {
        let passphrase = match (passphrase_file, ask) {
            (Some(file), _) => Some(read_passphrase_file(file)?),
            (None, true) => Some(ask_passphrase("Passphrase of the archive: ")?),
            (None, false) => None,
        };
        let mut identities = Vec::new();
        for file in files {
            identities.extend(read_identities(file, passphrase.as_ref())?);
        }
        Ok(Self {
            identities,
            passphrase: passphrase.map(scrypt_identity),
        })
    }

    /// Keys of one identity, for tests and programs.
    #[cfg(test)]
    pub fn of_identity(identity: impl Identity + Send + Sync + 'static) -> Self {
        Self {
            identities: vec![Box::new(identity)],
            passphrase: None,
        }
    }

    pub(super) fn has_passphrase(&self) -> bool {
        self.passphrase.is_some()
    }

    pub(super) fn identities(&self) -> usize {
        self.identities.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &dyn Identity> {
        self.identities
            .iter()
            .map(|identity| &**identity as &dyn Identity)
            .chain(self.passphrase.iter().map(|secret| secret as &dyn Identity))
    }
}

fn scrypt_identity(passphrase: SecretString) -> scrypt::Identity {
    let mut identity = scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    identity
}

fn read_identities(
    path: &Path,
    passphrase: Option<&SecretString>,
) -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
    let bytes = read_secret_file(path, "identity file")?;
    if Sealed::of(&bytes).is_some() {
        return open_identities(path, &bytes, passphrase);
    }
    if bytes.starts_with(b"-----BEGIN ") {
        return Err(usage(format!(
            "{path:?} is not an age identity but another private key; use SSH keys through the age \
             program: age -d -i KEY snap.rmz.age | redis-migrate …"
        )));
    }
    parse_identities(path, bytes.as_slice())
}

fn parse_identities(
    path: &Path,
    text: impl std::io::BufRead,
) -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
    // The crate's message says the line, and nothing of what stands there.
    let identities = IdentityFile::from_buffer(text)
        .map_err(|error| Usage(format!("{path:?}: {error}")))?
        .into_identities()
        .map_err(|error| Usage(format!("{path:?}: {error}")))?;
    if identities.is_empty() {
        return Err(usage(format!(
            "{path:?} holds no age identity; create one with age-keygen"
        )));
    }
    Ok(identities)
}

/// An identity file that is itself encrypted with a passphrase.
fn open_identities(
    path: &Path,
    bytes: &[u8],
    passphrase: Option<&SecretString>,
) -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
    let bad = |text: String| Usage(format!("{path:?}: {text}"));
    let decryptor = Decryptor::new(age::armor::ArmoredReader::new(bytes))
        .map_err(|error| bad(error.to_string()))?;
    if !decryptor.is_scrypt() {
        let text = "it is an encrypted file, but not an identity file that a passphrase opens";
        return Err(bad(text.to_owned()).into());
    }
    let passphrase = match passphrase {
        Some(passphrase) => passphrase.clone(),
        None => ask_passphrase(&format!("Passphrase of {}: ", path.display()))?,
    };
    let identity = scrypt_identity(passphrase);
    let plain = decryptor
        .decrypt(iter::once(&identity as &dyn Identity))
        .map_err(|_| wrong_passphrase(path))?;
    parse_identities(path, std::io::BufReader::new(plain))
}
