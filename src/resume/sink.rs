//! The sink of an import that can be resumed: it notes how far the server's sink has come.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::confirm::{self, Ours};
use super::state::{News, State};
use super::witness::{Witness, reading};
use crate::compare::meaning::Reading;
use crate::endpoint::ConnectOptions;
use crate::ledger::{EarlierRun, SinkReport, SourceReport};
use crate::observer::Observer;
use crate::policy::OnConflict;
use crate::record::{Batch, Mark, Record};
use crate::sink::Sink;
use crate::sink::server::ServerSink;

/// Passes batches on to a server's sink and keeps the state.
pub struct ResumingSink {
    inner: Box<ServerSink>,
    state: State,
    to: ConnectOptions,
    on_conflict: OnConflict,
    /// Up to here an earlier run has sent, with or without effect.
    open_until: Mark,
    /// Batches of that open window, until all are there.
    window: Vec<Batch>,
    /// Batches passed on that were not settled yet.
    passed: VecDeque<Passed>,
    batches: u64,
    /// Key and tombstone records that were passed on, those of earlier runs included.
    records: u64,
    failed_before: u64,
    /// What is left of an earlier run.
    earlier: Option<EarlierRun>,
    reading: Reading,
    observer: Arc<Observer>,
}

/// A batch that was passed on.
struct Passed {
    /// Its number in the sink.
    number: u64,
    mark: Mark,
    /// Records up to its end.
    records: u64,
}

/// Longer names are not kept whole for a later run.
const MAX_HELD_KEY_BYTES: usize = 64 << 10;

impl ResumingSink {
    /// Around `inner`; `state` is a new one, or that of the run to go on with, of which `seen` says
    /// why it is believed.
    ///
    /// # Errors
    /// The state's.
    pub fn new(
        mut inner: Box<ServerSink>,
        mut state: State,
        to: ConnectOptions,
        on_conflict: OnConflict,
        remember: bool,
        seen: Option<String>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        let mut own = std::mem::take(&mut state.own);
        if remember {
            own.keep_unsaved();
            inner.keep_unsaved_held();
            state.each_held(|conflict| inner.hold_earlier(conflict))?;
        }
        inner.set_own(own);
        inner.keep_witnesses(state.witnesses.prints());
        if seen.is_some() {
            inner.rely_on_what_stands();
        }
        let (state_records, reading) = (state.records, reading(state.begin.hash_keys));
        let earlier = seen.map(|seen| EarlierRun {
            records: state.records,
            failed: state.failed,
            seen,
        });
        Ok(Self {
            inner,
            open_until: state.sending,
            failed_before: state.failed,
            state,
            to,
            on_conflict,
            window: Vec::new(),
            passed: VecDeque::new(),
            batches: 0,
            records: state_records,
            earlier,
            reading,
            observer,
        })
    }

    /// The open window is complete: what stands of it and is ours is known to be, then it is sent.
    fn replay(&mut self) -> Result<()> {
        if self.window.is_empty() {
            return Ok(());
        }
        let mut window = std::mem::take(&mut self.window);
        // Under `replace` it does not matter whose it is.
        if self.on_conflict != OnConflict::Replace {
            let ours = confirm::ours(&self.to, &window)
                .context("cannot compare the destination with what was sent last")?;
            let mut done = HashSet::new();
            for Ours { db, key, is_last } in ours {
                self.inner.remember_own(db, &key)?;
                if is_last {
                    done.insert((db, key));
                }
            }
            for batch in &mut window {
                let records = records_of(batch);
                self.leave_out(batch, &done);
                // They are passed all the same.
                self.records += records - records_of(batch);
            }
        }
        window.into_iter().try_for_each(|batch| self.pass(batch))
    }

    /// What stands as its last record says is not sent again.
    fn leave_out(&mut self, batch: &mut Batch, done: &HashSet<(u32, Vec<u8>)>) {
        let inner = &mut self.inner;
        batch.records.retain(|record| {
            let (name, stands) = match record {
                Record::Key(record) => ((record.db, record.key.clone()), true),
                Record::Deleted { db, key } => ((*db, key.clone()), false),
                _ => return true,
            };
            let is_done = done.contains(&name);
            if is_done {
                inner.take_as_done(name.0, &name.1, stands);
            }
            !is_done
        });
    }

