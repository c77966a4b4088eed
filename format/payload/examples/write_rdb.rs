//! Writes an RDB file that Redis 7.0 and later loads at its start: a string that expires, a list and
//! a hash.
//!
//! ```sh
//! cargo run --example write_rdb -- dump.rdb && redis-server --dir . --dbfilename dump.rdb
//! ```

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use redis_migrate_payload::payload::{self, Field, Object};
use redis_migrate_payload::rdb::{RdbTarget, RdbWriter};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: write_rdb FILE");
        return Ok(ExitCode::from(2));
    };
    // For which servers the file is decides its version and in which forms values may stand in it.
    let target = RdbTarget::parse("redis-7.0").ok_or("no such server")?;
    let mut writer = RdbWriter::new(File::create(path)?, target.magic);
    writer.aux(target.version_field(), &target.server_version)?;

    let far = Some(4_102_444_800_000);
    let field = |name: &'static str, value: &'static str| Field {
        name: name.as_bytes().into(),
        value: value.as_bytes().into(),
        expire_at_ms: None,
    };
    let keys: [(&str, Option<u64>, Object<'_>); 3] = [
        ("greeting", far, Object::String(b"hello".into())),
        ("queue", None, Object::List(vec![b"a".into(), b"b".into()])),
        (
            "user:1",
            None,
            Object::Hash(vec![field("name", "Ada"), field("born", "1815")]),
        ),
    ];
    for (key, expire_at_ms, object) in keys {
        let mut value = Vec::new();
        let losses = payload::encode(&object, target.accepts.forms(), &mut value);
        assert!(losses.is_none(), "every server has these types");
        writer.key(0, key.as_bytes(), expire_at_ms, None, &value)?;
    }
    // Without the end mark and the checksum no server loads it.
    writer.finish()?;
    Ok(ExitCode::SUCCESS)
}
