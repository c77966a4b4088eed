//! The questions of a writer, as exchanges on a connection with nothing in flight.

use super::access::{self, Access};
use super::commands::{CommandLimits, Commands, Features};
use super::foresee::{KeyRights, offer};
use super::graphs::stands_elsewhere;
use super::key_classes;
use super::port::Port;
use super::prepare::Target;
use super::try_out::ProbeKeys;
use super::writer::{Answer, AskedWith, Question};
use crate::observer::Observer;
use crate::server::conn::is_forbidden;
use crate::server::facts::setting;
use crate::server::transaction::{self, is_not_now};
use crate::server::{Conn, ServerError};

/// So often a destination may answer MULTI or EXEC oddly before the run ends.
const MAX_ODD_TRANSACTIONS: u8 = 3;

/// What questions are asked with, beside the connection.
pub(super) struct Asking<'a> {
    pub with: AskedWith<'a>,
    pub observer: &'a Observer,
}

impl Asking<'_> {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The connection.
    pub fn ask(&self, port: &mut Port, question: Question<'_>) -> Result<Answer, ServerError> {
        let asked = self.put(port, question);
        if let Ok(conn) = port.conn() {
            conn.doing("restoring keys");
        }
        asked
    }

    fn put(&self, port: &mut Port, question: Question<'_>) -> Result<Answer, ServerError> {
        Ok(match question {
            Question::Limits => {
                let (limits, is_known) = limits(port.conn()?)?;
                Answer::Limits { limits, is_known }
            }
            Question::Target { like, slot } => {
                Answer::Target(Box::new(self.target(port, like, slot)?))
            }
            Question::Classes { target, item } => {
                key_classes::ask(port.conn()?, target, &item.record, &item.context)?;
                Answer::Classes
            }
            Question::Features {
                odd_transactions,
                limits,
            } => self.features(port, odd_transactions, limits)?,
            Question::Graph(key) => Answer::Graph(stands_elsewhere(port.conn()?, key)?),
            Question::Offer {
                target,
                kind,
                item,
                ready,
            } => Answer::Offered(offer(port.conn()?, target, kind, &item.record, ready)?),
            Question::Rights => Answer::Rights(KeyRights::ask(port.conn()?)?),
            Question::Native {
                db,
                features,
                is_cluster,
            } => Answer::Native(self.native(db, is_cluster, &features)?),
            Question::Library(put) => {
                let (fate, is_unkept) = put.carry_out(port.conn()?)?;
                Answer::Library { fate, is_unkept }
            }
        })
    }

    /// What the node accepts.
    fn target(
        &self,
        port: &mut Port,
        like: &[u8],
        slot: Option<u16>,
    ) -> Result<Target, ServerError> {
        let options = &self.with.settings.options;
        let mut keys = ProbeKeys::new(like, slot);
        keys.patience = self.with.to.retry_for;
        let mut target = Target::learn_by(
            port.conn()?,
            self.with.facts,
            &keys,
            options.allow_loss,
            options.sanitize,
            self.observer,
        )?;
        if options.no_check {
            target.pass_unchecked();
        }
        if let Some((family, version)) = &self.with.settings.twin_of
            && *family == self.with.facts.family
            && *version == self.with.facts.version
        {
            target.source_is_twin();
        }
        Ok(target)
    }

    /// What the node's native commands can do.
    fn features(
        &self,
        port: &mut Port,
        odd_transactions: u8,
        known: Option<CommandLimits>,
    ) -> Result<Answer, ServerError> {
        let conn = port.conn()?;
        let learnt = match known {
            Some(_) => None,
            None => Some(limits(conn)?),
        };
        let features = Features::ask(conn, self.with.facts)?;
        // Before the first value: where it is refused, the run ends with nothing written.
        if let Err(why) = transaction::prove(conn)? {
            let times = odd_transactions.saturating_add(1);
            return Ok(Answer::OddTransaction(no_transaction(conn, why, times)));
        }
        let limits = known.or(learnt.map(|(limits, _)| limits));
        port.commands = Some(Commands::new(features, limits.unwrap_or_default()));
        Ok(Answer::Features {
            features,
            limits: learnt,
        })
    }

    /// A dry run sends no native command, so whether they may be used is tried as `doctor` does. The
    /// command, and why not.
    fn native(
        &self,
        db: u32,
        is_cluster: bool,
        features: &Features,
    ) -> Result<Option<(String, String)>, ServerError> {
        let mut conn = Conn::open(self.with.to)?;
        if conn.select(db)?.is_err() {
            return Ok(None);
        }
        let (access, command) = access::native(&mut conn, is_cluster, features)?;
        if access.is_usable() || access == Access::Unknown {
            return Ok(None);
        }
        let reason = access.reason().unwrap_or("the server does not have it");
        Ok(Some((command.to_owned(), reason.to_owned())))
    }
}

/// What the node takes in one piece, and whether these are its own words; the servers' defaults where
/// CONFIG GET is refused.
fn limits(conn: &mut Conn) -> Result<(CommandLimits, bool), ServerError> {
    let mut ask = |name: &str| -> Result<Option<u64>, ServerError> {
        let told = setting(conn, name)?.ok().flatten();
        Ok(told.and_then(|text| text.parse().ok()))
    };
    let (bulk, query) = (
        ask("proto-max-bulk-len")?,
        ask("client-query-buffer-limit")?,
    );
    let default = CommandLimits::default();
    let limits = CommandLimits {
        max_bulk_bytes: bulk.unwrap_or(default.max_bulk_bytes),
        max_query_bytes: query.unwrap_or(default.max_query_bytes),
        ..default
    };
    Ok((limits, bulk.is_some() && query.is_some()))
}

/// What it means that MULTI and EXEC were not answered as they should be, and how often by now.
fn no_transaction(conn: &Conn, why: ServerError, times: u8) -> ServerError {
    match why {
        // Loading or busy, and waited for already.
        ServerError::Lost { reason, .. } if is_not_now(&reason) => ServerError::Reply {
            address: conn.address().to_owned(),
            command: "MULTI".to_owned(),
            reason,
        },
        ServerError::Refused { ref reason, .. } if is_forbidden(reason) || is_not_now(reason) => {
            why
        }
        why if times >= MAX_ODD_TRANSACTIONS => why,
        // The next connection may fare better.
        why => conn.spoilt(why.to_string()),
    }
}
