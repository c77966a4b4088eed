//! Exit codes: a promise to scripts.

use crate::stop::Stop;

/// Complete, ledger reconciled.
pub const OK: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Finished, but some keys failed or were refused; they are listed.
pub const SOME_KEYS: u8 = 3;
/// Finished, but the asked consistency was not reached.
pub const CONSISTENCY: u8 = 4;
/// Differences were found.
pub const DIFFERENCES: u8 = 5;
/// The archive (or the RDB file) is damaged, truncated or of a version that cannot be read.
pub const ARCHIVE: u8 = 10;
/// Wrong key or passphrase of an encrypted archive.
pub const WRONG_KEY: u8 = 11;
/// Cannot connect or authenticate.
pub const CONNECT: u8 = 12;
/// The server refuses a command that is needed.
pub const REFUSED: u8 = 13;
/// Interrupted by a signal.
pub const INTERRUPTED: u8 = 130;

/// The user stopped the run.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Goes on unless the user wished to stop.
pub(crate) fn unless_stopped(stop: &Stop) -> Result<(), Interrupted> {
    if stop.is_set() {
        Err(Interrupted)
    } else {
        Ok(())
    }
}

/// The destination is not what was written (`--verify`).
#[derive(Debug, thiserror::Error)]
#[error(
    "the destination differs from what was written there: {} {}, or somebody else writes there too",
    crate::units::plural(*.0, "key"),
    if *.0 == 1 { "differs" } else { "differ" }
)]
pub struct Differences(pub u64);

/// The user asked for something that makes no sense; found only after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// [`Usage`] as an error of any kind.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// Whether somebody who read what is printed went away (`| head`), which is his choice.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Of several codes that apply, the one to exit with: the first of 130, 10–13, 2, 1, 5, 3, 4.
///
/// A difference that was seen comes before keys that could not be looked at: it stands whatever
/// those hold.
pub fn strongest(codes: &[u8]) -> u8 {
    const ORDER: [u8; 10] = [
        INTERRUPTED,
        ARCHIVE,
        WRONG_KEY,
        CONNECT,
        REFUSED,
        USAGE,
        FAILED,
        DIFFERENCES,
        SOME_KEYS,
        CONSISTENCY,
    ];
    ORDER
        .into_iter()
        .find(|code| codes.contains(code))
        .unwrap_or(OK)
}
