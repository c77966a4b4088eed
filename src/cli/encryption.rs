//! Flags of encrypted archives: what opens them, and for whom they are written.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::encryption::{Keys, Recipients};

/// What opens an encrypted archive; on every verb that reads one.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Encrypted archives (age)")]
pub struct AgeReadArgs {
    /// Open an encrypted archive with the private keys in FILE, as age-keygen writes them; it may
    /// itself be encrypted with a passphrase. Repeatable
    #[arg(long, value_name = "FILE")]
    pub age_identity: Vec<PathBuf>,

    /// Read the passphrase from FILE; a newline at its end is not part of it
    #[arg(long, value_name = "FILE", conflicts_with = "age_passphrase")]
    pub age_passphrase_file: Option<PathBuf>,

    /// Ask for the passphrase on the terminal
    #[arg(long)]
    pub age_passphrase: bool,
}

impl AgeReadArgs {
    /// The keys; asks for passphrases.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn keys(&self) -> Result<Keys> {
        let passphrase_file = self.age_passphrase_file.as_deref();
        Keys::load(&self.age_identity, passphrase_file, self.age_passphrase)
    }
}

/// Who will be able to read an archive that is written.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Encryption (age)")]
pub struct AgeWriteArgs {
    /// Encrypt for the owner of this public key (age1…). Repeatable: each of them can read it
    #[arg(long, value_name = "KEY")]
    pub age_recipient: Vec<String>,

    /// Encrypt for the public keys in FILE, one a line. Repeatable
    #[arg(long, value_name = "FILE")]
    pub age_recipients_file: Vec<PathBuf>,

    /// Encrypt with the passphrase in FILE; a newline at its end is not part of it
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["age_passphrase", "age_recipient", "age_recipients_file"])]
    pub age_passphrase_file: Option<PathBuf>,

    /// Encrypt with a passphrase, and ask for it on the terminal
    #[arg(long, conflicts_with_all = ["age_recipient", "age_recipients_file"])]
    pub age_passphrase: bool,
}

impl AgeWriteArgs {
    /// Whom to encrypt for; nobody for an archive that anybody can read. Asks for passphrases.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn recipients(&self) -> Result<Recipients> {
        let passphrase_file = self.age_passphrase_file.as_deref();
        Recipients::load(
            &self.age_recipient,
            &self.age_recipients_file,
            passphrase_file,
            self.age_passphrase,
        )
    }
}
