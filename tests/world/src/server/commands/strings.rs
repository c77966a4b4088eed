//! Commands for strings.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};

pub(super) const ROWS: &[Row] = &[
    row("get", 2, 0, FIRST, Since::Always, get),
    row("set", -3, WRITE | NEEDS_MEMORY, FIRST, Since::Always, set),
];

fn get(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match server.read(cx, args[1]).map(|entry| &entry.value) {
        None => Reply::Nil,
        Some(Value::String(bytes)) => Reply::bulk(bytes),
        Some(_) => {
            Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
        }
    }
}

fn set(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    server.put(
        cx,
        args[1],
        Entry::new(Value::String(args[2].to_vec()), None, cx.now),
    );
    Reply::OK
}
