//! FUNCTION: libraries, whose code is kept and not run.

use super::super::Server;
use super::super::glob;
use super::super::payload;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{CONTAINER, Keys, NEEDS_MEMORY, NO_SCRIPT, Row, WRITE, row};
use super::words::{error, is, text, wrong_count};

const R70: Since = Since::R70;
const NONE: Keys = Keys::None;
const CHANGES: u16 = WRITE | NEEDS_MEMORY | NO_SCRIPT;
const REMOVES: u16 = WRITE | NO_SCRIPT;

pub(super) const ROWS: &[Row] = &[
    row("function", -2, CONTAINER, NONE, R70, super::container),
    row("function|load", -3, CHANGES, NONE, R70, load),
    row("function|delete", 3, REMOVES, NONE, R70, delete),
    row("function|flush", -2, REMOVES, NONE, R70, flush),
    row("function|list", -2, NO_SCRIPT, NONE, R70, list),
    row("function|dump", 2, NO_SCRIPT, NONE, R70, dump),
    row("function|restore", -3, CHANGES, NONE, R70, restore),
];

/// A library of functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub name: String,
    pub functions: Vec<String>,
    pub code: Vec<u8>,
}

impl Library {
    /// Reads name and functions from the code; the error of one that has none.
    fn parse(code: &[u8]) -> Result<Self, Reply> {
        let whole = String::from_utf8_lossy(code);
        let Some(head) = whole.strip_prefix("#!") else {
            return Err(error("ERR Missing library metadata"));
        };
        let (head, body) = head
            .split_once('\n')
            .ok_or(error("ERR Invalid library metadata"))?;
        let mut words = head.split_ascii_whitespace();
        let engine = words.next().unwrap_or_default();
        if !engine.eq_ignore_ascii_case("lua") {
            return Err(Reply::error(format!("ERR Engine '{engine}' not found")));
        }
        let name = words.find_map(|word| word.strip_prefix("name="));
        let name = name.ok_or(error("ERR Library name was not given"))?;
        let functions = registered(body);
        if functions.is_empty() {
            return Err(error("ERR No functions registered"));
        }
        Ok(Self {
            name: name.to_owned(),
            functions,
            code: code.to_vec(),
        })
    }
}

