//! The golden vectors of `fixtures/vectors` and the kept archives of `fixtures/archives`: each is
//! read and compared with what is written down of it. What they are: `fixtures/vectors/README.md`.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use redis_migrate_format::scan::Scan;
use support::vectors::all;
use support::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

type Block = BTreeMap<String, String>;

/// The blocks of MANIFEST.txt by name: `field: text` lines, an empty line after each block.
fn manifest() -> BTreeMap<String, Block> {
    let text = fs::read_to_string(fixtures().join("vectors/MANIFEST.txt")).expect("MANIFEST.txt");
    text.split("\n\n")
        .filter(|block| !block.trim().is_empty())
        .map(|block| {
            let fields: Block = block
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(field, text)| (field.to_owned(), text.to_owned()))
                .collect();
            (fields["vector"].clone(), fields)
        })
        .collect()
}

fn describe(name: &str, comment: &str, bytes: &[u8]) -> String {
    let outcome = read_all(bytes);
    let mut text = format!("vector: {name}\nexpect: {}\n", outcome.verdict());
    let _ = writeln!(text, "records: {}", outcome.records.len());
    let _ = writeln!(text, "released-sha256: {}", outcome.released_sha256());
    if let Some(error) = &outcome.error {
        if let Some(at) = error.position() {
            let _ = writeln!(text, "at: {}", at.offset);
        }
        let _ = writeln!(text, "says: {error}");
    }
    let _ = writeln!(text, "comment: {comment}");
    text
}

fn vector_files() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixtures().join("vectors"))
        .expect("fixtures/vectors")
        .filter_map(|entry| {
            let name = entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8 name");
            name.strip_suffix(".rmz").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_vector_gets_the_verdict_that_is_written_down() {
    for (name, fields) in manifest() {
        let bytes = fs::read(fixtures().join(format!("vectors/{name}.rmz"))).expect(&name);
        assert!(bytes.len() <= 4096, "{name} is too large to be a vector");
        let described = describe(&name, &fields["comment"], &bytes);
        for line in described.lines() {
            let (field, text) = line.split_once(": ").unwrap();
            assert_eq!(
                fields.get(field).map(String::as_str),
                Some(text),
                "{field} of {name}"
            );
        }
        assert_eq!(fields.len(), described.lines().count(), "fields of {name}");
    }
}

#[test]
fn names_say_what_is_expected() {
    for (name, fields) in manifest() {
        let kind = match fields["expect"].as_str() {
            "complete" => "good",
            "unsupported" => "unsupported",
            _ => "bad",
        };
        assert!(
            name.starts_with(&format!("{kind}-")),
            "{name} is {}",
            fields["expect"]
        );
    }
}

#[test]
fn every_file_has_a_block_and_a_builder() {
    let blocks: Vec<String> = manifest().into_keys().collect();
    assert_eq!(blocks, vector_files(), "blocks of MANIFEST.txt and files");
    let mut built: Vec<&str> = all().iter().map(|vector| vector.name).collect();
    built.sort_unstable();
    assert_eq!(built, vector_files(), "vectors that are built and files");
}

/// Bodies are not looked at by a scan, so it passes some archives that reading refuses; it never
/// refuses one that reading passes, and where both refuse for what stands outside bodies they agree.
#[test]
fn a_scan_agrees_with_reading_as_far_as_it_sees() {
    for name in vector_files() {
        let bytes = fs::read(fixtures().join(format!("vectors/{name}.rmz"))).expect(&name);
        let read = read_all(&bytes[..]);
        let scanned = Scan::new(&bytes[..]).and_then(|mut scan| {
            while scan.next_frame()?.is_some() {}
            Ok(())
        });
        match (&read.error, scanned) {
            (None, Ok(())) => {}
            (None, Err(error)) => panic!("{name}: only the scan refuses: {error}"),
            (Some(_), Ok(())) => assert!(
                read.verdict() == "damaged" || read.verdict() == "unsupported",
                "{name}"
            ),
            (Some(_), Err(error)) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Writes the vectors anew: `cargo test -p redis-migrate-format --test vectors -- --ignored`.
/// Look at the difference of MANIFEST.txt before committing it.
#[test]
#[ignore = "writes fixtures/vectors"]
fn regenerate() {
    let folder = fixtures().join("vectors");
    let mut manifest = String::new();
    for vector in all() {
        fs::write(folder.join(format!("{}.rmz", vector.name)), &vector.bytes).unwrap();
        let _ = writeln!(
            manifest,
            "{}",
            describe(vector.name, vector.comment, &vector.bytes)
        );
    }
    fs::write(
        folder.join("MANIFEST.txt"),
        manifest.trim_end().to_owned() + "\n",
    )
    .unwrap();
}

fn kept_archives() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(fixtures().join("archives"))
        .expect("fixtures/archives")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| {
            fs::read_dir(folder)
                .expect("version")
                .map(|entry| entry.expect("entry").path())
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rmz"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn kept_archives_of_every_version_read_as_they_did() {
    let archives = kept_archives();
    assert!(!archives.is_empty());
    for path in archives {
        let outcome = read_all(&fs::read(&path).unwrap()[..]);
        assert_eq!(outcome.verdict(), "complete", "{}", path.display());
        let listing = fs::read_to_string(path.with_extension("jsonl")).expect("listing");
        assert_eq!(
            outcome.lines.join("\n") + "\n",
            listing,
            "{}",
            path.display()
        );
    }
}

/// Makes the archive of this version, unless there is one: kept archives are never edited.
#[test]
#[ignore = "writes fixtures/archives"]
fn make_the_archive_of_this_version() {
    let path = fixtures().join("archives/v1/mixed.rmz");
    assert!(!path.exists(), "kept archives are never edited");
    let bytes = small_archive();
    fs::write(
        path.with_extension("jsonl"),
        read_all(&bytes[..]).lines.join("\n") + "\n",
    )
    .unwrap();
    fs::write(path, bytes).unwrap();
}
