//! Lost connections, odd names, slots.

use super::*;

/// Cuts after every so many bytes: what stood still stands, and what is left is told by its name.
#[test]
fn a_lost_connection_leaves_nothing_half_written() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    let item = list(b"{k}ey", (0..2000).map(|n: u32| n.to_string().into_bytes()));
    let limits = CommandLimits {
        chunk_bytes: 1000,
        ..tiny()
    };
    let (mut cut, mut whole) = (0, 0);
    for at in (500..46_000).step_by(3_500) {
        run(&mut client, "FLUSHALL");
        run(&mut client, "SET {k}ey mine");
        let rules = Rules {
            to_server: Direction {
                cut_after: Some(at),
                ..Direction::default()
            },
            ..Rules::default()
        };
        let proxy = Proxy::plain(server.addr());
        proxy.set_rules(rules);
        let mut writer = Writer::at(&proxy.url(), limits);
        match writer.one(&item, Replace::Always) {
            Err(CommandError::Connection(ServerError::Lost { .. })) => {
                cut += 1;
                let kept: Vec<u8> = redis::cmd("GET").arg("{k}ey").query(&mut client).unwrap();
                assert_eq!(kept, b"mine");
                let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
                assert!(keys == 1 || (keys == 2 && temporary_keys(&server, 0) == 1));
            }
            Ok((Written::Stored, _)) => {
                whole += 1;
                let length: u64 = redis::cmd("LLEN").arg("{k}ey").query(&mut client).unwrap();
                assert_eq!(length, 2000);
                assert_eq!(temporary_keys(&server, 0), 0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(cut > 3, "{cut} were cut, {whole} were not");
}

#[test]
fn odd_key_names() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        let keys: [&[u8]; 9] = [
            b"",
            b"{",
            b"}",
            b"{}",
            b"{a}",
            b"a{b}c",
            b"}{",
            b"{{a}}",
            b"\r\n\xff\x00",
        ];
        let items: Vec<Item> = keys
            .iter()
            .map(|key| list(key, (0..9).map(|n| vec![n])))
            .collect();
        for pipeline in [false, true] {
            run(&mut client, "FLUSHALL");
            let mut writer = Writer::new(&server, tiny());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::IfAbsent, 100)
            } else {
                writer.all(&items, Replace::IfAbsent)
            };
            for (key, outcome) in keys.iter().zip(outcomes) {
                assert_eq!(outcome.unwrap().0, Written::Stored);
                let length: u64 = redis::cmd("LLEN").arg(key).query(&mut client).unwrap();
                assert_eq!(length, 9);
            }
            let count: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(count, keys.len());
        }
    }
}

/// The server says which slot a key lies in, and takes our transactions as of one slot.
#[test]
fn a_cluster_node_agrees_on_slots() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version).cluster().start();
    let mut client = server.client();
    let mut random = Random::new(5);
    let mut pipe = redis::pipe();
    let mut keys = Vec::new();
    for _ in 0..2000 {
        let length = random.below(20) as usize;
        let mut key = random.bytes(length);
        // Braces, far more often than chance has them.
        for byte in &mut key {
            match random.below(6) {
                0 => *byte = b'{',
                1 => *byte = b'}',
                _ => {}
            }
        }
        let tagged = format!("x:{}:y", tag_for_slot(slot_of(&key))).into_bytes();
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(&key);
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(&tagged);
        keys.push(key);
    }
    let slots: Vec<u16> = pipe.query(&mut client).unwrap();
    for (key, said) in keys.iter().zip(slots.chunks(2)) {
        assert_eq!(said, [slot_of(key); 2], "{}", key.escape_ascii());
    }
    let mut all = redis::cmd("CLUSTER");
    all.arg("ADDSLOTS");
    (0..SLOTS).for_each(|slot| {
        all.arg(slot);
    });
    all.exec(&mut client).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut client)
        .is_err()
    {
        assert!(std::time::Instant::now() < deadline, "no cluster");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let items: Vec<Item> = keys
        .iter()
        .map(|key| list(key, (0..9).map(|n| vec![n])))
        .collect();
    let mut writer = Writer::new(&server, tiny());
    for outcome in writer.pipeline(&items, Replace::Always, 100) {
        assert_eq!(outcome.unwrap().0, Written::Stored);
    }
}