/// The names behind `register_function`, as plain code writes them.
fn registered(body: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in body.split("register_function").skip(1) {
        let part = match part.find("function_name") {
            Some(at) if part.trim_start().starts_with(['{', '(']) && part[..at].contains('{') => {
                &part[at..]
            }
            _ => part,
        };
        let Some(open) = part.find(['\'', '"']) else {
            continue;
        };
        let quote = part.as_bytes()[open] as char;
        if let Some((name, _)) = part[open + 1..].split_once(quote) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Why libraries cannot stand beside those that do.
fn clash(standing: &[Library], new: &[Library], replaces: bool, quote: &str) -> Option<Reply> {
    for library in new {
        let is_it = |other: &&Library| other.name == library.name;
        if !replaces && standing.iter().any(|other| is_it(&other)) {
            return Some(Reply::error(format!(
                "ERR Library {quote}{}{quote} already exists",
                library.name
            )));
        }
        let others = standing
            .iter()
            .filter(|other| !new.iter().any(|one| one.name == other.name));
        for other in others {
            let twice = library
                .functions
                .iter()
                .find(|name| other.functions.contains(name));
            if let Some(name) = twice {
                return Some(Reply::error(format!("ERR Function {name} already exists")));
            }
        }
    }
    None
}

fn put(server: &mut Server, library: Library) {
    let libraries = server.libraries_mut();
    libraries.retain(|standing| standing.name != library.name);
    libraries.push(library);
    libraries.sort_by(|one, next| one.name.cmp(&next.name));
}

fn load(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let replaces = args.len() == 4 && is(args[2], "replace");
    if args.len() > 4 {
        return wrong_count("function|load");
    }
    if args.len() == 4 && !replaces {
        return Reply::error(format!("ERR Unknown option given: {}", text(args[2])));
    }
    let library = match Library::parse(args[args.len() - 1]) {
        Ok(library) => library,
        Err(refusal) => return refusal,
    };
    if let Some(refusal) = clash(
        server.libraries(),
        std::slice::from_ref(&library),
        replaces,
        "'",
    ) {
        return refusal;
    }
    let name = library.name.clone();
    put(server, library);
    server.functions_changed();
    Reply::bulk(name)
}

fn delete(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let name = text(args[2]);
    let before = server.libraries().len();
    server
        .libraries_mut()
        .retain(|library| library.name != name);
    match server.libraries().len() < before {
        true => {
            server.functions_changed();
            Reply::OK
        }
        false => error("ERR Library not found"),
    }
}

fn flush(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    match &args[2..] {
        [] => {}
        [word] if is(word, "sync") || is(word, "async") => {}
        _ => return error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"),
    }
    server.libraries_mut().clear();
    server.functions_changed();
    Reply::OK
}

fn list(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let (mut with_code, mut pattern) = (false, None);
    let mut rest = args[2..].iter();
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "withcode") => with_code = true,
            _ if is(word, "libraryname") => match rest.next() {
                Some(name) => pattern = Some(*name),
                None => return error("ERR library name argument was not given"),
            },
            _ => return Reply::error(format!("ERR Unknown argument {}", text(word))),
        }
    }
    let is_wanted = |library: &&Library| {
        pattern.is_none_or(|pattern| glob::matches(pattern, library.name.as_bytes()))
    };
    let map = |rows: Vec<(&'static str, Reply)>| {
        Reply::Map(
            rows.into_iter()
                .map(|(name, value)| (Reply::bulk(name), value))
                .collect(),
        )
    };
    let function = |name: &String| {
        map(vec![
            ("name", Reply::bulk(name)),
            ("description", Reply::Nil),
            ("flags", Reply::Set(Vec::new())),
        ])
    };
    let row = |library: &Library| {
        let mut rows = vec![
            ("library_name", Reply::bulk(&library.name)),
            ("engine", Reply::bulk("LUA")),
            (
                "functions",
                Reply::Array(library.functions.iter().map(function).collect()),
            ),
        ];
        if with_code {
            rows.push(("library_code", Reply::bulk(&library.code)));
        }
        map(rows)
    };
    Reply::Array(
        server
            .libraries()
            .iter()
            .filter(is_wanted)
            .map(row)
            .collect(),
    )
}

/// Opcode of a library's code.
const FUNCTION: u8 = 0xf5;

fn dump(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    let mut out = Vec::new();
    for library in server.libraries() {
        out.push(FUNCTION);
        payload::put_string(&mut out, &library.code);
    }
    payload::seal(server.release().rdb, &mut out);
    Reply::Bulk(out)
}

fn restore(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let (mut replaces, mut flushes) = (false, false);
    match &args[3..] {
        [] => {}
        [word] if is(word, "append") => {}
        [word] if is(word, "replace") => replaces = true,
        [word] if is(word, "flush") => flushes = true,
        [_] => {
            return error(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            );
        }
        _ => return wrong_count("function|restore"),
    }
    let Ok(body) = payload::open(server.release(), args[2]) else {
        return error("ERR DUMP payload version or checksum are wrong");
    };
    let Some(codes) = payload::library_codes(body, FUNCTION) else {
        return error("ERR given type is not a function");
    };
    let libraries: Result<Vec<Library>, Reply> =
        codes.iter().map(|code| Library::parse(code)).collect();
    let libraries = match libraries {
        Ok(libraries) => libraries,
        Err(refusal) => return refusal,
    };
    if flushes {
        server.libraries_mut().clear();
    } else if let Some(refusal) = clash(server.libraries(), &libraries, replaces, "") {
        return refusal;
    }
    for library in libraries {
        put(server, library);
    }
    server.functions_changed();
    Reply::OK
}
