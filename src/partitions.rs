//! Numbers that are spread evenly, such as keyed hashes, kept by parts of their range: more of them
//! than fit into memory, and cheaper than to sort them. Whoever reads them has to look at one part at
//! a time.
//!
//! What does not fit into memory goes to one temporary file, in segments. Each says where the one
//! before it of the same part is.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

const NUMBER_BYTES: usize = size_of::<u128>();

/// Parts, by the highest bits of a number. Of a billion numbers each has a million.
const PART_BITS: u32 = 10;
const PARTS: usize = 1 << PART_BITS;

/// Numbers that are kept in memory: 2 MiB, and as much again at most for what their vectors have
/// free.
pub(crate) const IN_MEMORY: usize = 128 * 1024;

/// Numbers that a part has room for when its numbers were saved.
const MAX_SPARE: usize = 2 * IN_MEMORY / PARTS;

/// The bits of a number from here on divide a part, where it is large: not those of the part, and
/// none of the low ones, which may tell numbers apart that belong together.
const ROUND_SHIFT: u32 = 64;

/// So many numbers of a part at most are shown before [`Visitor::end_part`], where they differ: of
/// what a visitor keeps of them, no more is in memory.
const SHOWN_AT_ONCE: u64 = 256 * 1024;

/// Numbers that come between two looks at the parts: 128 KiB.
const INCOMING: usize = 8 * 1024;

/// Looks at numbers of one part after the other, or of a piece of one. Numbers with the same upper
/// half are of one piece.
pub(crate) trait Visitor: Send {
    /// A number of it.
    fn see(&mut self, number: u128);

    /// All of its numbers were seen.
    fn end_part(&mut self);
}

/// Takes numbers in any order.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// What came last, in no part yet: put there all at once, they do not cost whoever brings them a
    /// cache miss each.
    incoming: Vec<u128>,
    parts: Vec<Part>,
    in_memory: usize,
    max_in_memory: usize,
    saved: Option<Saved>,
    /// Why numbers were lost.
    trouble: Option<io::Error>,
}

#[derive(Debug, Clone, Default)]
struct Part {
    recent: Vec<u128>,
    /// Where the newest of its segments is.
    last: Option<Segment>,
    /// Numbers in all its segments.
    saved: u64,
}

/// The temporary file.
#[derive(Debug)]
struct Saved {
    file: File,
    bytes: u64,
}

/// A piece of the temporary file: a head that says where the one before it of the same part is, and
/// numbers.
#[derive(Debug, Clone, Copy)]
struct Segment {
    begin: u64,
    count: u64,
}

impl Segment {
    const HEAD_BYTES: usize = 16;

    /// A segment has at least one number, so that a count of 0 says that there is none.
    fn head(before: Option<Self>) -> [u8; Self::HEAD_BYTES] {
        let (begin, count) = before.map_or((0, 0), |segment| (segment.begin, segment.count));
        let mut head = [0; Self::HEAD_BYTES];
        head[..8].copy_from_slice(&begin.to_le_bytes());
        head[8..].copy_from_slice(&count.to_le_bytes());
        head
    }

    fn of_head(head: &[u8]) -> Option<Self> {
        let (begin, count) = head.split_first_chunk::<8>()?;
        let segment = Self {
            begin: u64::from_le_bytes(*begin),
            count: u64::from_le_bytes(*count.first_chunk()?),
        };
        (segment.count > 0).then_some(segment)
    }

    fn bytes(self) -> usize {
        Self::HEAD_BYTES + self.count as usize * NUMBER_BYTES
    }
}

impl Partitions {
    /// With so many numbers in memory: [`IN_MEMORY`], or fewer in tests.
    pub(crate) fn new(max_in_memory: usize) -> Self {
        Self {
            incoming: Vec::with_capacity(INCOMING.min(max_in_memory)),
            parts: vec![Part::default(); PARTS],
            in_memory: 0,
            max_in_memory,
            saved: None,
            trouble: None,
        }
    }

    /// Takes a number. That a temporary file failed is told when the numbers are read.
    pub(crate) fn push(&mut self, number: u128) {
        if self.incoming.len() == self.incoming.capacity() {
            self.distribute();
        }
        self.incoming.push(number);
    }

    fn distribute(&mut self) {
        if self.in_memory + self.incoming.len() > self.max_in_memory {
            self.save();
        }
        self.in_memory += self.incoming.len();
        for number in self.incoming.drain(..) {
            self.parts[part_of(number)].recent.push(number);
        }
    }

    fn save(&mut self) {
        if self.trouble.is_none() {
            self.trouble = self.save_parts().err();
        }
        for part in &mut self.parts {
            part.recent.clear();
            // Where many numbers are the same, one part after the other would grow.
            part.recent.shrink_to(MAX_SPARE);
        }
        self.in_memory = 0;
    }

    fn save_parts(&mut self) -> io::Result<()> {
        let saved = match &mut self.saved {
            Some(saved) => saved,
            // Unlinked from the start: it goes away with us, however we end.
            none => none.insert(Saved {
                file: tempfile::tempfile()?,
                bytes: 0,
            }),
        };
        let mut out = BufWriter::with_capacity(256 << 10, &saved.file);
        for part in self.parts.iter_mut().filter(|part| !part.recent.is_empty()) {
            out.write_all(&Segment::head(part.last))?;
            for number in &part.recent {
                out.write_all(&number.to_le_bytes())?;
            }
            let segment = Segment {
                begin: saved.bytes,
                count: part.recent.len() as u64,
            };
            part.last = Some(segment);
            part.saved += segment.count;
            saved.bytes += segment.bytes() as u64;
        }
        out.flush()
    }

