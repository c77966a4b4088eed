//! Decides, for one server whose changes are listened to, when to PING, what an answer proves, and
//! which names to keep. No I/O, no threads, no clock: events and the time come in, and
//! [`Listener::next`] says what to do.
//!
//! A barrier proves that everything written before it was heard. A push leaves the server after all
//! replies of the same turn of its event loop (`beforeSleep`, server.c), so one PING proves nothing
//! about writes before it; two, one after the other, do.

use std::time::{Duration, Instant};

use super::Heard;
use crate::server::conn::{asks_for_patience, refusal};
use crate::server::patience::{Patience, STEP};

/// Bytes of names that are kept; more means that everything has to be read again.
const MAX_NAME_BYTES: usize = 16 * 1024 * 1024;

/// What a name costs beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 48;

/// How often the connection is read when nobody waits for a barrier: the server keeps what is not
/// read.
const PING_EVERY: Duration = Duration::from_millis(20);

/// PINGs that prove a barrier.
const PINGS_OF_A_BARRIER: u8 = 2;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The PING was answered.
    Answered,
    /// An error reply stands where its answer would.
    Refused(String),
    /// A key of this name changed.
    Named(Vec<u8>),
    /// A database was flushed.
    Flushed,
    /// The connection is lost, or what came on it makes no sense.
    Lost(String),
    /// The tracker was dropped, or its reader ended.
    Closed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Send a PING.
    Ping,
    /// Read the next message of the server.
    Read,
    /// Nothing, until then, or until somebody asks for a barrier.
    Rest(Instant),
    /// It is over.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next PING is due then, or as soon as a barrier is asked for.
    Resting(Instant),
    /// A PING is due.
    Due(Round),
    /// A PING was sent.
    Asked(Round),
    /// The server cannot answer just now, and is asked again then.
    Busy(Round, Instant),
    /// Lost, or closed: `Heard::lost` says why.
    Over,
}

/// PINGs that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    /// The barrier that it proves, and all before that.
    proves: Option<u64>,
    /// How many PINGs are still to be answered.
    left: u8,
}

/// Listens to one server.
pub(super) struct Listener {
    /// The server's, for messages.
    address: String,
    heard: Heard,
    name_bytes: usize,
    barriers_asked: u64,
    barriers_proved: u64,
    patience: Patience,
    state: State,
}

impl Listener {
    /// `retry_for` is how long a server is asked again that cannot answer just now.
    pub(super) fn new(address: String, retry_for: Duration, now: Instant) -> Self {
        Self {
            address,
            heard: Heard::default(),
            name_bytes: 0,
            barriers_asked: 0,
            barriers_proved: 0,
            patience: Patience::new(retry_for),
            state: State::Resting(now + PING_EVERY),
        }
    }

    /// Asks for a proof that everything written before now has been heard. It is there when
    /// [`Self::is_decided`] says so of the number returned, unless the server is lost.
    pub(super) fn ask_barrier(&mut self) -> u64 {
        self.barriers_asked += 1;
        self.barriers_asked
    }

    /// Whether a barrier is proved, or never will be.
    pub(super) fn is_decided(&self, barrier: u64) -> bool {
        self.has_proved(barrier) || self.heard.lost.is_some()
    }

    fn has_proved(&self, barrier: u64) -> bool {
        self.barriers_proved >= barrier
    }

    /// What was heard and not taken yet.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// What was heard since the last call. A loss is told each time.
    pub(super) fn take(&mut self) -> Heard {
        self.name_bytes = 0;
        let lost = self.heard.lost.clone();
        let heard = std::mem::take(&mut self.heard);
        self.heard.lost = lost;
        heard
    }

    /// What to do. [`Action::Ping`] and [`Action::Read`] count as done, unless [`Event::Lost`]
    /// follows.
    pub(super) fn next(&mut self, now: Instant) -> Action {
        match self.state {
            State::Resting(until) if self.barriers_asked == self.barriers_proved && now < until => {
                Action::Rest(until)
            }
            State::Busy(_, until) if now < until => Action::Rest(until),
            State::Resting(_) => self.ping(self.round()),
            State::Due(round) | State::Busy(round, _) => self.ping(round),
            State::Asked(_) => Action::Read,
            State::Over => Action::End,
        }
    }

