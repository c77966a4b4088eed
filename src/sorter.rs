//! Sorts more numbers than fit into memory. What does not fit is sorted and written to temporary
//! files on a thread of its own, so that whoever brings the numbers goes on meanwhile.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

const NUMBER_BYTES: usize = size_of::<u128>();

/// Numbers that are kept in memory: 2 MiB. Twice as many may be on their way to a file.
pub(crate) const IN_MEMORY: usize = 128 * 1024;

/// Files of one size that are merged into one of the next.
const MERGED_AT_ONCE: usize = 16;

const BUFFER_BYTES: usize = 64 * 1024;

/// Takes numbers in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    recent: Vec<u128>,
    max_recent: usize,
    spiller: Option<Spiller>,
    /// Why numbers were lost.
    trouble: Option<io::Error>,
}

/// The thread that writes files.
#[derive(Debug)]
struct Spiller {
    numbers: SyncSender<Vec<u128>>,
    thread: JoinHandle<io::Result<Vec<File>>>,
}

impl Sorter {
    /// With so many numbers in memory: [`IN_MEMORY`], or fewer in tests.
    pub(crate) fn new(max_recent: usize) -> Self {
        Self {
            recent: Vec::new(),
            max_recent,
            spiller: None,
            trouble: None,
        }
    }

    /// Takes a number. That a temporary file failed is told by [`Sorter::finish`].
    pub(crate) fn push(&mut self, number: u128) {
        if self.recent.len() >= self.max_recent {
            self.spill();
        }
        self.recent.push(number);
    }

    fn spill(&mut self) {
        let fresh = Vec::with_capacity(self.max_recent);
        let full = std::mem::replace(&mut self.recent, fresh);
        if self.trouble.is_some() {
            return;
        }
        let sent = match &self.spiller {
            Some(spiller) => spiller.numbers.send(full),
            None => Spiller::start().map_or_else(
                |error| {
                    self.trouble = Some(error);
                    Ok(())
                },
                |spiller| self.spiller.insert(spiller).numbers.send(full),
            ),
        };
        // It ended before its time.
        if sent.is_err() {
            self.trouble = self.end_spiller().err();
        }
    }

    fn end_spiller(&mut self) -> io::Result<Vec<File>> {
        let Some(Spiller { numbers, thread }) = self.spiller.take() else {
            return Ok(Vec::new());
        };
        drop(numbers);
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that sorts ended early")))
    }

    /// The numbers in order.
    ///
    /// # Errors
    /// A temporary file failed: some numbers are lost.
    pub(crate) fn finish(mut self) -> io::Result<Sorted> {
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        let files = self.end_spiller()?;
        let mut runs: Vec<Run> = files.into_iter().map(Run::file).collect();
        self.recent.sort_unstable();
        runs.push(Run::Memory(std::mem::take(&mut self.recent).into_iter()));
        Sorted::of(runs)
    }
}

impl Spiller {
    fn start() -> io::Result<Self> {
        let (numbers, coming) = sync_channel(1);
        let thread = std::thread::Builder::new().name("sorter".to_owned());
        let thread = thread.spawn(move || write_files(&coming))?;
        Ok(Self { numbers, thread })
    }
}

fn write_files(coming: &Receiver<Vec<u128>>) -> io::Result<Vec<File>> {
    /// A file, and how often its numbers were merged.
    type Ranked = (File, u32);
    let mut files: Vec<Ranked> = Vec::new();
    for mut numbers in coming {
        numbers.sort_unstable();
        let run = Run::Memory(numbers.into_iter());
        files.push((saved(Sorted::of(vec![run])?)?, 0));
        // Each number is written once for each rank, and there are few ranks.
        while let Some((_, rank)) = files.last()
            && let rank = *rank
            && let Some(first) = files.len().checked_sub(MERGED_AT_ONCE)
            && files[first].1 == rank
        {
            let runs = files.drain(first..).map(|(file, _)| Run::file(file));
            let merged = saved(Sorted::of(runs.collect())?)?;
            files.push((merged, rank + 1));
        }
    }
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

/// All numbers in a temporary file, which stands at its start.
fn saved(mut sorted: Sorted) -> io::Result<File> {
    // Unlinked from the start: it goes away with us, however we end.
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile()?);
    while let Some(number) = sorted.next_number()? {
        out.write_all(&number.to_le_bytes())?;
    }
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Numbers in order.
#[derive(Debug)]
pub(crate) struct Sorted {
    runs: Vec<Run>,
    /// The next number of each run, and which run it is.
    next: BinaryHeap<Reverse<(u128, usize)>>,
}

#[derive(Debug)]
enum Run {
    Memory(std::vec::IntoIter<u128>),
    File(BufReader<File>),
}

impl Sorted {
    fn of(mut runs: Vec<Run>) -> io::Result<Self> {
        let mut next = BinaryHeap::with_capacity(runs.len());
        for (at, run) in runs.iter_mut().enumerate() {
            if let Some(number) = run.next_number()? {
                next.push(Reverse((number, at)));
            }
        }
        Ok(Self { runs, next })
    }

    /// The next one.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub(crate) fn next_number(&mut self) -> io::Result<Option<u128>> {
        let Some(mut first) = self.next.peek_mut() else {
            return Ok(None);
        };
        let Reverse((number, at)) = *first;
        match self.runs[at].next_number()? {
            Some(next) => *first = Reverse((next, at)),
            None => _ = PeekMut::pop(first),
        }
        Ok(Some(number))
    }
}

impl Run {
    fn file(file: File) -> Self {
        Self::File(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    fn next_number(&mut self) -> io::Result<Option<u128>> {
        let file = match self {
            Self::Memory(numbers) => return Ok(numbers.next()),
            Self::File(file) => file,
        };
        let mut bytes = [0; NUMBER_BYTES];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u128::from_le_bytes(bytes))),
            // Files hold whole numbers.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also with so few in memory that files are merged into files that are merged.
    #[test]
    fn numbers_come_in_order_and_none_is_lost() {
        for max_recent in [1, 3, 100, 10_000] {
            let mut sorter = Sorter::new(max_recent);
            let mut state = 9_u128;
            let mut wanted = Vec::new();
            for _ in 0..1000 {
                state = state
                    .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
                    .wrapping_add(1);
                let number = state >> 90 << 60;
                sorter.push(number);
                wanted.push(number);
            }
            wanted.sort_unstable();
            let mut sorted = sorter.finish().expect("sorted");
            for number in wanted {
                assert_eq!(sorted.next_number().expect("read"), Some(number));
            }
            assert_eq!(sorted.next_number().expect("read"), None);
        }
        let mut none = Sorter::new(1).finish().expect("sorted");
        assert_eq!(none.next_number().expect("read"), None);
    }
}
