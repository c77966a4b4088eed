//! Large values: what the final round would read is guessed from them.

use crate::host::HashMap;

/// Values below this are not remembered by size.
const LARGE_BYTES: usize = 16 * 1024;

/// Bytes of names of large values that are kept in mind.
const MAX_NAME_BYTES: usize = 4 * 1024 * 1024;

/// What one costs beside its name.
const OVERHEAD_BYTES: usize = 128;

/// Their sizes, by database and name.
#[derive(Debug, Default)]
pub(super) struct LargeValues {
    rows: HashMap<u32, HashMap<Vec<u8>, usize>>,
    name_bytes: usize,
}

impl LargeValues {
    pub fn note(&mut self, db: u32, key: &[u8], bytes: usize) {
        // Noted of every value, and few are large.
        if bytes < LARGE_BYTES && self.name_bytes == 0 {
            return;
        }
        let row = self.rows.entry(db).or_default();
        if bytes < LARGE_BYTES {
            if row.remove(key).is_some() {
                self.name_bytes -= key.len() + OVERHEAD_BYTES;
            }
        } else if let Some(known) = row.get_mut(key) {
            *known = bytes;
        } else if self.name_bytes < MAX_NAME_BYTES {
            row.insert(key.to_vec(), bytes);
            self.name_bytes += key.len() + OVERHEAD_BYTES;
        }
    }

    /// How large a value is likely to be; `otherwise` is what values are on the average.
    pub fn bytes_of(&self, db: u32, key: &[u8], otherwise: usize) -> usize {
        let known = self.rows.get(&db).and_then(|row| row.get(key));
        match known {
            Some(bytes) => *bytes,
            None if self.name_bytes < MAX_NAME_BYTES => otherwise.min(LARGE_BYTES),
            None => otherwise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_large_as_it_was_last_and_others_are_no_larger_than_is_not_remembered() {
        let mut sizes = LargeValues::default();
        assert_eq!(sizes.bytes_of(0, b"a", 100), 100);
        assert_eq!(sizes.bytes_of(0, b"a", usize::MAX), LARGE_BYTES);
        sizes.note(0, b"a", 1 << 20);
        sizes.note(0, b"a", 1 << 21);
        assert_eq!(sizes.bytes_of(0, b"a", 100), 1 << 21);
        assert_eq!(sizes.bytes_of(1, b"a", 100), 100);
        sizes.note(0, b"a", 10);
        assert_eq!((sizes.bytes_of(0, b"a", 100), sizes.name_bytes), (100, 0));
        sizes.note(0, &vec![b'x'; MAX_NAME_BYTES], 1 << 20);
        sizes.note(0, b"b", 1 << 20);
        assert_eq!(sizes.bytes_of(0, b"b", 1 << 30), 1 << 30, "it may be any");
    }
}
