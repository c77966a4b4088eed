//! Commands for the connection.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{Keys, LOADING, Row, STALE, row};

pub(super) const ROWS: &[Row] = &[
    row("ping", -1, STALE, Keys::None, Since::Always, ping),
    row(
        "select",
        2,
        LOADING | STALE,
        Keys::None,
        Since::Always,
        select,
    ),
];

fn ping(_: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    match args {
        [_] => Reply::Simple("PONG"),
        [_, word] => Reply::bulk(word),
        _ => Reply::error("ERR wrong number of arguments for 'ping' command"),
    }
}

fn select(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let db = std::str::from_utf8(args[1])
        .ok()
        .and_then(|word| word.parse::<u32>().ok());
    match db.filter(|db| *db < server.keyspace.databases()) {
        None => Reply::error("ERR DB index is out of range"),
        Some(db) => {
            if let Some(client) = server.client_mut(cx.client) {
                client.session.db = db;
            }
            Reply::OK
        }
    }
}
