//! Standard error, for people and for programs: messages, progress, and at the end of every run the
//! reconciled ledger. Nothing else in the tool prints there.
//!
//! Messages go to standard error, as JSON too. Results and the JSON summary go to standard output
//! where that carries no data; see [`session`].

pub mod advice;
mod console;
mod progress;
pub mod session;
mod summary;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use self::console::{Console, ConsoleReporter};
use self::progress::Ticker;
use crate::cli::{ProgressStyle, ReportArgs, RunArgs};

use crate::describe::export_warnings;
use crate::errors_file::ErrorsFile;
pub use crate::escape::{clean, is_unsafe};
use crate::exit;
use crate::host;
use crate::observer::Observer;
use crate::pipe::Outcome;
use crate::verb::{Flow, Verb};
pub use crate::version::SCHEMA_VERSION;

/// How failed keys are printed before they are only counted.
const FAILURES_SHOWN: u64 = 20;

/// What to print, and how.
#[derive(Debug, Clone)]
pub struct UiOptions {
    /// What runs.
    pub verb: Verb,
    /// JSON Lines instead of text.
    pub json: bool,
    /// Progress.
    pub progress: ProgressStyle,
    /// Warnings and errors only.
    pub quiet: bool,
    /// Every failed key, and every cause of an error.
    pub verbose: bool,
    /// Nothing is changed by the run.
    pub dry_run: bool,
}

impl UiOptions {
    fn new(verb: Verb, report: &ReportArgs, run: &RunArgs) -> Self {
        Self {
            verb,
            json: report.json
                || report.progress == ProgressStyle::Json
                || session::messages_are_json(),
            progress: report.progress,
            quiet: report.quiet,
            verbose: report.verbose,
            dry_run: run.dry_run,
        }
    }
}

/// The ui of one run, from its start to its last line.
pub struct Ui {
    options: UiOptions,
    console: Arc<Console>,
    observer: Arc<Observer>,
    ticker: Ticker,
    started: Instant,
}

impl Ui {
    /// Opens the `--errors-to` file, and begins to show progress. The file is emptied, unless the run
    /// may go on with an earlier one (`resumes`): then it keeps its lines until that is known.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) if the file cannot be opened; the system's.
    pub fn start(verb: Verb, report: &ReportArgs, run: &RunArgs, resumes: bool) -> Result<Self> {
        let options = UiOptions::new(verb, report, run);
        let is_terminal = std::io::stderr().is_terminal();
        let console = Arc::new(Console::new(&options, is_terminal));
        let observer = observer(&console, run, resumes)?;
        let observer = Arc::new(observer);
        for text in &report.announcements {
            observer.notice(text);
        }
        if options.dry_run {
            observer.notice("dry run: nothing is changed or written");
        }
        let ticker = Ticker::start(
            &options,
            is_terminal,
            Arc::clone(&console),
            Arc::clone(&observer),
        );
        Ok(Self {
            options,
            console,
            observer,
            ticker,
            started: host::now(),
        })
    }

    /// What everything in the run reports to.
    pub fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.observer)
    }

    /// The run ended: prints what went wrong, the ledger as the last line, and returns the exit
    /// code.
    pub fn finish(mut self, outcome: &Outcome) -> u8 {
        self.ticker.stop();
        let elapsed = host::elapsed(self.started);
        let code = outcome.exit_code();
        self.console.failures_not_shown();
        self.say_findings(outcome);
        match &outcome.error {
            Some(error) => self.console.error(error, code),
            None => {
                let came = outcome.source.total();
                let matched = came.written + came.superseded + came.failed;
                warn_if_nothing_matched(&self.console, matched);
            }
        }
        // Nothing flowed: the error says it all, and a ledger of zeros would only hide it.
        let is_early = outcome.error.is_some() && outcome.source.counts.is_empty();
        let is_silent = self.options.quiet && code == exit::OK;
        if self.options.json {
            session::summary(summary::json(&self.options, outcome, elapsed));
        } else if !is_early && !is_silent {
            self.console
                .line(&summary::final_line(&self.options, outcome, code, elapsed));
        }
        code
    }

    /// What was found on the way, a line each.
    fn say_findings(&self, outcome: &Outcome) {
        let (flow, source, sink) = (self.options.verb.flow, &outcome.source, &outcome.sink);
        let warnings = source.lacks.cut_short.iter().chain(&source.lacks.not_had);
        let warnings = warnings.chain(&sink.problems).cloned();
        let of_archive = export_warnings(&source.export.keys, &source.export.lines);
        for text in warnings
            .chain(of_archive)
            .chain(sink.values.undecoded.warning())
        {
            self.console.warning(&text);
        }
        if let Some(text) = sink.values.undecoded.notice() {
            self.console.notice(&text);
        }
        for outside in &source.outside {
            let text = outside.text(flow);
            match (flow, outside.kept) {
                // What convert does with it, it has said.
                (Some(Flow::Convert), true) => {}
                (Some(Flow::Import), _) | (Some(_), false) => self.console.warning(&text),
                _ => self.console.notice(&text),
            }
        }
    }

    /// Ends the display of a verb that prints its own result.
    pub fn close(mut self) {
        self.ticker.stop();
    }
}

/// What reports to a console and writes the `--errors-to` file, emptied unless `keeps`.
fn observer(console: &Arc<Console>, run: &RunArgs, keeps: bool) -> anyhow::Result<Observer> {
    let errors_file = run.errors_to.as_deref().map(ErrorsFile::open).transpose()?;
    let reporter = ConsoleReporter(Arc::clone(console));
    let observer = Observer::new(Box::new(reporter), errors_file, run.max_errors);
    if !keeps {
        observer.begin_errors_anew()?;
    }
    Ok(observer)
}

/// Prints an error that came before any ui, or in a verb without one; returns the exit code.
pub fn print_error(error: &anyhow::Error) -> u8 {
    Console::of_session().failed(error)
}

/// Prints a line in a verb that has no ledger.
pub fn print_line(text: &str) {
    Console::of_session().notice(text);
}

/// Warns if keys were selected and none came.
fn warn_if_nothing_matched(console: &Console, matched: u64) {
    if matched == 0
        && let Some(flags) = session::selection()
    {
        console.warning(&format!("no key matched the selection ({flags})"));
    }
}

/// The same in a verb that prints its own result: `matched` keys were found.
pub fn check_matched(matched: u64) {
    warn_if_nothing_matched(&Console::of_session(), matched);
}

/// Prints a warning in a verb that prints its own result.
pub fn print_warning(text: &str) {
    Console::of_session().warning(text);
}

#[cfg(test)]
mod tests;
