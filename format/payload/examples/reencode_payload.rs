//! A DUMP payload for a server of another version or family.
//!
//! ```sh
//! cargo run --example reencode_payload -- new.dump redis redis-6.2 old.dump
//! redis-cli -x RESTORE mykey 0 < old.dump
//! ```

use std::error::Error;
use std::process::ExitCode;

use redis_migrate_payload::Family;
use redis_migrate_payload::payload::accept::{Plan, plan_value};
use redis_migrate_payload::payload::{self, Examined};
use redis_migrate_payload::rdb::RdbTarget;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, family, target, to] = args.as_slice() else {
        eprintln!("usage: reencode_payload FILE redis|valkey redis-X.Y|valkey-X.Y NEW_FILE");
        return Ok(ExitCode::from(2));
    };
    let family = match family.as_str() {
        "valkey" => Family::Valkey,
        _ => Family::Redis,
    };
    let dump = std::fs::read(from)?;
    let anew = for_server(&dump, family, target)?;
    std::fs::write(to, anew)?;
    Ok(ExitCode::SUCCESS)
}

/// The payload that such a server takes, if it takes the value at all.
fn for_server(dump: &[u8], family: Family, target: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let target = RdbTarget::parse(target).ok_or("a server is written redis-7.2, valkey-8.1")?;
    let (value, rdb_version) = payload::split(dump)?;
    // A sound footer on a damaged value would be believed: some servers end when they read it.
    if let Examined::Damaged(error) = payload::examine(family, value) {
        return Err(error.into());
    }
    match plan_value(&target.accepts, family, rdb_version, value) {
        Plan::Keep | Plan::Verbatim => Ok(dump.to_vec()),
        Plan::Restamp(version) => Ok(payload::sign(value, version)),
        Plan::Reencode { forms, version } => {
            let mut anew = Vec::new();
            let losses = payload::recode(family, value, forms, &mut anew)?;
            if !losses.is_none() {
                eprintln!("the server cannot hold all of it: {losses:?}");
            }
            Ok(payload::sign(&anew, version))
        }
        Plan::Refuse(refusal) => Err(refusal.to_string().into()),
    }
}
