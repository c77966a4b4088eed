//! A lost connection to the source: it is made again, and the scan goes on where that is safe.
//!
//! A cursor means something only to the process that gave it: the seed of its hash is its own
//! (measured: going on after a restart saw 14,877 of 20,000 keys). To the same process, known by
//! its run_id, any cursor may be given again, because SCAN keeps no state. Else the database is
//! scanned from its beginning, and what comes a second time supersedes the first.

use anyhow::Result;

use super::probe::{self, Asking};
use super::squeeze::Changed;
use super::{Sent, ServerSource};
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::server::facts::{Facts, ServerClock};
use crate::server::reconnect::Retries;
use crate::server::{Conn, ServerError, is_lost};
use crate::stop::Stop;

/// How to connect again.
pub(super) struct Link {
    connect: ConnectOptions,
    retries: Retries,
    stop: Stop,
    /// Scans that were begun anew: a server that dies of what it is asked would be asked for ever.
    begun_anew: u32,
}

impl ServerSource {
    /// From now on a lost connection is made again as `connect` says, until `stop`.
    pub fn endure(&mut self, connect: ConnectOptions, stop: Stop) {
        self.conn.heed(&connect, &stop.flag());
        self.link = Some(Link {
            retries: Retries::new(&connect),
            connect,
            stop,
            begun_anew: 0,
        });
    }

    /// The user's wish to stop, where it is heard.
    pub(super) fn stop(&self) -> Option<&Stop> {
        self.link.as_ref().map(|link| &link.stop)
    }

    /// Something came as a whole, a page of names or all there is of a key: the next loss is a new
    /// one. Half an answer is nothing, or a connection that breaks in the middle of the same answer
    /// each time would be made again for ever.
    pub(super) fn got_on(&mut self) {
        if let Some(link) = &mut self.link {
            link.retries.succeeded();
        }
        self.is_patient_no_more();
    }

    /// Whether connecting again is wanted and may help.
    pub(super) fn may_resume(&self, error: &anyhow::Error) -> bool {
        self.link.is_some() && is_lost(error)
    }

    /// Connects again, and asks again for what was not answered.
    ///
    /// # Errors
    /// `error` itself where that is not wanted or cannot help, [`Interrupted`], and what the last
    /// attempt said.
    pub(super) fn resume(&mut self, error: anyhow::Error) -> Result<()> {
        let Some(mut link) = self.link.take() else {
            return Err(error);
        };
        let resumed = self.resume_by(&mut link, error);
        self.link = Some(link);
        resumed
    }

    fn resume_by(&mut self, link: &mut Link, error: anyhow::Error) -> Result<()> {
        let mut lost = match error.downcast::<ServerError>() {
            Ok(lost) if lost.is_passing() => lost,
            Ok(other) => return Err(other.into()),
            Err(other) => return Err(other),
        };
        let reason = lost.to_string();
        match self.squeeze()? {
            Changed::Nothing => {}
            Changed::Less => link.retries.once_more(),
            Changed::GivenUp => link.retries.succeeded(),
        }
        self.take_back();
        let same_process = loop {
            let stop = || link.stop.is_set();
            match link.retries.connect(&link.connect, lost, &stop) {
                Ok(conn) => self.conn = conn,
                Err(_) if stop() => return Err(Interrupted.into()),
                // How it began says more than that nobody is there any more.
                Err(error) => return Err(anyhow::Error::new(error).context(reason)),
            }
            self.conn.heed(&link.connect, &link.stop.flag());
            match self.set_up_again() {
                Ok(same_process) => break same_process,
                Err(error) => lost = error.downcast::<ServerError>()?,
            }
        };
        let mut what = "connected again, and going on";
        if !same_process {
            self.process_changed = true;
            if self.begin_database_again() {
                what = "connected again, to a server that was restarted, or is another one, or \
                        does not tell (run_id): this database is scanned again from its beginning";
                link.begun_anew += 1;
                if link.begun_anew > link.connect.retries {
                    return Err(self
                        .conn
                        .confused(
                            "it is another process every time, and a scan never comes to an end",
                        )
                        .into());
                }
            }
        }
        self.observer
            .notice(&format!("{reason}; {what} (database {})", self.db));
        // The database is entered before anything is asked (`may_send`).
        Ok(())
    }

    /// Asks something beside the scan, while nothing is in flight; again after each loss.
    ///
    /// # Errors
    /// Those of the question, and of [`Self::resume`].
    pub(super) fn ask<T>(&mut self, mut question: impl FnMut(&mut Conn) -> Result<T>) -> Result<T> {
        loop {
            match question(&mut self.conn) {
                Err(error) if self.may_resume(&error) => self.resume(error)?,
                done => return done,
            }
        }
    }

    /// Opens something else at the same server, as often as this connection may be made again.
    ///
    /// # Errors
    /// What the last attempt said.
    pub(super) fn open_beside<T>(
        &mut self,
        mut open: impl FnMut(&Self) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        loop {
            let error = match open(self) {
                Err(error) if error.is_passing() => error,
                done => return done,
            };
            let Some(link) = &mut self.link else {
                return Err(error);
            };
            // Waits until somebody is there again; that connection itself is not needed.
            let stop = || link.stop.is_set();
            link.retries.connect(&link.connect, error, &stop)?;
        }
    }

    /// What was asked and not answered is to be asked again, before what was not asked yet.
    fn take_back(&mut self) {
        let mut keys: Vec<Vec<u8>> = self.awaited.drain(..).map(|awaited| awaited.key).collect();
        for sent in self.sent.drain(..) {
            match sent {
                Sent::Scan(cursor) => self.cursor = Some(cursor),
                Sent::Group(group) => keys.extend(group),
            }
        }
        keys.extend(self.keys.drain(..));
        self.keys = keys.into();
        self.sent_keys = 0;
        self.scan_in_flight = false;
        if self.abandoned {
            self.cursor = None;
            self.drop_names();
        }
    }

    /// Brings the new connection to where the lost one was; whether it leads to the same process.
    fn set_up_again(&mut self) -> Result<bool> {
        self.conn.doing("asking the source what it is");
        let facts = Facts::ask(&mut self.conn)?;
        let same_process = facts.run_id.is_some()
            && (&facts.run_id, facts.replica) == (&self.facts.run_id, self.facts.replica);
        if !same_process {
            self.clock = ServerClock::ask(&mut self.conn)?;
            self.look_for_loss(&facts)?;
            let asking = Asking {
                facts: &facts,
                clock: &self.clock,
                options: &self.options,
                observer: &self.observer,
            };
            // Where the present database is forbidden, they are as they were.
            if self.conn.select(self.db)?.is_ok()
                && let Ok(abilities) = probe::abilities(&mut self.conn, &asking)?
            {
                self.abilities = abilities;
            }
            self.facts = facts;
        }
        probe::leave_no_trace(&mut self.conn, &self.facts)?;
        Ok(same_process)
    }

    /// Whether the present database was in the middle of its scan, and begins from its start. Names
    /// that are complete are as good as before.
    fn begin_database_again(&mut self) -> bool {
        if self.cursor.as_ref().is_none_or(|cursor| cursor == b"0") {
            return false;
        }
        self.drop_names();
        self.cursor = Some(b"0".to_vec());
        true
    }
}
