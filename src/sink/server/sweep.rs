//! Temporary keys that values built by native commands may leave: they are removed, or told of.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::lane::Lane;
use super::refusal::Refusal;
use super::{Action, Sent, ServerSink};
use crate::record::show_key;
use crate::server::conn::is_forbidden;
use crate::server::reply::{Reply, cmd};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};
use crate::units::{count_text, plural};

/// How long a destination that does not answer is waited for after a run that failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many are named.
const SHOWN: usize = 8;

/// Keys that are told of in one line when the run ends.
#[derive(Debug, Default)]
pub(super) struct Listed {
    count: u64,
    shown: Vec<String>,
    /// Why, of the first.
    why: String,
}

impl Listed {
    /// One more, and why it is told of.
    pub fn add(&mut self, db: u32, key: &[u8], why: &str) {
        if self.count == 0 {
            why.clone_into(&mut self.why);
        }
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(format!("{} (db {db})", show_key(key)));
        }
    }

    fn names(&self) -> String {
        let shown = self.shown.join(", ");
        match self.count - self.shown.len() as u64 {
            0 => shown,
            more => format!("{shown} and {} more", count_text(more)),
        }
    }

    /// The line, where these are temporary keys that may be left.
    pub fn told_as_left(&self) -> Option<String> {
        (self.count > 0).then(|| {
            format!(
                "{} may be left at the destination, which did not remove them ({}): {}; delete \
                 them when no run is under way (`doctor` lists them)",
                plural(self.count, "temporary key"),
                self.why,
                self.names(),
            )
        })
    }

    /// The line, where these are keys that stand without their expiry.
    pub fn told_as_lasting(&self) -> Option<String> {
        (self.count > 0).then(|| {
            format!(
                "written without the expiry that they should have ({}): {}, {}; set it at the \
                 destination, or delete them there and run the same command again with the right \
                 to PEXPIREAT",
                self.why,
                plural(self.count, "key"),
                self.names(),
            )
        })
    }
}

impl ServerSink {
    /// A temporary key may be left in this database: it is removed when its turn comes.
    pub(super) fn clean_up(&mut self, db: u32, temp: Vec<u8>) {
        let mut sent = Sent::without_key(Action::CleanUp("UNLINK"));
        sent.print = self.own.fingerprint(db, &temp);
        sent.record.db = db;
        sent.record.key = temp;
        self.put_again(sent);
    }

    /// The removal of a temporary key was refused: it is tried again as long as there is hope.
    pub(super) fn not_removed(&mut self, at: usize, mut sent: Sent, text: &str) -> Result<()> {
        if is_forbidden(text) && matches!(sent.action, Action::CleanUp("UNLINK")) {
            sent.action = Action::CleanUp("DEL");
            return self.queue(sent);
        }
        let refusal = Refusal::of(text, &self.lanes[at].facts, &sent.context);
        if refusal == Refusal::Later && self.patience.lasts() {
            self.put_again(sent);
            self.pause = true;
        } else {
            self.leave_behind(sent.record.db, &sent.record.key, text);
        }
        Ok(())
    }

    /// A temporary key is given up; `why`: the server's words, or what happened.
    pub(super) fn leave_behind(&mut self, db: u32, temp: &[u8], why: &str) {
        self.left_behind.add(db, temp, why);
    }

    /// After a run that failed: tries once more to remove the temporary keys of values that were not
    /// finished.
    pub(super) fn sweep(&mut self) {
        let lanes = self.lanes.iter().flat_map(Lane::unanswered);
        let mut by_place: BTreeMap<(Option<usize>, u32), Vec<Vec<u8>>> = BTreeMap::new();
        for sent in lanes.chain(&self.again) {
            let Some(temp) = temp_of(sent) else { continue };
            let at = match &self.routes {
                None => Some(0),
                Some(routes) => routes.lane_of(slot_of(temp)),
            };
            let place = (at, sent.record.db);
            by_place.entry(place).or_default().push(temp.to_vec());
        }
        for ((at, db), mut temps) in by_place {
            let removed = match at {
                Some(at) => self.remove(at, db, &mut temps),
                None => Err("the cluster does not serve their slots".to_owned()),
            };
            let why = removed.err().unwrap_or_default();
            for temp in temps {
                self.leave_behind(db, &temp, &why);
            }
        }
    }

    /// Removes keys, and takes them out of `temps`; the error says why the others are left. On a
    /// connection of its own: what the lane's is in the middle of is not known.
    fn remove(&self, at: usize, db: u32, temps: &mut Vec<Vec<u8>>) -> Result<(), String> {
        let mut to = self.lanes[at].to.clone();
        to.timeout = to.timeout.min(PATIENCE);
        to.connect_timeout = to.connect_timeout.min(PATIENCE);
        to.retry_for = to.retry_for.min(PATIENCE);
        let told = |lost: ServerError| lost.to_string();
        let mut conn = Conn::open(&to).map_err(told)?;
        conn.heed(&to, &self.stop.flag());
        conn.select(db).map_err(told)??;
        let mut refused = Ok(());
        let mut left = Vec::new();
        while let Some(temp) = temps.pop() {
            match remove_one(&mut conn, &temp) {
                Ok(Ok(())) => continue,
                Ok(Err(text)) => refused = Err(text),
                Err(lost) => {
                    temps.push(temp);
                    temps.append(&mut left);
                    return Err(told(lost));
                }
            }
            left.push(temp);
        }
        *temps = left;
        refused
    }
}

/// The inner error is the server's refusal.
fn remove_one(conn: &mut Conn, temp: &[u8]) -> Result<Result<(), String>, ServerError> {
    let mut refusal = String::new();
    for command in ["UNLINK", "DEL"] {
        match conn.try_query(cmd(command).arg(temp))? {
            Ok(Reply::Int(0 | 1)) => return Ok(Ok(())),
            Ok(_) => return Err(conn.confused(format!("no answer to {command}"))),
            Err(text) => refusal = text,
        }
    }
    Ok(Err(refusal))
}

fn temp_of(sent: &Sent) -> Option<&[u8]> {
    match sent.action {
        Action::CleanUp(_) => Some(&sent.record.key),
        _ => sent
            .by_commands
            .as_ref()?
            .as_ref()
            .and_then(|ticket| ticket.temp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_left_are_counted_and_the_first_are_named() {
        let mut left = Listed::default();
        assert_eq!(left.told_as_left(), None);
        assert_eq!(left.told_as_lasting(), None);
        left.add(3, b"tmp:\n", "BUSY a script runs");
        let one = left.told_as_left().unwrap();
        assert!(one.starts_with("1 temporary key may be left"), "{one}");
        assert!(
            one.contains("(BUSY a script runs): \"tmp:\\n\" (db 3); "),
            "{one}"
        );
        for n in 0..SHOWN {
            left.add(0, format!("tmp:{n}").as_bytes(), "READONLY");
        }
        let all = left.told_as_left().unwrap();
        assert!(all.starts_with("9 temporary keys may be left"), "{all}");
        assert!(all.contains("\"tmp:6\" (db 0) and 1 more; "), "{all}");
        assert!(!all.contains("READONLY"), "{all}");
    }
}
