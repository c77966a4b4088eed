use std::ffi::OsString;

use crate::cli::outline::Outline;
use crate::commands::Cli;

fn outline_of(line: &str) -> Outline {
    let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    Cli::outline(&args)
}

#[test]
fn a_line_that_cannot_be_parsed_has_an_outline() {
    let outline = outline_of("redis-migrate import --frobnicate redis://h --json --progress=json");
    assert_eq!(outline.verb.map(|verb| verb.name), Some("import"));
    assert!(outline.json && outline.json_progress && !outline.stdout_is_data);
    assert_eq!(Cli::outline(&[]).verb, None);
    // The value of a flag, and what comes behind --, are no flags.
    assert!(!outline_of("redis-migrate list --match --json").json);
    assert!(!outline_of("redis-migrate list -- --json").json);
    assert_eq!(outline_of("redis-migrate frob --json").verb, None);
}

#[test]
fn the_selection_is_told_as_it_was_written() {
    let line = "redis-migrate list --match=featuer:* x --with-ttl -q";
    let selection = outline_of(line).selection();
    assert_eq!(selection.as_deref(), Some("--match featuer:* --with-ttl"));
    assert_eq!(outline_of("redis-migrate list x").selection(), None);
}

#[test]
fn standard_output_carries_data_where_no_file_is_named() {
    for (line, is_data) in [
        ("redis-migrate export redis://h", true),
        ("redis-migrate export redis://h -o -", true),
        ("redis-migrate export redis://h -o x", false),
        ("redis-migrate export redis://h -qox", false),
        ("redis-migrate export redis://h --output=x", false),
        ("redis-migrate export redis://h --dry-run", false),
        ("redis-migrate convert in.rmz --to jsonl", true),
        ("redis-migrate convert in.rmz --to jsonl out", false),
        ("redis-migrate convert in.rmz -", true),
        ("redis-migrate salvage x", true),
        ("redis-migrate extract x --key k -o f", false),
        ("redis-migrate report x", true),
        ("redis-migrate report x --json", false),
        ("redis-migrate report x -q", false),
        ("redis-migrate salvage x -o y --json", false),
        ("redis-migrate list x --json", false),
        ("redis-migrate inspect x", false),
        ("redis-migrate completions bash", false),
        ("redis-migrate verify x", false),
        ("redis-migrate import redis://h x", false),
    ] {
        assert_eq!(outline_of(line).stdout_is_data, is_data, "{line}");
    }
}
