//! The table of commands: which there are, how many words they take, where their keys stand.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Server;
use super::commands;
use super::config::Config;
use super::flags::FLAGS;
use super::process::Cx;
use super::release::{RELEASES, Release, Since};
use super::reply::Reply;

/// Carries out a command.
pub(super) type Handler = fn(&mut Server, &Cx, &[&[u8]]) -> Reply;

/// It changes keys.
pub(super) const WRITE: u16 = 1;
/// It may need memory, and is refused when there is none.
pub(super) const NEEDS_MEMORY: u16 = 2;
/// It is served while the dataset is loaded.
pub(super) const LOADING: u16 = 4;
/// It is served by a replica without a link.
pub(super) const STALE: u16 = 8;
/// It is served before a client has said who it is.
pub(super) const NO_AUTH: u16 = 16;
/// It is held up by CLIENT PAUSE WRITE, though it changes nothing.
pub(super) const MAY_REPLICATE: u16 = 32;
/// It is served while a script runs.
pub(super) const ALLOW_BUSY: u16 = 64;
/// It has subcommands.
pub(super) const CONTAINER: u16 = 128;
/// A script must not call it.
pub(super) const NO_SCRIPT: u16 = 256;

/// Where a command's keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    None,
    /// From this word to that (negative: counted from the end), every so manieth.
    At(i8, i8, u8),
    /// Their number stands at this word, and they behind it.
    Counted(u8),
    /// Behind the word STREAMS, the first half.
    Streams,
}

/// A command, or a subcommand (`client|id`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub name: &'static str,
    /// How many words, its name among them; negative: at least.
    pub arity: i8,
    pub flags: u16,
    pub keys: Keys,
    pub since: Since,
    pub run: Handler,
}

/// One row of a table.
pub(super) const fn row(
    name: &'static str,
    arity: i8,
    flags: u16,
    keys: Keys,
    since: Since,
    run: Handler,
) -> Row {
    Row {
        name,
        arity,
        flags,
        keys,
        since,
        run,
    }
}

/// The key stands at the first word.
pub(super) const FIRST: Keys = Keys::At(1, 1, 1);

/// The rows that each release has, with its own flags.
static TABLES: LazyLock<Vec<HashMap<&'static [u8], Row>>> =
    LazyLock::new(|| RELEASES.iter().map(table_of).collect());

fn table_of(release: &Release) -> HashMap<&'static [u8], Row> {
    let told: HashMap<&str, &[u16; 10]> =
        FLAGS.iter().map(|(name, flags)| (*name, flags)).collect();
    let rows = commands::TABLES.iter().flat_map(|rows| rows.iter());
    let rows = rows.filter(|row| release.has(row.since)).map(|row| {
        let told = told.get(row.name).map(|flags| flags[release.index]);
        let flags = told.map_or(row.flags, |told| told | untold(release, row));
        (row.name.as_bytes(), Row { flags, ..*row })
    });
    rows.collect()
}

/// Flags that no server tells.
fn untold(release: &Release, row: &Row) -> u16 {
    let while_busy = match release.has(Since::R70) {
        true => false,
        false => release.has(Since::R62) || matches!(row.name, "auth" | "hello" | "script|kill"),
    };
    let kept = CONTAINER | MAY_REPLICATE | NO_AUTH | if while_busy { ALLOW_BUSY } else { 0 };
    row.flags & kept
}

/// What the words of a request name.
pub(super) enum Found {
    Row(&'static Row),
    Refused(String),
}

/// The row of a name in lower case.
pub(super) fn by_name(release: &Release, name: &[u8]) -> Option<&'static Row> {
    TABLES.get(release.index)?.get(name)
}

/// All rows that a release has, by name.
pub(super) fn rows(release: &Release) -> Vec<&'static Row> {
    let table = TABLES.get(release.index);
    let mut rows: Vec<&Row> = table.into_iter().flat_map(HashMap::values).collect();
    rows.sort_by_key(|row| row.name);
    rows
}

