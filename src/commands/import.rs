//! `import`: an archive into a live server.

mod args;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

pub use self::args::ImportArgs;
use super::into_server::{connect, probe, rules, sink_options, try_databases};
use super::open_archives::{
    OpenedArchives, begin_of, expected_of, open_archives, read_ahead, state_of,
};
use super::{Run, flow};
use crate::cli::Files;
use crate::cli::resolve::process_env;
use crate::compare::prove::Proof;
use crate::endpoint::ConnectOptions;
use crate::observer::Observer;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::place::{Holds, Location, Place};
use crate::policy::OnConflict;
use crate::record::{Mark, show_key};
use crate::resume::{ResumingSink, State};
use crate::rewrite::TtlIntent;
use crate::select::{Selection, Sought};
use crate::sink::Sink;
use crate::sink::server::ServerSink;
use crate::sink::server::held::Repeats;
use crate::source::Source;
use crate::verb::{Data, Flow, Verb};

impl Run for ImportArgs {
    const VERB: Verb = Verb {
        name: "import",
        flow: Some(Flow::Import),
        data: Data::Never,
    };

    fn files(&self) -> Files {
        // With the destination in the environment the first argument is a file.
        let mut files = Files::default().inputs(self.destination.iter().chain(&self.files));
        if files.reads.is_empty() {
            files = files.inputs([&Place::Stored(Location::Stream)]);
        }
        if let Some(state) = self.resume.as_ref().filter(|state| !state.is_empty()) {
            files = files.write("the --resume state", Path::new(state), Holds::Other);
        }
        files
            .stdout()
            .age_read(&self.encryption)
            .server(&self.connect.flags())
            .run(&self.run)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let screen = (&self.report, &self.run, self.resume.is_some());
        flow(Self::VERB, screen, |observer| import(self, observer, stop))
    }
}

/// Imports what the parsed command line says, until it is done or `stop` is set: the whole verb, except
/// for the screen. `observer` hears of progress, warnings and failed keys.
///
/// # Errors
/// What ended the run before any record was read. An error after that is in the outcome.
pub fn import(args: &ImportArgs, observer: &Arc<Observer>, stop: &Stop) -> Result<Outcome> {
    let (to, files) = args.ends(&process_env)?;
    if let Some(warning) = to.warnings() {
        observer.warn(&warning);
    }
    let mut opened = open_archives(args, &files, observer, stop)?;
    let may_repeat = opened.may_repeat;
    observer.expect(opened.row.estimate());
    let may_collide = args
        .write
        .rewrite(&to, 0)?
        .may_collide_among(&args.selection()?);
    let options = sink_options(
        &args.write,
        &args.run,
        may_collide,
        repeats(args, may_repeat),
    );
    let conn = connect(&to, Some(stop), observer)?;
    let proof = Proof::new(args.verify);
    let accepted = proof.listening(None);
    let mut sink = ServerSink::open(&to, conn, options, accepted, Arc::clone(observer), stop)?;
    let now_ms = sink.clock().now_ms();
    proof.begin(now_ms);
    let may = (may_collide, may_repeat);
    let (state, seen) = earlier(args, &to, now_ms, may, &mut opened, observer)?;
    let OpenedArchives {
        row: mut source,
        tables,
        sought,
        ..
    } = opened;
    let mut expected = expected_of(&source, &tables);
    let from = state
        .as_ref()
        .map_or(Mark::default(), |state| state.settled);
    read_ahead(args, &mut source, tables, from);
    let base_now_ms = state
        .as_ref()
        .map_or(now_ms, |state| state.begin.base_now_ms);
    let rewrite = args.write.rewrite(&to, base_now_ms)?;
    if let TtlIntent::Rebase { base_now_ms } = rewrite.ttl {
        sink.expect_rebased(base_now_ms);
    }
    let selection = args.selection()?;
    expected.retain(|db, _| selection.wants_db(*db));
    let coming: Vec<_> = expected.into_iter().collect();
    try_databases(&mut sink, &to, &rewrite, &coming, &proof, stop)?;
    if let Some(bytes) = source.estimate().bytes {
        // Compressed, so the least that can come.
        sink.check_memory(bytes);
    }
    let steps = Steps {
        rewrite,
        keep_origins: may_collide || proof.is_asked(),
        with_rules: rules(&args.run, &to, &sink),
        ..Steps::default()
    };
    let pace = args.pace.pace();
    let _probe = probe(pace.as_ref(), &to, observer)?;
    let remember = may_repeat && options.on_conflict != OnConflict::Replace;
    let sink: Box<dyn Sink> = match state {
        None => Box::new(sink),
        Some(state) => Box::new(ResumingSink::new(
            Box::new(sink),
            state,
            to.clone(),
            options.on_conflict,
            remember,
            seen,
            Arc::clone(observer),
        )?),
    };
    let outcome = pipe::run_paced(
        Box::new(source),
        &steps,
        sink,
        observer,
        stop,
        pace.as_ref(),
    );
    // What an earlier run has done is not read again.
    if outcome.error.is_none() && from == Mark::default() {
        warn_of_missing(&sought, &selection, observer);
    }
    Ok(proof.complete(&to, outcome, observer, stop))
}

/// Whether a key may come more than once.
fn repeats(args: &ImportArgs, may_repeat: bool) -> Repeats {
    // Going on, what stands may be what an earlier run wrote: that is no skipping.
    let skips = args.resume.is_some() && args.write.on_conflict() == OnConflict::Skip;
    match may_repeat || skips {
        true => Repeats::Archive,
        false => Repeats::No,
    }
}

fn warn_of_missing(sought: &Sought, selection: &Selection, observer: &Observer) {
    for key in sought.missing(&selection.only_keys) {
        let key = show_key(key);
        observer.warn(&format!(
            "--only-key {key}: no such key was found to import"
        ));
    }
}

/// With `--resume`: the state of this import, and what was seen of what an earlier run wrote. The
/// archives go on where that stopped.
fn earlier(
    args: &ImportArgs,
    to: &ConnectOptions,
    now_ms: u64,
    may_collide_or_repeat: (bool, bool),
    opened: &mut OpenedArchives,
    observer: &Observer,
) -> Result<(Option<State>, Option<String>)> {
    let Some(place) = &args.resume else {
        return Ok((None, None));
    };
    let parts = std::mem::take(&mut opened.parts);
    let begin = begin_of(args, parts, to, now_ms)?;
    let (state, seen) = state_of(
        args,
        (place, begin),
        to,
        may_collide_or_repeat,
        &mut opened.row,
        &opened.tables,
        observer,
    )?;
    Ok((Some(state), seen))
}
