use std::ffi::OsString;

use clap::Parser as _;

use crate::cli::alias::{Expanded, expand};
use crate::commands::{Cli, Invocation};

fn expand_line(line: &str, vars: &[(&str, &str)]) -> Expanded {
    let args = line.split_whitespace().map(OsString::from).collect();
    expand(args, &|name| {
        let (_, value) = vars.iter().find(|(known, _)| *known == name)?;
        Some(OsString::from(value))
    })
}

#[test]
fn two_urls_mean_copy() {
    let vars = [
        ("DRY_RUN", "1"),
        ("DEBUG", "true"),
        ("REPLACE_DST_KEYS", "yes"),
        ("CLEAN_UP", "on"),
    ];
    let expanded = expand_line("redis-migrate redis://a redis://b", &vars);
    assert_eq!(expanded.announcements.len(), 5);
    let cli = Cli::try_parse_from(&expanded.args).expect("parses");
    let Invocation::Copy(args) = cli.verb else {
        panic!("copy")
    };
    assert!(args.run.dry_run && args.report.verbose && args.write.replace);
    assert!(args.delete_source);
}

#[test]
fn off_words_and_other_verbs_are_left_alone() {
    let vars = [
        ("DRY_RUN", "0"),
        ("DEBUG", "False"),
        ("REPLACE_DST_KEYS", "NO"),
        ("CLEAN_UP", "off"),
    ];
    let expanded = expand_line("redis-migrate redis://a redis://b", &vars);
    assert_eq!(expanded.args.len(), 4);
    let vars = [("DRY_RUN", "1"), ("CLEAN_UP", "1")];
    for line in [
        "redis-migrate copy redis://a redis://b",
        "redis-migrate --help",
        "redis-migrate",
        "",
        "redis-migrate export redis://a",
    ] {
        let expanded = expand_line(line, &vars);
        assert_eq!(expanded.announcements.len(), 0, "{line}");
        assert_eq!(expanded.args.len(), line.split_whitespace().count());
    }
}

#[test]
fn flags_overrule_variables() {
    let vars = [("REPLACE_DST_KEYS", "1"), ("DEBUG", "1"), ("DRY_RUN", "1")];
    let line = "redis-migrate --dry-run redis://a redis://b --on-conflict=skip -q";
    let expanded = expand_line(line, &vars);
    assert_eq!(expanded.announcements.len(), 1);
    assert!(Cli::try_parse_from(&expanded.args).is_ok());
}
