//! redis-migrate: see the library's documentation for the map of the code.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use redis_migrate::cli::parse::{self, Ended};
use redis_migrate::cli::{alias, resolve};
use redis_migrate::commands::{Cli, Invocation};
use redis_migrate::pipe::Stop;
use redis_migrate::place::{self, Writing};
use redis_migrate::ui::{self, session};
use redis_migrate::{exit, limits};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

fn main() -> ExitCode {
    limits::fit_into_address_space();
    let expanded = alias::expand(std::env::args_os().collect(), &resolve::process_env);
    let outline = Cli::outline(&expanded.args);
    let stdout_is_data = outline.stdout_is_data;
    session::begin(outline);
    let code = match parse::parse::<Cli>(&expanded.args) {
        // There is no outcome to tell of.
        Err(Ended::Told) => return ExitCode::SUCCESS,
        Err(Ended::Usage { text, coloured }) => session::usage(&text, coloured.as_ref()),
        Ok(cli) => {
            let mut verb = cli.verb;
            if let Invocation::Copy(args) = &mut verb {
                args.report.announcements = expanded.announcements;
            }
            let prepared = prepare(&verb, stdout_is_data);
            let done = prepared.and_then(|stop| verb.run(&stop));
            done.unwrap_or_else(|error| ui::print_error(&error))
        }
    };
    ExitCode::from(session::conclude(code))
}

/// What comes before every verb: nothing is opened, written or connected to yet.
fn prepare(verb: &Invocation, stdout_is_data: bool) -> anyhow::Result<Stop> {
    let files = verb.files();
    if place::overwritten(&Writing::Stdout, &files.reads).is_some() {
        session::spare_stdout();
    }
    place::keep_apart(&files.reads, &files.writes)?;
    if stdout_is_data {
        place::refuse_closed_stdout()?;
    }
    let stop = Stop::new();
    watch_signals(&stop)?;
    Ok(stop)
}

/// The first SIGINT or SIGTERM asks the run to stop; the second ends the process at once. A file
/// that grows beyond `ulimit -f` must not end it: with a handler, the write fails with EFBIG instead.
fn watch_signals(stop: &Stop) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the first signal the flag is not yet set, and nothing is shut down.
        flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), stop.flag())
            .and_then(|_| flag::register(signal, stop.flag()))
            .context("cannot watch for signals")?;
    }
    flag::register(SIGXFSZ, Arc::default()).context("cannot watch for signals")?;
    Ok(())
}
