//! DUMP payloads: an encoder of the plain forms, and a decoder of those that a destination meets.

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The nine characters of a module's type.
pub(super) fn module_type_name(id: u64) -> String {
    let character = |at: u64| CHARACTERS[(id >> (10 + 6 * (8 - at)) & 63) as usize] as char;
    (0..9).map(character).collect()
}
