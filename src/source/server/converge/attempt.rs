//! One attempt at the final round: listens, asks, listens again. What follows from what was heard and
//! read is decided by [`FinalRound`].

use anyhow::Result;

use super::ConvergingSource;
use super::final_round::{FinalRound, Outcome, Reading};
use super::instant::{How, Plan, Question, Refused, Snapshot, read_instant};
use super::pause::Pause;
use super::watch::{Named, STEP};
use crate::exit::Interrupted;
use crate::host;
use crate::host::HashSet;
use crate::policy::{Consistency, ReadFunctions};
use crate::server::facts::Facts;
use crate::server::sentinel;
use crate::source::server::delivered::Given;

/// One attempt, of one source.
pub(super) struct Attempt<'a> {
    pub source: &'a mut ConvergingSource,
    pub round: &'a mut FinalRound,
}

/// What comes of a step: it goes on, or the attempt ends so.
type Step<T> = Result<T, Outcome>;

impl Attempt<'_> {
    /// Tries once, with writes held up meanwhile if that is asked for.
    ///
    /// # Errors
    /// The connection.
    pub fn alone(mut self) -> Result<Outcome> {
        self.round.begin_attempt();
        if let Some(outcome) = self.hopeless() {
            return Ok(outcome);
        }
        // The shards of a cluster are paused together, by whoever knows all of them.
        let options = &self.source.options;
        let pauses = options.consistency == Consistency::Pause && options.together.is_none();
        if let Some(rest) = self.round.rest(pauses) {
            host::sleep(rest);
        }
        let began = host::now();
        let paused = match pauses {
            true => self.pause()?,
            false => Pause::none(),
        };
        let tried = self.within(&paused);
        let lasted = paused.end(&mut self.source.inner.conn);
        self.round.took(host::elapsed(began));
        // Not while writes are held up.
        let tried = self.look_again(tried?);
        if let Some(lasted) = lasted {
            self.source.inner.findings.paused(lasted);
        }
        tried
    }

    /// Tries once, while all shards of a cluster are paused. What it found is exact only if no pause
    /// was over by then; else see [`FinalRound::forget_proof`].
    ///
    /// # Errors
    /// The connection.
    pub fn while_paused(mut self, paused: &Pause) -> Result<Outcome> {
        self.round.begin_attempt();
        match self.hopeless() {
            Some(outcome) => Ok(outcome),
            None => self.within(paused),
        }
    }

    fn pause(&mut self) -> Result<Pause> {
        let inner = &mut self.source.inner;
        Ok(
            match Pause::begin(&mut inner.conn, self.source.options.max_pause)? {
                Ok(pause) => pause,
                Err(text) => {
                    if self.round.is_first_attempt() {
                        inner.observer.warn(&format!(
                            "the source refuses CLIENT PAUSE … WRITE ({text}); trying without a \
                             pause"
                        ));
                    }
                    Pause::none()
                }
            },
        )
    }

    fn within(&mut self, paused: &Pause) -> Result<Outcome> {
        Ok(match self.try_within(paused)? {
            Ok(exact) => exact,
            Err(outcome) => outcome,
        })
    }

    fn try_within(&mut self, paused: &Pause) -> Result<Step<Outcome>> {
        let heard = match self.listen() {
            Ok(heard) => heard,
            Err(outcome) => return Ok(Err(outcome)),
        };
        let detour = self.source.rounds.may_detour() && self.any_failing(&heard)?;
        self.round.remember(heard);
        if detour {
            self.source.rounds.detoured();
            return Ok(Err(Outcome::Grown));
        }
        let plan = self.plan()?;
        if let Some(outcome) = self.too_much(&plan) {
            return Ok(Err(outcome));
        }
        let how = match self.how(paused) {
            Ok(how) => how,
            Err(outcome) => return Ok(Err(outcome)),
        };
        let snapshot = match self.read(&plan, how)? {
            Ok(snapshot) => snapshot,
            Err(outcome) => return Ok(Err(outcome)),
        };
        if paused.is_over() {
            return Ok(Err(Outcome::Again));
        }
        Ok(self.prove(&plan, how, snapshot))
    }

    /// What was heard of all that was written before.
    fn listen(&mut self) -> Step<HashSet<Vec<u8>>> {
        self.source.tracker.barrier();
        let heard = self.source.heard();
        match heard.means_rescan() {
            Some(reason) => Err(Outcome::Rescan(reason.to_owned())),
            None => Ok(heard.names),
        }
    }

    /// Whether one of these could not be read when it was last asked for.
    fn any_failing(&mut self, names: &HashSet<Vec<u8>>) -> Result<bool> {
        let inner = &mut self.source.inner;
        let Some(given) = inner.books.given_mut() else {
            return Ok(false);
        };
        for row in inner.databases.rows() {
            for name in names {
                if given.is_failing(row.db, name)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn plan(&mut self) -> Result<Plan> {
        let guess_bytes = self.source.inner.reader.guess_bytes();
        let inner = &mut self.source.inner;
        let rows = inner.databases.rows();
        match inner.books.given_mut() {
            Some(given) => self
                .round
                .plan(rows, given, &self.source.evidence, guess_bytes),
            None => Ok(Plan::default()),
        }
    }

    fn too_much(&self, plan: &Plan) -> Option<Outcome> {
        let mut reason = plan.too_much(self.source.options.max_pause)?;
        if let Some(doubt) = &plan.doubt {
            reason = format!("{reason}, values of modules among them, because {doubt}");
        }
        // Only where nothing but the last changes are in it is there nothing to be done.
        Some(match self.round.is_first_attempt() {
            true => Outcome::Impossible(reason),
            false => Outcome::Grown,
        })
    }

    fn how(&self, paused: &Pause) -> Step<How> {
        match (&self.source.options.together, paused.is_held()) {
            (None, _) => Ok(How::Multi),
            // A script would wait for the end of the pause; and nothing changes meanwhile.
            (Some(_), true) => Ok(How::Plain),
            (Some(_), false) => self.source.script.map(How::Script).ok_or_else(|| {
                Outcome::Impossible(
                    "to read keys of several slots at one point in time takes EVAL, which the \
                     source refuses (--consistency pause needs no EVAL)"
                        .to_owned(),
                )
            }),
        }
    }

    fn read(&mut self, plan: &Plan, how: How) -> Result<Step<Snapshot>> {
        let source = &mut *self.source;
        let inner = &mut source.inner;
        let facts = inner.profile.facts();
        let question = Question {
            plan,
            how,
            abilities: inner.profile.abilities(),
            functions_by: inner.functions.by(),
            counts: source.evidence.is_told(),
            // Where INFO tells which databases hold keys, and all of them are wanted.
            databases: facts.keyspace.is_some() && inner.options.selection.dbs.is_empty(),
            max_value: inner.books.max_value(),
            now_ms: inner.profile.clock().now_ms(),
        };
        let refused = match read_instant(&mut inner.conn, &question)? {
            Ok(snapshot) => return Ok(Ok(snapshot)),
            Err(refused) => refused,
        };
        source.tracker.barrier();
        if source.tracker.waiting().1 {
            // Refused while another dataset is loaded: that is the news, not the refusal.
            return Ok(Err(Outcome::Again));
        }
        Ok(Err(match refused {
            Refused::Looks => {
                source.evidence.refuse_looks();
                Outcome::Again
            }
            Refused::TooMuch => Outcome::Grown,
            Refused::Torn => Outcome::Again,
            Refused::Keys(reason) if is_elsewhere(source, &reason) => Outcome::Elsewhere,
            Refused::Keys(reason) => Outcome::Alone(reason),
            Refused::Everything(reason) => Outcome::Impossible(reason),
        }))
    }

    /// What was read proves, together with what was heard by then.
    fn prove(&mut self, plan: &Plan, how: How, mut snapshot: Snapshot) -> Step<Outcome> {
        let heard = self.listen()?;
        let source = &mut *self.source;
        let in_cluster = source.inner.node.is_some();
        let counted = source.evidence.note(snapshot.counts.take(), in_cluster);
        if let Some(reason) = counted {
            return Err(Outcome::Rescan(reason.to_owned()));
        }
        let now = snapshot.databases.take().unwrap_or_default();
        let new = source.inner.databases.unknown_among(&now);
        if !new.is_empty() {
            self.round.remember(heard);
            return Err(Outcome::Databases(new));
        }
        let doubted = |module: &&_| source.evidence.doubt(module).is_some();
        let functions = std::mem::replace(&mut snapshot.functions, Ok(None));
        let outcome = self.round.judge(Reading {
            snapshot,
            how,
            heard,
            doubted: plan.counted.iter().any(doubted),
            given: source.inner.books.given(),
            looks_refused: source.evidence.looks_refused(),
        });
        let is_exact = matches!(outcome, Outcome::Exact { .. });
        if is_exact && source.inner.options.functions != ReadFunctions::No {
            match functions {
                Ok(functions) => source.functions = functions,
                Err(reason) => source.inner.findings.libraries_unread(&reason),
            }
        }
        Ok(outcome)
    }

    /// Whether what was read as exact was read of the server that was listened to. To be asked when
    /// nothing is held up any more.
    ///
    /// # Errors
    /// The connection.
    pub fn look_again(&mut self, tried: Outcome) -> Result<Outcome> {
        if !matches!(tried, Outcome::Exact { .. }) {
            return Ok(tried);
        }
        let facts = Facts::ask(&mut self.source.inner.conn)?;
        if !self.source.inner.profile.is_same_run(&facts) {
            self.round.forget_proof();
            return Ok(Outcome::Rescan("the server changed its role".to_owned()));
        }
        if let Some(reason) = facts.role.out_of_step {
            self.round.forget_proof();
            return Ok(Outcome::Impossible(format!(
                "the source is a replica, and {reason}"
            )));
        }
        self.confirm_named(tried)
    }

    /// What becomes of a final round that was exact at the server that it was read from. To be asked
    /// after it was read: whoever was named then was named at its moment too.
    ///
    /// # Errors
    /// [`crate::server::ServerError::Lost`] where the sentinels name another one; what follows from
    /// it is what follows from any lost connection.
    fn confirm_named(&mut self, tried: Outcome) -> Result<Outcome> {
        let mut was_disputed = false;
        loop {
            let source = &mut *self.source;
            let (conn, observer) = (&source.inner.conn, &source.inner.observer);
            match source.watch.ask(conn, &source.connect, observer) {
                Named::Other(by) => return Err(sentinel::replaced(conn, &by).into()),
                Named::Disputed { is_open: true, .. } => was_disputed = true,
                Named::Disputed { by, .. } => {
                    self.round.forget_proof();
                    source.watch.never_agreed();
                    return Ok(Outcome::Impossible(format!(
                        "the sentinels do not agree which server is the primary: {} was read, and \
                         at least one of them names {by}",
                        conn.address()
                    )));
                }
                Named::Same if was_disputed => {
                    self.round.forget_proof();
                    return Ok(Outcome::Again);
                }
                Named::Same => return Ok(tried),
            }
            if source.inner.link.is_stopped() {
                return Err(Interrupted.into());
            }
            host::sleep(STEP);
        }
    }

    /// Why no attempt can be exact.
    fn hopeless(&mut self) -> Option<Outcome> {
        if let Some(reason) = self.too_many_unheard() {
            return Some(Outcome::Impossible(reason));
        }
        if let Some(reason) = self.source.rounds.blind() {
            return Some(Outcome::Impossible(reason.to_owned()));
        }
        let incomplete = self.source.inner.findings.take_incomplete();
        incomplete.map(Outcome::Incomplete)
    }

    /// Why there are values that may have changed unheard and cannot be read again.
    fn too_many_unheard(&self) -> Option<String> {
        let given: &Given = self.source.inner.books.given()?;
        let many = "than can be remembered";
        if given.has_too_many_unheard() {
            return Some(format!(
                "there are more streams and values of modules {many}, and their changes may not be \
                 announced"
            ));
        }
        let mut unlisted = given.unlisted();
        let doubt = unlisted.find_map(|module| self.source.evidence.doubt(module))?;
        Some(format!(
            "there are more values of modules {many}, and {doubt}"
        ))
    }
}

/// Whether the node no longer answers for a key, which is settled by looking where it is.
fn is_elsewhere(source: &ConvergingSource, reason: &str) -> bool {
    const WORDS: [&str; 5] = ["MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "non local key"];
    source.inner.node.is_some() && WORDS.iter().any(|word| reason.contains(word))
}
