//! `inspect`: what an archive says of itself, and what is in it.

mod args;

use std::io::{self, Read, Write};

use anyhow::{Context as _, Result};
use redis_migrate_format::frame::Codec;
use redis_migrate_format::version::Preamble;
use redis_migrate_format::{End, Error, Header, Limits, OUTSIDE, Reader};
use serde_json::{Value, json};

pub use self::args::InspectArgs;
use super::{
    Run, beside_keys, code_unless_damaged, ended, print_unless, stored, unread_json, warn_of_loss,
    warn_of_undecoded, warn_of_unread,
};
use crate::cli::Files;
use crate::describe::tally::Tally;
use crate::describe::watch::{SeenFrame, Watched, frames_table};
use crate::describe::{
    end_json, end_lines, error_json, header_json, header_lines, lines_text, told,
};
use crate::escape::json_text;
use crate::exit;
use crate::outside;
use crate::pipe::Stop;
use crate::place::Input;
use crate::source::reading::walk;
use crate::ui::{self, clean};
use crate::units::{bytes_text, count_text, plural};
use crate::verb::{Data, Verb};
use crate::version::SCHEMA_VERSION;

impl Run for InspectArgs {
    const VERB: Verb = Verb {
        name: "inspect",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default().look(self.file.as_ref(), &self.encryption)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let input = Input::open(self.file.as_ref(), &self.encryption.keys()?, stop)?;
        let name = input.name().to_owned();
        let mut watched = Watched::new(input);
        if self.frames && (self.json || !self.quiet) {
            watched = watched.each_frame(frame_printer(self.json));
        }
        let found = read(&mut watched, stop)?;
        ui::session::summary(json(&found, &watched));
        let printed = print_unless(self.json || self.quiet, || text(&found, &watched));
        warn_of_loss(&name, &found.header);
        warn_of_unread(found.end.as_ref());
        warn_of_undecoded(&found.tally.undecoded);
        let code = code_unless_damaged(found.error, name, exit::OK);
        Ok(ended(printed, code))
    }
}

/// What was found.
struct Findings {
    header: Header,
    archive_id: u64,
    preamble: Preamble,
    /// Frames and entries of a later version.
    skipped: (u64, u64),
    notes: Vec<String>,
    notes_seen: u64,
    tally: Tally,
    end: Option<End>,
    error: Option<Error>,
}

fn read(input: impl Read, stop: &Stop) -> Result<Findings> {
    let mut reader = Reader::new(input, Limits::default())?.heads_only();
    let mut tally = Tally::default();
    let walked = walk(&mut reader, None, stop, |context, record, value_len| {
        tally.add_sized(record, context, value_len);
        Ok(())
    });
    let error = walked.err().map(|error| error.downcast::<Error>());
    let error = error.transpose()?;
    tally.finish().context("cannot use a temporary file")?;
    Ok(Findings {
        header: reader.header().clone(),
        archive_id: reader.archive_id(),
        preamble: reader.preamble(),
        skipped: reader.skipped(),
        notes: reader.notes().to_vec(),
        notes_seen: reader.notes_seen(),
        tally,
        end: reader.end().filter(|_| error.is_none()).cloned(),
        error,
    })
}

fn json(found: &Findings, watched: &Watched<Input>) -> Value {
    let frames: Vec<Value> = watched
        .frames()
        .iter()
        .map(|(frame_type, counts)| {
            json!({
                "type": frame_type.to_string(),
                "frames": counts.frames,
                "stored_bytes": counts.stored_bytes,
                "raw_bytes": counts.raw_bytes,
            })
        })
        .collect();
    let is_complete = found.error.is_none();
    json!({
        "complete": is_complete,
        "bytes": stored(watched).0,
        "sha256": is_complete.then(|| stored(watched).1),
        "encrypted": watched.inner().is_encrypted(),
        "archive_id": format!("{:016x}", found.archive_id),
        "format": format!("{}.{}", found.preamble.major, found.preamble.minor),
        "header": header_json(&found.header),
        "frames": frames,
        "skipped_frames": found.skipped.0,
        "skipped_entries": found.skipped.1,
        "by_db_and_type": found.tally.json(),
        "keys": found.tally.keys,
        "key_records": found.tally.total().keys,
        "key_metadata": found.tally.key_metadata,
        "tombstones": found.tally.tombstones,
        "functions": found.tally.functions,
        "notes": found.notes,
        "undecoded": found.tally.undecoded.json(),
        "export_failed": unread_json(found.end.as_ref()),
        "end": found.end.as_ref().map(end_json),
        "error": found.error.as_ref().map(error_json),
    })
}

