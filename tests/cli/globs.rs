//! Our globs against the servers' own: random patterns, every key that SCAN MATCH returns.

use std::collections::BTreeSet;

use redis_migrate::glob::Glob;

use crate::support::random::Random;
use crate::support::servers::{TestServer, available};

const PATTERNS: usize = 1_500;
const KEYS: usize = 300;

/// Bytes that mean something in a pattern, and some that do not.
const ALPHABET: &[u8] = b"aabbc-^]*?[\\\x80\xff\0";

fn word(random: &mut Random, alphabet: &[u8], longest: u64) -> Vec<u8> {
    let len = random.below(longest + 1);
    (0..len)
        .map(|_| alphabet[random.below(alphabet.len() as u64) as usize])
        .collect()
}

#[test]
fn globs_match_what_scan_match_matches() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        let mut random = Random::new(7);
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::from([Vec::new()]);
        while keys.len() < KEYS {
            keys.insert(word(&mut random, ALPHABET, 6));
        }
        for key in &keys {
            let set: () = redis::cmd("SET")
                .arg(key.as_slice())
                .arg(1)
                .query(&mut client)
                .expect("SET");
            set
        }
        let mut pairs = 0;
        for _ in 0..PATTERNS {
            let pattern = word(&mut random, ALPHABET, 9);
            let glob = Glob::new(&pattern);
            if !glob.is_portable() {
                continue;
            }
            let ours: BTreeSet<Vec<u8>> = keys
                .iter()
                .filter(|key| glob.matches(key))
                .cloned()
                .collect();
            let (cursor, theirs): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(0)
                .arg("MATCH")
                .arg(pattern.as_slice())
                .arg("COUNT")
                .arg(100_000)
                .query(&mut client)
                .expect("SCAN");
            assert_eq!(cursor, 0);
            let theirs: BTreeSet<Vec<u8>> = theirs.into_iter().collect();
            let shown = pattern.escape_ascii().to_string();
            let differ: Vec<String> = ours
                .symmetric_difference(&theirs)
                .map(|key| key.escape_ascii().to_string())
                .collect();
            assert!(
                differ.is_empty(),
                "{version}: pattern \"{shown}\" differs on {differ:?}"
            );
            pairs += keys.len();
        }
        assert!(
            pairs > 100_000,
            "{version}: only {pairs} pairs were compared"
        );
    }
}
