//! What the user named: a server, or a place where bytes are kept.
//!
//! A word of the command line is parsed once, into a [`Place`]. That never fails and opens nothing:
//! whether a URL makes sense is found out when the server's flags and environment are put together
//! with it, which makes an [`Endpoint`].
//!
//! Bytes are kept in a [`store::Store`]. What a verb reads of them is an [`Input`], what it
//! writes an [`Output`].
//!
//! To add a kind of place where bytes are kept (object storage): a file with its store, and in this
//! file a variant of [`Location`], its scheme in [`Place::of`], and an arm in each method of `Location`
//! that the compiler asks for. Who reads, writes and keeps files apart asks [`Location::store`].

mod apart;
pub mod decorate;
mod file;
mod input;
pub mod memory;
mod output;
mod standard;
pub mod store;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

pub use self::apart::{Holds, Reading, Writing, keep_apart, overwritten};
pub use self::file::{directory_of, place_of};
pub use self::input::{Input, Kept, SharedBytes};
pub use self::output::Output;
use self::standard::StandardStreams;
pub use self::standard::refuse_closed_stdout;
use self::store::{Access, Opened, Store, Target, files, in_place};
use crate::endpoint::ConnectOptions;
use crate::exit::Usage;
use crate::stop::Stop;

/// What a word of the command line names.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A server, a cluster or sentinels, by URL. It may hold a password.
    Server(OsString),
    /// Bytes.
    Stored(Location),
}

/// Where bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, or whatever else the file system has under that name.
    File(PathBuf),
    /// Standard input or output.
    Stream,
}

impl Place {
    /// Anything with `://` in it is a URL and never a file; `./a://b` names a file that is really
    /// called that. `-` is a standard stream.
    pub fn of(word: &OsStr) -> Self {
        let bytes = word.as_bytes();
        let is_url = bytes.windows(3).any(|part| part == b"://") && !bytes.starts_with(b"/");
        if is_url && !bytes.starts_with(b".") {
            Self::Server(word.to_owned())
        } else {
            Self::Stored(Location::of(word))
        }
    }

    /// Whether it is a URL.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The word that was written.
    pub fn word(&self) -> &OsStr {
        match self {
            Self::Server(url) => url,
            Self::Stored(location) => location.word(),
        }
    }

    /// Where bytes are kept, for an argument that can be nothing else.
    ///
    /// # Errors
    /// [`Usage`] for a URL.
    pub fn stored(&self) -> Result<&Location, Usage> {
        match self {
            Self::Stored(location) => Ok(location),
            Self::Server(url) => {
                let url = url.to_string_lossy();
                let scheme = url.split("://").next().unwrap_or_default();
                Err(Usage(format!(
                    "a file is expected here, and {scheme}:// is not a file; write ./ in front of \
                     a file that is really called that"
                )))
            }
        }
    }
}

impl From<OsString> for Place {
    fn from(word: OsString) -> Self {
        Self::of(&word)
    }
}

/// A URL may hold a password, and so may a word that was meant as one.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Location {
    /// `-` is a standard stream, anything else a file.
    pub fn of(word: &OsStr) -> Self {
        match word == "-" {
            true => Self::Stream,
            false => Self::File(word.into()),
        }
    }

    /// The word that was written.
    pub fn word(&self) -> &OsStr {
        match self {
            Self::File(name) => name.as_os_str(),
            Self::Stream => OsStr::new("-"),
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(name) => Some(name),
            Self::Stream => None,
        }
    }

    /// Whether it is a standard stream, which can be read only once.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream)
    }

    /// Its name as the input of a run, for people.
    pub fn input_name(&self) -> String {
        match self.is_stream() {
            true => "standard input".to_owned(),
            false => self.word().display().to_string(),
        }
    }

    /// Its name as the output of a run, for people.
    pub fn output_name(&self) -> String {
        match self.is_stream() {
            true => "standard output".to_owned(),
            false => self.word().display().to_string(),
        }
    }

    /// Where its bytes are, or what this thread uses in place of every store. The word is the name
    /// there.
    fn store(&self) -> Arc<dyn Store> {
        if let Some(store) = in_place() {
            return store;
        }
        match self {
            Self::File(_) => files(),
            Self::Stream => Arc::new(StandardStreams),
        }
    }

    fn open(&self, stop: &Stop) -> Result<Opened> {
        self.store().open(self.word().as_ref(), stop)
    }

    fn target(&self, access: Access) -> Option<Target> {
        self.store().target(self.word().as_ref(), access)
    }
}

/// What a verb reads from, once it is known how to reach it.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A live server.
    Server(Box<ConnectOptions>),
    /// An archive or an RDB file, whatever its name.
    Stored(Location),
}

impl Endpoint {
    /// The database that a URL names.
    pub fn db(&self) -> Option<u32> {
        self.server()?.db
    }

    /// How to reach it, where it is a server.
    pub fn server(&self) -> Option<&ConnectOptions> {
        match self {
            Self::Server(options) => Some(options),
            Self::Stored(_) => None,
        }
    }

    /// Whether it is a live server.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Whether it can be read only once.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stored(location) if location.is_stream())
    }

    /// What must be said aloud of the connection.
    pub fn warnings(&self) -> Option<String> {
        self.server()?.warnings()
    }

    /// Its name, for people; no password is in it.
    pub fn name(&self) -> String {
        match self {
            Self::Server(options) => options.address.to_string(),
            Self::Stored(location) => location.input_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_url_a_stream_or_a_file() {
        let of = |word: &str| Place::of(OsStr::new(word));
        for url in [
            "redis://h",
            "redis://h/x.rdb",
            "s3://b/k",
            "redis-sentinel://a,b/m",
        ] {
            assert_eq!(of(url), Place::Server(url.into()), "{url}");
            let error = of(url).stored().expect_err(url).to_string();
            assert!(error.contains("is not a file"), "{error}");
        }
        for file in ["dump.rdb", "./a://b", "/a://b", "localhost:6379", "", "--"] {
            let location = Location::File(file.into());
            assert_eq!(of(file).stored().expect(file), &location);
            assert_eq!(of(file).word(), file);
        }
        assert_eq!(of("-"), Place::Stored(Location::Stream));
        assert_eq!(of("-").word(), "-");
        let bytes = OsStr::from_bytes(b"\xff.rmz");
        assert_eq!(Place::of(bytes).word(), bytes);
    }

    #[test]
    fn no_form_of_text_shows_what_may_be_a_password() {
        for word in ["redis://u:hunter2@h", "u:hunter2@h"] {
            let place = Place::of(OsStr::new(word));
            assert_eq!(format!("{place:?}"), "***");
        }
        let error = Place::of(OsStr::new("redis://u:hunter2@h"))
            .stored()
            .map(drop);
        assert!(!error.expect_err("a URL").to_string().contains("hunter2"));
    }
}
