//! `list`: the keys of an archive, one a line, as they stand in it: of a key with several records the
//! last. Memory is that of one frame.

mod args;

use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use redis_migrate_format::{Limits, Reader};
use serde_json::json;

pub use self::args::ListArgs;
use super::{Run, ended, unread_json, warn_of_loss, warn_of_unread};
use crate::cli::Files;
use crate::describe::tally::type_name;
use crate::escape::write_json_line;
use crate::exit::{self, Interrupted};
use crate::payload::{self, metadata};
use crate::pipe::Stop;
use crate::place::Kept;
use crate::record::{Context, Eviction, KeyRecord, Record};
use crate::select::{Selection, module_name, type_of};
use crate::size;
use crate::source::standing::Stands;
use crate::ui;
use crate::units::{bytes_text, duration_text, put_key, time_text};
use crate::verb::{Data, Verb};
use crate::version::SCHEMA_VERSION;

impl Run for ListArgs {
    const VERB: Verb = Verb {
        name: "list",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default().look(self.file.as_ref(), &self.encryption)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let keys = self.encryption.keys()?;
        let kept = Kept::open(self.file.as_ref(), &keys, stop)?;
        let limits = Limits::default();
        let mut stands = Stands::find(&kept, limits, stop)?;
        let selection = self.select.selection(None);
        let mut reader = Reader::new(kept.reader()?, limits)?;
        // Sizes are measured on whole values.
        if !selection.needs_size() {
            reader = reader.heads_only();
        }
        let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        let is_silent = self.quiet && !self.json;
        if !self.json && !is_silent {
            heading(&mut out)?;
        }
        let mut listed = 0;
        let walked = loop {
            if stop.is_set() {
                break Err(Interrupted.into());
            }
            let mut trouble = Ok(());
            let frame = reader.visit_frame(|context, record, value_bytes| {
                let mut take = || -> Result<u64> {
                    if !stands.next(record)? || is_silent {
                        return Ok(0);
                    }
                    let shown = Shown {
                        context,
                        value_bytes,
                        as_json: self.json,
                    };
                    Ok(shown.list(&selection, record, &mut out)?)
                };
                if trouble.is_ok() {
                    trouble = take().map(|rows| listed += rows);
                }
            });
            match (frame, trouble) {
                (Err(error), _) => break Err(anyhow::Error::new(error)),
                // Nobody reads on: neither do we. What the first reading met is told all the same.
                (Ok(_), Err(error)) => {
                    let damage = stands.damage().map(anyhow::Error::new);
                    return Ok(ended(Err(error), damage.map_or(Ok(exit::OK), Err)));
                }
                (Ok(None), Ok(())) => break Ok(()),
                (Ok(Some(_)), Ok(())) => {}
            }
        };
        let walked = walked.and_then(|()| stands.still_true(reader.archive_id(), reader.end()));
        let (keys, problem) = stands.conclude()?;
        let end = reader.end().filter(|_| walked.is_ok()).cloned();
        ui::session::summary(json!({
            "complete": walked.is_ok(),
            "listed": listed,
            "keys": keys,
            "problem": problem,
            "export_failed": unread_json(end.as_ref()),
            "export_lacks": end.as_ref().map(|end| &end.lacks),
            "records": reader.records_read(),
        }));
        // What was listed before the damage is intact, and comes out before the error is told.
        let printed = out.flush().context("cannot write to standard output");
        if walked.is_ok() && !is_silent {
            ui::check_matched(listed);
        }
        warn_of_loss(&kept.name(), reader.header());
        warn_of_unread(end.as_ref());
        let code = walked.map(|()| match problem {
            None => exit::OK,
            Some(problem) => {
                ui::print_warning(&problem);
                exit::SOME_KEYS
            }
        });
        Ok(ended(printed, code))
    }
}

fn heading(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>3}  {:<7}  {:>10}  {:>8}  {:<24}  key",
        "db", "type", "size", "ttl", "expires"
    )
}

/// How a record is shown.
struct Shown<'a> {
    context: &'a Context,
    /// Bytes of its value, of which only the first may be there.
    value_bytes: u64,
    as_json: bool,
}

