//! Bytes from outside as people are shown them.

/// A key for people: quoted, every byte that is not printable ASCII escaped, long ones shortened.
/// Keys are bytes from outside; raw, they could carry terminal escapes.
pub fn show_key(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    let shown = &key[..key.len().min(SHOWN_BYTES)];
    let mut text = format!("\"{}\"", shown.escape_ascii());
    if key.len() > SHOWN_BYTES {
        text.push_str(&format!("… ({} bytes)", key.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_without_control_characters() {
        assert_eq!(show_key(b"a\x1b[31m\n\xff\"b"), r#""a\x1b[31m\n\xff\"b""#);
        assert_eq!(show_key(b""), r#""""#);
        assert!(show_key(&[b'x'; 500]).ends_with("(500 bytes)"));
    }
}
