//! A value as the commands that build it under a temporary name.

use std::io::Write as _;

use super::{CommandError, CommandLimits, CommandLosses, Features};
use crate::payload::{Bytes, Elements, Fields, Kind, Members, PayloadError, Reader};
use crate::server::Conn;
use crate::server::resp::{self, Item};

/// From this size on an argument is written to the socket from where it is.
pub(super) const LARGE_ARGUMENT_BYTES: usize = 64 << 10;

/// Bytes of elements in one command, unless a single one has more.
const COMMAND_BYTES: usize = 64 << 10;

/// A command that was sent, and what must be true of its reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub command: &'static str,
    pub expect: Expect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// It is no error.
    Done,
    /// It is this number.
    Length(u64),
    /// It names so many ids. Fewer are losses.
    Claimed(u64),
    /// For each of so many fields, it expires then (1) or did so at once (2): t_hash.c, SetExRes.
    Expiring(u64),
}

impl Sent {
    /// Reads the reply.
    pub fn read(self, conn: &mut Conn, losses: &mut CommandLosses) -> Result<(), CommandError> {
        let count = match (self.expect, conn.item()?) {
            (_, Item::Error(text)) => return Err(CommandError::answer(self.command, &text)),
            (Expect::Length(want), Item::Int(found)) => {
                return if u64::try_from(found) == Ok(want) {
                    Ok(())
                } else {
                    Err(CommandError::refused(format!(
                        "{want} elements were sent, but {} says {found}",
                        self.command
                    )))
                };
            }
            (Expect::Claimed(most), Item::Array(count)) if count as u64 <= most => count,
            (Expect::Expiring(all), Item::Array(count)) if count as u64 == all => count,
            (Expect::Done, Item::Array(count) | Item::Map(count))
                if self.command == "XREADGROUP" =>
            {
                count
            }
            (Expect::Done, item) if fits(self.command, &item) => return Ok(()),
            _ => return Err(confused(conn)),
        };
        match self.expect {
            Expect::Claimed(want) => losses.pending += want.saturating_sub(count as u64),
            Expect::Length(_) => return Err(confused(conn)),
            Expect::Expiring(_) => {
                let mut refused = None;
                for _ in 0..count {
                    match conn.item()? {
                        Item::Int(1 | 2) => {}
                        Item::Int(other) => refused = Some(other),
                        _ => return Err(confused(conn)),
                    }
                }
                return match refused {
                    None => Ok(()),
                    Some(code) => Err(CommandError::refused(format!(
                        "a field did not get its expiry ({} says {code})",
                        self.command
                    ))),
                };
            }
            Expect::Done => {}
        }
        skip(conn, count)
    }
}

/// Whether this is what a command answers that did what it was told. An error is an answer too.
pub(super) fn fits(command: &str, item: &Item<'_>) -> bool {
    match (command, item) {
        (_, Item::Error(_)) => true,
        ("SET" | "RENAME" | "HMSET" | "XSETID" | "XGROUP", Item::Simple(word)) => *word == b"OK",
        ("XCFGSET" | "XIDMPRECORD", Item::Simple(word)) => *word == b"OK",
        ("XGROUP" | "RPUSH" | "SADD" | "ZADD" | "HSET" | "APPEND", Item::Int(_)) => true,
        ("STRLEN" | "LLEN" | "SCARD" | "ZCARD" | "HLEN" | "XLEN", Item::Int(_)) => true,
        ("XDEL" | "XTRIM", Item::Int(_)) => true,
        ("RENAMENX" | "UNLINK" | "DEL" | "PEXPIREAT", Item::Int(count)) => matches!(count, 0 | 1),
        ("XADD", Item::Bulk(_)) => true,
        ("XREADGROUP", Item::Nil) => true,
        _ => false,
    }
}

pub(super) fn confused(conn: &Conn) -> CommandError {
    conn.confused("a reply of an unexpected kind").into()
}

/// Passes over so many items and what is in them.
fn skip(conn: &mut Conn, mut count: usize) -> Result<(), CommandError> {
    while count > 0 {
        count -= 1;
        if let Item::Array(more) | Item::Map(more) | Item::Push(more) = conn.item()? {
            count += more;
        }
    }
    Ok(())
}

/// Where commands go.
pub(super) trait Out {
    /// Takes a command: its name and its arguments.
    fn command(
        &mut self,
        name: &'static str,
        args: &[&[u8]],
        expect: Expect,
    ) -> Result<(), CommandError>;

    /// Takes a command whose arguments after `head` are packed already, `count` of them.
    fn packed(
        &mut self,
        name: &'static str,
        head: &[&[u8]],
        args: &[u8],
        count: usize,
        expect: Expect,
    ) -> Result<(), CommandError>;
}

/// Rows of one value, gathered into commands `name key row row …`.
struct Rows<'a> {
    name: &'static str,
    key: &'a [u8],
    args: Vec<u8>,
    count: usize,
    max_bytes: usize,
    max_count: usize,
}

