//! Questions that can be done without: every answer is one, also the end of the connection.

use super::words::{ENDS_CONNECTION, asks_for_patience};
use super::{CONTROL_LIMIT, Conn, name_of};
use crate::endpoint::Shunned;
use crate::host;
use crate::server::ServerError;
use crate::server::patience::STEP;
use crate::server::reply::{Command, Reply, cmd};

impl Conn {
    /// The same, again while the server asks for patience.
    pub(super) fn try_patiently(
        &mut self,
        command: &Command,
        max: usize,
    ) -> Result<Result<Reply, String>, ServerError> {
        loop {
            match self.try_within(command, max)? {
                Err(text) if asks_for_patience(&text) => {
                    if !self.may_ask_again() {
                        return Ok(Err(self.with_the_time(text)));
                    }
                    host::sleep(STEP);
                }
                answer => {
                    self.patience.progress();
                    return Ok(answer);
                }
            }
        }
    }

    /// Whether a server that answered that it cannot just now is asked again.
    fn may_ask_again(&mut self) -> bool {
        self.patience.lasts() && !self.is_stopped()
    }

    /// The server's words, and for how long it was asked in vain.
    fn with_the_time(&self, text: String) -> String {
        match self.is_stopped() {
            true => text,
            false => format!("{text} ({})", self.patience.told()),
        }
    }

