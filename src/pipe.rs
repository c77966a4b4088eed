//! The pipe: a source on a thread of its own, a bounded channel, a sink on the caller's. The parts of
//! a source have a thread each, and share the channel.
//!
//! The first real error wins: "the channel is closed" is never what the user sees. Whatever
//! happens, every thread that the pipe started is joined, and the sink is told, by `finish` or by
//! `abort`.

mod turns;

use std::sync::Arc;
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::channel::{Received, Receiver, Sender, channel};
use crate::exit::{self, Interrupted};
use crate::exit_code;
use crate::host;
use crate::ledger::{SinkReport, SourceReport, reconcile};
use crate::observer::Observer;
use crate::outside::{self, OutsideKeys, Series};
use crate::pace::Pace;
use crate::record::Batch;
use crate::rewrite::Rewrite;
use crate::server::is_lost;
use crate::sink::Sink;
use crate::source::Source;
pub use crate::stop::Stop;
use crate::unproven::Unproven;

/// Bytes of records between source and sink, those the sink is at work on included. Enough to
/// keep both busy; a value larger than this travels alone, so that memory stays within a few times
/// the largest value. Of records that are mostly overhead, up to four times as much.
const CHANNEL_BYTES: usize = 4 * 1024 * 1024;

/// When nothing came for so long, the sink settles what it has.
const IDLE: Duration = Duration::from_millis(100);

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What the source gave.
    pub source: SourceReport,
    /// What the sink did.
    pub sink: SinkReport,
    /// Why the run ended early, if it did.
    pub error: Option<anyhow::Error>,
}

impl Outcome {
    /// A run that ended before anything flowed.
    pub fn failed(error: anyhow::Error) -> Self {
        Self {
            source: SourceReport::default(),
            sink: SinkReport::default(),
            error: Some(error),
        }
    }

    /// The exit code that tells the truth about this run.
    pub fn exit_code(&self) -> u8 {
        let mut codes = Vec::new();
        if let Some(error) = &self.error {
            codes.push(exit_code::of(error));
        }
        if self.source.total().failed > 0
            || self.sink.failed() > 0
            || self.sink.values.damaged > 0
            || !self.sink.problems.is_empty()
            || self.source.lacks.is_failure()
        {
            codes.push(exit::SOME_KEYS);
        }
        if self.source.exactness.missed {
            codes.push(exit::CONSISTENCY);
        }
        exit::strongest(&codes)
    }
}

/// What happens to records between source and sink.
#[derive(Debug, Default)]
pub struct Steps {
    /// How they change.
    pub rewrite: Rewrite,
    /// Whether the sink is told where each record came from.
    pub keep_origins: bool,
    /// What the source holds outside its keys, where it is a live server.
    pub outside: OutsideKeys,
    /// Time series that bring rules to a destination, where it is a live server.
    pub with_rules: Option<Series>,
}

/// Runs records from `source` through `steps` into `sink`, as fast as these can.
pub fn run(
    source: Box<dyn Source>,
    steps: &Steps,
    sink: Box<dyn Sink>,
    observer: &Observer,
    stop: &Stop,
) -> Outcome {
    run_paced(source, steps, sink, observer, stop, None)
}

