//! The pipe of a simulated world: one thread reads and writes by turns, in an order by chance. What
//! may happen between two threads happens here between two turns.

use std::collections::VecDeque;

use anyhow::{Result, anyhow};

use super::{Pumped, Steps, Stop, Writing, prepare};
use crate::host;
use crate::record::Batch;
use crate::source::Source;

/// Batches that may be read and not yet written.
const QUEUE_BATCHES: usize = 8;

/// Reads `source` to its end into `writing`; what came of both.
pub(super) fn run(
    source: &mut dyn Source,
    steps: &Steps,
    writing: &mut Writing<'_>,
    stop: &Stop,
) -> (Result<Pumped>, Result<()>) {
    let mut turns = Turns {
        steps,
        stop,
        queue: VecDeque::new(),
        most: one_of(QUEUE_BATCHES) + 1,
        broken: None,
    };
    let read = turns.stages(source, writing);
    if let Some(error) = turns.broken {
        return (Ok(Pumped::SinkGone), Err(error));
    }
    // What was read before an error or a wish to stop is still written.
    while let Some(batch) = turns.queue.pop_front() {
        if let Err(error) = writing.write(batch) {
            return (read, Err(error));
        }
    }
    (read, Ok(()))
}

struct Turns<'a> {
    steps: &'a Steps,
    stop: &'a Stop,
    queue: VecDeque<Batch>,
    /// Batches that may wait.
    most: usize,
    /// Why nothing more can be written.
    broken: Option<anyhow::Error>,
}

impl Turns<'_> {
    fn stages(&mut self, source: &mut dyn Source, writing: &mut Writing<'_>) -> Result<Pumped> {
        loop {
            let mut parts = source.parts();
            let pumped = if parts.is_empty() {
                drop(parts);
                self.parts(&mut [source], writing)?
            } else {
                self.parts(&mut parts, writing)?
            };
            if !matches!(pumped, Pumped::End) || !source.next_stage()? {
                return Ok(pumped);
            }
        }
    }

    /// Reads all of these to their ends. The first error is told when all of them have ended.
    fn parts(
        &mut self,
        parts: &mut [&mut dyn Source],
        writing: &mut Writing<'_>,
    ) -> Result<Pumped> {
        let mut open: Vec<usize> = (0..parts.len()).collect();
        while !open.is_empty() {
            if self.stop.is_set() {
                return Ok(Pumped::Interrupted);
            }
            let writes = match self.queue.len() {
                0 => false,
                waiting => waiting >= self.most || one_of(2) == 0,
            };
            if writes {
                self.write(writing);
            } else {
                let at = one_of(open.len());
                let mut batch = Batch::limited(usize::MAX, usize::MAX);
                match parts[open[at]].read(&mut batch)? {
                    false => {
                        open.swap_remove(at);
                    }
                    true => self.queue.push_back(prepare(batch, self.steps)?),
                }
                if self.queue.is_empty() && one_of(4) == 0 {
                    self.broken = writing.sink.idle().err();
                }
            }
            if self.broken.is_some() {
                return Err(anyhow!("the writing side is gone"));
            }
        }
        Ok(Pumped::End)
    }

    fn write(&mut self, writing: &mut Writing<'_>) {
        if let Some(batch) = self.queue.pop_front() {
            self.broken = writing.write(batch).err();
        }
    }
}

/// One of so many, by chance.
fn one_of(count: usize) -> usize {
    usize::try_from(host::random() % count.max(1) as u64).unwrap_or(0)
}
