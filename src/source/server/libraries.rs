//! How function libraries are read, where they are to be had.

use std::collections::HashMap;

use anyhow::Result;

use crate::observer::Observer;
use crate::policy::ReadFunctions;
use crate::rdb::{function_codes, functions_payload};
use crate::server::Conn;
use crate::server::facts::Facts;
use crate::server::reply::{Command, Reply, from_reply_ref};

/// Bytes that all function libraries together may take.
const FUNCTIONS_LIMIT: usize = 64 * 1024 * 1024;

/// How function libraries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionsBy {
    /// FUNCTION DUMP.
    Dump,
    /// FUNCTION LIST WITHCODE, where FUNCTION DUMP is refused.
    List,
}

impl FunctionsBy {
    /// The command.
    pub fn command(self) -> &'static [&'static [u8]] {
        match self {
            Self::Dump => &[b"FUNCTION", b"DUMP"],
            Self::List => &[b"FUNCTION", b"LIST", b"WITHCODE"],
        }
    }

    /// The payload that its reply is, or amounts to; `None` where there are no libraries. The error
    /// says what is wrong with the reply: then nobody knows whether there are any.
    pub fn payload(self, reply: Reply) -> Result<Option<Vec<u8>>, String> {
        let payload = match (self, reply) {
            (Self::Dump, Reply::Bulk(payload)) => payload,
            (Self::Dump, other) => {
                return Err(format!(
                    "FUNCTION DUMP was answered with {}",
                    kind_of_reply(&other)
                ));
            }
            (Self::List, reply) => functions_payload(&library_codes(&reply)?),
        };
        let codes = function_codes(&payload)
            .map_err(|reason| format!("the answer to FUNCTION DUMP is damaged: {reason}"))?;
        Ok(Some(payload).filter(|_| !codes.is_empty()))
    }
}

fn kind_of_reply(reply: &Reply) -> String {
    match reply {
        Reply::Nil => "nil".to_owned(),
        Reply::Int(number) => format!("the number {number}"),
        Reply::Status(text) => format!("\"{}\"", text.escape_debug()),
        Reply::Okay => "OK".to_owned(),
        _ => "something that is no payload".to_owned(),
    }
}

/// The code of each library in a reply of FUNCTION LIST WITHCODE.
fn library_codes(reply: &Reply) -> Result<Vec<Vec<u8>>, String> {
    let is_list = matches!(reply, Reply::Array(_));
    let rows: Option<Vec<HashMap<String, Reply>>> = match is_list {
        true => from_reply_ref(reply).ok(),
        false => None,
    };
    let rows =
        rows.ok_or_else(|| format!("FUNCTION LIST was answered with {}", kind_of_reply(reply)))?;
    let code = |mut row: HashMap<String, Reply>| match row.remove("library_code") {
        Some(Reply::Bulk(code)) => Ok(code),
        _ => Err("FUNCTION LIST gave a library without its code".to_owned()),
    };
    rows.into_iter().map(code).collect()
}

/// What became of the libraries.
#[derive(Debug, Default)]
pub(in crate::source) struct Libraries {
    /// How they are read here, if at all.
    pub by: Option<FunctionsBy>,
    /// The payload, if there are any.
    pub payload: Option<Vec<u8>>,
    /// The server has libraries, or may have, and its answer is not to be believed; or it refuses
    /// to give them, and they are to be compared.
    pub unread: Option<String>,
    /// The server has libraries, or may have, and refuses to give them: in its words.
    pub refused: Option<String>,
}

impl Libraries {
    /// Why they are not known, whatever the reason.
    pub fn unknown(&self) -> Option<&str> {
        self.unread.as_deref().or(self.refused.as_deref())
    }
}

/// Tells that a server refuses to give function libraries, where the run does without them.
pub(in crate::source) fn warn_of_refusal(text: &str, observer: &Observer) {
    observer.warn(&format!(
        "the source refuses FUNCTION DUMP and FUNCTION LIST ({text}); function libraries are not \
         read"
    ));
}

/// How libraries are read here, if at all, and the payload if there are any.
///
/// # Errors
/// Where they are required and not to be had, and the connection's.
pub(in crate::source) fn function_dump(
    conn: &mut Conn,
    wish: ReadFunctions,
    facts: &Facts,
) -> Result<Libraries> {
    let has_none = facts.lookalike.is_some() && facts.is_before_functions();
    if wish == ReadFunctions::No || (has_none && wish != ReadFunctions::Required) {
        return Ok(Libraries::default());
    }
    let mut refused = None;
    let mut wrong = None;
    for by in [FunctionsBy::Dump, FunctionsBy::List] {
        let mut command = Command::new();
        command.arg(by.command());
        match conn.ask_within(&command, FUNCTIONS_LIMIT)? {
            Ok(reply) => match by.payload(reply) {
                Ok(payload) => {
                    return Ok(Libraries {
                        by: Some(by),
                        payload,
                        ..Libraries::default()
                    });
                }
                Err(text) => wrong = wrong.or(Some(text)),
            },
            Err(text) => refused = refused.or(Some(text)),
        }
    }
    if let Some(text) = wrong {
        if wish == ReadFunctions::Required {
            return Err(conn.confused(text).into());
        }
        return Ok(Libraries {
            unread: Some(text),
            ..Libraries::default()
        });
    }
    let text = refused.unwrap_or_default();
    if wish == ReadFunctions::Required {
        return Err(conn.refusal("FUNCTION DUMP", text).into());
    }
    // Before 7.0 there are none, and nothing is lost by it. A later server that does not know the
    // command was told to forget it, and may have libraries all the same.
    if text.starts_with("ERR unknown command") && facts.is_before_functions() {
        return Ok(Libraries::default());
    }
    let (unread, refused) = match wish {
        ReadFunctions::Compared => (Some(text), None),
        _ => (None, Some(text)),
    };
    Ok(Libraries {
        unread,
        refused,
        ..Libraries::default()
    })
}
