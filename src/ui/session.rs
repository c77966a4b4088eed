//! What the whole process says in JSON. One place decides where it goes, and one place prints the
//! summary, so that every outcome of every verb ends with exactly one.
//!
//! With `--json`, results and the summary go to standard output; where that carries data (an archive,
//! an RDB file, a value) the summary is the last line on standard error. Messages, errors and
//! progress are JSON on standard error.

use std::io::{self, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::SCHEMA_VERSION;
use super::console::Console;
use crate::cli::outline::Outline;
use crate::escape::json_text;
use crate::exit;
use crate::verb::Verb;

/// The one session of this process. Unset in unit tests and in programs that use the library.
static SESSION: OnceLock<Session> = OnceLock::new();

struct Session {
    outline: Outline,
    said: Mutex<SaidSoFar>,
}

#[derive(Default)]
struct SaidSoFar {
    /// What the verb has to say at its end.
    summary: Option<Value>,
    /// The last error that was printed.
    error: Option<String>,
    /// Standard output is a file that nothing must be written to.
    spares_stdout: bool,
}

/// Begins the session of a command line.
pub fn begin(outline: Outline) {
    let said = Mutex::default();
    // A second beginning is a mistake of the caller's, and the first one stands.
    let _ = SESSION.set(Session { outline, said });
}

fn tell(change: impl FnOnce(&mut SaidSoFar)) {
    if let Some(session) = SESSION.get() {
        change(&mut session.said.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Whether messages on standard error are JSON.
pub(super) fn messages_are_json() -> bool {
    SESSION.get().is_some_and(|session| {
        let outline = &session.outline;
        outline.json || outline.json_progress
    })
}

/// Prints why a command line cannot be run; the exit code. `coloured` is the same for a terminal.
pub fn usage(text: &str, coloured: Option<&clap::Error>) -> u8 {
    failed(text.trim_end().trim_start_matches("error: "));
    if messages_are_json() {
        Console::of_session().json(json!({
            "event": "error",
            "text": text.trim_end(),
            "exit_code": exit::USAGE,
        }));
    } else if let Some(error) = coloured {
        let _ = error.print();
    } else {
        let _ = io::stderr().write_all(text.as_bytes());
    }
    exit::USAGE
}

/// What a verb has to say at its end. `schema_version`, `event`, `verb` and `exit_code` are put in,
/// and `error` where it has none, when it is printed by [`conclude`].
pub fn summary(object: Value) {
    tell(|said| said.summary = Some(object));
}

/// Remembers an error that was printed, for the summary.
pub(super) fn failed(text: &str) {
    tell(|said| said.error = Some(text.to_owned()));
}

/// Nothing is to be printed on standard output, which is the input itself.
pub fn spare_stdout() {
    tell(|said| said.spares_stdout = true);
}

/// The flags that restrict the run to some keys, if there are any.
pub(super) fn selection() -> Option<String> {
    SESSION.get()?.outline.selection()
}

/// Ends the session: prints the summary, where JSON was asked for. The exit code of the process.
pub fn conclude(code: u8) -> u8 {
    let Some(session) = SESSION.get() else {
        return code;
    };
    let outline = &session.outline;
    if !outline.json && !outline.json_progress {
        return code;
    }
    let said = std::mem::take(&mut *session.said.lock().unwrap_or_else(PoisonError::into_inner));
    let is_for_stderr = !outline.json || outline.stdout_is_data || said.spares_stdout;
    let line = format!("{}\n", json_text(&object(outline.verb, said, code)));
    if is_for_stderr {
        let _ = io::stderr().write_all(line.as_bytes());
        return code;
    }
    let mut out = io::stdout().lock();
    let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) else {
        return code;
    };
    let error = anyhow::Error::new(error).context("cannot write to standard output");
    if exit::is_broken_pipe(&error) {
        return code;
    }
    let failed = exit::strongest(&[code, exit::FAILED]);
    Console::of_session().error(&error, failed);
    failed
}

fn object(verb: Option<Verb>, said: SaidSoFar, code: u8) -> Value {
    let mut object = said
        .summary
        .unwrap_or_else(|| json!({ "complete": code == exit::OK }));
    if object.get("error").is_none_or(Value::is_null) {
        object["error"] = json!(said.error);
    }
    for (name, value) in [
        ("schema_version", json!(SCHEMA_VERSION)),
        ("event", json!("summary")),
        ("verb", json!(verb.map(|verb| verb.name))),
        ("exit_code", json!(code)),
    ] {
        object[name] = value;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::tests::EXPORT;

    #[test]
    fn a_summary_says_what_really_came_of_it() {
        let said = SaidSoFar {
            summary: Some(json!({ "exit_code": 0, "keys": 3, "error": null })),
            error: Some("the disk is full".to_owned()),
            ..SaidSoFar::default()
        };
        let said = object(Some(EXPORT), said, 1);
        assert_eq!(said["exit_code"], 1);
        assert_eq!(said["keys"], 3);
        assert_eq!(said["error"], "the disk is full");
        let said = object(None, SaidSoFar::default(), 2);
        assert_eq!(
            (&said["complete"], &said["verb"]),
            (&json!(false), &json!(null))
        );
        assert_eq!(said["event"], "summary");
    }
}
