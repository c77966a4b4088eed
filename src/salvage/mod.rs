//! What is intact of a damaged archive, written into a new one that is complete and says what was
//! lost.
//!
//! The input is read twice: HEADER comes first in the new archive, and says what is missing.

mod survey;

use std::io::{Read, Seek, Write};

use anyhow::{Context as _, Result, bail};
use redis_migrate_format::header::{
    ArchiveOrigin, ConsistencyReached, EndFacts, Header, SourceCounts, Tool,
};
use redis_migrate_format::record::Family;
use redis_migrate_format::salvage::{Content, Decoder};
use redis_migrate_format::seek::read_frame;
use redis_migrate_format::{
    Context, Finished, LACKS, Limits, OUTSIDE, Record, Writer, WriterOptions,
};

pub(crate) use self::survey::{Change, LostRecords, Survey, survey};
use crate::census::Census;
use crate::exit;
use crate::host::unix_ms;
use crate::ledger::CountsByDb;
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::record::larger_than;
use crate::size::{self, is_larger};
use crate::source::archive::functions_not_kept;
use crate::stop::Stop;
use crate::units::plural;

/// First byte and number of bytes.
pub(crate) type Range = (u64, u64);

/// What was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rescued {
    /// Keys that stand: those whose last rescued record is no tombstone.
    pub keys: u64,
    /// Key records.
    pub key_records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Function libraries.
    pub functions: u64,
    /// Keys and function libraries that were left out for their size, each by name.
    pub too_large: u64,
}

/// Writes what `survey` found to `out`, but no values of more than `max_value_bytes`.
///
/// # Errors
/// Those of input and output, and [`exit::Interrupted`].
pub(crate) fn rescue<R: Read + Seek, W: Write>(
    input: &mut R,
    survey: &Survey,
    max_value_bytes: u64,
    out: W,
    observer: &Observer,
    stop: &Stop,
) -> Result<(Rescued, Finished<W>)> {
    let limits = size::limits(max_value_bytes);
    let level = survey.header.as_ref().map_or(3, |header| header.level);
    let options = WriterOptions {
        level,
        ..WriterOptions::default()
    };
    let header = new_header(survey, input, limits)?;
    let writer = Writer::new(out, &header, options).context(CANNOT_WRITE)?;
    let mut decoder = Decoder::new(limits)?;
    let mut rescue = Rescue {
        writer,
        rescued: Rescued::default(),
        counts: CountsByDb::default(),
        census: Census::default(),
        context: None,
        max_value_bytes,
        observer,
    };
    let mut window: Option<(u64, u64)> = None;
    for place in &survey.frames {
        exit::unless_stopped(stop)?;
        let frame = read_frame(input, place, survey.archive_id)?;
        let mut written = Ok(());
        let mut each = |now: &Context, record: &Record| {
            if written.is_ok() {
                written = rescue.put(now, record);
            }
        };
        let content = decoder.visit(frame, &mut each)?;
        written?;
        match content {
            Content::Seen { context, records } => {
                let at_ms = context.source_time_ms;
                let (from_ms, to_ms) = window.unwrap_or((at_ms, at_ms));
                window = Some((from_ms.min(at_ms), to_ms.max(at_ms)));
                observer.count(records, place.raw_len.into());
            }
            Content::Note(text) => keep_note(&mut rescue.writer, &text)?,
            Content::ModuleAux(aux) => {
                rescue.writer.module_aux(&aux).context(CANNOT_WRITE)?;
            }
            Content::Part => {}
            _ => bail!("the archive changed while it was read"),
        }
    }
    let Rescue {
        mut writer,
        mut rescued,
        mut counts,
        census,
        ..
    } = rescue;
    if let Some(note) = rescued.note(max_value_bytes) {
        writer.note(&note).context(CANNOT_WRITE)?;
    }
    let is_whole = survey.is_whole && rescued.too_large == 0;
    keep_unread(survey, &mut counts);
    let facts = new_facts(survey, is_whole, counts.rows(), window);
    let finished = writer
        .finish(facts)
        .context("cannot complete the new archive")?;
    rescued.keys = census.finish().context("cannot use a temporary file")?.keys;
    Ok((rescued, finished))
}

