//! What modules keep outside keys, where it is larger than can be kept: what is left out is named in
//! whatever is written, and the run is not complete. Such files are made by hand.

use std::path::Path;

use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header};
use redis_migrate_format::limits::{MAX_MODULE_AUX_KEPT, MAX_RAW_LEN};
use redis_migrate_format::record::Family;
use redis_migrate_format::{Limits, ModuleAux, Reader, Writer, WriterOptions};
use serde_json::{Value, json};

use crate::rdb::odd::{file, key};
use crate::support::tool::{Output, run};

const MARK: &[u8] = b"redis-migrate-not-whole";
const LEFT_OUT: &str = "data of modules outside keys are left out, because they are larger than can \
                        be kept: ft_index0";

/// Module data as they stand behind the opcode: the type's id, the moment before the keys, a string.
fn data(module: &str, bytes: usize) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = |letter: u8| LETTERS.iter().position(|at| *at == letter).unwrap() as u64;
    let id = module.bytes().fold(0, |id, letter| id << 6 | place(letter)) << 10;
    let id = u64::to_be_bytes(id);
    let len = u32::try_from(bytes).unwrap().to_be_bytes();
    let string = vec![b'x'; bytes];
    [
        &b"\x81"[..],
        &id,
        b"\x02\x01\x05\x80",
        &len,
        &string,
        b"\x00",
    ]
    .concat()
}

/// One module whose data are whole, and one of whose two parts the first is larger than 1 KiB.
fn source(directory: &Path) -> String {
    let aux = |module, bytes| [&b"\xf7"[..], &data(module, bytes)].concat();
    let parts = [
        aux("scdtype00", 10),
        aux("ft_index0", 2000),
        aux("ft_index0", 10),
        b"\xfe\x00".to_vec(),
        key(0, "k", b"\x01v"),
    ];
    let path = file(directory, b"REDIS0011", &parts.concat());
    path.to_str().unwrap().to_owned()
}

fn outside(output: &Output) -> Value {
    output.summary()["source"]["outside"].clone()
}

/// Whether an RDB file says that it lacks something.
fn is_marked(path: &str) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

#[test]
fn what_is_larger_than_can_be_kept_is_named_in_archives_and_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let from = source(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (archive, out) = (path("a.rmz"), path("out.rdb"));
    let told = json!([
        {"kind": "module data", "count": 1, "names": ["scdtype00"], "kept": true},
        {"kind": "module data", "count": 1, "names": ["ft_index0"]},
    ]);
    let flags = ["--max-value", "1k", "--json"];
    let export = [&["export", &from, "-o", &archive][..], &flags].concat();
    let exported = run(&export, b"").expect_code(3).expect_stderr(LEFT_OUT);
    assert_eq!(outside(&exported), told);
    let mut reader =
        Reader::new(std::fs::File::open(&archive).unwrap(), Limits::default()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    let noted = reader.end().unwrap().outside.join(",");
    let noted: Value = serde_json::from_str(&format!("[{noted}]")).unwrap();
    assert_eq!(noted, told);

    // The archive was made without them; a file that is made of it says so too.
    let convert = ["convert", &archive, &out, "--json", "--overwrite"];
    assert_eq!(outside(&run(&convert, b"").success()), told);
    assert!(is_marked(&out));
    let convert = [&["convert", &from, &out, "--overwrite"][..], &flags].concat();
    run(&convert, b"").expect_code(3).expect_stderr(LEFT_OUT);
    assert!(is_marked(&out));
    // Where all of them fit, nothing is said.
    let convert = ["convert", &from, &out, "--overwrite"];
    run(&convert, b"").success();
    assert!(!is_marked(&out));
}

#[test]
fn an_archive_with_more_than_a_reader_keeps_makes_no_whole_file() {
    let directory = tempfile::tempdir().unwrap();
    let part = MAX_RAW_LEN as usize * 3 / 4;
    let mut writer = Writer::new(Vec::new(), &Header::default(), WriterOptions::default()).unwrap();
    for at in 0..=MAX_MODULE_AUX_KEPT / part {
        let module = format!("ft_index{at}");
        let data = data(&module, part);
        let aux = ModuleAux {
            family: Family::Redis,
            rdb_version: 11,
            after_keys: false,
            module,
            data,
        };
        writer.module_aux(&aux).unwrap();
    }
    let last = format!("ft_index{}", MAX_MODULE_AUX_KEPT / part);
    let archive = writer
        .finish(EndFacts::new(ConsistencyReached::Scan {
            from_ms: 1,
            to_ms: 2,
        }))
        .unwrap()
        .inner;
    let (from, out) = (
        directory.path().join("a.rmz"),
        directory.path().join("out.rdb"),
    );
    std::fs::write(&from, archive).unwrap();
    let out = out.to_str().unwrap();
    let convert = ["convert", from.to_str().unwrap(), out, "--for", "redis-8.0"];
    let said = LEFT_OUT.replace("ft_index0", &last);
    run(&convert, b"").expect_code(3).expect_stderr(&said);
    assert!(is_marked(out));
}

/// What a module keeps beside a key, by a class that says whether it may be ignored.
fn with_metadata(may_be_ignored: u8) -> Vec<u8> {
    // The class "AAAB", and an empty end of its items.
    let spec = (1u32 << 8 | u32::from(may_be_ignored)).to_le_bytes();
    let metadata = [&b"\xf3\x01"[..], &spec, b"\x02\x05\x00"].concat();
    [metadata, key(0, "k", b"\x01v")].concat()
}

#[test]
fn key_metadata_that_must_not_be_ignored_are_warned_of() {
    for (may_be_ignored, is_warned) in [(0, true), (1, false)] {
        let directory = tempfile::tempdir().unwrap();
        let inner = [&b"\xfe\x00"[..], &with_metadata(may_be_ignored)].concat();
        let from = file(directory.path(), b"REDIS0013", &inner);
        let out = directory.path().join("out.rdb");
        let [from, out] = [&from, &out].map(|path| path.to_str().unwrap());
        let output = run(&["convert", from, out, "--for", "redis-8.6"], b"").success();
        let said = "the file holds key metadata that must not be ignored (AAAB); a server without \
                    the modules";
        assert_eq!(output.stderr.contains(said), is_warned, "{}", output.stderr);
    }
}
