//! redis-migrate: see the library's documentation for the map of the code.

use std::process::ExitCode;

use anyhow::Context as _;
use redis_migrate::cli::{Verb, alias, parse, resolve};
use redis_migrate::commands::{
    completions, convert, copy, diff, doctor, export, extract, import, inspect, list, report,
    salvage, verify,
};
use redis_migrate::pipe::Stop;
use redis_migrate::{exit, ui};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    let expanded = alias::expand(std::env::args_os().collect(), &resolve::process_env);
    let mut verb = match parse::parse(expanded.args) {
        Ok(cli) => cli.verb,
        Err(code) => return ExitCode::from(code),
    };
    if let Verb::Copy(args) = &mut verb {
        args.report.announcements = expanded.announcements;
    }
    let stop = Stop::new();
    if let Err(error) = watch_signals(&stop) {
        return ExitCode::from(ui::print_error(&error));
    }
    ExitCode::from(match &verb {
        Verb::Export(args) => export::run(args, &stop),
        Verb::Import(args) => import::run(args, &stop),
        Verb::Copy(args) => copy::run(args, &stop),
        Verb::Convert(args) => convert::run(args, &stop),
        Verb::Verify(args) => verify::run(args, &stop),
        Verb::Diff(args) => diff::run(args, &stop),
        Verb::List(args) => list::run(args, &stop),
        Verb::Inspect(args) => inspect::run(args, &stop),
        Verb::Report(args) => report::run(args, &stop),
        Verb::Extract(args) => extract::run(args, &stop),
        Verb::Salvage(args) => salvage::run(args, &stop),
        Verb::Doctor(args) => doctor::run(args, &stop),
        Verb::Completions(args) => completions::run(args),
        Verb::ManPages(args) => completions::run_man_pages(args),
    })
}

/// The first SIGINT or SIGTERM asks the run to stop; the second ends the process at once.
fn watch_signals(stop: &Stop) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the first signal the flag is not yet set, and nothing is shut down.
        flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), stop.flag())
            .and_then(|_| flag::register(signal, stop.flag()))
            .context("watch for signals")?;
    }
    Ok(())
}