const CANNOT_WRITE: &str = "cannot write the new archive";

/// The new archive, as it grows.
struct Rescue<'a, W: Write> {
    writer: Writer<W>,
    rescued: Rescued,
    counts: CountsByDb,
    census: Census,
    /// That of the record before.
    context: Option<Context>,
    max_value_bytes: u64,
    observer: &'a Observer,
}

impl<W: Write> Rescue<'_, W> {
    /// Writes a record, unless it is larger than is wanted.
    fn put(&mut self, now: &Context, record: &Record) -> Result<()> {
        // Records keep the time that they were read at: lives are computed from it.
        if self.context != Some(*now) {
            self.context = Some(*now);
            self.writer.flush_frame().context(CANNOT_WRITE)?;
            self.writer.set_context(*now).context(CANNOT_WRITE)?;
        }
        let most = (now.family, self.max_value_bytes);
        let (rescued, counts) = (&mut self.rescued, &mut self.counts);
        if rescued.leaves_out(record, most, counts, self.observer)? {
            return Ok(());
        }
        rescued.count(record, counts);
        self.census.add(record);
        self.writer.write(record).context(CANNOT_WRITE)
    }
}

/// A note stays what it was, also where it says what the archive lacks, or what is outside keys.
fn keep_note<W: Write>(writer: &mut Writer<W>, text: &str) -> Result<()> {
    let kept = match (text.strip_prefix(LACKS), text.strip_prefix(OUTSIDE)) {
        (Some(lacks), _) => writer.lacks(lacks),
        (_, Some(outside)) => writer.outside(outside),
        _ => writer.note(text),
    };
    kept.context("cannot write the new archive")
}

/// What the export could not read is in no archive, and the new one says so too: its keys by
/// database, and the databases of which not even that is known.
fn keep_unread(survey: &Survey, counts: &mut CountsByDb) {
    let end = survey.end.iter();
    for row in end.flat_map(|end| &end.facts.counts) {
        let kept = counts.of(row.db);
        kept.scanned = kept.scanned.saturating_add(row.failed);
        kept.failed = kept.failed.saturating_add(row.failed);
    }
}

impl Rescued {
    /// What the new archive says of what was left out.
    fn note(&self, most: u64) -> Option<String> {
        let too_large = plural(Some(self.too_large).filter(|&count| count > 0)?, "value");
        Some(format!(
            "{too_large} left out by salvage: larger than {most} bytes"
        ))
    }

