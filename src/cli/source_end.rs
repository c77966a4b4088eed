//! What SRC names: a server, or an RDB file.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::Named;
use crate::endpoint::ConnectOptions;

/// What records are read from.
#[derive(Debug, Clone)]
pub enum SourceEnd {
    /// A live server.
    Server(Box<ConnectOptions>),
    /// An RDB file; `-` is standard input.
    RdbFile(OsString),
}

impl SourceEnd {
    /// The database that a URL names.
    pub fn db(&self) -> Option<u32> {
        match self {
            SourceEnd::Server(options) => options.db,
            SourceEnd::RdbFile(_) => None,
        }
    }

    /// What must be said aloud of the connection.
    pub fn warnings(&self) -> Option<String> {
        match self {
            SourceEnd::Server(options) => options.warnings(),
            SourceEnd::RdbFile(_) => None,
        }
    }
}

/// A side of a comparison.
#[derive(Debug, Clone)]
pub enum SideEnd {
    /// A live server.
    Server(Box<ConnectOptions>),
    /// An archive or an RDB file, whatever its name; `-` is standard input.
    File(OsString),
}

impl SideEnd {
    /// The database that a URL names.
    pub fn db(&self) -> Option<u32> {
        match self {
            SideEnd::Server(options) => options.db,
            SideEnd::File(_) => None,
        }
    }

    /// What must be said aloud of the connection.
    pub fn warnings(&self) -> Option<String> {
        match self {
            SideEnd::Server(options) => options.warnings(),
            SideEnd::File(_) => None,
        }
    }

    /// Its name, for people; no password is in it.
    pub fn name(&self) -> String {
        match self {
            SideEnd::Server(options) => options.address.to_string(),
            SideEnd::File(name) if name == "-" => "standard input".to_owned(),
            SideEnd::File(name) => Path::new(name).display().to_string(),
        }
    }
}

/// The file that SRC names. Anything with `://` is a URL. What neither ends in `.rdb` nor exists is
/// taken for a server without its scheme, which is the likelier mistake, and refused as such.
pub(super) fn rdb_file(source: Option<&Named>) -> Option<OsString> {
    let name: &OsStr = &source?.0;
    let is_url = name
        .to_str()
        .is_some_and(|text| text.contains("://") && !text.starts_with(['.', '/']));
    let path = Path::new(name);
    let is_file = name == "-" || path.extension() == Some(OsStr::new("rdb")) || path.exists();
    (!is_url && is_file).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_looks_like_one_or_is_there() {
        let file = |text: &str| rdb_file(Some(&Named(text.into()))).is_some();
        for yes in [
            "-",
            "dump.rdb",
            "/no/such/dump.rdb",
            "/dev/null",
            "./a://b.rdb",
            "Cargo.toml",
        ] {
            assert!(file(yes), "{yes}");
        }
        for no in [
            "redis://h",
            "redis://h/x.rdb",
            "localhost:6379",
            "localhost",
            "",
        ] {
            assert!(!file(no), "{no}");
        }
        assert!(rdb_file(None).is_none());
    }
}
