//! Which files a command line names, to read and to write. Checked once, before any is opened, so
//! that no verb can destroy what it, or its next run, needs.

use std::path::{Path, PathBuf};

use super::{
    AgeReadArgs, AgeWriteArgs, ConvertTo, CopyArgs, DiffArgs, ExportArgs, ImportArgs, RunArgs,
    ServerFlags, Verb,
};
use crate::place::{Holds, Location, Place, Reading, Writing};
use crate::resume::files_beside;

/// The files of one command line.
#[derive(Debug, Default)]
pub struct Files {
    /// To be read.
    pub reads: Vec<Reading>,
    /// To be written.
    pub writes: Vec<Writing>,
}

impl Verb {
    /// The files that this command line names, standard input and output among them.
    pub fn files(&self) -> Files {
        let mut files = Files::default();
        match self {
            Verb::Export(args) => files.of_export(args),
            Verb::Import(args) => files.of_import(args),
            Verb::Copy(args) => files.of_copy(args),
            Verb::Convert(args) => {
                let holds = match args.kind() {
                    Ok(ConvertTo::Rdb) => Holds::Rdb,
                    _ => Holds::Other,
                };
                let holds = holds.unless(args.overwrite);
                files.made_of(Some(&args.input), args.output.as_ref(), holds);
                files.age_read(&args.encryption);
                files.run(&args.run);
            }
            Verb::Verify(args) => {
                files.look(args.file.as_ref(), &args.encryption);
                files.server(&args.against.connect.flags());
            }
            Verb::Diff(args) => files.of_diff(args),
            Verb::List(args) => files.look(args.file.as_ref(), &args.encryption),
            Verb::Inspect(args) => files.look(args.file.as_ref(), &args.encryption),
            Verb::Report(args) => {
                let holds = Holds::other(args.overwrite);
                files.made_of(args.file.as_ref(), args.output.as_ref(), holds);
                files.age_read(&args.encryption);
            }
            Verb::Extract(args) => {
                let holds = Holds::other(args.overwrite);
                files.made_of(args.file.as_ref(), args.output.as_ref(), holds);
                files.age_read(&args.encryption);
            }
            Verb::Salvage(args) => {
                files.made_of(args.file.as_ref(), args.output.as_ref(), Holds::Archive);
                files.age_read(&args.encryption);
                files.secrets(&args.age_recipients_file);
            }
            Verb::Doctor(args) => {
                files.inputs(&args.file);
                files.stdout();
                files.age_read(&args.encryption);
                files.server(&args.connect.flags());
            }
            Verb::Completions(_) | Verb::ManPages(_) => {}
        }
        files
    }
}

impl Files {
    fn of_export(&mut self, args: &ExportArgs) {
        self.inputs(&args.source);
        self.output(args.output.as_ref(), Holds::Archive);
        if args.resume
            && let Some(Place::Stored(Location::File(output))) = &args.output
            && let Ok([part, journal]) = files_beside(output)
        {
            // What stands there is looked at before anything is written to it.
            self.write("the unfinished archive of --resume", &part, Holds::Archive);
            self.write("the journal of --resume", &journal, Holds::Archive);
        }
        self.age_write(&args.encryption);
        self.server(&args.connect.flags());
        self.run(&args.run);
    }

    fn of_import(&mut self, args: &ImportArgs) {
        // With the destination in the environment the first argument is a file.
        self.inputs(args.destination.iter().chain(&args.files));
        if self.reads.is_empty() {
            self.reads.push(Reading::Stored(Location::Stream));
        }
        if let Some(state) = args.resume.as_ref().filter(|state| !state.is_empty()) {
            self.write("the --resume state", Path::new(state), Holds::Other);
        }
        self.stdout();
        self.age_read(&args.encryption);
        self.server(&args.connect.flags());
        self.run(&args.run);
    }

    fn of_copy(&mut self, args: &CopyArgs) {
        self.inputs(&args.source);
        self.stdout();
        self.server(&args.source_connect.flags());
        self.server(&args.destination_connect.flags());
        self.run(&args.run);
    }

    fn of_diff(&mut self, args: &DiffArgs) {
        self.inputs([&args.left, &args.right]);
        self.stdout();
        self.age_read(&args.encryption);
        self.server(&args.left_connect.flags());
        self.server(&args.right_connect.flags());
    }

    /// Something that is made of an archive, which is on standard input where no file is named.
    fn made_of(&mut self, file: Option<&Place>, output: Option<&Place>, holds: Holds) {
        self.inputs([file.unwrap_or(&Place::Stored(Location::Stream))]);
        self.output(output, holds);
    }

    /// All that are no servers.
    fn inputs<'a>(&mut self, places: impl IntoIterator<Item = &'a Place>) {
        let stored = places.into_iter().filter_map(|place| place.stored().ok());
        self.reads.extend(stored.cloned().map(Reading::Stored));
    }

    fn output(&mut self, place: Option<&Place>, holds: Holds) {
        match place.and_then(|place| place.stored().ok()?.file()) {
            Some(name) => self.write("the output", name, holds),
            None => self.stdout(),
        }
    }

    fn write(&mut self, what: &'static str, name: &Path, holds: Holds) {
        let name = name.to_owned();
        self.writes.push(Writing::File { what, name, holds });
    }

    fn stdout(&mut self) {
        self.writes.push(Writing::Stdout);
    }

    fn look(&mut self, file: Option<&Place>, keys: &AgeReadArgs) {
        self.made_of(file, None, Holds::Other);
        self.age_read(keys);
    }

    fn run(&mut self, args: &RunArgs) {
        if let Some(journal) = &args.errors_to {
            self.write("the --errors-to file", journal, Holds::Other);
        }
    }

    fn secrets<'a>(&mut self, files: impl IntoIterator<Item = &'a PathBuf>) {
        let files = files.into_iter().cloned();
        self.reads.extend(files.map(Reading::Secret));
    }

    fn age_read(&mut self, args: &AgeReadArgs) {
        self.secrets(args.age_identity.iter().chain(&args.age_passphrase_file));
    }

    fn age_write(&mut self, args: &AgeWriteArgs) {
        let recipients = args.age_recipients_file.iter();
        self.secrets(recipients.chain(&args.age_passphrase_file));
    }

    fn server(&mut self, flags: &ServerFlags) {
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
