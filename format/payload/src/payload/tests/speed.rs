//! How long a payload takes. Prints, never judges; run with
//! `cargo test --release --lib payload::tests::speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use redis_migrate_format::record::Family;

use super::vectors::vectors;
use super::*;

fn time(mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let rounds = 20_000;
        for _ in 0..rounds {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    best
}

#[test]
#[ignore = "a measurement"]
fn nanoseconds_a_payload() {
    let mut samples = vec![(
        "string of 100 bytes".to_owned(),
        Family::Redis,
        sign(&[&[0, 0x40, 100][..], &[b'x'; 100]].concat(), 10),
    )];
    for vector in vectors() {
        if ["redis-6.0", "redis-8.0", "valkey-9.1"].contains(&vector.server.as_str()) {
            samples.push((vector.to_string(), vector.family, vector.payload));
        }
    }
    println!(
        "{:50} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "", "bytes", "split", "compact", "check", "decode", "recode"
    );
    let forms = Forms {
        stream: StreamForm::V1,
        field_ttl: FieldTtlForm::Dropped,
        back_lengths: BackLengths::Early,
        packing: Packing::None,
        intsets: false,
    };
    for (name, family, payload) in samples {
        let (body, _) = split(&payload).expect("a good payload");
        let mut out = Vec::new();
        let check = time(|| {
            let _ = black_box(split(black_box(&payload)));
        });
        let walk = time(|| {
            out.clear();
            compact(black_box(body), family, &mut out).expect("a good value");
            black_box(&out);
        });
        // As it comes out of an archive.
        let compacted = out.clone();
        let sound = time(|| {
            let _ = black_box(super::check(family, black_box(&compacted)));
        });
        let object = time(|| {
            let _ = black_box(decode(family, black_box(&compacted)));
        });
        let anew = time(|| {
            out.clear();
            let _ = black_box(recode(family, black_box(&compacted), forms, &mut out));
        });
        println!(
            "{name:50} {:6} {check:7.0} {walk:7.0} {sound:7.0} {object:7.0} {anew:7.0}",
            payload.len()
        );
    }
}
