//! From arguments to what they say. clap's messages quote arguments, and an argument may be a URL with a
//! password in it; those are taken out before anything is printed.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::habits;
use crate::escape::clean_lines;

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Ended {
    /// Help or the version was asked for, and is printed.
    Told,
    /// A usage error: what to print, safe to show. Colours are in `coloured` only, which is there
    /// where no argument comes into question for hiding anything.
    Usage {
        /// As clap words it, several lines.
        text: String,
        /// The error as clap prints it.
        coloured: Option<clap::Error>,
    },
}

/// Parses the arguments, program name first.
///
/// # Errors
/// [`Ended`], when the program ends here.
pub fn parse<C: Parser>(args: &[OsString]) -> Result<C, Ended> {
    if let Some(advice) = habits::advice(&C::command(), args) {
        return Err(Ended::Usage {
            text: format!("error: {advice}\n"),
            coloured: None,
        });
    }
    C::try_parse_from(args).map_err(|error| {
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            // To standard output; a reader that went away has seen enough.
            let _ = error.print();
            return Ended::Told;
        }
        let shown = error.to_string();
        let text = clean_lines(&without_urls(&shown, args)).into_owned();
        Ended::Usage {
            coloured: (text == shown).then_some(error),
            text,
        }
    })
}

/// Whether it is a URL, or was meant as one.
fn may_be_secret(arg: &str) -> bool {
    arg.contains("://") || arg.contains('@')
}

/// The text with every argument that is, or holds, a URL left out.
fn without_urls(text: &str, args: &[OsString]) -> String {
    let mut text = text.to_owned();
    for arg in args {
        let arg = arg.to_string_lossy();
        let value = match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => value,
            _ => &arg,
        };
        if may_be_secret(value) {
            text = text.replace(value, "<URL>");
        }
    }
    text
}
