//! The first look at a damaged archive: which of its frames are intact, and what is missing.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use anyhow::{Context as _, Result};
use redis_migrate_format::frame::{FRAME_HEADER_LEN, FrameType};
use redis_migrate_format::limits::MAX_NOTES_KEPT;
use redis_migrate_format::record::Glance;
use redis_migrate_format::salvage::{Content, Decoder, Found, Index, IntactFrame, Scanner};
use redis_migrate_format::seek::{Place, Recount, read_frame};
use redis_migrate_format::trailer::{TRAILER_LEN, Trailer};
use redis_migrate_format::version::{PREAMBLE_LEN, Preamble};
use redis_migrate_format::{End, Header, LACKS, Limits, Position};
use sha2::{Digest, Sha256};

use super::Range;
use crate::exit;
use crate::stop::Stop;

/// Lost ranges that a header lists; beyond, neighbours are told as one.
const MAX_RANGES: usize = 10_000;

/// How many records were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostRecords {
    /// INDEX or END says.
    Exactly(u64),
    /// Neither is there, and nothing else tells: what the header expected is told instead.
    Unknown,
}

/// What a damaged archive still holds.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Its id.
    pub archive_id: u64,
    /// Its HEADER, if that is intact.
    pub header: Option<Header>,
    /// Its END, if that is intact.
    pub end: Option<End>,
    /// Frames whose content can be rescued, in the archive's order.
    pub frames: Vec<Place>,
    /// Records in them.
    pub records: u64,
    /// Bytes that belong to nothing that can be rescued.
    pub lost: Vec<Range>,
    /// DATA and FRAGMENT frames lost, as far as that is known.
    pub lost_frames: u64,
    /// Records lost.
    pub lost_records: LostRecords,
    /// No frame is missing, and yet it is not what its exporter wrote.
    pub changed: Option<Change>,
    /// Everything that the archive held is proved to be there, unchanged.
    pub is_whole: bool,
    /// Intact frames that stood twice, and those that stood out of their order.
    pub repeated: u64,
    /// See `repeated`.
    pub displaced: u64,
    /// Other archives in the same input that have records: their ids, and bytes of their frames.
    pub others: Vec<Other>,
}

/// How it is known that intact frames are not those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// They do not have the digest that END holds.
    Digest,
    /// Their records are not those that END counts.
    Counts,
}

impl Survey {
    /// Keys that the source had when the export began, as far as the header says.
    pub(crate) fn expected_keys(&self) -> Option<u64> {
        let header = self.header.as_ref()?;
        let dbs = &header.selection.dbs;
        let rows = header.expected.iter();
        let rows = rows.filter(|row| dbs.is_empty() || dbs.contains(&row.db));
        let keys = rows.fold(0, |sum: u64, row| sum.saturating_add(row.keys));
        Some(keys).filter(|keys| *keys > 0)
    }
}

/// Looks through the whole input.
///
/// # Errors
/// The input's, and [`exit::Interrupted`]. An input without a single intact frame gives `None`.
pub(crate) fn survey<R: Read + Seek>(
    input: &mut R,
    limits: Limits,
    stop: &Stop,
) -> Result<Option<Survey>> {
    let Some((archive_id, others)) = identify(input, stop)? else {
        return Ok(None);
    };
    let mut survey = Survey {
        archive_id,
        header: None,
        end: None,
        frames: Vec::new(),
        records: 0,
        lost: Vec::new(),
        lost_frames: 0,
        lost_records: LostRecords::Exactly(0),
        changed: None,
        is_whole: false,
        repeated: 0,
        displaced: 0,
        others,
    };
    let (mut places, preamble) = find_frames(input, &mut survey, stop)?;
    // A lost preamble is put back as it was written; the digest tells whether that is right.
    let preamble = preamble.unwrap_or(Preamble::CURRENT);
    let mut look = Look {
        decoder: Decoder::new(limits)?.of_minor(preamble.minor),
        survey,
        lacks: Vec::new(),
        counted: Recount::default(),
        digest: Sha256::new_with_prefix(preamble.encode()),
        run: Vec::new(),
        kept: vec![false; places.len()],
        index: None,
        aborted: false,
    };
    for at in 0..places.len() {
        exit::unless_stopped(stop)?;
        let frame = read_frame(input, &places[at], archive_id)?;
        look.take(&places, at, frame);
    }
    let (mut survey, kept) = look.conclude(&places);
    // The places themselves, so that there is no second list of them.
    let mut kept = kept.into_iter();
    places.retain(|_| kept.next() == Some(true));
    survey.frames = places;
    Ok(Some(survey))
}

