//! Function libraries: one FUNCTION DUMP holds them all, but they are restored one by one, so that
//! one that is there already does not cost the others.

use std::collections::HashSet;

use super::libraries::{InTheWay, in_the_way, told_in_the_way};
use super::writer::may_pass;
use crate::observer::FailureKind;
use crate::payload::{self, Slice, walk};
use crate::rdb::library_name;
use crate::record::Family;
use crate::refusal::Refusal;
use crate::server::conn::is_forbidden;
use crate::server::reply::{Reply, cmd};
use crate::server::{Conn, ServerError};

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

impl Library {
    /// RDB version of the footer it came with.
    pub(super) fn version(&self) -> u16 {
        self.version
    }
}

/// What became of a library at one node.
pub(super) enum Fate {
    Restored,
    /// A dry run: it would be restored.
    Foreseen,
    /// There already, with the same code.
    Equal,
    /// Another one stands in its way and was left as it stands, as asked.
    LeftOut,
    /// Left out, since there are no functions.
    Lost,
    Refused(FailureKind, String, Option<String>),
}

/// What becomes of what stands, or may stand, in the way of a library.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standings {
    /// A library of the same name is overwritten.
    pub replaces: bool,
    /// What stands in the way is left as it stands.
    pub skips: bool,
    /// Libraries may be left out where there are no functions.
    pub may_be_lost: bool,
    /// It may be there already: nobody heard.
    pub is_doubtful: bool,
    /// Another node may take this one's place.
    pub may_move: bool,
}

/// A library that is to be given to a node.
pub(super) struct Put<'a> {
    pub library: &'a Library,
    /// RDB version that it is signed for.
    pub version: u16,
    pub standings: Standings,
    /// There is a replica to wait for.
    pub waits: bool,
    /// Nothing is written.
    pub dry_run: bool,
    /// What the destination is called.
    pub title: String,
    /// In a dry run: libraries that are overwritten before.
    pub overwritten: &'a HashSet<String>,
}

impl Put<'_> {
    /// Gives it to a node; with whether it is not known to be at a replica, too.
    ///
    /// # Errors
    /// The connection.
    pub fn carry_out(&self, conn: &mut Conn) -> Result<(Fate, bool), ServerError> {
        match self.dry_run {
            true => Ok((self.preview(conn)?, false)),
            false => self.restore(conn),
        }
    }

    fn restore(&self, conn: &mut Conn) -> Result<(Fate, bool), ServerError> {
        let replaces = self.standings.replaces;
        let mut command = cmd("FUNCTION");
        command
            .arg("RESTORE")
            .arg(payload::sign(&self.library.body, self.version))
            .arg(if replaces { "REPLACE" } else { "APPEND" });
        let mut answer = conn.try_query(&command)?;
        // Some services know FUNCTION LOAD only; with one library it does the same.
        if answer.as_ref().is_err_and(|text| is_forbidden(text)) {
            let mut command = cmd("FUNCTION");
            command.arg("LOAD");
            if replaces {
                command.arg("REPLACE");
            }
            let loaded = conn.try_query(command.arg(&self.library.code))?;
            if !loaded.as_ref().is_err_and(|text| is_forbidden(text)) {
                answer = loaded;
            }
        }
        let is_it = |name: &[u8]| name == self.library.name.as_bytes();
        match answer {
            // RESTORE answers with OK, LOAD with the library's name.
            Ok(Reply::Okay) => Ok((Fate::Restored, !self.is_at_replica(conn)?)),
            Ok(Reply::Bulk(name)) if is_it(&name) => {
                Ok((Fate::Restored, !self.is_at_replica(conn)?))
            }
            Ok(other) => {
                Err(conn.confused(format!("FUNCTION RESTORE was answered with {other:?}")))
            }
            Err(text) if text.contains("already exists") => {
                Ok((self.beside_standing(conn, text)?, false))
            }
            Err(text) => Ok((self.refused(text), false)),
        }
    }

    /// What an error reply to FUNCTION RESTORE makes of a library.
    fn refused(&self, text: String) -> Fate {
        let hint = if text.starts_with("ERR unknown command") {
            if self.standings.may_be_lost {
                return Fate::Lost;
            }
            Some(format!(
                "{} has no functions; --allow-loss functions leaves them out",
                self.title
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
    fn is_at_replica(&self, conn: &mut Conn) -> Result<bool, ServerError> {
        if !self.waits {
            return Ok(false);
        }
        let answer = conn.try_query(cmd("WAIT").arg(1).arg(1000))?;
        Ok(matches!(answer, Ok(Reply::Int(1..))))
    }

    /// A library, or a function of it, is there already.
    fn beside_standing(&self, conn: &mut Conn, text: String) -> Result<Fate, ServerError> {
        let told = told_in_the_way(conn, (&self.library.name, &self.library.code), &text)?;
        Ok(match self.told_or_later(conn, told)?.flatten() {
            Some(InTheWay::Equal) if self.standings.is_doubtful => Fate::Restored,
            Some(standing) => self.fate_beside(&standing, Fate::Restored),
            // What stands there is not told.
            None if self.standings.skips => Fate::LeftOut,
            None => Fate::Refused(FailureKind::Conflict, text, None),
        })
    }

    /// What the policy makes of a library in whose way this stands; `free`: where it is in nobody's.
    fn fate_beside(&self, standing: &InTheWay, free: Fate) -> Fate {
        match standing.refusal() {
            None if *standing == InTheWay::Equal => Fate::Equal,
            None => free,
            Some(_) if self.standings.skips => Fate::LeftOut,
            Some(Refusal { reason, hint }) => Fate::Refused(FailureKind::Conflict, reason, hint),
        }
    }

    /// What a server told; `None` where it refuses that, and a loss where it may tell in a while.
    fn told_or_later<T>(
        &self,
        conn: &Conn,
        told: Result<T, String>,
    ) -> Result<Option<T>, ServerError> {
        match told {
            Ok(told) => Ok(Some(told)),
            // The same question again, in a while.
            Err(text) if may_pass(self.standings.may_move, &text) => Err(ServerError::Lost {
                address: conn.address().to_owned(),
                doing: "looking at function libraries".to_owned(),
                reason: text,
            }),
            Err(_) => Ok(None),
        }
    }

    fn preview(&self, conn: &mut Conn) -> Result<Fate, ServerError> {
        if let Some(text) = no_functions(conn)? {
            return Ok(self.refused(text));
        }
        let replaces = self.standings.replaces;
        let told = in_the_way(
            conn,
            (&self.library.name, &self.library.code),
            replaces,
            |name| replaces && self.overwritten.contains(name),
        )?;
        Ok(match self.told_or_later(conn, told)? {
            Some(standing) => self.fate_beside(&standing, Fate::Foreseen),
            None => Fate::Foreseen,
        })
    }
}

/// Why no library can be restored, in the server's words. Tried with arguments that cannot be
/// right, so nothing is written; a complaint about them is proof that the command can be used.
fn no_functions(conn: &mut Conn) -> Result<Option<String>, ServerError> {
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
