//! CLIENT TRACKING: who hears of what, and in which order; CLIENT PAUSE.

use std::time::Duration;

use redis_migrate_world::server::{Config, Server, Since};

use super::play::{Pair, by, now_ms, script};
use super::{compare, real, resp};

/// Scripts after which both must have told the second client of the same names.
const SCRIPTS: &[&str] = &[
    "SET a 1\nSET b 1\nGET a",
    "SET a 1\nDEL a\nDEL a\nDEL nokey",
    "SET a 1\nRENAME a b\nCOPY b c\nMOVE b 1",
    "RPUSH l 1\nLPOP l\nSADD s 1\nSADD s 1\nZADD z 1 a\nZADD z 1 a\nHSET h a 1\nHDEL h nofield",
    "SET a 1\nEXPIRE a 1000\nPERSIST a\nPERSIST a\nPEXPIREAT a 1",
    "XADD s 1-1 a b\nXGROUP CREATE s g 0",
    "MULTI\nSET a 1\nSET b 1\nEXEC",
    "FLUSHDB\nSET a 1",
    "SET a 1\nFLUSHALL",
    "SELECT 1\nSET a 1\nSWAPDB 0 1",
    "SELECT 1\nFLUSHDB",
    "SET k1 1\nDUMP k1\nGET k1\nSETEX k2 100 1",
    "SET a 1 NX\nSET a 1 NX\nSETNX a 1\nAPPEND a x\nINCR a\nGETSET a 1",
    "XADD s 1-1 a b\nXTRIM s MAXLEN 0\nXDEL s 1-1",
];

/// What is told of a command alone, after the keys stood.
const QUIET: &[(&str, &str)] = &[
    (
        "XADD s 1-1 a b\nXGROUP CREATE s g 0",
        "XREADGROUP GROUP g c STREAMS s >",
    ),
    (
        "XADD s 1-1 a b\nXGROUP CREATE s g 0\nXREADGROUP GROUP g c STREAMS s >",
        "XACK s g 1-1",
    ),
    ("XADD s 1-1 a b\nXGROUP CREATE s g 0", "XGROUP SETID s g 0"),
    ("XADD s 1-1 a b\nXGROUP CREATE s g 0", "XGROUP DESTROY s g"),
    ("XADD s 1-1 a b", "XSETID s 9-9"),
    ("XADD s 1-1 a b", "XGROUP CREATE s g 0"),
    ("XADD s 1-1 a b", "XGROUP CREATE t g 0 MKSTREAM"),
    ("SET a 1", "SWAPDB 0 1"),
    ("SET a 1 PX 20\nwait 40", "GET a"),
    ("SET a 1 PX 20\nwait 40", "DUMP a"),
    ("SET a 1 PX 20\nwait 40", "EXISTS a"),
    ("SET a 1 PX 20\nwait 40", "SCAN 0 COUNT 100"),
    ("SET a 1", "SETRANGE a 0 ''"),
    ("SET a 1", "RENAME a a"),
    ("HSET h a 1", "HSET h a 1"),
    ("RPUSH l 1", "LTRIM l 0 -1"),
    ("RPUSH l 1", "LREM l 0 x"),
    ("SET a 1", "GETEX a PERSIST"),
    ("SET a 1", "EXPIRE nokey 10"),
    ("", "FUNCTION FLUSH"),
];