impl Rows<'_> {
    /// Adds a row of so many arguments. A large one goes in a command of its own.
    fn push<const N: usize>(
        &mut self,
        out: &mut impl Out,
        row: [&[u8]; N],
    ) -> Result<(), CommandError> {
        if row.iter().any(|arg| arg.len() >= LARGE_ARGUMENT_BYTES) {
            self.end(out)?;
            let args = [&[self.key], &row[..]].concat();
            return out.command(self.name, &args, Expect::Done);
        }
        for arg in row {
            resp::pack_arg(&mut self.args, arg);
        }
        self.count += N;
        if self.args.len() >= self.max_bytes || self.count >= self.max_count * N {
            self.end(out)?;
        }
        Ok(())
    }

    /// Hands on what was gathered.
    fn end(&mut self, out: &mut impl Out) -> Result<(), CommandError> {
        if self.count > 0 {
            out.packed(self.name, &[self.key], &self.args, self.count, Expect::Done)?;
            self.args.clear();
            self.count = 0;
        }
        Ok(())
    }
}

/// What was sent.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// How to ask for the length, and what it must be; none where it was asked for already.
    pub length: Option<(&'static str, u64)>,
    /// There was nothing alive in it, and nothing was sent.
    pub nothing: bool,
    /// It may be gone already, field by field.
    pub may_vanish: bool,
    /// What is known to be lost.
    pub losses: CommandLosses,
}

impl Filled {
    pub fn of_length(command: &'static str, length: u64) -> Self {
        Self {
            length: Some((command, length)),
            ..Self::default()
        }
    }
}

/// What the commands depend on.
pub(super) struct Target<'a> {
    /// The key to build the value under.
    pub key: &'a [u8],
    pub features: &'a Features,
    pub limits: &'a CommandLimits,
    pub now_ms: u64,
}

