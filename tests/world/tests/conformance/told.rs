//! What INFO tells, what a sentinel tells, and the file that a replica is sent.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use redis_migrate_world::server::{Config, Sentinel, Server};

use super::play::{Pair, now_ms, script};
use super::resp::{self, Value};
use super::{compare, real};

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// Names and values of a text of INFO; of sections their titles.
fn fields(value: &Value) -> BTreeMap<String, String> {
    let text = match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Text(text) => text.clone(),
        other => panic!("no text: {other:?}"),
    };
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .map(field)
        .collect()
}

/// Fields that are read by those who look at a server, and have to be the same.
const SAME: &[&str] = &[
    "# Server",
    "# Clients",
    "# Memory",
    "# Persistence",
    "# Stats",
    "# Replication",
    "# CPU",
    "# Modules",
    "# Errorstats",
    "# Cluster",
    "# Keyspace",
    "# Commandstats",
    "redis_version",
    "valkey_version",
    "server_name",
    "redis_mode",
    "server_mode",
    "role",
    "connected_slaves",
    "maxmemory",
    "maxmemory_policy",
    "evicted_keys",
    "cluster_enabled",
    "loading",
    "db0",
    "db3",
    "master_replid2",
];

/// Fields that have to be there or not.
const THERE: &[&str] = &[
    "run_id",
    "uptime_in_seconds",
    "used_memory",
    "master_replid",
    "master_repl_offset",
    "master_link_status",
    "slave_read_only",
    "total_commands_processed",
    "expired_keys",
    "errorstat_ERR",
    "arch_bits",
    "cmdstat_get",
    "cmdstat_set",
    "cmdstat_client",
    "cmdstat_client|id",
    "cmdstat_config",
    "cmdstat_config|resetstat",
    "cmdstat_swapdb",
    "cmdstat_flushdb",
    "cmdstat_info",
];

#[test]
fn info_tells_alike() {
    for release in real::available() {
        let mut pair = Pair::new(release);
        pair.clear();
        for step in script(
            "CONFIG RESETSTAT\nSET a 1\nGET a\nSELECT 3\nSET b 1\nEXPIRE b 1000\nSELECT 0\nCLIENT ID\nSWAPDB 8 9\nFLUSHDB\nSET a 1\nLPUSH a x\nNOSUCH",
        ) {
            pair.play(&step);
        }
        let mut differences = Vec::new();
        for section in [
            "",
            "server",
            "replication",
            "keyspace",
            "commandstats",
            "all",
            "errorstats",
            "memory",
            "nosuch",
        ] {
            let line = format!("INFO {section}");
            let (real, model) = pair.play(&script(&line)[0]);
            let (real, model) = (
                fields(&real.expect("an answer")),
                fields(&model.expect("an answer")),
            );
            for name in SAME {
                // What takes processor time is not modelled.
                if *name != "# CPU" && real.get(*name) != model.get(*name) {
                    differences.push(format!(
                        "{line} {name} {:?} {:?}",
                        real.get(*name),
                        model.get(*name)
                    ));
                }
            }
            for name in THERE {
                if real.contains_key(*name) != model.contains_key(*name) {
                    differences.push(format!(
                        "{line} {name} {:?} {:?}",
                        real.get(*name),
                        model.get(*name)
                    ));
                }
            }
            let calls = |fields: &BTreeMap<String, String>, name: &str| {
                fields
                    .get(name)
                    .and_then(|value| value.split(',').next().map(str::to_owned))
            };
            for name in [
                "cmdstat_get",
                "cmdstat_set",
                "cmdstat_swapdb",
                "cmdstat_flushdb",
            ] {
                let (real, model) = (calls(&real, name), calls(&model, name));
                if real != model {
                    differences.push(format!("{line} {name} {real:?} {model:?}"));
                }
            }
        }
        assert!(
            differences.is_empty(),
            "{}\n{}",
            release.name,
            differences.join("\n")
        );
    }
}