/// Runs records from `source` through `steps` into `sink`, no faster than `pace`.
pub fn run_paced(
    mut source: Box<dyn Source>,
    steps: &Steps,
    mut sink: Box<dyn Sink>,
    observer: &Observer,
    stop: &Stop,
    pace: Option<&Arc<Pace>>,
) -> Outcome {
    let mut unproven = Unproven::default();
    let mut writing = Writing {
        sink: sink.as_mut(),
        observer,
        is_paced: pace.is_some(),
        unproven: &mut unproven,
    };
    let (source, read, written) = if host::simulated().is_some() {
        let (read, written) = turns::run(source.as_mut(), steps, &mut writing, stop);
        (Some(source), read, written)
    } else {
        run_beside(source, steps, &mut writing, stop, pace)
    };
    if let Some(pace) = pace {
        pace.tell(observer);
    }
    unproven.tell(observer);
    let mut report = source.map(|source| source.report()).unwrap_or_default();
    if written.is_ok() && matches!(read, Ok(Pumped::End)) {
        outside::merge(&mut report.outside, steps.outside.conclude());
    }
    // When the sink fails, the reader only sees its channel close: the sink's error is the real one.
    let ended = match (written, read) {
        // A wish to stop ends what waits for a server as if the connection were lost.
        (Err(error), _) | (Ok(()), Err(error)) if stop.is_set() && is_lost(&error) => {
            Err(Interrupted.into())
        }
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(Pumped::Interrupted)) => Err(Interrupted.into()),
        (Ok(()), Ok(Pumped::SinkGone)) => Err(anyhow!("the writing side went away; this is a bug")),
        (Ok(()), Ok(Pumped::End)) => {
            reconcile(&report.counts).map_err(|text| anyhow!("{text}; this is a bug"))
        }
    };
    match ended {
        Ok(()) => {
            let (done, finished) = sink.finish(&report);
            let error = finished.and_then(|()| settle(&report, &done)).err();
            if error.is_none() {
                let missing = steps.with_rules.as_ref().and_then(Series::ask);
                outside::merge(&mut report.outside, missing);
            }
            Outcome {
                source: report,
                sink: done,
                error,
            }
        }
        Err(error) => {
            let done = sink.abort(&format!("{error:#}"));
            Outcome {
                source: report,
                sink: done,
                error: Some(error),
            }
        }
    }
}

/// The source on a thread of its own; its parts have one each.
fn run_beside(
    mut source: Box<dyn Source>,
    steps: &Steps,
    writing: &mut Writing<'_>,
    stop: &Stop,
    pace: Option<&Arc<Pace>>,
) -> (Option<Box<dyn Source>>, Result<Pumped>, Result<()>) {
    let (sender, receiver) = channel(CHANNEL_BYTES);
    std::thread::scope(|scope| {
        let reader = Builder::new().spawn_scoped(scope, move || {
            let read = pump_stages(source.as_mut(), steps, &sender, stop, pace);
            drop(sender);
            (source, read)
        });
        // Without a reader the channel is closed, and this ends at once.
        let written = drain(&receiver, writing);
        drop(receiver);
        match reader.map(ScopedJoinHandle::join) {
            Err(error) => (None, Err(no_thread(error)), written),
            Ok(Ok((source, read))) => (Some(source), read, written),
            Ok(Err(_)) => (
                None,
                Err(anyhow!("the reading thread panicked; this is a bug")),
                written,
            ),
        }
    })
}

/// What to say where no thread can be started.
pub fn no_thread(error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(
        "cannot start a thread: there is too little memory, or a limit is too low (ulimit -v, \
         ulimit -u)",
    )
}

/// Every record that the source gave was taken by the sink, and the sink says what became of it.
fn settle(source: &SourceReport, sink: &SinkReport) -> Result<()> {
    sink.records
        .reconcile()
        .map_err(|text| anyhow!("{text}; this is a bug"))?;
    let given = source.total().written;
    if given != sink.records.taken {
        return Err(anyhow!(
            "the ledger does not add up: the source gave {given} records, {} arrived; this is a bug",
            sink.records.taken
        ));
    }
    Ok(())
}

enum Pumped {
    End,
    Interrupted,
    SinkGone,
}

/// One stage after the other, to the end of the last.
fn pump_stages(
    source: &mut dyn Source,
    steps: &Steps,
    sender: &Sender<Batch>,
    stop: &Stop,
    pace: Option<&Arc<Pace>>,
) -> Result<Pumped> {
    if let Some(pace) = pace {
        source.keep_pace(pace);
    }
    loop {
        let mut parts = source.parts();
        if let Some(pace) = pace {
            for part in &mut parts {
                part.keep_pace(pace);
            }
        }
        let pumped = match parts.as_mut_slice() {
            [] => {
                drop(parts);
                pump(source, steps, sender, stop, &Stop::new(), pace)?
            }
            [part] => pump(*part, steps, sender, stop, &Stop::new(), pace)?,
            _ => pump_parts(parts, steps, sender, stop, pace)?,
        };
        if !matches!(pumped, Pumped::End) || !source.next_stage()? {
            return Ok(pumped);
        }
    }
}

