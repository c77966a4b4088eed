//! What the tool reaches, beside what the server allows, in one run.
//!
//! ```text
//! cargo bench --bench throughput -- [--keys N] [--runs N] [--server NAME] [--check]
//!                                   [--ceilings]
//!                                   [--only export|import|copy|reencode|memory|size|latency|polite|
//!                                          tracking]...
//! ```
//!
//! For export, import and copy a client on bare sockets sends the same commands (those of a plain
//! scan: `--consistency scan`) and looks at
//! the replies only to find their ends: that is the ceiling. Ceiling and tool take turns, so
//! that both see the same machine; medians are printed. Nothing here asserts a time. The
//! numbers of keys are asserted, and `--check` compares everything by meaning. `--ceilings`
//! leaves the tool out. `latency` and `polite` compare the tool with itself: over a round trip of
//! 50 ms beside loopback, and with `--latency-target` beside without.

use redis_migrate_test_support as support;

mod far;
mod polite;
mod raw;
mod tracking;

use std::path::Path;
use std::time::{Duration, Instant};

use redis::Connection;
use support::random::Random;
use support::servers::{TestServer, Version};
use support::tool::{Output, Tool};
use support::{equality, many, tool};

const PARTS: [&str; 9] = [
    "export", "import", "copy", "reencode", "memory", "size", "latency", "polite", "tracking",
];

struct Settings {
    keys: u64,
    runs: usize,
    version: Version,
    check: bool,
    ceilings: bool,
    only: Vec<String>,
}

impl Settings {
    fn from_arguments() -> Result<Self, String> {
        let mut settings = Self {
            keys: 1_000_000,
            runs: 3,
            version: Version::Redis70,
            check: false,
            ceilings: false,
            only: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--keys" => settings.keys = value()?.parse().map_err(|_| "--keys N")?,
                "--runs" => settings.runs = value()?.parse().map_err(|_| "--runs N")?,
                "--check" => settings.check = true,
                "--ceilings" => settings.ceilings = true,
                "--server" => {
                    let name = value()?;
                    let known = Version::EVERY.into_iter().find(|v| v.name() == name);
                    settings.version = known.ok_or(format!("no server {name}"))?;
                }
                "--only" => {
                    let part = value()?;
                    if !PARTS.contains(&part.as_str()) {
                        return Err(format!("no part {part}"));
                    }
                    settings.only.push(part);
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if settings.keys == 0 || settings.runs == 0 {
            return Err("--keys and --runs must not be 0".to_owned());
        }
        Ok(settings)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|each| each == part)
    }
}

/// One measured run.
#[derive(Clone, Copy, Debug)]
struct Run {
    elapsed: Duration,
    client_cpu: Duration,
    /// Of both servers.
    server_cpu: Duration,
    peak_memory_kib: u64,
}

/// Both sides of one verb.
#[derive(Default)]
struct Comparison {
    ceiling: Vec<Run>,
    tool: Vec<Run>,
}

struct Bench {
    settings: Settings,
    source: TestServer,
    destination: TestServer,
}

impl Bench {
    fn server_cpu(&self) -> Duration {
        [&self.source, &self.destination]
            .map(|server| tool::state_and_cpu(server.pid()).map_or(Duration::ZERO, |(_, cpu)| cpu))
            .iter()
            .sum()
    }

    fn measure_ceiling(&self, work: impl FnOnce() -> u64) -> Run {
        let own = || tool::state_and_cpu(std::process::id()).map_or(Duration::ZERO, |(_, c)| c);
        let (client, server) = (own(), self.server_cpu());
        let begin = Instant::now();
        let keys = work();
        let elapsed = begin.elapsed();
        assert_eq!(keys, self.settings.keys, "the ceiling moved every key");
        Run {
            elapsed,
            client_cpu: own().saturating_sub(client),
            server_cpu: self.server_cpu().saturating_sub(server),
            peak_memory_kib: 0,
        }
    }

