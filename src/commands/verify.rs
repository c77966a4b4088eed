//! `verify`: reads an archive to its end and checks everything, applies nothing.

mod args;

use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::{End, Error, Header, Reader};
use serde_json::json;

pub use self::args::{VerifyArgs, VerifyLevel};
use super::diff::Question;
use super::verify_values::Values;
use super::{
    Run, beside_keys, code_unless_damaged, ended, print, print_unless, stored, unread_json,
    warn_of_loss, warn_of_undecoded, warn_of_unread, watch,
};
use crate::cli::Files;
use crate::cli::resolve::process_env;
use crate::describe::tally::Tally;
use crate::describe::watch::Watched;
use crate::describe::{
    end_lines, error_json, header_json, header_lines, inconsistencies, lines_text, loss_of,
};
use crate::escape::json_text;
use crate::exit;
use crate::observer::Observer;
use crate::pipe::Stop;
use crate::place::{Endpoint, Input, Kept, Location, Place};
use crate::policy::word;
use crate::size;
use crate::source::reading::walk;
use crate::source::standing::{broken_claim, has_each_key_once};
use crate::ui;
use crate::units::{bytes_text, plural};
use crate::verb::{Data, Verb};
use crate::version::SCHEMA_VERSION;

/// What was found.
#[derive(Default)]
struct Findings {
    /// What the archive says of itself, as far as that came.
    header: Option<(Header, u64)>,
    end: Option<End>,
    tally: Tally,
    values: Values,
    frames: u64,
    bytes: u64,
    sha256: String,
    encrypted: bool,
    /// Why it is not intact.
    error: Option<Error>,
    /// What is wrong with an archive that is intact.
    problems: Vec<String>,
}

impl Findings {
    /// Whether it was salvaged, and not all could be.
    fn has_lost(&self) -> bool {
        let header = self.header.as_ref();
        header.is_some_and(|(header, _)| loss_of(header).is_some())
    }

    /// Whether its export did not have everything beyond single keys.
    fn lacks_some(&self) -> bool {
        self.end.as_ref().is_some_and(|end| !end.lacks.is_empty())
    }
}

impl Run for VerifyArgs {
    const VERB: Verb = Verb {
        name: "verify",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
            .look(self.file.as_ref(), &self.encryption)
            .server(&self.against.connect.flags())
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let other_side = sides(self)?;
        let keys = self.encryption.keys()?;
        // What is compared as well is read twice.
        let kept = match other_side {
            Some(_) => Some(Kept::open(self.file.as_ref(), &keys, stop)?),
            None => None,
        };
        let (name, found) = watch(Self::VERB, self.screen, |observer| {
            let input = match &kept {
                Some(kept) => kept.reader()?,
                None => Input::open(self.file.as_ref(), &keys, stop)?,
            };
            verify(self, input, observer, stop)
        })?;
        let code = tell(self, &name, found);
        // What could not be read, or is broken, is not compared; the others are.
        let is_compared = matches!(code, exit::OK | exit::SOME_KEYS);
        let Some((left, right)) = other_side.as_ref().filter(|_| is_compared) else {
            return Ok(code);
        };
        let question = Question {
            verb: Self::VERB,
            left,
            right,
            keys: &keys,
            compare: &self.against.compare,
            selection: self.against.select.selection(None),
            max_value_bytes: self.limits.max_value_bytes(),
            kept: kept.as_ref(),
            json: self.json,
            screen: self.screen,
        };
        Ok(exit::strongest(&[code, question.ask(stop)]))
    }
}

/// The archive, and the server that it is to be compared with.
fn sides(args: &VerifyArgs) -> Result<Option<(Endpoint, Endpoint)>> {
    let file = args.file.as_ref();
    let file = file.map_or(Ok(&Location::Stream), Place::stored)?;
    let server = args.other_side(&process_env)?;
    Ok(server.map(|server| (Endpoint::Stored(file.clone()), server)))
}

