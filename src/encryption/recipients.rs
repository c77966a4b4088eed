//! For whom an archive is written: recipients, or a passphrase.

use std::fmt;
use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret, SecretString};
use age::{Encryptor, Recipient, scrypt, tag, tagpq, x25519};
use anyhow::Result;

use super::{ask_passphrase, read_passphrase_file};
use crate::exit::{Usage, usage};

/// The work that trying a passphrase costs: 2^18, as in the age program; about a second.
const WORK_FACTOR: u8 = 18;

/// Those who will be able to read an archive.
#[derive(Default)]
pub struct Recipients {
    recipients: Vec<Box<dyn Recipient + Send>>,
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} recipients", self.recipients.len())
    }
}

impl Recipients {
    /// Parses recipients and recipient files, or takes a passphrase. `ask` asks for it on the
    /// terminal, twice.
    ///
    /// # Errors
    /// [`Usage`]: recipients that are none, files that cannot be read, both kinds at once.
    pub fn load(
        names: &[String],
        files: &[PathBuf],
        passphrase_file: Option<&Path>,
        ask: bool,
    ) -> Result<Self> {
        let mut recipients = Vec::new();
        for name in names {
            recipients.push(parse(name).map_err(|text| Usage(format!("--age-recipient: {text}")))?);
        }
        for file in files {
            read_file(file, &mut recipients)?;
        }
        let passphrase = match (passphrase_file, ask) {
            (Some(file), _) => Some(read_passphrase_file(file)?),
            (None, true) => Some(ask_twice()?),
            (None, false) => None,
        };
        if let Some(passphrase) = passphrase {
            if !recipients.is_empty() {
                return Err(usage(
                    "an archive is encrypted either for recipients or with a passphrase",
                ));
            }
            let mut recipient = scrypt::Recipient::new(passphrase);
            recipient.set_work_factor(WORK_FACTOR);
            recipients.push(Box::new(recipient));
        }
        Ok(Self { recipients })
    }

    /// One recipient, for tests and programs.
    pub fn of(recipient: impl Recipient + Send + 'static) -> Self {
        Self {
            recipients: vec![Box::new(recipient)],
        }
    }

    /// Whether nothing is to be encrypted.
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty()
    }

    pub(super) fn encryptor(&self) -> Result<Encryptor> {
        let all = self.recipients.iter();
        Encryptor::with_recipients(all.map(|recipient| &**recipient as &dyn Recipient))
            .map_err(|error| usage(format!("cannot encrypt for these recipients: {error}")))
    }
}

fn ask_twice() -> Result<SecretString> {
    let first = ask_passphrase("Passphrase for the archive: ")?;
    let second = ask_passphrase("Repeat the passphrase: ")?;
    if first.expose_secret() != second.expose_secret() {
        return Err(usage("the two passphrases differ"));
    }
    Ok(first)
}

/// The public key behind a text. The text is not quoted where it may be a private key.
fn parse(text: &str) -> Result<Box<dyn Recipient + Send>, String> {
    if let Ok(recipient) = text.parse::<x25519::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<tag::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<tagpq::Recipient>() {
        return Ok(Box::new(recipient));
    }
    Err(
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            "that is a private key (an identity), and stays with its owner; `age-keygen -y` shows the \
         public one"
            .to_owned()
        } else if text.starts_with("ssh-") {
            "use SSH keys through the age program: redis-migrate export … | age -r ssh-… > \
         snap.rmz.age"
                .to_owned()
        } else {
            "not a recipient, which is a public key such as \
             age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
                .to_owned()
        },
    )
}

/// One recipient a line; empty lines and those that begin with `#` are none.
fn read_file(path: &Path, recipients: &mut Vec<Box<dyn Recipient + Send>>) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read the recipients file {path:?}: {error}")))?;
    let before = recipients.len();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let recipient =
            parse(line).map_err(|text| Usage(format!("{path:?}, line {}: {text}", number + 1)))?;
        recipients.push(recipient);
    }
    if recipients.len() == before {
        return Err(usage(format!(
            "the recipients file {path:?} has no recipient in it"
        )));
    }
    Ok(())
}
