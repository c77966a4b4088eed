//! EVAL. The model runs no Lua: it knows the scripts that the tool sends by their text, and those
//! that are one call. An unknown one is refused, so that nobody takes it for tried.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::{Reply, number_text};
use super::super::slots::slot_of;
use super::super::table::{
    self, CONTAINER, Found, Keys, MAY_REPLICATE, NEEDS_MEMORY, NO_SCRIPT, Row, STALE, WRITE, row,
};
use super::words::{NOT_INTEGER, error, integer, natural, text};

const ALWAYS: Since = Since::Always;
const COUNTED: Keys = Keys::Counted(2);
const RUN: u16 = NO_SCRIPT | STALE | MAY_REPLICATE;

pub(super) const ROWS: &[Row] = &[
    row("eval", -3, RUN, COUNTED, ALWAYS, |server, cx, args| {
        eval(server, cx, args, false)
    }),
    row(
        "eval_ro",
        -3,
        NO_SCRIPT | STALE,
        COUNTED,
        Since::R70,
        |server, cx, args| eval(server, cx, args, true),
    ),
    row(
        "script",
        -2,
        CONTAINER,
        Keys::None,
        ALWAYS,
        super::container,
    ),
    row(
        "script|flush",
        -2,
        NO_SCRIPT,
        Keys::None,
        ALWAYS,
        |_, _, _| Reply::OK,
    ),
    row(
        "script|kill",
        2,
        NO_SCRIPT | table::ALLOW_BUSY,
        Keys::None,
        ALWAYS,
        kill,
    ),
];

/// Carries out each command that stands in ARGV, preceded by the number of its words.
const BATCH: &str = "local out, at = {}, 1 while at <= #ARGV do local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) at = at + count + 1 end return out";

/// Deletes a key that still has this payload, and this expiry.
const DELETE_IF_SAME: &str = "pcall(function() redis.replicate_commands() end) local at = \
    redis.call('PTTL', KEYS[1]) if at >= 0 then local now = redis.call('TIME') at = at + now[1] * 1000 \
    + math.floor(now[2] / 1000) end if math.abs(at - ARGV[2]) > 2 then return 0 end if \
    redis.call('DUMP', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Deletes a stream with these settings and counts, and without groups.
const DELETE_IF_SET_SO: &str = "local facts, has = redis.call('XINFO', 'STREAM', KEYS[1]), {} for n \
    = 1, #facts, 2 do has[facts[n]] = facts[n + 1] end for n, name in ipairs({'idmp-duration', \
    'idmp-maxsize', 'iids-added'}) do if has[name] ~= tonumber(ARGV[n]) then return 0 end end if \
    has['groups'] ~= 0 then return 0 end return redis.call('DEL', KEYS[1])";

/// Whether it is a script that says of itself that it writes nothing.
pub(in super::super) fn writes_nothing(row: &Row, args: &[&[u8]]) -> bool {
    row.name == "eval"
        && args.get(1).is_some_and(|script| {
            let head = script
                .split(|&byte| byte == b'\n')
                .next()
                .unwrap_or_default();
            head.starts_with(b"#!") && text(head).contains("no-writes")
        })
}

#[derive(Default)]
struct Flags {
    has_any: bool,
    no_writes: bool,
    cross_slot: bool,
}

/// The script's own flags and its body; the error of a head that is wrong.
fn flags<'a>(server: &Server, script: &'a str) -> Result<(Flags, &'a str), Reply> {
    let Some(head) = script.strip_prefix("#!") else {
        return Ok((Flags::default(), script));
    };
    if !server.release().has(Since::R70) {
        return Err(error(
            "ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'",
        ));
    }
    let (head, body) = head
        .split_once('\n')
        .ok_or(error("ERR Invalid script shebang"))?;
    let mut flags = Flags {
        has_any: true,
        ..Flags::default()
    };
    for word in head.split_ascii_whitespace().skip(1) {
        let Some(named) = word.strip_prefix("flags=") else {
            return Err(Reply::error(format!(
                "ERR Unknown lua shebang option: {word}"
            )));
        };
        for flag in named.split(',') {
            match flag {
                "no-writes" => flags.no_writes = true,
                "allow-cross-slot-keys" => flags.cross_slot = true,
                "allow-oom" | "allow-stale" | "no-cluster" | "" => {}
                other => {
                    return Err(Reply::error(format!(
                        "ERR Unexpected flag in script shebang: {other}"
                    )));
                }
            }
        }
    }
    Ok((flags, body))
}

/// A script that runs.
struct Run<'a> {
    server: &'a mut Server,
    cx: Cx,
    flags: Flags,
    reads_only: bool,
    keys: &'a [&'a [u8]],
    argv: &'a [&'a [u8]],
    /// The slot of the keys so far.
    slot: Option<u16>,
}

