//! The payloads of real servers, `fixtures/payloads.json`.

use std::collections::BTreeMap;

use redis_migrate_format::record::Family;

/// One answer of DUMP.
pub(crate) struct Vector {
    pub server: String,
    pub key: String,
    pub family: Family,
    pub type_byte: u8,
    pub version: u16,
    pub payload: Vec<u8>,
}

impl Vector {
    /// Type byte and body.
    pub(crate) fn body(&self) -> &[u8] {
        super::split(&self.payload).expect("a real payload").0
    }
}

impl std::fmt::Display for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {}, type {}",
            self.key, self.server, self.type_byte
        )
    }
}

#[derive(serde::Deserialize)]
struct Stored {
    r#type: u8,
    rdbver: u16,
    payload_hex: String,
}

/// All of them.
pub(crate) fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../../../fixtures/payloads.json");
    let servers: BTreeMap<String, BTreeMap<String, Stored>> =
        serde_json::from_str(text).expect("fixtures/payloads.json");
    let mut vectors = Vec::new();
    for (server, keys) in servers {
        let family = if server.starts_with("valkey") {
            Family::Valkey
        } else {
            Family::Redis
        };
        for (key, stored) in keys {
            vectors.push(Vector {
                server: server.clone(),
                key,
                family,
                type_byte: stored.r#type,
                version: stored.rdbver,
                payload: hex(&stored.payload_hex),
            });
        }
    }
    vectors
}

/// The bytes that `text` is the hex of.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

#[test]
fn footers() {
    let vectors = vectors();
    assert!(vectors.len() > 200);
    for vector in &vectors {
        let (body, version) = super::split(&vector.payload).expect("a real payload");
        assert_eq!(version, vector.version, "{vector}");
        assert_eq!(body[0], vector.type_byte, "{vector}");
        assert_eq!(super::sign(body, version), vector.payload, "{vector}");
        let word = match vector.key.split(':').next() {
            Some("str") => "string",
            Some("hfe") => "hash",
            other => other.unwrap_or_default(),
        };
        assert_eq!(
            super::kind_of(vector.family, body[0]).name(),
            word,
            "{vector}"
        );
    }
}
