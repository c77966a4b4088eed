//! Opening a side of a comparison: an archive or an RDB file, told apart by how they begin, or a
//! live server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::Header;

use super::file::{self, OpenedFile, open_file};
use super::{ReadHow, Wishes};
use crate::encryption::Keys;
use crate::observer::Observer;
use crate::place::{Endpoint, Input, Kept, Location};
use crate::policy::{Consistency, ReadFunctions};
use crate::rdb::Form;
use crate::select::Selection;
use crate::size;
use crate::source::Source;
use crate::source::archive::ArchiveSource;
use crate::stop::Stop;

/// A side, and what is known of it.
pub struct OpenedSide {
    /// Where its records come from.
    pub source: Box<dyn Source>,
    /// Its clock, or the moment that a file speaks of; Unix ms.
    pub time_ms: u64,
    /// What it is, in words.
    pub what: &'static str,
    /// Databases that are wanted and cannot be read.
    pub not_had: Vec<u32>,
    /// What an archive says of itself.
    pub header: Option<Box<Header>>,
}

/// What is wanted of a side.
pub struct Wanted<'a> {
    /// Which keys.
    pub selection: Selection,
    /// The database that the other side's URL limits this side to.
    pub other_urls_db: Option<u32>,
    /// Whether function libraries are read.
    pub functions: bool,
    /// What opens an encrypted archive.
    pub keys: &'a Keys,
    /// Values of more bytes are left out and named.
    pub max_value_bytes: u64,
    /// Whether a replica that is not in step with its primary will do.
    pub allow_stale: bool,
    /// A file that was opened before, to be read in place of the one of that name.
    pub kept: Option<&'a Kept<'a>>,
}

/// Opens a side.
///
/// # Errors
/// What is wrong at the beginning of a file, also a wrong key; those of connecting and of asking a server.
pub fn open_side(
    end: &Endpoint,
    wanted: Wanted<'_>,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<OpenedSide> {
    match end {
        Endpoint::Stored(location) => open_stored(location, wanted, observer, stop),
        Endpoint::Server(_) => {
            let wishes = Wishes {
                read: ReadHow {
                    allow_stale: wanted.allow_stale,
                    ..ReadHow::default()
                },
                selection: wanted.selection,
                other_urls_db: wanted.other_urls_db,
                functions: wish(wanted.functions),
                verbatim: false,
                consistency: Consistency::Scan,
                max_value_bytes: wanted.max_value_bytes,
                takes_back: false,
                stop,
            };
            let opened = super::open(end, None, wishes, observer)?;
            Ok(OpenedSide {
                source: opened.source,
                time_ms: opened.time_ms,
                what: "server",
                not_had: opened.not_had,
                header: None,
            })
        }
    }
}

fn wish(functions: bool) -> ReadFunctions {
    match functions {
        true => ReadFunctions::Compared,
        false => ReadFunctions::No,
    }
}

fn open_stored(
    location: &Location,
    wanted: Wanted<'_>,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<OpenedSide> {
    let input = match wanted.kept {
        Some(kept) => kept.reader()?,
        None => Input::open_at(location, wanted.keys, stop)?,
    };
    let name = input.name().to_owned();
    let of_snapshot = file::Wanted {
        selection: wanted.selection.clone(),
        functions: wish(wanted.functions),
        form: Form::Compact,
        max_value_bytes: wanted.max_value_bytes,
    };
    let input = match open_file(input, of_snapshot, observer)? {
        OpenedFile::Archive(input) => input,
        OpenedFile::Snapshot(snapshot) => {
            return Ok(OpenedSide {
                time_ms: snapshot.taken_ms,
                source: snapshot.source,
                what: snapshot.what,
                not_had: Vec::new(),
                header: None,
            });
        }
    };
    let len = input.len_bytes();
    let source = ArchiveSource::open(
        input,
        size::limits(wanted.max_value_bytes),
        wanted.selection,
        wanted.functions,
        len,
        Arc::clone(observer),
    )
    .context(name)?
    .compared();
    Ok(OpenedSide {
        time_ms: source.header().source_time_ms,
        header: Some(Box::new(source.header().clone())),
        source: Box::new(source),
        what: "archive",
        not_had: Vec::new(),
    })
}
