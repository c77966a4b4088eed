//! A server that stands still in the middle of an EXEC: what sees the time that went by.

use redis_migrate_world::server::{Answer, Config, Fault, Release, Server};

use super::real::{self, Real};
use super::resp::{self, Value};

/// How long it stands still, in ms.
const STILL_MS: u64 = 300;

/// What had to be noticed to count as the same moment or as a later one, in ms.
const NOTICED_MS: i64 = 150;

/// What an EXEC saw of the time in which the server stood still.
#[derive(Debug, PartialEq)]
struct Seen {
    by_pttl: bool,
    by_time: bool,
    /// A key was past its time in between.
    by_expiry: bool,
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn seen(before: &[Value], after: &[Value]) -> Seen {
    let number = |value: &Value| match value {
        Value::Int(number) => *number,
        Value::Bulk(text) => String::from_utf8_lossy(text).parse().expect("a number"),
        other => panic!("no number: {other:?}"),
    };
    let ms = |time: &Value| match time {
        Value::Array(parts) => number(&parts[0]) * 1000 + number(&parts[1]) / 1000,
        other => panic!("no time: {other:?}"),
    };
    Seen {
        by_pttl: number(&before[0]) - number(&after[0]) >= NOTICED_MS,
        by_time: ms(&after[1]) - ms(&before[1]) >= NOTICED_MS,
        by_expiry: number(&after[2]) == 0,
    }
}

fn real(release: &'static Release) -> Seen {
    // Whoever knows this option needs it.
    let options: &[&[&str]] = &[&["--enable-debug-command", "yes"], &[]];
    let server = options
        .iter()
        .find_map(|options| Real::try_start(release, options))
        .expect("a server that starts");
    let mut connection = server.connect();
    let mut ask = |line: &str| connection.ask(&words(line)).expect("an answer");
    ask("SET lasts v PX 100000");
    ask("SET goes v PX 200");
    ask("MULTI");
    for line in ["PTTL lasts", "TIME", "DEBUG SLEEP 0.3"] {
        ask(line);
    }
    for line in ["PTTL lasts", "TIME", "EXISTS goes"] {
        ask(line);
    }
    match ask("EXEC") {
        Value::Array(replies) => seen(&replies[..2], &replies[3..]),
        other => panic!("{other:?}"),
    }
}

fn model(release: &'static Release) -> Seen {
    let mut server = Server::new(Config::new(release), 1);
    let client = server.connect().expect("a client");
    server.plan(Fault {
        command: "pttl".to_owned(),
        nth: 2,
        in_exec: true,
        answer: Answer::Late(STILL_MS),
    });
    let lines = "SET lasts v PX 100000\r\nSET goes v PX 200\r\nMULTI\r\nPTTL lasts\r\nTIME\r\n\
                 PTTL lasts\r\nTIME\r\nEXISTS goes\r\n";
    server.receive(client, lines.as_bytes(), 1_764_000_000_000);
    server.outbox(client);
    server.receive(client, b"EXEC\r\n", 1_764_000_000_000);
    assert_eq!(server.take_hung_ms(), STILL_MS);
    let said = server.outbox(client);
    match resp::read(&said) {
        Some((Value::Array(replies), _)) => seen(&replies[..2], &replies[2..]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_stands_still_within_exec_shows_it_alike() {
    for release in real::available() {
        assert_eq!(model(release), real(release), "{}", release.name);
    }
}
