//! The form of the tool this one replaces: `redis-migrate SRC DEST`, steered by environment
//! variables. It is `copy`, and in this form only, `DRY_RUN`, `DEBUG`, `REPLACE_DST_KEYS` and
//! `CLEAN_UP` count; each is announced.

use std::ffi::{OsStr, OsString};

use super::resolve::Env;
use crate::place::Place;

/// What became of the arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Arguments for clap, program name first.
    pub args: Vec<OsString>,
    /// What to tell the user.
    pub announcements: Vec<String>,
}

/// Variable, the flag it stands for, and the flags on the command line that overrule it.
const VARIABLES: [(&str, &str, &[&str]); 4] = [
    ("DRY_RUN", "--dry-run", &[]),
    ("DEBUG", "--verbose", &["-q", "--quiet", "-v"]),
    (
        "REPLACE_DST_KEYS",
        "--replace",
        &["--on-conflict", "--replace"],
    ),
    ("CLEAN_UP", "--delete-source", &[]),
];

/// Turns the two-URL form into `copy`; leaves everything else as it is.
pub fn expand(args: Vec<OsString>, env: Env<'_>) -> Expanded {
    let first_word = args
        .iter()
        .skip(1)
        .find(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    let is_alias = first_word.is_some_and(|word| Place::of(word).is_server());
    if !is_alias {
        return Expanded {
            args,
            announcements: Vec::new(),
        };
    }
    let mut expanded = Expanded {
        args,
        announcements: vec!["two URLs without a verb mean copy".to_owned()],
    };
    let at = expanded.args.len().min(1);
    expanded.args.insert(at, "copy".into());
    for (variable, flag, overruled_by) in VARIABLES {
        let is_given = |name: &&str| expanded.args.iter().any(|arg| is_flag(arg, name));
        if !env(variable).is_some_and(|value| is_on(&value))
            || is_given(&flag)
            || overruled_by.iter().any(is_given)
        {
            continue;
        }
        expanded
            .announcements
            .push(format!("{variable} is set: running with {flag}"));
        // In front, so that a `--` among the arguments does not swallow it.
        expanded.args.insert(at + 1, flag.into());
    }
    expanded
}

fn is_flag(arg: &OsStr, name: &str) -> bool {
    arg.as_encoded_bytes()
        .strip_prefix(name.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

/// Whether a variable is set to anything but 0, false, no, off or nothing.
fn is_on(value: &OsStr) -> bool {
    let text = value.to_string_lossy();
    let text = text.trim();
    !["", "0", "false", "no", "off"]
        .iter()
        .any(|off| text.eq_ignore_ascii_case(off))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Invocation};

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
}
