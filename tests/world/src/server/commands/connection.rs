//! Commands for the connection: who is there, in which protocol and database.

use super::super::Server;
use super::super::client::{Client, ClientId, Replies};
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{ALLOW_BUSY, Keys, LOADING, NO_AUTH, NO_SCRIPT, Row, STALE, row};
use super::words::{self, SYNTAX, error, integer, is, text, wrong_count};

const ALWAYS: Since = Since::Always;
const ANY_TIME: u16 = LOADING | STALE | NO_AUTH | ALLOW_BUSY | NO_SCRIPT;

pub(super) const ROWS: &[Row] = &[
    row("ping", -1, STALE, Keys::None, ALWAYS, ping),
    row("echo", 2, 0, Keys::None, ALWAYS, |_, _, args| {
        Reply::bulk(args[1])
    }),
    row("select", 2, LOADING | STALE, Keys::None, ALWAYS, select),
    row("auth", -2, ANY_TIME, Keys::None, ALWAYS, auth),
    row("hello", -1, ANY_TIME, Keys::None, Since::R60, hello),
    row("quit", -1, ANY_TIME, Keys::None, ALWAYS, quit),
    row("reset", 1, ANY_TIME, Keys::None, Since::R62, reset),
    row("time", 1, LOADING | STALE, Keys::None, ALWAYS, time),
];

fn ping(_: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    match args {
        [_] => Reply::Simple("PONG"),
        [_, word] => Reply::bulk(word),
        _ => wrong_count("ping"),
    }
}

fn time(_: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let micros = cx.clock % 1000 * 1000;
    Reply::bulks([(cx.clock / 1000).to_string(), micros.to_string()])
}

fn select(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_single = server.config().cluster && !server.has_databases_in_clusters();
    if is_single && integer(args[1]).is_some_and(|number| number != 0) {
        return error("ERR SELECT is not allowed in cluster mode");
    }
    match words::database(server, args[1]) {
        Err(refusal) => refusal,
        Ok(db) => {
            if let Some(client) = server.client_mut(cx.client) {
                client.session.db = db;
            }
            Reply::OK
        }
    }
}

fn quit(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    server.close(cx.client);
    Reply::OK
}

fn reset(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let user = server.first_user();
    if let Some(client) = server.client_mut(cx.client) {
        let former = std::mem::replace(client, Client::new(cx.client, user));
        (client.input, client.output) = (former.input, former.output);
    }
    Reply::Simple("RESET")
}

const NO_PASSWORD: &str = "AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";

/// Lets a client in as a user; why not.
fn log_in(server: &mut Server, id: ClientId, name: &str, password: &[u8]) -> Result<(), Reply> {
    let is_right = match server.user(name) {
        Some(user) => user
            .password
            .as_ref()
            .is_none_or(|known| known.as_bytes() == password),
        None => name == "default",
    };
    if !is_right {
        return Err(error(match server.release().has(Since::R62) {
            true => "WRONGPASS invalid username-password pair or user is disabled.",
            false => "WRONGPASS invalid username-password pair",
        }));
    }
    if let Some(client) = server.client_mut(id) {
        client.session.user = Some(name.to_owned());
    }
    Ok(())
}

fn auth(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let has_acl = server.release().has(Since::R60);
    if args.len() > 3 {
        return SYNTAX;
    }
    if args.len() == 3 && !has_acl {
        return wrong_count("auth");
    }
    let is_free = server
        .user("default")
        .is_none_or(|user| user.password.is_none());
    if args.len() == 2 && is_free {
        return match has_acl {
            true => Reply::error(format!("ERR {NO_PASSWORD}")),
            false => error("ERR Client sent AUTH, but no password is set"),
        };
    }
    let name = if args.len() == 3 {
        text(args[1])
    } else {
        "default".to_owned()
    };
    match log_in(server, cx.client, &name, args[args.len() - 1]) {
        Ok(()) => Reply::OK,
        Err(_) if !has_acl => error("ERR invalid password"),
        Err(refusal) => refusal,
    }
}

fn hello(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    if args.len() == 1 && !release.has(Since::R62) {
        return wrong_count("hello");
    }
    let mut protocol = None;
    if let Some(word) = args.get(1) {
        match integer(word) {
            Some(number @ 2..=3) => protocol = Some(number as u8),
            None if release.has(Since::R62) => {
                return error("ERR Protocol version is not an integer or out of range");
            }
            _ => return error("NOPROTO unsupported protocol version"),
        }
    }
    let mut name = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        match &args[at..] {
            [_, user, password, ..] if is(word, "auth") => {
                if let Err(refusal) = log_in(server, cx.client, &text(user), password) {
                    return refusal;
                }
                at += 3;
            }
            [_, wanted, ..] if is(word, "setname") => {
                name = Some(wanted.to_vec());
                at += 2;
            }
            _ => return Reply::error(format!("ERR Syntax error in HELLO option '{}'", text(word))),
        }
    }
    let Some(client) = server.client_mut(cx.client) else {
        return Reply::Nothing;
    };
    if client.session.user.is_none() {
        if !release.has(Since::R72) {
            return error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                 HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
                 the RESP protocol version at the same time",
            );
        }
        return error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
             <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
             RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        client.session.name = name;
    }
    client.session.protocol = protocol.unwrap_or(client.session.protocol);
    let protocol = client.session.protocol;
    let role = if server.is_replica() {
        "replica"
    } else {
        "master"
    };
    let mode = if server.config().cluster {
        "cluster"
    } else {
        "standalone"
    };
    let rows = [
        (
            "server",
            Reply::bulk(if release.is_valkey() {
                "valkey"
            } else {
                "redis"
            }),
        ),
        ("version", Reply::bulk(release.version_text())),
        ("proto", Reply::Int(i64::from(protocol))),
        ("id", Reply::unsigned(cx.client)),
        ("mode", Reply::bulk(mode)),
        ("role", Reply::bulk(role)),
        ("modules", super::admin::modules_reply(server)),
    ];
    Reply::Map(
        rows.into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

/// CLIENT REPLY: it is answered to only if replies are on.
pub(super) fn client_reply(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(client) = server.client_mut(cx.client) else {
        return Reply::Nothing;
    };
    let replies = &mut client.session.replies;
    match args[2] {
        word if is(word, "on") => {
            *replies = Replies::On;
            Reply::OK
        }
        word if is(word, "off") => {
            *replies = Replies::Off;
            Reply::Nothing
        }
        word if is(word, "skip") => {
            if *replies == Replies::On {
                *replies = Replies::SkipNext;
            }
            Reply::Nothing
        }
        _ => SYNTAX,
    }
}
