//! Lines on standard error, as text or as JSON.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{FAILURES_SHOWN, SCHEMA_VERSION, UiOptions, advice, session};
use crate::escape::{clean, json_text};
use crate::exit_code;
use crate::observer::{Event, KeyFailure, Reporter};
use crate::units::plural;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const PLAIN: &str = "\x1b[0m";

/// Standard error.
pub(super) struct Console {
    json: bool,
    quiet: bool,
    verbose: bool,
    colour: bool,
    failures: AtomicU64,
    /// While a bar is drawn, lines go above it.
    bar: OnceLock<ProgressBar>,
}

pub(super) struct ConsoleReporter(pub Arc<Console>);

impl Reporter for ConsoleReporter {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Notice(text) => self.0.notice(text),
            Event::Warning(text) => self.0.warning(text),
            Event::KeyFailed(failure) => self.0.key_failed(failure),
        }
    }
}

/// The chain of causes in one line. Some causes are quoted by what they caused; they are not said
/// twice.
pub(super) fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl Console {
    pub fn new(options: &UiOptions, is_terminal: bool) -> Self {
        Self {
            json: options.json,
            quiet: options.quiet,
            verbose: options.verbose,
            ..Self::plain(is_terminal)
        }
    }

    /// Of a verb that has no run: everything, as JSON if the session says so.
    pub fn of_session() -> Self {
        Self {
            json: session::messages_are_json(),
            ..Self::plain(std::io::stderr().is_terminal())
        }
    }

    fn plain(is_terminal: bool) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let no_colour = is_set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            json: false,
            quiet: false,
            verbose: false,
            colour: is_terminal && !no_colour,
            failures: AtomicU64::new(0),
            bar: OnceLock::new(),
        }
    }

    pub fn attach(&self, bar: &ProgressBar) {
        let _ = self.bar.set(bar.clone());
    }

    pub fn line(&self, text: &str) {
        self.write(&clean(text));
    }

    /// One line that is clean already. A standard error that cannot be written to is nothing to fail
    /// for.
    fn write(&self, text: &str) {
        let line = format!("{text}\n");
        let write = || {
            let _ = std::io::stderr().write_all(line.as_bytes());
        };
        match self.bar.get() {
            Some(bar) if !bar.is_finished() => bar.suspend(write),
            _ => write(),
        }
    }

    /// One JSON object; `schema_version` is added.
    pub fn json(&self, mut object: Value) {
        object["schema_version"] = json!(SCHEMA_VERSION);
        self.write(&json_text(&object));
    }

    fn labelled(&self, colour: &str, label: &str, text: &str) {
        let text = clean(text);
        if self.colour {
            self.write(&format!("{colour}{label}{PLAIN} {text}"));
        } else {
            self.write(&format!("{label} {text}"));
        }
    }

    pub fn notice(&self, text: &str) {
        if self.quiet {
        } else if self.json {
            self.json(json!({ "event": "notice", "text": text }));
        } else {
            self.line(text);
        }
    }

    pub fn warning(&self, text: &str) {
        if self.json {
            self.json(json!({ "event": "warning", "text": text }));
        } else {
            self.labelled(YELLOW, "warning:", text);
        }
    }

    fn key_failed(&self, failure: &KeyFailure) {
        let before = self.failures.fetch_add(1, Relaxed);
        if before >= FAILURES_SHOWN && !self.verbose {
            return;
        }
        if self.json {
            return self.json(failure.json());
        }
        let label = format!("{}:", failure.kind.name());
        self.labelled(RED, &label, &failure.text());
    }

    /// Prints an error; the exit code that it stands for.
    pub fn failed(&self, error: &anyhow::Error) -> u8 {
        let code = exit_code::of(error);
        self.error(error, code);
        code
    }

    /// Counts the failures that were not printed one by one.
    pub fn failures_not_shown(&self) {
        let more = self.failures.load(Relaxed).saturating_sub(FAILURES_SHOWN);
        if more > 0 && !self.verbose && !self.json {
            self.line(&format!(
                "… and {} failed; -v prints them all, --errors-to FILE records them",
                plural(more, "more key")
            ));
        }
    }

    /// What happened, and what to do.
    pub fn error(&self, error: &anyhow::Error, code: u8) {
        let advice = advice::of(error);
        session::failed(&error_text(error));
        if self.json {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            return self.json(json!({
                "event": "error",
                "text": error_text(error),
                "causes": causes,
                "advice": advice,
                "exit_code": code,
            }));
        }
        self.labelled(RED, "error:", &error_text(error));
        if let Some(advice) = advice {
            self.line(&format!("  help: {advice}"));
        }
    }
}
