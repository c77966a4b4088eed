//! A last round that was not the last: a shard that was exact already is read again, at a later
//! instant.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::place::{Place, assert_same, fill, imported};
use crate::support::cluster::{TestCluster, slot_of};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

/// A key of the first node.
const KEY: &str = "{g2}hot";

/// Stands before the first node. The key is written once when the scan begins, so that it belongs
/// to the last round, and once more between that round's EVAL and its answer.
struct Relay {
    node: SocketAddr,
    tracked: AtomicBool,
    scanned: AtomicBool,
    fired: AtomicBool,
}

impl Relay {
    fn start(node: &TestServer) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let relay = Arc::new(Self {
            node: node.addr(),
            tracked: AtomicBool::new(false),
            scanned: AtomicBool::new(false),
            fired: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&relay);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                for_thread.begin(client);
            }
        });
        (relay, port)
    }

    fn begin(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.node) else {
            return;
        };
        let gate = Arc::new(Mutex::new(()));
        let (from_server, to_client) = (
            server.try_clone().expect("a socket"),
            client.try_clone().expect("a socket"),
        );
        let (relay, for_commands) = (Arc::clone(self), Arc::clone(&gate));
        std::thread::spawn(move || {
            pass(client, server, |bytes, server| {
                relay.forward(bytes, server, &for_commands)
            });
        });
        std::thread::spawn(move || {
            pass(from_server, to_client, |bytes, client| {
                let _open = gate.lock().expect("no panic");
                client.write_all(bytes)
            });
        });
    }

    fn forward(
        &self,
        bytes: &[u8],
        server: &mut TcpStream,
        gate: &Mutex<()>,
    ) -> std::io::Result<()> {
        if has(bytes, b"TRACKING") {
            self.tracked.store(true, SeqCst);
        }
        // Only the scan itself: abilities are tried before.
        let is_scan = has(bytes, b"SCAN") && self.tracked.load(SeqCst);
        if is_scan && !self.scanned.swap(true, SeqCst) {
            self.set("heard of before the last round");
        }
        let is_last = has(bytes, b"EVAL") && has(bytes, KEY.as_bytes());
        if !is_last || self.fired.swap(true, SeqCst) {
            return server.write_all(bytes);
        }
        let _closed = gate.lock().expect("no panic");
        let before = self.evals();
        server.write_all(bytes)?;
        let began = Instant::now();
        while self.evals() == before {
            assert!(began.elapsed() < Duration::from_secs(30), "EVAL is not run");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.set("changed after it was read");
        // The cluster lies otherwise than before: this round was not the last.
        let mut bump = redis::cmd("CLUSTER");
        let said: String = bump
            .arg("BUMPEPOCH")
            .query(&mut self.client())
            .expect("CLUSTER BUMPEPOCH");
        assert!(said.starts_with("BUMPED"), "{said}");
        Ok(())
    }

    fn client(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.node)).expect("a URL");
        client.get_connection().expect("the node answers")
    }

    fn set(&self, value: &str) {
        let mut set = redis::cmd("SET");
        set.arg(KEY).arg(value);
        set.exec(&mut self.client()).expect("SET");
    }

    fn evals(&self) -> Option<String> {
        let mut info = redis::cmd("INFO");
        let text: String = info
            .arg("commandstats")
            .query(&mut self.client())
            .expect("INFO");
        let calls = text.split_once("cmdstat_eval:")?.1.split(',').next()?;
        Some(calls.to_owned())
    }
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    mut forward: impl FnMut(&[u8], &mut TcpStream) -> std::io::Result<()>,
) {
    let mut bytes = vec![0; 1 << 18];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if forward(&bytes[..count], &mut to).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What changed right after the first instant is part of the second.
#[test]
fn what_changed_after_one_instant_is_read_for_the_next() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let cluster = TestCluster::start(version, 3, 0);
        fill(&cluster, 1000);
        assert_eq!(
            cluster.client().owners[usize::from(slot_of(KEY.as_bytes()))],
            0
        );
        let (relay, port) = Relay::start(&cluster.nodes[0]);
        let map = format!("127.0.0.1:{}=127.0.0.1:{port}", cluster.nodes[0].port());
        let place = Place::new();
        let file = place.file("all.rmz");
        let out = Tool::new(&["export", &cluster.nodes[1].url(), "-o", &file])
            .args(&["--consistency", "converge", "--node-map", &map])
            .run()
            .success();
        assert!(relay.fired.load(SeqCst), "{out:?}");
        assert!(out.stderr.contains("exact as of"), "{}", out.stderr);
        let server = imported(version, &[file]);
        let held: String = redis::cmd("GET")
            .arg(KEY)
            .query(&mut server.client())
            .expect("GET");
        assert_eq!(
            held, "changed after it was read",
            "{version}: {}",
            out.stderr
        );
        assert_same(&cluster, &mut server.client(), version);
    }
}
