//! CLIENT PAUSE … WRITE.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::{Conn, ServerError};

/// CLIENT PAUSE … WRITE, for as short as can be. The server ends it by itself if we do not.
pub(super) struct Pause {
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
        // Measured from before it is sent: the server cannot have begun earlier.
        let began = Instant::now();
        let mut pause = redis::cmd("CLIENT");
        pause
            .arg("PAUSE")
            .arg(limit.as_millis() as u64)
            .arg("WRITE");
        Ok(conn.try_query(&pause)?.map(|_| Self {
            began: Some(began),
            limit,
        }))
    }

    /// Whether the server may have ended it already.
    pub fn is_over(&self) -> bool {
        self.began
            .is_some_and(|began| began.elapsed() >= self.limit)
    }

    /// Lets writes go on; how long they were held, at the most.
    pub fn end(self, conn: &mut Conn) -> Option<Duration> {
        let began = self.began?;
        // Nothing is to be done if it fails: the pause has its own end.
        let _ = conn.try_query(redis::cmd("CLIENT").arg("UNPAUSE"));
        // The server has ended it by then, whatever became of the request.
        Some(began.elapsed().min(self.limit))
    }
}
