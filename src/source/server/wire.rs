//! How the questions about keys go over the wire, and how their answers are read off it: what was
//! said, and nothing of what it means.
//!
//! Keys are asked for in small MULTIs, the expiry commands at the head: a TIME many large DUMPs away
//! from its PTTL would be seconds off.

use anyhow::Result;

use super::probe::{Abilities, EvictionCommand};
use super::reader::{Dumped, Event, Expiry, KeyFacts, Terms};
use crate::record::Eviction;
use crate::select::Selection;
use crate::server::cluster::Redirect;
use crate::server::conn::asks_for_patience;
use crate::server::facts::{ServerClock, unix_ms};
use crate::server::resp::Item;
use crate::server::transaction::{DISCARDED, cause_of_discard};
use crate::server::{Conn, PTTL_CLOSE_MS, PTTL_TOLERANCE_MS, ServerError};
use crate::units::bytes_text;

/// Bytes that the names of one page may take in memory.
const PAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a name costs beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 64;

/// Commands for one key, packed up to it: every key is asked for by two of them.
const DUMP: &[u8] = b"*2\r\n$4\r\nDUMP\r\n";
const PTTL: &[u8] = b"*2\r\n$4\r\nPTTL\r\n";
const PEXPIRETIME: &[u8] = b"*2\r\n$11\r\nPEXPIRETIME\r\n";

/// What MULTI answers to each command.
const QUEUED: &[u8] = b"+QUEUED\r\n";

fn page_too_long() -> String {
    format!(
        "a page of SCAN with more than {} of names (a smaller --scan-count makes pages smaller)",
        bytes_text(PAGE_BYTES as u64)
    )
}

/// What is done with a name that SCAN returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Read,
    /// Filtered.
    LeaveOut,
    /// It is none of ours, and in no count.
    Ignore,
}

/// What SCAN answered.
pub(super) enum PageAnswer {
    Page(Page),
    /// Refused for now, in these words.
    Later(String),
}

/// A page of names.
pub(super) struct Page {
    /// Where the next one begins.
    pub next: Vec<u8>,
    /// Those to be read.
    pub names: Vec<Vec<u8>>,
    /// How many there were, without those that are none of ours.
    pub scanned: u64,
}

/// How keys are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub abilities: Abilities,
    /// Whether each command for a key is preceded by ASKING: its slot is on its way to this node.
    pub asking: bool,
    pub in_cluster: bool,
    pub clock: ServerClock,
}

impl Form {
    pub fn terms(&self) -> Terms {
        Terms {
            tolerance_ms: match self.abilities.pexpiretime {
                true => 0,
                false => PTTL_TOLERANCE_MS,
            },
            in_cluster: self.in_cluster,
        }
    }

    /// The command that tells when a key expires.
    pub fn expiry_command(&self) -> &'static [u8] {
        match self.abilities.pexpiretime {
            true => b"PEXPIRETIME",
            false => b"PTTL",
        }
    }

    /// The same, packed up to the key.
    fn expiry_head(&self) -> &'static [u8] {
        match self.abilities.pexpiretime {
            true => PEXPIRETIME,
            false => PTTL,
        }
    }

    /// What a PTTL counts from, where TIME is not asked with it; 0 for moments.
    fn base_ms(&self) -> u64 {
        match self.abilities.pexpiretime {
            true => 0,
            false => self.clock.now_ms(),
        }
    }

    /// Whether TIME is asked before and behind what remains of the keys of a MULTI. Without MULTI what
    /// remains is asked once more itself.
    fn times_group(&self) -> bool {
        self.abilities.multi && self.abilities.asks_time()
    }

    /// Commands between MULTI and EXEC for so many keys.
    fn group_commands(&self, keys: usize) -> usize {
        let each = 2 + usize::from(self.abilities.eviction.is_some());
        each * keys + 2 * usize::from(self.abilities.asks_time())
    }
}

/// One connection, and how keys are asked for on it.
pub(super) struct Wire<'a> {
    pub conn: &'a mut Conn,
    pub form: Form,
    /// What ASKING was answered with, where that was not OK.
    pub asking_refused: Option<String>,
}