impl Shown<'_> {
    /// Lists a record that stands, if it is wanted; how many rows of keys that are.
    fn list(
        &self,
        selection: &Selection,
        record: &Record,
        out: &mut impl Write,
    ) -> io::Result<u64> {
        let (context, value_bytes) = (self.context, self.value_bytes);
        match record {
            Record::Key(key) if wants(selection, key, context) => {
                if self.as_json {
                    key_json(key, context, value_bytes, out)?;
                } else {
                    key_text(key, context, value_bytes, out)?;
                }
            }
            Record::Deleted { db, key }
                if selection.wants_db(*db)
                    && selection.wants_key(key)
                    && !selection.needs_value() =>
            {
                if self.as_json {
                    let mut object = json!({
                        "schema_version": SCHEMA_VERSION,
                        "event": "deleted",
                        "db": db,
                    });
                    put_key(&mut object, key);
                    write_json_line(out, &object)?;
                } else {
                    row(out, *db, "deleted", None, None, key)?;
                }
            }
            Record::Functions(_) if selection.is_everything() && self.as_json => {
                let object = json!({
                    "schema_version": SCHEMA_VERSION,
                    "event": "functions",
                    "value_bytes": value_bytes,
                });
                write_json_line(out, &object)?;
                return Ok(0);
            }
            _ => return Ok(0),
        }
        Ok(1)
    }
}

/// Remaining life counts from when the key was read, as at the export.
fn wants(selection: &Selection, key: &KeyRecord, context: &Context) -> bool {
    let bytes = || match selection.needs_size() {
        true => size::of(&key.value, context.family),
        false => 0,
    };
    selection.wants_db(key.db)
        && selection.wants_key(&key.key)
        && (!selection.needs_value()
            || selection.wants_value(
                &type_of(context.family, key.value.bytes()),
                bytes(),
                key.expire_at_ms,
                context.source_time_ms,
            ))
}

fn key_text(
    key: &KeyRecord,
    context: &Context,
    value_bytes: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let expiry = key.expire_at_ms.map(|at_ms| {
        let left_ms = at_ms.saturating_sub(context.source_time_ms);
        (std::time::Duration::from_millis(left_ms), at_ms)
    });
    row(
        out,
        key.db,
        type_name(key, context),
        Some(value_bytes),
        expiry,
        &key.key,
    )
}

fn row(
    out: &mut impl Write,
    db: u32,
    type_name: &str,
    bytes: Option<u64>,
    expiry: Option<(std::time::Duration, u64)>,
    key: &[u8],
) -> io::Result<()> {
    let dash = || "-".to_owned();
    writeln!(
        out,
        "{db:>3}  {type_name:<7}  {:>10}  {:>8}  {:<24}  \"{}\"",
        bytes.map_or_else(dash, bytes_text),
        expiry.map_or_else(dash, |(left, _)| duration_text(left)),
        expiry.map_or_else(dash, |(_, at_ms)| time_text(at_ms)),
        key.escape_ascii()
    )
}

fn key_json(
    key: &KeyRecord,
    context: &Context,
    value_bytes: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut object = json!({
        "schema_version": SCHEMA_VERSION,
        "event": "key",
        "db": key.db,
        "type": type_name(key, context),
        "type_byte": payload::type_byte(context.family, key.value.head()),
        "value_bytes": value_bytes,
        "expire_at_ms": key.expire_at_ms,
        "source_time_ms": context.source_time_ms,
    });
    put_key(&mut object, &key.key);
    let value = payload::plain(context.family, key.value.bytes());
    let is_module = payload::kind(context.family, value) == payload::Kind::Module;
    if let Some(name) = module_name(value).filter(|_| is_module) {
        object["module"] = json!(name);
    }
    if let Ok(classes) = metadata::classes(context.family, key.value.bytes())
        && !classes.is_empty()
    {
        let names: Vec<String> = classes.iter().map(metadata::Class::name).collect();
        object["key_metadata"] = json!(names);
    }
    match key.eviction {
        Some(Eviction::IdleSecs(secs)) => object["idle_secs"] = json!(secs),
        Some(Eviction::Freq(freq)) => object["freq"] = json!(freq),
        None => {}
    }
    write_json_line(out, &object)
}