fn to_start(input: &mut impl Seek) -> Result<()> {
    input
        .seek(SeekFrom::Start(0))
        .context("cannot go back to the start of the archive")?;
    Ok(())
}

/// An archive's id, and the bytes of its frames.
pub(super) type Other = (u64, u64);

/// What speaks for an archive.
#[derive(Debug, Default)]
struct Traces {
    /// Bytes of its intact frames.
    bytes: u64,
    /// Some of them hold records.
    has_records: bool,
    /// Its HEADER is among them.
    has_header: bool,
}

/// Archives of which traces are kept: anybody can make frames of many.
const MAX_TRACED: usize = 1_000;

/// Whose frames these are, and what others there are. All of the input is looked through: another
/// archive may lie between two copies of this one. The header at the start and the trailer at the end
/// say whose they are, but each of them may be another archive's, which lies over this one's beginning
/// or end. So what they say counts only if that archive has records here, and where they disagree it
/// is the one with more bytes. Where neither counts it is the archive that has the most bytes; a value may be an archive,
/// too, so that is the last resort.
fn identify<R: Read + Seek>(input: &mut R, stop: &Stop) -> Result<Option<(u64, Vec<Other>)>> {
    let (header, trailer) = (id_at_start(input)?, id_at_end(input)?);
    to_start(input)?;
    let mut traces = BTreeMap::<u64, Traces>::new();
    for id in [header, trailer].into_iter().flatten() {
        traces.insert(id, Traces::default());
    }
    let reader = BufReader::new(&mut *input);
    let mut scanner = Scanner::of_any_archive(reader).places_only();
    while let Some(found) = scanner.next_found()? {
        exit::unless_stopped(stop)?;
        let Found::Frame(IntactFrame { header: frame, .. }) = found else {
            continue;
        };
        if traces.len() >= MAX_TRACED && !traces.contains_key(&frame.archive_id) {
            continue;
        }
        let of = traces.entry(frame.archive_id).or_default();
        of.bytes += FRAME_HEADER_LEN as u64 + u64::from(frame.stored_len);
        of.has_records |= is_value(frame.frame_type);
        of.has_header |= frame.frame_type == FrameType::HEADER;
    }
    let has_records = |id: &u64| traces.get(id).is_some_and(|of| of.has_records);
    let most = |ids: &mut dyn Iterator<Item = u64>| {
        ids.max_by_key(|id| traces.get(id).map(|of| (of.has_records, of.bytes)))
    };
    let largest = most(&mut traces.keys().copied());
    let named: Vec<u64> = [trailer, header].into_iter().flatten().collect();
    let named: Vec<u64> = named.into_iter().filter(|id| has_records(id)).collect();
    // The start of another archive that lies over this one has some of its records as well; it gives
    // itself away by how little it is, and by what it lies over: that archive's header.
    let is_overlaid = largest
        .and_then(|id| traces.get(&id))
        .is_some_and(|of| !of.has_header)
        && trailer.is_none_or(|id| !has_records(&id));
    let chosen = match named.as_slice() {
        [] => largest,
        _ if is_overlaid => largest,
        _ => most(&mut named.iter().copied()),
    };
    let chosen = chosen.filter(|id| traces.get(id).is_some_and(|of| of.bytes > 0));
    let others = traces
        .iter()
        .filter(|(id, of)| Some(**id) != chosen && of.has_records);
    let others = others.map(|(id, of)| (*id, of.bytes)).collect();
    Ok(chosen.map(|id| (id, others)))
}

/// The archive whose HEADER is intact at the place where HEADER is due.
fn id_at_start<R: Read + Seek>(input: &mut R) -> Result<Option<u64>> {
    to_start(input)?;
    let mut scanner = Scanner::of_any_archive(&mut *input).places_only();
    Ok(match scanner.next_found()? {
        Some(Found::Frame(frame))
            if frame.offset == PREAMBLE_LEN as u64
                && frame.header.frame_type == FrameType::HEADER =>
        {
            Some(frame.header.archive_id)
        }
        _ => None,
    })
}

