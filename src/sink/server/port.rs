//! One connection of the sink, and who answers on it.

use super::commands::Commands;
use super::writer::{Introduction, Met, Upheavals};
use crate::endpoint::{ConnectOptions, Transport};
use crate::server::counts::CommandCounts;
use crate::server::facts::Facts;
use crate::server::reply::{Reply, cmd};
use crate::server::sentinel::{self, Standing};
use crate::server::{ABSENT_KEY, Conn, ServerError};

/// Who was met last.
#[derive(Default)]
struct Known {
    run_id: Option<String>,
    version: String,
    /// The server that answered: sentinels may name another one by now.
    reached: String,
    /// CLIENT ID of the connection: what is left of a lost one can be ended by it.
    client_id: Option<i64>,
    /// `evicted_keys` at the first look.
    evicted_before: Option<u64>,
    /// How often each command had been called then.
    counts_before: Option<CommandCounts>,
    /// How often in a row who answered did not say who it is, though that had been told before.
    times_untold: u8,
}

impl Known {
    /// Whether who answers is to be asked once more who it is, on another connection: it does not say
    /// so, though that was told before, and was not asked too often.
    fn is_to_be_asked_again(&mut self, run_id: Option<&str>) -> bool {
        let is_untold = self.run_id.is_some() && run_id.is_none();
        let again = is_untold && self.times_untold < ASKED_AGAIN;
        self.times_untold = if again { self.times_untold + 1 } else { 0 };
        again
    }
}

/// So often it is asked again who answers, on new connections, where that was told before: one answer
/// may be cut off or be none.
const ASKED_AGAIN: u8 = 2;

/// One connection.
#[derive(Default)]
pub(super) struct Port {
    /// How it was made.
    to: Option<ConnectOptions>,
    conn: Option<Conn>,
    /// Writes values by native commands, once it is known what these can do.
    pub commands: Option<Commands>,
    known: Known,
}

