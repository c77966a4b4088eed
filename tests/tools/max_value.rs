//! `--max-value`: a value that is larger is named and left out, and costs no memory.

use std::path::Path;

use redis::cmd;
use redis_migrate_format::WriterOptions;
use redis_migrate_format::record::Record;

use crate::support::servers::{TestServer, available};
use crate::support::tool::{Output, Tool};
use crate::tools::archives::{archive, string};

const LARGE: usize = 200 << 20;

/// Two small keys, and between them one of 200 MiB of zeros.
fn write(directory: &Path, large: usize) -> String {
    let records = [
        string(0, b"a", b"first"),
        string(0, b"large", &vec![0; large]),
        string(0, b"z", b"last"),
    ];
    let file = directory.join(format!("{large}.rmz"));
    std::fs::write(&file, archive(&records, WriterOptions::default())).expect("written");
    file.to_str().expect("UTF-8").to_owned()
}

/// Runs it with the limit; it must not take the memory that the value would.
#[track_caller]
fn within(arguments: &[&str], code: i32) -> Output {
    let output = Tool::new(arguments).args(&["--max-value", "1mb"]).run();
    let output = output.expect_code(code);
    let peak = output.peak_memory_kib;
    assert!(peak < 64 * 1024, "{arguments:?}: {peak} KiB");
    output
}

#[track_caller]
fn named(output: Output) -> Output {
    output.expect_stderr("large").expect_stderr("--max-value")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn verbs_that_need_values_name_what_is_larger_and_go_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = write(directory.path(), LARGE);
    let verified = named(within(&["verify", &file, "--json"], 3));
    let json: serde_json::Value = serde_json::from_str(&text(&verified)).expect("JSON");
    assert_eq!(json["complete"], true);
    assert_eq!(json["keys"], 3);
    assert_eq!(json["values"]["decoded"], 2);
    assert_eq!(json["values"]["too_large"], 1);

    let lines = directory.path().join("out.jsonl");
    let lines = lines.to_str().expect("UTF-8");
    named(within(&["convert", &file, lines], 3));
    let written = std::fs::read_to_string(lines).expect("written");
    assert!(written.contains("first") && written.contains("last"));
    assert!(!written.contains("large"));
    let rdb = directory.path().join("out.rdb");
    let rdb = rdb.to_str().expect("UTF-8");
    named(within(&["convert", &file, rdb, "--for", "redis-7.0"], 3));
    assert!(std::fs::metadata(rdb).expect("written").len() < 1_000);

    let extract = |key: &str, code| within(&["extract", &file, "--key", key], code);
    named(extract("large", 3));
    assert_eq!(text(&extract("a", 0)), "first");
    let piped = Tool::new(&["extract", "--key", "large", "--max-value", "1mb"])
        .stdin_file(Path::new(&file))
        .run();
    assert!(
        piped.peak_memory_kib < 64 * 1024,
        "{}",
        piped.peak_memory_kib
    );
    named(piped.expect_code(3));

    // The same size on both sides, and nothing is known of either.
    within(&["diff", &file, &file], 3);
}

#[test]
fn verbs_that_need_no_values_show_it_with_its_size() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = write(directory.path(), LARGE);
    // Type byte and length come before the string.
    let stored = LARGE + 6;
    let listed = within(&["list", &file, "--json"], 0);
    assert!(text(&listed).contains(&format!("\"value_bytes\":{stored}")));
    let inspected = within(&["inspect", &file, "--json"], 0);
    assert!(text(&inspected).contains(&stored.to_string()));
    let reported = within(&["report", &file, "--json"], 0);
    assert!(text(&reported).contains(&stored.to_string()));
}

#[test]
fn salvage_leaves_out_what_is_larger() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = write(directory.path(), LARGE);
    let rescued = directory.path().join("rescued.rmz");
    let rescued = rescued.to_str().expect("UTF-8");
    let output = named(within(&["salvage", &file, "-o", rescued, "--json"], 3));
    assert_eq!(output.summary()["too_large"], 1);
    assert_eq!(output.summary()["keys"], 2);
    let verified = Tool::new(&["verify", rescued, "--json"]).run().success();
    assert!(text(&verified).contains("\"keys\":2"));
}

