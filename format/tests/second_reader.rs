//! `rmz_read.py`, written from SPEC.md alone, must come to the same verdict and the same records as
//! this crate: over every vector and kept archive, and over archives made on the spot.
//!
//! Without Python or a way to unpack zstd the test says so and passes; with `CI=true` it fails.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use redis_migrate_format::WriterOptions;
use support::mutation::{Random, Repair, mutate, repair};
use support::vectors::all;
use support::*;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the second reader can run: Python, and the zstandard module or the zstd program.
fn second_reader_runs() -> bool {
    let script = "import importlib.util as u, shutil, sys; \
                  sys.exit(0 if u.find_spec('zstandard') or shutil.which('zstd') else 1)";
    let runs = Command::new("python3")
        .args(["-c", script])
        .status()
        .is_ok_and(|status| status.success());
    if !runs {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI must have python3 with zstandard"
        );
        eprintln!(
            "SKIPPED: the second reader needs python3 and its module zstandard, or the zstd program"
        );
    }
    runs
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(here().join("../fixtures").join(folder))
        .expect(folder)
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rmz"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// What both readers print of the files: a line for each record, then the verdict.
fn compare(paths: &[PathBuf]) {
    let output = Command::new("python3")
        .arg(here().join("tests/rmz_read.py"))
        .args(paths)
        .output()
        .expect("python3");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let theirs = String::from_utf8(output.stdout).expect("ASCII");
    let mut theirs = theirs.lines();
    let mut complete = 0;
    for path in paths {
        let ours = read_all(&fs::read(path).unwrap()[..]);
        let name = path.file_name().unwrap().to_string_lossy();
        for line in &ours.lines {
            assert_eq!(theirs.next(), Some(&line[..]), "records of {name}");
        }
        let verdict = theirs.next().unwrap_or_default();
        let class = verdict
            .strip_prefix("verdict ")
            .and_then(|rest| rest.split(':').next());
        assert_eq!(
            class,
            Some(ours.verdict()),
            "{name}: {verdict}; ours: {:?}",
            ours.error
        );
        complete += usize::from(ours.is_complete());
    }
    assert_eq!(theirs.next(), None);
    assert_eq!(
        output.status.code(),
        Some(if complete == paths.len() { 0 } else { 10 })
    );
}

#[test]
fn the_second_reader_agrees_on_every_vector() {
    if second_reader_runs() {
        compare(&files_in("vectors"));
    }
}

#[test]
fn the_second_reader_agrees_on_every_kept_archive() {
    if second_reader_runs() {
        compare(&files_in("archives/v1"));
    }
}

#[test]
fn the_second_reader_agrees_on_fresh_archives() {
    if !second_reader_runs() {
        return;
    }
    let mut paths = Vec::new();
    for (n, level) in [0, 1, 3, 9].into_iter().enumerate() {
        let many: Vec<_> = (0..2_000_u32)
            .map(|n| {
                key(
                    n % 3,
                    format!("key:{n}").as_bytes(),
                    &vec![(n % 7) as u8; 1 + n as usize % 300],
                )
            })
            .collect();
        let options = WriterOptions {
            level,
            frame_target_bytes: 10_000 * (n as u32 + 1),
            fragment_bytes: 40_000,
            ..WriterOptions::default()
        };
        let bytes = write_all(
            &[many, vec![key(9, b"large", &vec![n as u8; 300_000])]].concat(),
            options,
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fresh-{level}.rmz"));
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    compare(&paths);
}

/// Where several things are wrong at once the order of checks decides: SPEC.md §10 has to be enough
/// for two readers to agree.
#[test]
fn the_second_reader_agrees_on_mutated_archives() {
    if !second_reader_runs() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated");
    fs::create_dir_all(&folder).unwrap();
    let corpus: Vec<Vec<u8>> = all().into_iter().map(|vector| vector.bytes).collect();
    let mut random = Random::new(7);
    let mut paths = Vec::new();
    for n in 0..500 {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &corpus, &mut random);
        }
        match random.below(4) {
            0 => {}
            1 => repair(&mut bytes, Repair::Checksums),
            _ => repair(&mut bytes, Repair::Everything),
        }
        let path = folder.join(format!("{n}.rmz"));
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    compare(&paths);
}
