//! What the command line of `doctor` means.

use std::ffi::OsString;

use anyhow::Result;

use super::{Env, Server, Side, looks_like_url, process_env};
use crate::cli::DoctorArgs;
use crate::endpoint::ConnectOptions;

impl DoctorArgs {
    /// The server, and the archive's name if there is one (`-`: standard input).
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn ends(&self) -> Result<(ConnectOptions, Option<OsString>)> {
        self.ends_in(&process_env)
    }

    fn ends_in(&self, env: Env<'_>) -> Result<(ConnectOptions, Option<OsString>)> {
        let side = if self.source {
            Side::Source
        } else {
            Side::Destination
        };
        let mut url = self.server.as_ref().map(|named| named.0.as_os_str());
        let mut file = self.file.clone();
        // `doctor FILE`, the server being in the environment.
        if let (Some(only), None, true) = (url, &file, env(&side.variable("URL")).is_some())
            && !looks_like_url(only)
        {
            file = Some(only.to_owned());
            url = None;
        }
        let server = Server {
            side,
            url,
            flags: self.connect.flags(),
            timeouts: &self.timeouts,
            alone: true,
        }
        .resolve(env)?;
        Ok((server, file))
    }
}
