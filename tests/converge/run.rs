//! Running the tool under the writer, and comparing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::converge::writer::{self, Log};
use crate::support::equality::{self, Options};
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::servers::{TestServer, Version};
use crate::support::tool::{Output, Tool};

/// A source with keys, a destination, and a place for archives.
pub struct Scene {
    pub source: TestServer,
    pub destination: TestServer,
    pub directory: tempfile::TempDir,
}

impl Scene {
    pub fn new(version: Version) -> Self {
        let source = TestServer::start(version);
        writer::preload(&mut source.client());
        Self {
            source,
            destination: TestServer::start(version),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub fn archive(&self) -> PathBuf {
        self.directory.path().join("a.rmz")
    }

    /// `export --json -o ARCHIVE` with these arguments, not started yet.
    pub fn export(&self, arguments: &[&str]) -> Tool {
        let url = self.source.url();
        let mut all = vec!["export", "--json", &url];
        all.extend(arguments);
        Tool::new(&all).arg("-o").arg(self.archive())
    }

    /// `export --json -o ARCHIVE` through a proxy, in small steps.
    pub fn export_through(&self, proxy: &Proxy, arguments: &[&str]) -> Tool {
        let url = proxy.url();
        let mut all = vec!["export", "--json", "--scan-count", "50", &url];
        all.extend(arguments);
        Tool::new(&all).arg("-o").arg(self.archive())
    }

    /// Imports the archive into the destination.
    pub fn import(&self) {
        let url = self.destination.url();
        Tool::new(&["import", "--json", &url])
            .stdin_file(&self.archive())
            .run()
            .success();
    }

    /// The same into a destination without keys.
    pub fn import_anew(&self) {
        let flushed: redis::RedisResult<()> =
            redis::cmd("FLUSHALL").query(&mut self.destination.client());
        flushed.expect("FLUSHALL");
        self.import();
    }

    /// What `inspect` says of the consistency that was reached.
    pub fn inspected(&self) -> String {
        let output = Tool::new(&["inspect", "--json"])
            .arg(self.archive())
            .run()
            .success();
        let json: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        kind_in(&json).expect("a consistency")
    }

    /// The sequence number that arrived, and how many operations the writer did besides.
    pub fn sequence(&self) -> u64 {
        redis::cmd("GET")
            .arg("seq")
            .query::<Option<u64>>(&mut self.destination.client())
            .expect("GET")
            .unwrap_or(0)
    }

    /// Replays the log up to what arrived, and compares by meaning.
    #[track_caller]
    pub fn assert_exact(&self, log: &Log, what: &str) {
        self.assert_replayed(log, what, true);
    }

    /// As [`Self::assert_exact`], whatever became of function libraries.
    #[track_caller]
    pub fn assert_exact_keys(&self, log: &Log, what: &str) {
        self.assert_replayed(log, what, false);
    }

    #[track_caller]
    fn assert_replayed(&self, log: &Log, what: &str, functions: bool) {
        let sequence = self.sequence();
        assert!(sequence > 0, "{what}: no sequence number arrived");
        let reference = TestServer::start(self.source.version());
        writer::preload(&mut reference.client());
        log.replay(&mut reference.client(), sequence);
        compare(&reference, &self.destination, what, functions);
        println!(
            "{what}: exact at operation {sequence} of {}, {:.0} operations/s",
            log.ops.len(),
            log.per_second
        );
    }

    /// Compares what stands on both servers now.
    #[track_caller]
    pub fn assert_same(&self, what: &str) {
        compare(&self.source, &self.destination, what, true);
    }
}

/// A network of some milliseconds, so that the scan takes a second or more.
pub fn far_away(server: &TestServer) -> Proxy {
    let slow = Direction {
        delay: Duration::from_millis(4),
        ..Direction::default()
    };
    Proxy::start(
        server.addr(),
        Rules {
            to_server: slow,
            ..Rules::default()
        },
    )
}

/// The id of the connection that listens for changes, if there is one.
pub fn listener(server: &TestServer) -> Option<String> {
    let mut client = server.client();
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut client).unwrap();
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ');
        fields.find_map(|field| Some(field.strip_prefix(name)?.to_owned()))
    };
    let mut lines = list.lines();
    let line = lines.find(|line| field(line, "flags=").is_some_and(|f| f.contains('t')))?;
    field(line, "id=")
}

/// Waits until the tool listens, which is when its scan begins.
#[track_caller]
pub fn wait_for_listener(server: &TestServer) {
    let began = Instant::now();
    while listener(server).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody listens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn compare(left: &TestServer, right: &TestServer, what: &str, functions: bool) {
    let options = Options {
        ignore_delivery_times: true,
        functions,
        limit: 20,
        ..Options::default()
    };
    let found = equality::differences(&mut left.client(), &mut right.client(), &options);
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

/// The `kind` of the first `consistency` object.
fn kind_in(json: &Json) -> Option<String> {
    match json {
        Json::Object(map) => map
            .get("consistency")
            .and_then(|found| found.get("kind"))
            .and_then(|kind| kind.as_str())
            .map(str::to_owned)
            .or_else(|| map.values().find_map(kind_in)),
        Json::Array(all) => all.iter().find_map(kind_in),
        _ => None,
    }
}

/// The summary that `--json` ends with, wherever it went.
pub fn summary(output: &Output) -> Json {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout.lines().chain(output.stderr.lines());
    lines
        .filter(|line| line.contains("\"event\":\"summary\""))
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("no summary in\n{stdout}\n{}", output.stderr))
}

/// The consistency that the summary says was reached.
pub fn reached(output: &Output) -> String {
    kind_in(&summary(output)).unwrap_or_default()
}

/// Whether it said this, on either stream.
pub fn said(output: &Output, text: &str) -> bool {
    output.stderr.contains(text) || String::from_utf8_lossy(&output.stdout).contains(text)
}
