//! The connection to the source, and how it is made anew.

use anyhow::Result;

use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::server::reconnect::Retries;
use crate::server::reply::{Command, Reply};
use crate::server::{Conn, ServerError};
use crate::stop::Stop;

/// A connection to the source that comes back after a loss, until the run is to stop.
pub(super) struct Link {
    pub conn: Conn,
    connect: ConnectOptions,
    retries: Retries,
    stop: Stop,
}

impl Link {
    /// # Errors
    /// The connection.
    pub fn open(connect: ConnectOptions, stop: Stop) -> Result<Self, ServerError> {
        let mut conn = Conn::open(&connect)?;
        conn.heed(&connect, &stop.flag());
        Ok(Self {
            conn,
            retries: Retries::new(&connect),
            connect,
            stop,
        })
    }

    /// What errors of the connection say that it was doing.
    pub fn name_the_work(&mut self) {
        self.conn.doing("deleting copied keys at the source");
    }

    /// A new connection in place of the one that was lost.
    ///
    /// # Errors
    /// That there is none, or that the run is to stop.
    pub fn connect_again(&mut self, lost: ServerError) -> Result<()> {
        let stop = || self.stop.is_set();
        self.conn = match self.retries.connect(&self.connect, lost, &stop) {
            Err(_) if stop() => return Err(Interrupted.into()),
            connected => connected?,
        };
        self.conn.heed(&self.connect, &self.stop.flag());
        self.name_the_work();
        Ok(())
    }

    /// What was tried went through: later losses are counted anew.
    pub fn succeeded(&mut self) {
        self.retries.succeeded();
    }

    /// Sends a command that has one good answer.
    ///
    /// # Errors
    /// Any other answer, and the connection.
    pub fn expect(
        &mut self,
        name: &str,
        command: &Command,
        answer: &Reply,
    ) -> Result<(), ServerError> {
        match self.conn.try_query(command)? {
            Ok(reply) if reply == *answer => Ok(()),
            Ok(reply) => Err(self.conn.confused(format!("{name}: {reply:?}"))),
            Err(text) => Err(self.conn.refusal(name, text)),
        }
    }
}
