//! An export that is killed again and again, and goes on until it is done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Connection, cmd};

use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_equal;
use crate::support::many::fill_many;
use crate::support::random::Random;
use crate::support::servers::{TestServer, available};
use crate::support::tool::{Output, Tool};

/// Keys of database 0.
const KEYS: u64 = 150_000;

/// COUNT of SCAN.
const PAGE: &str = "200";

/// Slow enough to be killed in between.
const PACE: &str = "15000";

struct Export {
    url: String,
    file: PathBuf,
    part: PathBuf,
    journal: PathBuf,
    _directory: tempfile::TempDir,
}

impl Export {
    fn of(server: &TestServer) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| directory.path().join(name);
        Self {
            url: server.url(),
            file: at("snap.rmz"),
            part: at("snap.rmz.part"),
            journal: at("snap.rmz.part.state"),
            _directory: directory,
        }
    }

    fn tool(&self) -> Tool {
        Tool::new(&["export", &self.url, "--consistency", "scan", "--resume"])
            .args(&["--scan-count", PAGE, "--rate-limit", PACE, "-o"])
            .arg(&self.file)
    }

    /// How many places the journal notes.
    fn noted(&self) -> u64 {
        let bytes = std::fs::read(&self.journal).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .matches("\"run_id\":")
            .count() as u64
    }

    /// Kills a run when it has noted a few places more, or at some moment before.
    fn kill(&self, tool: Tool, places: u64, random: &mut Random) {
        let before = self.noted();
        let mut running = tool.spawn();
        // A program that has hardly begun has nothing to lose yet. One that starts over has a new
        // journal.
        let begun = || {
            let now = self.noted();
            let wanted = if now < before {
                places
            } else {
                before + places
            };
            self.part.exists() && now >= wanted
        };
        while !begun() && !running.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.below(200)));
        assert!(!running.has_ended(), "{}", running.wait().stderr);
        running.kill();
        running.wait();
        assert!(self.part.exists() && !self.file.exists());
    }

    /// Keys that SCAN had given at the last place that is noted.
    fn scanned(&self) -> u64 {
        let bytes = std::fs::read(&self.journal).expect("a journal");
        let text = String::from_utf8_lossy(&bytes);
        let (_, last) = text.rsplit_once("\"counts\":[").expect("a place");
        let (counts, _) = last.split_once("]]]").expect("counts");
        let rows = counts.split("]],");
        let row = |row: &str| -> u64 {
            let (_, numbers) = row.rsplit_once('[').expect("numbers");
            let (scanned, _) = numbers.split_once(',').expect("several");
            scanned.parse().expect("a number")
        };
        rows.map(row).sum()
    }

    /// It is done, and says what the server holds.
    fn is_whole(&self, server: &TestServer) {
        assert!(self.file.exists() && !self.part.exists() && !self.journal.exists());
        Tool::new(&["verify"]).arg(&self.file).run().success();
        let empty = TestServer::start(server.version());
        Tool::new(&["import", &empty.url()])
            .arg(&self.file)
            .run()
            .success();
        assert_equal(&mut server.client(), &mut empty.client());
        std::fs::remove_file(&self.file).expect("removed");
    }
}

/// A server with small keys in one database, and some of every type in another.
fn filled(keys: u64) -> TestServer {
    let server = TestServer::start(available()[0]);
    fill_many(&mut server.client(), keys, 5);
    fill_every_type(&mut server.client_db(3), server.version());
    server
}

fn scans(client: &mut Connection) -> u64 {
    let info: String = cmd("INFO").arg("commandstats").query(client).expect("INFO");
    info.lines()
        .find_map(|line| line.strip_prefix("cmdstat_scan:calls="))
        .and_then(|rest| rest.split(',').next())
        .map_or(0, |calls| calls.parse().expect("a number"))
}

#[track_caller]
fn starts_over(output: Output, why: &str) {
    let output = output.success();
    output.expect_stderr(why).expect_stderr("starts over");
}

fn kills() -> u64 {
    let wanted = std::env::var("FAULT_RUNS").ok();
    wanted.map_or(10, |runs| runs.parse().expect("FAULT_RUNS is a number"))
}