    /// The next round. A barrier that is asked for later needs a round of its own.
    fn round(&self) -> Round {
        match self.barriers_asked > self.barriers_proved {
            true => Round {
                proves: Some(self.barriers_asked),
                left: PINGS_OF_A_BARRIER,
            },
            false => Round {
                proves: None,
                left: 1,
            },
        }
    }

    fn ping(&mut self, round: Round) -> Action {
        self.state = State::Asked(round);
        Action::Ping
    }

    /// Something happened, now.
    pub(super) fn on(&mut self, event: Event, now: Instant) {
        if self.state == State::Over {
            return;
        }
        match event {
            Event::Answered => self.answered(now),
            Event::Refused(text) => self.refused(text, now),
            Event::Named(name) => self.named(name, now),
            Event::Flushed => self.heard.flushed = true,
            Event::Lost(reason) => self.end(reason),
            Event::Closed => self.end("nobody listens to the source any more".to_owned()),
        }
    }

    fn answered(&mut self, now: Instant) {
        let State::Asked(round) = self.state else {
            return self.end("an answer that was not asked for".to_owned());
        };
        self.patience.progress();
        self.state = match round {
            Round { left: 2.., .. } => State::Due(Round {
                left: round.left - 1,
                ..round
            }),
            Round { proves, .. } => {
                self.barriers_proved = proves.unwrap_or(self.barriers_proved);
                State::Resting(now + PING_EVERY)
            }
        };
    }

    fn refused(&mut self, text: String, now: Instant) {
        let State::Asked(round) = self.state else {
            return self.end("an answer that was not asked for".to_owned());
        };
        if text.starts_with("LOADING ") {
            // The server loads a file: from here on more changes than it pushes.
            let reason = refusal(&self.address, "PING", text).to_string();
            return self.end(reason);
        }
        if !asks_for_patience(&text) {
            // Any other error (MISCONF, NOPERM) is an answer, and proves as much.
            return self.answered(now);
        }
        // While a script blocks the server, its answers overtake earlier pushes: such an answer
        // proves nothing.
        if !self.patience.lasts_at(now) {
            let text = format!("{text} ({})", self.patience.told_at(now));
            let reason = refusal(&self.address, "PING", text).to_string();
            return self.end(reason);
        }
        self.state = State::Busy(round, now + STEP);
    }

    fn named(&mut self, name: Vec<u8>, now: Instant) {
        let name_bytes = name.len() + NAME_OVERHEAD_BYTES;
        if self.heard.overflowed || !self.heard.names.insert(name) {
            return;
        }
        self.heard.since.get_or_insert(now);
        self.name_bytes += name_bytes;
        if self.name_bytes > MAX_NAME_BYTES {
            self.heard.overflowed = true;
            self.heard.names = Default::default();
        }
    }

