//! A channel bounded in bytes instead of items. The standard library bounds the number, and a
//! batch holds anything between nothing and one value of half a gigabyte.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

struct State<T> {
    queue: VecDeque<(T, usize)>,
    /// Bytes queued, and in the receiver's hands until it asks for the next item.
    held_bytes: usize,
    in_hand_bytes: usize,
    sender_gone: bool,
    receiver_gone: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity_bytes: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed
            .wait(state)
            .unwrap_or_else(|error| error.into_inner())
    }

    fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State<T>>,
        limit: Duration,
    ) -> MutexGuard<'a, State<T>> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(|error| error.into_inner())
            .0
    }
}

/// The sending half; dropping it ends the channel after what is queued.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The receiving half; dropping it makes every `send` fail.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A channel that holds `capacity_bytes`, or one item if that is larger.
pub(crate) fn channel<T>(capacity_bytes: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            held_bytes: 0,
            in_hand_bytes: 0,
            sender_gone: false,
            receiver_gone: false,
        }),
        changed: Condvar::new(),
        capacity_bytes,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Waits for room, then queues. `false` when nobody will ever receive it.
    ///
    /// An item that is larger than the whole channel travels alone: this returns only when the
    /// receiver is done with it, so that the next one is not even read while it is in memory.
    pub(crate) fn send(&self, item: T, bytes: usize) -> bool {
        let mut state = self.0.lock();
        while !state.receiver_gone
            && state.held_bytes > 0
            && state.held_bytes + bytes > self.0.capacity_bytes
        {
            state = self.0.wait(state);
        }
        if state.receiver_gone {
            return false;
        }
        state.held_bytes += bytes;
        state.queue.push_back((item, bytes));
        self.0.changed.notify_all();
        if bytes > self.0.capacity_bytes {
            // Others may queue behind it then.
            while !state.receiver_gone && state.held_bytes > self.0.capacity_bytes {
                state = self.0.wait(state);
            }
        }
        true
    }
}

impl<T> Receiver<T> {
    /// Gives up the item received before, and waits for the next; `None` at the end.
    pub(crate) fn receive(&self) -> Option<T> {
        loop {
            match self.receive_within(Duration::MAX) {
                Received::Item(item) => return Some(item),
                Received::Nothing => {}
                Received::End => return None,
            }
        }
    }

    /// The same, but does not wait for longer than `limit`.
    pub(crate) fn receive_within(&self, limit: Duration) -> Received<T> {
        let began = Instant::now();
        let mut state = self.0.lock();
        state.held_bytes -= std::mem::take(&mut state.in_hand_bytes);
        self.0.changed.notify_all();
        loop {
            if let Some((item, bytes)) = state.queue.pop_front() {
                state.in_hand_bytes = bytes;
                return Received::Item(item);
            }
            if state.sender_gone {
                return Received::End;
            }
            let Some(left) = limit.checked_sub(began.elapsed()) else {
                return Received::Nothing;
            };
            state = self.0.wait_for(state, left);
        }
    }
}

/// What came within some time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<T> {
    /// An item.
    Item(T),
    /// Nothing yet.
    Nothing,
    /// The end: nothing will come.
    End,
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().sender_gone = true;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        state.queue.clear();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn items_come_in_order_and_the_end_is_seen() {
        let (sender, receiver) = channel(10);
        std::thread::scope(|scope| {
            scope.spawn(move || (0..1000).for_each(|n| assert!(sender.send(n, 3))));
            for n in 0..1000 {
                assert_eq!(receiver.receive(), Some(n));
            }
            assert_eq!(receiver.receive(), None);
        });
    }

    #[test]
    fn a_large_item_travels_alone() {
        let (sender, receiver) = channel(10);
        let sent = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let sent = &sent;
            scope.spawn(move || {
                for n in 0..3 {
                    assert!(sender.send(n, 100));
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
            for n in 0..3 {
                assert_eq!(receiver.receive(), Some(n));
                // Not even its own send has returned.
                assert_eq!(sent.load(Ordering::SeqCst), n);
            }
            assert_eq!(receiver.receive(), None);
        });
    }

    #[test]
    fn a_receiver_need_not_wait_for_ever() {
        let (sender, receiver) = channel(10);
        let soon = Duration::from_millis(1);
        assert_eq!(receiver.receive_within(soon), Received::Nothing);
        assert!(sender.send(1, 1));
        assert_eq!(receiver.receive_within(soon), Received::Item(1));
        drop(sender);
        assert_eq!(receiver.receive_within(soon), Received::End);
    }

    #[test]
    fn a_sender_without_receiver_is_told() {
        let (sender, receiver) = channel(1);
        drop(receiver);
        assert!(!sender.send(1, 1));
    }
}
