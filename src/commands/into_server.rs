//! What `import` and `copy` do alike: a live server is connected to, tried out, and written to.

use std::sync::Arc;

use anyhow::Result;

use crate::cli::{RunArgs, WriteArgs};
use crate::compare::prove::Proof;
use crate::endpoint::ConnectOptions;
use crate::exit::Usage;
use crate::observer::Observer;
use crate::outside::Series;
use crate::pace::{LatencyProbe, Pace};
use crate::rewrite::Rewrite;
use crate::server::Conn;
use crate::sink::server::held::Repeats;
use crate::sink::server::{ServerSink, ServerSinkOptions};
use crate::stop::Stop;

/// Connects; `stop` ends the waiting for answers.
pub(super) fn connect(
    to: &ConnectOptions,
    stop: Option<&Stop>,
    observer: &Observer,
) -> Result<Conn> {
    let mut conn = Conn::open(to)?;
    if let Some(stop) = stop {
        conn.heed(to, &stop.flag());
    }
    if let Some(warning) = conn.warning() {
        observer.warn(&warning);
    }
    Ok(conn)
}

/// How it is written to, as far as the command line says.
pub(super) fn sink_options(
    write: &WriteArgs,
    run: &RunArgs,
    may_collide: bool,
    repeats: Repeats,
) -> ServerSinkOptions {
    ServerSinkOptions {
        on_conflict: write.on_conflict(),
        functions: write.functions,
        max_value_bytes: write.max_value,
        allow_loss: write.allow_loss.iter().copied().collect(),
        sanitize: write.sanitize,
        no_check: write.no_check,
        method: write.method,
        may_collide,
        repeats,
        deletes_source: false,
        dry_run: run.dry_run,
    }
}

/// Before anything is written: whether the databases that come, each with its number of keys where
/// that is known, can be written and, for `--verify`, read.
pub(super) fn try_databases(
    sink: &mut ServerSink,
    to: &ConnectOptions,
    rewrite: &Rewrite,
    coming: &[(u32, Option<u64>)],
    proof: &Proof,
    stop: &Stop,
) -> Result<()> {
    let dbs: Vec<u32> = coming.iter().map(|(db, _)| *db).collect();
    rewrite.dbs.check(&dbs)?;
    let into = coming
        .iter()
        .map(|(db, keys)| Ok((rewrite.dbs.map(*db)?, *keys)));
    let into = into.collect::<Result<Vec<_>, Usage>>()?;
    let written: Vec<u32> = into.iter().map(|(db, _)| *db).collect();
    sink.check_databases(dbs.into_iter().zip(written.iter().copied()))?;
    proof.try_reading(to, &written, stop)?;
    // Where nothing is known to come yet, what the URL names is where it will go.
    sink.try_databases(into.into_iter().chain(to.db.map(|db| (db, None))))
}

/// Who asks at the end for rules of time series that did not arrive.
pub(super) fn rules(run: &RunArgs, to: &ConnectOptions, sink: &ServerSink) -> Option<Series> {
    (!run.dry_run).then(|| Series::written_to(to.clone(), sink.facts().cluster))
}

/// Asks the destination all the time how long it takes to answer, where that is to be kept low.
pub(super) fn probe(
    pace: Option<&Arc<Pace>>,
    to: &ConnectOptions,
    observer: &Observer,
) -> Result<Option<LatencyProbe>> {
    Ok(match pace {
        Some(pace) => LatencyProbe::start("destination", to, pace, observer)?,
        None => None,
    })
}