    fn end(&mut self, reason: String) {
        self.heard.lost = Some(reason);
        self.state = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY_FOR: Duration = Duration::from_secs(1);

    fn listener(now: Instant) -> Listener {
        Listener::new("redis://h:1".to_owned(), RETRY_FOR, now)
    }

    /// Every state, by the shortest way to it, and its time.
    fn in_each_state(now: Instant) -> Vec<(&'static str, Listener)> {
        let busy = || Event::Refused("BUSY a script".to_owned());
        let resting = listener(now);
        let mut idle = listener(now);
        assert_eq!(idle.next(now + PING_EVERY), Action::Ping);
        let mut first = listener(now);
        first.ask_barrier();
        assert_eq!(first.next(now), Action::Ping);
        let mut due = listener(now);
        due.ask_barrier();
        due.next(now);
        due.on(Event::Answered, now);
        let mut second = listener(now);
        second.ask_barrier();
        second.next(now);
        second.on(Event::Answered, now);
        assert_eq!(second.next(now), Action::Ping);
        let mut busy_of_barrier = listener(now);
        busy_of_barrier.ask_barrier();
        busy_of_barrier.next(now);
        busy_of_barrier.on(busy(), now);
        let mut over = listener(now);
        over.on(Event::Lost("gone".to_owned()), now);
        vec![
            ("resting", resting),
            ("idle ping sent", idle),
            ("first ping sent", first),
            ("second ping due", due),
            ("second ping sent", second),
            ("busy", busy_of_barrier),
            ("over", over),
        ]
    }

    fn name(listener: &Listener) -> &'static str {
        match listener.state {
            State::Resting(_) => "resting",
            State::Due(Round { left: 2, .. }) => "first ping due",
            State::Due(_) => "second ping due",
            State::Asked(Round { proves: None, .. }) => "idle ping sent",
            State::Asked(Round { left: 2, .. }) => "first ping sent",
            State::Asked(_) => "second ping sent",
            State::Busy(..) => "busy",
            State::Over => "over",
        }
    }

    /// Where each event leads from each state: the whole table.
    #[test]
    fn every_event_in_every_state() {
        let now = crate::host::now();
        let events = [
            ("answer", Event::Answered),
            ("busy", Event::Refused("BUSY a script".to_owned())),
            ("loading", Event::Refused("LOADING it".to_owned())),
            ("refusal", Event::Refused("NOPERM no".to_owned())),
            ("name", Event::Named(b"k".to_vec())),
            ("flush", Event::Flushed),
            ("loss", Event::Lost("reset".to_owned())),
            ("close", Event::Closed),
        ];
        let mut seen = 0;
        for (state, _) in in_each_state(now) {
            for (what, event) in &events {
                let (_, mut listener) = in_each_state(now)
                    .into_iter()
                    .find(|(name, _)| *name == state)
                    .unwrap();
                assert_eq!(name(&listener), state);
                listener.on(event.clone(), now);
                let expected = match (state, *what) {
                    ("over", _) | (_, "loss" | "close" | "loading") => "over",
                    (_, "name" | "flush") => state,
                    ("idle ping sent" | "second ping sent", "answer" | "refusal") => "resting",
                    ("first ping sent", "answer" | "refusal") => "second ping due",
                    ("idle ping sent" | "first ping sent" | "second ping sent", "busy") => "busy",
                    // Nothing was asked: what the server says is out of step with what it is asked.
                    (_, "answer" | "refusal" | "busy") => "over",
                    other => panic!("{other:?} is not in the table"),
                };
                assert_eq!(name(&listener), expected, "{state}, {what}");
                assert_eq!(listener.heard.lost.is_some(), expected == "over");
                // Only the second answer proves the barrier.
                let is_proof = state == "second ping sent" && matches!(*what, "answer" | "refusal");
                assert_eq!(listener.has_proved(1), is_proof, "{state}, {what}");
                seen += 1;
            }
        }
        assert_eq!(seen, 7 * 8);
    }

    /// What is done in each state, at once and when its time has come.
    #[test]
    fn every_state_has_something_to_be_done() {
        let now = crate::host::now();
        for (state, mut listener) in in_each_state(now) {
            let (at_once, later) = match state {
                "resting" => (Action::Rest(now + PING_EVERY), Action::Ping),
                "second ping due" => (Action::Ping, Action::Read),
                "idle ping sent" | "first ping sent" | "second ping sent" => {
                    (Action::Read, Action::Read)
                }
                "busy" => (Action::Rest(now + STEP), Action::Ping),
                "over" => (Action::End, Action::End),
                other => panic!("{other} is not in the table"),
            };
            assert_eq!(listener.next(now), at_once, "{state}");
            assert_eq!(listener.next(now + STEP), later, "{state}");
        }
    }

