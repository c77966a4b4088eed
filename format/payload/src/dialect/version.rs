//! Versions of servers.

use std::fmt;

/// A server's version, for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch.
    pub patch: u16,
}

impl Version {
    /// From its parts.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads `7.0.15`; missing or odd parts count as 0.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        let mut next = || parts.next().unwrap_or(0);
        Self {
            major: next(),
            minor: next(),
            patch: next(),
        }
    }

    /// `8.6.0`: all three parts, as servers say them.
    pub fn full(self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.patch)
    }

    /// Without the patch.
    pub(crate) const fn minor_only(self) -> Self {
        Self::new(self.major, self.minor, 0)
    }
}

/// `8.6`, or `8.6.2` where the patch is not 0.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            0 => Ok(()),
            patch => write!(f, ".{patch}"),
        }
    }
}
