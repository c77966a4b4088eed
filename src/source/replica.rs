//! A live server as a source, read as its replica would: the snapshot that PSYNC gives, parsed as
//! it arrives. Exact as of one moment, at no cost for each key; the server forks once.

use std::sync::Arc;

use anyhow::Result;

use super::rdb::{RdbSource, RdbSourceOptions};
use super::{Estimate, Source};
use crate::exit::usage;
use crate::ledger::SourceReport;
use crate::observer::Observer;
use crate::rdb::{RdbError, RdbErrorKind};
use crate::record::Batch;
use crate::select::Selection;
use crate::server::facts::{Facts, Keyspace};
use crate::server::replication::{Framing, Transfer, request_snapshot};
use crate::server::stream::plain;
use crate::server::{Conn, ServerError};

/// Reads a server's snapshot.
pub struct ReplicaSource {
    snapshot: RdbSource<Transfer>,
    framing: Framing,
    address: String,
    facts: Facts,
    closed: bool,
}

impl ReplicaSource {
    /// Asks for the snapshot and waits for its beginning.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a cluster's node, [`ServerError`], and [`RdbError`] where the server sends
    /// what is not understood.
    pub fn open(
        mut conn: Conn,
        mut options: RdbSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking the source what it is");
        let facts = Facts::ask(&mut conn)?;
        if facts.cluster {
            return Err(usage(
                "the source is a node of a cluster, and clusters are not supported yet; \
                 nothing was read",
            ));
        }
        let address = conn.address().to_owned();
        // The stream goes on behind the snapshot.
        options.alone = false;
        let transfer = request_snapshot(conn, &facts)?;
        let framing = transfer.framing();
        let snapshot = RdbSource::open(transfer, options, observer)
            .map_err(|error| as_lost(&address, error))?;
        Ok(Self {
            snapshot,
            framing,
            address,
            facts,
            closed: false,
        })
    }

    /// What the server said of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The RDB version of the snapshot.
    pub fn rdb_version(&self) -> u16 {
        self.snapshot.context().rdb_version
    }

    /// The moment of the snapshot, Unix ms.
    pub fn taken_ms(&self) -> u64 {
        self.snapshot.taken_ms()
    }

    /// The databases that will be read, as INFO had them.
    pub fn databases(&self, selection: &Selection) -> Vec<Keyspace> {
        let known = self.facts.keyspace.as_deref().unwrap_or_default();
        let wanted = known.iter().filter(|row| selection.wants_db(row.db));
        wanted.copied().collect()
    }

    /// Where the snapshot ends by its own account it must end by the server's too.
    fn close(&mut self) -> Result<()> {
        let reader = self.snapshot.reader();
        match self.framing {
            Framing::Length(_) => reader
                .expect_end()
                .map_err(|error| as_lost(&self.address, error))?,
            Framing::Mark(mark) => {
                let found = reader
                    .take_after_end()
                    .map_err(|error| as_lost(&self.address, error))?;
                if found != mark {
                    return Err(ServerError::Protocol {
                        address: self.address.clone(),
                        doing: "receiving the snapshot".to_owned(),
                        reason: "it does not end with the mark that was announced".to_owned(),
                    }
                    .into());
                }
            }
        }
        if let Some(transfer) = reader.get_mut() {
            transfer.close();
        }
        self.closed = true;
        Ok(())
    }
}

/// What could not be had is the connection's fault, what is damaged the data's.
fn as_lost(address: &str, error: RdbError) -> anyhow::Error {
    match &error.kind {
        RdbErrorKind::Io(io) => {
            let lost = ServerError::Lost {
                address: address.to_owned(),
                doing: format!("receiving the snapshot, after {} bytes", error.offset),
                reason: format!("{} (its log may say why)", plain(io)),
            };
            lost.into()
        }
        _ => anyhow::Error::new(error).context(format!("the snapshot of {address}")),
    }
}

impl Source for ReplicaSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        let more =
            self.snapshot
                .read(batch)
                .map_err(|error| match error.downcast::<RdbError>() {
                    Ok(error) => as_lost(&self.address, error),
                    Err(other) => other,
                })?;
        if !more && !self.closed {
            self.close()?;
        }
        Ok(more)
    }

    fn report(&self) -> SourceReport {
        self.snapshot.report()
    }

    fn estimate(&self) -> Estimate {
        self.snapshot.estimate()
    }
}
