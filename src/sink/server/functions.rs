//! Function libraries: one FUNCTION DUMP holds them all, but they are restored one by one, so that
//! one that is there already does not cost the others.

use anyhow::Result;

use super::ServerSink;
use super::gate::Gate;
use super::libraries::{InTheWay, in_the_way, told_in_the_way};
use crate::observer::{FailureKind, KeyFailure};
use crate::payload::{self, Slice, walk};
use crate::policy::{FunctionPolicy, OnConflict};
use crate::rdb::{FUNCTIONS_VERSION, library_name};
use crate::record::Family;
use crate::server::ServerError;
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::reply::{Reply, cmd};

/// Opcode of a library in a FUNCTION DUMP (rdb.h, RDB_OPCODE_FUNCTION2).
const FUNCTION2: u8 = 0xF5;

/// One library of a FUNCTION DUMP.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its source code.
    pub code: Vec<u8>,
    /// A FUNCTION DUMP of just this library, without its footer.
    body: Vec<u8>,
    /// RDB version of the footer it came with.
    version: u16,
}

/// What became of a library at one node.
enum Fate {
    Restored,
    /// There already, with the same code.
    Equal,
    /// Another one stands in its way and was left as it stands, as asked.
    LeftOut,
    /// Left out, since there are no functions.
    Lost,
    Refused(FailureKind, String, Option<String>),
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

    /// In a cluster every primary has to have it.
    fn take_library(&mut self, library: &Library) -> Result<()> {
        if self.options.functions == FunctionPolicy::Skip {
            self.report.functions.skipped += 1;
            return Ok(());
        }
        // Until it is through with all of them under one and the same topology.
        let mut is_doubtful = false;
        let fates = loop {
            let primaries = match &self.routes {
                None => vec![0],
                Some(routes) => routes.primaries(),
            };
            match self.take_library_to(&primaries, library, is_doubtful)? {
                Some(fates) => break fates,
                None => {
                    is_doubtful = true;
                    self.rest()?;
                }
            }
        };
        let mut refused = None;
        let (mut restored, mut lost, mut left_standing) = (false, false, false);
        for (fate, at) in fates {
            match fate {
                Fate::Restored => restored = true,
                Fate::Equal => {}
                Fate::LeftOut => left_standing = true,
                Fate::Lost => lost = true,
                Fate::Refused(kind, reason, hint) => {
                    left_standing |= kind == FailureKind::Conflict;
                    let address = self.routes.as_ref().map(|_| self.lanes[at].address());
                    let place = address.map_or_else(String::new, |at| format!("{at}: "));
                    refused.get_or_insert((kind, place + &reason, hint));
                }
            }
        }
        self.report.functions.left_standing += u64::from(left_standing);
        match refused {
            Some((kind, reason, hint)) => self.refuse_library(&library.name, kind, reason, hint),
            None if restored => {
                self.report.functions.restored += 1;
                match &mut self.accepted {
                    Some(accepted) => accepted.library(&library.name, &library.code),
                    None => Ok(()),
                }
            }
            None => {
                self.report.functions.skipped += 1;
                self.report.changes.functions_lost += u64::from(lost);
                Ok(())
            }
        }
    }

