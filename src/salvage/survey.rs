//! The first look at a damaged archive: which of its frames are intact, and what is missing.

use std::io::{BufReader, Read, Seek, SeekFrom};

use anyhow::{Context as _, Result};
use redis_migrate_format::frame::{FRAME_HEADER_LEN, FrameType};
use redis_migrate_format::salvage::{Content, Decoder, Found, IntactFrame, Scanner};
use redis_migrate_format::seek::{Place, read_frame};
use redis_migrate_format::trailer::{TRAILER_LEN, Trailer};
use redis_migrate_format::version::PREAMBLE_LEN;
use redis_migrate_format::{End, Header, IndexEntry, Limits, Position};

use super::Range;
use crate::exit::Interrupted;
use crate::pipe::Stop;

/// Lost ranges that a header lists; beyond, neighbours are told as one.
const MAX_RANGES: usize = 10_000;

/// How many records were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostRecords {
    /// INDEX or END says.
    Exactly(u64),
    /// Neither is there: so many as the lost bytes would hold on average.
    AtLeastAbout(u64),
}

/// What a damaged archive still holds.
#[derive(Debug)]
pub struct Survey {
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
    /// Everything that the archive held is proved to be there.
    pub is_whole: bool,
    /// Intact frames that stood twice, and those that stood out of their order.
    pub repeated: u64,
    /// See `repeated`.
    pub displaced: u64,
}

/// Looks through the whole input.
///
/// # Errors
/// The input's, and [`Interrupted`]. An input without a single intact frame gives `None`.
pub fn survey<R: Read + Seek>(
    input: &mut R,
    limits: Limits,
    stop: &Stop,
) -> Result<Option<Survey>> {
    let Some(archive_id) = identify(input, stop)? else {
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
        is_whole: false,
        repeated: 0,
        displaced: 0,
    };
    let places = find_frames(input, &mut survey, stop)?;
    let mut look = Look {
        decoder: Decoder::new(limits)?,
        survey,
        run: Vec::new(),
        index: None,
        aborted: false,
    };
    for place in &places {
        if stop.is_set() {
            return Err(Interrupted.into());
        }
        let frame = read_frame(input, place, archive_id)?;
        look.take(place, &frame);
    }
    Ok(Some(look.conclude(&places)))
}

fn to_start(input: &mut impl Seek) -> Result<()> {
    input
        .seek(SeekFrom::Start(0))
        .context("go back to the start of the archive")?;
    Ok(())
}