/// Finds the command that the words name.
pub(super) fn find(config: &Config, args: &[&[u8]]) -> Found {
    let release = config.release;
    let mut name = [0u8; 64];
    let Some(word) = args.first() else {
        return Found::Refused("ERR no command".to_owned());
    };
    let length = lower(&mut name, 0, word);
    let row = by_name(release, &name[..length]);
    let Some(row) = row.filter(|row| !row.name.contains('|')) else {
        return Found::Refused(unknown(release, args));
    };
    let mut row = row;
    let mut full = length;
    if row.flags & CONTAINER != 0 && args.len() > 1 {
        name[length..=length].copy_from_slice(b"|");
        full = lower(&mut name, length + 1, args[1]);
        match by_name(release, &name[..full]) {
            Some(sub) => row = sub,
            None => return Found::Refused(unknown_subcommand(release, args)),
        }
    }
    if !config.refused.is_empty() {
        let words = [&name[..length], &name[..full]];
        let refused = |named: &str| words.contains(&named.as_bytes());
        if let Some(refusal) = config
            .refused
            .iter()
            .find(|refusal| refused(&refusal.command))
        {
            let text = refusal.text.clone();
            return Found::Refused(text.unwrap_or_else(|| match refusal.command.contains('|') {
                true => unknown_subcommand(release, args),
                false => unknown(release, args),
            }));
        }
    }
    if !fits(row, args.len()) {
        return Found::Refused(match row.name.contains('|') && !release.has(Since::R70) {
            true => unknown_subcommand(release, args),
            false => format!("ERR wrong number of arguments for '{}' command", row.name),
        });
    }
    Found::Row(row)
}

fn fits(row: &Row, words: usize) -> bool {
    let arity = usize::from(row.arity.unsigned_abs());
    match row.arity < 0 {
        true => words >= arity,
        false => words == arity,
    }
}

fn lower(into: &mut [u8; 64], at: usize, word: &[u8]) -> usize {
    let length = word.len().min(into.len() - at - 1);
    into[at..at + length].copy_from_slice(&word[..length]);
    into[at..at + length].make_ascii_lowercase();
    at + length
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte as char).collect()
}

fn unknown(release: &Release, args: &[&[u8]]) -> String {
    let name = text(&args[0][..args[0].len().min(128)]);
    let is_new = release.has(Since::R70);
    let (open, close) = if is_new { ('\'', '\'') } else { ('`', '`') };
    if args.len() == 1 && release.has(Since::R86) {
        return format!("ERR unknown command '{name}'");
    }
    let mut list = String::new();
    for arg in &args[1..] {
        if list.len() >= 128 {
            break;
        }
        let room = 128 - list.len();
        let arg = text(&arg[..arg.len().min(room)]);
        match is_new {
            true => list.push_str(&format!("'{arg}' ")),
            false => list.push_str(&format!("`{arg}`, ")),
        }
    }
    format!("ERR unknown command {open}{name}{close}, with args beginning with: {list}")
}

fn unknown_subcommand(release: &Release, args: &[&[u8]]) -> String {
    let name = text(args[0]).to_uppercase();
    let sub = text(&args[1][..args[1].len().min(128)]);
    if name == "XINFO" && !release.has(Since::R62) {
        return "ERR syntax error, try 'XINFO HELP'".to_owned();
    }
    match release.has(Since::R70) {
        true => format!("ERR unknown subcommand '{sub}'. Try {name} HELP."),
        false => {
            let dot = if name == "CLIENT" && !release.has(Since::R62) {
                ""
            } else {
                "."
            };
            format!(
                "ERR Unknown subcommand or wrong number of arguments for '{sub}'. Try {name} HELP{dot}"
            )
        }
    }
}

/// The keys among the words.
pub(super) fn keys_of<'a>(row: &Row, args: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let count = args.len() as i64;
    let range = match row.keys {
        Keys::None => return Vec::new(),
        Keys::At(1, 1, _) => return args.get(1).copied().into_iter().collect(),
        Keys::At(first, last, step) => {
            let last = if last < 0 {
                count + i64::from(last)
            } else {
                i64::from(last)
            };
            (i64::from(first), last, usize::from(step))
        }
        Keys::Counted(at) => {
            let at = usize::from(at);
            let word = args.get(at).and_then(|word| std::str::from_utf8(word).ok());
            let keys = word.and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
            (at as i64 + 1, at as i64 + keys, 1)
        }
        Keys::Streams => {
            let at = args
                .iter()
                .position(|word| word.eq_ignore_ascii_case(b"streams"));
            let Some(at) = at else { return Vec::new() };
            let rest = args.len() - at - 1;
            (at as i64 + 1, (at + rest / 2) as i64, 1)
        }
    };
    let (first, last, step) = range;
    let mut keys = Vec::new();
    let mut at = first;
    while at <= last.min(count - 1) && at > 0 {
        keys.push(args[at as usize]);
        at += step as i64;
    }
    keys
}
