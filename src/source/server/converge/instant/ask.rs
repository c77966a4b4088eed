//! Asks for everything of a plan.

use std::collections::BTreeSet;

use super::{How, Question};
use crate::host::HashSet;
use crate::server::reply::cmd;
use crate::server::{Conn, ServerError};

/// Carries out each command that stands in ARGV, preceded by the number of its words.
const SCRIPT: &str = "local out, at = {}, 1 \
    while at <= #ARGV do \
    local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) \
    at = at + count + 1 end return out";

/// The same, saying of itself what servers from 7.0 on want to know: keys of several slots that are
/// not declared, and nothing is written.
const SCRIPT_WITH_FLAGS: &str = "#!lua flags=allow-cross-slot-keys,no-writes\n\
    local out, at = {}, 1 \
    while at <= #ARGV do \
    local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) \
    at = at + count + 1 end return out";

/// The script that this server takes, if any.
///
/// # Errors
/// The connection.
pub(in super::super) fn script_for(conn: &mut Conn) -> Result<Option<&'static str>, ServerError> {
    for script in [SCRIPT_WITH_FLAGS, SCRIPT] {
        if conn.try_query(cmd("EVAL").arg(script).arg(0))?.is_ok() {
            return Ok(Some(script));
        }
    }
    Ok(None)
}

/// What was sent: by the number of the command, from 1; MULTI's answer is number 0.
pub(super) struct Sent {
    pub dbs: Vec<u32>,
    /// Whether each database is selected.
    pub selects: bool,
    pub commands: usize,
    pub looks: HashSet<usize>,
    pub first_of_keys: usize,
}

/// Sends all commands of the question.
pub(super) fn send(conn: &mut Conn, question: &Question<'_>) -> Result<Sent, ServerError> {
    let plan = question.plan;
    let dbs: BTreeSet<u32> = plan.dump.keys().chain(plan.look.keys()).copied().collect();
    let dbs: Vec<u32> = dbs.into_iter().collect();
    let selects = dbs.len() > 1 || dbs.first().is_some_and(|db| conn.database() != Some(*db));
    let mut sent = Sent {
        dbs,
        selects,
        commands: 0,
        looks: HashSet::default(),
        first_of_keys: usize::MAX,
    };
    if question.how == How::Multi {
        conn.queue(&[b"MULTI"])?;
    }
    let mut asking = Asking {
        conn,
        is_script: matches!(question.how, How::Script(_)),
        commands: 0,
        words: Vec::new(),
    };
    asking.ask_of_server(question)?;
    for db in sent.dbs.clone() {
        asking.ask_of_database(question, db, &mut sent)?;
    }
    sent.commands = asking.commands;
    let words = asking.words;
    match question.how {
        How::Multi => conn.queue(&[b"EXEC"])?,
        How::Script(script) => {
            let mut args: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"0"];
            args.extend(words.iter().map(Vec::as_slice));
            conn.queue(&args)?;
        }
        How::Plain => {}
    }
    conn.flush()?;
    // A script's SELECT ends with it; any other is not proved by anybody reading its answer here.
    if selects && !matches!(question.how, How::Script(_)) {
        conn.forget_database();
    }
    Ok(sent)
}

/// Sends the commands, or collects their words for a script.
struct Asking<'a> {
    conn: &'a mut Conn,
    is_script: bool,
    commands: usize,
    words: Vec<Vec<u8>>,
}

impl Asking<'_> {
    /// One command; its number.
    fn ask(&mut self, args: &[&[u8]]) -> Result<usize, ServerError> {
        self.commands += 1;
        if self.is_script {
            self.words.push(args.len().to_string().into_bytes());
            self.words.extend(args.iter().map(|word| word.to_vec()));
        } else {
            self.conn.queue(args)?;
        }
        Ok(self.commands)
    }

    fn ask_of_server(&mut self, question: &Question<'_>) -> Result<(), ServerError> {
        if question.abilities.time {
            self.ask(&[b"TIME"])?;
        }
        if let Some(by) = question.functions_by {
            self.ask(by.command())?;
        }
        if question.counts {
            self.ask(&[b"INFO", b"commandstats"])?;
        }
        if question.databases {
            self.ask(&[b"INFO", b"keyspace"])?;
        }
        Ok(())
    }

    fn ask_of_database(
        &mut self,
        question: &Question<'_>,
        db: u32,
        sent: &mut Sent,
    ) -> Result<(), ServerError> {
        if sent.selects {
            self.ask(&[b"SELECT", db.to_string().as_bytes()])?;
        }
        // Right beside the expiries, before any value: dumping a large one takes its time.
        if question.abilities.asks_time() {
            self.ask(&[b"TIME"])?;
        }
        let expiry: &[u8] = match question.abilities.pexpiretime {
            true => b"PEXPIRETIME",
            false => b"PTTL",
        };
        for key in question.plan.keys_of(db) {
            let number = self.ask(&[expiry, key])?;
            sent.first_of_keys = sent.first_of_keys.min(number);
        }
        // How long that took is how far off they may be.
        if question.abilities.asks_time() {
            self.ask(&[b"TIME"])?;
        }
        for key in question.plan.keys_of(db) {
            if let Some(command) = question.abilities.eviction {
                self.ask(&[b"OBJECT", command.word(), key])?;
            }
            self.ask(&[b"DUMP", key])?;
        }
        for (key, _) in question.plan.looks_of(db) {
            sent.looks.insert(self.ask(&[b"XINFO", b"STREAM", key])?);
        }
        Ok(())
    }
}
