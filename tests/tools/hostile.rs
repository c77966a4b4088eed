//! Archives that are meant to hurt: each verb that reads an archive ends with its one sentence, in
//! memory that does not grow with what they claim.

use std::collections::BTreeSet;

use redis::cmd;
use redis_migrate_format::WriterOptions;
use redis_migrate_format::record::Record;

use crate::archives::{archive, string};
use crate::support::hostile_archives::{Hostile, Verdict, all};
use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;

/// What a verb may take on top of the largest value.
const ALLOWED_KIB: u64 = 64 * 1024;

fn check(hostile: &Hostile, arguments: &[&str], file: &std::path::Path) -> Result<(), String> {
    let output = Tool::new(arguments).arg(file).stdout_null().run();
    let allowed = ALLOWED_KIB + hostile.largest_value / 1024;
    let code = output.code();
    let verb = arguments[0];
    let right = match (hostile.verdict, code) {
        (Verdict::Complete, Some(0 | 3)) | (Verdict::Damaged, Some(10)) => true,
        // Its frames may be intact, all or some of them.
        (Verdict::Damaged, Some(0 | 3)) => verb == "salvage" || arguments.contains(&"--quick"),
        _ => false,
    };
    let what = format!("{}: {arguments:?}", hostile.name);
    if !right {
        return Err(format!("{what}: ended with {code:?}: {}", output.stderr));
    }
    if output.peak_memory_kib > allowed {
        let peak = output.peak_memory_kib;
        return Err(format!("{what}: {peak} KiB where {allowed} are allowed"));
    }
    Ok(())
}

#[test]
fn no_verb_takes_more_memory_than_a_value_needs() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut wrong = Vec::new();
    for hostile in all() {
        let file = directory.path().join(format!("{}.rmz", hostile.name));
        std::fs::write(&file, &hostile.bytes).expect("written");
        for arguments in [
            &["verify", "--json"][..],
            &["verify", "--quick"],
            &["list", "--json"],
            &["inspect", "--json"],
            &["inspect"],
            &["report", "--json"],
            &["report"],
            &["salvage"],
        ] {
            wrong.extend(check(&hostile, arguments, &file).err());
        }
        std::fs::remove_file(&file).expect("removed");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A frame of several times as many records as a reader makes at a time, by one worker and by
/// several.
#[test]
fn a_large_frame_is_imported_and_converted_whole() {
    const KEYS: u32 = 80_000;
    let directory = tempfile::tempdir().expect("tempdir");
    let name = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    };
    let (file, lines) = (name("large.rmz"), name("out.jsonl"));
    let records: Vec<Record> = (0..KEYS)
        .map(|n| string(n % 3, format!("key:{n}").as_bytes(), b"value"))
        .collect();
    let options = WriterOptions {
        frame_target_bytes: 16 << 20,
        fragment_bytes: 16 << 20,
        ..WriterOptions::default()
    };
    std::fs::write(&file, archive(&records, options)).expect("written");
    Tool::new(&["convert", &file, &lines]).run().success();
    let written = std::fs::read_to_string(&lines).expect("written");
    let names: BTreeSet<&str> = written.lines().collect();
    assert_eq!(names.len(), KEYS as usize);

    let server = TestServer::start(available()[0]);
    for jobs in ["1", "3"] {
        let imported = Tool::new(&["import", &server.url(), &file, "--jobs", jobs, "--json"]);
        let imported = imported.run().success();
        assert_eq!(imported.summary()["sink"]["keys"], KEYS, "{jobs}");
        let mut client = server.client();
        let mut keys = 0;
        for db in 0..3 {
            let () = cmd("SELECT").arg(db).query(&mut client).expect("SELECT");
            keys += cmd("DBSIZE").query::<u32>(&mut client).expect("DBSIZE");
        }
        assert_eq!(keys, KEYS, "{jobs}");
        let () = cmd("FLUSHALL").query(&mut client).expect("flushed");
    }
}
