//! `salvage`: what is intact of a damaged archive into a new one.

mod args;

use std::io::{BufReader, Read, Seek};

use anyhow::{Context as _, Result};
use redis_migrate_format::header::SelectionFacts;
use redis_migrate_format::{Error, Finished, Incompleteness, LookAlike, Position};
use serde_json::{Value, json};

pub use self::args::SalvageArgs;
use super::{Run, unread_json, warn_of_unread, watch};
use crate::cli::Files;
use crate::encryption::{Damage, Sealing, StoredAs};
use crate::exit::{self, usage};
use crate::observer::Observer;
use crate::pipe::Stop;
use crate::place::{Holds, Input, Output};
use crate::salvage::{Change, LostRecords, Rescued, Survey, rescue, survey};
use crate::size;
use crate::ui;
use crate::units::{bytes_text, count_text, hex, plural};
use crate::verb::{Data, Verb};

/// Lost ranges that the report names.
const RANGES_SHOWN: usize = 10;

impl Run for SalvageArgs {
    const VERB: Verb = Verb {
        name: "salvage",
        flow: None,
        data: Data::UnlessOutput,
    };

    fn files(&self) -> Files {
        let (file, output) = (self.file.as_ref(), self.output.as_ref());
        Files::default()
            .made_of(file, &self.encryption, output, Holds::Archive)
            .secrets(&self.age_recipients_file)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let done = watch(Self::VERB, self.screen, |observer| {
            salvage(self, observer, stop)
        })?;
        Ok(tell(self, &done))
    }
}

struct Done {
    survey: Survey,
    rescued: Rescued,
    stored: StoredAs,
    /// Of an encrypted archive that is damaged, the plain bytes that can be read.
    readable_bytes: Option<u64>,
    archive_id: u64,
}

fn salvage(args: &SalvageArgs, observer: &Observer, stop: &Stop) -> Result<Done> {
    let recipients = args.recipients()?;
    let (input, damage) = Input::open_damaged(args.file.as_ref(), &args.encryption.keys()?, stop)?;
    if input.is_encrypted() && recipients.is_empty() && !args.plain {
        return Err(usage(format!(
            "{} is encrypted, and the rescued archive would not be: encrypt it with \
             --age-recipient or --age-recipients-file, or say --plain to write it unencrypted",
            input.name()
        )));
    }
    if let Some(damage) = &damage {
        observer.warn(&format!("{}: {}", input.name(), unreadable(damage)));
    }
    let readable_bytes = damage.map(|damage| damage.readable_bytes);
    const NOTHING: &str = "not one record is intact; there is nothing to rescue";
    let max_value_bytes = args.limits.max_value_bytes();
    let limits = size::limits(max_value_bytes);
    let mut input = BufReader::with_capacity(256 * 1024, input);
    let Some(survey) = survey(&mut input, limits, stop)? else {
        let mut first = Vec::new();
        input.rewind().context(NOTHING)?;
        (&mut input).take(512).read_to_end(&mut first)?;
        let error = Error::NotAnArchive(LookAlike::of(&first));
        return Err(anyhow::Error::new(error).context(NOTHING));
    };
    if survey.frames.is_empty() && !survey.is_whole {
        let at = Position {
            archive_id: Some(survey.archive_id),
            field: "records",
            ..Position::default()
        };
        let how = Incompleteness::Truncated;
        return Err(anyhow::Error::new(Error::Incomplete { at, how }).context(NOTHING));
    }
    let out = Sealing::new(Output::open(args.output.as_ref())?, &recipients)?;
    let (rescued, finished) = rescue(&mut input, &survey, max_value_bytes, out, observer, stop)?;
    let Finished {
        inner,
        archive_id,
        bytes,
        sha256,
        ..
    } = finished;
    let (output, stored) = inner.finish()?;
    output.publish()?;
    let plain = || StoredAs {
        bytes,
        sha256: hex(&sha256),
    };
    Ok(Done {
        survey,
        rescued,
        stored: stored.unwrap_or_else(plain),
        readable_bytes,
        archive_id,
    })
}