/// The archive whose trailer is intact at the end.
fn id_at_end<R: Read + Seek>(input: &mut R) -> Result<Option<u64>> {
    let len = input
        .seek(SeekFrom::End(0))
        .context("cannot find the end")?;
    let Some(at) = len.checked_sub(TRAILER_LEN as u64) else {
        return Ok(None);
    };
    input
        .seek(SeekFrom::Start(at))
        .context("cannot find the trailer")?;
    let mut bytes = [0; TRAILER_LEN];
    input
        .read_exact(&mut bytes)
        .context("cannot read the trailer")?;
    let trailer = Trailer::decode(&bytes, Position::default());
    Ok(trailer.ok().map(|trailer| trailer.archive_id))
}

fn is_value(frame_type: FrameType) -> bool {
    matches!(frame_type, FrameType::DATA | FrameType::FRAGMENT)
}

/// The intact frames in the order of their numbers, and the bytes between them.
fn find_frames<R: Read + Seek>(
    input: &mut R,
    survey: &mut Survey,
    stop: &Stop,
) -> Result<(Vec<Place>, Option<Preamble>)> {
    to_start(input)?;
    let mut places: Vec<Place> = Vec::new();
    let reader = BufReader::new(&mut *input);
    let mut scanner = Scanner::new(reader, Some(survey.archive_id)).places_only();
    while let Some(found) = scanner.next_found()? {
        exit::unless_stopped(stop)?;
        match found {
            Found::Lost(from, to) => {
                survey.lost.push((from, to - from));
                if survey.lost.len() > 4 * MAX_RANGES {
                    survey.lost = joined(std::mem::take(&mut survey.lost));
                }
            }
            Found::Frame(IntactFrame { header, offset, .. }) => places.push(Place {
                offset,
                seq: header.seq,
                frame_type: header.frame_type,
                stored_len: header.stored_len,
                raw_len: header.raw_len,
                records: None,
            }),
        }
    }
    let preamble = scanner.preamble();
    let in_order = |pair: &&[Place]| pair[0].seq > pair[1].seq;
    survey.displaced = places.windows(2).filter(in_order).count() as u64;
    let found = places.len();
    // Stable: of two with one number the one that stood first stays.
    places.sort_by_key(|place| place.seq);
    places.dedup_by_key(|place| place.seq);
    survey.repeated = (found - places.len()) as u64;
    Ok((places, preamble))
}

/// The second look: what the intact frames hold.
struct Look {
    decoder: Decoder,
    survey: Survey,
    /// What its notes say that it lacks.
    lacks: Vec<String>,
    /// What the records come to, to be compared with END.
    counted: Recount,
    /// Over preamble and frames in order, END excepted.
    digest: Sha256,
    /// Parts of a value whose last part is still to come.
    run: Vec<usize>,
    /// Which places can be rescued.
    kept: Vec<bool>,
    index: Option<Index>,
    aborted: bool,
}

impl Look {
    fn take(&mut self, places: &[Place], at: usize, frame: IntactFrame) {
        let place = &places[at];
        let goes_on = place.frame_type == FrameType::FRAGMENT
            && self
                .run
                .last()
                .is_none_or(|last| places[*last].seq.checked_add(1) == Some(place.seq));
        if !goes_on {
            self.lose_run(places);
        }
        if place.frame_type != FrameType::END {
            self.digest.update(frame.header.encode());
            self.digest.update(&frame.payload);
        }
        let counted = &mut self.counted;
        let mut fits = true;
        let mut each = |record: &Glance<'_>| fits &= counted.glance(record);
        match self.decoder.glance(frame, &mut each) {
            Ok(Content::Part) => self.run.push(at),
            Ok(Content::Seen { context, records }) if fits => {
                self.counted.context(&context);
                for part in self.run.drain(..).chain([at]) {
                    self.kept[part] = true;
                }
                self.survey.records += records;
            }
            Ok(Content::Note(text)) => {
                self.kept[at] = true;
                if let Some(lacks) = text.strip_prefix(LACKS)
                    && self.lacks.len() < MAX_NOTES_KEPT
                {
                    self.lacks.push(lacks.to_owned());
                }
            }
            Ok(Content::ModuleAux(_)) => self.kept[at] = true,
            Ok(Content::Header(header)) => self.survey.header = Some(*header),
            Ok(Content::End(end)) => self.survey.end = Some(*end),
            Ok(Content::Index(index)) => self.index = Some(index),
            Ok(Content::Other) => self.aborted |= place.frame_type == FrameType::ABORT,
            // Records of more databases than an archive can have are as good as damaged.
            Ok(_) | Err(_) => {
                self.lose_run(places);
                self.survey.lost.push(span(place));
            }
        }
    }