#[test]
fn a_sentinel_tells_alike() {
    for release in real::available() {
        let primary = real::Real::start(release, &[]);
        let port = primary.port;
        let path =
            std::env::temp_dir().join(format!("world-sentinel-{}-{port}", std::process::id()));
        std::fs::write(
            &path,
            format!("sentinel monitor mymaster 127.0.0.1 {port} 1\n"),
        )
        .expect("a file");
        let sentinel = real::Real::start_sentinel(release, &path);
        let mut connection = sentinel.connect();
        let mut model = Sentinel::of("mymaster", "127.0.0.1", port);
        let id = model.connect();
        for line in [
            "PING",
            "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster",
            "SENTINEL get-master-addr-by-name nosuch",
            "SENTINEL SENTINELS mymaster",
            "SENTINEL REPLICAS nosuch",
            "SENTINEL REPLICAS mymaster",
            "ROLE",
        ] {
            let request = words(line);
            let real = connection.ask(&request);
            model.receive(id, &resp::pack(&request));
            let out = model.outbox(id);
            let model = resp::read(&out).map(|(value, _)| value);
            assert_eq!(real, model, "{} {line}", release.name);
        }
        for line in ["SENTINEL MASTERS", "GET a", "INFO"] {
            let request = words(line);
            let real = connection.ask(&request).expect("an answer");
            model.receive(id, &resp::pack(&request));
            let out = model.outbox(id);
            let (model, _) = resp::read(&out).expect("an answer");
            match (real, model) {
                (Value::Array(real), Value::Array(model)) => {
                    assert_eq!(real.len(), model.len());
                    let Value::Array(model) = &model[0] else {
                        panic!("no pairs")
                    };
                    let Value::Array(real) = &real[0] else {
                        panic!("no pairs")
                    };
                    for pair in model
                        .chunks(2)
                        .filter(|pair| pair[0] != Value::Bulk(b"flags".to_vec()))
                    {
                        assert!(
                            real.chunks(2).any(|known| known == pair),
                            "{} {pair:?}",
                            release.name
                        );
                    }
                }
                (Value::Error(real), Value::Error(model)) => {
                    assert_eq!(&real[..19], &model[..19], "{} {line}", release.name);
                }
                (real, model) => {
                    let (real, model) = (fields(&real), fields(&model));
                    let mode = real.get("server_mode").or(real.get("redis_mode"));
                    assert_eq!(mode, model.get("redis_mode"), "{}", release.name);
                }
            }
        }
        drop(sentinel);
        let _ = std::fs::remove_file(&path);
    }
}

/// The checker of the version finds nothing wrong in the model's RDB file.
#[test]
fn files_are_sound() {
    for release in real::available() {
        let mut model = Server::new(Config::new(release), 1);
        let now = now_ms();
        for line in [
            "SET a 1",
            "RPUSH l x y",
            "SADD s 1 2",
            "SADD t x y",
            "ZADD z 1.5 a",
            "HSET h a 1",
            "XADD x 1-1 a b",
            "XGROUP CREATE x g 0",
            "SET e 1 PX 100000",
            "HPEXPIRE h 100000 FIELDS 1 a",
        ] {
            let request: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            model.execute(0, &request, now);
            model.execute(5, &request, now);
        }
        let path =
            std::env::temp_dir().join(format!("world-{}-{}.rdb", std::process::id(), release.name));
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(&model.rdb_file()).expect("written");
        let checked = Command::new(real::directory().join(release.name).join("check-rdb"))
            .arg(&path)
            .output()
            .expect("a checker");
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{}: {text}", release.name);
        assert!(text.contains("RDB looks OK"), "{}: {text}", release.name);
        // And what is in it is what a real server says is in it.
        let server = real::Real::start_with_file(release, &path);
        let mut connection = server.connect();
        for key in ["a", "l", "s", "t", "z", "h", "x", "e"] {
            let real = connection.ask(&words(&format!("DUMP {key}")));
            let Some(Value::Bulk(real)) = real else {
                panic!("{} {key}: {real:?}", release.name)
            };
            let redis_migrate_world::server::Reply::Bulk(model) =
                model.execute(0, &[b"DUMP", key.as_bytes()], now)
            else {
                panic!("no payload of the model");
            };
            let (real, model) = (
                compare::value(release, &real),
                compare::value(release, &model),
            );
            assert!(
                compare::same_value(&real, &model),
                "{} {key}\n  {real:?}\n  {model:?}",
                release.name
            );
        }
        let _ = std::fs::remove_file(&path);
    }
}

/// Flags that decide when a command is served.
const FLAGS: &[&str] = &[
    "write",
    "denyoom",
    "loading",
    "stale",
    "noscript",
    "allow_busy",
];

/// Flags of a row of COMMAND INFO.
fn row(value: &Value) -> Option<String> {
    let Value::Array(parts) = value else {
        return None;
    };
    let (Value::Array(flags) | Value::Set(flags)) = &parts[2] else {
        return None;
    };
    let name = |flag: &Value| match flag {
        Value::Simple(name) => name.clone(),
        other => panic!("a flag that is none: {other:?}"),
    };
    let mut flags: Vec<String> = flags.iter().map(name).collect();
    flags.retain(|flag| FLAGS.contains(&flag.as_str()));
    flags.sort();
    Some(format!("{flags:?}"))
}

#[test]
fn commands_are_served_when_servers_serve_them() {
    for release in real::available() {
        let server = real::Real::start(release, &[]);
        let mut connection = server.connect();
        let mut model = Server::new(Config::new(release), 1);
        let mut differences = Vec::new();
        for name in model.command_names() {
            if name.contains('|') && !release.has(redis_migrate_world::server::Since::R70) {
                continue;
            }
            let request = words(&format!("COMMAND INFO {name}"));
            let Some(Value::Array(real)) = connection.ask(&request) else {
                panic!("no array")
            };
            let id = model.connect().expect("a client");
            model.receive(id, &resp::pack(&request), now_ms());
            let out = model.outbox(id);
            model.disconnect(id);
            let Some((Value::Array(model), _)) = resp::read(&out) else {
                panic!("no array")
            };
            // Some were commands before they could be asked about.
            let (Some(real), model) = (row(&real[0]), row(&model[0])) else {
                continue;
            };
            if Some(&real) != model.as_ref() {
                differences.push(format!("{} {name}\n  {real:?}\n  {model:?}", release.name));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