/// All parts at the same time. When one fails the others end too.
fn pump_parts(
    parts: Vec<&mut dyn Source>,
    steps: &Steps,
    sender: &Sender<Batch>,
    stop: &Stop,
    pace: Option<&Arc<Pace>>,
) -> Result<Pumped> {
    let failed = Stop::new();
    let failed = &failed;
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                Builder::new().spawn_scoped(scope, move || {
                    let pumped = pump(part, steps, sender, stop, failed, pace);
                    if !matches!(pumped, Ok(Pumped::End)) {
                        failed.set();
                    }
                    pumped
                })
            })
            .collect();
        let mut all = Ok(Pumped::End);
        for thread in threads {
            let pumped = match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a reading thread panicked; this is a bug"))),
                Err(error) => {
                    failed.set();
                    Err(no_thread(error))
                }
            };
            // The first real error is the one to tell; those who were told to end have none.
            all = match (all, pumped) {
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
                (Ok(Pumped::End), Ok(pumped)) => Ok(pumped),
                (Ok(ended), Ok(_)) => Ok(ended),
            };
        }
        all
    })
}

/// `failed` is set where another part failed.
fn pump(
    source: &mut dyn Source,
    steps: &Steps,
    sender: &Sender<Batch>,
    stop: &Stop,
    failed: &Stop,
    pace: Option<&Arc<Pace>>,
) -> Result<Pumped> {
    loop {
        if stop.is_set() || failed.is_set() {
            return Ok(Pumped::Interrupted);
        }
        let (keys, bytes) = pace.map_or((usize::MAX, usize::MAX), |pace| {
            (pace.window_keys(), pace.window_bytes())
        });
        let mut batch = Batch::limited(keys, bytes);
        if !source.read(&mut batch)? {
            return Ok(Pumped::End);
        }
        // A heartbeat has nothing to wait for.
        let Some(pace) = pace.filter(|_| !batch.is_empty()) else {
            if !hand_on(batch, steps, sender)? {
                return Ok(Pumped::SinkGone);
            }
            continue;
        };
        for part in batch.split(keys, bytes) {
            let (keys, bytes) = (part.records.len() as u64, part.payload_bytes() as u64);
            if !pace.wait(keys, bytes, stop) {
                return Ok(Pumped::Interrupted);
            }
            if !hand_on(part, steps, sender)? {
                return Ok(Pumped::SinkGone);
            }
        }
    }
}

/// Sends a batch on; false if nobody receives any more.
fn hand_on(batch: Batch, steps: &Steps, sender: &Sender<Batch>) -> Result<bool> {
    let batch = prepare(batch, steps)?;
    let bytes = batch.channel_bytes();
    Ok(sender.send(batch, bytes))
}

/// What is done with a batch on its way from the source to the sink.
fn prepare(mut batch: Batch, steps: &Steps) -> Result<Batch> {
    if steps.keep_origins {
        batch.remember_origins();
    }
    let context = batch.context;
    steps.outside.saw(&batch);
    for record in &mut batch.records {
        steps.rewrite.apply(record, &context)?;
    }
    if let Some(series) = &steps.with_rules {
        series.saw(&batch);
    }
    Ok(batch)
}

/// The writing side.
struct Writing<'a> {
    sink: &'a mut dyn Sink,
    observer: &'a Observer,
    is_paced: bool,
    unproven: &'a mut Unproven,
}

impl Writing<'_> {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let (records, bytes) = (batch.records.len() as u64, batch.payload_bytes() as u64);
        self.unproven.note(&batch);
        self.sink.write(batch)?;
        if self.is_paced {
            // What came is to be in flight now, and not together with what comes later.
            self.sink.idle()?;
        }
        self.observer.count(records, bytes);
        Ok(())
    }
}

fn drain(receiver: &Receiver<Batch>, writing: &mut Writing<'_>) -> Result<()> {
    loop {
        let batch = match receiver.receive_within(IDLE) {
            Received::Item(batch) => batch,
            Received::End => return Ok(()),
            Received::Nothing => {
                writing.sink.idle()?;
                match receiver.receive() {
                    Some(batch) => batch,
                    None => return Ok(()),
                }
            }
        };
        writing.write(batch)?;
    }
}
