//! Encrypted archives: round trips, wrong keys, cut and damaged files, each verb that reads one,
//! and the age program on the other side.

mod damage;
mod interop;
mod keys;
mod readers;
mod servers;
mod tools;

use crate::cli::archives;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use tempfile::TempDir;

/// A directory with an identity, its recipient and an archive that is encrypted for it.
pub(crate) struct Case {
    pub(crate) directory: TempDir,
    pub(crate) identity: Identity,
    pub(crate) plain: Vec<u8>,
}

impl Case {
    /// Around this archive.
    pub(crate) fn new(plain: Vec<u8>) -> Self {
        let case = Self {
            directory: tempfile::tempdir().expect("a directory"),
            identity: Identity::generate(),
            plain,
        };
        write_identity(&case.identity_file(), &case.identity);
        fs::write(case.sealed_file(), seal(&case.plain, &case.identity)).expect("written");
        case
    }

    pub(crate) fn small() -> Self {
        Self::new(archives::small())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn identity_file(&self) -> PathBuf {
        self.path("key.txt")
    }

    pub(crate) fn sealed_file(&self) -> PathBuf {
        self.path("snap.rmz.age")
    }

    /// `--age-identity` and the file, for a command line.
    pub(crate) fn key_flags(&self) -> [String; 2] {
        ["--age-identity".to_owned(), text(&self.identity_file())]
    }
}

/// A path for a command line.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A file as age-keygen writes it.
pub(crate) fn write_identity(path: &Path, identity: &Identity) {
    let secret = identity.to_string();
    let recipient = identity.to_public();
    let text = format!(
        "# created: now\n# public key: {recipient}\n{}\n",
        secret.expose_secret()
    );
    fs::write(path, text).expect("an identity file");
}

/// What `age -r` would write.
pub(crate) fn seal(plain: &[u8], identity: &Identity) -> Vec<u8> {
    age::encrypt(&identity.to_public(), plain).expect("encrypted")
}

/// What `age -a -r` would write.
pub(crate) fn seal_armored(plain: &[u8], identity: &Identity) -> Vec<u8> {
    let recipients = [identity.to_public()];
    let recipients = recipients.iter().map(|all| all as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).expect("one recipient");
    let armor = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor)
        .expect("a vector");
    let mut writer = encryptor.wrap_output(armor).expect("a vector");
    writer.write_all(plain).expect("a vector");
    let armor = writer.finish().expect("a vector");
    armor.finish().expect("a vector")
}

/// What `age -p` would write, with little work.
pub(crate) fn seal_with_passphrase(plain: &[u8], passphrase: &str) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.to_owned().into());
    recipient.set_work_factor(4);
    age::encrypt(&recipient, plain).expect("encrypted")
}
