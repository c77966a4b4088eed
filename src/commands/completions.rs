//! `completions` and `man-pages`: what shells and manuals know of the tool, from the definitions of
//! the command line itself.

mod args;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

pub use self::args::{CompletionsArgs, ManPagesArgs};
use super::{Cli, Run, quiet_when_nobody_reads};
use crate::cli::Files;
use crate::exit;
use crate::stop::Stop;
use crate::verb::{Data, Verb};

impl Run for CompletionsArgs {
    const VERB: Verb = Verb {
        name: "completions",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
    }

    fn run(&self, _stop: &Stop) -> Result<u8> {
        completions(self.shell)
    }
}

impl Run for ManPagesArgs {
    const VERB: Verb = Verb {
        name: "man-pages",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
    }

    fn run(&self, _stop: &Stop) -> Result<u8> {
        quiet_when_nobody_reads(man_pages(&self.directory).map(|()| exit::OK))
    }
}

fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    if shell == Shell::Bash {
        script = with_one_spelling(&name, &script);
    }
    let written = io::stdout().write_all(&script);
    quiet_when_nobody_reads(
        written
            .context("cannot write to standard output")
            .map(|()| exit::OK),
    )
}

/// clap_complete 4.6.11 spells a name with a hyphen in two ways, so that nothing behind a verb is
/// completed (<https://github.com/clap-rs/clap/issues/6421>). Where that is mended nothing changes here.
fn with_one_spelling(name: &str, script: &[u8]) -> Vec<u8> {
    let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    String::from_utf8_lossy(script)
        .replace(&wrong, &right)
        .into_bytes()
}

/// One page for the tool and one for each verb.
fn man_pages(directory: &Path) -> Result<()> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot create {shown}"))?;
    let mut tool = Cli::command().disable_help_subcommand(true);
    tool.build();
    let verbs = tool.get_subcommands().filter(|verb| !verb.is_hide_set());
    let verbs: Vec<Command> = verbs
        .map(|verb| {
            let name = format!("{}-{}", tool.get_name(), verb.get_name());
            // What the verb is called in the synopsis stays `redis-migrate VERB`.
            verb.clone().display_name(name)
        })
        .collect();
    for command in verbs.into_iter().chain([tool]) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = directory.join(format!("{name}.1"));
        fs::write(&path, page(command)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn page(command: Command) -> Result<Vec<u8>> {
    let has_verbs = command.has_subcommands();
    let help = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command)
        .source(format!("redis-migrate {}", env!("CARGO_PKG_VERSION")))
        .manual("redis-migrate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_verbs {
        man.render_subcommands_section(&mut page)?;
    }
    notes(&help.unwrap_or_default()).to_writer(&mut page)?;
    Ok(page)
}

/// What stands below the options in `--help`: examples as they are, the rest as text.
fn notes(help: &str) -> Roff {
    let mut roff = Roff::new();
    let (examples, text): (Vec<&str>, Vec<&str>) = help
        .split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
        .partition(|paragraph| paragraph.starts_with("Examples:"));
    if !text.is_empty() {
        roff.control("SH", ["NOTES"]);
    }
    for paragraph in text {
        roff.control("PP", []);
        roff.text([roman(
            paragraph.split_whitespace().collect::<Vec<_>>().join(" "),
        )]);
    }
    for paragraph in examples {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in paragraph.lines().skip(1) {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    roff
}
