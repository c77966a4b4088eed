//! A server that asks for patience (BUSY, MASTERDOWN …) in the middle: what it refused is asked
//! again, once everything that is in flight was answered, for a bounded time.

use anyhow::Result;

use super::ServerSource;
use crate::exit::Interrupted;
use crate::host;
use crate::server::Conn;
use crate::server::conn::asks_for_patience;
use crate::server::patience::{self, STEP};
use crate::stop::Stop;

/// What is known of it.
#[derive(Debug)]
pub(super) struct Patience {
    /// How long nothing else was heard.
    wait: patience::Patience,
    /// The server's words, to be waited for before anything is asked.
    asked: Option<String>,
}

impl Patience {
    /// As long as `conn` allows.
    pub(super) fn of(conn: &Conn) -> Self {
        Self {
            wait: patience::Patience::new(conn.retry_for()),
            asked: None,
        }
    }
}

impl ServerSource {
    /// Whether an error is one after which the same may work in a while. A node of a cluster that
    /// does not serve a slot, or has lost its primary, is left for another.
    pub(super) fn asks_for_patience(&self, text: &str) -> bool {
        const OF_CLUSTERS: [&str; 3] = ["MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];
        let elsewhere =
            self.cluster.is_some() && OF_CLUSTERS.iter().any(|code| text.starts_with(code));
        asks_for_patience(text) && !text.starts_with("LOADING") && !elsewhere
    }

    /// What was refused so is to be asked again.
    pub(super) fn ask_later(&mut self, text: &str) {
        let is_first = !self.patience.wait.is_tried();
        // Whether it is over is looked at before anything is asked again.
        self.patience.wait.lasts();
        if is_first {
            self.observer.notice(&format!(
                "the source asks for patience ({text}); waiting for it"
            ));
        }
        self.patience.asked = Some(text.to_owned());
    }

    /// Names that were refused so come before all others.
    pub(super) fn ask_keys_later(&mut self, keys: Vec<Vec<u8>>, text: &str) {
        self.sent_keys -= keys.len();
        for key in keys.into_iter().rev() {
            self.keys.push_front(key);
        }
        self.ask_later(text);
    }

    /// The server does what it is asked.
    pub(super) fn is_patient_no_more(&mut self) {
        if self.patience.asked.is_none() {
            self.patience.wait.progress();
        }
    }

    /// Whether anything may be asked now: nothing while what is in flight comes to its end before a
    /// pause, and then the pause is made.
    ///
    /// # Errors
    /// The server's words after too long, [`Interrupted`], and the connection's.
    pub(super) fn may_send(&mut self) -> Result<bool> {
        let is_idle = self.sent.is_empty() && self.awaited.is_empty();
        if let Some(text) = &self.patience.asked {
            if !is_idle {
                return Ok(false);
            }
            if !self.patience.wait.lasts() {
                let text = format!("{text} ({})", self.patience.wait.told());
                return Err(self.conn.refusal("reading", text).into());
            }
            if self.stop().is_some_and(Stop::is_set) {
                return Err(Interrupted.into());
            }
            host::sleep(STEP);
            self.patience.asked = None;
        }
        if is_idle && (self.cursor.is_some() || !self.keys.is_empty()) {
            // Something else may have been asked meanwhile, in another database.
            self.enter()?;
        }
        Ok(true)
    }
}