fn verify(
    args: &VerifyArgs,
    input: Input,
    observer: &Observer,
    stop: &Stop,
) -> Result<(String, Findings)> {
    let name = input.name().to_owned();
    let expected = input.len_bytes().unwrap_or(0);
    observer.progress.expected_bytes.store(expected, Relaxed);
    let mut found = Findings {
        encrypted: input.is_encrypted(),
        values: Values {
            max_bytes: args.limits.max_value_bytes(),
            ..Values::default()
        },
        ..Findings::default()
    };
    let mut watched = Watched::new(input);
    let walked = match args.level() {
        VerifyLevel::Frames => walk_frames(&mut watched, &mut found, observer, stop),
        level => read_all(&mut watched, &mut found, level, observer, stop),
    };
    // Of an encrypted file, those of the file: what the export printed.
    (found.bytes, found.sha256) = stored(&watched);
    found
        .tally
        .finish()
        .context("cannot use a temporary file")?;
    if let Err(error) = walked {
        found.error = Some(error.downcast::<Error>()?);
    }
    if let Some(end) = &found.end {
        found.problems = inconsistencies(end);
        // Of frames only nobody has counted the keys.
        if has_each_key_once(end) && args.level() != VerifyLevel::Frames {
            let records = found.tally.total().keys;
            found
                .problems
                .extend(broken_claim(found.tally.keys, records));
        }
    }
    found.problems.extend(found.values.problems());
    // Where values were looked at, each of these was named.
    if found.tally.bad_payloads > 0 && args.level() != VerifyLevel::Values {
        found.problems.push(format!(
            "{} would fail the server's own check and be refused everywhere",
            plural(found.tally.bad_payloads, "payload")
        ));
    }
    Ok((name, found))
}

fn read_all(
    input: impl Read,
    found: &mut Findings,
    level: VerifyLevel,
    observer: &Observer,
    stop: &Stop,
) -> Result<()> {
    let mut reader = Reader::new(input, size::limits(found.values.max_bytes))?;
    found.header = Some((reader.header().clone(), reader.archive_id()));
    let Findings { tally, values, .. } = found;
    let walked = walk(&mut reader, Some(observer), stop, |context, record, _| {
        tally.add(record, context);
        match level {
            VerifyLevel::Values => values.look_at(record, context, observer),
            _ => Ok(()),
        }
    });
    found.frames = reader.frames_read();
    walked?;
    found.end = reader.end().cloned();
    Ok(())
}

fn walk_frames(
    input: impl Read,
    found: &mut Findings,
    observer: &Observer,
    stop: &Stop,
) -> Result<()> {
    let mut scan = Scan::new(input)?;
    found.header = Some((scan.header().clone(), scan.archive_id()));
    while let Some(frame) = scan.next_frame()? {
        exit::unless_stopped(stop)?;
        observer.count(0, frame.raw_len.into());
        observer
            .progress
            .archive_bytes
            .store(scan.offset(), Relaxed);
        found.frames += 1;
    }
    found.end = scan.end().cloned();
    Ok(())
}

/// Says what was found; the exit code.
fn tell(args: &VerifyArgs, name: &str, found: Findings) -> u8 {
    let code = match (&found.error, found.problems.as_slice()) {
        (Some(_), _) => exit::ARCHIVE,
        (None, [_, ..]) => exit::SOME_KEYS,
        (None, []) => exit::OK,
    };
    let mut object = json(args, &found);
    let mut printed = Ok(());
    if args.json && args.against.against.is_some() && code != exit::ARCHIVE {
        // The summary will be that of the comparison; how the run ends is not known yet.
        object["schema_version"] = json!(SCHEMA_VERSION);
        object["event"] = json!("verify");
        printed = print(&format!("{}\n", json_text(&object)));
    } else {
        ui::session::summary(object);
    }
    if !args.json {
        printed = print_unless(args.screen.quiet, || text(args, name, &found));
    }
    if let Some((header, _)) = &found.header {
        warn_of_loss(name, header);
    }
    warn_of_unread(found.end.as_ref());
    warn_of_undecoded(&found.tally.undecoded);
    for problem in &found.problems {
        ui::print_warning(problem);
    }
    let before = match &found.error {
        Some(error) if !error.is_of_everything() => before(args, &found.tally, found.frames),
        // Nothing before it is proved.
        _ => String::new(),
    };
    let code = code_unless_damaged(found.error, format!("{name}{before}"), code);
    ended(printed, code)
}

