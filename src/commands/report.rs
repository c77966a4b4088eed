//! `report`: what is inside an archive, as one page or as JSON.

mod args;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::{Limits, Reader, Record};

pub use self::args::PageArgs;
use super::{Run, ended, stored, warn_of_loss, warn_of_unread, watch};
use crate::cli::Files;
use crate::describe::inconsistencies;
use crate::describe::watch::Watched;
use crate::exit::{self, usage};
use crate::observer::Observer;
use crate::pipe::Stop;
use crate::place::{Holds, Kept, Output};
use crate::report::{About, Report, json, page};
use crate::source::reading::walk;
use crate::source::standing::Stands;
use crate::ui;
use crate::verb::{Data, Verb};

impl Run for PageArgs {
    const VERB: Verb = Verb {
        name: "report",
        flow: None,
        data: Data::UnlessOutputJsonOrQuiet,
    };

    fn files(&self) -> Files {
        let holds = Holds::other(self.overwrite);
        let (file, output) = (self.file.as_ref(), self.output.as_ref());
        Files::default().made_of(file, &self.encryption, output, holds)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let (report, about) = watch(Self::VERB, self.screen, |observer| {
            gather(self, observer, stop)
        })?;
        Ok(tell(self, &report, &about))
    }
}

fn gather(args: &PageArgs, observer: &Observer, stop: &Stop) -> Result<(Report, About)> {
    let is_page_to_stdout = args.output.is_none() && !args.json && !args.screen.quiet;
    if is_page_to_stdout && io::stdout().is_terminal() {
        return Err(usage(
            "the page is for a browser, and standard output is a terminal; name a file with -o, or \
             say --json",
        ));
    }
    let keys = args.encryption.keys()?;
    let kept = Kept::open(args.file.as_ref(), &keys, stop)?;
    let limits = Limits::default();
    let mut stands = Stands::find(&kept, limits, stop).with_context(|| kept.name())?;
    let input = kept.reader()?;
    let name = input.name().to_owned();
    let expected = input.len_bytes().unwrap_or(0);
    observer.progress.expected_bytes.store(expected, Relaxed);
    let mut watched = Watched::new(input);
    let mut report = Report::new(args.largest);
    let mut reader = Reader::new(&mut watched, limits)
        .context(name.clone())?
        .heads_only();
    let walked = walk(
        &mut reader,
        Some(observer),
        stop,
        |context, record, value_len| {
            match stands.next(record)? {
                true => report.add(record, context, value_len),
                false => report.superseded += u64::from(matches!(record, Record::Key(_))),
            }
            Ok(())
        },
    );
    walked.with_context(|| name.clone())?;
    let header = reader.header().clone();
    let archive_id = reader.archive_id();
    let end = reader.end().cloned();
    let end = end.ok_or_else(|| anyhow!("the archive ended without its end"))?;
    stands
        .still_true(archive_id, Some(&end))
        .context(name.clone())?;
    let (_, claim) = stands.conclude()?;
    let mut problems = inconsistencies(&end);
    problems.extend(claim);
    let (bytes, sha256) = stored(&watched);
    let about = About {
        name,
        bytes,
        sha256,
        encrypted: watched.inner().is_encrypted(),
        archive_id,
        header,
        problems,
        end,
    };
    Ok((report, about))
}

/// Writes the page where one is wanted.
fn write_page(args: &PageArgs, report: &Report, about: &About) -> Result<()> {
    if args.output.is_none() && (args.json || args.screen.quiet) {
        return Ok(());
    }
    let mut output = Output::open(args.output.as_ref())?;
    output
        .write_all(page(report, about).as_bytes())
        .with_context(|| format!("cannot write {}", output.name()))?;
    output.publish()
}

fn tell(args: &PageArgs, report: &Report, about: &About) -> u8 {
    let written = write_page(args, report, about);
    ui::session::summary(json(report, about));
    warn_of_loss(&about.name, &about.header);
    warn_of_unread(Some(&about.end));
    for problem in &about.problems {
        ui::print_warning(problem);
    }
    let code = match about.problems.as_slice() {
        [] => exit::OK,
        _ => exit::SOME_KEYS,
    };
    ended(written, Ok(code))
}
