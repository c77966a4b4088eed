//! What stands at a destination in the way of a function library: one of its name, or another one
//! that has a function of the same name. Asked without writing; `--dry-run`, `doctor` and the run all
//! judge by it.
//!
//! Names of functions are unique in a server, whatever their case. Which ones a library registers
//! only its code says, so that code is looked through for them. Names that it computes are not seen.

use std::collections::HashMap;

use crate::refusal::Refusal;
use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::{Conn, ServerError};

/// Bytes that a server may tell of its libraries.
const LIST_LIMIT: usize = 64 * 1024 * 1024;

/// Code that is longer is not looked through.
const MAX_CODE_BYTES: usize = 1024 * 1024;

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InTheWay {
    /// Nothing.
    Nothing,
    /// The same library.
    Equal,
    /// A library of this name with other code, which a replacing import overwrites.
    OtherCode,
    /// A function of another library, which no import overwrites.
    Function {
        /// The function.
        function: String,
        /// The library that it belongs to.
        library: String,
    },
}

impl InTheWay {
    /// Why the library is refused, if it is.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Nothing | Self::Equal => None,
            Self::OtherCode => Some(
                Refusal::new("the library already exists at the destination, with other code")
                    .with_hint(
                        "--functions replace overwrites it, --functions skip leaves them all out",
                    ),
            ),
            Self::Function { function, library } => {
                let reason = format!(
                    "its function {} belongs to the library {} at the destination",
                    function.escape_debug(),
                    library.escape_debug()
                );
                Some(Refusal::new(reason).with_hint(
                    "--functions replace overwrites only a library of the same name: remove one of \
                     the two (FUNCTION DELETE), or leave all libraries out with --functions skip",
                ))
            }
        }
    }
}

/// A library of the destination.
struct Row {
    name: String,
    functions: Vec<String>,
}

/// What stands in the way of the library of this `name` and `code`. `replaces`: one of its name
/// would be overwritten. `is_gone`: libraries that are overwritten before. The inner `Err` is the
/// server's refusal to tell.
///
/// # Errors
/// The connection.
pub fn in_the_way(
    conn: &mut Conn,
    (name, code): (&str, &[u8]),
    replaces: bool,
    is_gone: impl Fn(&str) -> bool,
) -> Result<Result<InTheWay, String>, ServerError> {
    let rows = match list(conn)? {
        Ok(rows) => rows,
        Err(text) => return Ok(Err(text)),
    };
    if !replaces && rows.iter().any(|row| row.name == name) {
        return Ok(standing_code(conn, name)?.map(|standing| match standing {
            Some(standing) if standing == code => InTheWay::Equal,
            _ => InTheWay::OtherCode,
        }));
    }
    let names = registered(code);
    let others = rows
        .iter()
        .filter(|row| row.name != name && !is_gone(&row.name));
    let mut taken = others.flat_map(|row| row.functions.iter().map(move |name| (name, row)));
    let taken = taken.find(|(taken, _)| names.iter().any(|name| name.eq_ignore_ascii_case(taken)));
    Ok(Ok(match taken {
        Some((function, row)) => InTheWay::Function {
            function: function.clone(),
            library: row.name.clone(),
        },
        None => InTheWay::Nothing,
    }))
}

/// The same, after the server said that a function or library is there already. `None` where
/// it does not tell what stands there; the inner `Err` is its refusal.
///
/// # Errors
/// The connection.
pub fn told_in_the_way(
    conn: &mut Conn,
    (name, code): (&str, &[u8]),
    text: &str,
) -> Result<Result<Option<InTheWay>, String>, ServerError> {
    let Some(function) = function_in(text) else {
        return Ok(standing_code(conn, name)?.map(|standing| {
            standing.map(|standing| match standing == code {
                true => InTheWay::Equal,
                false => InTheWay::OtherCode,
            })
        }));
    };
    Ok(list(conn)?.map(|rows| {
        let is_it = |name: &String| name.eq_ignore_ascii_case(function);
        let holder = rows.into_iter().find(|row| row.functions.iter().any(is_it));
        holder.map(|row| InTheWay::Function {
            function: function.to_owned(),
            library: row.name,
        })
    }))
}

