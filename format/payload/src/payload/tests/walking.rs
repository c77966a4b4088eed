//! Walking and compacting: real payloads, and those values that no server here writes.

use redis_migrate_format::record::Family;

use super::vectors::{hex, vectors};
use super::*;

fn compacted(body: &[u8], family: Family) -> Result<Vec<u8>, PayloadError> {
    let mut out = b"kept".to_vec();
    let result = compact(body, family, &mut out);
    assert_eq!(&out[..4], b"kept");
    match result {
        Ok(()) => Ok(out.split_off(4)),
        Err(error) => {
            assert_eq!(out, b"kept");
            Err(error)
        }
    }
}

#[test]
fn real_payloads() {
    let mut expanded = 0;
    for vector in vectors() {
        let body = vector.body();
        let compact = compacted(body, vector.family).unwrap_or_else(|e| panic!("{vector}: {e}"));
        assert_eq!(
            compacted(&compact, vector.family).as_ref(),
            Ok(&compact),
            "{vector}"
        );
        assert_eq!(compact[0], body[0]);
        expanded += usize::from(compact != body);

        let stream = [body, b"\xfe\x00next"].concat();
        let error = compacted(&stream, vector.family).unwrap_err();
        assert_eq!(
            error,
            PayloadError::new(body.len() as u64, ErrorKind::Trailing(6))
        );
    }
    assert!(expanded > 50, "{expanded} vectors have compressed strings");
}

#[test]
fn cut_anywhere() {
    for vector in vectors() {
        let body = vector.body();
        for len in 0..body.len() {
            assert!(
                compacted(&body[..len], vector.family).is_err(),
                "{vector} cut to {len}"
            );
        }
    }
}

#[test]
fn any_bit_flipped() {
    for vector in vectors() {
        let mut body = vector.body().to_vec();
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            let slice = compacted(&body, vector.family);
            if let Ok(compact) = &slice {
                assert!(compact.len() <= body.len() * 88);
                assert_eq!(compacted(compact, vector.family).as_ref(), Ok(compact));
            }
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn layouts_no_server_here_writes() {
    for (family, body) in [
        // Scores as text, one of them infinite.
        (Family::Redis, "03 02 0161 03312e35 0162 fe"),
        (Family::Other, "09 07 01 0161 01 00 62 ff"),
        (Family::Redis, "0e 02 03616263 0164"),
        (
            Family::Redis,
            "16 02 00 0161 0162 81 000001a456517f89 0163 0164",
        ),
        (Family::Redis, "17 03 616263"),
        (Family::Redis, "18 0000000000000000 01 00 0161 0162"),
        (Family::Redis, "19 0000000000000000 03 616263"),
        (Family::Valkey, "16 01 0161 0162 ffffffffffffffff"),
        // Lengths longer than need be.
        (Family::Redis, "00 80 00000001 61"),
        (Family::Redis, "00 81 0000000000000001 61"),
        (Family::Redis, "00 4001 61"),
    ] {
        let body = hex(&body.replace(' ', ""));
        assert_eq!(compacted(&body, family).as_ref(), Ok(&body));
    }
}

#[test]
fn strings_are_expanded_in_place() {
    // Fields "a" and "b": 20 times "x" compressed, and the integer 5.
    let body = hex("04020161c30514 0078e00a00 0162c005"
        .replace(' ', "")
        .as_str());
    let plain = [&hex("0402016114")[..], &[b'x'; 20], &hex("0162c005")].concat();
    assert_eq!(compacted(&body, Family::Redis), Ok(plain.clone()));

    let mut out = Vec::new();
    let limit = plain.len() as u64;
    assert_eq!(
        compact_within(&body, Family::Redis, limit, &mut out),
        Ok(())
    );
    let error = compact_within(&body, Family::Redis, limit - 1, &mut out).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge(limit - 1));
    assert_eq!(out, plain);
}

#[test]
fn opaque_types() {
    // A module's value of one unsigned integer and one string.
    let module = hex("078100000000000004000205050161 00"
        .replace(' ', "")
        .as_str());
    let walked = walk::walk(&mut Slice::new(&module), Family::Redis);
    assert_eq!(walked, Ok(Encoding::Module));
    assert!(compacted(&module, Family::Redis).unwrap_err().is_opaque());
    for (family, type_byte) in [
        (Family::Redis, 6),
        (Family::Redis, 8),
        (Family::Redis, 99),
        (Family::Redis, 242),
        (Family::Valkey, 243),
        (Family::Valkey, 26),
        (Family::Valkey, 24),
        (Family::Valkey, 255),
        (Family::Other, 22),
        (Family::Other, 25),
    ] {
        let error = compacted(&[type_byte, 0, 0], family).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Opaque(type_byte));
    }
    assert_eq!(
        compacted(b"", Family::Redis).unwrap_err().kind,
        ErrorKind::Truncated
    );
}
