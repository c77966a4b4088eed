//! Keys that are told of in one line when the run ends.

use crate::record::show_key;
use crate::units::{count_text, plural};

/// So many are named.
const SHOWN: usize = 8;

/// Keys that are told of in one line when the run ends.
#[derive(Debug, Default)]
pub(super) struct Listed {
    count: u64,
    shown: Vec<String>,
    /// Why, of the first.
    why: String,
}

impl Listed {
    /// One more, and why it is told of.
    pub fn add(&mut self, db: u32, key: &[u8], why: &str) {
        if self.count == 0 {
            why.clone_into(&mut self.why);
        }
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(format!("{} (db {db})", show_key(key)));
        }
    }

    fn names(&self) -> String {
        let shown = self.shown.join(", ");
        match self.count - self.shown.len() as u64 {
            0 => shown,
            more => format!("{shown} and {} more", count_text(more)),
        }
    }

    /// The line, where these are temporary keys that may be left.
    pub fn told_as_left(&self) -> Option<String> {
        (self.count > 0).then(|| {
            format!(
                "{} may be left at the destination, which did not remove them ({}): {}; delete \
                 them when no run is under way (`doctor` lists them)",
                plural(self.count, "temporary key"),
                self.why,
                self.names(),
            )
        })
    }

    /// The line, where these are keys that stand without their expiry.
    pub fn told_as_lasting(&self) -> Option<String> {
        (self.count > 0).then(|| {
            format!(
                "written without the expiry that they should have ({}): {}, {}; set it at the \
                 destination, or delete them there and run the same command again with the right \
                 to PEXPIREAT",
                self.why,
                plural(self.count, "key"),
                self.names(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_left_are_counted_and_the_first_are_named() {
        let mut left = Listed::default();
        assert_eq!(left.told_as_left(), None);
        assert_eq!(left.told_as_lasting(), None);
        left.add(3, b"tmp:\n", "BUSY a script runs");
        let one = left.told_as_left().unwrap();
        assert!(one.starts_with("1 temporary key may be left"), "{one}");
        assert!(
            one.contains("(BUSY a script runs): \"tmp:\\n\" (db 3); "),
            "{one}"
        );
        for n in 0..SHOWN {
            left.add(0, format!("tmp:{n}").as_bytes(), "READONLY");
        }
        let all = left.told_as_left().unwrap();
        assert!(all.starts_with("9 temporary keys may be left"), "{all}");
        assert!(all.contains("\"tmp:6\" (db 0) and 1 more; "), "{all}");
        assert!(!all.contains("READONLY"), "{all}");
    }
}
