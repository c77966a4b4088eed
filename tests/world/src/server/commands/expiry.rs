//! Expiry of keys.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, Row, WRITE, row};
use super::words::{NOT_INTEGER, error, integer, is};

const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row("ttl", 2, 0, FIRST, ALWAYS, |server, cx, args| {
        told(server, cx, args, Unit::SECONDS)
    }),
    row("pttl", 2, 0, FIRST, ALWAYS, |server, cx, args| {
        told(server, cx, args, Unit::MILLIS)
    }),
    row("expiretime", 2, 0, FIRST, Since::R70, |server, cx, args| {
        told(server, cx, args, Unit::SECONDS.absolute())
    }),
    row(
        "pexpiretime",
        2,
        0,
        FIRST,
        Since::R70,
        |server, cx, args| told(server, cx, args, Unit::MILLIS.absolute()),
    ),
    row("expire", -3, WRITE, FIRST, ALWAYS, |server, cx, args| {
        expire(server, cx, args, Unit::SECONDS)
    }),
    row("pexpire", -3, WRITE, FIRST, ALWAYS, |server, cx, args| {
        expire(server, cx, args, Unit::MILLIS)
    }),
    row("expireat", -3, WRITE, FIRST, ALWAYS, |server, cx, args| {
        expire(server, cx, args, Unit::SECONDS.absolute())
    }),
    row("pexpireat", -3, WRITE, FIRST, ALWAYS, |server, cx, args| {
        expire(server, cx, args, Unit::MILLIS.absolute())
    }),
    row("persist", 2, WRITE, FIRST, ALWAYS, persist),
];

/// How a time is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub is_seconds: bool,
    pub is_absolute: bool,
}

impl Unit {
    pub const SECONDS: Self = Self {
        is_seconds: true,
        is_absolute: false,
    };
    pub const MILLIS: Self = Self {
        is_seconds: false,
        is_absolute: false,
    };

    pub const fn absolute(self) -> Self {
        Self {
            is_absolute: true,
            ..self
        }
    }

    /// The option of SET and GETEX.
    pub fn of_option(word: &[u8]) -> Option<Self> {
        let units = [
            ("ex", Self::SECONDS),
            ("px", Self::MILLIS),
            ("exat", Self::SECONDS.absolute()),
            ("pxat", Self::MILLIS.absolute()),
        ];
        units
            .into_iter()
            .find(|(name, _)| is(word, name))
            .map(|(_, unit)| unit)
    }

    /// The name of the command for keys.
    fn command(self) -> &'static str {
        match (self.is_seconds, self.is_absolute) {
            (true, false) => "expire",
            (false, false) => "pexpire",
            (true, true) => "expireat",
            (false, true) => "pexpireat",
        }
    }
}

/// The error of a time that cannot be.
pub(super) fn invalid(server: &Server, command: &str) -> Reply {
    match server.release().has(Since::R62) {
        true if server.release().has(Since::R70) => {
            Reply::error(format!("ERR invalid expire time in '{command}' command"))
        }
        true => Reply::error(format!("ERR invalid expire time in {command}")),
        false => Reply::error(format!("ERR invalid expire time in {command}")),
    }
}

/// A number as Unix ms. Before 6.2 it runs over; `None` where that is refused.
fn scaled(server: &Server, cx: &Cx, number: i64, unit: Unit) -> Option<i64> {
    let factor = if unit.is_seconds { 1000 } else { 1 };
    let base = if unit.is_absolute { 0 } else { cx.clock as i64 };
    match server.release().has(Since::R62) {
        true => number.checked_mul(factor)?.checked_add(base),
        false => Some(number.wrapping_mul(factor).wrapping_add(base)),
    }
}

/// The time that a word says, in Unix ms. It must be positive.
pub(super) fn of_word(
    server: &Server,
    cx: &Cx,
    command: &str,
    word: &[u8],
    unit: Unit,
) -> Result<u64, Reply> {
    let number = integer(word).ok_or(NOT_INTEGER)?;
    if number <= 0 {
        return Err(invalid(server, command));
    }
    let at = scaled(server, cx, number, unit);
    at.map(|at| at.max(0) as u64)
        .ok_or_else(|| invalid(server, command))
}

/// Gives a key its expiry; one that is over already goes.
pub(super) fn set(server: &mut Server, cx: &Cx, key: &[u8], at: u64) {
    if at <= cx.clock && !server.is_replica() {
        server.delete(cx, key);
        return;
    }
    server.keyspace.set_expiry(cx.db, key, Some(at));
    server.signal(cx, key);
}

fn told(server: &mut Server, cx: &Cx, args: &[&[u8]], unit: Unit) -> Reply {
    let Some(entry) = server.look(cx, args[1]) else {
        return Reply::Int(-2);
    };
    let Some(at) = entry.expire_at else {
        return Reply::Int(-1);
    };
    let ms = if unit.is_absolute {
        at
    } else {
        at.saturating_sub(cx.clock)
    };
    Reply::unsigned(match unit.is_seconds {
        true => (ms + 500) / 1000,
        false => ms,
    })
}

fn expire(server: &mut Server, cx: &Cx, args: &[&[u8]], unit: Unit) -> Reply {
    if args.len() > 3 && !server.release().has(Since::R70) {
        return super::words::wrong_count(unit.command());
    }
    let Some(number) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let at = scaled(server, cx, number, unit);
    let Some(at) = at else {
        return invalid(server, unit.command());
    };
    let standing = match server.look(cx, args[1]) {
        None => None,
        Some(entry) => Some(entry.expire_at),
    };
    for word in &args[3..] {
        if !["nx", "xx", "gt", "lt"].iter().any(|name| is(word, name)) {
            return Reply::error(format!(
                "ERR Unsupported option {}",
                super::words::text(word)
            ));
        }
    }
    let has = |name: &str| args[3..].iter().any(|word| is(word, name));
    if has("nx") && (has("xx") || has("gt") || has("lt")) {
        return error("ERR NX and XX, GT or LT options at the same time are not compatible");
    }
    if has("gt") && has("lt") {
        return error("ERR GT and LT options at the same time are not compatible");
    }
    let Some(standing) = standing else {
        return Reply::Int(0);
    };
    let refused = match standing.map(|at| at as i64) {
        None => has("xx") || has("gt"),
        Some(standing) => {
            has("nx") || (has("gt") && at <= standing) || (has("lt") && at >= standing)
        }
    };
    if refused {
        return Reply::Int(0);
    }
    set(server, cx, args[1], at.max(0) as u64);
    Reply::Int(1)
}

fn persist(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let expires = server
        .look(cx, args[1])
        .is_some_and(|entry| entry.expire_at.is_some());
    if expires {
        server.keyspace.set_expiry(cx.db, args[1], None);
        server.signal(cx, args[1]);
    }
    Reply::flag(expires)
}
