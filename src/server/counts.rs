//! How often each command was called, as INFO commandstats tells: for what nobody is told of.
//!
//! SWAPDB changes every key of two databases and names none. Its count tells of it, as long as
//! nobody sets the counts back (CONFIG RESETSTAT): then some of them are lower than they were.

use std::collections::BTreeMap;

use super::facts::info;
use super::{Conn, ServerError};

/// From 7.0 on the reset itself is counted, right after it has set everything to 0.
const RESET: &str = "config|resetstat";

/// Calls by command, names in lower case. Subcommands are named as `config|get`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandCounts(BTreeMap<String, u64>);

/// What two looks at the counts, one after the other, tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Quiet,
    /// SWAPDB was called.
    Swapped,
    /// Counts were set back: whatever was called before cannot be told.
    Reset,
}

impl Since {
    /// Why only a new scan can help, if that is so.
    pub fn means_rescan(self) -> Option<&'static str> {
        match self {
            Self::Quiet => None,
            Self::Swapped => Some("databases were swapped"),
            Self::Reset => Some(
                "the statistics of the source were reset (CONFIG RESETSTAT), and with them the \
                 count of databases that were swapped",
            ),
        }
    }
}

impl CommandCounts {
    /// Asks the server; `None` where it does not say.
    ///
    /// # Errors
    /// The connection.
    pub fn ask(conn: &mut Conn) -> Result<Option<Self>, ServerError> {
        let text = info(conn, Some("commandstats"))?;
        // Some services leave sections out.
        Ok(text.and_then(|text| Self::parse(&text)))
    }

    /// Reads the section; `None` where there is no count at all.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let digits = rest.split(',').next()?.trim();
            Some((name.to_lowercase(), digits.parse().ok()?))
        };
        let counts: BTreeMap<String, u64> = text.lines().filter_map(line).collect();
        (!counts.is_empty()).then_some(Self(counts))
    }

    fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How often SWAPDB was called, and the counts were set back.
    pub fn swaps(&self) -> [u64; 2] {
        [self.of("swapdb"), self.of(RESET)]
    }

    /// What happened between `before` and this.
    ///
    /// After a reset every count starts from nothing. Each of them is compared, those of our own
    /// commands too: HELLO and CLIENT TRACKING, which we do not send again.
    pub fn since(&self, before: &Self) -> Since {
        let fell = before.0.iter().any(|(name, count)| self.of(name) < *count);
        if fell || self.of(RESET) != before.of(RESET) {
            Since::Reset
        } else if self.of("swapdb") != before.of("swapdb") {
            Since::Swapped
        } else {
            Since::Quiet
        }
    }

    /// Commands that were called since `before`.
    pub fn called_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let called = |(name, count): &(&String, &u64)| **count != before.of(name);
        self.0.iter().filter(called).map(|(name, _)| name.as_str())
    }

    /// How often whole databases were emptied or swapped since `before`; `None` where counts were set
    /// back.
    pub fn upheavals_since(&self, before: &Self) -> Option<u64> {
        const NAMES: [&str; 3] = ["flushall", "flushdb", "swapdb"];
        let count = |counts: &Self| NAMES.iter().map(|name| counts.of(name)).sum::<u64>();
        match self.since(before) {
            Since::Reset => None,
            Since::Quiet | Since::Swapped => Some(count(self).saturating_sub(count(before))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, u64)]) -> CommandCounts {
        let line = |(name, count): &(&str, u64)| {
            format!("cmdstat_{name}:calls={count},usec=9,usec_per_call=1.00,rejected_calls=0\r\n")
        };
        let text: String = rows.iter().map(line).collect();
        CommandCounts::parse(&format!("# Commandstats\r\n{text}")).expect("counts")
    }

    #[test]
    fn a_reset_does_not_hide_a_swap() {
        let before = counts(&[("swapdb", 1), ("hello", 1), ("get", 7)]);
        let quiet = counts(&[("swapdb", 1), ("hello", 1), ("get", 900), ("set", 1)]);
        assert_eq!(quiet.since(&before), Since::Quiet);
        let swapped = counts(&[("swapdb", 2), ("hello", 1), ("get", 7)]);
        assert_eq!(swapped.since(&before), Since::Swapped);
        // Reset, swapped once, and others were busy: only HELLO tells.
        let hidden = counts(&[("swapdb", 1), ("get", 8), ("config", 1)]);
        assert_eq!(hidden.since(&before), Since::Reset);
        // And here only the reset itself.
        let hidden = counts(&[
            ("swapdb", 1),
            ("hello", 1),
            ("get", 8),
            ("config|resetstat", 1),
        ]);
        assert_eq!(hidden.since(&before), Since::Reset);
        assert_eq!(CommandCounts::parse("# Commandstats\r\n"), None);
    }

    #[test]
    fn emptied_and_swapped_databases_are_counted() {
        let before = counts(&[("flushdb", 2), ("hello", 1)]);
        let after = counts(&[("flushdb", 3), ("flushall", 1), ("swapdb", 1), ("hello", 4)]);
        assert_eq!(after.upheavals_since(&before), Some(3));
        assert_eq!(before.upheavals_since(&before), Some(0));
        assert_eq!(before.upheavals_since(&after), None);
    }
}
