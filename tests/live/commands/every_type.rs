//! Every type and encoding, within and between versions.

use super::*;

const DBS: [u32; 5] = [0, 1, 3, 9, 15];

/// Everything but when consumers were seen and active, for which there is no command.
fn assert_same(source: &TestServer, destination: &TestServer, context: &str) {
    let crossed = source.version() != destination.version();
    let options = Options {
        ignore_zero_sign: true,
        ignore_field_ttl: !destination.version().has_field_ttl(),
        functions: false,
        ttl_tolerance_ms: crossed.then_some(250),
        ..Options::default()
    };
    for found in differences(&mut source.client(), &mut destination.client(), &options) {
        let times = found.detail.contains(" seen-time:") || found.detail.contains(" active-time:");
        assert!(found.kind == Kind::Value && times, "{context}: {found}");
        let left = dump(&mut source.client_db(found.db), &found.key);
        let right = dump(&mut destination.client_db(found.db), &found.key);
        let families = [source, destination].map(|server| family(server.version()));
        assert_same_stream(families, &left, &right, context);
    }
}

/// As far as both forms tell: all but the times of consumers. What they have pending, with its
/// times and counts, is compared by itself.
fn assert_same_stream(families: [Family; 2], left: &[u8], right: &[u8], context: &str) {
    let lenience = meaning::Lenience {
        ignore_delivery_times: true,
        ..meaning::Lenience::default()
    };
    let found = meaning::same_but(families[0], left, families[1], right, lenience);
    assert_eq!(found.expect("both are sound"), None, "{context}");
    let pending = |family, value: &[u8]| -> Vec<_> {
        let Ok(Object::Stream(stream)) = payload::decode(family, value) else {
            panic!("{context}: a stream")
        };
        let groups = stream.groups.iter();
        let mut groups: Vec<_> = groups
            .map(|group| {
                let mut pending = group.pending.clone();
                pending.sort_by_key(|pending| pending.id);
                (group.name.to_vec(), pending)
            })
            .collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        groups
    };
    assert_eq!(
        pending(families[0], left),
        pending(families[1], right),
        "{context}"
    );
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    OneByOne(CommandLimits),
    Pipeline(CommandLimits),
}

fn write_everything(source: &TestServer, destination: &TestServer, mode: Mode, replace: Replace) {
    let context = format!(
        "{} to {}, {mode:?}",
        source.version(),
        destination.version()
    );
    let (Mode::OneByOne(limits) | Mode::Pipeline(limits)) = mode;
    let mut writer = Writer::new(destination, limits);
    for db in DBS {
        let items = read_db(source, db);
        assert!(!items.is_empty());
        writer.select(db);
        let outcomes = match mode {
            Mode::OneByOne(_) => writer.all(&items, replace),
            Mode::Pipeline(_) => writer.pipeline(&items, replace, 20),
        };
        for (item, outcome) in items.iter().zip(outcomes) {
            let name = item.key.escape_ascii();
            let (written, losses) =
                outcome.unwrap_or_else(|error| panic!("{context}: {name}: {error}"));
            assert_eq!(written, Written::Stored, "{context}: {name}");
            let kind = payload::kind_of(item.family, item.value[0]);
            let expiring = payload::check(item.family, &item.value).unwrap();
            let want = CommandLosses {
                field_ttls: if destination.version().has_field_ttl() {
                    0
                } else {
                    expiring.expiring_fields
                },
                stream_metadata: kind == payload::Kind::Stream
                    && source.version().is_at_least_7()
                    && !destination.version().is_at_least_7(),
                // Known by the number of consumers.
                consumer_times: losses.consumer_times,
                ..CommandLosses::default()
            };
            assert_eq!(losses, want, "{context}: {name}");
        }
        assert_eq!(temporary_keys(destination, db), 0, "{context}");
    }
    assert_same(source, destination, &context);
}

