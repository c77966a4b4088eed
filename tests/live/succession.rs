//! A destination whose primary is replaced by one that lacks what was acknowledged last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::archives::{archive, string, string_until};
use crate::support::dataset::now_ms;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;
use crate::support::toy::{Deed, Toy};

/// Whether it is what DUMP gives for the later value: type, length, text, and a footer.
fn is_later_payload(word: &[u8]) -> bool {
    word.starts_with(b"\x00\x05later")
}

/// The primary acknowledges the first value of a key, dies over the second, and its successor has
/// neither: what it acknowledged last is given to the successor, but not behind what came later.
#[test]
fn after_a_failover_no_earlier_record_follows_a_later_one() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (first, replica, second) = (
        TestServer::start(version),
        TestServer::start(version),
        TestServer::start(version),
    );
    let mut replicaof = redis::cmd("REPLICAOF");
    replicaof.arg("127.0.0.1").arg(first.port());
    replicaof.exec(&mut replica.client()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info: String = redis::cmd("INFO").query(&mut first.client()).unwrap();
        if info.contains("connected_slaves:1") {
            break;
        }
        assert!(Instant::now() < deadline, "no replica");
        std::thread::sleep(Duration::from_millis(20));
    }
    let twice = archive(&[vec![string("key", "earlier")], vec![string("key", "later")]]);
    let ways = [
        ("replace", "restore"),
        ("fail", "restore"),
        ("replace", "commands"),
        ("fail", "commands"),
    ];
    for (policy, method) in ways {
        redis::cmd("FLUSHALL").exec(&mut first.client()).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let dies = Arc::clone(&is_over);
        let primary = Toy::start(first.addr(), move |words| match &words[0][..] {
            // No replica has it.
            b"WAIT" => Deed::answer(":0"),
            _ if words
                .iter()
                .any(|word| word.ends_with(b"later") || is_later_payload(word)) =>
            {
                dies.store(true, SeqCst);
                Deed::Close
            }
            _ if dies.load(SeqCst) => Deed::Close,
            _ => Deed::Pass,
        });
        let ports = [primary.port(), second.port()];
        let sentinel = Toy::start(second.addr(), move |words| match &words[0][..] {
            b"SENTINEL" => {
                let port = ports[usize::from(is_over.load(SeqCst))].to_string();
                let bytes = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
                Deed::Answer(bytes.into_bytes())
            }
            _ => Deed::Pass,
        });
        redis::cmd("FLUSHALL").exec(&mut second.client()).unwrap();
        let url = format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port());
        let conflict = format!("--on-conflict={policy}");
        let method = format!("--method={method}");
        run(&["import", &url, &conflict, &method], &twice).success();
        let stands: String = redis::cmd("GET")
            .arg("key")
            .query(&mut second.client())
            .unwrap();
        assert_eq!(stands, "later", "{policy} {method}");
    }
}

/// A record by native commands whose time passes while it waits for the destination: what it
/// supersedes goes, as where it comes past its time.
#[test]
fn what_expires_while_it_waits_takes_the_earlier_record_along() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for policy in ["replace", "fail"] {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let until_ms = now_ms() + 3_000;
        let toy = Toy::start(server.addr(), move |words| {
            let is_later = words.iter().any(|word| word == b"later");
            match is_later && now_ms() < until_ms + 1_500 {
                true => Deed::answer("-BUSY Redis is busy running a script."),
                false => Deed::Pass,
            }
        });
        let twice = archive(&[
            vec![string("key", "earlier"), string("other", "v")],
            vec![string_until("key", "later", Some(until_ms))],
        ]);
        let conflict = format!("--on-conflict={policy}");
        let said = run(
            &["import", &toy.url(), &conflict, "--method=commands"],
            &twice,
        );
        said.success().expect_stderr("expired 1");
        let exists = |key: &str| -> bool {
            let mut question = redis::cmd("EXISTS");
            question.arg(key).query(&mut server.client()).unwrap()
        };
        assert_eq!((exists("key"), exists("other")), (false, true), "{policy}");
    }
}
