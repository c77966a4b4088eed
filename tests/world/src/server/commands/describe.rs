//! COMMAND: which commands there are.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{
    self, ALLOW_BUSY, CONTAINER, Keys, LOADING, NEEDS_MEMORY, NO_AUTH, NO_SCRIPT, Row, STALE,
    WRITE, row,
};
use super::words::text;

const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row(
        "command",
        -1,
        LOADING | STALE | CONTAINER,
        Keys::None,
        ALWAYS,
        all,
    ),
    row(
        "command|count",
        2,
        LOADING | STALE,
        Keys::None,
        ALWAYS,
        count,
    ),
    row(
        "command|info",
        -2,
        LOADING | STALE,
        Keys::None,
        ALWAYS,
        info,
    ),
    row(
        "command|docs",
        -2,
        LOADING | STALE,
        Keys::None,
        Since::R70,
        docs,
    ),
];

/// Commands, without their subcommands.
fn commands(server: &Server) -> impl Iterator<Item = &'static Row> {
    table::rows(server.release())
        .into_iter()
        .filter(|row| !row.name.contains('|'))
}

fn described(server: &Server, row: &Row) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let names = [
        (WRITE, "write"),
        (NEEDS_MEMORY, "denyoom"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (NO_SCRIPT, "noscript"),
        (NO_AUTH, if is_7 { "no_auth" } else { "no-auth" }),
        (ALLOW_BUSY, if is_7 { "allow_busy" } else { "" }),
    ];
    let flags = names
        .into_iter()
        .filter(|(flag, name)| row.flags & flag != 0 && !name.is_empty());
    let flags = flags.map(|(_, name)| Reply::Simple(name)).collect();
    let [first, last, step] = match row.keys {
        Keys::At(first, last, step) => [i64::from(first), i64::from(last), i64::from(step)],
        Keys::None | Keys::Counted(_) | Keys::Streams => [0, 0, 0],
    };
    let mut parts = vec![
        Reply::bulk(row.name),
        Reply::Int(i64::from(row.arity)),
        Reply::Set(flags),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
    ];
    if server.release().has(Since::R60) {
        parts.push(Reply::Set(Vec::new()));
    }
    if server.release().has(Since::R70) {
        parts.extend([
            Reply::Set(Vec::new()),
            Reply::Set(Vec::new()),
            Reply::Set(Vec::new()),
        ]);
    }
    Reply::Array(parts)
}

fn all(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    Reply::Array(commands(server).map(|row| described(server, row)).collect())
}

fn count(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    Reply::count(commands(server).count())
}

/// Whether the server knows the command by this name.
fn known(server: &Server, name: &str) -> Option<&'static Row> {
    let row = table::by_name(server.release(), name.as_bytes())?;
    let is_renamed =
        |refusal: &super::super::config::Refusal| refusal.text.is_none() && refusal.command == name;
    (!server.config().refused.iter().any(is_renamed)).then_some(row)
}

fn info(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len() == 2 {
        return all(server, cx, args);
    }
    let one = |word: &&[u8]| match known(server, &text(word).to_lowercase()) {
        Some(row) => described(server, row),
        None => Reply::NilArray,
    };
    Reply::Array(args[2..].iter().map(one).collect())
}

fn docs(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let rows = args[2..]
        .iter()
        .filter_map(|word| known(server, &text(word).to_lowercase()));
    let about = |row: &Row| {
        let summary = (
            Reply::bulk("summary"),
            Reply::bulk(format!("What {} does.", row.name)),
        );
        (Reply::bulk(row.name), Reply::Map(vec![summary]))
    };
    Reply::Map(rows.map(about).collect())
}