    fn pass(&mut self, batch: Batch) -> Result<()> {
        self.batches += 1;
        self.records += records_of(&batch);
        if let Some(mark) = batch.mark {
            if !batch.goes_on {
                self.passed.push_back(Passed {
                    number: self.batches,
                    mark,
                    records: self.records,
                });
            }
            self.note_processes()?;
            let changing = self.inner.about_to_change(&batch).into_iter();
            let changing: Vec<Witness> = changing
                .map(|one| Witness::of(one, &self.reading))
                .collect();
            self.state.is_sending(mark, &changing)?;
        }
        self.inner.write(batch)?;
        self.settle()
    }

    /// Notes what is answered.
    fn settle(&mut self) -> Result<()> {
        self.note_processes()?;
        let settled = self.inner.settled_batches();
        let mut last = None;
        while self
            .passed
            .front()
            .is_some_and(|passed| passed.number <= settled)
        {
            last = self.passed.pop_front();
        }
        let Some(Passed { mark, records, .. }) = last else {
            return Ok(());
        };
        let acknowledged = self.inner.take_acknowledged().into_iter();
        let mut held = self.inner.take_unsaved_held();
        held.iter_mut()
            .for_each(|conflict| conflict.key.truncate(MAX_HELD_KEY_BYTES));
        let news = News {
            failed: self.failed_before + self.inner.failed(),
            records,
            own: self.inner.take_unsaved(),
            witnesses: acknowledged
                .map(|one| Witness::of(one, &self.reading))
                .collect(),
            held,
            errors: self.observer.errors_place()?,
        };
        self.state.is_settled(mark, &news)
    }

    /// Notes who is spoken to, before anything is settled there, and who has lost its memory.
    fn note_processes(&mut self) -> Result<()> {
        // First: a state that knows the new process, and not what the one before took along, would be
        // believed.
        if self.inner.has_lost_memory() && !self.state.is_forgotten {
            self.state.is_gone()?;
        }
        let is_known = |one: &Option<&str>| {
            let known = self.state.processes.iter().flatten();
            known.into_iter().any(|known| known.as_deref() == *one)
        };
        if !self.inner.processes().all(|one| is_known(&one)) {
            let mut all: BTreeSet<Option<String>> =
                self.state.processes.clone().unwrap_or_default();
            all.extend(self.inner.processes().map(|one| one.map(str::to_owned)));
            self.state.speaks_to(all)?;
        }
        Ok(())
    }
}

impl Sink for ResumingSink {
    fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.mark.is_some_and(|mark| mark <= self.open_until) {
            self.window.push(batch);
            return Ok(());
        }
        self.replay()?;
        self.pass(batch)
    }

    fn idle(&mut self) -> Result<()> {
        self.inner.idle()?;
        self.settle()
    }

    fn finish(mut self: Box<Self>, source: &SourceReport) -> (SinkReport, Result<()>) {
        if let Err(error) = self.replay() {
            return (self.inner.abort(&format!("{error:#}")), Err(error));
        }
        let (mut report, done) = self.inner.finish(source);
        if done.is_err() {
            return (report, done);
        }
        report.earlier = self.earlier.take();
        if self.failed_before > 0 {
            report.problems.push(format!(
                "up to {} failed before this import was resumed",
                crate::units::plural(self.failed_before, "key")
            ));
        }
        (report, self.state.remove())
    }

    fn abort(mut self: Box<Self>, reason: &str) -> SinkReport {
        let earlier = self.earlier.take();
        SinkReport {
            earlier,
            ..self.inner.abort(reason)
        }
    }
}

/// Key and tombstone records.
fn records_of(batch: &Batch) -> u64 {
    let counts = |record: &&Record| matches!(record, Record::Key(_) | Record::Deleted { .. });
    batch.records.iter().filter(counts).count() as u64
}
