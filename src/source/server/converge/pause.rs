//! CLIENT PAUSE … WRITE.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::host;
use crate::server::reply::cmd;
use crate::server::{Conn, ServerError};

/// CLIENT PAUSE … WRITE, for as short as can be. The server ends it by itself if we do not.
pub(in crate::source) struct Pause {
    began: Option<Instant>,
    limit: Duration,
}

impl Pause {
    pub fn none() -> Self {
        Self {
            began: None,
            limit: Duration::ZERO,
        }
    }

    pub fn begin(conn: &mut Conn, limit: Duration) -> Result<Result<Self, String>, ServerError> {
        Self::ask(conn, limit)?.confirmed(conn)
    }

    /// Asks for it, and does not wait for the answer.
    pub fn ask(conn: &mut Conn, limit: Duration) -> Result<Self, ServerError> {
        // Measured from before it is sent: the server cannot have begun earlier.
        let began = host::now();
        let limit_ms = limit.as_millis().to_string();
        conn.queue(&[b"CLIENT", b"PAUSE", limit_ms.as_bytes(), b"WRITE"])?;
        conn.flush()?;
        Ok(Self {
            began: Some(began),
            limit,
        })
    }

    /// The answer: from now on nothing is written.
    pub fn confirmed(self, conn: &mut Conn) -> Result<Result<Self, String>, ServerError> {
        Ok(conn.reply()?.map(|_| self))
    }

    /// Whether it was begun at all.
    pub fn is_held(&self) -> bool {
        self.began.is_some()
    }

    /// Whether the server may have ended it already.
    pub fn is_over(&self) -> bool {
        self.began
            .is_some_and(|began| host::elapsed(began) >= self.limit)
    }

    /// Lets writes go on; how long they were held, at the most.
    pub fn end(self, conn: &mut Conn) -> Option<Duration> {
        let began = self.began?;
        // Nothing is to be done if it fails: the pause has its own end.
        let _ = conn.try_query(cmd("CLIENT").arg("UNPAUSE"));
        // The server has ended it by then, whatever became of the request.
        Some(host::elapsed(began).min(self.limit))
    }
}
