//! Function libraries: one FUNCTION DUMP holds them all, but they are restored one by one, so that
//! one that is there already does not cost the others.

use anyhow::Result;

use super::ServerSink;
use crate::observer::{FailureKind, KeyFailure};
use crate::payload::{self, Slice, walk};
use crate::policy::{FunctionPolicy, OnConflict};
use crate::rdb::library_name;
use crate::record::Family;

/// Opcode of a library in a FUNCTION DUMP (rdb.h, RDB_OPCODE_FUNCTION2).
const FUNCTION2: u8 = 0xF5;

/// The RDB version that functions came up with (Redis 7.0).
const FIRST_VERSION: u16 = 10;

/// One library of a FUNCTION DUMP.
struct Library {
    name: String,
    code: Vec<u8>,
    /// A FUNCTION DUMP of just this library, without its footer.
    body: Vec<u8>,
    /// RDB version of the footer it came with.
    version: u16,
}

impl ServerSink {
    /// Restores the libraries of one FUNCTION DUMP. Nothing may be in flight.
    pub(super) fn take_functions(&mut self, dump: &[u8]) -> Result<()> {
        let libraries = match split_libraries(dump) {
            Ok(libraries) => libraries,
            Err(reason) => {
                self.report.functions.taken += 1;
                return self.refuse_library("all", FailureKind::Refused, reason, None);
            }
        };
        for library in libraries {
            self.report.functions.taken += 1;
            self.take_library(&library)?;
        }
        Ok(())
    }

    fn take_library(&mut self, library: &Library) -> Result<()> {
        if self.options.functions == FunctionPolicy::Skip {
            self.report.functions.skipped += 1;
            return Ok(());
        }
        let replace = self.options.functions == FunctionPolicy::Replace
            || self.options.on_conflict == OnConflict::Replace;
        if self.options.dry_run {
            return self.preview_library(library, replace);
        }
        // Read completely above, so that it may be signed for another version.
        let versions = &self.learn_target(b"")?.accepts().versions;
        let version = versions
            .nearest(library.version, FIRST_VERSION)
            .unwrap_or(library.version);
        let mut command = redis::cmd("FUNCTION");
        command
            .arg("RESTORE")
            .arg(payload::sign(&library.body, version))
            .arg(if replace { "REPLACE" } else { "APPEND" });
        let Err(text) = self.conn.try_query(&command)? else {
            self.report.functions.restored += 1;
            return match &mut self.accepted {
                Some(accepted) => accepted.library(&library.name, &library.code),
                None => Ok(()),
            };
        };
        if text.contains("already exists") {
            return self.standing_library(library, text);
        }
        let hint = if text.starts_with("ERR unknown command") {
            if self.options.allow_loss.functions {
                self.report.functions.skipped += 1;
                self.report.changes.functions_lost += 1;
                return Ok(());
            }
            Some(format!(
                "{} has no functions; --allow-loss functions leaves them out",
                self.facts.title()
            ))
        } else if text.contains("version or checksum") {
            Some("the destination must be of the same version as the source or newer".to_owned())
        } else {
            None
        };
        self.refuse_library(&library.name, FailureKind::Refused, text, hint)
    }

    /// A library, or a function of it, is there already.
    fn standing_library(&mut self, library: &Library, text: String) -> Result<()> {
        if self.options.on_conflict == OnConflict::Skip
            || self.standing_code(&library.name)?.as_ref() == Some(&library.code)
        {
            self.report.functions.skipped += 1;
            return Ok(());
        }
        let hint = Some(
            "--functions replace overwrites it, --functions skip leaves them all out".to_owned(),
        );
        self.refuse_library(&library.name, FailureKind::Conflict, text, hint)
    }

    fn preview_library(&mut self, library: &Library, replace: bool) -> Result<()> {
        match self.standing_code(&library.name)? {
            Some(_) if replace => self.report.functions.restored += 1,
            Some(code) if self.options.on_conflict == OnConflict::Skip || code == library.code => {
                self.report.functions.skipped += 1;
            }
            Some(_) => {
                return self.refuse_library(
                    &library.name,
                    FailureKind::Conflict,
                    "the library stands at the destination already".to_owned(),
                    None,
                );
            }
            None => self.report.functions.restored += 1,
        }
        Ok(())
    }

    /// The code of the destination's library of that name.
    fn standing_code(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut command = redis::cmd("FUNCTION");
        command
            .arg("LIST")
            .arg("LIBRARYNAME")
            .arg(name)
            .arg("WITHCODE");
        let Ok(value) = self.conn.try_query(&command)? else {
            return Ok(None);
        };
        let rows: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::from_redis_value(value).unwrap_or_default();
        Ok(rows
            .into_iter()
            .find_map(|mut row| match row.remove("library_code") {
                Some(redis::Value::BulkString(code)) => Some(code),
                _ => None,
            }))
    }

    fn refuse_library(
        &mut self,
        name: &str,
        kind: FailureKind,
        reason: String,
        hint: Option<String>,
    ) -> Result<()> {
        self.report.functions.refused += 1;
        self.observer.key_failed(&KeyFailure {
            db: 0,
            key: format!("function library {name}").into_bytes(),
            kind,
            reason,
            hint,
        })
    }
}

/// Takes a FUNCTION DUMP apart (functions.c: for each library an opcode and the code).
fn split_libraries(dump: &[u8]) -> Result<Vec<Library>, String> {
    let (mut body, version) = payload::split(dump).map_err(|error| error.to_string())?;
    let mut libraries = Vec::new();
    while let Some((&opcode, rest)) = body.split_first() {
        if opcode != FUNCTION2 {
            return Err(format!(
                "the FUNCTION DUMP holds opcode {opcode:#04x}, which is not known"
            ));
        }
        let mut source = Slice::new(rest);
        walk::string(&mut source).map_err(|error| error.to_string())?;
        let code = &rest[..source.at()];
        let code_text = plain_string(code)?;
        libraries.push(Library {
            name: library_name(&code_text),
            code: code_text,
            body: body[..=code.len()].to_vec(),
            version,
        });
        body = source.rest();
    }
    Ok(libraries)
}

/// The bytes of one RDB string, compressed or not.
fn plain_string(string: &[u8]) -> Result<Vec<u8>, String> {
    // As a value of type string, whose compact form is type byte, length and plain bytes.
    let value = [&[0], string].concat();
    let mut plain = Vec::new();
    payload::compact(&value, Family::Redis, &mut plain).map_err(|error| error.to_string())?;
    let mut source = Slice::new(&plain[1..]);
    walk::length(&mut source).map_err(|error| error.to_string())?;
    Ok(source.rest().to_vec())
}
