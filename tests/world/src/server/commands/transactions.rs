//! MULTI, EXEC, WATCH.

use super::super::Server;
use super::super::client::{Transaction, Watched};
use super::super::fault::Verdict;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{self, ALLOW_BUSY, Found, Keys, LOADING, NO_SCRIPT, Row, STALE, row};
use super::words::error;

const ALWAYS: Since = Since::Always;
const FLAGS: u16 = LOADING | STALE | ALLOW_BUSY | NO_SCRIPT;

pub(super) const ROWS: &[Row] = &[
    row("multi", 1, FLAGS, Keys::None, ALWAYS, multi),
    row(
        "exec",
        1,
        LOADING | STALE | NO_SCRIPT,
        Keys::None,
        ALWAYS,
        exec,
    ),
    row("discard", 1, FLAGS, Keys::None, ALWAYS, discard),
    row("watch", -2, FLAGS, Keys::At(1, -1, 1), ALWAYS, watch),
    row("unwatch", 1, FLAGS, Keys::None, ALWAYS, unwatch),
];

fn multi(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let asking = server
        .client(cx.client)
        .is_some_and(|client| client.session.asking);
    let Some(client) = server.client_mut(cx.client) else {
        return Reply::Nothing;
    };
    if client.transaction.is_some() {
        return error("ERR MULTI calls can not be nested");
    }
    client.transaction = Some(Transaction {
        asking,
        ..Transaction::default()
    });
    Reply::OK
}

fn discard(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let Some(client) = server.client_mut(cx.client) else {
        return Reply::Nothing;
    };
    if client.transaction.take().is_none() {
        return error("ERR DISCARD without MULTI");
    }
    client.watched.clear();
    client.is_dirty = false;
    Reply::OK
}

fn unwatch(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    if let Some(client) = server.client_mut(cx.client) {
        client.watched.clear();
        client.is_dirty = false;
    }
    Reply::OK
}

fn watch(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if server
        .client(cx.client)
        .is_some_and(|client| client.transaction.is_some())
    {
        return error("ERR WATCH inside MULTI is not allowed");
    }
    for key in &args[1..] {
        let was_expired = server
            .keyspace
            .get(cx.db, key)
            .is_some_and(|entry| entry.is_expired(cx.now));
        let watched = Watched {
            db: cx.db,
            key: key.to_vec(),
            was_expired,
        };
        if let Some(client) = server.client_mut(cx.client)
            && !client.watched.contains(&watched)
        {
            client.watched.push(watched);
        }
    }
    Reply::OK
}

/// Whether a watched key was written, or is over since.
fn is_dirty(server: &Server, cx: &Cx) -> bool {
    let Some(client) = server.client(cx.client) else {
        return false;
    };
    let release = server.release();
    if !release.has(Since::R60) {
        return client.is_dirty;
    }
    let counts_all = !release.has(Since::R70);
    let is_over = |watched: &Watched| {
        let entry = server.keyspace.get(watched.db, &watched.key);
        (counts_all || !watched.was_expired) && entry.is_some_and(|entry| entry.is_expired(cx.now))
    };
    client.is_dirty || client.watched.iter().any(is_over)
}

fn exec(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let is_dirty = is_dirty(server, cx);
    let Some(client) = server.client_mut(cx.client) else {
        return Reply::Nothing;
    };
    let Some(transaction) = client.transaction.take() else {
        return error("ERR EXEC without MULTI");
    };
    client.watched.clear();
    client.is_dirty = false;
    if transaction.has_failed {
        return error("EXECABORT Transaction discarded because of previous errors.");
    }
    if is_dirty {
        return Reply::NilArray;
    }
    let mut cx = *cx;
    let before = server.faults.may_hang().then(|| Box::new(server.save()));
    let mut replies = Vec::with_capacity(transaction.queued.len());
    for words in &transaction.queued {
        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let verdict = server.faults.in_exec(&args);
        if let Verdict::Late(ms) = verdict {
            server.faults.hung_ms += ms;
            cx.stand_still(ms, server.release());
        }
        replies.push(one(server, &cx, &args, verdict));
    }
    server.faults.before_hang = before.filter(|_| server.faults.hung_ms > 0);
    Reply::Array(replies)
}

fn one(server: &mut Server, cx: &Cx, args: &[&[u8]], verdict: Verdict) -> Reply {
    let db = server
        .client(cx.client)
        .map_or(cx.db, |client| client.session.db);
    let cx = Cx {
        db,
        in_exec: true,
        ..*cx
    };
    if let Verdict::Say(reply) = verdict {
        return reply;
    }
    let reply = match table::find(&server.config, args) {
        Found::Refused(text) => Reply::error(text),
        Found::Row(row) => {
            let rule = server
                .user_of(cx.client)
                .and_then(|user| server.rule_against(user, &cx, row, args));
            match rule {
                Some(text) => Reply::error(text),
                None => server.call(&cx, row, args),
            }
        }
    };
    if let Reply::Error(text) = &reply {
        server.stats.count_error(text);
    }
    match verdict {
        Verdict::DoAndSay(other) => other,
        _ => reply,
    }
}