#[test]
fn imports_name_what_is_larger_and_go_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = write(directory.path(), LARGE);
    let server = TestServer::start(available()[0]);
    let url = server.url();
    for more in [&["--jobs", "1"][..], &["--jobs", "3"], &["--verify-first"]] {
        let import = [&["import", &url, &file, "--replace"], more].concat();
        named(within(&import, 3));
        let mut client = server.client();
        let keys: Vec<Option<String>> = cmd("MGET")
            .arg(&["a", "large", "z"])
            .query(&mut client)
            .expect("MGET");
        assert_eq!(
            keys,
            [Some("first".to_owned()), None, Some("last".to_owned())]
        );
        let () = cmd("FLUSHALL").query(&mut client).expect("flushed");
    }
    named(within(&["import", &url, &file, "--dry-run"], 3));
}

/// The older value of a key must not pass for the one that was too large.
#[test]
fn what_is_larger_replaces_its_older_value_in_no_output() {
    let directory = tempfile::tempdir().expect("tempdir");
    let records = [
        string(0, b"large", b"old"),
        string(0, b"large", &vec![0; 5 << 20]),
    ];
    let file = directory.path().join("twice.rmz");
    std::fs::write(&file, archive(&records, WriterOptions::default())).expect("written");
    let file = file.to_str().expect("UTF-8");
    let rdb = directory.path().join("out.rdb");
    let rdb = rdb.to_str().expect("UTF-8");
    named(within(&["convert", file, rdb, "--for", "redis-7.0"], 3));
    let written = std::fs::read(rdb).expect("written");
    assert!(!written.windows(5).any(|bytes| bytes == b"large"));
    named(within(&["extract", file, "--key", "large"], 3));
}

/// Libraries that no server would take, larger than any reader has to keep; and a key on either side.
#[test]
fn function_libraries_that_are_larger_are_left_out_and_the_reading_goes_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let records = [
        string(0, b"a", b"first"),
        Record::Functions(vec![0; 17 << 20]),
        string(0, b"z", b"last"),
    ];
    let file = directory.path().join("functions.rmz");
    std::fs::write(&file, archive(&records, WriterOptions::default())).expect("written");
    let file = file.to_str().expect("UTF-8");
    let named = |output: Output| {
        output
            .expect_stderr("function libraries of 17")
            .expect_stderr("--max-value")
    };
    let verified = named(within(&["verify", file, "--json"], 3));
    assert_eq!(verified.summary()["complete"], true);
    assert_eq!(
        verified.summary()["values"]["too_large_function_payloads"],
        1
    );
    let lines = directory.path().join("out.jsonl");
    let lines = lines.to_str().expect("UTF-8");
    named(within(&["convert", file, lines], 3));
    let written = std::fs::read_to_string(lines).expect("written");
    assert!(written.contains("first") && written.contains("last"));
    within(&["convert", file, lines, "--no-functions"], 0);
    let rescued = directory.path().join("rescued.rmz");
    let rescued = rescued.to_str().expect("UTF-8");
    let salvaged = named(within(&["salvage", file, "-o", rescued, "--json"], 3));
    assert_eq!(salvaged.summary()["keys"], 2);

    let server = TestServer::start(available()[0]);
    named(within(&["import", &server.url(), file], 3));
    let keys: Vec<String> = cmd("MGET")
        .arg(&["a", "z"])
        .query(&mut server.client())
        .expect("MGET");
    assert_eq!(keys, ["first", "last"]);
    let foretold = within(&["doctor", &server.url(), file, "--json"], 3);
    assert_eq!(foretold.summary()["archive"]["functions_too_large"], 1);
}

