//! The CLIENT command.

use super::super::Server;
use super::super::client::{Client, ClientId, Tracking, WORLD, Waits};
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{CONTAINER, Keys, LOADING, NO_SCRIPT, Row, STALE, row};
use super::super::time::Pause;
use super::connection::client_reply;
use super::words::{SYNTAX, error, integer, is, text};

const ALWAYS: Since = Since::Always;
const FLAGS: u16 = LOADING | STALE | NO_SCRIPT;
const NONE: Keys = Keys::None;

pub(super) const ROWS: &[Row] = &[
    row(
        "client",
        -2,
        FLAGS | CONTAINER,
        NONE,
        ALWAYS,
        super::container,
    ),
    row("client|id", 2, FLAGS, NONE, ALWAYS, |_, cx, _| {
        Reply::unsigned(cx.client)
    }),
    row("client|getname", 2, FLAGS, NONE, ALWAYS, getname),
    row("client|setname", 3, FLAGS, NONE, ALWAYS, setname),
    row("client|setinfo", 4, FLAGS, NONE, Since::R72, |_, _, _| {
        Reply::OK
    }),
    row("client|list", -2, FLAGS, NONE, ALWAYS, list),
    row("client|info", 2, FLAGS, NONE, Since::R62, info),
    row("client|kill", -3, FLAGS, NONE, ALWAYS, kill),
    row("client|pause", -3, FLAGS, NONE, ALWAYS, pause),
    row("client|unpause", 2, FLAGS, NONE, Since::R62, unpause),
    row("client|reply", 3, FLAGS, NONE, ALWAYS, client_reply),
    row(
        "client|no-evict",
        3,
        FLAGS,
        NONE,
        Since::R70,
        |server, cx, args| switch(server, cx, args, |client, on| client.session.no_evict = on),
    ),
    row(
        "client|no-touch",
        3,
        FLAGS,
        NONE,
        Since::R72,
        |server, cx, args| switch(server, cx, args, |client, on| client.session.no_touch = on),
    ),
    row("client|tracking", -3, FLAGS, NONE, Since::R60, tracking),
    row(
        "client|trackinginfo",
        2,
        FLAGS,
        NONE,
        Since::R62,
        tracking_info,
    ),
];

fn getname(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let name = server
        .client(cx.client)
        .map(|client| client.session.name.clone());
    Reply::or_nil(name.filter(|name| !name.is_empty()))
}

fn setname(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args[2].iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return error("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    if let Some(client) = server.client_mut(cx.client) {
        client.session.name = args[2].to_vec();
    }
    Reply::OK
}

fn line(server: &Server, client: &Client) -> String {
    let session = &client.session;
    let multi = client
        .transaction
        .as_ref()
        .map_or(-1, |multi| multi.queued.len() as i64);
    let flags = match client.tracking {
        Some(_) => "t",
        None => "N",
    };
    let mut line = format!(
        "id={} addr=10.0.0.1:{} fd=8 name={} age=0 idle=0 flags={flags} db={} sub=0 psub=0 \
         multi={multi} qbuf=0 qbuf-free=0 obl=0 oll=0 omem={} events=r cmd={}",
        client.id,
        40_000 + client.id % 20_000,
        text(&session.name),
        session.db,
        client.output.len(),
        session.last_command,
    );
    if server.release().has(Since::R60) {
        let user = session.user.as_deref().unwrap_or("(superuser)");
        line.push_str(&format!(" user={user}"));
    }
    line
}

fn list(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let wanted: Vec<ClientId> = match &args[2..] {
        [] => Vec::new(),
        [word, _] if is(word, "type") => Vec::new(),
        [word, ids @ ..] if is(word, "id") && server.release().has(Since::R62) => ids
            .iter()
            .filter_map(|id| super::words::natural(id))
            .collect(),
        _ => return SYNTAX,
    };
    let all = args.len() == 2 || is(args[2], "type");
    let clients = server
        .clients
        .iter()
        .filter(|client| client.id != WORLD && !client.is_closed);
    let clients = clients.filter(|client| all || wanted.contains(&client.id));
    Reply::Text(clients.map(|client| line(server, client) + "\n").collect())
}

fn info(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let line = server
        .client(cx.client)
        .map(|client| line(server, client) + "\n");
    Reply::Text(line.unwrap_or_default())
}

