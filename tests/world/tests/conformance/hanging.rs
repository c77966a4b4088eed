//! A server that stands still in the middle of an EXEC: what sees the time that went by.

use std::time::{Duration, Instant};

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

/// What a server that ends in the middle of an EXEC had done by then, as another process finds it on
/// its disk, and as a replica of it has it.
#[derive(Debug, PartialEq)]
struct Done {
    on_disk: bool,
    at_the_replica: bool,
}

fn real_crash(release: &'static Release) -> Done {
    // Whoever knows the last option needs it. A replica is served at once.
    let options = [
        "--appendonly",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
        "--enable-debug-command",
        "yes",
    ];
    let (mut server, options) = [&options[..], &options[..4]]
        .iter()
        .find_map(|options| Some((Real::try_start(release, options)?, *options)))
        .expect("a server that starts");
    let port = server.port.to_string();
    let replica = Real::start(release, &["--replicaof", "127.0.0.1", &port]);
    let mut connection = server.connect();
    let mut ask = |line: &str| connection.ask(&words(line)).expect("an answer");
    ask("SET kept v");
    let start = Instant::now();
    while !has_kept(&replica) {
        assert!(start.elapsed() < Duration::from_secs(10), "no replica");
        std::thread::sleep(Duration::from_millis(20));
    }
    for line in ["MULTI", "DEL kept", "DEBUG SLEEP 5"] {
        ask(line);
    }
    connection.send(&resp::pack(&words("EXEC")));
    std::thread::sleep(Duration::from_millis(STILL_MS));
    server.crash();
    std::thread::sleep(Duration::from_millis(STILL_MS));
    let at_the_replica = !has_kept(&replica);
    server.start_again(release, options);
    Done {
        on_disk: !has_kept(&server),
        at_the_replica,
    }
}

fn has_kept(server: &Real) -> bool {
    server.connect().ask(&words("EXISTS kept")) == Some(Value::Int(1))
}

fn model_crash(release: &'static Release) -> Done {
    let mut server = Server::new(Config::new(release), 1);
    let mut replica = Server::new(Config::new(release), 2);
    server.attach(&mut replica);
    let client = server.connect().expect("a client");
    let now_ms = 1_764_000_000_000;
    let lines = b"SET kept v\r\nMULTI\r\nDEL kept\r\nPING\r\n";
    server.receive(client, lines, now_ms);
    server.replicate(&mut replica, usize::MAX, now_ms);
    server.plan(Fault {
        command: "ping".to_owned(),
        nth: 1,
        in_exec: true,
        answer: Answer::Late(STILL_MS),
    });
    server.receive(client, b"EXEC\r\n", now_ms);
    assert!(server.keyspace().get(0, b"kept").is_none(), "it is deleted");
    server.forget_hung_exec();
    server.restart(None);
    server.replicate(&mut replica, usize::MAX, now_ms);
    Done {
        on_disk: server.keyspace().get(0, b"kept").is_none(),
        at_the_replica: replica.keyspace().get(0, b"kept").is_none(),
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

#[test]
fn an_exec_in_which_the_server_ends_has_done_nothing() {
    for release in real::available() {
        assert_eq!(
            model_crash(release),
            real_crash(release),
            "{}",
            release.name
        );
    }
}
