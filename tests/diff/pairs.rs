//! Pairs of server versions: equal data sets are equal, and of a thousand random changes each is
//! found under its class and nothing else is.
//!
//! Every day another five of the pairs are tried; with `REDIS_MIGRATE_ALL_PAIRS=1` all of them.

use crate::diff::found::{Found, diff, expect, found, summary};
use crate::diff::plants::{fill, plant};
use crate::support::dataset::{fill_every_type, now_ms};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available};
use crate::support::tool::run;

fn pairs() -> Vec<(Version, Version)> {
    let versions = available();
    let all = std::env::var_os("REDIS_MIGRATE_ALL_PAIRS").is_some();
    let today = (now_ms() / 86_400_000) as usize;
    let mut pairs = Vec::new();
    for (n, &left) in versions.iter().enumerate() {
        for (m, &right) in versions.iter().enumerate() {
            if all || (n + today) % versions.len() == m {
                pairs.push((left, right));
            }
        }
    }
    pairs
}

/// Runs `one` for each pair, and says which pair failed.
fn each_pair(one: impl Fn(&TestServer, &TestServer)) {
    for (left, right) in pairs() {
        println!("{left} and {right}");
        one(&TestServer::start(left), &TestServer::start(right));
    }
}

#[test]
fn a_thousand_changes_are_found_and_nothing_else() {
    each_pair(|left, right| {
        let both_have_field_ttl = left.version().has_field_ttl() && right.version().has_field_ttl();
        let seed = 1 + left.version() as u64 * 10 + right.version() as u64;
        let mut random = Random::new(seed);
        let keys = fill(&mut left.client(), 3_000, both_have_field_ttl, &mut random);
        let (left, url) = (left.url(), right.url());
        run(&["copy", &left, &url], b"").success();
        let said = summary(&expect(&left, &url, &[], &[]));
        assert_eq!(said["equal"], 3_000, "{said}");
        let planted = plant(&mut right.client(), keys, 1_000, &mut random);
        assert_eq!(planted.len(), 1_000);
        let output = diff(&left, &url, &["--recheck", "0"]).expect_code(5);
        assert_same(&found(&output), &planted);
        // Seen from the other side.
        let output = diff(&url, &left, &["--recheck", "0"]).expect_code(5);
        let turned: Found = planted
            .into_iter()
            .map(|(db, key, class)| match class.as_str() {
                "missing" => (db, key, "extra".to_owned()),
                "extra" => (db, key, "missing".to_owned()),
                _ => (db, key, class),
            })
            .collect();
        assert_same(&found(&output), &turned);
    });
}

#[track_caller]
fn assert_same(found: &Found, planted: &Found) {
    let only_found: Vec<_> = found.difference(planted).collect();
    let only_planted: Vec<_> = planted.difference(found).collect();
    assert!(
        only_found.is_empty() && only_planted.is_empty(),
        "found and not planted: {only_found:?}\nplanted and not found: {only_planted:?}"
    );
}

/// Every type and encoding, moved between two versions: equal, but for the losses that are known.
#[test]
fn every_type_is_equal_after_a_move() {
    each_pair(|left, right| {
        let (from, to) = (left.version(), right.version());
        fill_every_type(&mut left.client(), from);
        let (left, url) = (left.url(), right.url());
        let losses = ["--allow-loss", "hash-field-ttl,functions"];
        run(&[&["copy", &left, &url][..], &losses].concat(), b"").success();
        let archive = run(&["export", &left], b"").success().stdout;
        let mut expected = Found::new();
        let mut add = |db: &str, key: &str, class: &str| {
            expected.insert((db.to_owned(), key.to_owned(), class.to_owned()));
        };
        if from.has_field_ttl() && !to.has_field_ttl() {
            for key in ["", "-all", "-table", "-and-ttl"] {
                add("0", &format!("hash:field-ttl{key}"), "field-ttl");
            }
        }
        if from.is_at_least_7() && !to.is_at_least_7() {
            add("library", "first", "missing");
            add("library", "second", "missing");
        }
        let code = if expected.is_empty() { 0 } else { 5 };
        let live = diff(&left, &url, &["--recheck", "0"]).expect_code(code);
        assert_same(&found(&live), &expected);
        let arguments = ["diff", "-", &url, "--json", "--recheck", "0"];
        let piped = run(&arguments, &archive).expect_code(code);
        assert_same(&found(&piped), &expected);
        // What one of them does not keep of streams is counted.
        let partly = summary(&live)["partly"].as_u64().unwrap();
        assert_eq!(partly > 0, from.is_at_least_7() != to.is_at_least_7());
    });
}
