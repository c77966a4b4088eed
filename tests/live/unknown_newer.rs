//! Servers newer than the table of dialects knows, where Debian offers one: what becomes of every
//! type from and to them. Nothing is known of such a server, so nothing here fails. What is seen
//! is printed as a table, for whoever adds the version to the table of dialects.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::servers::{TestServer, Version, announce, require};
use crate::support::tool::{Output, Tool};

#[test]
fn unknown_newer() {
    let newer: Vec<Version> = Version::NEWER.into_iter().filter_map(require).collect();
    if newer.is_empty() {
        return;
    }
    let mut table = String::from(
        "\n| from | to | by | exit code | differences | first words |\n|---|---|---|---|---|---|\n",
    );
    for version in newer {
        let known = match version.is_valkey() {
            true => Version::Valkey91,
            false => Version::Redis86,
        };
        let pairs = [(version, version), (version, known), (known, version)];
        for (from, to) in pairs {
            for by in ["archive", "copy"] {
                table.push_str(&row(from, to, by));
            }
        }
    }
    announce(&table);
}

/// One row of the table; a panic becomes a row too.
fn row(from: Version, to: Version, by: &str) -> String {
    let tried = catch_unwind(AssertUnwindSafe(|| round_trip(from, to, by)));
    let cells = tried.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        format!(
            "- | - | the test itself: {}",
            first_words(text.unwrap_or(""))
        )
    });
    let exact = |version: Version| format!("{version} ({})", version.exact());
    format!("| {} | {} | {by} | {cells} |\n", exact(from), exact(to))
}

/// Runs the tool, but not for ever: a server like this may leave it waiting.
fn bounded(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut running = Tool::new(arguments).stdin_bytes(stdin).spawn();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !running.has_ended() {
        if Instant::now() > deadline {
            running.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    running.wait()
}

/// Exit code, number of differences, and what was said.
fn round_trip(from: Version, to: Version, by: &str) -> String {
    let (source, destination) = (TestServer::start(from), TestServer::start(to));
    fill_every_type(&mut source.client(), from);
    let output = match by {
        "copy" => bounded(&["copy", &source.url(), &destination.url()], &[]),
        _ => {
            let export = bounded(&["export", &source.url()], &[]);
            match export.code() {
                Some(0) => bounded(&["import", &destination.url()], &export.stdout),
                _ => return cells(&export, "-"),
            }
        }
    };
    let options = Options {
        ignore_zero_sign: true,
        ..Options::default()
    };
    let found = differences(&mut source.client(), &mut destination.client(), &options);
    cells(&output, &found.len().to_string())
}

fn cells(output: &Output, differences: &str) -> String {
    let code = output
        .code()
        .map_or("-".to_owned(), |code| code.to_string());
    let said = match output.code() {
        Some(0) => String::new(),
        _ => first_words(&output.stderr),
    };
    format!("{code} | {differences} | {said}")
}

/// The first line, as one cell holds it.
fn first_words(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line: String = line.unwrap_or("").chars().take(120).collect();
    line.replace('|', "/")
}
