//! Which keys change: CLIENT TRACKING in broadcast mode, on a connection of its own.
//!
//! A thread reads all the time, because the server keeps what nobody reads. What it hears are
//! names without a database. A push leaves the server after all replies of the same turn of its
//! event loop (`beforeSleep`, server.c), so one PING proves nothing about writes before it; two, one
//! after the other, do.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::conn::asks_for_patience;
use super::identity::run_id;
use super::patience::{Patience, STEP};
use super::resp::Item;
use super::{Conn, ServerError};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::server::reply::{Reply, cmd};

/// Bytes of names that are kept; more means that everything has to be read again.
const MAX_NAME_BYTES: usize = 16 * 1024 * 1024;

/// What a name costs beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 48;

/// How often the thread listens when nobody waits for it.
const LISTEN_EVERY: Duration = Duration::from_millis(20);

/// How often a wish to stop is looked for while nothing is heard.
const HEED_EVERY: Duration = Duration::from_millis(250);

/// What [`Heard::means_rescan`] says of FLUSHALL and FLUSHDB.
pub const FLUSHED: &str = "a database was flushed";

/// What was heard since it was last taken.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// Names of keys that changed, in whatever database.
    pub names: HashSet<Vec<u8>>,
    /// When the first of them was heard.
    pub since: Option<Instant>,
    /// A database was flushed, or everything was loaded anew: any key may have changed.
    pub flushed: bool,
    /// More names than can be kept: any key may have changed.
    pub overflowed: bool,
    /// The connection is gone, and with it whatever was not heard yet.
    pub lost: Option<String>,
}

impl Heard {
    /// Whether only a new scan can help.
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

#[derive(Default)]
struct State {
    heard: Heard,
    name_bytes: usize,
    barriers_asked: u64,
    barriers_done: u64,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
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
    thread: Option<JoinHandle<()>>,
}

impl Tracker {
    /// Begins to listen, unless `stop` ends the waiting for it; `wanted` says which names are of
    /// interest. The inner `Err` says what the server refuses, or answers oddly.
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
        match conn.ask(cmd("HELLO").arg(3))? {
            Ok(Reply::Map(_)) => {}
            other => return Ok(Err(conn.needed("HELLO 3", other))),
        }
        // In RESP3 from here on, which a new connection would not be.
        conn.settle();
        // Where it is known: a full server should not drop this connection first. Before tracking
        // begins: what is pushed would be taken for its answer, and every later answer for that of
        // the question before.
        let _ = conn.ask(cmd("CLIENT").arg("NO-EVICT").arg("ON"))?;
        let mut tracking = cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST");
        match conn.ask(&tracking)? {
            Ok(Reply::Okay) => {}
            other => return Ok(Err(conn.needed("CLIENT TRACKING", other))),
        }
        let ended = Arc::new(AtomicBool::new(false));
        conn.heed(options, &ended);
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                // Whoever waits for a barrier must not wait for ever, whatever happens here.
                let _end = End(&shared);
                listen(&mut conn, &shared, &wanted);
            })
        };
        Ok(Ok(Self {
            shared,
            run_id,
            ended,
            stop: None,
            thread: Some(thread),
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

    /// From now on a wish to stop ends the waiting of [`Self::barrier`]: it is as if the connection
    /// were lost then.
    pub fn heed(&mut self, stop: &Arc<AtomicBool>) {
        self.stop = Some(Arc::clone(stop));
    }

    /// Waits until everything that was written before this call has been heard.
    pub fn barrier(&self) {
        let mut state = self.shared.lock();
        state.barriers_asked += 1;
        let mine = state.barriers_asked;
        self.shared.changed.notify_all();
        while state.barriers_done < mine && state.heard.lost.is_none() {
            state = self
                .shared
                .changed
                .wait_timeout(state, HEED_EVERY)
                .unwrap_or_else(|error| error.into_inner())
                .0;
            let stops = self.stop.as_ref().is_some_and(|stop| stop.load(Relaxed));
            if stops {
                self.ended.store(true, Relaxed);
            }
        }
    }

    /// What was heard since the last call.
    pub fn take(&self) -> Heard {
        let mut state = self.shared.lock();
        state.name_bytes = 0;
        let lost = state.heard.lost.clone();
        let heard = std::mem::take(&mut state.heard);
        state.heard.lost = lost;
        heard
    }

    /// Whether nothing is heard any more.
    pub fn is_lost(&self) -> bool {
        self.shared.lock().heard.lost.is_some()
    }

    /// How many names wait to be taken, and when the first of them was heard.
    pub fn lag(&self) -> (usize, Option<Instant>) {
        let state = self.shared.lock();
        (state.heard.names.len(), state.heard.since)
    }

    /// How many names wait to be taken, and whether a scan is needed.
    pub fn waiting(&self) -> (usize, bool) {
        let state = self.shared.lock();
        (
            state.heard.names.len(),
            state.heard.means_rescan().is_some(),
        )
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.ended.store(true, Relaxed);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It ends at its next turn; a panic of it has been told by `lost`.
            let _ = thread.join();
        }
    }
}

/// Says that nobody listens any more.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state
            .heard
            .lost
            .get_or_insert_with(|| "nobody listens to the source any more".to_owned());
        drop(state);
        self.0.changed.notify_all();
    }
}