/// What was intact before the error.
fn before(args: &VerifyArgs, tally: &Tally, frames: u64) -> String {
    match (args.level() == VerifyLevel::Frames, frames) {
        (_, 0) => String::new(),
        (true, _) => format!(" ({} intact before that)", plural(frames, "frame")),
        (false, _) => format!(
            " ({} and {} intact before that)",
            plural(frames, "frame"),
            tally.keys_text()
        ),
    }
}

fn json(args: &VerifyArgs, found: &Findings) -> serde_json::Value {
    json!({
        "complete": found.error.is_none(),
        "quick": args.level() == VerifyLevel::Frames,
        "level": word(&args.level()),
        "values": (args.level() == VerifyLevel::Values).then(|| found.values.json()),
        "bytes": found.bytes,
        "encrypted": found.encrypted,
        "frames": found.frames,
        "sha256": found.error.is_none().then_some(&found.sha256),
        "archive_id": found.header.as_ref().map(|(_, id)| format!("{id:016x}")),
        "header": found.header.as_ref().map(|(header, _)| header_json(header)),
        "end": found.end.as_ref().map(crate::describe::end_json),
        "keys": (args.level() != VerifyLevel::Frames).then_some(found.tally.keys),
        "key_records": (args.level() != VerifyLevel::Frames).then(|| found.tally.total().keys),
        "by_db_and_type": (args.level() != VerifyLevel::Frames).then(|| found.tally.json()),
        "undecoded": (args.level() != VerifyLevel::Frames).then(|| found.tally.undecoded.json()),
        "tombstones": (args.level() != VerifyLevel::Frames).then_some(found.tally.tombstones),
        "functions": (args.level() != VerifyLevel::Frames).then_some(found.tally.functions),
        "export_failed": unread_json(found.end.as_ref()),
        "problems": found.problems,
        "error": found.error.as_ref().map(error_json),
    })
}

/// What is said of an archive whose frames, digest and end are as they were written. Each problem is
/// named besides.
fn judgement(found: &Findings) -> &'static str {
    let values = &found.values;
    let unsound = values.damaged + values.bad_functions + found.tally.bad_payloads;
    match found.problems.as_slice() {
        [] if found.has_lost() => "intact, but salvaged from an incomplete archive",
        [] if found.lacks_some() => "intact, but its export was incomplete",
        [] => "complete and intact",
        _ if unsound > 0 => "complete, but not every value is sound",
        _ if values.too_large + values.withheld_functions > 0 => {
            "complete, but not every value was looked at"
        }
        _ => "complete, but what it says of itself does not add up",
    }
}

fn text(args: &VerifyArgs, name: &str, found: &Findings) -> String {
    let Some((header, archive_id)) = &found.header else {
        return String::new();
    };
    let mut lines = header_lines(header, *archive_id);
    if let Some(end) = &found.end {
        lines.extend(end_lines(header, end));
    }
    let mut text = lines_text(&lines);
    if args.level() != VerifyLevel::Frames {
        text += &format!("\n{}", found.tally.table());
    }
    text += &beside_keys(&found.tally);
    if let (Some(end), None) = (&found.end, &found.error) {
        let checked = match args.level() {
            VerifyLevel::Frames => format!(
                "its frames, digest and trailer are intact{} (frames checked: nothing was \
                 decompressed)",
                match (found.has_lost(), found.lacks_some()) {
                    (true, _) => ", but it was salvaged from an incomplete archive",
                    (false, true) => ", but its export was incomplete",
                    (false, false) => "",
                }
            ),
            VerifyLevel::Records => format!(
                "{} (records checked: values were not decoded)",
                judgement(found)
            ),
            VerifyLevel::Values => format!("{} ({})", judgement(found), found.values.text()),
        };
        let what = match args.level() == VerifyLevel::Frames {
            true => plural(end.records, "record"),
            false => found.tally.keys_text(),
        };
        text += &format!(
            "\n{name}: {checked}: {what}, {}, {}, sha256 {}\n",
            plural(found.frames, "frame"),
            bytes_text(found.bytes),
            found.sha256
        );
    }
    text
}