    #[test]
    fn a_barrier_that_is_asked_for_on_the_way_needs_pings_of_its_own() {
        let now = crate::host::now();
        let mut listener = listener(now);
        listener.next(now + PING_EVERY);
        let one = listener.ask_barrier();
        listener.on(Event::Answered, now);
        // The PING that was sent before proves nothing.
        assert!(!listener.has_proved(one));
        assert_eq!(listener.next(now), Action::Ping, "at once");
        let two = listener.ask_barrier();
        listener.on(Event::Answered, now);
        assert_eq!(listener.next(now), Action::Ping);
        listener.on(Event::Answered, now);
        assert!(listener.has_proved(one) && !listener.has_proved(two));
        for _ in 0..2 {
            assert_eq!(listener.next(now), Action::Ping);
            listener.on(Event::Answered, now);
        }
        assert!(listener.has_proved(two));
        assert_eq!(listener.next(now), Action::Rest(now + PING_EVERY));
    }

    #[test]
    fn a_busy_server_is_asked_again_until_patience_ends() {
        let now = crate::host::now();
        let busy = || Event::Refused("BUSY a script".to_owned());
        let mut listener = listener(now);
        listener.ask_barrier();
        listener.next(now);
        listener.on(busy(), now);
        // A barrier does not hurry a server that is busy.
        listener.ask_barrier();
        assert_eq!(listener.next(now), Action::Rest(now + STEP));
        let later = now + RETRY_FOR / 2;
        listener.next(later);
        listener.on(busy(), later);
        let later = now + RETRY_FOR;
        listener.next(later);
        listener.on(busy(), later);
        let lost = listener.heard.lost.as_deref().unwrap();
        assert!(lost.contains("BUSY a script (retried for 1s"), "{lost}");

        // An answer in between begins the wait anew.
        let mut listener = self::listener(now);
        listener.ask_barrier();
        for at in [now, now + RETRY_FOR / 2] {
            listener.next(at);
            listener.on(busy(), at);
        }
        listener.next(later);
        listener.on(Event::Answered, later);
        listener.next(later);
        listener.on(busy(), later);
        assert_eq!(name(&listener), "busy");
        assert!(!listener.has_proved(1));
    }

    #[test]
    fn names_are_kept_until_they_are_too_many() {
        let now = crate::host::now();
        let mut listener = listener(now);
        listener.on(Event::Named(b"a".to_vec()), now);
        listener.on(Event::Named(b"b".to_vec()), now + STEP);
        listener.on(Event::Named(b"a".to_vec()), now + STEP);
        let heard = listener.take();
        assert_eq!((heard.names.len(), heard.since), (2, Some(now)));
        assert_eq!(heard.means_rescan(), None);
        assert_eq!(listener.take().names.len(), 0);

        listener.on(Event::Flushed, now);
        assert_eq!(listener.take().means_rescan(), Some(super::super::FLUSHED));
        assert_eq!(listener.take().means_rescan(), None);

        let long = |number: usize| {
            let mut name = vec![0; MAX_NAME_BYTES / 4];
            name[..8].copy_from_slice(&number.to_be_bytes());
            Event::Named(name)
        };
        for number in 0..3 {
            listener.on(long(number), now);
        }
        assert!(!listener.heard().overflowed);
        listener.on(long(3), now);
        assert!(listener.heard().overflowed && listener.heard().names.is_empty());
        listener.on(long(4), now);
        let heard = listener.take();
        assert!(heard.names.is_empty() && heard.means_rescan().is_some());
        listener.on(long(5), now);
        assert_eq!(listener.take().names.len(), 1);
    }

    #[test]
    fn the_first_loss_is_told_each_time() {
        let now = crate::host::now();
        let mut listener = listener(now);
        listener.on(Event::Lost("reset".to_owned()), now);
        listener.on(Event::Closed, now);
        listener.on(Event::Named(b"k".to_vec()), now);
        for _ in 0..2 {
            let heard = listener.take();
            assert_eq!(heard.means_rescan(), Some("reset"));
            assert_eq!(heard.names.len(), 0);
        }
        assert!(!listener.has_proved(listener.barriers_asked + 1));
    }
}
