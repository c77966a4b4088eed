//! What the command line of `doctor` means.

use anyhow::Result;

use super::{Env, Server, Side, url_and_file};
use crate::cli::DoctorArgs;
use crate::endpoint::ConnectOptions;
use crate::place::Place;

impl DoctorArgs {
    /// The server, and the archive if there is one.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn ends(&self, env: Env<'_>) -> Result<(ConnectOptions, Option<&Place>)> {
        let side = match self.source {
            true => Side::Source,
            false => Side::Destination,
        };
        let (place, file) = match (self.server.as_ref(), self.file.as_ref()) {
            (only, None) => url_and_file(only, side, env),
            both => both,
        };
        let server = Server::alone(side, place, &self.connect, &self.timeouts);
        Ok((server.resolve(env)?, file))
    }
}
