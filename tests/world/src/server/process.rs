//! One command's way: from the bytes to its reply.

use super::Server;
use super::client::{ClientId, Replies, Transaction, WORLD, Waits};
use super::fault::Verdict;
use super::release::{Release, Since};
use super::reply::Reply;
use super::request::{self, Request};
use super::table::{
    self, ALLOW_BUSY, Found, LOADING, MAY_REPLICATE, NEEDS_MEMORY, NO_AUTH, Row, STALE, WRITE,
};

/// For whom a command is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cx {
    pub client: ClientId,
    pub db: u32,
    /// The moment that it takes for now, in Unix ms: mostly when the outermost command began.
    pub now: u64,
    /// Its clock, which is ahead of that moment where it stood still since.
    pub clock: u64,
    pub in_exec: bool,
}

impl Cx {
    /// The world itself.
    pub fn of_world(db: u32, now: u64) -> Self {
        Self {
            client: WORLD,
            db,
            now,
            clock: now,
            in_exec: false,
        }
    }

    /// The server stands still for so long. By 7.2 all commands of an EXEC see the moment when it
    /// began; from 6.0 on that was so for what is past its time, and before for nothing (measured with
    /// `DEBUG SLEEP` within MULTI on 5.0 to 8.2).
    pub fn stand_still(&mut self, ms: u64, release: &Release) {
        if !release.has(Since::R72) {
            self.clock += ms;
        }
        if !release.has(Since::R60) {
            self.now += ms;
        }
    }
}

const NO_AUTH_TEXT: &str = "NOAUTH Authentication required.";

/// What became of a request.
enum Served {
    Done,
    /// It is served when the pause is over.
    Postponed,
}

impl Server {
    /// Bytes from a client. What it is to be sent is put into its outbox.
    pub fn receive(&mut self, id: ClientId, bytes: &[u8], now_ms: u64) {
        self.time.seen(now_ms);
        if let Some(client) = self.client_mut(id) {
            client.input.extend_from_slice(bytes);
        }
        self.serve(id, now_ms);
    }

    /// Serves what the client has sent, as far as it is all there.
    pub(super) fn serve(&mut self, id: ClientId, now: u64) {
        let max_bulk = self.config.limits.max_bulk;
        let Some(client) = self.client_mut(id) else {
            return;
        };
        if client.waits.is_some() || client.input.is_empty() {
            return;
        }
        let input = std::mem::take(&mut client.input);
        let mut at = 0;
        while self
            .client(id)
            .is_some_and(|client| !client.is_closed && client.waits.is_none())
        {
            match request::read(&input[at..], max_bulk) {
                Request::Partial => break,
                Request::Broken(text) => {
                    self.say(id, &Reply::error(text));
                    self.close(id);
                }
                Request::Words(words, end) => {
                    let args: Vec<&[u8]> = words
                        .into_iter()
                        .map(|word| &input[at + word.start..at + word.end])
                        .collect();
                    if !args.is_empty() && matches!(self.take(id, &args, now), Served::Postponed) {
                        break;
                    }
                    at += end;
                }
            }
        }
        if let Some(client) = self.client_mut(id) {
            if client.input.is_empty() && at == 0 {
                client.input = input;
            } else {
                client.input.splice(0..0, input[at..].iter().copied());
            }
        }
    }

    pub(super) fn close(&mut self, id: ClientId) {
        if let Some(client) = self.client_mut(id).filter(|client| client.id != WORLD) {
            client.is_closed = true;
            client.input.clear();
        }
    }

    /// Puts a reply into the client's outbox.
    pub(super) fn say(&mut self, id: ClientId, reply: &Reply) {
        let limit = self.config.limits.max_output;
        if let Reply::Error(text) = reply {
            self.stats.count_error(text);
        }
        let Some(client) = self.client_mut(id) else {
            return;
        };
        match client.session.replies {
            Replies::On => reply.write(&mut client.output, client.session.protocol),
            Replies::Skip => client.session.replies = Replies::On,
            Replies::SkipNext => client.session.replies = Replies::Skip,
            Replies::Off => {}
        }
        let late = std::mem::take(&mut client.late);
        client.output.extend_from_slice(&late);
        if limit > 0 && client.output.len() > limit {
            client.output.clear();
            client.is_closed = true;
        }
    }

