//! `export --resume`: into a partial file with a journal, from which a later run goes on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use redis_migrate_format::{Limits, Writer};
use serde::Serialize;

use super::export::{ExportArgs, form, header, options, run};
use crate::exit::usage;
use crate::observer::Observer;
use crate::pipe::{Outcome, Steps, Stop};
use crate::place::store::Appending;
use crate::place::{Endpoint, Location, Place};
use crate::policy::{Consistency, ReadFunctions, Via, word};
use crate::resume::{EXPORT_VERSION, Earlier, ExportBegin, Partial, SelectionIdentity, digest};
use crate::sink::archive::{ArchiveSink, Form};
use crate::sink::journal::Noted;
use crate::source::open::{self, OpenedSource, Wishes};

pub(super) fn export(
    args: &ExportArgs,
    from: &Endpoint,
    wishes: Wishes<'_>,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<Outcome> {
    let output = output_for(args, from)?;
    let begin = begin(args, &wishes)?;
    let mut partial = Partial::open(output)?;
    let mut found = Found::of(args, (output, &mut partial), &begin, observer)?;
    let source = found.open_source(args, from, &wishes, observer)?;
    observer.expect(source.source.estimate());
    let part = partial.path().to_owned();
    let shown = part.display().to_string();
    if let Some(why) = found.useless {
        observer.notice(&format!(
            "{shown} cannot be continued: {why}; the export starts over"
        ));
    }
    let steps = Steps {
        outside: source.outside_keys(from, &args.read.how()),
        ..Steps::default()
    };
    let (noted, journal, writer) = match found.ready {
        Some((noted, writer)) => {
            let journal = partial.go_on(&noted)?;
            observer.go_on_with_errors(noted.errors, noted.failed())?;
            observer.notice(&format!(
                "{shown} is intact and the source is the same process: continuing after {}",
                crate::units::plural(noted.taken.archived, "key")
            ));
            (Some(noted), journal, writer)
        }
        None => {
            let journal = partial.begin(&begin)?;
            observer.begin_errors_anew()?;
            let header = header(args, &source, &wishes.selection, &steps.outside);
            let writer = Writer::new(partial.writer(), &header, options(args))?;
            (None, journal, writer)
        }
    };
    let commit = Box::new(move |_: Appending| partial.commit().map(|()| None));
    let sink = ArchiveSink::on(writer, form(args), commit, Arc::clone(observer))
        .noting(journal, noted.map(|noted| noted.taken));
    let (sink, both) = (Box::new(sink), (observer, stop));
    let outcome = run(args, from, source.source, &steps, sink, both)?;
    // Somebody may have taken it away meanwhile.
    if outcome.error.is_some() && part.exists() {
        observer.notice(&format!(
            "{shown} is kept; run the same command again to continue"
        ));
    }
    Ok(outcome)
}

/// The file that is written, if this export can be gone on with at all.
fn output_for<'a>(args: &'a ExportArgs, from: &Endpoint) -> Result<&'a Path> {
    let Some(Place::Stored(Location::File(output))) = &args.output else {
        return Err(refused("a file to write to (-o FILE)"));
    };
    if !from.is_server() || args.read.via != Via::Scan || args.read.follow {
        return Err(refused(
            "a live server that is scanned once, not an RDB file, --via replica or --follow",
        ));
    }
    if !args.encryption.recipients()?.is_empty() {
        return Err(refused(
            "an unencrypted archive: an encrypted one cannot be continued",
        ));
    }
    Ok(output)
}

/// What an earlier run left.
#[derive(Default)]
struct Found {
    /// What it noted last, and the archive up to there, to be gone on with.
    ready: Option<(Box<Noted>, Writer<Appending>)>,
    /// Why it cannot be gone on with.
    useless: Option<String>,
}

impl Found {
    fn of(
        args: &ExportArgs,
        (output, partial): (&Path, &mut Partial),
        begin: &ExportBegin,
        observer: &Observer,
    ) -> Result<Self> {
        let mut found = Self::default();
        match partial.earlier(begin)? {
            Earlier::None => {}
            Earlier::Finished => observer.notice(&format!(
                "{} was completed by an earlier run, which was killed before it removed its journal; \
                 this run starts a new export",
                output.display()
            )),
            Earlier::Useless(why) => found.useless = Some(why),
            Earlier::Noted(noted) => match read_again(args, partial, &noted)? {
                Ok(writer) => found.ready = Some((noted, writer)),
                Err(why) => found.useless = Some(why),
            },
        }
        Ok(found)
    }

