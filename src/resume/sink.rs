//! The sink of an import that can be resumed: it notes how far the server's sink has come.

use std::collections::{HashSet, VecDeque};

use anyhow::{Context as _, Result};

use super::confirm::{self, Ours};
use super::state::State;
use crate::endpoint::ConnectOptions;
use crate::ledger::{SinkReport, SourceReport};
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
    /// Batches passed on, by their number in the sink, that were not settled yet.
    passed: VecDeque<(u64, Mark)>,
    batches: u64,
    failed_before: u64,
}

impl ResumingSink {
    /// Around `inner`; `state` is a new one, or that of the run to go on with.
    pub fn new(
        mut inner: Box<ServerSink>,
        mut state: State,
        to: ConnectOptions,
        on_conflict: OnConflict,
        remember: bool,
    ) -> Self {
        let mut own = std::mem::take(&mut state.own);
        if remember {
            own.keep_unsaved();
        }
        inner.set_own(own);
        Self {
            inner,
            open_until: state.sending,
            failed_before: state.failed,
            state,
            to,
            on_conflict,
            window: Vec::new(),
            passed: VecDeque::new(),
            batches: 0,
        }
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
                .context("compare the destination with what was sent last")?;
            let mut done = HashSet::new();
            for Ours { db, key, is_last } in ours {
                self.inner.remember_own(db, &key)?;
                if is_last {
                    done.insert((db, key));
                }
            }
            for batch in &mut window {
                self.leave_out(batch, &done);
            }
        }
        window.into_iter().try_for_each(|batch| self.pass(batch))
    }

    /// What stands as its last record says is not sent again.
    fn leave_out(&mut self, batch: &mut Batch, done: &HashSet<(u32, Vec<u8>)>) {
        let (mut keys, mut tombstones) = (0, 0);
        batch.records.retain(|record| {
            let (name, count) = match record {
                Record::Key(record) => ((record.db, record.key.clone()), &mut keys),
                Record::Deleted { db, key } => ((*db, key.clone()), &mut tombstones),
                _ => return true,
            };
            let is_done = done.contains(&name);
            *count += u64::from(is_done);
            !is_done
        });
        self.inner.take_as_done(keys, tombstones);
    }

    fn pass(&mut self, batch: Batch) -> Result<()> {
        self.batches += 1;
        if let Some(mark) = batch.mark {
            if !batch.goes_on {
                self.passed.push_back((self.batches, mark));
            }
            self.state.is_sending(mark)?;
        }
        self.inner.write(batch)?;
        self.settle()
    }

    /// Notes what is answered.
    fn settle(&mut self) -> Result<()> {
        let settled = self.inner.settled_batches();
        let mut mark = None;
        while let Some((number, passed)) = self.passed.front()
            && *number <= settled
        {
            mark = Some(*passed);
            self.passed.pop_front();
        }
        if let Some(mark) = mark {
            let failed = self.failed_before + self.inner.failed();
            let own = self.inner.take_unsaved();
            self.state.is_settled(mark, failed, &own)?;
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
        if self.failed_before > 0 {
            report.problems.push(format!(
                "up to {} failed before this import was resumed",
                crate::units::plural(self.failed_before, "key")
            ));
        }
        (report, self.state.remove())
    }

    fn abort(self: Box<Self>, reason: &str) -> SinkReport {
        self.inner.abort(reason)
    }
}
