//! Which files a command line names, to read and to write. Checked once, before any is opened, so
//! that no verb can destroy what it, or its next run, needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::source_end::rdb_file;
use super::{AgeReadArgs, AgeWriteArgs, Named, RunArgs, ServerFlags, Verb};
use crate::output::{Holds, Reading, Writing};

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
            Verb::Export(args) => {
                files.source(args.source.as_ref());
                files.output(args.output.as_deref(), Holds::Archive);
                files.age_write(&args.encryption);
                files.server(&args.connect.flags());
                files.run(&args.run);
            }
            Verb::Import(args) => {
                let all = args.destination.iter().map(|named| &named.0);
                // With the destination in the environment the first argument is a file.
                files.archives(all.chain(&args.files).filter(|name| !is_url(name)));
                if args.files.is_empty() && files.reads.is_empty() {
                    files.archive(None);
                }
                if let Some(state) = args.resume.as_ref().filter(|state| !state.is_empty()) {
                    files.write("the --resume state", Path::new(state), Holds::Other);
                }
                files.stdout();
                files.age_read(&args.encryption);
                files.server(&args.connect.flags());
                files.run(&args.run);
            }
            Verb::Copy(args) => {
                files.source(args.source.as_ref());
                files.stdout();
                files.server(&args.source_connect.flags());
                files.server(&args.destination_connect.flags());
                files.run(&args.run);
            }
            Verb::Convert(args) => {
                files.archive(Some(&args.input));
                files.output(args.output.as_deref(), Holds::other(args.overwrite));
                files.age_read(&args.encryption);
                files.run(&args.run);
            }
            Verb::Verify(args) => {
                files.archive(args.file.as_ref());
                files.stdout();
                files.age_read(&args.encryption);
                files.server(&args.against.connect.flags());
            }
            Verb::Diff(args) => {
                let sides = [&args.left.0, &args.right.0].into_iter();
                files.archives(sides.filter(|name| !is_url(name)));
                files.stdout();
                files.age_read(&args.encryption);
                files.server(&args.left_connect.flags());
                files.server(&args.right_connect.flags());
            }
            Verb::List(args) => files.look(args.file.as_ref(), &args.encryption),
            Verb::Inspect(args) => files.look(args.file.as_ref(), &args.encryption),
            Verb::Report(args) => {
                files.archive(args.file.as_ref());
                files.output(args.output.as_deref(), Holds::other(args.overwrite));
                files.age_read(&args.encryption);
            }
            Verb::Extract(args) => {
                files.archive(args.file.as_ref());
                files.output(args.output.as_deref(), Holds::other(args.overwrite));
                files.age_read(&args.encryption);
            }
            Verb::Salvage(args) => {
                files.archive(args.file.as_ref());
                files.output(args.output.as_deref(), Holds::Archive);
                files.age_read(&args.encryption);
                files.secrets(&args.age_recipients_file);
            }
            Verb::Doctor(args) => {
                files.archives(args.file.iter());
                files.stdout();
                files.age_read(&args.encryption);
                files.server(&args.connect.flags());
            }
            Verb::Completions(_) | Verb::ManPages(_) => {}
        }
        files
    }
}

fn is_url(name: &OsString) -> bool {
    name.to_string_lossy().contains("://")
}

impl Files {
    fn source(&mut self, source: Option<&Named>) {
        self.archives(rdb_file(source).iter());
    }

    fn archives<'a>(&mut self, names: impl Iterator<Item = &'a OsString>) {
        names.for_each(|name| self.archive(Some(name)));
    }

    fn archive(&mut self, name: Option<&OsString>) {
        self.reads.push(match name.filter(|name| *name != "-") {
            Some(name) => Reading::Input(name.into()),
            None => Reading::Stdin,
        });
    }

    fn output(&mut self, name: Option<&Path>, holds: Holds) {
        match name.filter(|name| name.as_os_str() != "-") {
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

    fn look(&mut self, file: Option<&OsString>, keys: &AgeReadArgs) {
        self.archive(file);
        self.stdout();
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
