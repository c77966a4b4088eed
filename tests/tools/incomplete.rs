//! What `import` does with archives that lack their end, with several archives, and with a choice
//! of keys.

use redis::cmd;
use redis_migrate_format::record::Record;

use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;
use crate::tools::archives::{archive, options, pieces, string};

fn plain(from: u32, to: u32) -> Vec<Record> {
    (from..to)
        .map(|n| {
            let key = format!("k{n}").into_bytes();
            string(0, &key, &key.repeat(50))
        })
        .collect()
}

fn size(server: &TestServer) -> u64 {
    cmd("DBSIZE").query(&mut server.client()).expect("a size")
}

#[test]
fn an_archive_without_its_end_is_refused_unless_that_is_allowed() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("cut.rmz");
    let whole = archive(&plain(0, 100), options(3));
    let pieces = pieces(&whole);
    let cut = &whole[..pieces[2].to as usize + 7];
    let intact: usize = pieces[..3].iter().map(|piece| piece.records.len()).sum();
    std::fs::write(&file, cut).expect("written");
    let version = available()[0];
    let server = TestServer::start(version);
    let import = |flags: &[&str]| {
        let url = server.url();
        let mut arguments = vec!["import", &url];
        arguments.extend_from_slice(flags);
        Tool::new(&arguments)
    };
    import(&[])
        .arg(&file)
        .run()
        .expect_code(10)
        .expect_stderr("--allow-incomplete");
    assert_eq!(size(&server), 0);
    import(&["--allow-incomplete"])
        .arg(&file)
        .run()
        .expect_code(3)
        .expect_stderr("cut.rmz");
    assert_eq!(size(&server), intact as u64);
    cmd("FLUSHALL")
        .query::<()>(&mut server.client())
        .expect("flushed");
    // A pipe shows its end only at its end.
    import(&["--allow-incomplete"])
        .stdin_bytes(cut)
        .run()
        .expect_code(3);
    assert_eq!(size(&server), intact as u64);
    cmd("FLUSHALL")
        .query::<()>(&mut server.client())
        .expect("flushed");
    import(&[]).stdin_bytes(cut).run().expect_code(10);
    // A whole archive needs no permission.
    cmd("FLUSHALL")
        .query::<()>(&mut server.client())
        .expect("flushed");
    std::fs::write(&file, &whole).expect("written");
    import(&["--allow-incomplete"]).arg(&file).run().success();
    assert_eq!(size(&server), 100);
}

#[test]
fn several_archives_are_one_import() {
    let directory = tempfile::tempdir().expect("tempdir");
    let version = available()[0];
    let server = TestServer::start(version);
    let files: Vec<_> = [(0, 40), (30, 70), (70, 100)]
        .iter()
        .enumerate()
        .map(|(n, (from, to))| {
            let file = directory.path().join(format!("{n}.rmz"));
            std::fs::write(&file, archive(&plain(*from, *to), options(3))).expect("written");
            file
        })
        .collect();
    let mut tool = Tool::new(&["import", &server.url(), "--json"]);
    for file in &files {
        tool = tool.arg(file);
    }
    let output = tool.run().success();
    assert_eq!(size(&server), 100);
    let summary = output.summary();
    assert_eq!(summary["sink"]["restored"], 100, "{summary}");
    assert_eq!(summary["sink"]["replaced_own"], 10, "{summary}");
    // One that is not whole keeps all of them out.
    cmd("FLUSHALL")
        .query::<()>(&mut server.client())
        .expect("flushed");
    let bytes = std::fs::read(&files[2]).expect("readable");
    std::fs::write(&files[2], &bytes[..bytes.len() - 5]).expect("written");
    let mut tool = Tool::new(&["import", &server.url()]);
    for file in &files {
        tool = tool.arg(file);
    }
    tool.run().expect_code(10).expect_stderr("2.rmz");
    assert_eq!(size(&server), 0);
    Tool::new(&["import", &server.url()])
        .arg(&files[0])
        .arg(&files[0])
        .run()
        .expect_code(2)
        .expect_stderr("same archive");
}

#[test]
fn only_the_keys_that_are_named_are_imported() {
    let version = available()[0];
    let server = TestServer::start(version);
    let mut records = plain(0, 100);
    records.push(string(0, b"\xff", b"odd"));
    let bytes = archive(&records, options(3));
    Tool::new(&[
        "import",
        &server.url(),
        "--only-key",
        "k7",
        "--only-key",
        "\"\\xff\"",
    ])
    .stdin_bytes(bytes)
    .run()
    .success();
    let mut keys: Vec<Vec<u8>> = cmd("KEYS")
        .arg("*")
        .query(&mut server.client())
        .expect("keys");
    keys.sort();
    assert_eq!(keys, [b"k7".to_vec(), vec![0xff]]);
}

/// Of two archives the second may be damaged: nothing is imported, and nothing says so.
#[test]
fn importing_is_said_only_after_the_last_archive_is_verified() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (first, second) = (
        directory.path().join("first.rmz"),
        directory.path().join("second.rmz"),
    );
    std::fs::write(&first, archive(&plain(0, 100), options(3))).expect("written");
    let whole = archive(&plain(100, 200), options(3));
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let server = TestServer::start(available()[0]);
    let url = server.url();
    let import = |bytes: &[u8]| {
        std::fs::write(&second, bytes).expect("written");
        let tool = Tool::new(&["import", &url, "--verify-first"]);
        tool.arg(&first).arg(&second).run()
    };
    let output = import(&damaged)
        .expect_code(10)
        .expect_stderr("first.rmz is complete and intact\n");
    assert!(!output.stderr.contains("; importing"), "{}", output.stderr);
    assert_eq!(size(&server), 0);
    import(&whole)
        .success()
        .expect_stderr("first.rmz is complete and intact\n")
        .expect_stderr("second.rmz is complete and intact; importing");
    assert_eq!(size(&server), 200);
}
