//! Which keys change: CLIENT TRACKING in broadcast mode, on a connection of its own that is read all
//! the time. The server sends names without a database.
//!
//! [`listener`] decides what to do next; here it is done: by a thread of its own, or step by step
//! where everything runs in one thread.

mod listener;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::listener::{Action, Event, Listener};
use super::identity::run_id;
use super::reply::{Reply, cmd};
use super::resp::Item;
use super::{Conn, ServerError};
use crate::endpoint::ConnectOptions;
use crate::host::HashSet;
use crate::host::{self, Beside, Step, TaskId};

/// How often a wish to stop is looked for while nothing is heard.
const HEED_EVERY: Duration = Duration::from_millis(250);

/// After a wish to stop, an answer is still waited for this long.
const GRACE: Duration = Duration::from_secs(1);

/// What [`Heard::means_rescan`] says of FLUSHALL and FLUSHDB.
pub const FLUSHED: &str = "a database was flushed";

/// What was heard since it was last taken.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// Names of keys that changed, in any database.
    pub names: HashSet<Vec<u8>>,
    /// When the first of them was heard.
    pub since: Option<Instant>,
    /// A database was flushed or loaded anew: any key may have changed.
    pub flushed: bool,
    /// More names than can be kept: any key may have changed.
    pub overflowed: bool,
    /// The connection is gone, and with it whatever was not heard yet.
    pub lost: Option<String>,
}

impl Heard {
    /// Why a new scan is needed, if it is.
    pub fn means_rescan(&self) -> Option<&str> {
        if let Some(reason) = &self.lost {
            return Some(reason);
        }
        match (self.flushed, self.overflowed) {
            (true, _) => Some(FLUSHED),
            (false, true) => Some("more keys changed than can be remembered"),
            (false, false) => None,
        }
    }
}

/// The listener, shared by the reader of the connection and the tracker's owner.
struct Shared {
    listener: Mutex<Listener>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Listener> {
        self.listener
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    fn on(&self, event: Event) {
        self.lock().on(event, host::now());
        self.changed.notify_all();
    }

    fn wait<'a>(
        &self,
        listener: MutexGuard<'a, Listener>,
        time: Duration,
    ) -> MutexGuard<'a, Listener> {
        let waited = self.changed.wait_timeout(listener, time);
        waited.unwrap_or_else(|error| error.into_inner()).0
    }
}

/// Listens to one server.
pub struct Tracker {
    shared: Arc<Shared>,
    run_id: Option<String>,
    /// Ends the waiting for a server that says nothing.
    ended: Arc<AtomicBool>,
    /// The user's wish to stop.
    stop: Option<Arc<AtomicBool>>,
    reader: Reader,
}

/// Who reads the connection.
enum Reader {
    /// A thread of its own.
    Thread(Option<JoinHandle<()>>),
    /// A simulated world, step by step; a barrier takes the first step itself.
    Task(TaskId, Arc<Mutex<Line>>),
}

