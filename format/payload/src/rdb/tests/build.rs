//! An RDB file, byte by byte.

use crate::payload::crc64::crc64;

/// A file under construction.
#[derive(Clone)]
pub(super) struct Rdb(pub Vec<u8>);

impl Rdb {
    pub(super) fn new(magic: &[u8]) -> Self {
        Self(magic.to_vec())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn aux(self, name: &str, value: &str) -> Self {
        self.bytes(&[0xfa]).text(name).text(value)
    }

    /// A short string.
    pub(super) fn text(self, text: &str) -> Self {
        assert!(text.len() < 64);
        self.bytes(&[text.len() as u8]).bytes(text.as_bytes())
    }

    pub(super) fn key(self, type_byte: u8, name: &str, body: &[u8]) -> Self {
        self.bytes(&[type_byte]).text(name).bytes(body)
    }

    /// End mark and checksum.
    pub(super) fn end(self) -> Vec<u8> {
        let mut bytes = self.bytes(&[0xff]).0;
        let crc = crc64(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// One of everything: every opcode, and layouts of every kind.
pub(super) fn everything() -> Vec<u8> {
    let packed = b"\xc3\x09\x40\x64\x01aa\xe0\x57\x00\x01aa";
    Rdb::new(b"REDIS0012")
        .aux("redis-ver", "8.0.2")
        .bytes(b"\xfa\x05ctime\xc2\x00\x36\xec\x65")
        .aux("used-mem", "1000")
        .bytes(b"\xf5\x09#!lua x=1")
        // A module's id, UINT, the moment, a string, the end.
        .bytes(b"\xf7\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x02\x05\x03abc\x00")
        .bytes(b"\xfe\x00\xfb\x03\x01")
        .bytes(b"\xf4\x01\x02\x03")
        .bytes(b"\xfc\x00\x10\x00\x00\x00\x01\x00\x00\xf9\x07")
        .key(0, "string", b"\x05hello")
        .key(0, "number", b"\xc1\x39\x30")
        .bytes(b"\xf8\x40\xff")
        .key(0, "packed", packed)
        .key(1, "list", b"\x02\x01a\xc0\x07")
        .key(2, "set", b"\x01\x01m")
        .key(3, "oldzset", b"\x02\x01a\x031.5\x01b\xfe")
        .key(4, "hash", b"\x01\x01f\x01v")
        .key(5, "zset", b"\x01\x01a\x00\x00\x00\x00\x00\x00\xf8\x3f")
        .key(
            7,
            "module",
            b"\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x04\0\0\0\0\0\0\0\0\x05\x01x\x00",
        )
        .key(18, "quicklist", b"\x01\x01\x03abc")
        .key(24, "ttls", b"\x00\x10\0\0\x01\0\0\0\x01\x01\x01f\x01v")
        .bytes(b"\xfe\x0f\xfd\x00\x36\xec\x65")
        .key(15, "stream", b"\x00\x00\x00\x00\x01\x01g\x00\x00\x00\x00")
        .end()
}
