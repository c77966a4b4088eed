//! What is in flight: commands out within the window, replies matched in order.

use anyhow::Result;

use super::compare::{self, Question};
use super::foresee::Way;
use super::gate::Gate;
use super::lane::Lane;
use super::refusal::Refusal;
use super::target::Ready;
use super::{Action, Sent, ServerSink, Wrote, answer};
use crate::own_writes::Fingerprint;
use crate::payload::footer;
use crate::record::Eviction;
use crate::server::conn::is_forbidden;
use crate::server::resp;
use crate::server::{Conn, ServerError};

/// From this size on a value is written to the socket from where it is.
const LARGE_VALUE_BYTES: usize = 128 * 1024;

/// Later moments mean trouble for the server (compare `checkInvalidExpireTime`, expire.c).
const EXPIRE_MAX_MS: u64 = 1 << 62;

/// What became of a record that was to be queued.
enum Packed {
    InFlight,
    /// It has to be written with nothing else in flight.
    Alone,
    /// Its connection went to another database meanwhile.
    Later,
}

impl ServerSink {
    /// Waits until an earlier record of the same key has taken effect, wherever it was sent.
    pub(super) fn settle_key(&mut self, print: Fingerprint) -> Result<()> {
        if self.prints.contains(&print) {
            self.drain()
        } else {
            Ok(())
        }
    }

    pub(super) fn send(&mut self, sent: Sent) -> Result<()> {
        if !self.again.is_empty() {
            self.drain()?;
        }
        let at = sent.at;
        let window = self.window;
        let is_full = |lane: &Lane, more_bytes: usize| {
            lane.unanswered_bytes() + more_bytes > window.bytes
                || lane.unanswered_count() >= window.records
        };
        if !self.lanes[at].sent.is_empty() && is_full(&self.lanes[at], sent.bytes) {
            // The others work while this one is waited for.
            self.flush()?;
            let low_bytes = (window.bytes / 2).saturating_sub(sent.bytes);
            while !self.lanes[at].sent.is_empty()
                && (self.lanes[at].unanswered_bytes() > low_bytes
                    || self.lanes[at].unanswered_count() > window.records / 2)
            {
                self.read_one(at)?;
            }
        }
        self.queue(sent)
    }

    /// Queues it for the lane of its key, or puts it off.
    pub(super) fn queue(&mut self, sent: Sent) -> Result<()> {
        self.with_in_hand(sent, Self::queue_in_hand)
    }

    /// Does something with a record that is neither in flight nor put off meanwhile. If it is a
    /// recalled one, what comes after it waits ([`Self::follows_recalled`]).
    pub(super) fn with_in_hand(
        &mut self,
        sent: Sent,
        act: impl FnOnce(&mut Self, Sent) -> Result<()>,
    ) -> Result<()> {
        if !sent.is_recalled {
            return act(self, sent);
        }
        self.in_hand.push(sent.print);
        let done = act(self, sent);
        self.in_hand.pop();
        done
    }

    /// Whether an earlier record of the same key is to go first: the primary that acknowledged it is
    /// gone, and its successor perhaps lacks it. To be asked just before the record goes out, because
    /// all that comes before may have opened the connection to the successor.
    pub(super) fn follows_recalled(&self, sent: &Sent) -> bool {
        if !self.recalls || sent.is_recalled {
            return false;
        }
        let in_flight = self.lanes.iter().flat_map(Lane::unanswered);
        let mut open = self.again.iter().chain(in_flight);
        self.in_hand.contains(&sent.print)
            || open.any(|other| other.is_recalled && other.print == sent.print)
    }