    /// `None`: a connection was lost, and all is to be done again.
    fn take_library_to(
        &mut self,
        primaries: &[usize],
        library: &Library,
        is_doubtful: bool,
    ) -> Result<Option<Vec<(Fate, usize)>>> {
        let mut fates = Vec::new();
        for &at in primaries {
            if self.lanes[at].conn.is_none() && !self.connect(at)? {
                return Ok(None);
            }
            self.drain_lane(at)?;
            // Libraries belong to no database, but what is accepted is tried in one.
            if let Some(db) = self.databases.first()
                && self.enter(at, db)? == Gate::Later
            {
                return Ok(None);
            }
            let fate = match self.learn_target(at, b"") {
                Err(lost) => Err(lost),
                Ok(()) => {
                    self.look_out(at)?;
                    match self.options.dry_run {
                        true => self.preview_library(at, library),
                        false => self.restore_library(at, library, is_doubtful),
                    }
                }
            };
            match fate {
                Ok(Fate::Refused(_, text, _)) if self.may_pass(at, &text) => {
                    self.is_stale();
                    self.wait_for(&text)?;
                    return Ok(None);
                }
                Ok(fate) => fates.push((fate, at)),
                Err(lost) => {
                    self.lose_connection(at, lost)?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(fates))
    }

    /// Whether the node may say something else in a while, or another one in its place.
    fn may_pass(&self, at: usize, text: &str) -> bool {
        let may_move = self.routes.is_some() || self.lanes[at].is_watched();
        asks_for_patience(text)
            || text.starts_with("NOREPLICAS")
            || (may_move && is_redirection(text))
    }

    fn replaces_libraries(&self) -> bool {
        self.options.functions == FunctionPolicy::Replace
            || self.options.on_conflict == OnConflict::Replace
    }

    fn restore_library(
        &mut self,
        at: usize,
        library: &Library,
        is_doubtful: bool,
    ) -> Result<Fate, ServerError> {
        // Read completely above, so that it may be signed for another version.
        let versions = self.lanes[at]
            .target
            .as_ref()
            .map(|target| &target.accepts().versions);
        let version = versions
            .and_then(|versions| versions.nearest(library.version, FUNCTIONS_VERSION))
            .unwrap_or(library.version);
        let replaces = self.replaces_libraries();
        let mut command = cmd("FUNCTION");
        command
            .arg("RESTORE")
            .arg(payload::sign(&library.body, version))
            .arg(if replaces { "REPLACE" } else { "APPEND" });
        let conn = self.lanes[at].conn()?;
        let mut answer = conn.try_query(&command)?;
        // Some services know FUNCTION LOAD only; with one library it does the same.
        if answer.as_ref().is_err_and(|text| is_forbidden(text)) {
            let mut command = cmd("FUNCTION");
            command.arg("LOAD");
            if replaces {
                command.arg("REPLACE");
            }
            let loaded = conn.try_query(command.arg(&library.code))?;
            if !loaded.as_ref().is_err_and(|text| is_forbidden(text)) {
                answer = loaded;
            }
        }
        let text = match answer {
            // RESTORE answers with OK, LOAD with the library's name.
            Ok(Reply::Okay) => {
                self.wait_for_replicas(at)?;
                return Ok(Fate::Restored);
            }
            Ok(Reply::Bulk(name)) if name == library.name.as_bytes() => {
                self.wait_for_replicas(at)?;
                return Ok(Fate::Restored);
            }
            Ok(other) => {
                let said = format!("FUNCTION RESTORE was answered with {other:?}");
                return Err(self.lanes[at].conn()?.confused(said));
            }
            Err(text) => text,
        };
        if text.contains("already exists") {
            return self.standing_library(at, library, text, is_doubtful);
        }
        Ok(self.refused_library(at, text))
    }

    /// What an error reply to FUNCTION RESTORE makes of a library.
    fn refused_library(&self, at: usize, text: String) -> Fate {
        let hint = if text.starts_with("ERR unknown command") {
            if self.options.allow_loss.functions {
                return Fate::Lost;
            }
            Some(format!(
                "{} has no functions; --allow-loss functions leaves them out",
                self.lanes[at].facts.title()
            ))
        } else if text.contains("version or checksum") {
            Some("the destination must be of the same version as the source or newer".to_owned())
        } else {
            None
        };
        Fate::Refused(FailureKind::Refused, text, hint)
    }

    /// A replica that takes over must have it too. Where there is none, or WAIT is refused, there is
    /// nothing to be done about it.
    fn wait_for_replicas(&mut self, at: usize) -> Result<(), ServerError> {
        let lane = &mut self.lanes[at];
        let mut has_it = false;
        if lane.unconfirmed.max_bytes > 0 {
            let wait = lane.conn()?.try_query(cmd("WAIT").arg(1).arg(1000));
            has_it = matches!(wait?, Ok(Reply::Int(1..)));
        }
        lane.unkept |= !has_it;
        Ok(())
    }

    /// A library, or a function of it, is there already.
    fn standing_library(
        &mut self,
        at: usize,
        library: &Library,
        text: String,
        is_doubtful: bool,
    ) -> Result<Fate, ServerError> {
        let conn = self.lanes[at].conn()?;
        let told = told_in_the_way(conn, (&library.name, &library.code), &text)?;
        let standing = self.told_or_later(at, told)?.flatten();
        Ok(match standing {
            Some(InTheWay::Equal) if is_doubtful => Fate::Restored,
            Some(standing) => self.fate_beside(&standing),
            // What stands there is not told.
            None if self.options.on_conflict == OnConflict::Skip => Fate::LeftOut,
            None => Fate::Refused(FailureKind::Conflict, text, None),
        })
    }

    /// What the policy makes of a library in whose way this stands.
    fn fate_beside(&self, standing: &InTheWay) -> Fate {
        match standing.refusal() {
            None if *standing == InTheWay::Equal => Fate::Equal,
            None => Fate::Restored,
            Some(_) if self.options.on_conflict == OnConflict::Skip => Fate::LeftOut,
            Some((reason, hint)) => Fate::Refused(FailureKind::Conflict, reason, Some(hint)),
        }
    }

    /// What a server told; `None` where it refuses that, and a loss where it may tell in a while.
    fn told_or_later<T>(
        &self,
        at: usize,
        told: Result<T, String>,
    ) -> Result<Option<T>, ServerError> {
        match told {
            Ok(told) => Ok(Some(told)),
            // The same question again, in a while.
            Err(text) if self.may_pass(at, &text) => Err(ServerError::Lost {
                address: self.lanes[at].to.address.to_string(),
                doing: "looking at function libraries".to_owned(),
                reason: text,
            }),
            Err(_) => Ok(None),
        }
    }

    /// Why a library cannot be restored, in the server's words. Tried with arguments that cannot be
    /// right, so nothing is written; a complaint about them is proof that the command can be used.
    fn no_functions(&mut self, at: usize) -> Result<Option<String>, ServerError> {
        let conn = self.lanes[at].conn()?;
        let mut command = cmd("FUNCTION");
        let answer = conn.try_query(command.arg("RESTORE").arg(""))?;
        let Some(text) = answer.err() else {
            return Ok(None);
        };
        if !is_forbidden(&text) {
            return Ok((!text.contains("payload version or checksum")).then_some(text));
        }
        let mut command = cmd("FUNCTION");
        let answer = conn.try_query(command.arg("LOAD").arg("no library"))?;
        Ok(match answer {
            Err(loaded) if is_forbidden(&loaded) => Some(text),
            Err(loaded) if !loaded.contains("library") => Some(loaded),
            _ => None,
        })
    }

    fn preview_library(&mut self, at: usize, library: &Library) -> Result<Fate, ServerError> {
        if let Some(text) = self.no_functions(at)? {
            return Ok(self.refused_library(at, text));
        }
        let replaces = self.replaces_libraries();
        let lane = &mut self.lanes[at];
        let overwritten = &self.overwritten;
        let told = in_the_way(
            lane.conn()?,
            (&library.name, &library.code),
            replaces,
            |name| replaces && overwritten.contains(name),
        )?;
        let fate = match self.told_or_later(at, told)? {
            Some(standing) => self.fate_beside(&standing),
            None => Fate::Restored,
        };
        if matches!(fate, Fate::Restored) {
            self.overwritten.insert(library.name.clone());
        }
        Ok(fate)
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

fn is_redirection(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or("");
    matches!(code, "READONLY" | "MOVED" | "ASK")
}

/// Takes a FUNCTION DUMP apart (functions.c: for each library an opcode and the code).
///
/// # Errors
/// What is wrong with it, in words.
pub fn split_libraries(dump: &[u8]) -> Result<Vec<Library>, String> {
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
