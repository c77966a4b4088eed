//! ROLE, WAIT, REPLICAOF, and a replica's way to a copy.

use super::super::Server;
use super::super::client::Waits;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::replication::Role;
use super::super::reply::Reply;
use super::super::table::{Keys, LOADING, NO_SCRIPT, Row, STALE, row};
use super::words::{NOT_INTEGER, error, integer, is};

const ALWAYS: Since = Since::Always;
const FLAGS: u16 = LOADING | STALE | NO_SCRIPT;

pub(super) const ROWS: &[Row] = &[
    row("role", 1, FLAGS, Keys::None, ALWAYS, role),
    row("wait", 3, NO_SCRIPT, Keys::None, ALWAYS, wait),
    row("replconf", -1, FLAGS, Keys::None, ALWAYS, replconf),
    row("psync", -3, NO_SCRIPT, Keys::None, ALWAYS, psync),
];

fn role(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    let replication = &server.replication;
    match &replication.role {
        Role::Primary => {
            let row = |replica: &super::super::replication::Link| {
                Reply::bulks([
                    &replica.host,
                    &replica.port.to_string(),
                    &replica.acked.to_string(),
                ])
            };
            Reply::Array(vec![
                Reply::bulk("master"),
                Reply::unsigned(replication.offset),
                Reply::Array(replication.replicas.iter().map(row).collect()),
            ])
        }
        Role::Replica { host, port, is_up } => Reply::Array(vec![
            Reply::bulk("slave"),
            Reply::bulk(host),
            Reply::Int(i64::from(*port)),
            Reply::bulk(if *is_up { "connected" } else { "connect" }),
            Reply::unsigned(replication.offset),
        ]),
    }
}

fn wait(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if server.is_replica() {
        let since = match server.release().is_valkey() {
            true => "",
            false => "since Redis 4.0 ",
        };
        return Reply::error(format!(
            "ERR WAIT cannot be used with replica instances. Please also note that {since}if a \
             replica is configured to be writable (which is not the default) writes to replicas are \
             just local and are not propagated."
        ));
    }
    let (Some(count), Some(timeout)) = (integer(args[1]), integer(args[2])) else {
        return match integer(args[1]) {
            None => NOT_INTEGER,
            Some(_) => error("ERR timeout is not an integer or out of range"),
        };
    };
    let Ok(timeout) = u64::try_from(timeout) else {
        return error("ERR timeout is negative");
    };
    let offset = server.replication.offset;
    let acked = server.replication.acked(offset);
    if acked as i64 >= count || cx.in_exec {
        return Reply::count(acked);
    }
    let until = if timeout == 0 { 0 } else { cx.now + timeout };
    if let Some(client) = server.client_mut(cx.client) {
        client.waits = Some(Waits::Replicas {
            count: count as usize,
            offset,
            until,
        });
    }
    Reply::Nothing
}

fn replconf(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    for pair in args[1..].chunks(2) {
        let known = ["listening-port", "ip-address", "capa", "version"];
        let is_6_2 = server.release().has(Since::R62);
        match pair {
            [word, ..] if is(word, "ack") || is(word, "getack") => return Reply::Nothing,
            [word, _] if is(word, "rdb-only") && is_6_2 => {}
            [word, _] if known.iter().any(|name| is(word, name)) => {}
            [word, ..] => {
                return Reply::error(format!(
                    "ERR Unrecognized REPLCONF option: {}",
                    super::words::text(word)
                ));
            }
            [] => {}
        }
    }
    Reply::OK
}

/// Sends all keys as an RDB file, and nothing after it.
fn psync(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let file = server.rdb_file();
    let mark = server.random.hex40();
    let head = format!(
        "+FULLRESYNC {} {}\r\n$EOF:{mark}\r\n",
        server.replication.id, server.replication.offset
    );
    if let Some(client) = server.client_mut(cx.client) {
        client.session.is_replica = true;
        client.output.extend_from_slice(head.as_bytes());
        client.output.extend_from_slice(&file);
        client.output.extend_from_slice(mark.as_bytes());
    }
    Reply::Nothing
}