#[test]
fn killed_ten_times_it_goes_on_where_scan_stood() {
    let server = filled(KEYS);
    let client = &mut server.client();
    let export = Export::of(&server);
    let complete = Export::of(&server);
    complete.tool().run().success();
    let all = scans(client);
    let mut random = Random::new(97);
    let mut left = kills();
    while left > 0 {
        // Several files, so that none is done before it was killed often enough.
        let some = left.min(5);
        for _ in 0..some {
            let places = random.below(3);
            export.kill(export.tool(), places, &mut random);
        }
        left -= some;
        // At least once more, so that there is a place in any case.
        export.kill(export.tool(), 2, &mut random);
        let given = export.scanned();
        let before = scans(client);
        let done = export.tool().run().success();
        done.expect_stderr("continuing after");
        let used = scans(client) - before;
        let total = KEYS + 1_000;
        let due = all * total.saturating_sub(given) / total;
        assert!(given > 0 && used < all, "{used} of {all}, {given} given");
        assert!(
            used <= due + all / 20 + 5,
            "{used} calls where {due} of {all} were due"
        );
        export.is_whole(&server);
    }
}

/// Killed at the very end, about when the archive takes its name: the archive is whole, and a journal
/// that is left behind does no harm to the next run.
#[test]
fn killed_as_it_ends_it_leaves_a_whole_archive_or_goes_on() {
    let server = TestServer::start(available()[0]);
    fill_many(&mut server.client(), 2_000, 5);
    fill_every_type(&mut server.client_db(3), server.version());
    let export = Export::of(&server);
    let tool = || {
        Tool::new(&["export", &export.url, "--consistency", "scan", "--resume"])
            .args(&["--scan-count", PAGE, "-o"])
            .arg(&export.file)
    };
    for _ in 0..kills() {
        let mut running = tool().spawn();
        // It takes its name by a rename, so that it is whole as soon as it is there.
        while !export.file.exists() && !running.has_ended() {
            std::hint::spin_loop();
        }
        running.kill();
        running.wait();
        assert!(export.file.exists() && !export.part.exists());
        let is_left = export.journal.exists();
        Tool::new(&["verify"]).arg(&export.file).run().success();
        let again = tool().run().success();
        assert_eq!(
            again.stderr.contains("was completed by an earlier run"),
            is_left,
            "{}",
            again.stderr
        );
        assert!(
            !again.stderr.contains("continuing after"),
            "{}",
            again.stderr
        );
        export.is_whole(&server);
    }
}

#[test]
fn another_process_or_a_damaged_part_starts_over() {
    let mut server = filled(50_000);
    let export = Export::of(&server);
    let mut random = Random::new(3);
    let quickly = |export: &Export| {
        Tool::new(&["export", &export.url, "--consistency", "scan", "--resume"])
            .arg("-o")
            .arg(&export.file)
    };
    let stopped = |random: &mut Random| export.kill(export.tool(), 2, random);

    stopped(&mut random);
    damage(&export.part);
    starts_over(quickly(&export).run(), "damaged");
    export.is_whole(&server);

    stopped(&mut random);
    let file = std::fs::File::options().write(true).open(&export.part);
    file.expect("open").set_len(1_000).expect("cut");
    starts_over(quickly(&export).run(), "cannot be continued");
    export.is_whole(&server);

    stopped(&mut random);
    starts_over(quickly(&export).arg("--verbatim").run(), "--verbatim");
    export.is_whole(&server);

    stopped(&mut random);
    let auto = Tool::new(&["export", &export.url, "--resume", "-o"]).arg(&export.file);
    starts_over(
        auto.run(),
        "only an export with --consistency scan continues",
    );
    export.is_whole(&server);

    stopped(&mut random);
    let swap = |a: u32, b: u32| {
        let mut swap = cmd("SWAPDB");
        swap.arg(a)
            .arg(b)
            .exec(&mut server.client())
            .expect("swapped");
    };
    swap(0, 3);
    starts_over(quickly(&export).run(), "swapped since");
    export.is_whole(&server);
    swap(0, 3);

    stopped(&mut random);
    let _: () = cmd("SAVE").query(&mut server.client()).expect("saved");
    server.restart();
    starts_over(quickly(&export).run(), "restarted");
    export.is_whole(&server);
}