/// All the odd places that a pending entry, its entry and the ends of the stream can have to each
/// other.
pub fn fill_odd_streams(client: &mut redis::Connection, version: Version) {
    for key in [
        "odd:middle",
        "odd:head",
        "odd:tail",
        "odd:none-left",
        "odd:trimmed",
    ] {
        for n in 1..=9 {
            run(client, &format!("XADD {key} {n}-0 f {n}"));
        }
        for group in ["a", "b"] {
            run(client, &format!("XGROUP CREATE {key} {group} 0"));
            for (consumer, count) in [("x", 3), ("y", 5)] {
                run(
                    client,
                    &format!("XREADGROUP GROUP {group} {consumer} COUNT {count} STREAMS {key} >"),
                );
            }
        }
        run(client, &format!("XACK {key} b 1-0 2-0 5-0"));
    }
    run(client, "XDEL odd:middle 2-0 4-0 5-0");
    run(client, "XDEL odd:head 1-0 2-0");
    run(client, "XDEL odd:tail 8-0 9-0");
    run(
        client,
        "XDEL odd:none-left 1-0 2-0 3-0 4-0 5-0 6-0 7-0 8-0 9-0",
    );
    run(client, "XTRIM odd:trimmed MAXLEN 3");
    run(client, "XADD odd:repeated 5-5 f 1 f 2 f 1");
    run(client, "XADD odd:deleted 5-5 f 1");
    run(client, "XDEL odd:deleted 5-5");
    run(client, "XGROUP CREATE odd:nothing g 0 MKSTREAM");
    run(client, "XGROUP DESTROY odd:nothing g");
    run(
        client,
        "XADD odd:highest 18446744073709551615-18446744073709551615 f v",
    );
    if version.is_at_least_7() {
        run(client, "XADD odd:read 1-1 f v");
        run(
            client,
            "XSETID odd:read 7-7 ENTRIESADDED 70 MAXDELETEDID 7-6",
        );
        run(client, "XGROUP CREATE odd:read known 5-5 ENTRIESREAD 55");
        run(client, "XGROUP CREATE odd:read unknown 5-5");
    }
}

fn every_type(version: Version) {
    let Some(version) = require(version) else {
        return;
    };
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    fill_odd_streams(&mut source.client(), version);
    let usual = CommandLimits::default();
    for (mode, replace) in [
        (Mode::OneByOne(tiny()), Replace::IfAbsent),
        (Mode::Pipeline(usual), Replace::Always),
        (Mode::OneByOne(usual), Replace::Always),
        (Mode::Pipeline(tiny()), Replace::Always),
        (Mode::Pipeline(usual), Replace::IfAbsent),
    ] {
        let destination = TestServer::start(version);
        write_everything(&source, &destination, mode, replace);
        // Once more over what stands.
        write_everything(&source, &destination, mode, Replace::Always);
    }
}

#[test]
fn every_type_by_commands_redis_6_0() {
    every_type(Version::Redis60);
}

#[test]
fn every_type_by_commands_redis_6_2() {
    every_type(Version::Redis62);
}

#[test]
fn every_type_by_commands_redis_7_0() {
    every_type(Version::Redis70);
}

#[test]
fn every_type_by_commands_redis_8_0() {
    every_type(Version::Redis80);
}

#[test]
fn every_type_by_commands_valkey_8_1() {
    every_type(Version::Valkey81);
}

#[test]
fn every_type_by_commands_valkey_9_1() {
    every_type(Version::Valkey91);
}

#[test]
fn every_type_by_commands_between_all_versions() {
    let versions = available();
    let destinations: Vec<TestServer> = versions.iter().map(|&v| TestServer::start(v)).collect();
    for &version in &versions {
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        fill_odd_streams(&mut source.client(), version);
        for destination in &destinations {
            if destination.version() == version {
                continue;
            }
            run(&mut destination.client(), "FLUSHALL");
            let mode = Mode::Pipeline(CommandLimits::default());
            write_everything(&source, destination, mode, Replace::IfAbsent);
        }
    }
}