    fn queue_in_hand(&mut self, mut sent: Sent) -> Result<()> {
        let at = match self.ready(&sent.record.key, sent.ask_to) {
            Ok(Some(at)) => at,
            Ok(None) => {
                self.put_again(sent);
                return Ok(());
            }
            Err(error) => {
                self.put_again(sent);
                return Err(error);
            }
        };
        match self.enter(at, sent.record.db) {
            Ok(Gate::Open) => {}
            Ok(Gate::Moving) => return self.hold(at, sent),
            Ok(Gate::Later) => {
                self.put_again(sent);
                return Ok(());
            }
            Ok(Gate::Refused(why)) => return self.refuse_database(sent, &why),
            Err(error) => {
                self.put_again(sent);
                return Err(error);
            }
        }
        if sent.at != at || (sent.by_commands.is_some() && self.lanes[at].commands.is_none()) {
            match self.fit(at, &mut sent)? {
                Some(Ok(())) => {}
                Some(Err(refusal)) => return self.refuse(sent, refusal),
                None => {
                    self.put_again(sent);
                    return Ok(());
                }
            }
        }
        if self.follows_recalled(&sent) {
            self.put_again(sent);
            return Ok(());
        }
        match self.pack(at, &mut sent) {
            Ok(Packed::InFlight) => {
                self.prints.insert(sent.print);
                self.lanes[at].push(sent);
                Ok(())
            }
            Ok(Packed::Alone) => self.write_alone(sent),
            Ok(Packed::Later) => {
                self.put_again(sent);
                Ok(())
            }
            // How much of its commands went out is not known, and no answer will tell.
            Err(error) if sent.by_commands.is_some() => {
                self.lose(sent);
                self.read_last_words(at, error)
            }
            Err(error) => {
                self.prints.insert(sent.print);
                self.lanes[at].push(sent);
                self.read_last_words(at, error)
            }
        }
    }

    fn pack(&mut self, at: usize, sent: &mut Sent) -> Result<Packed, ServerError> {
        let asking = sent.ask_to.is_some();
        let lane = &mut self.lanes[at];
        // Here the bytes go out.
        if lane.conn()?.database() != Some(sent.record.db) {
            return Ok(Packed::Later);
        }
        if asking && !matches!(sent.action, Action::Compare) {
            lane.conn()?.queue(&[b"ASKING"])?;
            lane.push_prelude("ASKING");
        }
        let pexpiretime = lane.pexpiretime;
        match &sent.action {
            Action::Prelude(_) | Action::Select | Action::Wait => {}
            Action::Restore { replace, .. } if sent.by_commands.is_some() => {
                let replace = *replace;
                return self.pack_commands(at, sent, replace);
            }
            Action::Restore { replace, .. } if sent.is_graph => {
                if *replace {
                    lane.conn()?.queue(&[b"DEL", &sent.record.key])?;
                    lane.push_prelude("DEL");
                    if asking {
                        lane.conn()?.queue(&[b"ASKING"])?;
                        lane.push_prelude("ASKING");
                    }
                }
                // Where DEL did nothing, the answer is BUSYKEY.
                pack_restore(lane.conn()?, sent, false)?;
            }
            Action::Restore { replace, .. } => pack_restore(lane.conn()?, sent, *replace)?,
            Action::Compare => {
                let question = Question {
                    pexpiretime,
                    asking,
                };
                compare::ask(lane.conn()?, &sent.record.key, question)?;
            }
            Action::Try(way) => return self.pack_try(at, sent, *way),
            Action::Look | Action::Ask => lane.conn()?.queue(&[b"EXISTS", &sent.record.key])?,
            Action::Delete { .. } => lane.conn()?.queue(&[b"DEL", &sent.record.key])?,
            Action::CleanUp(word) => {
                lane.conn()?.queue(&[word.as_bytes(), &sent.record.key])?;
            }
        }
        Ok(Packed::InFlight)
    }

    fn pack_try(&mut self, at: usize, sent: &Sent, way: Way) -> Result<Packed, ServerError> {
        let key = &sent.record.key;
        let lane = &mut self.lanes[at];
        match way {
            Way::Rename => {
                let (conn, commands) = lane.conn_and_commands()?;
                way.queue(conn, key, &commands.temp_key(key))?;
            }
            Way::Restore | Way::RestoreNew | Way::Set => way.queue(lane.conn()?, key, b"")?,
        }
        Ok(Packed::InFlight)
    }

    fn pack_commands(
        &mut self,
        at: usize,
        sent: &mut Sent,
        replace: bool,
    ) -> Result<Packed, ServerError> {
        Ok(match self.queue_commands(at, sent, replace)? {
            Some(ticket) => {
                sent.by_commands = Some(Some(Box::new(ticket)));
                Packed::InFlight
            }
            None => Packed::Alone,
        })
    }

    /// Writes what is queued, on every lane.
    pub(super) fn flush(&mut self) -> Result<()> {
        for at in 0..self.lanes.len() {
            if let Some(conn) = &mut self.lanes[at].conn
                && let Err(error) = conn.flush()
            {
                self.read_last_words(at, error)?;
            }
        }
        Ok(())
    }