    fn take(&mut self, id: ClientId, args: &[&[u8]], now: u64) -> Served {
        let Some(client) = self.client(id) else {
            return Served::Done;
        };
        let cx = Cx {
            client: id,
            db: client.session.db,
            now,
            clock: now,
            in_exec: false,
        };
        let verdict = self.faults.received(args);
        match verdict {
            Verdict::None => {}
            Verdict::Say(Reply::Nothing) => {
                if let Some(client) = self.client_mut(id) {
                    client.waits = Some(Waits::Nothing);
                }
                return Served::Done;
            }
            Verdict::Say(reply) => {
                let row = match table::find(&self.config, args) {
                    Found::Row(row) => Some(row),
                    Found::Refused(_) => None,
                };
                self.refuse(id, row, &reply);
                self.spoil_transaction(id);
                self.say(id, &reply);
                return Served::Done;
            }
            Verdict::Close => {
                self.close(id);
                return Served::Done;
            }
            Verdict::DoAndSay(_) | Verdict::DoAndClose | Verdict::Late(_) => {}
        }
        let (row, refusal) = self.admit(&cx, args);
        if let Some(refusal) = refusal {
            self.refuse(id, row, &refusal);
            self.say(id, &refusal);
            return Served::Done;
        }
        let Some(row) = row else { return Served::Done };
        if self.must_wait(&cx, row, args) {
            if let Some(client) = self.client_mut(id) {
                client.waits = Some(Waits::Pause);
            }
            return Served::Postponed;
        }
        let reply = match self.queues(id, row) {
            true => self.queue(&cx, row, args),
            false => self.call(&cx, row, args),
        };
        if let Some(client) = self
            .client_mut(id)
            .filter(|_| !matches!(row.name, "asking"))
        {
            client.session.asking = false;
        }
        match verdict {
            Verdict::DoAndSay(other) => self.say(id, &other),
            Verdict::DoAndClose => self.close(id),
            _ => self.say(id, &reply),
        }
        Served::Done
    }

    /// What is neither queued nor carried out spoils the transaction, whatever is said of it: no server
    /// carries out a part of what it was given between MULTI and EXEC.
    fn spoil_transaction(&mut self, id: ClientId) {
        let client = self.client_mut(id);
        if let Some(transaction) = client.and_then(|client| client.transaction.as_mut()) {
            transaction.has_failed = true;
        }
    }

    /// A refused command spoils the transaction that it was to be queued in.
    fn refuse(&mut self, id: ClientId, row: Option<&Row>, refusal: &Reply) {
        let is_old = !self.release().has(Since::R60);
        let Some(client) = self.client_mut(id) else {
            return;
        };
        client.session.asking = false;
        match row.map(|row| row.name) {
            Some("exec") => {
                client.transaction = None;
                client.watched.clear();
                client.is_dirty = false;
            }
            _ => {
                // In 5.0 this one is forgotten.
                let is_forgotten = is_old
                    && refusal
                        .as_error()
                        .is_some_and(|text| text.starts_with("READONLY"));
                if let Some(transaction) = &mut client.transaction {
                    transaction.has_failed |= refusal.as_error().is_some() && !is_forgotten;
                }
            }
        }
    }

    /// Finds the command, and asks everything that may refuse it before it is queued or carried out.
    fn admit(&mut self, cx: &Cx, args: &[&[u8]]) -> (Option<&'static Row>, Option<Reply>) {
        let row = match table::find(&self.config, args) {
            Found::Row(row) => row,
            Found::Refused(text) => {
                let is_known = self
                    .client(cx.client)
                    .is_some_and(|client| client.session.user.is_some());
                // The newest says nothing of commands to a stranger.
                let text = match is_known || !self.release().has(Since::V91) {
                    true => text,
                    false => NO_AUTH_TEXT.to_owned(),
                };
                return (None, Some(Reply::error(text)));
            }
        };
        let is_anonymous = self
            .client(cx.client)
            .is_none_or(|client| client.session.user.is_none());
        if !is_anonymous
            && self.forbids(cx, row, args).is_none()
            && let Some(text) = self.redirection(cx, row, args)
        {
            return (Some(row), Some(Reply::error(text)));
        }
        let refusal = self.refusal(cx, row, args).map(|text| match row.name {
            "exec" => {
                let cause = text.strip_prefix('-').unwrap_or(&text);
                match self.release().has(Since::R62) {
                    true => Reply::error(format!(
                        "EXECABORT Transaction discarded because of: {cause}"
                    )),
                    false => Reply::error(text),
                }
            }
            _ => Reply::error(text),
        });
        (Some(row), refusal)
    }

