//! How long a server takes to answer somebody else: asked all the time, on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Pace;
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::observer::Observer;
use crate::server::{Conn, ServerError};
use crate::units::duration_text;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(25);

/// Between two attempts to connect again.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// Questions before the run begins, to know how long an answer takes without us.
const QUIET_QUESTIONS: u32 = 5;

/// Asks one server until it is dropped.
pub struct LatencyProbe {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LatencyProbe {
    /// Begins to ask the server, the `side` of the run (`source`), for `pace`'s latency target;
    /// `None` without one.
    ///
    /// # Errors
    /// The connection.
    pub fn start(
        side: &str,
        connect: &ConnectOptions,
        pace: &Arc<Pace>,
        observer: &Observer,
    ) -> Result<Option<Self>, ServerError> {
        let Some(asked) = pace.limits().latency else {
            return Ok(None);
        };
        let mut conn = Conn::open(connect)?;
        let mut quiet = Duration::MAX;
        for _ in 0..QUIET_QUESTIONS {
            quiet = quiet.min(question(&mut conn)?);
        }
        let mut target = asked;
        if quiet > asked {
            target = asked + quiet;
            observer.notice(&format!(
                "the {side} takes {} to answer even when this run asks for nothing, more than \
                 --latency-target; the target is now {}",
                duration_text(quiet),
                duration_text(target)
            ));
        }
        let ended = Arc::new(AtomicBool::new(false));
        let thread = {
            let (ended, pace, connect) = (Arc::clone(&ended), Arc::clone(pace), connect.clone());
            std::thread::spawn(move || ask(conn, &connect, &ended, &pace, target))
        };
        Ok(Some(Self {
            ended,
            thread: Some(thread),
        }))
    }
}

impl Drop for LatencyProbe {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A stalled server must not hold up the end: the thread ends by its own timeout.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn ask(conn: Conn, connect: &ConnectOptions, ended: &AtomicBool, pace: &Pace, target: Duration) {
    let mut conn = Some(conn);
    while !ended.load(Relaxed) {
        let answered = match &mut conn {
            Some(conn) => question(conn),
            None => Conn::open(connect).map(|opened| {
                conn = Some(opened);
                Duration::ZERO
            }),
        };
        match answered {
            Ok(took) => {
                pace.answered(took, target);
                std::thread::park_timeout(EVERY);
            }
            // Whether the run itself can go on is for others to say.
            Err(_) => {
                conn = None;
                std::thread::park_timeout(RECONNECT_EVERY);
            }
        }
    }
}

/// A refusal takes as long as an answer.
fn question(conn: &mut Conn) -> Result<Duration, ServerError> {
    let began = host::now();
    let _ = conn.try_query(&conn.greeting())?;
    Ok(host::elapsed(began))
}