    /// Reads every reply that is due, and sends again what has to be, until nothing is open.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            self.flush()?;
            for at in 0..self.lanes.len() {
                self.drain_lane(at)?;
            }
            if self.again.is_empty() {
                self.recalls = !self.in_hand.is_empty();
                return self.end_if_halted();
            }
            // These wait for what is in hand, and that for this.
            let follows = |sent: &Sent| self.in_hand.contains(&sent.print);
            if self.again.iter().all(follows) {
                return Ok(());
            }
            self.send_again()?;
        }
    }

    /// Reads every reply that is due on a lane.
    pub(super) fn drain_lane(&mut self, at: usize) -> Result<()> {
        while !self.lanes[at].sent.is_empty() {
            self.read_one(at)?;
        }
        Ok(())
    }

    /// Reads the reply that is due first on a lane.
    pub(super) fn read_one(&mut self, at: usize) -> Result<()> {
        let first = self.lanes[at].sent.front();
        let is_of_key = first.is_some_and(|sent| sent.action.concerns_key());
        let in_turns = first.and_then(|sent| sent.by_commands.as_ref().map(|_| sent.print));
        let (put_off, is_tried) = (self.again.len(), self.patience.is_tried());
        self.read_next(at)?;
        // While the destination is waited for, every answer that needs no repetition is progress:
        // also that a key stands already, or is refused. A value that native commands write is read
        // in several turns, and only the last one says what became of it.
        if is_tried && is_of_key && self.again.len() <= put_off {
            let goes_on = in_turns.is_some_and(|print| self.prints.contains(&print));
            if !goes_on {
                self.patience.progress();
            }
        }
        Ok(())
    }

    fn read_next(&mut self, at: usize) -> Result<()> {
        match self.read_reply(at) {
            Ok(Read::Done) => Ok(()),
            Ok(Read::Answer(answer)) => self.answered(at, answer),
            Ok(Read::Found(found)) => match self.take_sent(at) {
                Some(sent) => self.compared(at, sent, found),
                None => Ok(()),
            },
            Ok(Read::Written) => self.read_written(at),
            Err(error @ ServerError::Protocol { .. }) => self.misunderstood(at, error),
            Err(error) => self.lost(at, error),
        }
    }

    fn read_reply(&mut self, at: usize) -> Result<Read, ServerError> {
        let lane = &mut self.lanes[at];
        let Some(sent) = lane.sent.front() else {
            return Ok(Read::Done);
        };
        let action = sent.action;
        if matches!(action, Action::Compare) {
            let question = Question {
                pexpiretime: lane.pexpiretime,
                asking: sent.ask_to.is_some(),
            };
            return Ok(Read::Found(compare::read(lane.conn()?, question)?));
        }
        if sent.by_commands.is_some() && matches!(action, Action::Restore { .. }) {
            return Ok(Read::Written);
        }
        let conn = lane.conn()?;
        match answer::read(action, conn.item()?) {
            Ok(answer) => Ok(Read::Answer(answer)),
            Err(odd) => Err(conn.confused(odd)),
        }
    }

    /// The answer that is due first is none that there can be: a new connection tells what became
    /// of the key. Where that happens again and again the key is refused.
    fn misunderstood(&mut self, at: usize, error: ServerError) -> Result<()> {
        let first = self.lanes[at].sent.front_mut();
        if first.is_some_and(Sent::is_odd_again)
            && let Some(sent) = self.take_sent(at)
        {
            self.refuse_misunderstood(sent, &error)?;
        }
        self.lose_connection(at, error)
    }

    /// What the destination says about this key cannot be understood.
    pub(super) fn refuse_misunderstood(&mut self, sent: Sent, error: &ServerError) -> Result<()> {
        if matches!(sent.action, Action::CleanUp(_)) {
            self.leave_behind(sent.record.db, &sent.record.key, &error.to_string());
            return Ok(());
        }
        if sent.record.key.is_empty() && sent.batch == 0 {
            return Ok(());
        }
        let refusal = Refusal::Key {
            reason: format!("{error}: what became of it is not known"),
            hint: Some("look at the key at the destination, and run again".to_owned()),
        };
        self.refuse(sent, refusal)
    }

    fn answered(&mut self, at: usize, answer: Result<i64, String>) -> Result<()> {
        if let Err(text) = &answer
            && text.starts_with("ERR Protocol error")
        {
            // These are the last words of a server that hangs up.
            let reason = text.clone();
            let lost = ServerError::Lost {
                address: self.lanes[at].to.address.to_string(),
                doing: "restoring keys".to_owned(),
                reason,
            };
            return self.lost(at, lost);
        }
        let Some(sent) = self.take_sent(at) else {
            return Ok(());
        };
        match (answer, sent.action) {
            (Ok(_), Action::Prelude(_) | Action::CleanUp(_) | Action::Compare | Action::Try(_)) => {
                Ok(())
            }
            (Err(text), Action::Prelude(word)) if word != "DEL" && is_forbidden(&text) => {
                Err(self.refusal(at, word, text).into())
            }
            // The answer to the command behind it says what that means.
            (Err(_), Action::Prelude(_)) => Ok(()),
            (answer, Action::Select) => self.moved(at, answer.is_ok()),
            (answer, Action::Wait) => {
                self.waited(at, answer);
                Ok(())
            }
            (Ok(_), Action::Restore { own, .. }) => self.stored(at, sent, own, Wrote::Now),
            (Ok(count), Action::Look) => self.looked(sent, count > 0),
            (Ok(count), Action::Ask) => self.asked(sent, count > 0),
            (Ok(count), Action::Delete { .. }) => self.deleted(at, sent, count > 0),
            (Err(text), Action::Try(way)) => self.tried(at, sent, way, text),
            (Err(text), _) => self.refused(at, sent, text),
        }
    }

    pub(super) fn refusal(&self, at: usize, command: &str, text: String) -> ServerError {
        crate::server::conn::refusal(&self.lanes[at].to.address.to_string(), command, text)
    }

    pub(super) fn take_sent(&mut self, at: usize) -> Option<Sent> {
        let lane = &mut self.lanes[at];
        let sent = lane.sent.pop_front()?;
        lane.sent_bytes -= sent.bytes;
        self.prints.remove(&sent.print);
        Some(sent)
    }
}

