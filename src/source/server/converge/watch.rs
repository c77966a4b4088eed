//! A source that was found by sentinels: whether it is still the one that they name.
//!
//! A planned failover leaves the old primary running, with its connections, for about ten seconds
//! after the sentinels named the next one. Who asks them writes to that one from then on, so that
//! silence at the old one is no rest, and what it holds is not the source any more.

use std::time::{Duration, Instant};

use crate::endpoint::ConnectOptions;
use crate::host;
use crate::observer::Observer;
use crate::server::Conn;
use crate::server::sentinel::{self, AGREE_WITHIN, Standing};

/// While following, how long between two looks, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks that take long are rarer: so many times as long as one takes.
const REST: u32 = 5;

/// How long to wait before they are asked again.
pub(super) const STEP: Duration = Duration::from_millis(250);

/// Whom the sentinels name.
#[derive(Debug)]
pub(super) enum Named {
    /// The source, or there is nobody to ask.
    Same,
    /// Another server, this one.
    Other(String),
    /// They disagree: at least one of them names this one.
    Disputed {
        by: String,
        /// They may agree yet.
        is_open: bool,
    },
}

/// What is known of the sentinels that found the source.
#[derive(Debug, Default)]
pub(super) struct Watch {
    asked: Option<Instant>,
    /// How long after that they are asked again.
    rest: Duration,
    /// It was said that none answers.
    warned: bool,
    disputed_since: Option<Instant>,
    never_agreed: bool,
}

impl Watch {
    /// Whether it is time to ask them; `at_once`: sooner.
    pub fn is_due(&self, at_once: bool) -> bool {
        let rest = if at_once { STEP } else { self.rest };
        self.asked.is_none_or(|asked| host::elapsed(asked) >= rest)
    }

    /// Whether they disagree, and may agree yet.
    pub fn is_open(&self) -> bool {
        let since = self.disputed_since;
        since.is_some_and(|since| host::elapsed(since) < AGREE_WITHIN)
    }

    /// They never agreed that the server that was read is the source.
    pub fn never_agreed(&mut self) {
        self.never_agreed = true;
    }

    /// Whether that is so.
    pub fn is_disputed(&self) -> bool {
        self.never_agreed
    }

    /// Asks them. That none answers is warned of once.
    pub fn ask(&mut self, conn: &Conn, connect: &ConnectOptions, observer: &Observer) -> Named {
        let began = host::now();
        let Some(standing) = sentinel::standing(conn, connect) else {
            return Named::Same;
        };
        self.asked = Some(host::now());
        self.rest = LOOK_EVERY.max(host::elapsed(began) * REST);
        if let Standing::Disputed(by) = standing {
            self.disputed_since.get_or_insert(began);
            let is_open = self.is_open();
            return Named::Disputed { by, is_open };
        }
        self.disputed_since = None;
        match standing {
            Standing::Replaced(by) => return Named::Other(by),
            Standing::Unknown(reason) if !std::mem::replace(&mut self.warned, true) => {
                observer.warn(&format!(
                    "no sentinel answers: whether another server has become the primary is not \
                     known ({reason})"
                ));
            }
            _ => {}
        }
        Named::Same
    }
}
