//! What a run does where it has a choice. The command line and the sinks share these words.

/// The word of the command line for a choice.
pub fn word(choice: &impl clap::ValueEnum) -> String {
    let word = choice.to_possible_value();
    word.map_or_else(String::new, |word| word.get_name().to_owned())
}

/// What becomes of a key that stood at the destination before this run first wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnConflict {
    /// It is reported and left alone; the others go on, and the run exits with 3.
    #[default]
    Fail,
    /// It is left alone.
    Skip,
    /// It is overwritten.
    Replace,
}

/// What becomes of function libraries at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FunctionPolicy {
    /// They are left out.
    Skip,
    /// They are added; a library of the same name follows --on-conflict.
    #[default]
    Append,
    /// They replace libraries of the same name.
    Replace,
}

/// What becomes of the expiry at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TtlPolicy {
    /// Keys expire at the moment they had at the source.
    #[default]
    Keep,
    /// Keys never expire.
    Drop,
    /// The life that remained when the key was read counts from now.
    Rebase,
}

/// Whether function libraries are read from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFunctions {
    /// Where the server has them and gives them.
    #[default]
    IfPossible,
    /// The same, for a comparison: what a server refuses counts as not read.
    Compared,
    /// Or the run fails.
    Required,
    /// No.
    No,
}

/// How a live server is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Via {
    /// Key by key (SCAN, DUMP); every server allows it.
    #[default]
    Scan,
    /// As a replica does (PSYNC): a snapshot of one moment. Managed services refuse it.
    Replica,
}

/// Which nodes of a cluster are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ReadFrom {
    /// The primaries.
    #[default]
    Primary,
    /// A replica of each, where one is in step: it may be a little behind.
    Replica,
}

/// A loss that the user may allow by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Loss {
    /// Hash fields keep their values and lose their expiry, where the destination has none
    /// (before Redis 7.4 and Valkey 9.0).
    HashFieldTtl,
    /// Function libraries are left out, where the destination has none (before 7.0).
    Functions,
    /// Key metadata of modules (Redis 8.6) are left out, where the destination does not take them,
    /// also those of classes that must not be ignored.
    KeyMeta,
}

/// Which losses are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllowLoss {
    /// See [`Loss::HashFieldTtl`].
    pub hash_field_ttl: bool,
    /// See [`Loss::Functions`].
    pub functions: bool,
    /// See [`Loss::KeyMeta`].
    pub key_meta: bool,
}

impl FromIterator<Loss> for AllowLoss {
    fn from_iter<I: IntoIterator<Item = Loss>>(losses: I) -> Self {
        let mut allowed = Self::default();
        for loss in losses {
            match loss {
                Loss::HashFieldTtl => allowed.hash_field_ttl = true,
                Loss::Functions => allowed.functions = true,
                Loss::KeyMeta => allowed.key_meta = true,
            }
        }
        allowed
    }
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Method {
    /// By RESTORE; by native commands what is too large for it, or where RESTORE is refused.
    #[default]
    Auto,
    /// By RESTORE only; what is too large for it is refused.
    Restore,
    /// By native commands only.
    Commands,
}

/// How exact an export of a live server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Consistency {
    /// As `converge` where the server allows it, else as `scan`; never pauses writes.
    #[default]
    Auto,
    /// A plain scan: keys are read one after the other.
    Scan,
    /// What changes is read again, until everything is exact as of one instant.
    Converge,
    /// As `converge`, with writes paused for the last round.
    Pause,
}
