//! What an archive says that it lacks is told at its end, by every way of reading it.

mod support;

use std::io::Cursor;

use redis_migrate_format::scan::Scan;
use redis_migrate_format::seek::Table;
use redis_migrate_format::{LACKS, Limits, Reader, Writer, WriterOptions};
use support::*;

fn archive(index: bool, notes: &[&str], lacks: &[&str]) -> (Vec<u8>, Vec<String>) {
    let options = WriterOptions { index, ..options() };
    let mut writer = Writer::new(Vec::new(), &header(), options).unwrap();
    writer.set_context(context()).unwrap();
    writer.write(&key(0, b"k", b"\x00\x01v")).unwrap();
    for note in notes {
        writer.note(note).unwrap();
    }
    for text in lacks {
        writer.lacks(text).unwrap();
    }
    let done = writer.finish(facts()).unwrap();
    (done.inner, done.end.lacks)
}

/// As a stream, frame by frame, and from the end.
fn told(bytes: &[u8]) -> [Vec<String>; 3] {
    let mut reader = Reader::new(bytes, Limits::default()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    let mut scan = Scan::new(bytes).unwrap();
    while scan.next_frame().unwrap().is_some() {}
    let table = Table::read(&mut Cursor::new(bytes)).unwrap();
    [
        reader.end().unwrap().lacks.clone(),
        scan.end().unwrap().lacks.clone(),
        table.end.lacks,
    ]
}

#[test]
fn what_an_archive_lacks_is_told_by_every_reader() {
    // Long enough that it would be compressed.
    let long = "databases were swapped ".repeat(40);
    for index in [true, false] {
        let (bytes, written) = archive(index, &["ticket 7"], &["slots", &long]);
        assert_eq!(written, ["slots", &long]);
        for told in told(&bytes) {
            assert_eq!(told, ["slots", &long], "index {index}");
        }
        let (bytes, _) = archive(index, &["ticket 7", "it lacks: nothing"], &[]);
        assert_eq!(told(&bytes), [const { Vec::<String>::new() }; 3]);
    }
}

#[test]
fn a_compressed_note_is_only_a_note() {
    let note = format!("{LACKS}{}", "databases were swapped ".repeat(40));
    let (bytes, _) = archive(true, &[&note], &[]);
    assert_eq!(told(&bytes), [const { Vec::<String>::new() }; 3]);
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    assert_eq!(reader.notes(), [note]);
}

#[test]
fn no_number_of_notes_makes_it_grow() {
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (bytes, written) = archive(true, &[], &many);
    assert_eq!(written.len(), 16);
    for told in told(&bytes) {
        assert_eq!(told, written);
    }
}
