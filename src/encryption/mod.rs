//! Archives encrypted by [age](https://age-encryption.org/v1): the bytes are those that
//! `age -r RECIPIENT` writes and `age -d -i IDENTITY` reads, so that either program can be used on
//! either side. All cryptography is the age crate's.
//!
//! ```text
//! Keys (who may read)        ─▶ unseal: file → plain bytes, can be sought
//! Recipients (for whom)      ─▶ Sealing: plain bytes → file, its length and SHA-256
//! ```
//!
//! age's payload is made of chunks of 64 KiB. Each is authenticated, so that nothing that was
//! changed comes through, and the last one is marked, so that a cut is seen.

mod decrypt;
mod encrypt;
mod error;
mod keys;
mod recipients;
mod recover;

pub(crate) use self::decrypt::{SNIFF_BYTES, Sealed, Unsealed, unseal};
pub(crate) use self::encrypt::{Sealing, StoredAs};
pub(crate) use self::error::EncryptionError;
pub(crate) use self::keys::Keys;
pub(crate) use self::recipients::Recipients;
pub(crate) use self::recover::Damage;

use std::path::Path;

use age::secrecy::SecretString;
use age::secrecy::zeroize::Zeroizing;
use anyhow::Result;

use crate::exit::{Usage, usage};

/// A file with a secret in it, wiped from memory after use. 1 MiB is far more than any has.
fn read_secret_file(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;

    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    std::fs::File::open(path)
        .and_then(|file| file.take(1024 * 1024).read_to_end(&mut bytes))
        .map_err(|error| Usage(format!("cannot read the {what} {path:?}: {error}")))?;
    Ok(bytes)
}

/// The passphrase in a file: everything but one line end at its end.
fn read_passphrase_file(path: &Path) -> Result<SecretString> {
    let bytes = read_secret_file(path, "passphrase file")?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Usage(format!("the passphrase in {path:?} is not UTF-8")))?;
    if text.is_empty() {
        return Err(usage(format!("the passphrase file {path:?} is empty")));
    }
    Ok(SecretString::from(text.to_owned()))
}

/// Asks for a passphrase on the terminal; an empty one is refused.
fn ask_passphrase(prompt: &str) -> Result<SecretString> {
    let text = rpassword::prompt_password(prompt)
        .map_err(|error| Usage(format!("cannot ask for a passphrase: {error}")))?;
    if text.is_empty() {
        return Err(usage("an empty passphrase protects nothing"));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests;
