//! `import`: an archive into a live server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::{Limits, Reader};

use crate::cli::ImportArgs;
use crate::exit::{Interrupted, Usage};
use crate::observer::Observer;
use crate::output::ArchiveInput;
use crate::pace::Probe;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::policy::FunctionPolicy;
use crate::server::Conn;
use crate::sink::server::{ServerSink, ServerSinkOptions};
use crate::source::Source;
use crate::source::archive::ArchiveSource;
use crate::ui::Ui;

/// Runs the verb; the exit code.
pub fn run(args: &ImportArgs, stop: &Stop) -> u8 {
    let ui = match Ui::start("import", &args.report, &args.run) {
        Ok(ui) => ui,
        Err(code) => return code,
    };
    let outcome = import(args, &ui.observer(), stop).unwrap_or_else(Outcome::failed);
    ui.finish(&outcome)
}

fn import(args: &ImportArgs, observer: &Arc<Observer>, stop: &Stop) -> Result<Outcome> {
    let (to, file) = args.ends()?;
    if let Some(warning) = to.warnings() {
        observer.warn(&warning);
    }
    let mut input = ArchiveInput::open(file.as_deref())?;
    input.heed(stop);
    let limits = Limits::default();
    if args.verify_first {
        verify_first(&mut input, limits, observer, stop)?;
    }
    let input_bytes = input.len_bytes();
    let source = ArchiveSource::open(
        input,
        limits,
        args.selection(),
        args.write.functions != FunctionPolicy::Skip,
        input_bytes,
        Arc::clone(observer),
    )?;
    observer.expect(source.estimate());
    let may_collide = args.write.rewrite(&to, 0)?.may_collide();
    let options = ServerSinkOptions {
        on_conflict: args.write.on_conflict(),
        functions: args.write.functions,
        max_value_bytes: args.write.max_value,
        allow_loss: args.write.allow_loss.iter().copied().collect(),
        sanitize: args.write.sanitize,
        method: args.write.method,
        source_is_twin: false,
        may_collide,
        dry_run: args.run.dry_run,
    };
    let mut conn = Conn::open(&to)?;
    conn.heed(&to, &stop.flag());
    let sink = ServerSink::open(conn, options, None, Arc::clone(observer))?;
    let rewrite = args.write.rewrite(&to, sink.clock().now_ms())?;
    let expected: Vec<u32> = source.header().expected.iter().map(|row| row.db).collect();
    rewrite.dbs.check(&expected)?;
    if let Some(bytes) = input_bytes {
        // Compressed, so the least that can come.
        sink.check_memory(bytes);
    }
    let steps = Steps {
        rewrite,
        keep_origins: may_collide,
    };
    let pace = args.pace.pace();
    let _probe = match &pace {
        Some(pace) => Probe::start("destination", &to, pace, observer)?,
        None => None,
    };
    Ok(pipe::run_paced(
        Box::new(source),
        &steps,
        Box::new(sink),
        observer,
        stop,
        pace.as_ref(),
    ))
}

/// Reads the whole archive before the first key is written, then goes back to its start.
fn verify_first(
    input: &mut ArchiveInput,
    limits: Limits,
    observer: &Observer,
    stop: &Stop,
) -> Result<()> {
    if !input.is_regular_file() {
        return Err(Usage(
            "--verify-first reads the archive twice and needs a regular file; a pipe can be \
             saved first and checked with `redis-migrate verify`"
                .to_owned(),
        )
        .into());
    }
    let mut reader = Reader::new(&mut *input, limits)?;
    while reader.next_frame()?.is_some() {
        if stop.is_set() {
            return Err(Interrupted.into());
        }
    }
    drop(reader);
    input
        .rewind()
        .context("go back to the start of the archive")?;
    observer.notice("the archive is complete and intact; importing");
    Ok(())
}
