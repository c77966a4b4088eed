//! Opening a file (or standard input) by its content. The only place that tells kinds of input
//! apart; what the name is does not matter.
//!
//! To add a kind: its source in `src/source`, and here a variant of `Content`, how it begins
//! ([`Content::of`]), and an arm of [`open_file`] that makes a [`Snapshot`] of it. The verbs that take
//! an RDB file then take it too.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::header::{Mode, Node, SourceFacts};
use redis_migrate_format::version::MAGIC;
use redis_migrate_format::{Error, LookAlike};

use crate::host::unix_ms;
use crate::observer::Observer;
use crate::place::Input;
use crate::policy::ReadFunctions;
use crate::rdb::{Form, Taken, begins_like_rdb};
use crate::select::Selection;
use crate::source::Source;
use crate::source::rdb::{LEFT_OUT_BY_CONVERT, RdbSource, RdbSourceOptions};

/// What is wanted of a snapshot.
pub struct Wanted {
    /// Which keys.
    pub selection: Selection,
    /// Whether function libraries.
    pub functions: ReadFunctions,
    /// In which form values are given.
    pub form: Form,
    /// Values of more bytes are left out and named.
    pub max_value_bytes: u64,
}

/// A file whose content is known.
pub enum OpenedFile {
    /// An archive, at its start. Each verb reads it in its own way, some of them twice.
    Archive(Input),
    /// What a server wrote of its keys.
    Snapshot(Snapshot),
}

/// What a server wrote of its keys, ready to be read, and what the file says of itself.
pub struct Snapshot {
    /// Gives each key once.
    pub source: Box<dyn Source>,
    /// What kind of file it is, in words.
    pub what: &'static str,
    /// The server, as an archive's header tells it.
    pub facts: SourceFacts,
    /// What the file is called where it does not name its server's version.
    pub format: String,
    /// When it was taken, and whether it is whole.
    pub taken: Taken,
    /// The moment it is of; Unix ms.
    pub taken_ms: u64,
    /// Memory that the dataset took at its server.
    pub used_memory: Option<u64>,
    /// What it lacks from the beginning, in a line.
    pub left_out: Option<String>,
}

impl Snapshot {
    /// The server's version; empty where the file does not tell.
    pub fn server_version(&self) -> &str {
        self.facts.nodes.first().map_or("", |node| &node.version)
    }

    /// Its version of RDB data.
    pub fn rdb_version(&self) -> u16 {
        self.facts.nodes.first().map_or(0, |node| node.rdb_version)
    }
}

/// What begins like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// An archive.
    Archive,
    /// RDB data, as they are or compressed as a whole.
    Rdb,
    /// Nothing that is known.
    Other(LookAlike),
}

impl Content {
    /// What bytes that begin like this are; as many as [`Input::head`] gives.
    fn of(head: &[u8]) -> Self {
        if head.starts_with(&MAGIC) {
            Self::Archive
        } else if begins_like_rdb(head) {
            Self::Rdb
        } else {
            Self::Other(LookAlike::of(head))
        }
    }
}

/// Opens an input by its first bytes. Nothing was read of it before.
///
/// # Errors
/// [`Error::NotAnArchive`] for a content that is not known; [`RdbError`](crate::rdb::RdbError), with
/// the name of the input; the input's.
pub fn open_file(mut input: Input, wanted: Wanted, observer: &Arc<Observer>) -> Result<OpenedFile> {
    match Content::of(input.head()?) {
        Content::Archive => Ok(OpenedFile::Archive(input)),
        Content::Rdb => rdb(input, wanted, observer).map(OpenedFile::Snapshot),
        Content::Other(look) => {
            let name = input.name();
            Err(anyhow::Error::new(Error::NotAnArchive(look))
                .context(format!("{name} is neither an archive nor an RDB file")))
        }
    }
}

/// RDB data, with nothing behind them.
fn rdb(input: Input, wanted: Wanted, observer: &Arc<Observer>) -> Result<Snapshot> {
    let name = input.name().to_owned();
    let options = RdbSourceOptions {
        selection: wanted.selection,
        functions: wanted.functions,
        form: wanted.form,
        alone: true,
        // Old files do not say when they were made; the file system may.
        otherwise_ms: input.modified_ms().unwrap_or_else(unix_ms),
        max_value_bytes: wanted.max_value_bytes,
        path: input.file().map(Path::to_owned),
    };
    let source = RdbSource::open(input, options, Arc::clone(observer)).context(name)?;
    let facts = source.facts();
    Ok(Snapshot {
        what: "RDB file",
        facts: SourceFacts {
            family: facts.family,
            mode: Mode::RdbFile,
            nodes: vec![Node {
                version: facts.server_version.clone(),
                run_id: String::new(),
                rdb_version: facts.magic.version,
            }],
            label: None,
        },
        format: format!("a file of {}", facts.magic),
        taken: source.taken(),
        taken_ms: source.taken_ms(),
        used_memory: facts.used_memory,
        left_out: (facts.is_not_whole).then(|| LEFT_OUT_BY_CONVERT.to_owned()),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        for (bytes, content) in [
            (&b"\x89RMZ\r\n\x1a\n and more"[..], Content::Archive),
            (b"REDIS0011 and so on and on", Content::Rdb),
            (b"VALKEY080", Content::Rdb),
            (b"VCS\x01", Content::Rdb),
            (b"", Content::Other(LookAlike::Empty)),
            (b"{\"key\":1}", Content::Other(LookAlike::Json)),
            (b"\x1f\x8b\x08", Content::Other(LookAlike::Gzip)),
        ] {
            assert_eq!(Content::of(bytes), content);
        }
    }
}
