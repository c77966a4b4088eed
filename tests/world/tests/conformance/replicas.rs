//! A primary and its replica.

use std::time::{Duration, Instant};

use redis_migrate_world::server::{Config, Server};

use super::play::now_ms;
use super::real::{Connection, Real};
use super::resp::{self, Value};
use super::{compare, real};

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn lines_of(value: &Value, names: &[&str]) -> Vec<String> {
    let text = match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Text(text) => text.clone(),
        other => panic!("no text: {other:?}"),
    };
    let lines = text.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        names.contains(&name)
    });
    lines.map(str::to_owned).collect()
}

/// Waits until the real replica has what its primary has.
fn catch_up(replica: &mut Connection) {
    let start = Instant::now();
    loop {
        let info = replica.ask(&words("INFO replication")).expect("an answer");
        if lines_of(&info, &["master_link_status"]) == ["master_link_status:up"] {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the replica's link does not come up"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_replica_answers_alike() {
    for release in real::available() {
        let primary = Real::start(release, &["--repl-diskless-sync-delay", "0"]);
        let replica = Real::start(
            release,
            &["--replicaof", "127.0.0.1", &primary.port.to_string()],
        );
        let (mut to_primary, mut to_replica) = (primary.connect(), replica.connect());
        let config = |port: u16| Config {
            port,
            ..Config::new(release)
        };
        let mut models = [Server::new(config(1), 1), Server::new(config(2), 2)];
        let [model, model_replica] = &mut models;
        model.attach(model_replica);
        catch_up(&mut to_replica);
        let ids = [
            model.connect().expect("a client"),
            model_replica.connect().expect("a client"),
        ];
        let lines = [
            "0 SET a 1",
            "0 XADD s 1-1 a b",
            "0 XGROUP CREATE s g 0",
            "0 XREADGROUP GROUP g c STREAMS s >",
            "0 SET gone 1",
            "0 DEL gone",
            "0 SET short 1 PX 300000",
            "0 WAIT 1 2000",
            "1 GET a",
            "1 GET gone",
            "1 SET a 2",
            "1 DEL a",
            "1 DBSIZE",
            "1 XLEN s",
            "1 DUMP a",
            "1 WAIT 0 1",
            "1 PING",
            "1 SCAN 0 COUNT 100",
            "1 EXPIRE a 10",
            "1 RESTORE x 0 y",
            "1 FLUSHALL",
            "1 MULTI",
            "1 SET a 1",
            "1 EXEC",
            "1 EVAL return_1 0",
            "0 FLUSHALL",
            "0 WAIT 1 2000",
            "1 DBSIZE",
        ];
        for line in lines {
            let (side, line) = line.split_once(' ').expect("a side");
            let side = usize::from(side == "1");
            let request = if line.starts_with("EVAL") {
                vec![b"EVAL".to_vec(), b"return 1".to_vec(), b"0".to_vec()]
            } else {
                words(line)
            };
            let connection = if side == 0 {
                &mut to_primary
            } else {
                &mut to_replica
            };
            let real = connection.ask(&request);
            let now = now_ms();
            models[side].receive(ids[side], &resp::pack(&request), now);
            let [model, model_replica] = &mut models;
            model.replicate(model_replica, usize::MAX, now);
            let out = models[side].outbox(ids[side]);
            let model = resp::read(&out).map(|(value, _)| value);
            let real = compare::normal(release, &request, real.as_ref());
            let model = compare::normal(release, &request, model.as_ref());
            assert!(
                compare::same(&real, &model),
                "{} {side} {line}\n  {real:?}\n  {model:?}",
                release.name
            );
        }
        let names = [
            "role",
            "connected_slaves",
            "master_link_status",
            "slave_read_only",
            "master_sync_in_progress",
        ];
        for (side, connection) in [&mut to_primary, &mut to_replica].into_iter().enumerate() {
            let info = words("INFO replication");
            let real = connection.ask(&info).expect("an answer");
            models[side].receive(ids[side], &resp::pack(&info), now_ms());
            let (model, _) = resp::read(&models[side].outbox(ids[side])).expect("an answer");
            let (mut real, mut model) = (lines_of(&real, &names), lines_of(&model, &names));
            real.sort();
            model.sort();
            assert_eq!(real, model, "{} INFO of {side}", release.name);
            let role = words("ROLE");
            let Some(Value::Array(real)) = connection.ask(&role) else {
                panic!("no role")
            };
            models[side].receive(ids[side], &resp::pack(&role), now_ms());
            let out = models[side].outbox(ids[side]);
            let Some((Value::Array(model), _)) = resp::read(&out) else {
                panic!("no role")
            };
            assert_eq!(
                (&real[0], real.len()),
                (&model[0], model.len()),
                "{} ROLE of {side}",
                release.name
            );
            if side == 1 {
                assert_eq!(real[3], model[3], "{} ROLE", release.name);
            }
        }
    }
}