    fn measure_tool(&self, tool: Tool) -> Run {
        let server = self.server_cpu();
        let output = tool.run().success();
        Run {
            elapsed: output.elapsed,
            client_cpu: output.cpu,
            server_cpu: self.server_cpu().saturating_sub(server),
            peak_memory_kib: output.peak_memory_kib,
        }
    }

    fn empty_destination(&self) {
        flush(&mut self.destination.client());
    }

    fn expect_destination_full(&self) {
        let keys = size(&mut self.destination.client());
        assert_eq!(keys, self.settings.keys, "keys at the destination");
    }

    fn speed(&self, name: &str, goal: f64, comparison: &Comparison) {
        let one = |run: &Run| self.settings.keys as f64 / run.elapsed.as_secs_f64();
        let rates = |runs: &[Run]| median(&runs.iter().map(one).collect::<Vec<_>>());
        let (ceiling, tool) = (rates(&comparison.ceiling), rates(&comparison.tool));
        let seconds = |runs: &[Run], of: fn(&Run) -> Duration| {
            median(&runs.iter().map(|r| of(r).as_secs_f64()).collect::<Vec<_>>())
        };
        let peak = comparison.tool.iter().map(|run| run.peak_memory_kib).max();
        println!(
            "| {name} | {} | {} | {:.2} | {goal:.2} | {:.2} / {:.2} | {:.2} / {:.2} | {:.1} |",
            rate(ceiling),
            rate(tool),
            tool / ceiling,
            seconds(&comparison.ceiling, |run| run.client_cpu),
            seconds(&comparison.tool, |run| run.client_cpu),
            seconds(&comparison.ceiling, |run| run.server_cpu),
            seconds(&comparison.tool, |run| run.server_cpu),
            mebibytes(peak.unwrap_or(0)),
        );
    }
}

fn flush(connection: &mut Connection) {
    redis::cmd("FLUSHALL").exec(connection).expect("FLUSHALL");
}

fn size(connection: &mut Connection) -> u64 {
    redis::cmd("DBSIZE").query(connection).expect("DBSIZE")
}

/// The median; not a number for no values.
fn median(values: &[f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// A number as people read it: 148,000.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate to the next hundred, or a dash where there is none.
fn rate(keys_per_second: f64) -> String {
    if keys_per_second.is_nan() {
        return "-".to_owned();
    }
    thousands((keys_per_second / 100.0).round() as u64 * 100)
}

fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn export(url: &str, archive: &Path) -> Tool {
    Tool::new(&["export", url, "--consistency", "scan"]).stdout_file(archive)
}

fn import(url: &str, archive: &Path) -> Tool {
    Tool::new(&["import", url]).stdin_file(archive)
}

fn copy(source: &str, destination: &str) -> Tool {
    Tool::new(&["copy", source, destination, "--consistency", "scan"])
}

/// The three verbs and their ceilings, taking turns.
fn speeds(bench: &Bench, archive: &Path) {
    let wanted = |part| bench.settings.wants(part);
    let tools = !bench.settings.ceilings;
    let (source, destination) = (&bench.source, &bench.destination);
    let mut exports = Comparison::default();
    let mut imports = Comparison::default();
    let mut copies = Comparison::default();
    // Every value written anew, beside the same import as it comes.
    let mut reencoded = Comparison::default();
    let mut prepared = raw::Prepared::default();
    if wanted("import") {
        raw::read_all(source.addr(), |row| prepared.push(&row));
    }
    if tools && (wanted("import") || wanted("reencode")) {
        export(&source.url(), archive).run().success();
    }
    for run in 1..=bench.settings.runs {
        eprintln!("run {run} of {}", bench.settings.runs);
        if wanted("export") {
            let ceiling = || raw::export(source.addr());
            exports.ceiling.push(bench.measure_ceiling(ceiling));
            if tools {
                let tool = export(&source.url(), archive);
                exports.tool.push(bench.measure_tool(tool));
            }
        }
        if wanted("import") {
            bench.empty_destination();
            let ceiling = || {
                raw::import(destination.addr(), &prepared);
                prepared.keys
            };
            imports.ceiling.push(bench.measure_ceiling(ceiling));
            bench.expect_destination_full();
            if tools {
                bench.empty_destination();
                let tool = import(&destination.url(), archive);
                imports.tool.push(bench.measure_tool(tool));
                bench.expect_destination_full();
            }
        }
        if tools && wanted("reencode") {
            for (flag, runs) in [
                (None, &mut reencoded.ceiling),
                (Some("--sanitize"), &mut reencoded.tool),
            ] {
                bench.empty_destination();
                let mut tool = import(&destination.url(), archive);
                if let Some(flag) = flag {
                    tool = tool.arg(flag);
                }
                runs.push(bench.measure_tool(tool));
                bench.expect_destination_full();
            }
        }
        if wanted("copy") {
            bench.empty_destination();
            let ceiling = || raw::copy(source.addr(), destination.addr());
            copies.ceiling.push(bench.measure_ceiling(ceiling));
            bench.expect_destination_full();
            if tools {
                bench.empty_destination();
                let tool = copy(&source.url(), &destination.url());
                copies.tool.push(bench.measure_tool(tool));
                bench.expect_destination_full();
            }
        }
    }
    if bench.settings.check {
        let (mut left, mut right) = (source.client(), destination.client());
        let begin = Instant::now();
        equality::assert_equal(&mut left, &mut right);
        eprintln!("all equal by meaning ({:.0?})", begin.elapsed());
    }

    // A busy machine is seen here, before anyone trusts the numbers.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    println!(
        "\n{} mixed small keys, {} {}, medians of {}, load average {load} at the end:\n",
        thousands(bench.settings.keys),
        bench.settings.version.name(),
        bench.settings.version.exact(),
        bench.settings.runs,
    );
    println!(
        "| | ceiling, keys/s | redis-migrate, keys/s | ratio | goal | client CPU s | server CPU s | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, comparison) in [("export", exports), ("import", imports), ("copy", copies)] {
        if wanted(name) {
            bench.speed(name, 0.90, &comparison);
        }
    }
    if tools && wanted("reencode") {
        bench.speed(
            "import, every value written anew, beside import",
            0.80,
            &reencoded,
        );
    }
}

/// The archive against the same records as plain DUMP payloads in zstd frames of 1 MiB.
fn archive_size(bench: &Bench, archive: &Path) {
    const FRAME: usize = 1024 * 1024;
    export(&bench.source.url(), archive).run().success();
    let tool = std::fs::metadata(archive).expect("the archive").len();
    let mut raw_bytes = 0;
    let mut stored = 0;
    let mut frame: Vec<u8> = Vec::with_capacity(2 * FRAME);
    let mut compressor = zstd::bulk::Compressor::new(3).expect("zstd");
    let mut close = |frame: &mut Vec<u8>| {
        raw_bytes += frame.len() as u64;
        stored += compressor.compress(frame).expect("zstd").len() as u64;
        frame.clear();
    };
    raw::read_all(bench.source.addr(), |row| {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small").to_le_bytes();
        frame.extend_from_slice(&length(&row.key));
        frame.extend_from_slice(&row.key);
        frame.extend_from_slice(&row.expire_at.to_le_bytes());
        frame.extend_from_slice(&length(&row.payload));
        frame.extend_from_slice(&row.payload);
        if frame.len() >= FRAME {
            close(&mut frame);
        }
    });
    close(&mut frame);
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!("\nArchive size (goal 0.70):\n");
    println!(
        "| plain records, MiB | as zstd 3 frames of 1 MiB, MiB | archive, MiB | ratio | bytes a key |"
    );
    println!("|---|---|---|---|---|");
    println!(
        "| {:.1} | {:.1} | {:.1} | {:.2} | {:.1} |",
        mib(raw_bytes),
        mib(stored),
        mib(tool),
        tool as f64 / stored as f64,
        tool as f64 / bench.settings.keys as f64,
    );
}

/// Peak memory with values of 100 MiB among the small keys.
fn memory_with_large_values(bench: &Bench, archive: &Path) {
    const LARGE: usize = 100 * 1024 * 1024;
    let source = TestServer::start(bench.settings.version);
    let mut client = source.client();
    many::fill_many(&mut client, 10_000, 7);
    let mut random = Random::new(9);
    let set = |client: &mut Connection, key: &str, value: &[u8]| {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).exec(client).expect("SET");
    };
    set(&mut client, "large:noise", &random.bytes(LARGE));
    let text: String = (0..LARGE / 16).map(|n| format!("{n:015} ")).collect();
    set(&mut client, "large:text", text.as_bytes());
    drop(text);
    // Lists and hashes of 100 MiB, in elements of 1 KiB.
    for _ in 0..LARGE / (1024 * 1024) {
        let mut push = redis::cmd("RPUSH");
        let mut set = redis::cmd("HSET");
        push.arg("large:list");
        set.arg("large:hash");
        for _ in 0..1024 {
            push.arg(random.bytes(1024));
            set.arg(random.next_u64()).arg(random.bytes(1000));
        }
        push.exec(&mut client).expect("RPUSH");
        set.exec(&mut client).expect("HSET");
    }
    let keys = size(&mut client);
    let mut large: Vec<u64> = Vec::new();
    for key in ["large:noise", "large:text", "large:list", "large:hash"] {
        let payload: Vec<u8> = redis::cmd("DUMP")
            .arg(key)
            .query(&mut client)
            .expect("DUMP");
        large.push(payload.len() as u64);
    }
    let largest_kib = large.iter().max().expect("four") / 1024;
    let value_kib = largest_kib.max(LARGE as u64 / 1024);
    let full = |output: &Output| {
        assert_eq!(size(&mut bench.destination.client()), keys);
        output.peak_memory_kib
    };
    let exported = export(&source.url(), archive)
        .run()
        .success()
        .peak_memory_kib;
    bench.empty_destination();
    let imported = full(&import(&bench.destination.url(), archive).run().success());
    bench.empty_destination();
    let copied = full(
        &copy(&source.url(), &bench.destination.url())
            .run()
            .success(),
    );
    println!(
        "\nPeak memory with values of 100 MiB (goal {:.0} MiB: 64 + 3 x the largest value):\n",
        64.0 + 3.0 * mebibytes(value_kib)
    );
    println!("| export, MiB | import, MiB | copy, MiB |");
    println!("|---|---|---|");
    println!(
        "| {:.1} | {:.1} | {:.1} |",
        mebibytes(exported),
        mebibytes(imported),
        mebibytes(copied)
    );
}

fn main() {
    let settings = match Settings::from_arguments() {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("throughput: {why}");
            std::process::exit(2);
        }
    };
    if !settings.version.is_available() {
        eprintln!(
            "throughput: {} is missing: run tests/fetch-servers",
            settings.version
        );
        std::process::exit(1);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let archive = directory.path().join("bench.rmz");
    let bench = Bench {
        source: TestServer::start(settings.version),
        destination: TestServer::start(settings.version),
        settings,
    };
    let begin = Instant::now();
    many::fill_many(&mut bench.source.client(), bench.settings.keys, 42);
    eprintln!(
        "{} keys made in {:.1?}",
        bench.settings.keys,
        begin.elapsed()
    );
    let wanted = |part| bench.settings.wants(part);
    if ["export", "import", "copy", "reencode"]
        .into_iter()
        .any(wanted)
    {
        speeds(&bench, &archive);
    }
    if bench.settings.ceilings {
        return;
    }
    if wanted("size") {
        archive_size(&bench, &archive);
    }
    if wanted("latency") {
        far::far_away(&bench, &archive);
    }
    if wanted("tracking") {
        tracking::cost(&bench);
    }
    if wanted("polite") {
        polite::latency_of_others(&bench, &archive);
    }
    if wanted("memory") {
        memory_with_large_values(&bench, &archive);
    }
}
