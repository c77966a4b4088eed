//! The keys of an RDB file: database, type, size, expiry and name. One value is held at a time, and
//! none that is larger than 64 MiB.
//!
//! ```sh
//! cargo run --example list_rdb -- dump.rdb
//! ```

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use redis_migrate_payload::rdb::{Event, Form, RdbReader};
use redis_migrate_payload::{payload, show_key};

const LARGEST: u64 = 64 << 20;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: list_rdb FILE");
        return Ok(ExitCode::from(2));
    };
    // The reader has a buffer of its own.
    let mut reader = RdbReader::new(File::open(path)?, Form::Compact)?.within(LARGEST);
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Key(record) => {
                let family = reader.facts().family;
                let kind = payload::kind(family, record.value.head()).name();
                let expiry = record
                    .expire_at_ms
                    .map_or("-".to_owned(), |ms| ms.to_string());
                let (len, key) = (record.value.stored_len(), show_key(&record.key));
                println!("{}\t{kind}\t{len}\t{expiry}\t{key}", record.db);
            }
            Event::TooLarge { db, key } => {
                let key = show_key(&key.unwrap_or_default());
                println!("{db}\tlarger than {LARGEST} bytes\t\t\t{key}");
            }
            _ => {}
        }
    }
    // The end mark and the checksum were right when the last event came; nothing may follow them.
    reader.expect_end_of_file()?;
    let facts = reader.facts();
    println!("{}, written by {:?}", facts.magic, facts.server_version);
    Ok(ExitCode::SUCCESS)
}