    /// Asks something that can be done without: every answer is one. A server that asks for
    /// patience is waited for. Where the command ends the connection, as it does at some proxies
    /// that do not know it, the connection is made anew, in the same database, if nothing was queued on
    /// it yet, and from the second time on the command counts as refused and is not sent any more, unless
    /// it was ever answered there.
    /// Nothing may be in flight. The reply takes at most [`CONTROL_LIMIT`] bytes.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn ask(&mut self, command: &Command) -> Result<Result<Reply, String>, ServerError> {
        self.ask_within(command, CONTROL_LIMIT)
    }

    /// [`Self::ask`], for a reply of at most `max` bytes.
    ///
    /// # Errors
    /// As there.
    pub fn ask_within(
        &mut self,
        command: &Command,
        max: usize,
    ) -> Result<Result<Reply, String>, ServerError> {
        let name = name_of(command);
        let mut ended = 0;
        loop {
            if self.shunned.has(&name) {
                return Ok(Err(format!("{ENDS_CONNECTION}{name}")));
            }
            match self.try_patiently(command, max) {
                Err(lost) if self.was_closed() => {
                    ended += 1;
                    self.shunned.ended_by(&name);
                    // It was not the command that ended it so often.
                    if ended >= Shunned::PROOF && self.shunned.was_answered(&name) {
                        return Err(lost);
                    }
                    self.renew_if_new(lost)?;
                }
                answer => {
                    if answer.is_ok() {
                        self.shunned.answered(&name);
                    }
                    return answer;
                }
            }
        }
    }

    /// Asks several things, as [`Self::ask`] does, in one round trip; again as long as an error
    /// `asks_for_patience`.
    ///
    /// # Errors
    /// As there.
    pub fn ask_all(
        &mut self,
        commands: &[Command],
        asks_for_patience: impl Fn(&str) -> bool,
    ) -> Result<Vec<Result<Reply, String>>, ServerError> {
        const TOGETHER: &str = "several commands at once";
        while !self.shunned.has(TOGETHER) {
            for command in commands {
                command.pack(self.wire.out());
            }
            let answers = self.flush().and_then(|()| {
                let reply = |_: &Command| self.reply_within(CONTROL_LIMIT);
                commands.iter().map(reply).collect::<Result<Vec<_>, _>>()
            });
            match answers {
                Ok(answers) => {
                    self.shunned.acquit(TOGETHER);
                    let busy = |answer: &Result<Reply, String>| {
                        answer.as_ref().is_err_and(|text| asks_for_patience(text))
                    };
                    if !answers.iter().any(busy) {
                        self.patience.progress();
                        return Ok(answers);
                    }
                    if !self.may_ask_again() {
                        let told = |answer: Result<Reply, String>| match busy(&answer) {
                            true => answer.map_err(|text| self.with_the_time(text)),
                            false => answer,
                        };
                        return Ok(answers.into_iter().map(told).collect());
                    }
                    host::sleep(STEP);
                }
                Err(lost) if self.was_closed() => {
                    self.shunned.ended_by(TOGETHER);
                    self.renew_if_new(lost)?;
                }
                Err(error) => return Err(error),
            }
        }
        commands.iter().map(|command| self.ask(command)).collect()
    }

    /// That `command` cannot be done without, and that this was its answer.
    pub fn needed(&self, command: &str, answer: Result<Reply, String>) -> ServerError {
        let text = match answer {
            Ok(other) => return self.confused(format!("{command} was answered with {other:?}")),
            Err(text) => text,
        };
        match self.refusal(command, text) {
            ServerError::Reply {
                address,
                command,
                reason,
            } => ServerError::Refused {
                address,
                command,
                reason,
            },
            other => other,
        }
    }

    /// Makes the connection anew, in the database that it was in: what is asked once more is asked of
    /// that one.
    fn renew_if_new(&mut self, lost: ServerError) -> Result<(), ServerError> {
        if !self.session.is_renewable() {
            return Err(lost);
        }
        let database = self.db;
        let back = self.renew().and_then(|()| match database {
            None | Some(0) => Ok(Ok(())),
            Some(db) => self.select(db),
        });
        match back {
            Ok(Ok(())) => Ok(()),
            // How it began says more than that nobody is there any more.
            _ => Err(lost),
        }
    }

    /// Makes the connection anew: in database 0, with the state that [`Self::keep`] was told of.
    /// Nothing may be in flight.
    ///
    /// # Errors
    /// Those of [`Self::open`], and of a connection that was not made by it.
    pub fn renew(&mut self) -> Result<(), ServerError> {
        let Some(options) = self.session.origin() else {
            return Err(self.confused("a connection that cannot be made anew"));
        };
        let fresh = Self::open(options)?;
        let old = std::mem::replace(self, fresh);
        self.wire.go_on(old.wire);
        self.patience = old.patience;
        for command in self.session.go_on(old.session) {
            // Refused or not, as it was the first time.
            self.try_within(&command, CONTROL_LIMIT)?.ok();
        }
        Ok(())
    }

    /// A command that gave the connection its state, to be sent again by [`Self::renew`].
    pub fn keep(&mut self, command: &Command) {
        self.session.keep(command.clone());
    }

    /// From now on the connection is not made anew by [`Self::ask`]: it has a state that only its
    /// owner knows.
    pub fn pin(&mut self) {
        self.session.pin();
    }

    /// Selects a database, and proves it: a round trip, unless this connection is proved to be
    /// there. Nothing may be in flight. A server that asks for patience is waited for. The inner
    /// error is why the database is not to be had, in the server's words. An error is no proof that
    /// the connection is where it was (something in between may have carried the SELECT out and
    /// answered otherwise): its database is in doubt then.
    ///
    /// Every command for a database other than the one of [`Self::database`] goes out after this
    /// said `Ok(Ok(()))`, and never in one pipeline with a SELECT: a SELECT that is refused there
    /// would send what follows into another database.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn select(&mut self, db: u32) -> Result<Result<(), String>, ServerError> {
        if self.db == Some(db) {
            return Ok(Ok(()));
        }
        // On a new connection there is no need to go back first.
        self.db = None;
        match self.ask(cmd("SELECT").arg(db))? {
            Ok(Reply::Okay) => {
                self.db = Some(db);
                Ok(Ok(()))
            }
            Ok(other) => {
                // Whatever was meant by it.
                self.db = None;
                Err(self.confused(format!("SELECT {db} was answered with {other:?}")))
            }
            Err(text) => {
                self.db = None;
                Ok(Err(text))
            }
        }
    }

    /// Queues SELECT behind what is in flight, and writes it. Where this connection is stays in doubt
    /// until the answer was read and [`Self::arrived`] was told of it; until then nothing for any
    /// database may be queued.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn queue_select(&mut self, db: u32) -> Result<(), ServerError> {
        self.db = None;
        self.queue(&[b"SELECT", db.to_string().as_bytes()])?;
        self.flush()
    }

    /// `+OK` was read in answer to [`Self::queue_select`].
    pub fn arrived(&mut self, db: u32) {
        self.shunned.acquit("SELECT");
        self.db = Some(db);
    }

    /// Goes to one database after the other, in one round trip, to find out which are to be had.
    /// Nothing else goes out between; where the connection is afterwards only [`Self::database`]
    /// says.
    ///
    /// # Errors
    /// As of [`Self::select`].
    pub fn select_each(&mut self, dbs: &[u32]) -> Result<Vec<Result<(), String>>, ServerError> {
        let select = |db: &u32| cmd("SELECT").arg(*db).to_owned();
        let commands: Vec<Command> = dbs.iter().map(select).collect();
        let answers = self.ask_all(&commands, asks_for_patience)?;
        self.db = None;
        let mut gone_to = Vec::with_capacity(dbs.len());
        for (db, answer) in dbs.iter().zip(answers) {
            gone_to.push(match answer {
                Ok(Reply::Okay) => {
                    self.db = Some(*db);
                    Ok(())
                }
                Ok(other) => {
                    self.db = None;
                    return Err(self.confused(format!("SELECT {db} was answered with {other:?}")));
                }
                Err(text) => {
                    self.db = None;
                    Err(text)
                }
            });
        }
        Ok(gone_to)
    }
}
