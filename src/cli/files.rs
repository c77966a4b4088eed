//! Which files a command line names, to read and to write. Checked once, before any is opened, so
//! that no verb can destroy what it, or its next run, needs.

use std::path::{Path, PathBuf};

use super::{AgeReadArgs, AgeWriteArgs, ConnectArgs, RunArgs};
use crate::place::{Holds, Location, Place, Reading, Writing};

/// The files of one command line.
#[derive(Debug, Default)]
pub struct Files {
    /// To be read.
    pub reads: Vec<Reading>,
    /// To be written.
    pub writes: Vec<Writing>,
}

impl Files {
    /// Something that is made of an archive, which is on standard input where no file is named.
    pub(crate) fn made_of(
        self,
        file: Option<&Place>,
        keys: &AgeReadArgs,
        output: Option<&Place>,
        holds: Holds,
    ) -> Self {
        let file = file.unwrap_or(&Place::Stored(Location::Stream));
        self.inputs([file]).output(output, holds).age_read(keys)
    }

    /// All that are no servers.
    pub(crate) fn inputs<'a>(mut self, places: impl IntoIterator<Item = &'a Place>) -> Self {
        let stored = places.into_iter().filter_map(|place| place.stored().ok());
        self.reads.extend(stored.cloned().map(Reading::Stored));
        self
    }

    pub(crate) fn output(mut self, place: Option<&Place>, holds: Holds) -> Self {
        match place.and_then(|place| place.stored().ok()) {
            Some(location) if !location.is_stream() => self.writes.push(Writing::Stored {
                what: "the output",
                location: location.clone(),
                holds,
            }),
            _ => return self.stdout(),
        }
        self
    }

    pub(crate) fn write(mut self, what: &'static str, name: &Path, holds: Holds) -> Self {
        let location = Location::File(name.to_owned());
        self.writes.push(Writing::Stored {
            what,
            location,
            holds,
        });
        self
    }

    pub(crate) fn stdout(mut self) -> Self {
        self.writes.push(Writing::Stdout);
        self
    }

    pub(crate) fn look(self, file: Option<&Place>, keys: &AgeReadArgs) -> Self {
        self.made_of(file, keys, None, Holds::Other)
    }

    pub(crate) fn run(self, args: &RunArgs) -> Self {
        match &args.errors_to {
            Some(journal) => self.write("the --errors-to file", journal, Holds::Other),
            None => self,
        }
    }

    pub(crate) fn secrets<'a>(mut self, files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let files = files.into_iter().cloned();
        self.reads.extend(files.map(Reading::Secret));
        self
    }

    pub(crate) fn age_read(self, args: &AgeReadArgs) -> Self {
        self.secrets(args.age_identity.iter().chain(&args.age_passphrase_file))
    }

    pub(crate) fn age_write(self, args: &AgeWriteArgs) -> Self {
        let recipients = args.age_recipients_file.iter();
        self.secrets(recipients.chain(&args.age_passphrase_file))
    }

    pub(crate) fn server(self, flags: &ConnectArgs) -> Self {
        let passwords = flags.password_file.iter();
        let passwords = passwords.chain(&flags.sentinel_password_file);
        let tls = flags.cacert.iter().chain(&flags.cert).chain(&flags.key);
        self.secrets(passwords.chain(tls))
    }
}
