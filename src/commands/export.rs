//! `export`: a live server or an RDB file into an archive.

mod args;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use redis_migrate_format::WriterOptions;
use redis_migrate_format::header::{Header, SourceFacts, Tool};

pub use self::args::ExportArgs;
use super::flow;
use super::{Run, export_resume};
use crate::cli::Files;
use crate::cli::resolve::process_env;
use crate::encryption::{Recipients, Sealing, StoredAs};
use crate::host::unix_ms;
use crate::observer::Observer;
use crate::outside::OutsideKeys;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::place::{Endpoint, Holds, Location, Output, Place};
use crate::policy::Consistency;
use crate::resume::files_beside;
use crate::sink::Sink;
use crate::sink::archive::{ArchiveSink, Form};
use crate::source::Source;
use crate::source::open::{self, OpenedSource, Wishes, probe_source};
use crate::units::bytes_text;
use crate::verb::{Data, Flow, Verb};

/// While following, a frame is closed at the latest after so long.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

impl Run for ExportArgs {
    const VERB: Verb = Verb {
        name: "export",
        flow: Some(Flow::Export),
        data: Data::UnlessOutput,
    };

    fn files(&self) -> Files {
        let mut files = Files::default()
            .inputs(&self.source)
            .output(self.output.as_ref(), Holds::Archive);
        if self.resume
            && let Some(Place::Stored(Location::File(output))) = &self.output
            && let Ok([part, journal]) = files_beside(output)
        {
            // What stands there is looked at before anything is written to it.
            files = files
                .write("the unfinished archive of --resume", &part, Holds::Archive)
                .write("the journal of --resume", &journal, Holds::Archive);
        }
        files
            .age_write(&self.encryption)
            .server(&self.connect.flags())
            .run(&self.run)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let screen = (&self.report, &self.run, self.resume);
        flow(Self::VERB, screen, |observer| export(self, observer, stop))
    }
}

/// Exports what the parsed command line says, until it is done or `stop` is set: the whole verb, except
/// for the screen. `observer` hears of progress, warnings and failed keys.
///
/// # Errors
/// What ended the run before any record was read. An error after that is in the outcome.
pub fn export(args: &ExportArgs, observer: &Arc<Observer>, stop: &Stop) -> Result<Outcome> {
    let from = args.source(&process_env)?;
    if let Some(warning) = from.warnings() {
        observer.warn(&warning);
    }
    if args.resume {
        let wishes = wishes(args, &from, stop);
        return export_resume::export(args, &from, wishes, observer, stop);
    }
    // Before anything is read: a terminal is refused, an unwritable place is found out.
    let output = match args.run.dry_run {
        true => Sealing::new(Output::nowhere(), &Recipients::default())?,
        false => {
            let recipients = args.encryption.recipients()?;
            Sealing::new(Output::open(args.output.as_ref())?, &recipients)?
        }
    };
    let wishes = wishes(args, &from, stop);
    let source = open::open(&from, None, wishes, observer)?;
    observer.expect(source.source.estimate());
    let steps = Steps {
        outside: source.outside_keys(&from, &args.read.how()),
        ..Steps::default()
    };
    let header = header(
        args,
        &source,
        &args.select.selection(from.db()),
        &steps.outside,
    );
    let sink = sink(args, output, &header, observer)?;
    run(args, &from, source.source, &steps, sink, (observer, stop))
}

/// Reads the source into the sink, as gently as was asked for.
pub(super) fn run(
    args: &ExportArgs,
    from: &Endpoint,
    source: Box<dyn Source>,
    steps: &Steps,
    sink: Box<dyn Sink>,
    (observer, stop): (&Arc<Observer>, &Stop),
) -> Result<Outcome> {
    let pace = args.pace.pace();
    let _probe = probe_source(from, pace.as_ref(), observer)?;
    let (stop, pace) = (stop.of_pipe(args.read.follow), pace.as_ref());
    Ok(pipe::run_paced(source, steps, sink, observer, &stop, pace))
}

pub(super) fn wishes<'a>(args: &'a ExportArgs, from: &Endpoint, stop: &'a Stop) -> Wishes<'a> {
    Wishes {
        read: args.read.how(),
        selection: args.select.selection(from.db()),
        other_urls_db: None,
        functions: args.read_functions(),
        verbatim: args.verbatim,
        consistency: args.read.consistency,
        max_value_bytes: args.limits.max_value_bytes(),
        takes_back: true,
        stop,
    }
}

/// Ends the encryption, where there is any, and puts the file in its place.
fn complete(output: Sealing<Output>) -> Result<Option<StoredAs>> {
    let (output, stored) = output.finish()?;
    output.publish()?;
    Ok(stored)
}

fn sink(
    args: &ExportArgs,
    output: Sealing<Output>,
    header: &Header,
    observer: &Arc<Observer>,
) -> Result<Box<dyn Sink>> {
    let sink = ArchiveSink::create(
        output,
        header,
        options(args),
        form(args),
        Box::new(complete),
        Arc::clone(observer),
    )?;
    // Only what is followed while it changes comes more than once.
    let sink = match args.read.consistency {
        Consistency::Scan if !args.read.follow => sink,
        _ => sink.taking_back(),
    };
    Ok(Box::new(match args.read.follow {
        true => sink.flushing_every(FLUSH_EVERY),
        false => sink,
    }))
}

/// How frames are written.
pub(super) fn options(args: &ExportArgs) -> WriterOptions {
    WriterOptions {
        level: args.zstd_level(),
        ..WriterOptions::default()
    }
}

/// What values become in the archive.
pub(super) fn form(args: &ExportArgs) -> Form {
    Form {
        verbatim: args.verbatim,
        no_check: args.no_check,
        max_value_bytes: args.limits.max_value_bytes(),
    }
}

pub(super) fn header(
    args: &ExportArgs,
    source: &OpenedSource,
    selection: &crate::select::Selection,
    outside: &OutsideKeys,
) -> Header {
    Header {
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: crate::version::GIT.to_owned(),
        },
        created_ms: unix_ms(),
        source_time_ms: source.time_ms,
        source: SourceFacts {
            label: args.label.clone(),
            ..source.facts.clone()
        },
        consistency: source.consistency,
        expected: source.expected(),
        selection: {
            let mut facts = selection.facts();
            facts.other.extend(source.left_out.clone());
            let limit = args.limits.max_value.map(bytes_text);
            facts
                .other
                .extend(limit.map(|max| format!("no values above {max} (--max-value)")));
            facts
        },
        functions: !args.no_functions && source.source.report().libraries.none.is_none(),
        eviction: source.eviction,
        level: args.zstd_level(),
        frame_target_bytes: WriterOptions::default().frame_target_bytes,
        extra: outside.header_field().into_iter().collect(),
        ..Header::default()
    }
}