impl Wire<'_> {
    /// Queues a SCAN.
    pub fn ask_page(
        &mut self,
        cursor: &[u8],
        count: u32,
        selection: &Selection,
    ) -> Result<(), ServerError> {
        let count = count.to_string();
        let push_down = selection.push_down();
        let mut args: Vec<&[u8]> = vec![b"SCAN", cursor, b"COUNT", count.as_bytes()];
        if let Some(pattern) = push_down.match_ {
            args.extend([&b"MATCH"[..], pattern]);
        }
        if let Some(kind) = push_down.type_ {
            args.extend([&b"TYPE"[..], kind.as_bytes()]);
        }
        self.conn.queue(&args)
    }

    /// Queues the commands for these keys.
    pub fn ask_group(&mut self, keys: &[Vec<u8>]) -> Result<(), ServerError> {
        let abilities = self.form.abilities;
        let expiry = self.form.expiry_head();
        if abilities.multi {
            self.conn.queue(&[b"MULTI"])?;
        }
        if abilities.asks_time() {
            self.conn.queue(&[b"TIME"])?;
        }
        for key in keys {
            self.ask_of_key(expiry, key)?;
        }
        // How long that took is how far off they may be.
        if self.form.times_group() {
            self.conn.queue(&[b"TIME"])?;
        }
        // Before DUMP, which would reset it where NO-TOUCH is not known.
        if let Some(command) = abilities.eviction {
            for key in keys {
                self.ask_before_key()?;
                self.conn.queue(&[b"OBJECT", command.word(), key])?;
            }
        }
        for key in keys {
            self.ask_of_key(DUMP, key)?;
            if abilities.rechecks() {
                if abilities.asks_time() {
                    self.conn.queue(&[b"TIME"])?;
                }
                self.ask_of_key(expiry, key)?;
            }
        }
        if abilities.multi {
            self.conn.queue(&[b"EXEC"])?;
        }
        Ok(())
    }

    /// Queues a command for a key, of which all before it is packed already.
    fn ask_of_key(&mut self, head: &[u8], key: &[u8]) -> Result<(), ServerError> {
        self.ask_before_key()?;
        self.conn.queue_behind(head, key)
    }

    fn ask_before_key(&mut self) -> Result<(), ServerError> {
        match self.form.asking {
            true => self.conn.queue(&[b"ASKING"]),
            false => Ok(()),
        }
    }

    /// Reads a page of names; of an error nothing is kept: half a page is none.
    pub fn read_page(&mut self, choose: impl Fn(&[u8]) -> Choice) -> Result<PageAnswer> {
        self.conn.doing("scanning for keys");
        match self.conn.item()? {
            Item::Array(2) => {}
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if self.form.terms().may_pass(&text) {
                    return Ok(PageAnswer::Later(text));
                }
                return Err(self.conn.refusal("SCAN", text).into());
            }
            _ => return self.confused("SCAN did not answer with two parts"),
        }
        let Item::Bulk(next) = self.conn.item()? else {
            return self.confused("SCAN gave no cursor");
        };
        let Item::Array(count) = self.conn.item()? else {
            return self.confused("SCAN gave no keys");
        };
        let mut page = Page {
            next,
            names: Vec::new(),
            scanned: 0,
        };
        let mut left = PAGE_BYTES;
        for _ in 0..count {
            let key = match self.conn.item_or_skip(left)? {
                Item::Bulk(key) => Some(key),
                Item::TooLong(_) => None,
                _ => return self.confused("SCAN gave something other than a name"),
            };
            let bytes = key
                .as_ref()
                .map_or(usize::MAX, |key| key.len() + NAME_OVERHEAD_BYTES);
            let (Some(key), Some(less)) = (key, left.checked_sub(bytes)) else {
                return self.confused(page_too_long());
            };
            left = less;
            let choice = choose(&key);
            page.scanned += u64::from(choice != Choice::Ignore);
            if choice == Choice::Read {
                page.names.push(key);
            }
        }
        Ok(PageAnswer::Page(page))
    }

    /// Reads the head of the answer for a group of so many keys, up to its first payload.
    pub fn read_group(&mut self, keys: usize) -> Result<Event> {
        self.conn.doing("reading keys");
        if self.form.abilities.multi
            && let Some(text) = self.read_exec(self.form.group_commands(keys))?
        {
            return Ok(Event::GroupRefused(text));
        }
        let now_ms = match self.form.abilities.asks_time() {
            true => self.read_time()?,
            false => self.form.base_ms(),
        };
        let mut facts = Vec::with_capacity(keys);
        for _ in 0..keys {
            let expiry = self.read_expiry(now_ms)?;
            let eviction = None;
            facts.push(KeyFacts { expiry, eviction });
        }
        if self.form.times_group() {
            let after_ms = self.read_time()?;
            // A server that stood still in between: each key is asked for by itself then.
            let most_ms = match keys {
                1 => PTTL_TOLERANCE_MS,
                _ => PTTL_CLOSE_MS,
            };
            if after_ms.abs_diff(now_ms) > most_ms {
                facts.iter_mut().for_each(|facts| facts.expiry.blur());
            }
        }
        if let Some(command) = self.form.abilities.eviction {
            for facts in &mut facts {
                facts.eviction = self.read_eviction(command)?;
            }
        }
        Ok(Event::Group(facts))
    }

    fn read_eviction(&mut self, command: EvictionCommand) -> Result<Option<Eviction>> {
        self.read_asking()?;
        Ok(match self.conn.item()? {
            Item::Int(number) => command.told(number),
            // A policy changed under way or a key that went away: not worth a failure.
            _ => None,
        })
    }

    /// Reads what is answered for the next key of the open group. One at a time, so that a batch is
    /// handed on between two large values of the same group.
    pub fn read_value(&mut self, max_value: usize) -> Result<Event> {
        self.read_asking()?;
        let dumped = match self.conn.item_or_skip(max_value)? {
            Item::Bulk(payload) => Dumped::Payload(payload),
            Item::TooLong(bytes) => Dumped::TooLong(bytes),
            Item::Nil => Dumped::Nothing {
                now_ms: self.form.clock.now_ms(),
            },
            Item::Error(text) => Dumped::Refused(String::from_utf8_lossy(&text).into_owned()),
            _ => return self.confused("DUMP gave something other than a payload"),
        };
        let after = match self.form.abilities.rechecks() {
            true => Some(self.read_expiry_after()?),
            false => None,
        };
        Ok(Event::Value { dumped, after })
    }

    fn read_expiry_after(&mut self) -> Result<Expiry> {
        let now_ms = match self.form.abilities.asks_time() {
            true => self.read_time()?,
            false => self.form.base_ms(),
        };
        self.read_expiry(now_ms)
    }

    fn read_expiry(&mut self, now_ms: u64) -> Result<Expiry> {
        self.read_asking()?;
        Ok(match self.conn.item()? {
            Item::Int(-1) => Expiry::None,
            Item::Int(-2) => Expiry::Gone,
            Item::Int(number) => match u64::try_from(number) {
                Ok(number) => Expiry::At(now_ms.saturating_add(number)),
                Err(_) => Expiry::Refused,
            },
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                // Elsewhere is nowhere, unless a cluster is read.
                match Redirect::parse(&text).filter(|_| self.form.in_cluster) {
                    Some(redirect) => Expiry::Elsewhere(redirect),
                    None if asks_for_patience(&text) => Expiry::Later(text),
                    None => Expiry::Refused,
                }
            }
            _ => return self.confused("an expiry that is no number"),
        })
    }

    /// What ASKING is answered with. Where it is refused the command itself is answered with who
    /// serves the slot; then this is why.
    fn read_asking(&mut self) -> Result<()> {
        if !self.form.asking {
            return Ok(());
        }
        let text = match self.conn.item()? {
            Item::Simple(_) => return Ok(()),
            Item::Error(text) => String::from_utf8_lossy(&text).into_owned(),
            Item::Nil | Item::Int(_) | Item::Bulk(_) => "something other than OK".to_owned(),
            _ => return self.confused("ASKING was answered with something other than OK"),
        };
        self.asking_refused = Some(text);
        Ok(())
    }

    /// Reads up to the head of EXEC's array; `Some` is why the group was refused as a whole.
    fn read_exec(&mut self, commands: usize) -> Result<Option<String>> {
        if let Item::Error(text) = self.conn.item()? {
            // Then nothing was queued: every command was answered at once, and EXEC refused.
            let text = String::from_utf8_lossy(&text).into_owned();
            for _ in 0..=commands {
                self.conn.reply()?.ok();
            }
            return Ok(Some(text));
        }
        let mut refused = None;
        for _ in 0..commands {
            if self.conn.reads(QUEUED) {
                continue;
            }
            match self.conn.item()? {
                Item::Simple(_) => {}
                Item::Error(text) => {
                    refused.get_or_insert_with(|| String::from_utf8_lossy(&text).into_owned());
                }
                _ => return self.confused("MULTI did not queue a command"),
            }
        }
        match self.conn.item()? {
            Item::Array(count) if refused.is_some() => {
                // Somebody in between refused a command, and the server never heard of it.
                for _ in 0..count {
                    self.conn.reply()?.ok();
                }
                Ok(refused)
            }
            Item::Array(count) if count == commands => Ok(None),
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if !text.starts_with(DISCARDED) {
                    // Carried out or not, over or not: nobody knows.
                    let reason = format!("EXEC was answered with {text}");
                    return Err(self.conn.spoilt(reason).into());
                }
                let cause = cause_of_discard(&text).map(str::to_owned);
                Ok(Some(refused.or(cause).unwrap_or(text)))
            }
            Item::Nil => Ok(Some("the transaction was discarded".to_owned())),
            _ => self.confused("EXEC did not answer every command"),
        }
    }

    fn read_time(&mut self) -> Result<u64> {
        let Item::Array(2) = self.conn.item()? else {
            return self.confused("TIME did not answer with two parts");
        };
        let mut parts = [0u64; 2];
        for part in &mut parts {
            let Item::Bulk(text) = self.conn.item()? else {
                return self.confused("TIME gave no number");
            };
            // No time is not 1970: keys whose TTL counts from it would expire at once.
            let number = std::str::from_utf8(&text).ok();
            let Some(number) = number.and_then(|text| text.parse().ok()) else {
                return self.confused("TIME gave no number");
            };
            *part = number;
        }
        unix_ms(parts[0], parts[1]).ok_or_else(|| self.conn.confused("TIME gave no moment").into())
    }

    fn confused<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(self.conn.confused(reason).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::resp;

    #[test]
    fn heads_of_commands_are_packed_as_any_command() {
        let heads: [(&[u8], &[u8]); 3] = [
            (DUMP, b"DUMP"),
            (PTTL, b"PTTL"),
            (PEXPIRETIME, b"PEXPIRETIME"),
        ];
        for (head, word) in heads {
            let (mut packed, mut plain) = (Vec::new(), Vec::new());
            resp::pack_behind(&mut packed, head, b"key");
            resp::pack(&mut plain, &[word, b"key"]);
            assert_eq!(packed, plain);
        }
    }
}
