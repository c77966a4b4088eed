//! RDB files and replication streams of real servers: read, compared with what SCAN gives, written,
//! and loaded by real servers.
//!
//! Left out: files that no server at hand writes, which are made by hand in `src/rdb/tests`.

mod damage;
mod files;
mod key_metadata;
mod later;
mod module_data;
mod moments;
mod odd;
mod replica;
mod writing;

use std::path::PathBuf;

use crate::support::dataset::fill_every_type;
use crate::support::servers::{Builder, TestServer, Version};
use redis_migrate_format::record::{Context, Record};
use redis_migrate_format::{End, Header, Limits, Reader};

/// A server with one of everything.
fn filled(builder: Builder) -> TestServer {
    let server = builder.start();
    let mut client = server.client();
    fill_every_type(&mut client, server.version());
    server
}

/// The RDB file that the server writes now.
fn saved(server: &TestServer) -> PathBuf {
    redis::cmd("SAVE").exec(&mut server.client()).unwrap();
    server.path().join("dump.rdb")
}

/// An export that reads each key once, and streams not again at the end.
fn by_scan<'a>(url: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["export", url, "--consistency", "scan"], flags].concat()
}

/// All of an archive, its records sorted.
struct Archive {
    header: Header,
    context: Context,
    records: Vec<Record>,
    end: End,
}

fn read(archive: &[u8]) -> Archive {
    let mut reader = Reader::new(archive, Limits::default()).unwrap();
    let (mut records, mut context) = (Vec::new(), Context::default());
    while let Some(frame) = reader.next_frame().unwrap() {
        context = frame.context;
        records.extend(frame.records);
    }
    records.sort_by_key(|record| match record {
        Record::Key(key) => (0, key.db, key.key.clone()),
        Record::Functions(_) => (1, 0, Vec::new()),
        _ => panic!("{record:?}"),
    });
    Archive {
        header: reader.header().clone(),
        context,
        records,
        end: reader.end().unwrap().clone(),
    }
}

/// One test for each server of the matrix.
macro_rules! for_each_version {
    ($test:path) => {
        $crate::rdb::for_each_version!($test, redis_6_0 Redis60, redis_7_0 Redis70, redis_8_0 Redis80,
                                  redis_8_6 Redis86,
                                  valkey_8_1 Valkey81, valkey_9_1 Valkey91);
    };
    ($test:path, $($name:ident $version:ident),*) => {
        $(
            #[test]
            fn $name() {
                if let Some(version) = $crate::support::servers::require($crate::rdb::Version::$version) {
                    $test(version);
                }
            }
        )*
    };
}
pub(crate) use for_each_version;

/// Names the first record that differs; whole archives are no message.
#[track_caller]
fn assert_same(one: &[Record], other: &[Record]) {
    for (one, other) in one.iter().zip(other) {
        if one != other {
            let shown = |record: &Record| {
                let text = format!("{record:?}");
                text.chars().take(500).collect::<String>()
            };
            panic!("{}\n{}", shown(one), shown(other));
        }
    }
    assert_eq!(one.len(), other.len());
}
