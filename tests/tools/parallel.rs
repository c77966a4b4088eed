//! Files that are read by several workers: the same records in the same order, the same refusals.

use redis::cmd;
use redis_migrate_format::WriterOptions;

use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;
use crate::tools::archives::{archive, contents, options, pieces, records};

#[test]
fn with_many_workers_it_is_the_same_import() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    let records = records(2_000, 21);
    let due = contents(&records);
    let standing = due.values().flatten().count() as u64;
    for index in [true, false] {
        let options = WriterOptions {
            index,
            ..options(3)
        };
        std::fs::write(&file, archive(&records, options)).expect("written");
        let server = TestServer::start(available()[0]);
        Tool::new(&["import", &server.url(), "--jobs", "5"])
            .arg(&file)
            .run()
            .success();
        let mut size = 0;
        for db in [0, 5] {
            let mut client = server.client_db(db);
            size += cmd("DBSIZE").query::<u64>(&mut client).expect("a size");
            for ((_, key), value) in due.iter().filter(|((of, _), _)| *of == db) {
                let found: Option<Vec<u8>> = cmd("GET").arg(key).query(&mut client).expect("GET");
                // Type byte and length are not part of the text.
                assert!(found.as_deref() == value.as_ref().map(|value| &value[6..]));
            }
        }
        assert_eq!(size, standing);
    }
}

#[test]
fn damage_is_found_by_workers_too() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    let records = records(300, 22);
    let whole = archive(&records, options(3));
    let pieces = pieces(&whole);
    let server = TestServer::start(available()[0]);
    let import = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("written");
        let () = cmd("FLUSHALL")
            .query(&mut server.client())
            .expect("flushed");
        Tool::new(&["import", &server.url(), "--jobs", "3"])
            .arg(&file)
            .run()
    };
    import(&whole).success();
    for piece in [0, pieces.len() / 2, pieces.len() - 1] {
        let mut damaged = whole.clone();
        damaged[pieces[piece].from as usize + 50] ^= 4;
        import(&damaged).expect_code(10).expect_stderr("damaged");
    }
    // The preamble's checksum is repaired: only the digest over everything knows.
    let mut damaged = whole.clone();
    // The minor version, which every reader takes.
    damaged[9] = 7;
    let crc = crc32(&damaged[..12]);
    damaged[12..16].copy_from_slice(&crc.to_le_bytes());
    import(&damaged).expect_code(10).expect_stderr("SHA-256");
}

/// What follows an archive is refused by whoever jumps to its end as by whoever reads on to it.
#[test]
fn nothing_may_follow_an_archive() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    let whole = archive(&records(300, 23), options(3));
    let other = archive(&records(10, 24), options(3));
    let trailer = &whole[whole.len() - 40..];
    let server = TestServer::start(available()[0]);
    let url = server.url();
    for behind in [
        // The same archive once more: the file ends with a trailer that is right.
        &whole[..],
        &other[..],
        trailer,
        &[&[7; 1_000], trailer].concat()[..],
        &[0; 512],
        b"\n",
    ] {
        std::fs::write(&file, [&whole[..], behind].concat()).expect("written");
        for arguments in [
            &["import", &url][..],
            &["import", &url, "--jobs", "2"],
            &["verify"],
            &["verify", "--quick"],
            &["extract", "--key", "key:5"],
            &["list"],
        ] {
            Tool::new(arguments)
                .arg(&file)
                .run()
                .expect_code(10)
                .expect_stderr("after its end");
        }
        let size: u64 = cmd("DBSIZE").query(&mut server.client()).expect("a size");
        assert_eq!(size, 0, "{} bytes behind", behind.len());
    }
}

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