/// Whose frames these are. HEADER says, or the trailer. Where both are damaged the first intact
/// frame may be one of another archive, which somebody stored as a value in this one: then it is
/// the archive that has the most bytes.
fn identify<R: Read + Seek>(input: &mut R, stop: &Stop) -> Result<Option<u64>> {
    to_start(input)?;
    let mut scanner = Scanner::of_any_archive(&mut *input);
    if let Some(Found::Frame(frame)) = scanner.next_found()?
        && frame.offset == PREAMBLE_LEN as u64
        && frame.header.frame_type == FrameType::HEADER
    {
        return Ok(Some(frame.header.archive_id));
    }
    let len = input.seek(SeekFrom::End(0)).context("find the end")?;
    if let Some(at) = len.checked_sub(TRAILER_LEN as u64) {
        input
            .seek(SeekFrom::Start(at))
            .context("find the trailer")?;
        let mut bytes = [0; TRAILER_LEN];
        input.read_exact(&mut bytes).context("read the trailer")?;
        if let Ok(trailer) = Trailer::decode(&bytes, Position::default()) {
            return Ok(Some(trailer.archive_id));
        }
    }
    to_start(input)?;
    let mut bytes = std::collections::BTreeMap::<u64, u64>::new();
    let mut scanner = Scanner::of_any_archive(BufReader::new(&mut *input));
    while let Some(found) = scanner.next_found()? {
        if stop.is_set() {
            return Err(Interrupted.into());
        }
        if let Found::Frame(frame) = found {
            *bytes.entry(frame.header.archive_id).or_default() +=
                FRAME_HEADER_LEN as u64 + u64::from(frame.header.stored_len);
        }
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    Ok(most.map(|(archive_id, _)| archive_id))
}

/// The intact frames in the order of their numbers, and the bytes between them.
fn find_frames<R: Read + Seek>(
    input: &mut R,
    survey: &mut Survey,
    stop: &Stop,
) -> Result<Vec<Place>> {
    to_start(input)?;
    let mut places: Vec<Place> = Vec::new();
    let mut scanner = Scanner::new(BufReader::new(&mut *input), Some(survey.archive_id));
    while let Some(found) = scanner.next_found()? {
        if stop.is_set() {
            return Err(Interrupted.into());
        }
        match found {
            Found::Lost(from, to) => survey.lost.push((from, to - from)),
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
    let in_order = |pair: &&[Place]| pair[0].seq > pair[1].seq;
    survey.displaced = places.windows(2).filter(in_order).count() as u64;
    let found = places.len();
    // Stable: of two with one number the one that stood first stays.
    places.sort_by_key(|place| place.seq);
    places.dedup_by_key(|place| place.seq);
    survey.repeated = (found - places.len()) as u64;
    Ok(places)
}

/// The second look: what the intact frames hold.
struct Look {
    decoder: Decoder,
    survey: Survey,
    /// Parts of a value whose last part is still to come.
    run: Vec<Place>,
    index: Option<Vec<IndexEntry>>,
    aborted: bool,
}

impl Look {
    fn take(&mut self, place: &Place, frame: &IntactFrame) {
        let goes_on = place.frame_type == FrameType::FRAGMENT
            && self.run.last().is_none_or(|last| last.seq + 1 == place.seq);
        if !goes_on {
            self.lose_run();
        }
        match self.decoder.decode(frame) {
            Ok(Content::Part) => self.run.push(*place),
            Ok(Content::Records(records)) => {
                self.survey.frames.append(&mut self.run);
                self.survey.frames.push(*place);
                self.survey.records += records.records.len() as u64;
            }
            Ok(Content::Note(_)) => self.survey.frames.push(*place),
            Ok(Content::Header(header)) => self.survey.header = Some(*header),
            Ok(Content::End(end)) => self.survey.end = Some(*end),
            Ok(Content::Index(index)) => self.index = Some(index),
            Ok(_) => self.aborted |= place.frame_type == FrameType::ABORT,
            Err(_) => {
                self.lose_run();
                self.survey.lost.push(span(place));
            }
        }
    }

    fn lose_run(&mut self) {
        self.survey
            .lost
            .extend(self.run.drain(..).map(|place| span(&place)));
    }

    fn conclude(mut self, places: &[Place]) -> Survey {
        self.lose_run();
        let mut survey = self.survey;
        let is_value = |ty: FrameType| matches!(ty, FrameType::DATA | FrameType::FRAGMENT);
        let rescued: Vec<u64> = survey.frames.iter().map(|place| place.seq).collect();
        let is_lost = |seq: u64| rescued.binary_search(&seq).is_err();
        let known = |records| LostRecords::Exactly(records);
        if let Some(index) = &self.index {
            let lost = (0..)
                .zip(index)
                .filter(|(seq, entry)| is_value(FrameType(entry.frame_type)) && is_lost(*seq));
            survey.lost_frames = lost.clone().count() as u64;
            survey.lost_records = known(lost.map(|(_, entry)| u64::from(entry.records)).sum());
        } else {
            // Frames that are missing in the row, whatever they were.
            let end = survey.end.as_ref().map(|end| end.frames);
            let count = end.unwrap_or_else(|| places.last().map_or(0, |last| last.seq + 1));
            let there = |seq: u64| places.binary_search_by_key(&seq, |place| place.seq);
            survey.lost_frames = (0..count)
                .filter(|seq| match there(*seq) {
                    Ok(at) => is_value(places[at].frame_type) && is_lost(*seq),
                    Err(_) => true,
                })
                .count() as u64;
            survey.lost_records = match &survey.end {
                Some(end) => known(end.records.saturating_sub(survey.records)),
                None => LostRecords::AtLeastAbout(survey.guess()),
            };
        }
        survey.is_whole = survey.end.is_some()
            && survey.header.is_some()
            && !self.aborted
            && survey.lost_frames == 0
            && survey.lost_records == known(0)
            && survey.end.as_ref().map(|end| end.records) == Some(survey.records);
        survey.lost.sort_unstable();
        survey.lost = joined(survey.lost);
        survey
    }
}

impl Survey {
    /// As many records as the lost bytes would hold if they were like the others.
    fn guess(&self) -> u64 {
        let kept: u64 = self.frames.iter().map(|place| span(place).1).sum();
        let lost: u64 = self.lost.iter().map(|(_, len)| len).sum();
        let guess = u128::from(lost) * u128::from(self.records) / u128::from(kept.max(1));
        u64::try_from(guess).unwrap_or(u64::MAX)
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
