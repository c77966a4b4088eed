//! Archives that are meant to hurt: each verb that reads an archive ends with its one sentence, in
//! memory that does not grow with what they claim.

use std::collections::BTreeSet;

use redis::cmd;
use redis_migrate_format::header::ConsistencyReached;
use redis_migrate_format::header::{ArchiveOrigin, Expected};
use redis_migrate_format::record::Record;
use redis_migrate_format::{EndFacts, Header, Writer, WriterOptions};

use crate::support::hostile_archives::{End, Hostile, Maker, Verdict, all, one_key, varint};
use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;
use crate::tools::archives::{CONTEXT, archive, string};

/// What a verb may take on top of the largest value.
const ALLOWED_KIB: u64 = 64 * 1024;

fn check(hostile: &Hostile, arguments: &[&str], file: &std::path::Path) -> Result<(), String> {
    let output = Tool::new(arguments).arg(file).stdout_null().run();
    let allowed = ALLOWED_KIB + hostile.largest_bytes / 1024;
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

/// Archives whose numbers do not fit in any sum, by name.
fn at_the_edge_of_numbers() -> Vec<(&'static str, Vec<u8>)> {
    let numbers = |numbers: &[u64]| -> Vec<u8> {
        numbers.iter().flat_map(|number| varint(*number)).collect()
    };
    let with_end = |change: &dyn Fn(&mut End)| {
        let mut maker = Maker::new();
        maker.data(&one_key(0));
        let mut end = End::of(1, &[(0, 1, 2, 1)]);
        change(&mut end);
        maker.finish(&end.body())
    };
    // Database, scanned, read again, written, superseded, filtered, vanished, failed.
    const MAX: u64 = u64::MAX;
    let row = |db, written| numbers(&[db, MAX, MAX, written, MAX, MAX, MAX, MAX]);
    let counts = with_end(&|end| end.counts = [varint(2), row(0, 1), row(1, 0)].concat());
    // Database, records, with expiry, bytes of values and of keys, tombstones.
    let totals = with_end(&|end| {
        end.per_db = [varint(1), numbers(&[0, MAX, MAX, MAX, MAX, MAX])].concat();
        end.counts = [varint(1), numbers(&[0, 1, 0, 1, 0, 0, 0, 0])].concat();
    });
    let expected = |db| Expected {
        db,
        keys: MAX,
        expires: MAX,
    };
    let header = Header {
        expected: vec![expected(0), expected(1)],
        origin: ArchiveOrigin::Salvaged {
            lost: vec![(0, MAX), (MAX, MAX)],
        },
        ..Header::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, WriterOptions::default()).expect("it begins");
    writer.set_context(CONTEXT).expect("context");
    writer.write(&string(0, b"k", b"v")).expect("written");
    let facts = EndFacts::new(ConsistencyReached::Exact(vec![(0, 0)]));
    let claims = writer.finish(facts).expect("finished").inner;
    let mut numbered = Maker::new();
    numbered.number(MAX);
    numbered.data(&one_key(0));
    vec![
        ("counts", counts),
        ("totals", totals),
        ("header", claims),
        ("frame", numbered.cut()),
    ]
}

#[test]
fn numbers_that_fit_in_no_sum_are_no_surprise() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("a.rmz");
    let file = file.to_str().expect("text");
    let out = directory.path().join("out.rmz");
    let out = out.to_str().expect("text");
    let mut wrong = Vec::new();
    for (name, bytes) in at_the_edge_of_numbers() {
        std::fs::write(file, &bytes).expect("written");
        for arguments in [
            &["verify", file][..],
            &["verify", file, "--json"],
            &["verify", file, "--quick"],
            &["list", file],
            &["inspect", file],
            &["inspect", file, "--json"],
            &["report", file],
            &["report", file, "--json"],
            &["extract", file, "-k", "k"],
            &["diff", file, file],
            &["convert", file, out, "--to", "jsonl", "--force"],
            &["salvage", file, "-o", out, "--force"],
            &["salvage", file],
        ] {
            let output = Tool::new(arguments).run();
            let is_known = matches!(output.code(), Some(0 | 1 | 2 | 3 | 10));
            let is_sound = is_known && !output.stderr.contains("panicked");
            let is_bug = output.stderr.contains("this is a bug");
            if !is_sound || is_bug {
                wrong.push(format!(
                    "{name}: {arguments:?}: {:?}: {}",
                    output.code(),
                    output.stderr
                ));
            }
        }
        // Nothing of this adds up, and that is not called intact.
        let verified = Tool::new(&["verify", file]).run();
        let expected = match name {
            "header" => 0,
            "counts" => 3,
            _ => 10,
        };
        if verified.code() != Some(expected) {
            wrong.push(format!("{name}: verify: {verified:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