fn eval(server: &mut Server, cx: &Cx, args: &[&[u8]], reads_only: bool) -> Reply {
    let Some(count) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let Ok(count) = usize::try_from(count) else {
        return error("ERR Number of keys can't be negative");
    };
    let rest = &args[3..];
    if count > rest.len() {
        return error("ERR Number of keys can't be greater than number of args");
    }
    let script = text(args[1]);
    let (flags, body) = match flags(server, &script) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let is_full = !server.make_room(cx);
    if is_full && flags.has_any && !flags.no_writes && !script.contains("allow-oom") {
        return error(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        );
    }
    let body: Vec<&str> = body.split_ascii_whitespace().collect();
    let (keys, argv) = rest.split_at(count);
    let reads_only = reads_only || flags.no_writes;
    let mut run = Run {
        server,
        cx: *cx,
        flags,
        reads_only,
        keys,
        argv,
        slot: keys.first().map(|key| slot_of(key)),
    };
    let reply = match body.join(" ").as_str() {
        BATCH => run.batch(),
        DELETE_IF_SAME => run.delete_if_same(),
        DELETE_IF_SET_SO => run.delete_if_set_so(),
        other => run.one_call(other),
    };
    // A database that the script selected is its own.
    if let Some(client) = server.client_mut(cx.client) {
        client.session.db = cx.db;
    }
    reply
}

