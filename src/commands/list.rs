//! `list`: the keys of an archive, one a line, as they stand in it. Memory is that of one frame.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use redis_migrate_format::{Frame, Limits, Reader};
use serde_json::json;

use super::quiet_when_nobody_reads;
use crate::cli::ListArgs;
use crate::describe::tally::type_name;
use crate::escape::json_text;
use crate::exit::{self, Interrupted};
use crate::input::ArchiveInput;
use crate::observer::hex;
use crate::payload;
use crate::pipe::Stop;
use crate::record::{Context, Eviction, KeyRecord, Record};
use crate::select::{Selection, module_name, type_of};
use crate::ui::{self, SCHEMA_VERSION};
use crate::units::{bytes_text, duration_text, time_text};

/// Runs the verb; the exit code.
pub fn run(args: &ListArgs, stop: &Stop) -> u8 {
    quiet_when_nobody_reads(list(args, stop))
}

fn list(args: &ListArgs, stop: &Stop) -> Result<u8> {
    let mut reader = Reader::new(
        ArchiveInput::open_with(args.file.as_deref(), &args.encryption.keys()?, Some(stop))?,
        Limits::default(),
    )?;
    let selection = args.select.selection(None);
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let is_silent = args.quiet && !args.json;
    if !args.json && !is_silent {
        writeln!(
            out,
            "{:>3}  {:<7}  {:>10}  {:>8}  {:<24}  key",
            "db", "type", "size", "ttl", "expires"
        )?;
    }
    let mut listed = 0;
    let walked = loop {
        if stop.is_set() {
            break Err(Interrupted.into());
        }
        match reader.next_frame() {
            Ok(None) => break Ok(()),
            Ok(Some(_)) if is_silent => {}
            Ok(Some(frame)) => listed += list_frame(args, &selection, &frame, &mut out)?,
            Err(error) => break Err(anyhow::Error::new(error)),
        }
    };
    ui::session::summary(json!({
        "complete": walked.is_ok(),
        "listed": listed,
        "records": reader.records_read(),
    }));
    // What was listed before the damage is intact, and comes out before the error is told.
    out.flush()?;
    if walked.is_ok() && !is_silent {
        ui::check_matched(listed);
    }
    walked.map(|()| exit::OK)
}

fn list_frame(
    args: &ListArgs,
    selection: &Selection,
    frame: &Frame,
    out: &mut impl Write,
) -> io::Result<u64> {
    let mut listed = 0;
    for record in &frame.records {
        match record {
            Record::Key(key) if wants(selection, key, &frame.context) => {
                listed += 1;
                if args.json {
                    key_json(key, &frame.context, out)?;
                } else {
                    key_text(key, &frame.context, out)?;
                }
            }
            Record::Deleted { db, key }
                if selection.wants_db(*db)
                    && selection.wants_key(key)
                    && !selection.needs_value() =>
            {
                listed += 1;
                if args.json {
                    let mut object = json!({
                        "schema_version": SCHEMA_VERSION,
                        "event": "deleted",
                        "db": db,
                    });
                    put_key(&mut object, key);
                    writeln!(out, "{}", json_text(&object))?;
                } else {
                    row(out, *db, "deleted", None, None, key)?;
                }
            }
            Record::Functions(payload) if selection.is_everything() && args.json => {
                let object = json!({
                    "schema_version": SCHEMA_VERSION,
                    "event": "functions",
                    "value_bytes": payload.len(),
                });
                writeln!(out, "{}", json_text(&object))?;
            }
            _ => {}
        }
    }
    Ok(listed)
}

/// Remaining life counts from when the key was read, as at the export.
fn wants(selection: &Selection, key: &KeyRecord, context: &Context) -> bool {
    selection.wants_db(key.db)
        && selection.wants_key(&key.key)
        && (!selection.needs_value()
            || selection.wants_value(
                &type_of(context.family, key.value.bytes()),
                key.value.bytes().len() as u64,
                key.expire_at_ms,
                context.source_time_ms,
            ))
}

fn key_text(key: &KeyRecord, context: &Context, out: &mut impl Write) -> io::Result<()> {
    let expiry = key.expire_at_ms.map(|at_ms| {
        let left_ms = at_ms.saturating_sub(context.source_time_ms);
        (std::time::Duration::from_millis(left_ms), at_ms)
    });
    row(
        out,
        key.db,
        type_name(key, context),
        Some(key.value.bytes().len()),
        expiry,
        &key.key,
    )
}

fn row(
    out: &mut impl Write,
    db: u32,
    type_name: &str,
    bytes: Option<usize>,
    expiry: Option<(std::time::Duration, u64)>,
    key: &[u8],
) -> io::Result<()> {
    let dash = || "-".to_owned();
    writeln!(
        out,
        "{db:>3}  {type_name:<7}  {:>10}  {:>8}  {:<24}  \"{}\"",
        bytes.map_or_else(dash, |bytes| bytes_text(bytes as u64)),
        expiry.map_or_else(dash, |(left, _)| duration_text(left)),
        expiry.map_or_else(dash, |(_, at_ms)| time_text(at_ms)),
        key.escape_ascii()
    )
}

fn key_json(key: &KeyRecord, context: &Context, out: &mut impl Write) -> io::Result<()> {
    let mut object = json!({
        "schema_version": SCHEMA_VERSION,
        "event": "key",
        "db": key.db,
        "type": type_name(key, context),
        "type_byte": key.value.type_byte(),
        "value_bytes": key.value.bytes().len(),
        "expire_at_ms": key.expire_at_ms,
        "source_time_ms": context.source_time_ms,
    });
    put_key(&mut object, &key.key);
    let is_module = type_name(key, context) == payload::Kind::Module.name();
    if let Some(name) = module_name(key.value.bytes()).filter(|_| is_module) {
        object["module"] = json!(name);
    }
    match key.eviction {
        Some(Eviction::IdleSecs(secs)) => object["idle_secs"] = json!(secs),
        Some(Eviction::Freq(freq)) => object["freq"] = json!(freq),
        None => {}
    }
    writeln!(out, "{}", json_text(&object))
}

fn put_key(object: &mut serde_json::Value, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(text) => object["key"] = json!(text),
        Err(_) => object["key_hex"] = json!(hex(key)),
    }
}
