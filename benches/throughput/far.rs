//! Over a long way, beside loopback.

use std::path::Path;
use std::time::{Duration, Instant};

use super::support::proxy::{Direction, Proxy, Rules};
use super::{Bench, export, import, median, rate};

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// The largest COUNT that the tool comes to by itself.
const LARGEST_PAGE: u32 = 10_000;

fn way_to(address: std::net::SocketAddr) -> Proxy {
    let half = Direction {
        delay: ROUND_TRIP / 2,
        ..Direction::default()
    };
    let rules = Rules {
        to_server: half.clone(),
        to_client: half,
        ..Rules::default()
    };
    Proxy::start(address, rules)
}

/// Names alone, in pages as large as the tool's, by a client that asks for nothing else. Keys a
/// second.
fn names_alone(url: &str) -> f64 {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    let began = Instant::now();
    let (mut cursor, mut names) = (0u64, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(LARGEST_PAGE);
        let page: (u64, Vec<Vec<u8>>) = scan.query(&mut connection).expect("SCAN");
        cursor = page.0;
        names += page.1.len();
        if cursor == 0 {
            return names as f64 / began.elapsed().as_secs_f64();
        }
    }
}

/// Export and import, near and far taking turns.
pub fn far_away(bench: &Bench, archive: &Path) {
    let source = way_to(bench.source.addr());
    let destination = way_to(bench.destination.addr());
    let mut rates: [Vec<f64>; 4] = Default::default();
    let mut names = Vec::new();
    for run in 1..=bench.settings.runs {
        eprintln!("run {run} of {} over {ROUND_TRIP:?}", bench.settings.runs);
        for (place, url) in [(0, bench.source.url()), (1, source.url())] {
            let measured = bench.measure_tool(export(&url, archive));
            rates[place].push(bench.settings.keys as f64 / measured.elapsed.as_secs_f64());
        }
        names.push(names_alone(&source.url()));
        for (place, url) in [(2, bench.destination.url()), (3, destination.url())] {
            bench.empty_destination();
            let measured = bench.measure_tool(import(&url, archive));
            rates[place].push(bench.settings.keys as f64 / measured.elapsed.as_secs_f64());
            bench.expect_destination_full();
        }
    }
    let [near_export, far_export, near_import, far_import] = rates.map(|runs| median(&runs));
    let possible = near_export.min(f64::from(LARGEST_PAGE) / ROUND_TRIP.as_secs_f64());
    println!("\nOver a round trip of {ROUND_TRIP:?}:\n");
    println!("| | loopback, keys/s | possible far away | far away, keys/s | ratio | goal |");
    println!("|---|---|---|---|---|---|");
    for (name, near, possible, far, goal) in [
        ("export", near_export, possible, far_export, 0.80),
        ("import", near_import, near_import, far_import, 0.70),
    ] {
        println!(
            "| {name} | {} | {} | {} | {:.2} | {goal:.2} |",
            rate(near),
            rate(possible),
            rate(far),
            far / possible,
        );
    }
    println!(
        "\nSCAN of {LARGEST_PAGE} names at a time, and nothing else: {} keys/s, {:.2} of what is possible.",
        rate(median(&names)),
        median(&names) / possible,
    );
}
