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
