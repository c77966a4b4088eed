//! `import`: an archive into a live server.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::header::{ArchiveOrigin, Header};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::seek::Table;
use redis_migrate_format::{Class, Limits, Reader};

use crate::cli::ImportArgs;
use crate::exit::{Interrupted, Usage};
use crate::observer::Observer;
use crate::output::ArchiveInput;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::policy::FunctionPolicy;
use crate::server::Conn;
use crate::sink::server::{ServerSink, ServerSinkOptions};
use crate::source::Source;
use crate::source::archive::{ArchiveRow, ArchiveSource};
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
    let (to, files) = args.ends()?;
    if let Some(warning) = to.warnings() {
        observer.warn(&warning);
    }
    let source = open_archives(args, &files, observer, stop)?;
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
    let sink = ServerSink::open(Conn::open(&to)?, options, None, Arc::clone(observer))?;
    let rewrite = args.write.rewrite(&to, sink.clock().now_ms())?;
    let mut expected: Vec<u32> = source
        .archives()
        .flat_map(|archive| archive.header().expected.iter().map(|row| row.db))
        .collect();
    expected.sort_unstable();
    expected.dedup();
    rewrite.dbs.check(&expected)?;
    if let Some(bytes) = source.estimate().bytes {
        // Compressed, so the least that can come.
        sink.check_memory(bytes);
    }
    let steps = Steps {
        rewrite,
        keep_origins: may_collide,
    };
    Ok(pipe::run(
        Box::new(source),
        &steps,
        Box::new(sink),
        observer,
        stop,
    ))
}

/// Opens all of them before anything is written.
fn open_archives(
    args: &ImportArgs,
    files: &[OsString],
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<ArchiveRow<ArchiveInput>> {
    let stdin = [OsString::from("-")];
    let files = if files.is_empty() { &stdin } else { files };
    let limits = Limits::default();
    let mut archives: Vec<(String, ArchiveSource<ArchiveInput>)> = Vec::new();
    for file in files {
        let mut input = ArchiveInput::open(Some(file))?;
        let name = input.name().to_owned();
        if args.verify_first {
            verify_first(&mut input, limits, observer, stop).with_context(|| name.clone())?;
        } else if !args.allow_incomplete && input.is_regular_file() {
            require_its_end(&mut input).with_context(|| name.clone())?;
        }
        let input_bytes = input.len_bytes();
        let archive = ArchiveSource::open(
            input,
            limits,
            args.selection()?,
            args.write.functions != FunctionPolicy::Skip,
            input_bytes,
            Arc::clone(observer),
        )
        .with_context(|| name.clone())?;
        if let Some(loss) = loss_of(archive.header()) {
            observer.warn(&format!("{name} {loss}"));
        }
        let is_same =
            |(_, other): &&(_, ArchiveSource<_>)| other.archive_id() == archive.archive_id();
        if let Some((other, _)) = archives.iter().find(is_same) {
            return Err(Usage(format!("{other} and {name} are the same archive")).into());
        }
        archives.push((name, archive));
    }
    let observer = Arc::clone(observer);
    Ok(ArchiveRow::new(archives, args.allow_incomplete, observer))
}

/// What a salvaged archive lacks.
fn loss_of(header: &Header) -> Option<String> {
    let ArchiveOrigin::Salvaged { .. } = header.origin else {
        return None;
    };
    let mut lost = header
        .extra
        .iter()
        .filter_map(|(name, value)| match name.as_str() {
            "salvaged_lost_records" => Some(format!("{value} records")),
            "salvaged_lost_frames" => Some(format!("{value} frames")),
            "salvaged_end" => Some("its end".to_owned()),
            _ => None,
        })
        .peekable();
    lost.peek()?;
    let lost: Vec<String> = lost.collect();
    Some(format!(
        "was salvaged from a damaged archive: {} were lost",
        lost.join(", ")
    ))
}

/// An archive without its end is refused before anything is written. Of a pipe the end is seen
/// only at the end.
fn require_its_end(input: &mut ArchiveInput) -> Result<()> {
    let Err(error) = Table::read(input) else {
        return input.rewind();
    };
    // What is wrong at the end may follow from something before it.
    input.rewind()?;
    let mut precisely = || -> redis_migrate_format::Result<()> {
        let mut scan = Scan::new(&mut *input)?;
        while scan.next_frame()?.is_some() {}
        Ok(())
    };
    let error = match error.class() {
        Class::Incomplete | Class::Damaged => precisely().err().unwrap_or(error),
        _ => error,
    };
    Err(anyhow::Error::new(error).context(
        "nothing was written (--allow-incomplete imports what is intact, `salvage` rescues all \
         that is)",
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
