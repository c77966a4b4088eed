//! What stands in a DUMP payload.
//!
//! ```sh
//! redis-cli --raw DUMP mykey | head -c -1 > mykey.dump
//! cargo run --example decode_payload -- mykey.dump
//! cargo run --example decode_payload -- mykey.dump valkey
//! ```

use std::error::Error;
use std::process::ExitCode;

use redis_migrate_payload::payload::{self, Object};
use redis_migrate_payload::{Family, show_key};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        eprintln!("usage: decode_payload FILE [redis | valkey]");
        return Ok(ExitCode::from(2));
    };
    let family = match args.next().as_deref() {
        Some("valkey") => Family::Valkey,
        _ => Family::Redis,
    };
    let dump = std::fs::read(path)?;
    let (value, rdb_version) = payload::split(&dump)?;
    println!(
        "{}, RDB version {rdb_version}",
        payload::kind(family, value).name()
    );
    print(&payload::decode(family, value)?);
    Ok(ExitCode::SUCCESS)
}

fn print(object: &Object<'_>) {
    match object {
        Object::String(text) => println!("{}", show_key(text)),
        Object::List(elements) | Object::Set(elements) => {
            for element in elements {
                println!("{}", show_key(element));
            }
        }
        Object::ZSet(members) => {
            for member in members {
                println!("{} {}", show_key(&member.member), member.score);
            }
        }
        Object::Hash(fields) => {
            for field in fields {
                let expiry = field
                    .expire_at_ms
                    .map(|ms| format!(", expires at {ms} (Unix ms)"));
                let (name, value) = (show_key(&field.name), show_key(&field.value));
                println!("{name} {value}{}", expiry.unwrap_or_default());
            }
        }
        Object::Stream(stream) => {
            println!("{} entries, {} groups", stream.length, stream.groups.len());
        }
        other => println!("{other:?}"),
    }
}
