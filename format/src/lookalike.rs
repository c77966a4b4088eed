//! What a file that does not begin like an archive probably is, so that the refusal can say so.

use std::fmt;

use crate::version::MAGIC;

/// A guess from the first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookAlike {
    /// No bytes at all.
    Empty,
    /// A Redis RDB file.
    RedisRdb,
    /// A Valkey RDB file.
    ValkeyRdb,
    /// Redis protocol: an append-only file or a capture of replies.
    Protocol,
    /// gzip.
    Gzip,
    /// zstd without our framing.
    Zstd,
    /// xz, bzip2 or zip.
    OtherCompression,
    /// Encrypted with age.
    Age,
    /// JSON.
    Json,
    /// Other text.
    Text,
    /// UTF-16 text, which is what PowerShell's `>` makes of binary output.
    Utf16,
    /// An archive whose line feeds were turned into CR LF.
    LfToCrlf,
    /// An archive whose CR LF were turned into line feeds.
    CrlfToLf,
    /// An archive that lost the eighth bit of each byte.
    SevenBit,
    /// An archive that was re-encoded as UTF-8 text.
    Utf8Reencoded,
    /// An archive whose very first bytes are damaged.
    DamagedMagic,
    /// Nothing known.
    Unknown,
}

impl LookAlike {
    /// Guesses from the first bytes, 16 or all there are. They must not begin with the magic.
    pub fn of(bytes: &[u8]) -> Self {
        let has = |prefix: &[u8]| bytes.starts_with(prefix);
        if bytes.is_empty() {
            LookAlike::Empty
        } else if has(b"REDIS0") {
            LookAlike::RedisRdb
        } else if has(b"VALKEY") || has(b"VCS\x01") {
            LookAlike::ValkeyRdb
        } else if has(&[0x1F, 0x8B]) {
            LookAlike::Gzip
        } else if has(&[0x28, 0xB5, 0x2F, 0xFD]) {
            LookAlike::Zstd
        } else if has(&[0xFD, b'7', b'z', b'X', b'Z']) || has(b"BZh") || has(b"PK\x03\x04") {
            LookAlike::OtherCompression
        } else if has(b"age-encryption") || has(b"-----BEGIN AGE") {
            LookAlike::Age
        } else if has(&[0xFF, 0xFE]) || has(&[0xFE, 0xFF]) || has(&[0x89, 0, b'R', 0]) {
            LookAlike::Utf16
        } else if has(&[0x89, b'R', b'M', b'Z', 0x0D, 0x0D, 0x0A]) {
            LookAlike::LfToCrlf
        } else if has(&[0x89, b'R', b'M', b'Z', 0x0A, 0x1A]) {
            LookAlike::CrlfToLf
        } else if has(&[0x09, b'R', b'M', b'Z']) {
            LookAlike::SevenBit
        } else if has(b"\xC2\x89RMZ")
            || has(b"\xEF\xBF\xBDRMZ")
            || has(b"\xE2\x80\xB0RMZ")
            || has(b"?RMZ\r\n")
        {
            LookAlike::Utf8Reencoded
        } else if nearly_magic(bytes) {
            LookAlike::DamagedMagic
        } else if bytes[0] == b'*' && bytes.get(1).is_some_and(u8::is_ascii_digit) {
            LookAlike::Protocol
        } else if is_text(bytes) {
            match bytes.trim_ascii_start().first() {
                Some(b'{' | b'[') => LookAlike::Json,
                _ => LookAlike::Text,
            }
        } else {
            LookAlike::Unknown
        }
    }

    /// One line of what to do.
    pub fn advice(self) -> &'static str {
        match self {
            LookAlike::Empty => {
                "the export probably failed at once; look at its messages and run it again"
            }
            LookAlike::RedisRdb | LookAlike::ValkeyRdb => {
                "only archives made by redis-migrate can be read here; write an RDB file into a server with `redis-migrate copy FILE DEST`, or make an archive of it with `redis-migrate export FILE`"
            }
            LookAlike::Protocol => "load it with redis-cli --pipe, or export with redis-migrate",
            LookAlike::Gzip => "unpack it first, for instance with gzip -dc FILE |",
            LookAlike::Zstd => "unpack it first, for instance with zstd -dc FILE |",
            LookAlike::OtherCompression => "unpack it first",
            LookAlike::Age => "decrypt it first, for instance with age -d FILE |",
            LookAlike::Json | LookAlike::Text => {
                "check the file name, and that the export wrote to this file and not its messages"
            }
            LookAlike::Utf16 => {
                "let the export write the file itself with -o FILE instead of PowerShell's >"
            }
            LookAlike::LfToCrlf
            | LookAlike::CrlfToLf
            | LookAlike::SevenBit
            | LookAlike::Utf8Reencoded => {
                "transfer the original again in binary mode, or export with -o FILE"
            }
            LookAlike::DamagedMagic => {
                "compare its SHA-256 with the one the export printed and fetch it again"
            }
            LookAlike::Unknown => "check the file name",
        }
    }
}