fn text(found: &Findings, watched: &Watched<Input>) -> String {
    let mut lines = header_lines(&found.header, found.archive_id);
    let Preamble { major, minor, .. } = found.preamble;
    lines.insert(1, ("format", format!("{major}.{minor}")));
    for row in told(&found.header.expected) {
        let (keys, expires) = (plural(row.keys, "key"), count_text(row.expires));
        let text = format!("about {keys} in db {}, {expires} with expiry", row.db);
        lines.push(("expected", text));
    }
    if let Some(end) = &found.end {
        lines.extend(end_lines(&found.header, end));
    } else {
        let outside = outside::of_archive(&found.header, None);
        lines.extend(outside.iter().map(|one| ("outside keys", one.inspected())));
    }
    // What is outside keys was told from the same notes.
    let others = found.notes.iter();
    for note in others.filter(|note| found.end.is_none() || !note.starts_with(OUTSIDE)) {
        lines.push(("note", clean(note).into_owned()));
    }
    let more = found.notes_seen - found.notes.len() as u64;
    if more > 0 {
        lines.push(("note", format!("… and {}", plural(more, "more note"))));
    }
    if found.skipped != (0, 0) {
        let (frames, entries) = found.skipped;
        let text = format!("of a later version: {frames} frames, {entries} entries");
        lines.push(("skipped", text));
    }
    let (bytes, sha256) = stored(watched);
    lines.push(("size", bytes_text(bytes)));
    if watched.inner().is_encrypted() {
        lines.push(("encrypted", "by age".to_owned()));
    }
    if found.error.is_none() {
        lines.push(("sha256", sha256));
    }
    let mut text = lines_text(&lines);
    text += &format!("\n{}", frames_table(watched.frames()));
    text += &format!("\n{}", found.tally.table());
    text += &format!("{}\n", found.tally.keys_text());
    text += &beside_keys(&found.tally);
    text
}

/// Prints each frame as it goes by. A reader that went away is noticed when the rest is printed.
fn frame_printer(as_json: bool) -> impl FnMut(&SeenFrame) {
    let mut is_first = true;
    move |(offset, header)| {
        let mut out = io::stdout().lock();
        let codec = match header.codec {
            Codec::Stored => "stored",
            Codec::Zstd => "zstd",
        };
        let written = if as_json {
            let object = json!({
                "schema_version": SCHEMA_VERSION,
                "event": "frame",
                "seq": header.seq,
                "offset": offset,
                "type": header.frame_type.to_string(),
                "codec": codec,
                "stored_bytes": header.stored_len,
                "raw_bytes": header.raw_len,
                "crc32": format!("{:08x}", header.payload_crc),
            });
            writeln!(out, "{}", json_text(&object))
        } else {
            let head = "      seq        offset  frame     codec       stored         raw  crc32\n";
            let head = if std::mem::take(&mut is_first) {
                head
            } else {
                ""
            };
            writeln!(
                out,
                "{head}{:>9}  {offset:>12}  {:<8}  {codec:<6}  {:>10}  {:>10}  {:08x}",
                header.seq,
                header.frame_type.to_string(),
                header.stored_len,
                header.raw_len,
                header.payload_crc
            )
        };
        let _ = written;
    }
}
