//! What an export costs those who write: a writer's throughput alone, beside a plain scan, and
//! beside an exact export that listens for changes, in turns.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::support::dataset::command;
use super::support::random::Random;
use super::support::servers::TestServer;
use super::support::tool::Tool;
use super::{Bench, median, thousands};

/// How long the writer is measured at a time.
const WINDOW: Duration = Duration::from_secs(2);

/// Writes that are sent together.
const DEPTH: usize = 16;

const ALONE: usize = 0;

/// What runs beside the writer.
const BESIDE: [(&str, Option<&str>); 3] = [
    ("nothing", None),
    ("a plain scan", Some("--consistency=scan")),
    ("an exact export", Some("--consistency=converge")),
];

/// Writes for a window; the rate.
fn writes(server: &TestServer, seed: u64) -> f64 {
    let mut stream = TcpStream::connect(server.addr()).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let mut random = Random::new(seed);
    let value = random.bytes(100);
    let (mut packed, mut replies) = (Vec::new(), [0; 5 * DEPTH]);
    let (began, mut written) = (Instant::now(), 0u64);
    while began.elapsed() < WINDOW {
        packed.clear();
        for _ in 0..DEPTH {
            let name = format!("tracked:{}", random.below(100_000));
            command(&mut packed, &[b"SET", name.as_bytes(), &value]);
        }
        stream.write_all(&packed).expect("the server reads");
        stream.read_exact(&mut replies).expect("the server answers");
        assert!(replies.starts_with(b"+OK\r\n"));
        written += DEPTH as u64;
    }
    written as f64 / began.elapsed().as_secs_f64()
}

/// The writer's rate while exports go on, one after the other.
fn beside(server: &TestServer, consistency: Option<&str>, seed: u64) -> f64 {
    let Some(consistency) = consistency else {
        return writes(server, seed);
    };
    let (url, stop) = (server.url(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let exports = scope.spawn(|| {
            while !stop.load(Relaxed) {
                let mut tool = Tool::new(&["export", "-q", &url, consistency])
                    .stdout_null()
                    .spawn();
                while !stop.load(Relaxed) && !tool.has_ended() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                // In the middle of one, most of the time.
                tool.signal("INT");
                tool.wait();
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let rate = writes(server, seed);
        stop.store(true, Relaxed);
        exports.join().expect("the exports end");
        rate
    })
}

/// Prints the rates, and each as a share of the first.
pub fn cost(bench: &Bench) {
    let mut rates: [Vec<f64>; BESIDE.len()] = Default::default();
    for run in 0..bench.settings.runs {
        // Each is first as often as last.
        for turn in 0..BESIDE.len() {
            let which = match run % 2 {
                0 => turn,
                _ => BESIDE.len() - 1 - turn,
            };
            let rate = beside(&bench.source, BESIDE[which].1, run as u64);
            eprintln!("writes beside {}: {:.0}/s", BESIDE[which].0, rate);
            rates[which].push(rate);
        }
    }
    let alone = median(&rates[ALONE]);
    println!("\n| beside the writer | writes/s | ratio |\n|---|---|---|");
    for ((name, _), rates) in BESIDE.iter().zip(&rates) {
        let rate = median(rates);
        println!(
            "| {name} | {} | {:.2} |",
            thousands(rate as u64),
            rate / alone
        );
    }
}
