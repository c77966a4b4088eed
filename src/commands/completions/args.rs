//! Arguments of the verbs that are about the tool itself.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
`make install` and packages install them already.

Examples:
  redis-migrate completions bash > ~/.local/share/bash-completion/completions/redis-migrate
  redis-migrate completions zsh > ~/.zfunc/_redis-migrate        (with ~/.zfunc in fpath)
  redis-migrate completions fish > ~/.config/fish/completions/redis-migrate.fish")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// `man-pages`, which is not listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  redis-migrate man-pages target/man")]
pub struct ManPagesArgs {
    /// Where to write them; it is made if it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