fn tell(args: &SalvageArgs, done: &Done) -> u8 {
    let too_large = done.rescued.too_large;
    // Another archive's keys are in the input, and not in the output.
    let is_all = done.survey.is_whole && done.survey.others.is_empty() && too_large == 0;
    let code = match is_all {
        true => exit::OK,
        false => exit::SOME_KEYS,
    };
    ui::session::summary(json_of(done));
    if args.json {
        return code;
    }
    for (id, bytes) in done.survey.others.iter().take(RANGES_SHOWN) {
        ui::print_warning(&format!(
            "the input also holds {} of archive {id:016x}, which were left out: salvage rescues \
             one archive at a time",
            bytes_text(*bytes)
        ));
    }
    if !done.survey.is_whole {
        ui::print_warning(&loss(&done.survey));
        if let Some(expected) = of_how_many(done) {
            ui::print_warning(&expected);
        }
        for (from, len) in done.survey.lost.iter().take(RANGES_SHOWN) {
            ui::print_warning(&format!(
                "lost: bytes {from} to {} ({})",
                from + len,
                bytes_text(*len)
            ));
        }
        if let Some(more @ 1..) = done.survey.lost.len().checked_sub(RANGES_SHOWN) {
            ui::print_warning(&format!("… and {}", plural(more as u64, "more range")));
        }
        if done.survey.lost_records != LostRecords::Exactly(0) {
            ui::print_warning(
                "where the later record of a key was lost, the key may have an older value, or \
                 exist although it was deleted",
            );
        }
    }
    if too_large > 0 {
        ui::print_warning(&format!(
            "{} left out because of --max-value: their keys may have an older value",
            plural(too_large, "value")
        ));
    }
    warn_of_unread(done.survey.end.as_ref());
    if !args.screen.quiet {
        ui::print_line(&summary(done));
    }
    code
}

/// What of an encrypted file cannot be decrypted, in one line.
fn unreadable(damage: &Damage) -> String {
    let Damage {
        readable_bytes,
        holes,
        end,
        has_end,
        what,
    } = damage;
    let mut text = format!("{what}; {readable_bytes} bytes of the archive in it can be read");
    if !holes.is_empty() {
        let missing = bytes_text(end - readable_bytes);
        let places = plural(holes.len() as u64, "place");
        text += &format!(", {missing} between them, in {places}, cannot");
    }
    if !has_end {
        text += ", and nothing after them";
    }
    text
}

/// What was lost, in one line.
fn loss(survey: &Survey) -> String {
    let mut parts = Vec::new();
    if survey.header.is_none() {
        parts.push("its header".to_owned());
    }
    if survey.lost_frames > 0 {
        parts.push(plural(survey.lost_frames, "frame"));
    }
    if let LostRecords::Exactly(records @ 1..) = survey.lost_records {
        parts.push(plural(records, "record"));
    }
    if survey.end.is_none() {
        parts.push("its end".to_owned());
    }
    if survey.end.is_none() && survey.lost_records == LostRecords::Unknown {
        parts.push("and an unknown amount before its end".to_owned());
    }
    let id = survey.archive_id;
    match (survey.changed, parts.as_slice()) {
        (Some(Change::Digest), _) => format!(
            "archive {id:016x} was changed after it was written: no frame is missing, but its \
             bytes do not have the SHA-256 that its trailer says; any of its keys may have a wrong \
             value"
        ),
        (Some(Change::Counts), _) => format!(
            "archive {id:016x} contradicts itself: its records do not match the counts in its \
             trailer; some may be missing or in the wrong database"
        ),
        (None, []) => format!("archive {id:016x} is incomplete: its export gave up"),
        (None, parts) => format!("lost of archive {id:016x}: {}", parts.join(", ")),
    }
}