impl Target<'_> {
    /// Gives the commands for a value that was checked.
    pub fn fill(&self, reader: Reader<'_>, out: &mut impl Out) -> Result<Filled, CommandError> {
        match reader {
            Reader::String(string) => self.string(&string, out),
            Reader::List(rows) => self.elements("RPUSH", "LLEN", rows, out),
            Reader::Set(rows) => self.elements("SADD", "SCARD", rows, out),
            Reader::ZSet(rows) => self.members(rows, out),
            Reader::Hash(rows) => self.fields(&rows, out),
            Reader::Stream(stream) => self.stream(&stream, out),
            Reader::Array(_) => Err(no_commands(Kind::Array)),
            Reader::PathHash(_) => Err(no_commands(Kind::PathHash)),
        }
    }

    fn rows(&self, name: &'static str) -> Rows<'_> {
        Rows {
            name,
            key: self.key,
            args: Vec::new(),
            count: 0,
            max_bytes: self.limits.chunk_bytes.min(COMMAND_BYTES),
            max_count: self.limits.command_elements.max(1),
        }
    }

    fn string(&self, string: &[u8], out: &mut impl Out) -> Result<Filled, CommandError> {
        let (first, rest) = string.split_at(string.len().min(self.limits.chunk_bytes.max(1)));
        out.command("SET", &[self.key, first], Expect::Done)?;
        for piece in rest.chunks(self.limits.chunk_bytes.max(1)) {
            out.command("APPEND", &[self.key, piece], Expect::Done)?;
        }
        Ok(Filled::of_length("STRLEN", string.len() as u64))
    }

    fn elements(
        &self,
        name: &'static str,
        length: &'static str,
        elements: Elements<'_>,
        out: &mut impl Out,
    ) -> Result<Filled, CommandError> {
        let mut rows = self.rows(name);
        let mut count = 0;
        for element in elements {
            rows.push(out, [&element.map_err(damaged)?])?;
            count += 1;
        }
        rows.end(out)?;
        Ok(Filled::of_length(length, count))
    }

    fn members(&self, members: Members<'_>, out: &mut impl Out) -> Result<Filled, CommandError> {
        let mut rows = self.rows("ZADD");
        let mut count = 0;
        let mut score = Vec::with_capacity(32);
        for member in members {
            let member = member.map_err(damaged)?;
            score.clear();
            score_text(&mut score, member.score);
            rows.push(out, [&score, &member.member])?;
            count += 1;
        }
        rows.end(out)?;
        Ok(Filled::of_length("ZCARD", count))
    }

    /// Fields first, then their number, then their expiry: afterwards the number may fall.
    fn fields(&self, fields: &Fields<'_>, out: &mut impl Out) -> Result<Filled, CommandError> {
        let mut filled = Filled::default();
        let mut rows = self.rows(self.features.set_fields());
        let (mut count, mut expiring) = (0, 0);
        for field in fields.clone() {
            let field = field.map_err(damaged)?;
            if field.expire_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
                continue;
            }
            expiring += u64::from(field.expire_at_ms.is_some());
            rows.push(out, [&field.name, &field.value])?;
            count += 1;
        }
        rows.end(out)?;
        filled.nothing = count == 0;
        match self.features.field_ttl_max_ms {
            _ if expiring == 0 => {}
            None => filled.losses.field_ttls = expiring,
            Some(max_ms) => {
                out.command("HLEN", &[self.key], Expect::Length(count))?;
                self.field_ttls(fields.clone(), max_ms, &mut filled.losses, out)?;
                filled.may_vanish = true;
                return Ok(filled);
            }
        }
        filled.length = Some(("HLEN", count));
        Ok(filled)
    }

    /// Gathers some fields at a time, so that those of one expiry share a command.
    fn field_ttls(
        &self,
        fields: Fields<'_>,
        max_ms: u64,
        losses: &mut CommandLosses,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        let mut gathered: Vec<(u64, Bytes<'_>)> = Vec::new();
        let mut bytes = 0;
        for field in fields {
            let field = field.map_err(damaged)?;
            let Some(at_ms) = field.expire_at_ms.filter(|&at_ms| at_ms > self.now_ms) else {
                continue;
            };
            losses.field_ttls_clamped += u64::from(at_ms > max_ms);
            bytes += field.name.len();
            gathered.push((at_ms.min(max_ms), field.name));
            if bytes >= COMMAND_BYTES || gathered.len() >= self.limits.command_elements {
                self.expire_fields(&mut gathered, out)?;
                bytes = 0;
            }
        }
        self.expire_fields(&mut gathered, out)
    }

    fn expire_fields(
        &self,
        gathered: &mut Vec<(u64, Bytes<'_>)>,
        out: &mut impl Out,
    ) -> Result<(), CommandError> {
        gathered.sort_by_key(|(at_ms, _)| *at_ms);
        for group in gathered.chunk_by(|(a, _), (b, _)| a == b) {
            let fields = group.len() as u64;
            let (at_ms, count) = (number(group[0].0), number(fields));
            let head: [&[u8]; 4] = [self.key, &at_ms, b"FIELDS", &count];
            let names = group.iter().map(|(_, name)| &**name);
            let args: Vec<&[u8]> = head.into_iter().chain(names).collect();
            out.command("HPEXPIREAT", &args, Expect::Expiring(fields))?;
        }
        gathered.clear();
        Ok(())
    }
}

fn damaged(error: PayloadError) -> CommandError {
    CommandError::damaged(&error)
}

/// Decimal digits.
pub(super) fn number(number: u64) -> Vec<u8> {
    let mut digits = Vec::with_capacity(20);
    resp::push_number(&mut digits, number);
    digits
}

/// The shortest text that reads back as this score. Servers read it with strtod or its like
/// (object.c, getDoubleFromObject).
fn score_text(out: &mut Vec<u8>, score: f64) {
    let plain = score == 0.0 || (1e-5..1e16).contains(&score.abs());
    // Writing into memory does not fail.
    let _ = if plain || score.is_infinite() {
        write!(out, "{score}")
    } else {
        write!(out, "{score:e}")
    };
}

/// What no server was there to try commands on.
fn no_commands(kind: Kind) -> CommandError {
    CommandError::refused(format!(
        "values of type {kind} are not written by native commands: that was tested with no server; \
         --method restore sends them as they are to a server that has the type"
    ))
}

/// Bytes of the longest argument that a value's commands would have.
pub(super) fn largest_argument(reader: Reader<'_>) -> Result<u64, PayloadError> {
    let mut largest = 0;
    let mut see = |bytes: &[u8]| largest = largest.max(bytes.len() as u64);
    match reader {
        // No larger string is allowed, however it is put together.
        Reader::String(string) => see(&string),
        Reader::List(rows) | Reader::Set(rows) => {
            for row in rows {
                see(&row?);
            }
        }
        Reader::ZSet(rows) => {
            for row in rows {
                see(&row?.member);
            }
        }
        Reader::Hash(rows) => {
            for row in rows {
                let row = row?;
                see(&row.name);
                see(&row.value);
            }
        }
        // They are not written by commands.
        Reader::Array(_) | Reader::PathHash(_) => {}
        Reader::Stream(stream) => {
            for entry in stream.entries() {
                for (name, value) in entry?.fields {
                    see(&name);
                    see(&value);
                }
            }
            for group in &stream.groups {
                see(&group.name);
                group
                    .consumers
                    .iter()
                    .for_each(|consumer| see(&consumer.name));
            }
        }
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_short_and_read_back_as_they_were() {
        let text = |score: f64| {
            let mut out = Vec::new();
            score_text(&mut out, score);
            String::from_utf8(out).unwrap()
        };
        for (score, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (17.0, "17"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (5e-324, "5e-324"),
            (1e300, "1e300"),
            (-1.5e-7, "-1.5e-7"),
            (9_007_199_254_740_993.0, "9007199254740992"),
        ] {
            assert_eq!(text(score), want);
        }
        let mut bits = 1_u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(7);
            let score = f64::from_bits(bits);
            if !score.is_nan() {
                let back: f64 = text(score).parse().unwrap();
                assert_eq!(back.to_bits(), bits);
                assert!(text(score).len() <= 25, "{}", text(score));
            }
        }
    }
}