impl Tracker {
    /// Begins to listen; `stop` ends the wait for the server. `wanted` says which names to keep. The
    /// inner `Err` says what the server refuses or answers oddly.
    ///
    /// # Errors
    /// The connection.
    pub fn start(
        options: &ConnectOptions,
        stop: Option<&Arc<AtomicBool>>,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Result<Self, ServerError>, ServerError> {
        let mut conn = Conn::open(options)?;
        conn.doing("listening for changes");
        if let Some(stop) = stop {
            conn.heed(options, stop);
        }
        let run_id = run_id(&mut conn)?;
        if let Err(refusal) = begin(&mut conn)? {
            return Ok(Err(refusal));
        }
        let ended = Arc::new(AtomicBool::new(false));
        conn.heed(options, &ended);
        let address = conn.address().to_owned();
        let listener = Listener::new(address, conn.retry_for(), host::now());
        let shared = Arc::new(Shared {
            listener: Mutex::new(listener),
            changed: Condvar::new(),
        });
        let line = Line {
            conn,
            wanted: Box::new(wanted),
            shared: Arc::clone(&shared),
            limit: options.timeout,
            ended: Arc::clone(&ended),
            pinged: host::now(),
        };
        Ok(Ok(Self {
            shared,
            run_id,
            ended,
            stop: None,
            reader: Reader::start(line),
        }))
    }

    /// Whether it listens to the server of this run id, as far as both are known. One address may
    /// lead to several servers.
    pub fn listens_to(&self, run_id: Option<&str>) -> bool {
        match (self.run_id.as_deref(), run_id) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    }

    /// From now on a wish to stop ends [`Self::barrier`], as if the connection were lost.
    pub fn heed(&mut self, stop: &Arc<AtomicBool>) {
        self.stop = Some(Arc::clone(stop));
    }

    /// Waits until everything that was written before this call has been heard, or the connection is
    /// lost.
    pub fn barrier(&self) {
        let mut listener = self.shared.lock();
        let mine = listener.ask_barrier();
        self.shared.changed.notify_all();
        let Reader::Task(_, line) = &self.reader else {
            while !listener.is_decided(mine) {
                listener = self.shared.wait(listener, HEED_EVERY);
                self.heed_stop();
            }
            return;
        };
        drop(listener);
        lock(line).advance();
        while !self.shared.lock().is_decided(mine) {
            let Some(host) = host::simulated() else {
                return self.shared.on(Event::Closed);
            };
            host.drive(Some(HEED_EVERY), &|| self.shared.lock().is_decided(mine));
            self.heed_stop();
        }
    }

    fn heed_stop(&self) {
        if self.stop.as_ref().is_some_and(|stop| stop.load(Relaxed)) {
            self.ended.store(true, Relaxed);
        }
    }

    /// What was heard since the last call.
    pub fn take(&self) -> Heard {
        self.shared.lock().take()
    }

    /// Whether the connection is lost.
    pub fn is_lost(&self) -> bool {
        self.shared.lock().heard().lost.is_some()
    }

    /// How many names wait to be taken, and when the first of them was heard.
    pub fn lag(&self) -> (usize, Option<Instant>) {
        let listener = self.shared.lock();
        (listener.heard().names.len(), listener.heard().since)
    }

    /// How many names wait to be taken, and whether a scan is needed.
    pub fn waiting(&self) -> (usize, bool) {
        let listener = self.shared.lock();
        let heard = listener.heard();
        (heard.names.len(), heard.means_rescan().is_some())
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        self.shared.on(Event::Closed);
        match &mut self.reader {
            Reader::Thread(thread) => {
                // It ends at its next turn; a panic of it shows in `Heard::lost`.
                let _ = thread.take().map(JoinHandle::join);
            }
            Reader::Task(task, _) => {
                if let Some(host) = host::simulated() {
                    host.end(*task);
                }
            }
        }
    }
}

impl Reader {
    fn start(mut line: Line) -> Self {
        match host::simulated() {
            None => Self::Thread(Some(std::thread::spawn(move || line.listen()))),
            Some(host) => {
                let line = Arc::new(Mutex::new(line));
                let task = host.beside(Box::new(Task(Arc::clone(&line))));
                Self::Task(task, line)
            }
        }
    }
}

/// See [`Reader::Task`].
struct Task(Arc<Mutex<Line>>);

impl Beside for Task {
    fn step(&mut self) -> Step {
        match self.0.try_lock() {
            Ok(mut line) => line.advance(),
            // Whoever waits for a barrier is reading it, and lets the world go on meanwhile.
            Err(_) => Step::Wait {
                link: None,
                until: Some(host::now() + Duration::from_millis(1)),
            },
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(|error| error.into_inner())
}

/// Turns the connection into one that is told of every change. The inner `Err` says what the server
/// refuses, or answers oddly.
fn begin(conn: &mut Conn) -> Result<Result<(), ServerError>, ServerError> {
    match conn.ask(cmd("HELLO").arg(3))? {
        Ok(Reply::Map(_)) => {}
        other => return Ok(Err(conn.needed("HELLO 3", other))),
    }
    // From here on this is RESP3, which a new connection would not be.
    conn.pin();
    // So that a full server does not drop this connection first, where it knows the command. Asked
    // before tracking begins: a push would be taken for the answer, and every later answer for that
    // of the question before.
    let _ = conn.ask(cmd("CLIENT").arg("NO-EVICT").arg("ON"))?;
    let mut tracking = cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    Ok(match conn.ask(&tracking)? {
        Ok(Reply::Okay) => Ok(()),
        other => Err(conn.needed("CLIENT TRACKING", other)),
    })
}

/// Which names to keep.
type Wanted = Box<dyn Fn(&[u8]) -> bool + Send>;

/// The connection that is listened to.
struct Line {
    conn: Conn,
    wanted: Wanted,
    shared: Arc<Shared>,
    /// How long an answer may take.
    limit: Duration,
    ended: Arc<AtomicBool>,
    /// When the last PING was sent.
    pinged: Instant,
}

impl Line {
    /// Listens until it is over, as a thread of its own.
    fn listen(&mut self) {
        loop {
            let mut listener = self.shared.lock();
            let now = host::now();
            match listener.next(now) {
                Action::Rest(until) => {
                    drop(self.shared.wait(listener, until.duration_since(now)));
                }
                Action::End => return,
                action @ (Action::Ping | Action::Read) => {
                    drop(listener);
                    self.act(action);
                }
            }
        }
    }

    /// Goes on as far as it gets without waiting.
    fn advance(&mut self) -> Step {
        loop {
            let now = host::now();
            let action = self.shared.lock().next(now);
            let until = match action {
                Action::End => return Step::End,
                Action::Ping => {
                    self.act(action);
                    continue;
                }
                Action::Rest(_) | Action::Read if self.conn.has_answer() => {
                    self.act(Action::Read);
                    continue;
                }
                Action::Rest(until) => until,
                Action::Read => match self.why_no_longer(now) {
                    None => now + HEED_EVERY,
                    Some(reason) => {
                        let lost = self.conn.spoilt(reason).to_string();
                        self.shared.on(Event::Lost(lost));
                        return Step::End;
                    }
                },
            };
            return Step::Wait {
                link: self.conn.link(),
                until: Some(until),
            };
        }
    }

    /// Why an answer is no longer waited for. (A thread gets this from its connection.)
    fn why_no_longer(&self, now: Instant) -> Option<&'static str> {
        let waited = now.saturating_duration_since(self.pinged);
        if waited >= self.limit && !self.limit.is_zero() {
            return Some("no answer in time");
        }
        (waited >= GRACE && self.ended.load(Relaxed)).then_some("interrupted")
    }

    fn act(&mut self, action: Action) {
        let done = match action {
            Action::Ping => self.ping(),
            _ => self.read(),
        };
        if let Err(error) = done {
            self.shared.on(Event::Lost(error.to_string()));
        }
    }

    fn ping(&mut self) -> Result<(), ServerError> {
        self.pinged = host::now();
        self.conn.queue(&[b"PING"])?;
        self.conn.flush()
    }

    /// One message: an answer, or what is pushed before it.
    fn read(&mut self) -> Result<(), ServerError> {
        let event = match self.conn.item()? {
            Item::Push(count) => return self.read_push(count),
            Item::Simple(_) | Item::Bulk(_) => Event::Answered,
            Item::Error(text) => Event::Refused(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(self.conn.confused("PING was answered by something else")),
        };
        self.shared.on(event);
        Ok(())
    }

    fn read_push(&mut self, count: usize) -> Result<(), ServerError> {
        let is_invalidation =
            matches!(self.conn.item()?, Item::Bulk(kind) if kind == b"invalidate");
        if !is_invalidation || count != 2 {
            for _ in 1..count {
                self.conn.reply()?.ok();
            }
            return Ok(());
        }
        let names = match self.conn.item()? {
            Item::Nil => {
                self.shared.on(Event::Flushed);
                return Ok(());
            }
            Item::Array(names) => names,
            _ => return Err(self.conn.confused("an invalidation without names")),
        };
        for _ in 0..names {
            let Item::Bulk(name) = self.conn.item()? else {
                return Err(self
                    .conn
                    .confused("an invalidation whose name is not a string"));
            };
            if (self.wanted)(&name) {
                self.shared.lock().on(Event::Named(name), host::now());
            }
        }
        Ok(())
    }
}

impl Drop for Line {
    /// Nobody may wait for a barrier for ever, whatever happens here.
    fn drop(&mut self) {
        self.shared.on(Event::Closed);
    }
}
