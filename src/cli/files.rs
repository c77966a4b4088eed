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
    pub(crate) fn made_of(&mut self, file: Option<&Place>, output: Option<&Place>, holds: Holds) {
        self.inputs([file.unwrap_or(&Place::Stored(Location::Stream))]);
        self.output(output, holds);
    }

    /// All that are no servers.
    pub(crate) fn inputs<'a>(&mut self, places: impl IntoIterator<Item = &'a Place>) {
        let stored = places.into_iter().filter_map(|place| place.stored().ok());
        self.reads.extend(stored.cloned().map(Reading::Stored));
    }

    pub(crate) fn output(&mut self, place: Option<&Place>, holds: Holds) {
        match place.and_then(|place| place.stored().ok()) {
            Some(location) if !location.is_stream() => self.writes.push(Writing::Stored {
                what: "the output",
                location: location.clone(),
                holds,
            }),
            _ => self.stdout(),
        }
    }

    pub(crate) fn write(&mut self, what: &'static str, name: &Path, holds: Holds) {
        let location = Location::File(name.to_owned());
        self.writes.push(Writing::Stored {
            what,
            location,
            holds,
        });
    }

    pub(crate) fn stdout(&mut self) {
        self.writes.push(Writing::Stdout);
    }

    pub(crate) fn look(&mut self, file: Option<&Place>, keys: &AgeReadArgs) {
        self.made_of(file, None, Holds::Other);
        self.age_read(keys);
    }

    pub(crate) fn run(&mut self, args: &RunArgs) {
        if let Some(journal) = &args.errors_to {
            self.write("the --errors-to file", journal, Holds::Other);
        }
    }

    pub(crate) fn secrets<'a>(&mut self, files: impl IntoIterator<Item = &'a PathBuf>) {
        let files = files.into_iter().cloned();
        self.reads.extend(files.map(Reading::Secret));
    }

    pub(crate) fn age_read(&mut self, args: &AgeReadArgs) {
        self.secrets(args.age_identity.iter().chain(&args.age_passphrase_file));
    }

    pub(crate) fn age_write(&mut self, args: &AgeWriteArgs) {
        let recipients = args.age_recipients_file.iter();
        self.secrets(recipients.chain(&args.age_passphrase_file));
    }

    pub(crate) fn server(&mut self, flags: &ConnectArgs) {
        let passwords = flags.password_file.iter();
        let passwords = passwords.chain(&flags.sentinel_password_file);
        self.secrets(
            passwords
                .chain(&flags.cacert)
                .chain(&flags.cert)
                .chain(&flags.key),
        );
    }
}