/// The function of "ERR Function f already exists" (functions.c, libraryJoin).
fn function_in(text: &str) -> Option<&str> {
    let (before, _) = text.split_once(" already exists")?;
    before.split_once("Function ").map(|(_, name)| name)
}

fn list(conn: &mut Conn) -> Result<Result<Vec<Row>, String>, ServerError> {
    let value = match conn.ask_within(cmd("FUNCTION").arg("LIST"), LIST_LIMIT)? {
        Ok(value) => value,
        Err(text) => return Ok(Err(text)),
    };
    let row = |mut row: HashMap<String, Reply>| {
        let functions: Vec<HashMap<String, Reply>> = from_reply(row.remove("functions")?).ok()?;
        let name = |mut function: HashMap<String, Reply>| text(function.remove("name")?);
        Some(Row {
            name: text(row.remove("library_name")?)?,
            functions: functions.into_iter().filter_map(name).collect(),
        })
    };
    let rows: Option<Vec<HashMap<String, Reply>>> = from_reply(value).ok();
    let rows = rows.and_then(|rows| rows.into_iter().map(row).collect());
    match rows {
        Some(rows) => Ok(Ok(rows)),
        None => Err(conn.confused("FUNCTION LIST was answered with something else")),
    }
}

/// The code of the destination's library of exactly this name.
fn standing_code(
    conn: &mut Conn,
    name: &str,
) -> Result<Result<Option<Vec<u8>>, String>, ServerError> {
    let mut command = cmd("FUNCTION");
    command
        .arg("LIST")
        .arg("LIBRARYNAME")
        .arg(name)
        .arg("WITHCODE");
    let value = match conn.ask_within(&command, LIST_LIMIT)? {
        Ok(value) => value,
        Err(text) => return Ok(Err(text)),
    };
    let rows: Vec<HashMap<String, Reply>> = from_reply(value).unwrap_or_default();
    // The server takes the name for a pattern of any case.
    let code = |mut row: HashMap<String, Reply>| {
        let is_it = row.remove("library_name").and_then(text).as_deref() == Some(name);
        match row.remove("library_code") {
            Some(Reply::Bulk(code)) if is_it => Some(code),
            _ => None,
        }
    };
    Ok(Ok(rows.into_iter().find_map(code)))
}

fn text(value: Reply) -> Option<String> {
    from_reply(value).ok()
}

/// A word of Lua, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(u8),
}

/// The functions that a library's code registers by a plain name: `register_function('f', …)` and
/// `register_function{function_name='f', …}`. Of other engines than Lua nothing is known.
fn registered(code: &[u8]) -> Vec<String> {
    let mut lines = code.splitn(2, |&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let engine = first.split(u8::is_ascii_whitespace).next();
    let is_lua = engine.is_some_and(|engine| engine.eq_ignore_ascii_case(b"#!lua"));
    if !is_lua || code.len() > MAX_CODE_BYTES {
        return Vec::new();
    }
    let tokens = tokens(lines.next().unwrap_or_default());
    let is_word =
        |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(found)) if found == word);
    let is_sign = |at: usize, sign: u8| tokens.get(at) == Some(&Token::Sign(sign));
    // What goes on behind it is computed.
    let whole_text = |at: usize| match (tokens.get(at), tokens.get(at + 1)) {
        (Some(Token::Text(name)), Some(Token::Sign(b',' | b';' | b')' | b'}'))) => {
            Some(name.clone())
        }
        _ => None,
    };
    let mut names = Vec::new();
    for at in (0..tokens.len()).filter(|&at| is_word(at, "register_function")) {
        let first = at + 1 + usize::from(is_sign(at + 1, b'('));
        names.extend(whole_text(first));
        let mut depth = 0;
        for at in first..tokens.len() {
            depth += i32::from(is_sign(at, b'{')) - i32::from(is_sign(at, b'}'));
            if depth == 0 || is_word(at, "register_function") {
                break;
            }
            if depth == 1 && is_word(at, "function_name") && is_sign(at + 1, b'=') {
                names.extend(whole_text(at + 2));
            }
        }
    }
    names
}

