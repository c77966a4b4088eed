//! How a source begins to be listened to.

use anyhow::Result;

use crate::endpoint::ConnectOptions;
use crate::server::ServerError;
use crate::server::tracking::Tracker;
use crate::source::server::ServerSource;
use crate::source::server::node::Membership;
use crate::stop::Stop;

/// Begins to listen to the server that is read. The inner error is why it cannot be listened to.
pub(super) fn listen(
    inner: &mut ServerSource,
    connect: &ConnectOptions,
) -> Result<Result<Tracker, ServerError>> {
    Ok(match listen_to_anybody(inner, connect)? {
        Ok(tracker) if !tracker.listens_to(inner.facts().run_id.as_deref()) => {
            Err(another_server(inner))
        }
        begun => begun,
    })
}

/// That it was another server that answered.
pub(super) fn another_server(inner: &ServerSource) -> ServerError {
    inner
        .conn
        .confused("a second connection to the same address reached another server")
}

/// Begins to listen, to whatever server answers at that address.
pub(super) fn listen_to_anybody(
    inner: &mut ServerSource,
    connect: &ConnectOptions,
) -> Result<Result<Tracker, ServerError>> {
    let started = inner.open_beside(|inner| {
        let selection = inner.options.selection.clone();
        let slots = inner.node.as_ref().map(Membership::shared_slots);
        let wanted = move |name: &[u8]| {
            selection.wants_key(name) && slots.as_ref().is_none_or(|slots| slots.has_key(name))
        };
        let stop = inner.link.stop().map(Stop::flag);
        Tracker::start(connect, stop.as_ref(), wanted)
    });
    match started {
        Ok(Ok(mut tracker)) => {
            if let Some(stop) = inner.link.stop() {
                tracker.heed(&stop.flag());
            }
            Ok(Ok(tracker))
        }
        // Lost before it began is lost all the same, and says nothing of the other connection.
        Err(error @ ServerError::Lost { .. }) => Ok(Err(error)),
        started => Ok(started?),
    }
}

/// What nobody would hear of: databases that are swapped, and keys in databases that had none. INFO
/// tells of both; a server with a single database has neither.
pub(super) fn blindness(
    inner: &mut ServerSource,
    tells_counts: bool,
) -> Result<Option<&'static str>, ServerError> {
    let knows_databases =
        inner.facts().keyspace.is_some() || !inner.options.selection.dbs.is_empty();
    if tells_counts && knows_databases {
        return Ok(None);
    }
    let has_another = match inner.conn.select(1)? {
        Ok(()) => true,
        // What is refused to us may be there for others: only these words prove that it is not.
        Err(text) => {
            // Back to database 0; where SELECT is not to be had, by a new connection.
            if inner.conn.select(0)?.is_err() {
                inner.conn.renew()?;
            }
            !["out of range", "invalid DB index", "cluster mode"]
                .iter()
                .any(|words| text.contains(words))
        }
    };
    Ok(has_another.then_some(
        "the source does not answer INFO, so that databases which were swapped, or had no keys \
         before, would go unnoticed",
    ))
}