/// Of how many keys so many were rescued, as the header expected when the export began.
fn of_how_many(done: &Done) -> Option<String> {
    if done.survey.lost_records != LostRecords::Unknown {
        return None;
    }
    let rescued = count_text(done.rescued.keys);
    let Some(expected) = done.survey.expected_keys() else {
        return Some(format!(
            "keys rescued: {rescued}; the archive does not say how many the source had"
        ));
    };
    let selection = done.survey.header.as_ref().map(|header| &header.selection);
    let all = match selection {
        Some(SelectionFacts {
            matches,
            excludes,
            types,
            other,
            ..
        }) if !(matches.is_empty()
            && excludes.is_empty()
            && types.is_empty()
            && other.is_empty()) =>
        {
            ", including those that were not selected"
        }
        _ => "",
    };
    Some(format!(
        "the source had about {} keys when the export began{all}; {rescued} of them were rescued",
        count_text(expected)
    ))
}

fn summary(done: &Done) -> String {
    let (survey, rescued) = (&done.survey, &done.rescued);
    let mut text = format!("salvaged {}", plural(rescued.keys, "key"));
    if rescued.key_records != rescued.keys {
        text += &format!(" ({} of them)", plural(rescued.key_records, "record"));
    }
    if rescued.tombstones > 0 {
        text += &format!(", {}", plural(rescued.tombstones, "tombstone"));
    }
    if rescued.functions > 0 {
        text += &format!(", {}", plural(rescued.functions, "function payload"));
    }
    if survey.is_whole {
        text += &match (survey.others.len() as u64, rescued.too_large) {
            (0, 0) => "; nothing was lost".to_owned(),
            (0, _) => "; nothing else was lost".to_owned(),
            (others, _) => format!(
                "; archive {:016x} is whole, but the keys of {} in the same input were left out",
                survey.archive_id,
                plural(others, "other archive")
            ),
        };
        let foreign: u64 = survey.lost.iter().map(|(_, len)| len).sum();
        if foreign > 0 && survey.others.is_empty() {
            text += &format!(
                ", {} that belong to no frame were left out",
                bytes_text(foreign)
            );
        }
    }
    if survey.repeated + survey.displaced > 0 {
        text += &format!(
            "; {} repeated and {} out of order",
            plural(survey.repeated, "frame"),
            count_text(survey.displaced)
        );
    }
    text += &format!(
        "; {}, sha256 {}",
        bytes_text(done.stored.bytes),
        done.stored.sha256
    );
    text
}

fn json_of(done: &Done) -> Value {
    let survey = &done.survey;
    let lost_records = match survey.lost_records {
        LostRecords::Exactly(records) => Some(records),
        LostRecords::Unknown => None,
    };
    let others: Vec<Value> = survey
        .others
        .iter()
        .map(|(id, bytes)| json!({ "archive_id": format!("{id:016x}"), "bytes": bytes }))
        .collect();
    json!({
        "whole": survey.is_whole,
        "from_archive_id": format!("{:016x}", survey.archive_id),
        "readable_bytes": done.readable_bytes,
        "header": survey.header.is_some(),
        "end": survey.end.is_some(),
        "keys": done.rescued.keys,
        "key_records": done.rescued.key_records,
        "tombstones": done.rescued.tombstones,
        "functions": done.rescued.functions,
        "too_large": done.rescued.too_large,
        "export_failed": unread_json(survey.end.as_ref()),
        "lost_frames": survey.lost_frames,
        "lost_records": lost_records,
        "lost_records_exact": lost_records.is_some(),
        "expected_keys": survey.expected_keys(),
        "digest_differs": survey.changed == Some(Change::Digest),
        "counts_differ": survey.changed == Some(Change::Counts),
        "other_archives": others,
        "lost_ranges": survey.lost,
        "repeated_frames": survey.repeated,
        "displaced_frames": survey.displaced,
        "archive_id": format!("{:016x}", done.archive_id),
        "bytes": done.stored.bytes,
        "sha256": done.stored.sha256,
    })
}