    fn refusal(&mut self, cx: &Cx, row: &'static Row, args: &[&[u8]]) -> Option<String> {
        let client = self.client(cx.client)?;
        if client.session.user.is_none() && row.flags & NO_AUTH == 0 {
            return Some(NO_AUTH_TEXT.to_owned());
        }
        let is_full_and_old = !self.release().has(Since::R60) && self.config.limits.max_memory > 0;
        if client.transaction.is_some() && matches!(row.name, "watch" | "multi") && !is_full_and_old
        {
            let release = self.release();
            return release.is_valkey().then(|| match release.has(Since::V91) {
                true => format!(
                    "ERR Command '{}' not allowed inside a transaction",
                    row.name
                ),
                false => "ERR Command not allowed inside a transaction".to_owned(),
            });
        }
        if let Some(text) = self.forbids(cx, row, args) {
            return Some(text);
        }
        let queued = client.transaction.as_ref().filter(|_| row.name == "exec");
        let needs_memory = row.flags & NEEDS_MEMORY != 0
            || (self.queues(cx.client, row) && !self.release().queues_when_full())
            || (client.transaction.is_some()
                && row.name != "exec"
                && !self.release().has(Since::R60))
            || queued.is_some_and(|transaction| transaction.needs_memory);
        let writes = row.flags & WRITE != 0 || queued.is_some_and(|transaction| transaction.writes);
        if !self.make_room(cx) && needs_memory {
            return Some("OOM command not allowed when used memory > 'maxmemory'.".to_owned());
        }
        self.conditions_refuse(row, writes)
    }

    fn conditions_refuse(&self, row: &Row, writes: bool) -> Option<String> {
        let conditions = &self.faults.conditions;
        let name = if self.release().is_valkey() {
            "Valkey"
        } else {
            "Redis"
        };
        if conditions.misconf && (writes || row.name == "ping") {
            return Some(format!(
                "MISCONF {name} is configured to save RDB snapshots, but it's currently unable to \
                 persist to disk. Commands that may modify the data set are disabled, because this \
                 instance is configured to report errors during writes if RDB snapshotting fails \
                 (stop-writes-on-bgsave-error option). Please check the {name} logs for details \
                 about the RDB error."
            ));
        }
        if writes && self.is_replica() {
            return Some("READONLY You can't write against a read only replica.".to_owned());
        }
        if conditions.master_down && row.flags & STALE == 0 {
            return Some(
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
                    .to_owned(),
            );
        }
        if conditions.loading && row.flags & LOADING == 0 {
            return Some(format!("LOADING {name} is loading the dataset in memory"));
        }
        if conditions.busy && row.flags & ALLOW_BUSY == 0 {
            return Some(format!(
                "BUSY {name} is busy running a script. You can only call SCRIPT KILL or SHUTDOWN \
                 NOSAVE."
            ));
        }
        None
    }

    /// Whether CLIENT PAUSE holds the command up.
    fn must_wait(&self, cx: &Cx, row: &Row, args: &[&[u8]]) -> bool {
        let Some(pause) = self.time.pause(cx.now) else {
            return false;
        };
        let Some(client) = self.client(cx.client) else {
            return false;
        };
        if client.session.is_replica {
            return false;
        }
        if pause.is_of_all {
            return true;
        }
        let queued = client.transaction.as_ref().filter(|_| row.name == "exec");
        match queued {
            Some(transaction) => transaction.writes,
            None if client.transaction.is_some() => false,
            None => {
                row.flags & (WRITE | MAY_REPLICATE) != 0
                    && !super::commands::script_writes_nothing(row, args)
            }
        }
    }

    fn queues(&self, id: ClientId, row: &Row) -> bool {
        let in_multi = self
            .client(id)
            .is_some_and(|client| client.transaction.is_some());
        in_multi
            && !matches!(
                row.name,
                "exec" | "discard" | "multi" | "watch" | "quit" | "reset"
            )
    }

    fn queue(&mut self, cx: &Cx, row: &Row, args: &[&[u8]]) -> Reply {
        let Some(client) = self.client_mut(cx.client) else {
            return Reply::Nothing;
        };
        let asking = client.session.asking;
        let transaction = client.transaction.get_or_insert_with(Transaction::default);
        transaction
            .queued
            .push(args.iter().map(|arg| arg.to_vec()).collect());
        transaction.writes |= row.flags & (WRITE | MAY_REPLICATE) != 0
            && !super::commands::script_writes_nothing(row, args);
        transaction.needs_memory |= row.flags & NEEDS_MEMORY != 0;
        transaction.asking |= asking;
        Reply::Simple("QUEUED")
    }

    /// Carries out a command, and counts it.
    pub(super) fn call(&mut self, cx: &Cx, row: &'static Row, args: &[&[u8]]) -> Reply {
        if let Some(client) = self.client_mut(cx.client) {
            client.session.last_command = row.name;
        }
        let reply = (row.run)(self, cx, args);
        self.stats.count(row, self.release().has(Since::R70));
        reply
    }

    /// The same of words that nobody has looked up, as EXEC and scripts have them.
    pub(super) fn run(&mut self, cx: &Cx, args: &[&[u8]]) -> Reply {
        match table::find(&self.config, args) {
            Found::Row(row) => self.call(cx, row, args),
            Found::Refused(text) => Reply::error(text),
        }
    }
}
