//! Cut and changed files: never taken for whole, never a panic, and no wrong key.

use std::fs;

use crate::encryption::{Case, archives, seal_armored, text};
use crate::support::random::Random;
use crate::support::tool::Tool;

/// Where the header of an age file with one recipient ends, and its payload begins.
pub fn header_len(sealed: &[u8]) -> usize {
    let mac = sealed
        .windows(5)
        .position(|window| window == b"\n--- ")
        .expect("a header");
    mac + 5 + 43 + 1
}

#[test]
fn a_cut_file_exits_with_10_wherever_it_is_cut() {
    let case = Case::new(archives::large(40_000));
    let sealed = fs::read(case.sealed_file()).expect("there");
    assert!(sealed.len() > 3 * 64 * 1024, "several chunks");
    let header = header_len(&sealed);
    let mut random = Random::new(7);
    let chunk = 64 * 1024 + 16;
    // Within the header, at its end, at the borders of chunks, anywhere, and short of one byte.
    let mut cuts = vec![5, 19, 30, 100, header - 1, header, header + 15, header + 16];
    cuts.extend([1, 2].map(|n| header + 16 + n * chunk));
    cuts.extend([1, 2].map(|n| header + 16 + n * chunk + 1));
    cuts.extend((0..20).map(|_| random.below(sealed.len() as u64) as usize));
    cuts.push(sealed.len() - 1);
    let [flag, key] = case.key_flags();
    for cut in cuts {
        let output = Tool::new(&["verify", "--json", &flag, &key])
            .stdin_bytes(&sealed[..cut])
            .run();
        assert_eq!(output.code(), Some(10), "cut at {cut}: {}", output.stderr);
        assert!(output.stderr.contains("\"advice\":\""), "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_is_seen_and_never_shown() {
    let case = Case::new(archives::large(6_000));
    let sealed = fs::read(case.sealed_file()).expect("there");
    let header = header_len(&sealed);
    let [flag, key] = case.key_flags();
    let mut random = Random::new(11);
    let places = (0..header)
        .step_by(17)
        .chain((0..25).map(|_| random.between(header as u64, sealed.len() as u64 - 1) as usize));
    let places: Vec<usize> = places.collect();
    for at in places {
        let mut changed = sealed.clone();
        changed[at] ^= 1 << random.below(8);
        let output = Tool::new(&["list", &flag, &key]).stdin_bytes(changed).run();
        // A recipient's stanza that was changed is one of somebody else.
        let allowed: &[i32] = if at < header { &[10, 11] } else { &[10] };
        let code = output.code().expect("no signal");
        assert!(allowed.contains(&code), "at {at}: {code} {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
}

#[test]
fn bytes_behind_the_end_are_seen() {
    let case = Case::small();
    let [flag, key] = case.key_flags();
    let mut sealed = fs::read(case.sealed_file()).expect("there");
    sealed.push(0);
    Tool::new(&["verify", &flag, &key])
        .stdin_bytes(sealed)
        .run()
        .expect_code(10);
    let mut armored = seal_armored(&case.plain, &case.identity);
    let half = armored.len() / 2;
    Tool::new(&["verify", &flag, &key])
        .stdin_bytes(&armored[..half])
        .run()
        .expect_code(10);
    armored.extend_from_slice(b"more");
    Tool::new(&["verify", &flag, &key])
        .stdin_bytes(armored)
        .run()
        .expect_code(10);
}

#[test]
fn damage_is_found_also_by_those_that_read_twice() {
    let case = Case::new(archives::large(12_000));
    let mut sealed = fs::read(case.sealed_file()).expect("there");
    let middle = sealed.len() / 2;
    sealed[middle] ^= 1;
    fs::write(case.sealed_file(), &sealed).expect("written");
    let [flag, key] = case.key_flags();
    let out = case.path("out.rdb");
    Tool::new(&["convert", &text(&case.sealed_file()), &text(&out)])
        .args(&["--for", "redis-7.0", &flag, &key])
        .run()
        .expect_code(10)
        .expect_stderr("SHA-256");
    assert!(!out.exists());
}
