//! Size and speed.

use super::*;

/// A list of 600 MB, which RESTORE would not take with the default limits.
#[test]
#[ignore = "two servers of 700 MB each"]
fn a_list_of_600_mb_goes_into_a_server_with_default_limits() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    let mut random = Random::new(3);
    for _ in 0..600 {
        let mut push = redis::cmd("RPUSH");
        push.arg("big");
        (0..100).for_each(|_| {
            push.arg(random.bytes(10_000));
        });
        push.exec(&mut client).unwrap();
    }
    let item = Item {
        key: b"big".to_vec(),
        family: Family::Redis,
        value: dump(&mut client, b"big"),
        expire_at_ms: Some(now_ms() + 1_000_000),
    };
    assert!(item.value.len() > 600_000_000);
    run(
        &mut client,
        &format!("PEXPIREAT big {}", item.expire_at_ms.unwrap()),
    );
    let before = memory_kib();
    let started = std::time::Instant::now();
    let mut writer = Writer::new(&destination, CommandLimits::default());
    let (written, _) = writer.one(&item, Replace::Always).unwrap();
    assert_eq!(written, Written::Stored);
    println!(
        "{:?}, {} KiB more",
        started.elapsed(),
        memory_kib() - before
    );
    assert!(memory_kib() - before < 16 * 1024);
    assert_equal_with(&mut client, &mut destination.client(), &Options::default());
}

/// What this process holds.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("a number of kB")
}

#[test]
#[ignore = "a measurement"]
fn speed_of_small_values() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const COUNT: usize = 200_000;
    let strings: Vec<Item> = (0..COUNT)
        .map(|n| string(format!("string:{n}").as_bytes(), &[b'v'; 60], None))
        .collect();
    let fields = ["name", "mail", "seen", "plan"];
    let mut value = vec![4, fields.len() as u8];
    for field in fields {
        payload::write::string(&mut value, field.as_bytes());
        payload::write::string(&mut value, b"v");
    }
    let hashes: Vec<Item> = (0..COUNT)
        .map(|n| Item {
            key: format!("hash:{n}").into_bytes(),
            family: Family::Redis,
            value: value.clone(),
            expire_at_ms: None,
        })
        .collect();
    let expiring: Vec<Item> = hashes
        .iter()
        .map(|item| Item {
            expire_at_ms: Some(now_ms() + 1_000_000),
            ..item.clone()
        })
        .collect();
    for (what, items) in [
        ("strings", &strings),
        ("hashes", &hashes),
        ("hashes with expiry", &expiring),
    ] {
        let server = TestServer::start(version);
        let mut writer = Writer::new(&server, CommandLimits::default());
        let started = std::time::Instant::now();
        for outcome in writer.pipeline(items, Replace::IfAbsent, 1000) {
            assert_eq!(outcome.unwrap().0, Written::Stored);
        }
        let commands = COUNT as f64 / started.elapsed().as_secs_f64();
        run(&mut server.client(), "FLUSHALL");
        let started = std::time::Instant::now();
        for items in items.chunks(1000) {
            let ttl = |item: &Item| item.expire_at_ms.unwrap_or(0).to_string();
            for item in items {
                let payload = payload::sign(&item.value, 10);
                writer
                    .conn
                    .queue(&[
                        b"RESTORE",
                        &item.key,
                        ttl(item).as_bytes(),
                        &payload,
                        b"ABSTTL",
                    ])
                    .unwrap();
            }
            writer.conn.flush().unwrap();
            for _ in items {
                writer.conn.item().unwrap();
            }
        }
        let restore = COUNT as f64 / started.elapsed().as_secs_f64();
        println!("{what}: {commands:.0}/s by commands, {restore:.0}/s by RESTORE");
    }
}
