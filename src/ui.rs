//! What a person, or a program that listens, is told on standard error: messages, progress, and
//! at the end of every run the reconciled ledger. Nothing else in the tool prints there.
//!
//! Messages go to standard error, as JSON too. Results and the JSON summary go to standard output
//! where that carries no data; see [`session`].

pub mod advice;
mod console;
mod progress;
pub mod session;
mod summary;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::console::{Console, ConsoleReporter};
use self::progress::Ticker;
use crate::cli::{ProgressStyle, ReportArgs, RunArgs};
use crate::describe::{export_failed_text, export_lacks_text};
use crate::errors_file::ErrorsFile;
pub use crate::escape::{clean, is_unsafe};
use crate::exit;
use crate::exit_code;
use crate::host;
use crate::observer::Observer;
use crate::pipe::Outcome;
pub use crate::verb::Verb;
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
    /// Give up after so many failed keys.
    pub max_errors: Option<u64>,
    /// Where failed keys are written to.
    pub errors_to: Option<PathBuf>,
    /// Notices to begin with.
    pub announcements: Vec<String>,
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
            max_errors: run.max_errors,
            errors_to: run.errors_to.clone(),
            announcements: report.announcements.clone(),
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
    /// Opens and empties the `--errors-to` file, and begins to show progress.
    ///
    /// # Errors
    /// The exit code, if the file cannot be opened; the error is printed.
    pub fn start(verb: Verb, report: &ReportArgs, run: &RunArgs) -> Result<Self, u8> {
        Self::open(verb, report, run, false)
    }

    /// The same for a run that may go on with an earlier one (`resumes`): then the file keeps its
    /// lines until that is known.
    ///
    /// # Errors
    /// As [`Ui::start`].
    pub fn start_resuming(
        verb: Verb,
        (report, run): (&ReportArgs, &RunArgs),
        resumes: bool,
    ) -> Result<Self, u8> {
        Self::open(verb, report, run, resumes)
    }

    fn open(verb: Verb, report: &ReportArgs, run: &RunArgs, keeps: bool) -> Result<Self, u8> {
        let options = UiOptions::new(verb, report, run);
        let is_terminal = std::io::stderr().is_terminal();
        let console = Arc::new(Console::new(&options, is_terminal));
        let errors_file = match options.errors_to.as_deref().map(ErrorsFile::open) {
            None => None,
            Some(Ok(file)) => Some(file),
            Some(Err(error)) => {
                let error = error.into();
                let code = exit_code::of(&error);
                console.error(&error, code);
                return Err(code);
            }
        };
        let report = ConsoleReporter(Arc::clone(&console));
        let observer = Observer::new(Box::new(report), errors_file, options.max_errors);
        if !keeps && let Err(error) = observer.begin_errors_anew() {
            let code = exit_code::of(&error);
            console.error(&error, code);
            return Err(code);
        }
        let observer = Arc::new(observer);
        for text in &options.announcements {
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
    pub fn finish(self, outcome: &Outcome) -> u8 {
        self.ticker.stop();
        let elapsed = host::elapsed(self.started);
        let code = outcome.exit_code();
        self.console.failures_not_shown();
        for problem in outcome
            .source
            .cut_short
            .iter()
            .chain(&outcome.source.not_had)
            .chain(&outcome.sink.problems)
        {
            self.console.warning(problem);
        }
        if let Some(text) = export_failed_text(&outcome.source.export_failed) {
            self.console.warning(&text);
        }
        for line in &outcome.source.export_lacks {
            self.console.warning(&export_lacks_text(line));
        }
        let undecoded = &outcome.sink.undecoded;
        if let Some(text) = undecoded.warning() {
            self.console.warning(&text);
        }
        if let Some(text) = undecoded.notice() {
            self.console.notice(&text);
        }
        let converts = self.options.verb == Verb::Convert;
        let outside = outcome.source.outside.iter();
        // What convert does with it, it has said.
        for outside in outside.filter(|outside| !(converts && outside.kept)) {
            let text = outside.text(self.options.verb);
            let moves = matches!(
                self.options.verb,
                Verb::Export | Verb::Copy | Verb::Import | Verb::Convert
            );
            match moves && (!outside.kept || self.options.verb == Verb::Import) {
                true => self.console.warning(&text),
                false => self.console.notice(&text),
            }
        }
        match &outcome.error {
            Some(error) => self.console.error(error, code),
            None => warn_if_nothing_matched(&self.console, outcome),
        }
        // Nothing flowed: the error says it all, and a ledger of zeros would only hide it.
        let is_early = outcome.error.is_some() && outcome.source.counts.is_empty();
        let is_silent = self.options.quiet && code == exit::OK;
        if self.options.json {
            session::summary(summary::json(&self.options, outcome, code, elapsed));
        } else if !is_early && !is_silent {
            self.console
                .line(&summary::final_line(&self.options, outcome, code, elapsed));
        }
        code
    }

    /// Ends the display of a verb that prints its own result.
    pub fn close(self) {
        self.ticker.stop();
    }
}

/// Prints an error that came before any ui, or in a verb without one; returns the exit code.
pub fn print_error(error: &anyhow::Error) -> u8 {
    let code = exit_code::of(error);
    Console::of_session().error(error, code);
    code
}

/// Prints a line in a verb that has no ledger.
pub fn print_line(text: &str) {
    Console::of_session().notice(text);
}

/// Warns if keys were selected and none came.
fn warn_if_nothing_matched(console: &Console, outcome: &Outcome) {
    let total = outcome.source.total();
    if total.written + total.superseded + total.failed == 0
        && let Some(text) = nothing_matched()
    {
        console.warning(&text);
    }
}

/// The same in a verb that prints its own result: `matched` keys were found.
pub fn check_matched(matched: u64) {
    if matched == 0
        && let Some(text) = nothing_matched()
    {
        print_warning(&text);
    }
}

fn nothing_matched() -> Option<String> {
    let flags = session::selection()?;
    Some(format!("no key matched the selection ({flags})"))
}

/// Prints a warning in a verb that prints its own result.
pub fn print_warning(text: &str) {
    Console::of_session().warning(text);
}

#[cfg(test)]
mod tests;