impl fmt::Display for LookAlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LookAlike::Empty => "it is empty",
            LookAlike::RedisRdb => "it is a Redis RDB file",
            LookAlike::ValkeyRdb => "it is a Valkey RDB file",
            LookAlike::Protocol => "it looks like Redis protocol, perhaps an append-only file",
            LookAlike::Gzip => "it is compressed with gzip",
            LookAlike::Zstd => "it is compressed with zstd",
            LookAlike::OtherCompression => "it is compressed with xz, bzip2 or zip",
            LookAlike::Age => "it is encrypted with age",
            LookAlike::Json => "it looks like JSON",
            LookAlike::Text => "it looks like text",
            LookAlike::Utf16 => {
                "it is UTF-16 text, probably made by redirecting binary output in PowerShell"
            }
            LookAlike::LfToCrlf => {
                "it was one, but a transfer in text mode turned its line feeds into CR LF"
            }
            LookAlike::CrlfToLf => {
                "it was one, but a transfer in text mode turned its CR LF into line feeds"
            }
            LookAlike::SevenBit => "it was one, but a transfer removed the eighth bit of its bytes",
            LookAlike::Utf8Reencoded => "it was one, but something re-encoded it as text",
            LookAlike::DamagedMagic => {
                "it begins almost like one, so its first bytes are probably damaged"
            }
            LookAlike::Unknown => "its first bytes are unknown",
        })
    }
}

/// Whether only a few bits part the first eight bytes from the magic.
fn nearly_magic(bytes: &[u8]) -> bool {
    bytes.len() >= MAGIC.len()
        && MAGIC
            .iter()
            .zip(bytes)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum::<u32>()
            <= 8
}

fn is_text(bytes: &[u8]) -> bool {
    let printable = |text: &str| {
        text.chars()
            .all(|c| !c.is_control() || c.is_ascii_whitespace())
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => printable(text),
        // Sixteen bytes may end inside a character.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).is_ok_and(printable)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_beginning_is_named() {
        let cases: &[(&[u8], LookAlike)] = &[
            (b"", LookAlike::Empty),
            (b"REDIS0011\xfa\x09redis-", LookAlike::RedisRdb),
            (b"VALKEY080\xfa\x09redis-", LookAlike::ValkeyRdb),
            (b"*2\r\n$6\r\nSELECT\r\n", LookAlike::Protocol),
            (b"\x1f\x8b\x08\0\0\0\0\0", LookAlike::Gzip),
            (b"\x28\xb5\x2f\xfd\x04\0", LookAlike::Zstd),
            (b"\xfd7zXZ\0", LookAlike::OtherCompression),
            (b"PK\x03\x04", LookAlike::OtherCompression),
            (b"age-encryption.o", LookAlike::Age),
            (b"-----BEGIN AGE E", LookAlike::Age),
            (b"{\"keys\": 1}", LookAlike::Json),
            (b" \n[1, 2]", LookAlike::Json),
            (b"error: no such h", LookAlike::Text),
            ("Schlüssel und ü".as_bytes(), LookAlike::Text),
            (b"\xff\xfe\xeb\0R\0M\0Z\0", LookAlike::Utf16),
            (b"\x89\0R\0M\0Z\0", LookAlike::Utf16),
            (b"\x89RMZ\r\r\n\x1a\r\n", LookAlike::LfToCrlf),
            (b"\x89RMZ\n\x1a\n\x01", LookAlike::CrlfToLf),
            (b"\x09RMZ\r\n\x1a\n", LookAlike::SevenBit),
            (b"\xc2\x89RMZ\r\n\x1a\n", LookAlike::Utf8Reencoded),
            (b"\xef\xbf\xbdRMZ\r\n\x1a\n", LookAlike::Utf8Reencoded),
            (b"\x89RMX\r\n\x1a\n", LookAlike::DamagedMagic),
            (b"\0\x01\x02\x03", LookAlike::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(LookAlike::of(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }
}
