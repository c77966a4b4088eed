//! CONFIG, ACL, MODULE, DEBUG.

use super::super::Server;
use super::super::config::{Commands, User};
use super::super::glob;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{self, CONTAINER, Found, Keys, LOADING, NO_SCRIPT, Row, STALE, row};
use super::words::{natural, text, wrong_count};

const ALWAYS: Since = Since::Always;
const FLAGS: u16 = LOADING | STALE | NO_SCRIPT;
const NONE: Keys = Keys::None;

pub(super) const ROWS: &[Row] = &[
    row(
        "config",
        -2,
        FLAGS | CONTAINER,
        NONE,
        ALWAYS,
        super::container,
    ),
    row("config|get", -3, FLAGS, NONE, ALWAYS, config_get),
    row("config|set", -4, FLAGS, NONE, ALWAYS, config_set),
    row("config|resetstat", 2, FLAGS, NONE, ALWAYS, resetstat),
    row(
        "acl",
        -2,
        FLAGS | CONTAINER,
        NONE,
        Since::R60,
        super::container,
    ),
    row("acl|whoami", 2, FLAGS, NONE, Since::R60, whoami),
    row("acl|users", 2, FLAGS, NONE, Since::R60, users),
    row("acl|getuser", 3, FLAGS, NONE, Since::R60, getuser),
    row("acl|dryrun", -4, FLAGS, NONE, Since::R70, dryrun),
    row(
        "module",
        -2,
        FLAGS | CONTAINER,
        NONE,
        ALWAYS,
        super::container,
    ),
    row("module|list", 2, FLAGS, NONE, ALWAYS, |server, _, _| {
        modules_reply(server)
    }),
];

/// Names and values of the settings.
fn settings(server: &Server) -> Vec<(&'static str, String)> {
    let limits = &server.config().limits;
    let mut rows = vec![
        ("maxmemory", limits.max_memory.to_string()),
        ("maxmemory-policy", limits.policy.clone()),
        ("maxclients", limits.max_clients.to_string()),
        ("proto-max-bulk-len", limits.max_bulk.to_string()),
        ("databases", server.keyspace.databases().max(16).to_string()),
        ("save", String::new()),
        ("appendonly", "no".to_owned()),
        ("timeout", "0".to_owned()),
        ("notify-keyspace-events", String::new()),
    ];
    if server.release().has(Since::R60) {
        let enabled = if server.config().cluster { "yes" } else { "no" };
        rows.push(("cluster-enabled", enabled.to_owned()));
    }
    if server.release().has(Since::R60) {
        rows.push(("client-query-buffer-limit", (1u64 << 30).to_string()));
    }
    if server.has_databases_in_clusters() {
        let databases = if server.config().cluster {
            server.keyspace.databases()
        } else {
            1
        };
        rows.push(("cluster-databases", databases.to_string()));
    }
    rows
}