impl Run<'_> {
    /// `redis.pcall`: what a script sees of a reply, and gives back.
    fn pcall(&mut self, args: &[&[u8]]) -> Reply {
        let row = match table::find(self.server.config(), args) {
            Found::Row(row) => row,
            Found::Refused(text) => {
                let is_unknown = text.contains("unknown command");
                let release = self.server.release();
                return error(match (is_unknown, release.has(Since::R70)) {
                    (true, true) if release.is_valkey() => "ERR Unknown command called from script",
                    (true, true) => "ERR Unknown Redis command called from script",
                    (true, false) => {
                        "@user_script: 1: Unknown Redis command called from Lua script"
                    }
                    (false, true) if release.is_valkey() => {
                        "ERR Wrong number of args calling command from script"
                    }
                    (false, true) => "ERR Wrong number of args calling Redis command from script",
                    (false, false) => {
                        "@user_script: 1: Wrong number of args calling Redis command From Lua script"
                    }
                });
            }
        };
        match self.refusal(row, args) {
            Some(refusal) => refusal,
            None => {
                let reply = plain(self.server.call(&self.cx, row, args));
                if row.name == "select" {
                    let client = self.server.client(self.cx.client);
                    self.cx.db = client.map_or(self.cx.db, |client| client.session.db);
                }
                reply
            }
        }
    }

    fn refusal(&mut self, row: &'static Row, args: &[&[u8]]) -> Option<Reply> {
        if row.flags & NO_SCRIPT != 0 {
            return Some(error(match self.server.release().has(Since::R70) {
                true if self.server.release().has(Since::V91) => {
                    "ERR This Valkey command is not allowed from script"
                }
                true => "ERR This Redis command is not allowed from script",
                false => "@user_script: 1: This Redis command is not allowed from scripts",
            }));
        }
        let server = &mut *self.server;
        if let Some(user) = server.user_of(self.cx.client)
            && let Some(text) = server.rule_against(user, &self.cx, row, args)
        {
            return Some(Reply::error(text));
        }
        if row.flags & WRITE != 0 {
            if self.reads_only {
                return Some(error(
                    "ERR Write commands are not allowed from read-only scripts.",
                ));
            }
            if server.is_replica() {
                return Some(error(
                    "READONLY You can't write against a read only replica.",
                ));
            }
            if row.flags & NEEDS_MEMORY != 0 && !server.make_room(&self.cx) {
                return Some(error(
                    "OOM command not allowed when used memory > 'maxmemory'.",
                ));
            }
        }
        let keys = table::keys_of(row, args);
        let is_bound = server.config().cluster && self.flags.has_any && !self.flags.cross_slot;
        for slot in keys.iter().map(|key| slot_of(key)).filter(|_| is_bound) {
            if *self.slot.get_or_insert(slot) != slot {
                return Some(error(
                    "ERR Script attempted to access keys that do not hash to the same slot",
                ));
            }
        }
        let release = server.release();
        server.script_leaves_node(&keys).then(|| match release.has(Since::R70) {
            true if release.has(Since::V91) => {
                error("ERR Attempted to access a non local key in a cluster node")
            }
            true => error("ERR Script attempted to access a non local key in a cluster node"),
            false => error(
                "@user_script: 1: Lua script attempted to access a non local key in a cluster node",
            ),
        })
    }

    fn batch(&mut self) -> Reply {
        let mut out = Vec::new();
        let mut at = 0;
        while at < self.argv.len() {
            let count = natural(self.argv[at]).unwrap_or(0) as usize;
            let words = self
                .argv
                .get(at + 1..at + 1 + count)
                .unwrap_or_default()
                .to_vec();
            out.push(match words.is_empty() {
                true => {
                    error("ERR Please specify at least one argument for this redis.call() call")
                }
                false => self.pcall(&words),
            });
            at += count + 1;
        }
        Reply::Array(out)
    }

    fn key(&self) -> Vec<u8> {
        self.keys
            .first()
            .map(|key| key.to_vec())
            .unwrap_or_default()
    }

    fn delete_if_same(&mut self) -> Reply {
        let key = self.key();
        let mut at = match self.pcall(&[b"PTTL", &key]) {
            Reply::Int(left) => left,
            refusal => return self.raised(refusal),
        };
        if at >= 0 {
            match self.pcall(&[b"TIME"]) {
                refusal @ Reply::Error(_) => return self.raised(refusal),
                _ => at += self.cx.now as i64,
            }
        }
        let wanted = self.argv.get(1).and_then(|word| integer(word));
        if wanted.is_none_or(|wanted| at.abs_diff(wanted) > 2) {
            return Reply::Int(0);
        }
        match self.pcall(&[b"DUMP", &key]) {
            Reply::Bulk(dump) if self.argv.first().is_some_and(|wanted| *wanted == dump) => {
                let reply = self.pcall(&[b"DEL", &key]);
                self.raised(reply)
            }
            refusal @ Reply::Error(_) => self.raised(refusal),
            _ => Reply::Int(0),
        }
    }

    fn delete_if_set_so(&mut self) -> Reply {
        let key = self.key();
        let facts = match self.pcall(&[b"XINFO", b"STREAM", &key]) {
            Reply::Array(facts) => facts,
            refusal => return self.raised(refusal),
        };
        let has = |name: &str| {
            let mut pairs = facts.chunks_exact(2);
            let found = pairs.find(|pair| pair[0] == Reply::bulk(name));
            found.map(|pair| pair[1].clone())
        };
        for (n, name) in ["idmp-duration", "idmp-maxsize", "iids-added"]
            .into_iter()
            .enumerate()
        {
            let wanted = self
                .argv
                .get(n)
                .and_then(|word| integer(word))
                .map(Reply::Int);
            if has(name) != wanted {
                return Reply::Int(0);
            }
        }
        if has("groups") != Some(Reply::Int(0)) {
            return Reply::Int(0);
        }
        let reply = self.pcall(&[b"DEL", &key]);
        self.raised(reply)
    }

    /// What a client is told when `redis.call` fails.
    fn raised(&self, reply: Reply) -> Reply {
        let Reply::Error(text) = reply else {
            return reply;
        };
        let sha = "e".repeat(40);
        Reply::error(match self.server.release().has(Since::R70) {
            true => format!("{text} script: {sha}, on @user_script:1."),
            false => format!("ERR Error running script (call to f_{sha}): @user_script:1: {text}"),
        })
    }

    /// `return 1`, `return redis.call('GET', KEYS[1])` and the like.
    fn one_call(&mut self, body: &str) -> Reply {
        let Some(body) = body.strip_prefix("return ") else {
            return unknown(body);
        };
        if let Some(number) = integer(body.as_bytes()) {
            return Reply::Int(number);
        }
        let (call, is_protected) = match body.strip_prefix("redis.pcall(") {
            Some(call) => (Some(call), true),
            None => (body.strip_prefix("redis.call("), false),
        };
        let Some(call) = call.and_then(|call| call.strip_suffix(')')) else {
            return unknown(body);
        };
        let word = |part: &str| -> Option<Vec<u8>> {
            let part = part.trim();
            let quoted = part
                .strip_prefix(['\'', '"'])
                .and_then(|part| part.strip_suffix(['\'', '"']));
            let indexed = |name: &str, rows: &[&[u8]]| {
                let index: usize = part.strip_prefix(name)?.strip_suffix(']')?.parse().ok()?;
                rows.get(index.checked_sub(1)?).map(|row| row.to_vec())
            };
            let quoted = quoted.map(|part| part.as_bytes().to_vec());
            quoted
                .or_else(|| indexed("KEYS[", self.keys))
                .or_else(|| indexed("ARGV[", self.argv))
        };
        let words: Option<Vec<Vec<u8>>> = call.split(',').map(word).collect();
        let Some(words) = words else {
            return unknown(body);
        };
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let reply = self.pcall(&words);
        if is_protected {
            reply
        } else {
            self.raised(reply)
        }
    }
}

fn unknown(body: &str) -> Reply {
    Reply::error(format!("ERR the model does not know this script: {body}"))
}

/// A reply as a script has it: RESP2, in which a nil is `false`.
fn plain(reply: Reply) -> Reply {
    match reply {
        Reply::Map(pairs) => {
            let flat = pairs
                .into_iter()
                .flat_map(|(name, value)| [plain(name), plain(value)]);
            Reply::Array(flat.collect())
        }
        Reply::Array(rows) | Reply::Set(rows) | Reply::Push(rows) => {
            Reply::Array(rows.into_iter().map(plain).collect())
        }
        Reply::Double(number) => Reply::bulk(number_text(number)),
        Reply::Text(text) => Reply::bulk(text),
        Reply::NilArray => Reply::Nil,
        other => other,
    }
}

fn kill(server: &mut Server, _: &Cx, _: &[&[u8]]) -> Reply {
    let was_busy = std::mem::take(&mut server.faults.conditions.busy);
    match was_busy {
        true => Reply::OK,
        false => error("NOTBUSY No scripts in execution right now."),
    }
}
