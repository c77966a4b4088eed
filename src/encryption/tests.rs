//! The stream in both directions, without the program around it.

use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use age::x25519::Identity;

use super::*;

fn sealed(plain: &[u8], identity: &Identity) -> (Vec<u8>, StoredAs) {
    let recipients = Recipients::of(identity.to_public());
    let mut sealing = Sealing::new(Vec::new(), &recipients).expect("a vector");
    sealing.write_all(plain).expect("a vector");
    let (out, stored) = sealing.finish().expect("a vector");
    (out, stored.expect("it was encrypted"))
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

#[test]
fn every_place_can_be_sought_and_none_behind_the_end() {
    let identity = Identity::generate();
    const CHUNK: usize = 64 * 1024;
    for len in [
        0,
        1,
        100,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK,
        3 * CHUNK - 5,
    ] {
        let plain = bytes(len);
        let (out, stored) = sealed(&plain, &identity);
        assert_eq!(stored.bytes, out.len() as u64);
        let keys = Keys::of_identity(identity.clone());
        let form = Sealed::of(&out).expect("an age file");
        let mut input = unseal(Cursor::new(out), form, &keys, "it").expect("opens");
        let places = [
            0,
            1,
            len / 2,
            CHUNK,
            len.saturating_sub(1),
            len,
            len + 1,
            9 * CHUNK,
            0,
            7,
        ];
        for at in places {
            let here = input.seek(SeekFrom::Start(at as u64)).expect("seeks");
            assert_eq!(here, at.min(len) as u64, "{at} of {len}");
            let mut rest = Vec::new();
            input.read_to_end(&mut rest).expect("reads");
            assert!(rest == plain[at.min(len)..], "{at} of {len}");
        }
        assert_eq!(input.seek(SeekFrom::End(0)).expect("seeks"), len as u64);
        assert!(input.seek(SeekFrom::End(-(len as i64) - 1)).is_err());
        assert_eq!(input.stream_position().expect("known"), len as u64);
    }
}

#[test]
fn what_was_dropped_can_be_read_as_far_as_it_came() {
    let identity = Identity::generate();
    let recipients = Recipients::of(identity.to_public());
    let mut out = Vec::new();
    let mut sealing = Sealing::new(&mut out, &recipients).expect("a vector");
    sealing.write_all(b"given up, because").expect("a vector");
    drop(sealing);
    let keys = Keys::of_identity(identity);
    let mut text = String::new();
    unseal(Cursor::new(out), Sealed::Binary, &keys, "it")
        .expect("opens")
        .read_to_string(&mut text)
        .expect("reads");
    assert_eq!(text, "given up, because");
}

#[test]
fn without_recipients_nothing_is_changed() {
    let recipients = Recipients::default();
    let mut sealing = Sealing::new(Vec::new(), &recipients).expect("a vector");
    sealing.write_all(b"plain").expect("a vector");
    let (out, stored) = sealing.finish().expect("a vector");
    assert_eq!((out.as_slice(), stored), (&b"plain"[..], None));
}

#[test]
fn a_passphrase_that_costs_too_much_to_try_is_refused() {
    // Work of 2^40: hours, and a terabyte of memory.
    let file = b"age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 40\n\
        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
        --- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789abcdef0123456789abcdef";
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("passphrase");
    std::fs::write(&path, "x").expect("written");
    let keys = Keys::load(&[], Some(&path), false).expect("a passphrase");
    let error = match unseal(&file[..], Sealed::Binary, &keys, "it") {
        Ok(_) => panic!("it cannot be opened"),
        Err(error) => error,
    };
    let error = error.downcast::<EncryptionError>().expect("ours");
    assert!(
        matches!(error, EncryptionError::Unsupported { .. }),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let keys = Keys::of_identity(Identity::generate());
    assert_eq!(format!("{keys:?}"), "Keys(***)");
}
