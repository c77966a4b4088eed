//! Random mutations of the vectors for a few seconds: `FUZZ_SECONDS` says how long (3 without it),
//! `FUZZ_SEED` with which seed. It stands in for the fuzz targets where there is no nightly
//! compiler; what is checked is in `support/mutation.rs`.

mod support;

use std::collections::HashSet;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::{Duration, Instant};

use support::mutation::{Random, Repair, check_any_bytes, mutate, repair};
use support::vectors::all;

fn setting<T: FromStr>(name: &str, default: T) -> T
where
    T::Err: Debug,
{
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn mutation_loop_breaks_no_reader() {
    let corpus: Vec<Vec<u8>> = all().into_iter().map(|vector| vector.bytes).collect();
    let truths: HashSet<String> = corpus
        .iter()
        .map(|bytes| support::read_all(&bytes[..]))
        .filter(support::Outcome::is_complete)
        .map(|outcome| outcome.released_sha256())
        .collect();
    let seed: u64 = setting("FUZZ_SEED", 0x5EED);
    let end = Instant::now() + Duration::from_secs(setting("FUZZ_SECONDS", 3));
    let mut random = Random::new(seed);
    let (mut runs, mut complete, mut deep) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        let original = bytes.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &corpus, &mut random);
        }
        let repaired = [None, Some(Repair::Checksums), Some(Repair::Everything)][random.below(3)];
        if let Some(what) = repaired {
            repair(&mut bytes, what);
        }
        let result = std::panic::catch_unwind(|| check_any_bytes(&bytes));
        let Ok((_, is_complete)) = result else {
            panic!("seed {seed}, run {runs}: {}", support::hex(&bytes));
        };
        runs += 1;
        if is_complete && repaired == Some(Repair::Everything) {
            deep += 1;
        } else if is_complete && bytes != original {
            // The digest knows the truth: nothing but a known archive, or informative fields of END.
            complete += 1;
            let released = support::read_all(&bytes[..]).released_sha256();
            assert!(
                truths.contains(&released),
                "seed {seed}, run {runs}: {}",
                support::hex(&bytes)
            );
        }
    }
    println!("seed {seed}: {runs} runs, {deep} complete after full repair, {complete} otherwise");
    assert!(runs > 100, "only {runs} runs");
}