/// What the reply that was due first is.
enum Read {
    /// There was none.
    Done,
    /// OK or a number, or the server's complaint.
    Answer(Result<i64, String>),
    /// What stands at the destination.
    Found(compare::Found),
    /// It is of a value that was written by commands, and is still to be read.
    Written,
}

fn pack_restore(conn: &mut Conn, sent: &Sent, replace: bool) -> Result<(), ServerError> {
    let record = &sent.record;
    let footer = match sent.ready {
        Ready::AsIs => None,
        Ready::Footer(version) => Some(footer(record.value.bytes(), version)),
    };
    let body = record.value.bytes();
    let (eviction_word, eviction): (&[u8], u64) = match record.eviction {
        None => (b"", 0),
        Some(Eviction::IdleSecs(secs)) => (b"IDLETIME", secs),
        Some(Eviction::Freq(freq)) => (b"FREQ", u64::from(freq)),
    };
    let args = 5 + usize::from(replace) + 2 * usize::from(record.eviction.is_some());
    let out = conn.out();
    resp::pack_head(out, args);
    resp::pack_arg(out, b"RESTORE");
    resp::pack_arg(out, &record.key);
    // Absolute and never 0 for a key with expiry: relative times drift and overflow.
    resp::pack_number(
        out,
        record
            .expire_at_ms
            .map_or(0, |at_ms| at_ms.clamp(1, EXPIRE_MAX_MS)),
    );
    resp::pack_len(out, body.len() + footer.map_or(0, |footer| footer.len()));
    if body.len() >= LARGE_VALUE_BYTES {
        conn.write_large(body)?;
    } else {
        out.extend_from_slice(body);
    }
    let out = conn.out();
    if let Some(footer) = footer {
        out.extend_from_slice(&footer);
    }
    out.extend_from_slice(b"\r\n");
    resp::pack_arg(out, b"ABSTTL");
    if replace {
        resp::pack_arg(out, b"REPLACE");
    }
    if record.eviction.is_some() {
        resp::pack_arg(out, eviction_word);
        resp::pack_number(out, eviction);
    }
    conn.flush_if_full()
}