fn config_get(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    if args.len() > 3 && !server.release().has(Since::R70) {
        return Reply::error(format!(
            "ERR Unknown subcommand or wrong number of arguments for '{}'. Try CONFIG HELP.",
            text(args[1])
        ));
    }
    let is_wanted = |name: &str| {
        args[2..]
            .iter()
            .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let rows = settings(server)
        .into_iter()
        .filter(|(name, _)| is_wanted(name));
    Reply::Map(
        rows.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
            .collect(),
    )
}

fn config_set(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    if !args.len().is_multiple_of(2) {
        return wrong_count("config|set");
    }
    for pair in args[2..].chunks(2) {
        let (name, value) = (text(pair[0]).to_lowercase(), text(pair[1]));
        let limits = &mut server.config.limits;
        let number = natural(pair[1]);
        match (name.as_str(), number) {
            ("maxmemory", Some(number)) => limits.max_memory = number,
            ("maxmemory-policy", _) => limits.policy = value,
            ("maxclients", Some(number)) => limits.max_clients = number as usize,
            ("proto-max-bulk-len", Some(number)) => limits.max_bulk = number,
            _ => {
                return Reply::error(match server.release().has(Since::R70) {
                    true => format!(
                        "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                    ),
                    false => format!("ERR Unsupported CONFIG parameter: {name}"),
                });
            }
        }
    }
    Reply::OK
}

fn resetstat(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    server.stats.reset();
    Reply::OK
}

fn whoami(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    let user = server
        .client(cx.client)
        .and_then(|client| client.session.user.clone());
    Reply::bulk(user.unwrap_or_else(|| "default".to_owned()))
}

fn users(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    let mut names: Vec<String> = server
        .config()
        .users
        .iter()
        .map(|user| user.name.clone())
        .collect();
    if !names.iter().any(|name| name == "default") {
        names.push("default".to_owned());
    }
    names.sort();
    Reply::bulks(names)
}

/// A user by name; the default one need not have been set up.
fn known_user(server: &Server, name: &[u8]) -> Option<User> {
    let name = text(name);
    match server.user(&name) {
        Some(user) => Some(user.clone()),
        None => (name == "default").then(|| User::new("default", None)),
    }
}

fn getuser(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    let Some(user) = known_user(server, args[2]) else {
        return Reply::NilArray;
    };
    let all_keys = user.keys.iter().any(|pattern| pattern == "*");
    let mut flags = vec!["on"];
    if !release.has(Since::R70) {
        flags.extend(all_keys.then_some("allkeys"));
        flags.extend(release.has(Since::R62).then_some("allchannels"));
        let all_commands = matches!(&user.commands, Commands::AllBut(rows) if rows.is_empty());
        flags.extend(all_commands.then_some("allcommands"));
    }
    flags.extend(user.password.is_none().then_some("nopass"));
    if release.has(Since::R72) && !release.has(Since::V91) {
        flags.push("sanitize-payload");
    }
    let rules = |rows: &[String], sign: &str, first: &str| {
        let rows = rows.iter().map(|row| format!(" {sign}{row}"));
        rows.fold(first.to_owned(), |rules, row| rules + &row)
    };
    let commands = match &user.commands {
        Commands::AllBut(rows) => rules(rows, "-", "+@all"),
        Commands::Only(rows) => rules(rows, "+", "-@all"),
    };
    let keys = match release.has(Since::R70) {
        true => Reply::bulk(
            user.keys
                .iter()
                .map(|key| format!("~{key}"))
                .collect::<Vec<_>>()
                .join(" "),
        ),
        false => Reply::bulks(&user.keys),
    };
    let mut rows = vec![
        (
            "flags",
            Reply::Set(flags.into_iter().map(Reply::bulk).collect()),
        ),
        ("passwords", Reply::Array(Vec::new())),
        ("commands", Reply::bulk(commands)),
        ("keys", keys),
    ];
    match release.has(Since::R70) {
        true => rows.push(("channels", Reply::bulk("&*"))),
        false if release.has(Since::R62) => rows.push(("channels", Reply::bulks(["*"]))),
        false => {}
    }
    if release.has(Since::V91) {
        let databases = user
            .databases
            .as_ref()
            .map_or("alldbs".to_owned(), |databases| {
                let databases: Vec<String> = databases.iter().map(u32::to_string).collect();
                format!("db={}", databases.join(","))
            });
        rows.push(("databases", Reply::bulk(databases)));
    }
    if release.has(Since::R70) {
        rows.push(("selectors", Reply::Array(Vec::new())));
    }
    Reply::Map(
        rows.into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

fn dryrun(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(user) = known_user(server, args[2]) else {
        return Reply::error(format!("ERR User '{}' not found", text(args[2])));
    };
    let row = match table::find(server.config(), &args[3..]) {
        Found::Row(row) => row,
        Found::Refused(refusal) if refusal.contains("unknown command") => {
            return Reply::error(format!("ERR Command '{}' not found", text(args[3])));
        }
        Found::Refused(refusal) => return Reply::error(refusal),
    };
    let command = row.name.split('|').next().unwrap_or_default();
    let name = match server.release().has(Since::R72) {
        true => format!("User {}", user.name),
        false => "This user".to_owned(),
    };
    if !user.may(command, row.name) {
        return Reply::bulk(format!(
            "{name} has no permissions to run the '{}' command",
            row.name
        ));
    }
    let refused = table::keys_of(row, &args[3..])
        .into_iter()
        .find(|key| !user.may_use(key));
    let forbidden = server.forbidden_database(&user, cx, row, &args[3..]);
    match refused {
        Some(key) => Reply::bulk(format!(
            "{name} has no permissions to access the '{}' key",
            text(key)
        )),
        None if forbidden.is_some() => {
            let db = forbidden.unwrap_or_default();
            Reply::bulk(format!("{name} has no permissions to access database {db}"))
        }
        None => Reply::OK,
    }
}

/// The modules that are loaded.
pub(super) fn modules_reply(server: &Server) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let modules = server.config().modules.iter().map(|module| {
        let mut rows = vec![
            ("name", Reply::bulk(&module.name)),
            ("ver", Reply::unsigned(module.version)),
        ];
        if is_7 {
            rows.push(("path", Reply::bulk(&module.path)));
            rows.push(("args", Reply::Array(Vec::new())));
        }
        Reply::Map(
            rows.into_iter()
                .map(|(name, value)| (Reply::bulk(name), value))
                .collect(),
        )
    });
    Reply::Array(modules.collect())
}
