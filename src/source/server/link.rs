//! How the connection to the server is kept: how long it is waited for, and how it is made again.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::host;
use crate::observer::Observer;
use crate::server::patience::{Patience, STEP};
use crate::server::reconnect::Retries;
use crate::server::{Conn, ServerError, is_lost};
use crate::stop::Stop;

/// Changes that were heard for so long are heard: the next loss of what listens is a new one.
const STEADY: Duration = Duration::from_secs(10);

/// How a lost connection is made again.
struct Again {
    connect: ConnectOptions,
    retries: Retries,
    listening: Listening,
    stop: Stop,
    /// Scans that were begun anew: a server that dies of what it is asked would be asked for ever.
    begun_anew: u32,
}

/// How often changes were listened to anew: each time all is read again, so that a server on which
/// listening never lasts would be read for ever.
struct Listening {
    retries: Retries,
    since: Instant,
}

/// What keeps the reading going.
pub(super) struct Link {
    /// `None` where the first loss is the last.
    again: Option<Again>,
    /// How long the server has asked for patience.
    patience: Patience,
    /// The connection was lost; what was read before is handed on first.
    lost: Option<anyhow::Error>,
}

impl Link {
    /// As patient as `conn` is.
    pub fn of(conn: &Conn) -> Self {
        Self {
            again: None,
            patience: Patience::new(conn.retry_for()),
            lost: None,
        }
    }

    /// From now on a lost connection is made again as `connect` says, until `stop`.
    pub fn endure(&mut self, connect: ConnectOptions, stop: Stop) {
        self.again = Some(Again {
            retries: Retries::new(&connect),
            listening: Listening {
                retries: Retries::new(&connect),
                since: host::now(),
            },
            connect,
            stop,
            begun_anew: 0,
        });
    }

    /// The user's wish to stop, where it is heard.
    pub fn stop(&self) -> Option<&Stop> {
        self.again.as_ref().map(|again| &again.stop)
    }

    pub fn is_stopped(&self) -> bool {
        self.stop().is_some_and(Stop::is_set)
    }

    /// Whether connecting again is wanted and may help.
    pub fn may_resume(&self, error: &anyhow::Error) -> bool {
        self.again.is_some() && is_lost(error)
    }

    /// Something came as a whole: the next loss is a new one.
    pub fn got_on(&mut self, is_patient: bool) {
        if let Some(again) = &mut self.again {
            again.retries.succeeded();
        }
        if !is_patient {
            self.patience.progress();
        }
    }

    /// The next try is done in another way, and does not count.
    pub fn tries_otherwise(&mut self) {
        if let Some(again) = &mut self.again {
            again.retries.once_more();
        }
    }

    /// Waits a moment for a server that asks for patience in these words.
    ///
    /// # Errors
    /// The server's words after too long, and [`Interrupted`].
    pub fn wait(&mut self, text: &str, conn: &Conn, observer: &Observer) -> Result<()> {
        if !self.patience.is_tried() {
            observer.notice(&format!(
                "the source asks for patience ({text}); waiting for it"
            ));
        }
        if !self.patience.lasts() {
            let text = format!("{text} ({})", self.patience.told());
            return Err(conn.refusal("reading", text).into());
        }
        if self.is_stopped() {
            return Err(Interrupted.into());
        }
        host::sleep(STEP);
        Ok(())
    }

    /// The connection was lost; that comes after what was read before it.
    pub fn keep_error(&mut self, error: anyhow::Error) {
        self.lost = Some(error);
    }

    pub fn take_error(&mut self) -> Option<anyhow::Error> {
        self.lost.take()
    }

    /// Connects again after `lost`, which is returned where that is not wanted.
    ///
    /// # Errors
    /// [`Interrupted`], and what the last attempt said.
    pub fn connect(&mut self, lost: ServerError) -> Result<Conn> {
        let Some(again) = &mut self.again else {
            return Err(lost.into());
        };
        let stop = || again.stop.is_set();
        match again.retries.connect(&again.connect, lost, &stop) {
            Ok(mut conn) => {
                conn.heed(&again.connect, &again.stop.flag());
                Ok(conn)
            }
            Err(_) if stop() => Err(Interrupted.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until somebody is there again who could be reached after `lost`; that connection itself
    /// is not needed.
    ///
    /// # Errors
    /// `lost` where that is not wanted, and what the last attempt said.
    pub fn wait_for_server(&mut self, lost: ServerError) -> Result<(), ServerError> {
        let Some(again) = &mut self.again else {
            return Err(lost);
        };
        let stop = || again.stop.is_set();
        again.retries.connect(&again.connect, lost, &stop)?;
        Ok(())
    }

    /// What listened is lost: waits a moment before changes are listened to again, longer each time;
    /// `false` where they are not to be any more.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn wait_to_listen_again(&mut self) -> Result<bool, Interrupted> {
        let Some(again) = &mut self.again else {
            return Ok(false);
        };
        let listening = &mut again.listening;
        let Some(wait) = listening.retries.next(host::random()) else {
            return Ok(false);
        };
        let goes_on = host::wait(wait, &|| again.stop.is_set());
        listening.since = host::now();
        match goes_on {
            true => Ok(true),
            false => Err(Interrupted),
        }
    }

    /// Changes are heard: after a while of that, the next loss is a new one.
    pub fn note_listening(&mut self) {
        if let Some(Again { listening, .. }) = &mut self.again
            && host::elapsed(listening.since) >= STEADY
        {
            listening.retries.succeeded();
        }
    }

    /// The scan begins anew at another process; whether that happened too often.
    pub fn begins_anew_too_often(&mut self) -> bool {
        let Some(again) = &mut self.again else {
            return true;
        };
        again.begun_anew += 1;
        again.begun_anew > again.connect.retries
    }
}
