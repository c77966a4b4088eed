use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::cli::habits;
use crate::commands::Cli;

#[test]
fn flags_of_redis_cli_are_explained() {
    let advice = |line: &str| {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        habits::advice(&Cli::command(), &args)
    };
    for (line, word) in [
        ("redis-migrate export -h localhost -p 6379", "-h is help"),
        ("redis-migrate export -h 10.0.0.1", "-h is help"),
        ("redis-migrate export -h10.0.0.1", "-h is help"),
        ("redis-migrate -h localhost", "-h is help"),
        ("redis-migrate export -p 6379 -h", "port"),
        ("redis-migrate export redis://h -a secret", "--askpass"),
        (
            "redis-migrate import redis://h -n 3 x",
            "redis://HOST:PORT/N",
        ),
        ("redis-migrate export -u redis://h", "alone"),
        ("redis-migrate export -p6379", "port"),
    ] {
        let found = advice(line);
        assert!(
            found.is_some_and(|text| text.contains(word)),
            "{line}: {found:?}"
        );
    }
    for line in [
        "redis-migrate export -h",
        "redis-migrate -h",
        "redis-migrate -h export",
        "redis-migrate export redis://h -h",
        "redis-migrate export -h -q",
        "redis-migrate export -hq",
        "redis-migrate export redis://h --match -p x",
        "redis-migrate export redis://h -- -p x",
        "redis-migrate extract x -k -a",
        "redis-migrate",
    ] {
        assert_eq!(advice(line), None, "{line}");
    }
}
