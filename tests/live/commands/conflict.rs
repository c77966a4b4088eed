//! What stands already, and what is past its time.

use super::*;

#[test]
fn what_stands_is_left_alone_or_replaced_as_asked() {
    for version in available() {
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        let items = read_db(&source, 0);
        for pipeline in [false, true] {
            let server = TestServer::start(version);
            let mut client = server.client();
            for item in &items {
                redis::cmd("SET")
                    .arg(&item.key)
                    .arg("mine")
                    .exec(&mut client)
                    .unwrap();
                redis::cmd("PEXPIREAT")
                    .arg(&item.key)
                    .arg(4_000_000_000_000_u64)
                    .exec(&mut client)
                    .unwrap();
            }
            let mut writer = Writer::new(&server, CommandLimits::default());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::IfAbsent, 20)
            } else {
                writer.all(&items, Replace::IfAbsent)
            };
            for (item, outcome) in items.iter().zip(outcomes) {
                assert_eq!(outcome.unwrap().0, Written::Standing);
                let value: Vec<u8> = redis::cmd("GET").arg(&item.key).query(&mut client).unwrap();
                assert_eq!(value, b"mine");
                let left: i64 = redis::cmd("PTTL")
                    .arg(&item.key)
                    .query(&mut client)
                    .unwrap();
                assert!(left > 1_000_000_000);
            }
            let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(keys, items.len(), "{version}: no temporary key is left");
            // A key without expiry loses the one that stood.
            let items = [string(b"string:embstr", b"new", None)];
            writer.pipeline(&items, Replace::Always, 1);
            let left: i64 = redis::cmd("PTTL")
                .arg("string:embstr")
                .query(&mut client)
                .unwrap();
            assert_eq!(left, -1);
        }
    }
}

#[test]
fn what_is_past_its_time_is_not_written() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        run(&mut client, "SET stands 1");
        let mut writer = Writer::new(&server, CommandLimits::default());
        for at_ms in [0, 1, now_ms() - 1] {
            for key in [&b"stands"[..], b"absent"] {
                let item = string(key, b"v", Some(at_ms));
                for replace in [Replace::Always, Replace::IfAbsent] {
                    let (written, _) = writer.one(&item, replace).unwrap();
                    assert_eq!(written, Written::Expired);
                    let written = writer.pipeline(std::slice::from_ref(&item), replace, 1);
                    assert!(matches!(written[..], [Ok((Written::Expired, _))]));
                }
            }
        }
        // The server's clock is ahead of what it was taken for: the server decides.
        let mut item = list(b"late", (0..10).map(|n| vec![n]));
        item.expire_at_ms = Some(now_ms() - 50);
        let mut job = item.job(Replace::Always);
        job.now_ms -= 60_000;
        let (written, _) = writer.commands.write(&mut writer.conn, &job).unwrap();
        assert_eq!(written, Written::Expired);
        let Queued::Sent(ticket) = writer.commands.queue_small(&mut writer.conn, &job).unwrap()
        else {
            panic!("small")
        };
        writer.conn.flush().unwrap();
        let answer = writer
            .commands
            .read_small(&mut writer.conn, b"late", ticket)
            .unwrap();
        assert!(matches!(answer, Answer::Written(Written::Expired, _)));
        let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
        assert_eq!(keys, 1, "{version}");
        // As far in the future as can be said.
        let far = string(b"far", b"v", Some(u64::MAX));
        assert!(writer.one(&far, Replace::Always).is_ok());
        writer.pipeline(&[string(b"far2", b"v", Some(u64::MAX))], Replace::Always, 1);
        for key in ["far", "far2"] {
            let left: i64 = redis::cmd("PTTL").arg(key).query(&mut client).unwrap();
            assert!(left > 1 << 60, "{version}: {left}");
        }
    }
}

#[test]
fn fields_past_their_time_are_left_out_and_far_ones_clamped() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        let past = now_ms() - 1000;
        let far = (1 << 48) - 1;
        let items = [
            hash(b"none", &[("a", Some(past)), ("b", Some(past - 5))]),
            hash(b"some", &[("a", Some(past)), ("b", None), ("c", Some(far))]),
        ];
        for pipeline in [false, true] {
            run(&mut client, "FLUSHALL");
            let mut writer = Writer::new(&server, tiny());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::Always, 10)
            } else {
                writer.all(&items, Replace::Always)
            };
            let [none, some] = &outcomes[..] else {
                panic!("two")
            };
            assert_eq!(none.as_ref().unwrap().0, Written::Expired);
            let (written, losses) = some.as_ref().unwrap();
            assert_eq!(*written, Written::Stored);
            let (lost, clamped) = (losses.field_ttls, losses.field_ttls_clamped);
            let want = match version {
                Version::Redis80 => (0, 1),
                Version::Valkey91 => (0, 0),
                _ => (1, 0),
            };
            assert_eq!((lost, clamped), want, "{version}");
            let mut names: Vec<String> =
                redis::cmd("HKEYS").arg("some").query(&mut client).unwrap();
            names.sort();
            assert_eq!(names, ["b", "c"]);
            let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(keys, 1);
        }
        if !version.has_field_ttl() {
            continue;
        }
        // The clock is behind: the server removes the fields, and the hash with them.
        let item = hash(b"late", &[("a", Some(past)), ("b", Some(past))]);
        let mut writer = Writer::new(&server, CommandLimits::default());
        let mut job = item.job(Replace::Always);
        job.now_ms -= 60_000;
        let (written, _) = writer.commands.write(&mut writer.conn, &job).unwrap();
        assert_eq!(written, Written::Expired, "{version}");
        assert_eq!(temporary_keys(&server, 0), 0);
    }
}