impl Port {
    /// The connection.
    ///
    /// # Errors
    /// [`ServerError::Lost`] where there is none.
    pub fn conn(&mut self) -> Result<&mut Conn, ServerError> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            None => Err(no_connection(self.to.as_ref())),
        }
    }

    /// The connection, with what it takes to write by commands.
    ///
    /// # Errors
    /// As [`Self::conn`]; so too where nothing was learnt yet.
    pub fn conn_and_commands(&mut self) -> Result<(&mut Conn, &mut Commands), ServerError> {
        match (&mut self.conn, &mut self.commands) {
            (Some(conn), Some(commands)) => Ok((conn, commands)),
            _ => Err(no_connection(self.to.as_ref())),
        }
    }

    /// The connection, if there is one.
    pub fn open_conn(&mut self) -> Option<&mut Conn> {
        self.conn.as_mut()
    }

    /// Gives the connection up.
    pub fn drop_conn(&mut self) {
        self.conn = None;
    }

    /// Takes a new connection into use: asks who is there. `left_writes`: a write was in flight on the
    /// connection before.
    ///
    /// # Errors
    /// The connection.
    pub fn meet(
        &mut self,
        to: &ConnectOptions,
        mut conn: Conn,
        left_writes: bool,
    ) -> Result<Introduction, ServerError> {
        conn.doing("asking the destination what it is");
        let facts = Facts::ask(&mut conn)?;
        self.meet_as(to, conn, facts, left_writes)
    }

    /// As [`Self::meet`], with the answer that was given already.
    ///
    /// # Errors
    /// The connection.
    pub fn meet_as(
        &mut self,
        to: &ConnectOptions,
        mut conn: Conn,
        mut facts: Facts,
        left_writes: bool,
    ) -> Result<Introduction, ServerError> {
        self.insist_on_name(&conn, &facts)?;
        facts.learn_eviction(&mut conn)?;
        let met = self.recognize(to, &conn, &facts);
        // In one round trip.
        conn.queue(&[b"PEXPIRETIME", ABSENT_KEY.as_bytes()])?;
        conn.queue(&[b"CLIENT", b"ID"])?;
        let (pexpiretime, id) = (conn.reply()?, conn.reply()?);
        let mut may_run_late = false;
        // What the server has received on the lost connection and not carried out must not be
        // carried out behind what is sent now. Where that is refused, its socket buffer is short.
        if matches!(met, Met::Same | Met::Unknown) {
            let ended = match self.known.client_id {
                Some(former) => conn.try_query(cmd("CLIENT").arg("KILL").arg("ID").arg(former))?,
                None => Err("it was never told its id".to_owned()),
            };
            may_run_late = left_writes && !matches!(ended, Ok(Reply::Int(_)));
        }
        if matches!(met, Met::First | Met::Other | Met::Successor) {
            self.commands = None;
            self.known.counts_before = match facts.info {
                true => CommandCounts::ask(&mut conn)?,
                false => None,
            };
            self.known.evicted_before = facts.memory.evicted_keys;
        }
        self.known.client_id = match id {
            Ok(Reply::Int(id)) => Some(id),
            _ => None,
        };
        conn.address().clone_into(&mut self.known.reached);
        // Who does not say who it is may be the one that was known before.
        if facts.run_id.is_some() || met != Met::Unknown {
            self.known.run_id.clone_from(&facts.run_id);
        }
        self.known.version.clone_from(&facts.version);
        conn.doing("restoring keys");
        let database = conn.database();
        self.to = Some(to.clone());
        self.conn = Some(conn);
        Ok(Introduction {
            met,
            facts,
            pexpiretime: pexpiretime.map_or_else(|text| text.starts_with("MOVED"), |_| true),
            database,
            may_run_late,
        })
    }

    /// # Errors
    /// Who answers does not say who it is, though that was told before: another connection may do.
    fn insist_on_name(&mut self, conn: &Conn, facts: &Facts) -> Result<(), ServerError> {
        match self.known.is_to_be_asked_again(facts.run_id.as_deref()) {
            true => Err(conn.spoilt("it does not say any more which process it is (INFO run_id)")),
            false => Ok(()),
        }
    }

    /// Who answers on a new connection.
    fn recognize(&self, to: &ConnectOptions, conn: &Conn, facts: &Facts) -> Met {
        let known = &self.known;
        let is_watched = matches!(to.address, Transport::Sentinel(_));
        let moved = is_watched && !known.reached.is_empty() && known.reached != conn.address();
        match (&known.run_id, &facts.run_id) {
            (Some(before), Some(now)) if before == now => Met::Same,
            // Also where nobody says who he is: the sentinels name another one.
            _ if moved => Met::Successor,
            _ if known.evicted_before.is_none() && known.version.is_empty() => Met::First,
            (Some(_), Some(_)) => Met::Other,
            _ if known.version != facts.version => Met::Other,
            _ => Met::Unknown,
        }
    }

    /// What the sentinels say by now of the server that this leads to; `None` where none named it, or
    /// none answers.
    pub fn standing(&self) -> Option<Standing> {
        let standing = sentinel::standing(self.conn.as_ref()?, self.to.as_ref()?)?;
        (!matches!(standing, Standing::Unknown(_))).then_some(standing)
    }

    /// Evictions since the first look; `None` where it does not say.
    ///
    /// # Errors
    /// The connection.
    pub fn evictions(&mut self) -> Result<Option<u64>, ServerError> {
        let (Some(before), Some(conn)) = (self.known.evicted_before, &mut self.conn) else {
            return Ok(None);
        };
        let after = Facts::ask(conn)?.memory.evicted_keys;
        Ok(after.map(|after| after.saturating_sub(before)))
    }

    /// How often somebody emptied or swapped whole databases since the first look.
    ///
    /// # Errors
    /// The connection.
    pub fn upheavals(&mut self) -> Result<Upheavals, ServerError> {
        let Some(before) = &self.known.counts_before else {
            return Ok(Upheavals::NeverCounted);
        };
        let Some(conn) = &mut self.conn else {
            return Ok(Upheavals::NotCounted);
        };
        let after = CommandCounts::ask(conn)?;
        let count = after.and_then(|after| after.upheavals_since(before));
        Ok(count.map_or(Upheavals::NotCounted, Upheavals::Counted))
    }
}

fn no_connection(to: Option<&ConnectOptions>) -> ServerError {
    ServerError::Lost {
        address: to.map_or_else(String::new, |to| to.address.to_string()),
        doing: "restoring keys".to_owned(),
        reason: "there is no connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_who_it_is_is_asked_twice_more() {
        let mut known = Known {
            run_id: Some("a".to_owned()),
            ..Known::default()
        };
        let mut again = |run_id| known.is_to_be_asked_again(run_id);
        assert!(again(None) && again(None));
        // A server that hides its name from now on is not asked for ever.
        assert!(!again(None));
        // Each silence begins anew.
        assert!(again(None));
        assert!(!again(Some("a")));
        assert!(again(None) && again(None) && !again(None));
        // Another process is no silence: what that means is decided elsewhere.
        assert!(!again(Some("b")));
    }

    #[test]
    fn who_never_said_who_it_is_is_not_asked_again() {
        let mut known = Known::default();
        assert!(!known.is_to_be_asked_again(None));
        assert!(!known.is_to_be_asked_again(Some("a")));
    }
}