fn kill(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len() == 3 {
        return error("ERR No such client");
    }
    if args.len().is_multiple_of(2) {
        let mut wanted = None;
        let mut skips_me = true;
        for pair in args[2..].chunks(2) {
            match pair {
                [word, id] if is(word, "id") => match integer(id) {
                    Some(id) if id > 0 || !server.release().has(Since::R70) => {
                        wanted = Some(id as u64);
                    }
                    None if server.release().is_valkey() => return SYNTAX,
                    None if !server.release().has(Since::R70) => return super::words::NOT_INTEGER,
                    _ => return error("ERR client-id should be greater than 0"),
                },
                [word, yes] if is(word, "skipme") => skips_me = is(yes, "yes"),
                [word, _] if is(word, "type") || is(word, "user") || is(word, "addr") => {}
                _ => return SYNTAX,
            }
        }
        let is_meant = |client: &Client| match wanted {
            Some(id) => client.id == id,
            None => true,
        };
        let meant: Vec<ClientId> = server
            .clients
            .iter()
            .filter(|client| client.id != WORLD && !client.is_closed && is_meant(client))
            .filter(|client| !(skips_me && wanted.is_none() && client.id == cx.client))
            .map(|client| client.id)
            .collect();
        for id in &meant {
            server.close(*id);
            if *id != cx.client
                && let Some(client) = server.client_mut(*id)
            {
                client.output.clear();
            }
        }
        return Reply::count(meant.len());
    }
    SYNTAX
}

fn pause(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let has_kinds = server.release().has(Since::R62);
    let is_of_all = match &args[3..] {
        [] => true,
        [word, rest @ ..] if has_kinds && (rest.is_empty() || server.release().is_valkey()) => {
            match word {
                _ if is(word, "all") => true,
                _ if is(word, "write") => false,
                _ => return error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
            }
        }
        _ => {
            let word = text(args[1]);
            let [unknown, dot] = match () {
                () if server.release().has(Since::R70) => ["unknown", "."],
                () if has_kinds => ["Unknown", "."],
                () => ["Unknown", ""],
            };
            return Reply::error(format!(
                "ERR {unknown} subcommand or wrong number of arguments for '{word}'. Try CLIENT HELP{dot}"
            ));
        }
    };
    let Some(ms) = integer(args[2]) else {
        return error("ERR timeout is not an integer or out of range");
    };
    let Ok(ms) = u64::try_from(ms) else {
        return error("ERR timeout is negative");
    };
    let until = cx.now.saturating_add(ms);
    // The stronger of two, and the longer one, hold.
    let standing = server.time.pause(cx.now);
    let until = standing.map_or(until, |standing| standing.until.max(until));
    let is_of_all = is_of_all || standing.is_some_and(|standing| standing.is_of_all);
    server.time.set_pause(Some(Pause { until, is_of_all }));
    Reply::OK
}

fn unpause(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    server.time.set_pause(None);
    // The others are served when this turn's command is done.
    let held = server
        .clients
        .iter()
        .any(|client| client.waits == Some(Waits::Pause));
    if held {
        server.resume(cx.now);
    }
    Reply::OK
}

fn switch(server: &mut Server, cx: &Cx, args: &[&[u8]], set: fn(&mut Client, bool)) -> Reply {
    let on = match args[2] {
        word if is(word, "on") => true,
        word if is(word, "off") => false,
        _ => return SYNTAX,
    };
    if let Some(client) = server.client_mut(cx.client) {
        set(client, on);
    }
    Reply::OK
}

fn tracking(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let on = match args[2] {
        word if is(word, "on") => true,
        word if is(word, "off") => false,
        _ => return SYNTAX,
    };
    let mut wanted = Tracking::default();
    let (mut is_bcast, mut prefixes) = (false, Vec::new());
    let mut rest = args[3..].iter();
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "bcast") => is_bcast = true,
            _ if is(word, "noloop") => wanted.no_loop = true,
            _ if is(word, "prefix") => match rest.next() {
                Some(prefix) => prefixes.push(prefix.to_vec()),
                None => return SYNTAX,
            },
            _ => return SYNTAX,
        }
    }
    if !on {
        server.track(cx.client, None);
        return Reply::OK;
    }
    if !prefixes.is_empty() && !is_bcast {
        return error("ERR PREFIX option requires BCAST mode to be enabled");
    }
    let Some(client) = server.client(cx.client) else {
        return Reply::Nothing;
    };
    if client
        .tracking
        .as_ref()
        .is_some_and(|standing| standing.prefixes.is_some() != is_bcast)
    {
        return error(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
             then re-enabling it with a different mode.",
        );
    }
    if is_bcast {
        wanted.prefixes = Some(prefixes);
    }
    server.track(cx.client, Some(wanted));
    Reply::OK
}

fn tracking_info(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let tracking = server
        .client(cx.client)
        .and_then(|client| client.tracking.as_ref());
    let mut flags = vec![Reply::bulk(if tracking.is_some() { "on" } else { "off" })];
    let mut prefixes = Vec::new();
    if let Some(tracking) = tracking {
        if let Some(known) = &tracking.prefixes {
            flags.push(Reply::bulk("bcast"));
            prefixes = known.iter().map(Reply::bulk).collect();
            if prefixes.is_empty() {
                prefixes.push(Reply::bulk(""));
            }
        }
        if tracking.no_loop {
            flags.push(Reply::bulk("noloop"));
        }
    }
    let redirect = if tracking.is_some() { 0 } else { -1 };
    Reply::Map(vec![
        (Reply::bulk("flags"), Reply::Set(flags)),
        (Reply::bulk("redirect"), Reply::Int(redirect)),
        (Reply::bulk("prefixes"), Reply::Array(prefixes)),
    ])
}