/// Flips a bit of the first quarter, which is surely before the last place that is noted.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).expect("readable");
    let at = bytes.len() / 4;
    bytes[at] ^= 4;
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let server = TestServer::start(available()[0]);
    let export = Export::of(&server);
    let run = |arguments: &[&str]| {
        Tool::new(&["export", &export.url, "--resume"])
            .args(arguments)
            .run()
            .expect_code(2)
    };
    let file = export.file.display().to_string();
    run(&[]);
    run(&["-o", "-"]).expect_stderr("a file to write to");
    run(&["-o", &file, "--follow"]).expect_stderr("--follow");
    run(&["-o", &file, "--via", "replica"]).expect_stderr("--via replica");
    run(&["-o", &file, "--dry-run"]);
    std::fs::write(&export.part, "mine").expect("written");
    run(&["-o", &file]).expect_stderr("was not left by export --resume");
    assert_eq!(std::fs::read(&export.part).expect("there"), b"mine");
}

/// Keys that a killed run had left out are named in the end, all of them; and a run that would not leave
/// them out starts over.
#[test]
fn what_the_killed_run_left_out_is_named_by_the_run_that_goes_on() {
    let server = TestServer::start(available()[0]);
    fill_many(&mut server.client(), 20_000, 5);
    let large = |n: u32| format!("large:{n}");
    for n in 0..300 {
        let value = "v".repeat(4_000);
        let set = cmd("SET")
            .arg(large(n))
            .arg(value)
            .query(&mut server.client());
        let () = set.expect("SET");
    }
    let export = Export::of(&server);
    let errors = export.file.with_extension("errors");
    let tool = |flags: &[&str]| {
        Tool::new(&["export", &export.url, "--consistency", "scan", "--resume"])
            .args(&["--scan-count", "50", "--errors-to"])
            .arg(&errors)
            .args(flags)
            .arg("-o")
            .arg(&export.file)
    };
    let limited = ["--max-value", "1KiB"];
    let slow = ["--max-value", "1KiB", "--rate-limit", "5000"];
    let mut random = Random::new(11);
    let named = || {
        let text = std::fs::read_to_string(&errors).expect("a file of errors");
        let line = |line: &str| -> serde_json::Value { serde_json::from_str(line).expect("JSON") };
        let mut keys: Vec<String> = text
            .lines()
            .map(|text| line(text)["key"].as_str().expect("a key").to_owned())
            .collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let mut all: Vec<String> = (0..300).map(large).collect();
    all.sort();

    export.kill(tool(&slow), 2, &mut random);
    // It cannot connect, and what the first run named is kept.
    let before = named();
    assert!(!before.is_empty() && before.len() < 300, "{}", before.len());
    let nowhere = "redis://127.0.0.1:1";
    Tool::new(&[
        "export",
        nowhere,
        "--consistency",
        "scan",
        "--resume",
        "--errors-to",
    ])
    .arg(&errors)
    .args(&limited)
    .arg("-o")
    .arg(&export.file)
    .run()
    .expect_code(12);
    assert_eq!(named(), before);
    let done = tool(&limited).run().expect_code(3);
    done.expect_stderr("continuing after");
    assert_eq!(named(), all);
    std::fs::remove_file(&export.file).expect("removed");

    // Into another file: that the earlier run named some is said.
    export.kill(tool(&slow), 2, &mut random);
    let other = errors.with_extension("other");
    let elsewhere = Tool::new(&["export", &export.url, "--consistency", "scan", "--resume"])
        .args(&["--scan-count", "50", "--errors-to"])
        .arg(&other)
        .args(&limited)
        .arg("-o")
        .arg(&export.file);
    let done = elsewhere.run().expect_code(3);
    done.expect_stderr("failed in the earlier run: their names are in its output and not in");
    std::fs::remove_file(&export.file).expect("removed");

    export.kill(tool(&slow), 2, &mut random);
    starts_over(tool(&[]).run(), "--max-value");
    assert_eq!(named(), [""; 0]);
    export.is_whole(&server);
}

/// What an older version left cannot be told to be the same export: it starts over, and says so.
#[test]
fn what_an_older_version_left_is_begun_anew() {
    let server = TestServer::start(available()[0]);
    fill_many(&mut server.client(), 1_000, 1);
    let export = Export::of(&server);
    let kept = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/states"));
    let copy = |name: &str, to: &Path| std::fs::copy(kept.join(name), to).expect("copied");
    copy("export-v0.rmz.part", &export.part);
    copy("export-v0.rmz.part.state", &export.journal);
    let output = export.tool().run().success();
    output
        .expect_stderr("another version of redis-migrate wrote it")
        .expect_stderr("starts over");
    assert!(!export.part.exists() && !export.journal.exists());
    let list = Tool::new(&["list"]).arg(&export.file).run().success();
    assert_eq!(
        list.stdout.iter().filter(|&&byte| byte == b'\n').count(),
        1_001
    );
}