    /// Shows each visitor its share of the parts, on a thread of its own if there are several.
    ///
    /// # Errors
    /// A temporary file failed: some numbers are lost.
    pub(crate) fn read(mut self, visitors: &mut [impl Visitor]) -> io::Result<()> {
        self.distribute();
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        let file = self.saved.as_ref().map(|saved| &saved.file);
        let share = PARTS.div_ceil(visitors.len().max(1));
        let mut shares = self.parts.chunks(share).zip(visitors);
        let first = shares.next();
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            for (parts, visitor) in shares {
                let thread = std::thread::Builder::new().name("parts".to_owned());
                let read = move || read_parts(file, parts, visitor);
                others.push(thread.spawn_scoped(scope, read)?);
            }
            let mut done =
                first.map_or(Ok(()), |(parts, visitor)| read_parts(file, parts, visitor));
            for other in others {
                let early = || io::Error::other("a thread that reads numbers ended early");
                done = done.and(other.join().unwrap_or_else(|_| Err(early())));
            }
            done
        })
    }
}

fn part_of(number: u128) -> usize {
    (number >> (u128::BITS - PART_BITS)) as usize
}

fn read_parts(file: Option<&File>, parts: &[Part], visitor: &mut impl Visitor) -> io::Result<()> {
    for part in parts {
        let numbers = part.saved + part.recent.len() as u64;
        let rounds = numbers.div_ceil(SHOWN_AT_ONCE).next_power_of_two();
        for round in 0..rounds {
            part.each(file, |number| {
                if u128::from(round) == number >> ROUND_SHIFT & u128::from(rounds - 1) {
                    visitor.see(number);
                }
            })?;
            visitor.end_part();
        }
    }
    Ok(())
}

impl Part {
    fn each(&self, file: Option<&File>, mut show: impl FnMut(u128)) -> io::Result<()> {
        self.recent.iter().for_each(|number| show(*number));
        let mut bytes = Vec::new();
        let mut next = self.last;
        while let (Some(segment), Some(file)) = (next, file) {
            bytes.resize(segment.bytes(), 0);
            file.read_exact_at(&mut bytes, segment.begin)?;
            let (head, body) = bytes.split_at(Segment::HEAD_BYTES);
            let (numbers, _) = body.as_chunks::<NUMBER_BYTES>();
            for number in numbers {
                show(u128::from_le_bytes(*number));
            }
            next = Segment::of_head(head);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        parts: Vec<Vec<u128>>,
        part: Vec<u128>,
    }

    impl Visitor for Seen {
        fn see(&mut self, number: u128) {
            self.part.push(number);
        }

        fn end_part(&mut self) {
            self.parts.push(std::mem::take(&mut self.part));
        }
    }

    fn numbers(count: usize, spread: bool) -> Vec<u128> {
        let mut state = 9_u128;
        let next = |_| {
            state = state
                .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
                .wrapping_add(1);
            let number = state ^ state >> 64;
            if spread { number } else { number >> 70 }
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn each_number_is_seen_once_and_with_those_of_its_part() {
        for (count, max_in_memory, spread, visitors) in [
            (0, 1, true, 1),
            (1_000, 1, true, 2),
            (20_000, 100, true, 3),
            (20_000, 100_000, true, 1),
            // All in one part, as no hash would have them.
            (20_000, 3_000, false, 2),
        ] {
            let wanted = numbers(count, spread);
            let mut partitions = Partitions::new(max_in_memory);
            wanted.iter().for_each(|number| partitions.push(*number));
            let mut seen: Vec<Seen> = Vec::new();
            seen.resize_with(visitors, Seen::default);
            partitions.read(&mut seen).expect("read");
            let mut parts: Vec<Vec<u128>> = seen.into_iter().flat_map(|seen| seen.parts).collect();
            assert_eq!(parts.len(), PARTS);
            let mut due = vec![Vec::new(); PARTS];
            wanted
                .iter()
                .for_each(|number| due[part_of(*number)].push(*number));
            parts
                .iter_mut()
                .chain(&mut due)
                .for_each(|part| part.sort_unstable());
            assert!(parts == due, "{count}, {max_in_memory}");
        }
    }

    #[test]
    fn a_large_part_is_seen_in_pieces() {
        let wanted: Vec<u128> = numbers(SHOWN_AT_ONCE as usize + 1, true);
        let mut wanted: Vec<u128> = wanted.iter().map(|number| number >> PART_BITS).collect();
        let mut partitions = Partitions::new(IN_MEMORY);
        wanted.iter().for_each(|number| partitions.push(*number));
        let mut seen = [Seen::default()];
        partitions.read(&mut seen).expect("read");
        let [Seen { parts, .. }] = seen;
        let pieces: Vec<_> = parts
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect();
        assert_eq!(pieces.len(), 2);
        for (nth, piece) in (0..).zip(&pieces) {
            assert!(piece.iter().all(|number| number >> ROUND_SHIFT & 1 == nth));
        }
        let mut all = pieces.concat();
        all.sort_unstable();
        wanted.sort_unstable();
        assert!(all == wanted);
    }

    /// However the numbers come, what a part keeps is bounded.
    #[test]
    fn a_part_that_was_large_does_not_stay_so() {
        let mut partitions = Partitions::new(10_000);
        for part in 0..20_u128 {
            for number in 0..10_000 {
                partitions.push(part << (u128::BITS - PART_BITS) | number);
            }
        }
        let room: usize = partitions
            .parts
            .iter()
            .map(|part| part.recent.capacity())
            .sum();
        assert!(room <= 2 * 16_384 + 20 * MAX_SPARE, "{room}");
    }
}
