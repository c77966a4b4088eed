//! `extract`: one value of an archive.

mod args;

use std::collections::BTreeMap;
use std::io::{self, BufReader, IsTerminal, Read, Seek, Write};

use anyhow::{Context as _, Result, anyhow};
use memchr::memmem;
use redis_migrate_format::frame::FrameType;
use redis_migrate_format::record::Glance;
use redis_migrate_format::salvage::{Content, Decoder, IntactFrame};
use redis_migrate_format::seek::{Place, Table, read_frame};
use redis_migrate_format::{End, Header, Limits, Reader};

pub use self::args::ExtractArgs;
use super::{Run, quiet_when_nobody_reads};
use crate::cli::Files;
use crate::cli::resolve::given_key;
use crate::escape::json_text;
use crate::exit::{self, usage};
use crate::payload::{self, Examined, Object};
use crate::pipe::Stop;
use crate::place::{Holds, Input, Output};
use crate::record::{Context, KeyRecord, Record, Value, larger_than, not_kept, show_key};
use crate::sink::jsonl;
use crate::size::{self, is_larger};
use crate::ui;
use crate::verb::{Data, Verb};

/// What `extract` looks for.
struct Wanted {
    db: Option<u32>,
    key: Vec<u8>,
}

/// The last record of a key.
enum Last {
    Value(Box<KeyRecord>, Context),
    Deleted,
}

/// What was found of a key.
struct Found {
    /// The database that was meant.
    db: u32,
    last: Option<Last>,
    header: Header,
    end: End,
}

impl Run for ExtractArgs {
    const VERB: Verb = Verb {
        name: "extract",
        flow: None,
        data: Data::UnlessOutput,
    };

    fn files(&self) -> Files {
        let holds = Holds::other(self.overwrite);
        let (file, output) = (self.file.as_ref(), self.output.as_ref());
        Files::default().made_of(file, &self.encryption, output, holds)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        quiet_when_nobody_reads(extract(self, stop))
    }
}

fn extract(args: &ExtractArgs, stop: &Stop) -> Result<u8> {
    let wanted = Wanted {
        db: args.db,
        key: given_key(&args.key)?,
    };
    let input = Input::open(args.file.as_ref(), &args.encryption.keys()?, stop)?;
    let name = input.name().to_owned();
    let max = args.limits.max_value_bytes();
    let limits = size::limits(args.limits.max_value_bytes());
    let found = if input.is_sought_quickly() {
        let input = BufReader::with_capacity(256 * 1024, input);
        search_backwards(input, &wanted, limits, stop)
    } else {
        search_forwards(input, &wanted, limits, stop)
    };
    let Found {
        db,
        last,
        header,
        end,
    } = found.with_context(|| name.clone())?;
    super::warn_of_loss(&name, &header);
    let shown = show_key(&wanted.key);
    match last {
        Some(Last::Value(record, context)) if is_larger(&record.value, context.family, max) => {
            ui::print_warning(&format!(
                "{name}: key {shown} was not extracted: {}",
                larger_than(max)
            ));
            Ok(exit::SOME_KEYS)
        }
        Some(Last::Value(record, context)) => {
            let damaged = |reason| anyhow!("the value of {shown} is damaged: {reason}");
            let damage = damage_of_payload(args, &record, &context).map_err(damaged)?;
            let bytes = presented(args, &record, &context).map_err(damaged)?;
            give(args, &bytes)?;
            let Some(reason) = damage else {
                return Ok(exit::OK);
            };
            ui::print_warning(&format!(
                "{name}: the value of {shown} is damaged, and its payload is written exactly as it \
                 came from the source ({reason}); do not restore it"
            ));
            Ok(exit::SOME_KEYS)
        }
        Some(Last::Deleted) => Err(anyhow!(
            "{name}: key {shown} in database {db} was deleted while the export followed writes"
        )),
        None => {
            // It may be one of those.
            super::warn_of_unread(Some(&end));
            Err(anyhow!("{name}: no key {shown} in database {db}"))
        }
    }
}

/// Which database is meant when none was named.
fn meant(wanted: &Wanted, end: &End) -> u32 {
    wanted.db.unwrap_or(match end.per_db.as_slice() {
        [only] => only.db,
        _ => 0,
    })
}

/// From the last frame to the first: the first record that is found is the last one of its key.
fn search_backwards<R: Read + Seek>(
    mut input: R,
    wanted: &Wanted,
    limits: Limits,
    stop: &Stop,
) -> Result<Found> {
    let table = Table::read_or_explain(&mut input)?;
    let db = meant(wanted, &table.end);
    let mut decoder = Decoder::new(limits)?;
    // Parts of a large value, the last one first.
    let mut run: Vec<&Place> = Vec::new();
    let mut last = None;
    for place in table.frames.iter().rev() {
        exit::unless_stopped(stop)?;
        if !matches!(place.frame_type, FrameType::DATA | FrameType::FRAGMENT) {
            continue;
        }
        let mut frame = read_frame(&mut input, place, table.archive_id)?;
        let mut content = None;
        if place.frame_type == FrameType::DATA {
            if memmem::find(decoder.body(&mut frame)?, &wanted.key).is_none() {
                continue;
            }
            content = Some(decoder.decode(read_frame(&mut input, place, table.archive_id)?)?);
        } else {
            run.push(place);
            if decoder.part(&mut frame)? > 0 {
                continue;
            }
            let parts: Vec<&Place> = run.drain(..).rev().collect();
            let mut read = |part: &Place| read_frame(&mut input, part, table.archive_id);
            if !is_run_of(&mut decoder, &parts, &mut read, (db, &wanted.key))? {
                continue;
            }
            for part in parts {
                content = Some(decoder.decode(read(part)?)?);
            }
        }
        if let Some(Content::Records(frame)) = content {
            let records = frame.records.into_iter();
            let mut of_key = records.filter_map(|it| of_key(it, &frame.context, &wanted.key));
            last = of_key.find(|(found, _)| *found == db).map(|(_, last)| last);
            if last.is_some() {
                break;
            }
        }
    }
    Ok(Found {
        db,
        last,
        header: table.header,
        end: table.end,
    })
}