fn tokens(code: &[u8]) -> Vec<Token> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end_of = |from: usize, end: &[u8]| {
        let mut windows = code[from..].windows(end.len());
        windows.position(|window| window == end)
    };
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = code.get(at) {
        let is_comment = code[at..].starts_with(b"--");
        let opened = at + if is_comment { 2 } else { 0 };
        if let Some(level) = long_bracket(&code[opened..]) {
            let end = [b"]", "=".repeat(level).as_bytes(), b"]"].concat();
            let start = opened + level + 2;
            let length = end_of(start, &end).unwrap_or(code.len() - start);
            if !is_comment {
                let text = &code[start..start + length];
                tokens.push(Token::Text(String::from_utf8_lossy(text).into_owned()));
            }
            at = (start + length + end.len()).min(code.len());
        } else if is_comment {
            at = end_of(at, b"\n").map_or(code.len(), |length| at + length);
        } else if byte == b'\'' || byte == b'"' {
            let mut end = at + 1;
            while code.get(end).is_some_and(|&next| next != byte) {
                end += 1 + usize::from(code[end] == b'\\');
            }
            let text = &code[at + 1..end.min(code.len())];
            tokens.push(Token::Text(String::from_utf8_lossy(text).into_owned()));
            at = end + 1;
        } else if is_word(&byte) {
            let length = code[at..].iter().take_while(|&byte| is_word(byte)).count();
            let word = String::from_utf8_lossy(&code[at..at + length]);
            tokens.push(Token::Word(word.into_owned()));
            at += length;
        } else {
            if !byte.is_ascii_whitespace() {
                tokens.push(Token::Sign(byte));
            }
            at += 1;
        }
    }
    tokens
}

/// How many equal signs the long bracket has that this begins with, if it is one: `[[` or `[==[`.
fn long_bracket(code: &[u8]) -> Option<usize> {
    let rest = code.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|&&byte| byte == b'=').count();
    (rest.get(level) == Some(&b'[')).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_functions_as_the_code_gives_them() {
        for (code, names) in [
            ("redis.register_function('f', f)", &["f"][..]),
            ("server.register_function ( \"f\", f)", &["f"]),
            (
                "redis.register_function{function_name='f', callback=g}",
                &["f"],
            ),
            (
                "redis.register_function({callback=function() return {function_name='no'} end,\n \
                 function_name = [[f]], flags={'no-writes'}})\nredis.register_function('g', g)",
                &["f", "g"],
            ),
            ("-- redis.register_function('f', f)\nlocal x = 'f'", &[]),
            ("--[==[ ]] redis.register_function('f', f) ]==] y = 1", &[]),
            ("x = \"redis.register_function('f', f)\"", &[]),
            ("redis.register_function('a' .. b, f)", &[]),
            ("redis.register_function(name, f)", &[]),
            ("redis.register_function('f", &[]),
            ("x = '\\", &[]),
            ("[==[", &[]),
            ("register_function{", &[]),
        ] {
            let code = format!("#!lua name=one\n{code}");
            let expected: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(registered(code.as_bytes()), expected, "{code}");
        }
        let other = b"#!js name=one\nredis.register_function('f', f)";
        assert!(registered(other).is_empty());
    }

    #[test]
    fn which_function_a_server_means() {
        assert_eq!(function_in("ERR Function f already exists"), Some("f"));
        assert_eq!(function_in("ERR Library one already exists"), None);
    }
}
