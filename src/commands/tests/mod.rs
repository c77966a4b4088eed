//! The command line as a whole: `cli`, which lists no verbs, with all of them.

mod alias;
mod habits;
mod outline;
mod parse;
mod resolve;

use super::*;

#[test]
fn every_verb_is_known_by_its_name() {
    let command = Cli::command();
    let names: Vec<&str> = command
        .get_subcommands()
        .map(|verb| verb.get_name())
        .collect();
    let known: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    assert_eq!(known, names);
}
