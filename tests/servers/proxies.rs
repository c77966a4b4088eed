//! The proxy between a client and a server fails as told.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis::Commands as _;

use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::servers::{self, TestServer, Version};

#[test]
fn the_proxy_passes_cuts_stalls_delays_and_refuses_as_told() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let value = "x".repeat(50_000);
    let _: () = server.client().set("k", &value).expect("SET");
    let get_within = |proxy: &Proxy, limit: Duration| -> Vec<u8> {
        let mut socket = TcpStream::connect(proxy.addr()).expect("the proxy");
        socket.set_read_timeout(Some(limit)).expect("a time limit");
        // A refused connection may already be gone.
        let _ = socket.write_all(b"GET k\r\n");
        let mut all = vec![0; 60_000];
        let mut length = 0;
        while length < 8 + 50_000 + 2 {
            match socket.read(&mut all[length..]) {
                Ok(more @ 1..) => length += more,
                // With a time limit the system does not go on by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        all.truncate(length);
        all
    };
    let get = |proxy: &Proxy| get_within(proxy, Duration::from_secs(60));
    let whole = get(&Proxy::plain(server.addr()));
    assert_eq!(whole, format!("$50000\r\n{value}\r\n").as_bytes());

    let to_client = |direction| Rules {
        to_client: direction,
        ..Rules::default()
    };
    let cut = to_client(Direction {
        cut_after: Some(1234),
        piece: 100,
        ..Direction::default()
    });
    let proxy = Proxy::start(
        server.addr(),
        Rules {
            cuts: Some(1),
            ..cut
        },
    );
    assert_eq!(get(&proxy).len(), 1234);
    assert_eq!((proxy.cuts(), proxy.bytes_to_client()), (1, 1234));
    assert_eq!(get(&proxy), whole, "the second connection is not cut");

    let random = to_client(Direction {
        cut_within: Some(1000..40_000),
        ..Direction::default()
    });
    let proxy = Proxy::start(server.addr(), random);
    let lengths: BTreeSet<usize> = (0..8).map(|_| get(&proxy).len()).collect();
    assert!(
        lengths.iter().all(|length| (1000..40_000).contains(length)),
        "{lengths:?}"
    );
    assert!(lengths.len() > 4, "{lengths:?}");

    let stall = to_client(Direction {
        stall_after: Some(7),
        ..Direction::default()
    });
    let begin = Instant::now();
    let limit = Duration::from_secs(1);
    let stalled = Proxy::start(server.addr(), stall);
    assert_eq!(get_within(&stalled, limit).len(), 7);
    let waited = begin.elapsed() + Duration::from_millis(50);
    assert!(waited >= limit, "it hung until the time limit");

    let slow = Rules {
        to_server: Direction {
            delay: Duration::from_millis(200),
            ..Direction::default()
        },
        ..Rules::default()
    };
    let begin = Instant::now();
    let proxy = Proxy::start(server.addr(), slow);
    assert_eq!(get(&proxy), whole);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    proxy.set_rules(Rules {
        refuse: true,
        ..Rules::default()
    });
    assert_eq!(get(&proxy), b"");
    assert_eq!(proxy.connections(), 2);
}