fn listen(conn: &mut Conn, shared: &Shared, wanted: &dyn Fn(&[u8]) -> bool) {
    loop {
        let asked = {
            let mut state = shared.lock();
            if state.barriers_asked == state.barriers_done && !state.closing {
                state = shared
                    .changed
                    .wait_timeout(state, LISTEN_EVERY)
                    .unwrap_or_else(|error| error.into_inner())
                    .0;
            }
            if state.closing {
                return;
            }
            state.barriers_asked
        };
        let pings = if asked > shared.lock().barriers_done {
            2
        } else {
            1
        };
        for _ in 0..pings {
            if let Err(error) = ping(conn, shared, wanted) {
                shared.lock().heard.lost = Some(error.to_string());
                shared.changed.notify_all();
                return;
            }
        }
        if pings == 2 {
            shared.lock().barriers_done = asked;
            shared.changed.notify_all();
        }
    }
}

/// One round trip; everything pushed before its end is heard.
fn ping(
    conn: &mut Conn,
    shared: &Shared,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<(), ServerError> {
    let mut patience = Patience::new(conn.retry_for());
    conn.queue(&[b"PING"])?;
    conn.flush()?;
    loop {
        match conn.item()? {
            Item::Push(count) => push(conn, shared, wanted, count)?,
            Item::Simple(_) | Item::Bulk(_) => return Ok(()),
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if text.starts_with("LOADING ") {
                    return Err(conn.refusal("PING", text));
                }
                if !asks_for_patience(&text) {
                    // An error stands where the answer would (MISCONF, NOPERM): as good for this.
                    return Ok(());
                }
                // While a script holds the server up, answers leave it before what was pushed
                // earlier: such an answer proves nothing.
                if !patience.lasts() {
                    let text = format!("{text} ({})", patience.told());
                    return Err(conn.refusal("PING", text));
                }
                host::sleep(STEP);
                if shared.lock().closing {
                    return Ok(());
                }
                conn.queue(&[b"PING"])?;
                conn.flush()?;
            }
            _ => return Err(conn.confused("PING was answered by something else")),
        }
    }
}

fn push(
    conn: &mut Conn,
    shared: &Shared,
    wanted: &dyn Fn(&[u8]) -> bool,
    count: usize,
) -> Result<(), ServerError> {
    let is_invalidation = matches!(conn.item()?, Item::Bulk(kind) if kind == b"invalidate");
    if !is_invalidation || count != 2 {
        for _ in 1..count {
            conn.reply()?.ok();
        }
        return Ok(());
    }
    let names = match conn.item()? {
        Item::Nil => {
            shared.lock().heard.flushed = true;
            return Ok(());
        }
        Item::Array(names) => names,
        _ => return Err(conn.confused("an invalidation without names")),
    };
    for _ in 0..names {
        let Item::Bulk(name) = conn.item()? else {
            return Err(conn.confused("an invalidated name that is none"));
        };
        if !wanted(&name) {
            continue;
        }
        let mut state = shared.lock();
        let name_bytes = name.len() + NAME_OVERHEAD_BYTES;
        if !state.heard.overflowed && state.heard.names.insert(name) {
            state.heard.since.get_or_insert_with(host::now);
            state.name_bytes += name_bytes;
            if state.name_bytes > MAX_NAME_BYTES {
                state.heard.overflowed = true;
                state.heard.names = HashSet::new();
            }
        }
    }
    Ok(())
}