/// Whether the parts of a value are those of this key. As many are read as it takes to know its name,
/// which other entries may stand before.
fn is_run_of(
    decoder: &mut Decoder,
    parts: &[&Place],
    read: &mut impl FnMut(&Place) -> redis_migrate_format::Result<IntactFrame>,
    wanted: (u32, &[u8]),
) -> Result<bool> {
    let mut is_wanted = false;
    for part in parts {
        decoder.glance(read(part)?, &mut |seen| {
            is_wanted |= match seen {
                Glance::Key { db, key, .. } | Glance::Deleted { db, key } => (*db, *key) == wanted,
                _ => false,
            };
        })?;
        if let Some(name) = decoder.name_in_run() {
            return Ok(name == wanted);
        }
    }
    Ok(is_wanted)
}

/// A stream is read to its end: only that proves which record is the last.
fn search_forwards(
    input: impl Read,
    wanted: &Wanted,
    limits: Limits,
    stop: &Stop,
) -> Result<Found> {
    let mut reader = Reader::new(input, limits)?;
    let mut found: BTreeMap<u32, Last> = BTreeMap::new();
    while let Some(frame) = reader.next_piece()? {
        exit::unless_stopped(stop)?;
        for record in frame.records {
            if let Some((db, last)) = of_key(record, &frame.context, &wanted.key)
                && wanted.db.is_none_or(|wanted| wanted == db)
            {
                found.insert(db, last);
            }
        }
    }
    let end = reader.end().context("the archive has no end")?.clone();
    let db = meant(wanted, &end);
    Ok(Found {
        db,
        last: found.remove(&db),
        header: reader.header().clone(),
        end,
    })
}

fn of_key(record: Record, context: &Context, key: &[u8]) -> Option<(u32, Last)> {
    match record {
        Record::Key(record) if record.key == key => {
            Some((record.db, Last::Value(Box::new(record), *context)))
        }
        Record::Deleted { db, key: gone } if gone == key => Some((db, Last::Deleted)),
        _ => None,
    }
}

/// What is wrong with a value that is given as a payload, where that is as the source had it.
///
/// # Errors
/// Why a value without a footer gets none: with a right checksum a server would take it for sound.
fn damage_of_payload(
    args: &ExtractArgs,
    record: &KeyRecord,
    context: &Context,
) -> Result<Option<String>, String> {
    if !args.payload {
        return Ok(None);
    }
    match &record.value {
        Value::Compact(body) => match payload::examine(context.family, body) {
            Examined::Sound(_) => Ok(None),
            Examined::Damaged(error) => Err(error.to_string()),
            Examined::Opaque => Err(
                "it is of a type that only its own server can read, and has no footer".to_owned(),
            ),
        },
        Value::Verbatim(dump) => Ok(match payload::split(dump) {
            Ok((body, _)) => match payload::examine(context.family, body) {
                Examined::Damaged(error) => Some(error.to_string()),
                Examined::Sound(_) | Examined::Opaque => None,
            },
            Err(error) => Some(error.to_string()),
        }),
        Value::Withheld(value) => Err(not_kept(value)),
    }
}

/// The value in the form asked for.
fn presented(args: &ExtractArgs, record: &KeyRecord, context: &Context) -> Result<Vec<u8>, String> {
    if args.payload {
        return Ok(match &record.value {
            Value::Verbatim(dump) => dump.clone(),
            Value::Compact(body) => payload::sign(body, context.rdb_version),
            Value::Withheld(value) => return Err(not_kept(value)),
        });
    }
    let line = |json: &serde_json::Value| format!("{}\n", json_text(json)).into_bytes();
    if args.json {
        return Ok(line(&jsonl::key(record, context)?));
    }
    let body = match &record.value {
        Value::Compact(body) => body.as_slice(),
        Value::Verbatim(dump) => payload::split(dump).map_err(|error| error.to_string())?.0,
        Value::Withheld(value) => return Err(not_kept(value)),
    };
    if let Ok(Object::String(string)) = payload::decode(context.family, body) {
        return Ok(string.to_vec());
    }
    let object = jsonl::key(record, context)?;
    match object.get("value") {
        Some(value) => Ok(line(value)),
        // A module's value: nobody but the module can read it.
        None => Ok(line(&object)),
    }
}

/// Writes it where it is wanted. A terminal gets a value only if it is text.
fn give(args: &ExtractArgs, bytes: &[u8]) -> Result<()> {
    if let Some(place) = &args.output
        && place.word() != "-"
    {
        let mut output = Output::open(Some(place))?;
        output
            .write_all(bytes)
            .with_context(|| format!("cannot write {}", output.name()))?;
        return output.publish();
    }
    let mut out = io::stdout().lock();
    if args.output.is_none() && out.is_terminal() {
        let is_text = std::str::from_utf8(bytes)
            .is_ok_and(|text| text.lines().all(|line| ui::clean(line) == line));
        if !is_text {
            return Err(usage(
                "the value is binary and standard output is a terminal; redirect it, write it to a \
                 file with -o, or see it with --json (-o - writes to the terminal all the same)",
            ));
        }
        out.write_all(bytes)?;
        if !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        return Ok(out.flush()?);
    }
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