    /// Names a key whose value, or function libraries whose payload, is larger than is wanted.
    fn leaves_out(
        &mut self,
        record: &Record,
        (family, most): (Family, u64),
        counts: &mut CountsByDb,
        observer: &Observer,
    ) -> Result<bool> {
        let key = match record {
            Record::Key(key) => key,
            Record::WithheldFunctions(len) => {
                self.too_large += 1;
                observer.warn(&functions_not_kept(*len));
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if !is_larger(&key.value, family, most) {
            return Ok(false);
        }
        self.too_large += 1;
        let row = counts.of(key.db);
        row.scanned += 1;
        row.failed += 1;
        observer.key_failed(&KeyFailure {
            db: key.db,
            key: key.key.clone(),
            kind: FailureKind::Unread,
            reason: larger_than(most),
            hint: None,
        })?;
        Ok(true)
    }

    fn count(&mut self, record: &Record, counts: &mut CountsByDb) {
        let db = match record {
            Record::Key(key) => {
                self.key_records += 1;
                key.db
            }
            Record::Deleted { db, .. } => {
                self.tombstones += 1;
                *db
            }
            _ => {
                self.functions += 1;
                return;
            }
        };
        let row = counts.of(db);
        row.scanned += 1;
        row.written += 1;
    }
}

fn new_header<R: Read + Seek>(survey: &Survey, input: &mut R, limits: Limits) -> Result<Header> {
    let mut header = match &survey.header {
        Some(header) => header.clone(),
        None => header_from_records(survey, input, limits)?,
    };
    let tool = &header.tool;
    let mut extra = vec![(
        "salvaged_from".to_owned(),
        format!(
            "{:016x}, written by {} {}",
            survey.archive_id, tool.name, tool.version
        )
        .trim_end()
        .to_owned(),
    )];
    let mut say = |name: &str, value: String| extra.push((name.to_owned(), value));
    if survey.header.is_none() {
        say("salvaged_header", "lost".to_owned());
    }
    if survey.end.is_none() {
        say("salvaged_end", "lost".to_owned());
    }
    if survey.lost_frames > 0 {
        say("salvaged_lost_frames", survey.lost_frames.to_string());
    }
    match survey.lost_records {
        LostRecords::Exactly(0) => {}
        LostRecords::Exactly(records) => say("salvaged_lost_records", records.to_string()),
        LostRecords::Unknown => say("salvaged_lost_records", "unknown".to_owned()),
    }
    match survey.changed {
        Some(Change::Digest) => say("salvaged_digest", "differs".to_owned()),
        Some(Change::Counts) => say("salvaged_counts", "differ".to_owned()),
        None => {}
    }
    header.extra.extend(extra);
    header.tool = Tool {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git: crate::version::GIT.to_owned(),
    };
    header.created_ms = unix_ms();
    // The new origin takes the place of this one.
    if let ArchiveOrigin::Split { part, of } = header.origin
        && of > 1
    {
        let is_part = format!("part {part} of {of}");
        header.selection.other.push(is_part);
    }
    header.origin = ArchiveOrigin::Salvaged {
        lost: survey.lost.clone(),
    };
    Ok(header)
}

/// Where HEADER is lost, the records themselves say whose they are.
fn header_from_records<R: Read + Seek>(
    survey: &Survey,
    input: &mut R,
    limits: Limits,
) -> Result<Header> {
    let mut header = Header {
        level: 3,
        ..Header::default()
    };
    let mut decoder = Decoder::new(limits)?;
    for place in &survey.frames {
        let content = decoder.decode(read_frame(input, place, survey.archive_id)?)?;
        if let Content::Records(frame) = content {
            header.source_time_ms = frame.context.source_time_ms;
            header.source.family = frame.context.family;
            break;
        }
    }
    Ok(header)
}

/// A lost record may have been a later one of a key, or its tombstone: what is left is then no
/// more than a plain scan, whatever the archive once was.
fn new_facts(
    survey: &Survey,
    is_whole: bool,
    counts: Vec<SourceCounts>,
    window: Option<(u64, u64)>,
) -> EndFacts {
    if is_whole && let Some(end) = &survey.end {
        return end.facts.clone();
    }
    let (mut from_ms, mut to_ms) = window.unwrap_or_default();
    if let Some(header) = &survey.header {
        from_ms = from_ms.min(header.source_time_ms);
    }
    let end = survey.end.as_ref().map(|end| &end.facts);
    to_ms = match end.map(|facts| &facts.reached) {
        Some(
            ConsistencyReached::Scan { to_ms: end_ms, .. }
            | ConsistencyReached::PerKey { to_ms: end_ms, .. }
            | ConsistencyReached::Changing { to_ms: end_ms, .. },
        ) => to_ms.max(*end_ms),
        Some(ConsistencyReached::Exact(moments)) => moments
            .iter()
            .map(|(_, at_ms)| *at_ms)
            .fold(to_ms, u64::max),
        None => to_ms,
    };
    EndFacts {
        reached: ConsistencyReached::Scan { from_ms, to_ms },
        counts,
        duplicates_possible: end.is_none_or(|facts| facts.duplicates_possible),
        started_ms: end.map_or(0, |facts| facts.started_ms),
        finished_ms: end.map_or(0, |facts| facts.finished_ms),
    }
}
