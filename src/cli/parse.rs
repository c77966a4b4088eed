//! From arguments to [`Cli`]. clap's messages quote arguments, and an argument may be a URL with a
//! password in it; those are taken out before anything is printed.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;
use crate::exit;

/// Parses the arguments, program name first.
///
/// # Errors
/// The exit code, when the program ends here: after help, version or a usage error, which are
/// printed.
pub fn parse(args: Vec<OsString>) -> Result<Cli, u8> {
    Cli::try_parse_from(&args).map_err(|error| {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // To standard output; a reader that went away has seen enough.
                let _ = error.print();
                return exit::OK;
            }
            _ if args.iter().any(|arg| may_be_secret(&arg.to_string_lossy())) => {
                eprint!("{}", without_urls(&error.to_string(), &args));
            }
            _ => {
                let _ = error.print();
            }
        }
        exit::USAGE
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_do_not_quote_urls() {
        for line in [
            "redis-migrate copy redis://a redis://b redis://u:hunter2@c",
            "redis-migrate export redis://a --level=redis://u:hunter2@c",
            "redis-migrate redis://u:hunter2@c",
            "redis-migrate u:hunter2@c",
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let error = match Cli::try_parse_from(&args) {
                Ok(_) => panic!("{line}"),
                Err(error) => error.to_string(),
            };
            let text = without_urls(&error, &args);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