#[test]
fn those_who_track_hear_of_the_same_names() {
    let mut differences = Vec::new();
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R60))
    {
        let mut pair = Pair::new(release);
        let quiet = QUIET.iter().map(|(before, after)| (*before, *after));
        for (before, text) in SCRIPTS.iter().map(|text| ("", *text)).chain(quiet) {
            pair.clear();
            for step in script(before) {
                pair.play(&step);
            }
            pair.play(&by(1, &["HELLO", "3"]));
            pair.play(&by(1, &["CLIENT", "TRACKING", "ON", "BCAST"]));
            for step in script(text) {
                pair.play(&step);
            }
            let (real, model) = pair.pushes(1);
            if real != model {
                differences.push(format!(
                    "{} {before:?} {text:?}\n  real:  {real:?}\n  model: {model:?}",
                    release.name
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A push comes after all replies of its turn, those of the client itself among them.
#[test]
fn pushes_come_after_the_replies_of_a_turn() {
    let requests = |lines: &[&str]| {
        let all = lines.iter().flat_map(|line| {
            let words: Vec<Vec<u8>> = line
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect();
            resp::pack(&words)
        });
        all.collect::<Vec<u8>>()
    };
    let turn = requests(&["SET a 1", "PING", "SET b 2", "PING"]);
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R60))
    {
        let server = real::Real::start(release, &[]);
        let mut connection = server.connect();
        let mut model = Server::new(Config::new(release), 1);
        let id = model.connect().expect("a client");
        for line in ["HELLO 3", "CLIENT TRACKING ON BCAST"] {
            connection.send(&requests(&[line]));
            connection.reply(Duration::from_secs(5)).expect("an answer");
            model.receive(id, &requests(&[line]), now_ms());
            model.end_turn(now_ms());
        }
        model.outbox(id);
        connection.send(&turn);
        let real = connection.raw(Duration::from_millis(200));
        model.receive(id, &turn, now_ms());
        model.end_turn(now_ms());
        let said = model.outbox(id);
        assert_eq!(
            String::from_utf8_lossy(&real),
            String::from_utf8_lossy(&said),
            "{}",
            release.name
        );
    }
}

/// While writes are paused, those who write wait, and the others do not; nothing expires.
#[test]
fn a_pause_holds_up_writes() {
    const PASS: &[&str] = &[
        "GET a",
        "DUMP a",
        "SCAN 0",
        "PING",
        "DBSIZE",
        "TTL a",
        "EVAL_RO 'return 1' 0",
        "MULTI",
        "EVAL '#!lua flags=no-writes\nreturn 1' 0",
        "XINFO STREAM nokey",
        "GET over",
        "EXISTS over",
    ];
    const WAIT: &[&str] = &[
        "SET a 2",
        "DEL a",
        "EXPIRE a 10",
        "EVAL 'return 1' 0",
        "RESTORE x 0 y",
    ];
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R62))
    {
        let mut pair = Pair::new(release);
        pair.clear();
        pair.play(&by(0, &["SET", "a", "1"]));
        pair.play(&by(0, &["SET", "over", "1", "PX", "20"]));
        std::thread::sleep(Duration::from_millis(40));
        pair.play(&by(0, &["CLIENT", "PAUSE", "100000", "WRITE"]));
        for (n, (line, passes)) in PASS
            .iter()
            .map(|line| (line, true))
            .chain(WAIT.iter().map(|line| (line, false)))
            .enumerate()
        {
            if (line.starts_with("EVAL_RO") || line.contains("#!")) && !release.has(Since::R70) {
                continue;
            }
            let step = match line.split_once('\n') {
                // A script of two lines.
                Some((head, body)) => {
                    let text = format!(
                        "{}\n{}",
                        head.trim_start_matches("EVAL '"),
                        body.trim_end_matches("' 0")
                    );
                    by(n + 1, &["EVAL", &text, "0"])
                }
                None => super::play::Step {
                    client: n + 1,
                    ..script(line).remove(0)
                },
            };
            let (real, model) = pair.play(&step);
            assert_eq!(
                (real.is_some(), model.is_some()),
                (passes, passes),
                "{} {line}",
                release.name
            );
            let normal = |value: &Option<_>| compare::normal(release, &step.words, value.as_ref());
            assert!(
                compare::same(&normal(&real), &normal(&model)),
                "{} {line}",
                release.name
            );
        }
        let (real, model) = pair.play(&by(0, &["DBSIZE"]));
        assert_eq!(real, model, "{}: what is over stays", release.name);
        pair.play(&by(0, &["CLIENT", "UNPAUSE"]));
        let held = PASS.len() + 1;
        for n in held..held + WAIT.len() {
            let (real, model) = pair.late_answers(n);
            assert_eq!(real, model, "{} {n}", release.name);
            assert!(real.is_some());
        }
    }
}
