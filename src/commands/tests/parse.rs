use std::ffi::OsString;

use crate::cli::parse::{Ended, parse};
use crate::commands::Cli;

#[test]
fn usage_errors_do_not_quote_urls() {
    for line in [
        "redis-migrate copy redis://a redis://b redis://u:hunter2@c",
        "redis-migrate export redis://a --level=redis://u:hunter2@c",
        "redis-migrate redis://u:hunter2@c",
        "redis-migrate u:hunter2@c",
    ] {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let Err(Ended::Usage { text, coloured }) = parse::<Cli>(&args) else {
            panic!("{line}");
        };
        assert!(!text.contains("hunter2"), "{text}");
        assert!(coloured.is_none(), "{line}");
    }
}