/// An RDB file with two strings, one of them with a name of a byte more than an archive takes.
#[test]
fn a_key_that_no_archive_takes_is_named_and_the_others_are_exported() {
    let directory = tempfile::tempdir().expect("tempdir");
    let name = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    };
    let (rdb, file) = (name("in.rdb"), name("out.rmz"));
    let long = (16_u32 << 20) + 1;
    let bytes = [
        &b"REDIS0009\xfe\x00\x00\x01a\x05first\x00\x80"[..],
        &long.to_be_bytes(),
        &vec![b'n'; long as usize],
        // No checksum.
        b"\x06second\xff\0\0\0\0\0\0\0\0",
    ];
    std::fs::write(&rdb, bytes.concat()).expect("written");
    Tool::new(&["export", &rdb, "-o", &file])
        .run()
        .expect_code(3)
        .expect_stderr("16777217 bytes is longer than an archive allows");
    let verified = Tool::new(&["verify", &file, "--json"]).run().success();
    assert_eq!(verified.summary()["keys"], 1);
}

/// What is compared although some values are too large; and doctor counts these as an import does.
#[test]
fn the_others_are_compared_and_doctor_counts_as_an_import() {
    let Some(version) = available().into_iter().next() else {
        return;
    };
    let directory = tempfile::tempdir().expect("tempdir");
    // A frame holds it, so that it is read whole.
    let file = write(directory.path(), 2 << 20);
    let server = TestServer::start(version);
    Tool::new(&["import", &server.url(), &file]).run().success();
    named(within(&["verify", &file, "--against", &server.url()], 3));
    cmd("DEL").arg("z").exec(&mut server.client()).expect("DEL");
    let verified = named(within(&["verify", &file, "--against", &server.url()], 5));
    assert!(text(&verified).contains("missing"), "{}", text(&verified));

    let empty = TestServer::start(version);
    let doctor = within(&["doctor", &empty.url(), &file, "--json"], 3);
    let json: serde_json::Value = serde_json::from_str(&text(&doctor)).expect("JSON");
    assert!(
        json.to_string().contains("larger than --max-value allows"),
        "{json}"
    );
    within(&["import", &empty.url(), &file, "--dry-run"], 3);
}