    fn lose_run(&mut self, places: &[Place]) {
        let lost = self.run.drain(..).map(|at| span(&places[at]));
        self.survey.lost.extend(lost);
    }

    fn conclude(mut self, places: &[Place]) -> (Survey, Vec<bool>) {
        self.lose_run(places);
        let mut survey = self.survey;
        if let Some(end) = &mut survey.end {
            end.lacks = std::mem::take(&mut self.lacks);
        }
        let kept = self.kept;
        let is_lost = |seq: u64| {
            let at = places.binary_search_by_key(&seq, |place| place.seq);
            !at.is_ok_and(|at| kept[at])
        };
        let known = |records| LostRecords::Exactly(records);
        if let Some(index) = &self.index {
            let (mut seq, mut records) = (0, 0);
            index.each(|entry| {
                if is_value(FrameType(entry.frame_type)) && is_lost(seq) {
                    survey.lost_frames += 1;
                    records += u64::from(entry.records);
                }
                seq += 1;
            });
            survey.lost_records = known(records);
        } else {
            // Frames that are missing in the row, whatever they were.
            let end = survey.end.as_ref().map(|end| end.frames);
            let seen = || places.last().map_or(0, |last| last.seq.saturating_add(1));
            let count = end.unwrap_or_else(seen);
            let there = places.iter().filter(|place| place.seq < count).count() as u64;
            let undecoded = places
                .iter()
                .filter(|place| is_value(place.frame_type) && is_lost(place.seq));
            let missing = count.saturating_sub(there);
            survey.lost_frames = missing.saturating_add(undecoded.count() as u64);
            survey.lost_records = match &survey.end {
                Some(end) => known(end.records.saturating_sub(survey.records)),
                None => LostRecords::Unknown,
            };
        }
        let is_missing_nothing =
            survey.header.is_some() && !self.aborted && survey.lost_frames == 0;
        if let Some(end) = &survey.end
            && is_missing_nothing
        {
            let digest: [u8; 32] = self.digest.finalize().into();
            if digest != end.sha256 {
                survey.changed = Some(Change::Digest);
            } else if self.counted.check_end(end).is_err() {
                survey.changed = Some(Change::Counts);
            } else {
                survey.is_whole = true;
            }
        }
        survey.lost.sort_unstable();
        survey.lost = joined(survey.lost);
        (survey, kept)
    }
}

fn span(place: &Place) -> Range {
    let len = FRAME_HEADER_LEN as u64 + u64::from(place.stored_len);
    (place.offset, len)
}

/// Ranges that touch each other as one; and so many that a header can hold them.
fn joined(sorted: Vec<Range>) -> Vec<Range> {
    let join = |ranges: Vec<Range>, gap: u64| {
        let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
        for (from, len) in ranges {
            match joined.last_mut() {
                Some((first, before)) if from <= *first + *before + gap => {
                    *before = (*before).max(from + len - *first);
                }
                _ => joined.push((from, len)),
            }
        }
        joined
    };
    let mut ranges = join(sorted, 0);
    let mut gap = 4096;
    while ranges.len() > MAX_RANGES {
        ranges = join(ranges, gap);
        gap *= 2;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one_and_there_are_never_too_many() {
        assert_eq!(joined(vec![(0, 5), (5, 5), (12, 1)]), [(0, 10), (12, 1)]);
        assert_eq!(joined(vec![(0, 50), (5, 5)]), [(0, 50)]);
        let many = (0..100_000).map(|n| (n * 100, 1)).collect();
        let few = joined(many);
        assert!(few.len() <= MAX_RANGES);
        let (first, last) = (few[0], few[few.len() - 1]);
        assert_eq!(first.0, 0);
        assert!(last.0 + last.1 >= 9_999_901);
    }
}
