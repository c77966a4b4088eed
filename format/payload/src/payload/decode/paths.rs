//! Type 23 of Valkey: fields under paths (read in rdb.h of 9.2, tried on no server).
//!
//! ```text
//! length paths, each: string path, length fields ≥ 1, each: string name, string value
//! ```

use super::text::text;
use super::unique::Unique;
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::object::{Bytes, Path};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::length;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRow<'a> {
    /// A path; its fields follow.
    Path(Bytes<'a>),
    /// A field of the last path: name and value.
    Field(Bytes<'a>, Bytes<'a>),
}

/// Paths and their fields, one after the other. Whether one comes twice is left to the check.
#[derive(Debug, Clone)]
pub struct Paths<'a> {
    source: Slice<'a>,
    paths: u64,
    /// Of the path at hand.
    fields: u64,
    over: bool,
}

impl<'a> Paths<'a> {
    pub(super) fn new(mut source: Slice<'a>) -> Result<Self, PayloadError> {
        Ok(Self {
            paths: length(&mut source)?,
            source,
            fields: 0,
            over: false,
        })
    }

    fn row(&mut self) -> Result<Option<PathRow<'a>>, PayloadError> {
        let source = &mut self.source;
        if self.fields > 0 {
            self.fields -= 1;
            return Ok(Some(PathRow::Field(text(source)?, text(source)?)));
        }
        if self.paths == 0 {
            source.end()?;
            return Ok(None);
        }
        self.paths -= 1;
        let path = text(source)?;
        let at = source.position();
        self.fields = length(source)?;
        if self.fields == 0 {
            return Err(PayloadError::new(at, ErrorKind::Empty("path")));
        }
        Ok(Some(PathRow::Path(path)))
    }

    /// All of it, nothing twice.
    pub(super) fn decoded(self) -> Result<Vec<Path<'a>>, PayloadError> {
        self.clone().checked()?;
        let mut paths: Vec<Path<'a>> = Vec::new();
        for row in self {
            match (row?, paths.last_mut()) {
                (PathRow::Field(name, value), Some(last)) => last.fields.push((name, value)),
                (PathRow::Field(..), None) => {}
                (PathRow::Path(path), _) => paths.push(Path {
                    path,
                    fields: Vec::new(),
                }),
            }
        }
        Ok(paths)
    }

    /// How many fields there are in all, nothing twice.
    pub(super) fn checked(self) -> Result<u64, PayloadError> {
        let (mut unique, mut fields) = (Unique::new(), 0);
        let mut names = Names::of(self.clone());
        while let Some((name, is_field)) = names.next_name()? {
            unique.see(&name);
            fields += u64::from(is_field);
        }
        let mut again = Names::of(self);
        let again = std::iter::from_fn(move || Some(again.next_name().ok()??.0));
        match unique.all_differ(|| again) {
            true => Ok(fields),
            false => Err(PayloadError::new(
                1,
                ErrorKind::Duplicate("path or field of a path"),
            )),
        }
    }
}

impl<'a> Iterator for Paths<'a> {
    type Item = Result<PathRow<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.row();
        self.over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// What must not come twice: each path, and each field together with its path.
struct Names<'a> {
    rows: Paths<'a>,
    path: Bytes<'a>,
}

impl<'a> Names<'a> {
    fn of(rows: Paths<'a>) -> Self {
        Self {
            rows,
            path: Bytes::default(),
        }
    }

    /// A name that is not that of anything else, and whether it is a field's.
    fn next_name(&mut self) -> Result<Option<(Vec<u8>, bool)>, PayloadError> {
        let Some(row) = self.rows.next() else {
            return Ok(None);
        };
        Ok(Some(match row? {
            PathRow::Path(path) => {
                let name = [b"p", &*path].concat();
                self.path = path;
                (name, false)
            }
            PathRow::Field(name, _) => {
                let len = (self.path.len() as u64).to_le_bytes();
                ([b"f", &len[..], &self.path, &name].concat(), true)
            }
        }))
    }
}
