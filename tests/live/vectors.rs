//! Every payload of `fixtures/payloads.json`, written anew in the forms of every server, restored
//! there with the server's own deep check switched on, and read back equal by meaning.

use std::collections::BTreeMap;

use redis::Value;
use redis_migrate::record::Family;
use redis_migrate_payload::dialect::{self, Dialect};
use redis_migrate_payload::payload::accept::Accepts;
use redis_migrate_payload::payload::meaning::{Lenience, difference_but};
use redis_migrate_payload::payload::{self, FieldTtlForm, Packing};

use crate::support::servers::{TestServer, Version, available};

#[derive(serde::Deserialize)]
struct Stored {
    payload_hex: String,
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Name, family and body of each.
fn vectors() -> Vec<(String, Family, Vec<u8>)> {
    let text = include_str!("../../fixtures/payloads.json");
    let servers: BTreeMap<String, BTreeMap<String, Stored>> =
        serde_json::from_str(text).expect("fixtures/payloads.json");
    let mut all = Vec::new();
    for (server, keys) in servers {
        let family = match server.starts_with("valkey") {
            true => Family::Valkey,
            false => Family::Redis,
        };
        for (key, stored) in keys {
            let payload = hex(&stored.payload_hex);
            let (body, _) = payload::split(&payload).expect("a real payload");
            all.push((format!("{key} of {server}"), family, body.to_vec()));
        }
    }
    all
}

fn start(version: Version) -> TestServer {
    let builder = TestServer::builder(version);
    match version {
        Version::Redis60 => builder,
        _ => builder.option("--sanitize-dump-payload", "yes"),
    }
    .start()
}

#[test]
fn every_vector_written_anew_is_restored_by_every_server() {
    let vectors = vectors();
    for version in available() {
        let server = start(version);
        let family = match version.is_valkey() {
            true => Family::Valkey,
            false => Family::Redis,
        };
        let exact = version.exact();
        let dialect = Dialect::of(family, dialect::Version::parse(&exact));
        let accepts = Accepts::of_server(dialect).expect("a supported version");
        let mut client = server.client();
        let mut restored = 0;
        for packing in [Packing::None, Packing::Ziplist, accepts.forms().packing] {
            let forms = payload::Forms {
                packing,
                ..accepts.forms()
            };
            for (name, from, body) in &vectors {
                let object = match payload::decode(*from, body) {
                    Ok(object) => object,
                    Err(error) if error.is_opaque() => continue,
                    Err(error) => panic!("{name}: {error}"),
                };
                let mut anew = Vec::new();
                let losses = payload::recode(*from, body, forms, &mut anew).expect(name);
                assert!(losses.field_ttls == 0 || forms.field_ttl == FieldTtlForm::Dropped);
                let signed = payload::sign(&anew, version.rdb_version());
                let mut restore = redis::cmd("RESTORE");
                restore.arg("k").arg(0).arg(signed).arg("REPLACE");
                restore
                    .exec(&mut client)
                    .unwrap_or_else(|error| panic!("{name} into {version}, {packing:?}: {error}"));
                let dump: Value = redis::cmd("DUMP")
                    .arg("k")
                    .query(&mut client)
                    .expect("DUMP");
                let Value::BulkString(dump) = dump else {
                    // Its fields were past their time, and with the last of them the hash goes.
                    assert!(name.contains("ttl"), "{name} into {version} is gone");
                    continue;
                };
                let (back, _) = payload::split(&dump).expect("a server's payload");
                let back = payload::decode(family, back).expect("a server's value");
                let lenience = Lenience {
                    ignore_field_ttls: losses.field_ttls > 0,
                    ..Lenience::default()
                };
                assert_eq!(
                    difference_but(&object, &back, lenience),
                    None,
                    "{name} into {version}, {packing:?}"
                );
                restored += 1;
            }
        }
        assert!(restored > 3 * 180, "{version}: {restored}");
    }
}