/// Values above the limit are one count, by one name, whether their payload is larger already or only
/// their text is, which a server compresses; and `copy` leaves out the same ones.
#[test]
fn what_is_above_the_limit_is_counted_once_and_said_of_the_archive() {
    let Some(version) = available().into_iter().next() else {
        return;
    };
    let (server, other) = (TestServer::start(version), TestServer::start(version));
    let mut client = server.client();
    let incompressible: Vec<u8> = (0..2_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let values = [
        ("noise", incompressible),
        ("text", vec![b'a'; 5_000]),
        ("small", vec![b'a'; 900]),
    ];
    for (key, value) in &values {
        cmd("SET").arg(key).arg(value).exec(&mut client).expect(key);
    }
    let directory = tempfile::tempdir().expect("tempdir");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let files = [place("scan.rmz"), place("replica.rmz")];
    let limited = |arguments: &[&str]| {
        let tool = Tool::new(arguments).args(&["--max-value", "1kb"]);
        tool.run().expect_code(3)
    };
    let equation =
        "scanned 3 = written 1 + filtered 0 + vanished 0 + above --max-value 2 + failed 0";
    for (via, file) in [&[][..], &["--via", "replica"]].iter().zip(&files) {
        let export = ["export", &server.url(), "-o", file];
        let output = limited(&[&export[..], via].concat());
        let text = output.stderr.replace("read 3 =", "scanned 3 =");
        assert!(text.contains(equation), "{text}");
        let but = ", except 2 values above --max-value";
        assert!(text.contains(but), "{text}");
        assert!(!text.contains("could not be read"), "{text}");
        for key in ["\"noise\"", "\"text\""] {
            let named = format!("{key}: its value has more than the 1000 bytes that --max-value");
            assert_eq!(text.matches(&named).count(), 1, "{text}");
        }
    }
    let said = "the export left out 2 keys (db 0: 2)";
    let file = files[0].as_str();
    for verb in ["verify", "list", "inspect"] {
        let output = Tool::new(&[verb, file]).run().success().expect_stderr(said);
        let shown = text(&output);
        assert!(!shown.contains("could not be read"), "{verb}: {shown}");
        let limit = "no values above 1000 B (--max-value)";
        assert!(verb == "list" || shown.contains(limit), "{verb}: {shown}");
    }
    let import = Tool::new(&["import", &other.url(), file]).run();
    import.success().expect_stderr(said);

    cmd("FLUSHALL").exec(&mut other.client()).expect("flushed");
    let (from, to) = (server.url(), other.url());
    let copied = limited(&["copy", &from, &to]);
    let above = "above --max-value 2 + failed 0";
    assert!(copied.stderr.contains(above), "{}", copied.stderr);
    let keys: Vec<String> = cmd("KEYS")
        .arg("*")
        .query(&mut other.client())
        .expect("KEYS");
    assert_eq!(keys, ["small"]);
}

/// A string that a server compressed, kept as it came, is as large as it is without that; and a footer
/// is none of it. By every verb, for limits and for selections.
#[test]
fn a_value_has_one_size_on_every_verb() {
    let Some(version) = available().into_iter().next() else {
        return;
    };
    let (server, empty) = (TestServer::start(version), TestServer::start(version));
    for (key, bytes) in [("text", 5_000), ("edge", 900)] {
        let value = vec![b'a'; bytes];
        let command = cmd("SET").arg(key).arg(value).exec(&mut server.client());
        command.expect(key);
    }
    let directory = tempfile::tempdir().expect("tempdir");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (file, other, rdb) = (place("a.rmz"), place("b.rmz"), place("a.rdb"));
    let (from, to) = (server.url(), empty.url());
    Tool::new(&["export", &from, "--verbatim", "-o", &file])
        .run()
        .success();
    let length = std::fs::metadata(&file).expect("written").len();
    assert!(length < 2_000, "{length}: it is not compressed");
    // A type byte, a length of two bytes, and the text.
    for (limit, larger) in [("903", "text"), ("902", "edge")] {
        let verbs: [&[&str]; 10] = [
            &["export", &from, "--verbatim", "-o", &other],
            &["export", &from, "-o", &other],
            &["copy", &from, &to, "--dry-run"],
            &["import", &to, &file, "--dry-run"],
            &["verify", &file],
            &["convert", &file, &rdb],
            &["convert", &file, "--to", "jsonl", "-"],
            &["extract", &file, "--key", larger],
            &["salvage", &file, "-o", &other],
            &["doctor", &to, &file],
        ];
        for verb in verbs {
            let output = Tool::new(verb).args(&["--max-value", limit]).run();
            let output = output.expect_code(3);
            let said = text(&output) + &output.stderr;
            // The doctor names one of them, whichever comes first.
            if verb[0] != "doctor" {
                assert!(said.contains(larger), "{verb:?}: {said}");
                let is_named = output.stderr.contains("\"edge\"");
                assert_eq!(is_named, larger == "edge", "{limit} {verb:?}: {said}");
            }
        }
        Tool::new(&["diff", &file, &from, "--max-value", limit])
            .run()
            .expect_code(3);
    }
    for (limit, both) in [("903", false), ("5003", true)] {
        for input in [&from, &file] {
            let selected = ["--max-size", limit];
            let export = Tool::new(&["import", &to, "--dry-run", "--json"]).args(&selected);
            let tool = match input == &file {
                true => export.arg(input),
                false => Tool::new(&["copy", input, &to, "--dry-run", "--json"]).args(&selected),
            };
            let summary = tool.run().success().summary();
            assert_eq!(summary["sink"]["taken"], 1 + u64::from(both), "{input}");
        }
        let listed = Tool::new(&["list", &file, "--max-size", limit]).run();
        assert_eq!(text(&listed.success()).contains("\"text\""), both);
        let lines = Tool::new(&["convert", "--to", "jsonl", "--max-size", limit, &file, "-"]);
        assert_eq!(text(&lines.run().success()).contains("\"text\""), both);
        let differing = Tool::new(&["diff", &file, &to, "--max-size", limit, "--json"]).run();
        let found = differing.expect_code(5).summary();
        assert_eq!(found["missing"], 1 + u64::from(both), "{found}");
    }
}
