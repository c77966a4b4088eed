//! What is due, by time; what is due at the same time happens in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Bytes of the tool arrive at the server of a link.
    ToServer(u64),
    /// Bytes of the server arrive at the tool.
    ToTool(u64),
    /// A server's clock ticks.
    Tick(usize),
    /// An event of the script.
    Planned(usize),
    /// A state of a server ends that began with an event.
    Over(usize, u8),
    /// What a primary changed reaches its replica.
    Replicate(usize),
    /// A step of moving a slot: which move.
    Moving(usize),
    /// Somebody waits for this moment.
    Wake,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Due)>>,
    planned: u64,
}

impl Queue {
    pub fn plan(&mut self, at: u64, due: Due) {
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, due)));
    }

    /// When the next thing is due.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub fn pop(&mut self) -> Option<(u64, Due)> {
        self.heap.pop().map(|Reverse((at, _, due))| (at, due))
    }

    /// Forgets what was planned by a script and for its end.
    pub fn forget_planned(&mut self) {
        let kept = std::mem::take(&mut self.heap).into_iter();
        self.heap = kept
            .filter(|Reverse((.., due))| !matches!(due, Due::Planned(_)))
            .collect();
    }
}
