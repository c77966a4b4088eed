//! Text from outside (keys, file names, the words of servers and of clap) made safe to show.
//!
//! Two functions and no others: [`clean`] for people, [`json_text`] for programs. Both escape the
//! same characters, [`is_unsafe`]. JSON parsers give the characters back, so nothing is lost there.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde_json::Value;
use serde_json::ser::Formatter;

/// Whether a character can steer a terminal or hide itself or others: controls (C0, DEL, C1), what
/// turns the direction of writing, other line ends, what takes no room, tags, and variation
/// selectors.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// One line of text without characters that could steer a terminal: they come as `\u{9b}`, `\n`.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_but(text, |_| false)
}

/// The same for several lines: their ends stay.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    clean_but(text, |c| c == '\n')
}

fn clean_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escapes = |c: char| is_unsafe(c) && !stays(c);
    if !text.contains(escapes) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if escapes(c) {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

/// A JSON value in one line, with every unsafe character as `\uXXXX`.
pub fn json_text(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(128);
    match write_json(&mut bytes, value) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        // A vector takes everything, and a Value's keys are strings: there is nothing to go wrong.
        Err(_) => value.to_string(),
    }
}

/// Writes a JSON value as [`json_text`] gives it, without a line end.
///
/// # Errors
/// The writer's.
pub fn write_json(out: &mut impl io::Write, value: &Value) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Escaping);
    serde::Serialize::serialize(value, &mut serializer).map_err(io::Error::from)
}

/// The same, and a line end.
///
/// # Errors
/// The writer's.
pub fn write_json_line(out: &mut impl io::Write, value: &Value) -> io::Result<()> {
    write_json(&mut *out, value)?;
    out.write_all(b"\n")
}

/// JSON in one line. serde_json escapes only what must be escaped for the parsers' sake: quotes,
/// backslashes and the controls below U+0020.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices() {
            if c.is_ascii_graphic() || c == ' ' || !is_unsafe(c) {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[plain_from..at])?;
            let mut escaped = String::new();
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
            writer.write_all(escaped.as_bytes())?;
            plain_from = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One of each kind, and text that is none of them.
    const UNSAFE: &str = "\u{0}\u{1b}\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200f}\u{2028}\
                          \u{2029}\u{202e}\u{2060}\u{2066}\u{feff}\u{e0041}\u{1d173}\u{fe0f}";

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(clean("plain – text, 漢字 é"), "plain – text, 漢字 é");
        assert_eq!(clean("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(clean("\u{202e}x"), "\\u{202e}x");
        assert_eq!(clean_lines("a\u{9b}\nb\n"), "a\\u{9b}\nb\n");
        assert!(clean(UNSAFE).chars().all(|c| c.is_ascii_graphic()));
        assert!(UNSAFE.chars().all(is_unsafe));
    }

    #[test]
    fn json_is_escaped_and_gives_the_same_back() {
        let value = json!({ UNSAFE: ["é漢\"\\", UNSAFE, format!("a{UNSAFE}b")], "n": 1.5 });
        let text = json_text(&value);
        assert!(!text.contains(is_unsafe), "{text}");
        assert!(
            text.contains("é漢") && text.contains("\\udb40\\udc41"),
            "{text}"
        );
        let back: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, value);
    }
}
