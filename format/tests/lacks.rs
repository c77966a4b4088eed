//! What an archive says of its source beyond single keys is told by every way of reading it.

mod support;

use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};

use redis_migrate_format::limits::MAX_MODULE_AUX_KEPT;
use redis_migrate_format::record::Family;
use redis_migrate_format::salvage::{Content, Decoder, Found, Scanner};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::seek::{Table, read_frame};
use redis_migrate_format::{LACKS, Limits, ModuleAux, OUTSIDE, Reader, Writer, WriterOptions};
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

fn module_aux(module: &str, data: &[u8], after_keys: bool) -> ModuleAux {
    ModuleAux {
        family: Family::Redis,
        rdb_version: 12,
        after_keys,
        module: module.to_owned(),
        data: data.to_vec(),
    }
}

/// Data of modules before and behind the keys, and a note of what else is outside keys.
fn outside(options: WriterOptions) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(), options).unwrap();
    let index = [b"\x81id".as_slice(), &[7; 3000]].concat();
    writer
        .module_aux(&module_aux("ft_index0", &index, false))
        .unwrap();
    writer.set_context(context()).unwrap();
    writer.write(&key(0, b"k", b"\x00\x01v")).unwrap();
    writer
        .module_aux(&module_aux("scdtype00", b"", true))
        .unwrap();
    writer
        .outside(r#"{"kind":"search index","count":1}"#)
        .unwrap();
    writer.lacks("slots").unwrap();
    writer.finish(facts()).unwrap().inner
}

#[test]
fn what_is_outside_keys_comes_back_as_it_was() {
    for index in [true, false] {
        let bytes = outside(WriterOptions { index, ..options() });
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        let frame = reader.next_frame().unwrap().expect("records");
        assert_eq!(frame.records.len(), 1);
        let (before, lost) = reader.take_module_aux();
        assert_eq!((before.len(), lost), (1, 0));
        assert_eq!(before[0].module, "ft_index0");
        assert_eq!((before[0].data.len(), before[0].after_keys), (3003, false));
        assert!(reader.next_frame().unwrap().is_none());
        let (behind, _) = reader.take_module_aux();
        assert_eq!(behind, [module_aux("scdtype00", b"", true)]);
        assert!(reader.take_module_aux().0.is_empty());
        // No frame of it was passed over as unknown, and none is a record.
        assert_eq!(reader.skipped(), (0, 0));
        assert_eq!(reader.end().unwrap().records, 1);

        let mut scan = Scan::new(&bytes[..]).unwrap();
        while scan.next_frame().unwrap().is_some() {}
        let table = Table::read(&mut Cursor::new(&bytes)).unwrap();
        for end in [reader.end().unwrap(), scan.end().unwrap(), &table.end] {
            assert_eq!(end.outside, [r#"{"kind":"search index","count":1}"#]);
            assert_eq!(end.lacks, ["slots"], "index {index}");
        }
        assert_eq!(
            reader.notes()[0].strip_prefix(OUTSIDE),
            Some(&*table.end.outside[0])
        );
    }
}

#[test]
fn salvage_finds_what_is_outside_keys() {
    let bytes = outside(options());
    let mut scanner = Scanner::new(&bytes[..], None);
    let mut decoder = Decoder::new(Limits::default()).unwrap();
    let mut names = Vec::new();
    while let Some(found) = scanner.next_found().unwrap() {
        let Found::Frame(frame) = found else { continue };
        if let Content::ModuleAux(aux) = decoder.decode(frame).unwrap() {
            names.push(aux.module);
        }
    }
    assert_eq!(names, ["ft_index0", "scdtype00"]);
}

/// A reader holds no more of it than it may, and says how much there was.
#[test]
fn module_data_that_nobody_takes_does_not_make_a_reader_grow() {
    let data = vec![1; 12 * 1024 * 1024];
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    for at in 0..7 {
        let module = format!("ft_index{at}");
        writer
            .module_aux(&module_aux(&module, &data, false))
            .unwrap();
    }
    let too_large = vec![1; 16 * 1024 * 1024];
    let aux = module_aux("ft_index0", &too_large, false);
    assert!(writer.module_aux(&aux).is_err());
    let bytes = writer.finish(facts()).unwrap().inner;
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert!(reader.next_frame().unwrap().is_none());
    let (kept, lost) = reader.take_module_aux();
    assert_eq!((kept.len(), lost), (5, 2));
    assert!(
        reader
            .module_aux_left_out()
            .iter()
            .eq(["ft_index5", "ft_index6"])
    );
}

/// Parts of no data cost as well.
#[test]
fn many_tiny_parts_cost_more_than_their_data() {
    let tiny = module_aux("ft_index0", b"", false);
    let fit = MAX_MODULE_AUX_KEPT / tiny.cost();
    let options = WriterOptions {
        index: false,
        ..options()
    };
    let mut writer = Writer::new(Vec::new(), &header(), options).unwrap();
    for _ in 0..fit + 2 {
        writer.module_aux(&tiny).unwrap();
    }
    let bytes = writer.finish(facts()).unwrap().inner;
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert!(reader.next_frame().unwrap().is_none());
    let (kept, lost) = reader.take_module_aux();
    assert_eq!((kept.len(), lost), (fit, 2));
}

/// A file that counts what is read of it.
struct Counted<'a>(Cursor<&'a [u8]>, usize);

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.0.read(into)?;
        self.1 += got;
        Ok(got)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Going to the place of the next frame forgets nothing that is buffered.
#[test]
fn small_frames_one_after_the_other_are_read_once() {
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    for _ in 0..1000 {
        let aux = module_aux("ft_index0", b"", false);
        writer.module_aux(&aux).unwrap();
    }
    let bytes = writer.finish(facts()).unwrap().inner;
    let table = Table::read(&mut Cursor::new(&bytes)).unwrap();
    let mut input = BufReader::with_capacity(16 * 1024, Counted(Cursor::new(&bytes), 0));
    for place in &table.frames {
        read_frame(&mut input, place, table.archive_id).unwrap();
    }
    assert!(table.frames.len() > 1000);
    let read = input.get_ref().1;
    assert!(read <= bytes.len(), "{read} of {}", bytes.len());
}

/// An archive with all that is outside keys is kept, as those of every version are.
#[test]
#[ignore = "writes fixtures/archives"]
fn make_the_archive_with_module_data() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/archives/v1");
    let path = std::path::Path::new(folder).join("outside.rmz");
    assert!(!path.exists(), "kept archives are never edited");
    let bytes = outside(options());
    let listing = read_all(&bytes[..]).lines.join("\n") + "\n";
    std::fs::write(path.with_extension("jsonl"), listing).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_kept_archive_has_its_module_data() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/archives/v1/outside.rmz"
    );
    let bytes = std::fs::read(path).unwrap();
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    let mut names = Vec::new();
    loop {
        let frame = reader.next_frame().unwrap();
        names.extend(reader.take_module_aux().0.into_iter().map(|aux| aux.module));
        if frame.is_none() {
            break;
        }
    }
    assert_eq!(names, ["ft_index0", "scdtype00"]);
    assert_eq!(reader.end().unwrap().outside.len(), 1);
}
