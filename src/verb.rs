//! Which verb it is.

use clap::ValueEnum;

/// A verb. What it takes is in `cli`, what it does in `commands`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Server or RDB file to archive.
    Export,
    /// Archive to server.
    Import,
    /// Server or RDB file to server.
    Copy,
    /// Archive or RDB file to another file.
    Convert,
    /// Archive to nothing.
    Verify,
    /// Two sides, compared.
    Diff,
    /// Keys of an archive.
    List,
    /// What an archive says of itself.
    Inspect,
    /// Archive to a page.
    Report,
    /// One value of an archive.
    Extract,
    /// Damaged archive to archive.
    Salvage,
    /// What a server is and allows.
    Doctor,
    /// What a shell needs.
    Completions,
    /// Manual pages.
    ManPages,
}

impl Verb {
    /// The verb of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it writes data to standard output unless it is told a file.
    pub fn writes_data(self) -> bool {
        matches!(
            self,
            Self::Export | Self::Convert | Self::Report | Self::Extract | Self::Salvage
        )
    }
}