    /// The source, where the earlier run was if it can be read on from there.
    fn open_source(
        &mut self,
        args: &ExportArgs,
        from: &Endpoint,
        wishes: &Wishes<'_>,
        observer: &Arc<Observer>,
    ) -> Result<OpenedSource> {
        if args.read.consistency == Consistency::Scan {
            let at = self.ready.as_ref().map(|(noted, _)| &noted.checkpoint);
            let (source, why) = open::open_at(from, wishes.clone(), at, observer)?;
            if let Some(why) = why {
                self.ready = None;
                self.useless = Some(why.to_owned());
            }
            return Ok(source);
        }
        let text = "only an export with --consistency scan continues where it stopped";
        match self.useless.is_some() || self.ready.is_some() {
            true => self.useless = Some(text.to_owned()),
            false => observer.notice(&format!("{text}; any other starts over")),
        }
        self.ready = None;
        open::open(from, None, wishes.clone(), observer)
    }
}

fn refused(what: &str) -> anyhow::Error {
    usage(format!("--resume needs {what}"))
}

/// What is asked of the server.
#[derive(Serialize)]
struct ReadingIdentity {
    consistency: String,
    functions: &'static str,
    eviction: bool,
}

/// How the archive is written.
#[derive(Serialize)]
struct WritingIdentity {
    zstd_level: i32,
    verbatim: bool,
    no_check: bool,
    max_value_bytes: u64,
    label: Option<String>,
}

/// Everything that decides what stands in the archive.
fn begin(args: &ExportArgs, wishes: &Wishes<'_>) -> Result<ExportBegin> {
    let Form {
        verbatim,
        no_check,
        max_value_bytes,
    } = form(args);
    Ok(ExportBegin {
        identity: EXPORT_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        selection: digest(&SelectionIdentity::of(&wishes.selection))?,
        reading: digest(&ReadingIdentity {
            consistency: word(&args.read.consistency),
            functions: match wishes.functions {
                ReadFunctions::IfPossible => "if-possible",
                ReadFunctions::Compared => "compared",
                ReadFunctions::Required => "required",
                ReadFunctions::No => "no",
            },
            eviction: args.read.eviction,
        })?,
        writing: digest(&WritingIdentity {
            zstd_level: args.zstd_level(),
            verbatim,
            no_check,
            max_value_bytes,
            label: args.label.clone(),
        })?,
    })
}

/// Reads the partial file up to the place and checks all of it; else why it cannot be used.
fn read_again(
    args: &ExportArgs,
    partial: &Partial,
    noted: &Noted,
) -> Result<Result<Writer<Appending>, String>> {
    let written = partial.reader();
    let writer = Writer::go_on(
        partial.writer(),
        written,
        noted.bytes,
        Limits::default(),
        options(args),
    );
    Ok(match writer {
        Ok(writer) if writer.archive_id() != noted.archive_id => {
            Err("it is not the archive that its journal describes".to_owned())
        }
        Ok(writer) if writer.records_written() != noted.taken.archived + noted.taken.functions => {
            Err("it does not hold the records that its journal counts".to_owned())
        }
        Ok(writer) => Ok(writer),
        Err(error) => Err(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::parse;
    use crate::cli::resolve::process_env;
    use crate::commands::export::wishes;
    use crate::commands::{Cli, Invocation};

    fn begin_of(options: &[&str]) -> ExportBegin {
        let line = [
            "redis-migrate",
            "export",
            "redis://h",
            "--resume",
            "-o",
            "x",
        ];
        let line: Vec<OsString> = line.iter().chain(options).map(OsString::from).collect();
        let Ok(cli) = parse::parse::<Cli>(&line) else {
            panic!("{options:?} is no command line");
        };
        let Invocation::Export(args) = cli.verb else {
            panic!("an export");
        };
        let from = args.source(&process_env).unwrap();
        begin(&args, &wishes(&args, &from, &Stop::new())).unwrap()
    }

    #[test]
    fn an_option_that_changes_what_stands_in_the_archive_makes_it_another_export() {
        assert_eq!(
            begin_of(&[]),
            begin_of(&["--rate-limit", "7", "--max-errors", "1"])
        );
        let options: [&[&str]; 12] = [
            &[],
            &["--no-check"],
            &["--max-value", "1KiB"],
            &["--max-value", "2KiB"],
            &["--verbatim"],
            &["--level", "7"],
            &["--no-compress"],
            &["--label", "x"],
            &["--no-functions"],
            &["--eviction"],
            &["--match", "a*"],
            &["--db", "3"],
        ];
        let begins: Vec<ExportBegin> = options.iter().map(|some| begin_of(some)).collect();
        for (at, begin) in begins.iter().enumerate() {
            let same = begins.iter().position(|other| other == begin);
            assert_eq!(same, Some(at), "{:?}", options[at]);
        }
    }
}
