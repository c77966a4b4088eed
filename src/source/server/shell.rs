//! Does what the reader decides: the one loop in which a server is asked and answers.

use anyhow::{Result, anyhow};

use super::books::DbKey;
use super::databases::{cannot_be_entered_any_more, loss};
use super::node::{NamesFrom, Unserved};
use super::probe::{self, Asking};
use super::reader::{Action, AfterLoss, Event, Fate, Fault, Job, Limits};
use super::wire::{Choice, PageAnswer, Wire};
use super::{ServerSource, reader};
use crate::host;
use crate::record::{Batch, Checkpoint};
use crate::server::counts::{CommandCounts, Since};
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};
use crate::units::plural;

/// Why a server does not tell what it counted before.
pub(super) const ANOTHER_PROCESS: &str = "it was restarted, or is another one";

impl ServerSource {
    /// Fills the batch; on an error everything that was asked and not answered is still known.
    pub(super) fn read_on(&mut self, batch: &mut Batch) -> Result<()> {
        batch.context = self.context();
        self.functions.give(batch);
        // A process without a name is none to go on with.
        if self.profile.facts().run_id.is_some() {
            self.reader.tick(host::now());
        }
        while !batch.is_full() {
            self.books.give_tombstones(batch);
            if let Some(pace) = &self.pace {
                self.reader.limit(Limits {
                    keys: pace.window_keys(),
                    bytes: pace.window_bytes(),
                });
            }
            if !self.step(batch)? {
                break;
            }
        }
        self.books.give_tombstones(batch);
        Ok(())
    }

    /// Does one thing; `false` if there is nothing more to do for now.
    fn step(&mut self, batch: &mut Batch) -> Result<bool> {
        let form = self.form();
        let Self { conn, reader, .. } = self;
        let mut wire = Wire {
            conn,
            form,
            asking_refused: None,
        };
        match reader.next() {
            Action::AskGroup(keys) => wire.ask_group(keys)?,
            Action::AskPage {
                cursor,
                count,
                at_once,
            } => {
                wire.ask_page(&cursor, count, &self.options.selection)?;
                if at_once {
                    self.conn.flush()?;
                }
            }
            Action::Flush => self.conn.flush()?,
            Action::ReadValue => {
                let value = wire.read_value(self.books.max_value());
                let refused = wire.asking_refused.take();
                self.heard(refused, value)?;
            }
            Action::ReadGroup(keys) => {
                let group = wire.read_group(keys);
                let refused = wire.asking_refused.take();
                self.heard(refused, group)?;
            }
            Action::ReadPage => self.read_page()?,
            Action::Settle(key, fate) => {
                let db = self.reader.db();
                self.settle(DbKey { db, key }, fate, batch)?;
            }
            Action::Begin(job) => self.begin(job),
            Action::Enter(db) => self.enter(db)?,
            Action::Wait(text) => {
                self.link.wait(text, &self.conn, &self.observer)?;
                self.tell(Event::Waited);
            }
            Action::Drained => {
                batch.checkpoint = self.checkpoint().map(Box::new);
                return Ok(false);
            }
            Action::End => return Ok(false),
            Action::Loading(text) => {
                return Err(self.conn.refusal("reading keys", text).into());
            }
            Action::Fail(Fault::Server(what)) => return Err(self.conn.confused(what).into()),
            Action::Fail(Fault::Bug(what)) => return Err(anyhow!(what)),
        }
        Ok(true)
    }

    fn tell(&mut self, event: Event) {
        if self.reader.on(event) {
            self.link.got_on(self.reader.is_patient());
        }
    }

    /// An answer about keys came; `refused` is what ASKING was answered with, where that was not OK.
    fn heard(&mut self, refused: Option<String>, answer: Result<Event>) -> Result<()> {
        if let (Some(node), Some(text)) = (&mut self.node, refused) {
            node.asking_was_refused(text);
        }
        self.tell(answer?);
        Ok(())
    }

    fn read_page(&mut self) -> Result<()> {
        let (node, selection) = (self.node.as_ref(), &self.options.selection);
        let choose = |key: &[u8]| match node {
            // Names of slots that are read elsewhere are none of ours.
            Some(node) if !node.reads(key) => Choice::Ignore,
            _ if selection.wants_key(key) => Choice::Read,
            _ => Choice::LeaveOut,
        };
        let mut wire = Wire {
            form: self.profile.form(false, node.is_some()),
            conn: &mut self.conn,
            asking_refused: None,
        };
        let page = match wire.read_page(choose)? {
            PageAnswer::Page(page) => page,
            PageAnswer::Later(text) => {
                self.tell(Event::PageRefused(text));
                return Ok(());
            }
        };
        let db = self.reader.db();
        let wanted = page.names.len();
        self.books.scanned(db, page.scanned, wanted as u64);
        let names = match self.reader.is_abandoned() {
            // The next scan returns them again.
            true => {
                self.books.superseded(db, wanted);
                Vec::new()
            }
            false => self.leave_to_owners(db, page.names, NamesFrom::Scan),
        };
        self.tell(Event::Page {
            next: page.next,
            names,
            at: host::now(),
        });
        Ok(())
    }

    fn begin(&mut self, job: Job) {
        let job = match job {
            Job::Scan(db) => {
                self.books.open_row(db);
                Job::Scan(db)
            }
            Job::Names(db, names) => {
                self.books.read_again(db, names.len());
                Job::Names(db, self.leave_to_owners(db, names, NamesFrom::Owners))
            }
        };
        self.tell(Event::Begun(job));
    }

    /// Of names of slots that are on their way here, those that their owners do not have.
    fn leave_to_owners(&mut self, db: u32, names: Vec<Vec<u8>>, from: NamesFrom) -> Vec<Vec<u8>> {
        let command = self.form().expiry_command();
        let Some(node) = self.node.as_mut().filter(|node| node.has_owners()) else {
            return names;
        };
        let count = names.len();
        let here = node.leave_to_owners(command, db, names, from);
        self.books.superseded(db, count - here.len());
        here
    }

    /// What becomes of a key is done: it is given, counted, told.
    pub(super) fn settle(&mut self, key: DbKey, fate: Fate, batch: &mut Batch) -> Result<()> {
        match fate {
            Fate::Read(dump) => {
                let now_ms = self.profile.clock().now_ms();
                // It may be a leftover of a move, where its slot is on its way here.
                let node = self.node.as_mut();
                let doubtful = node
                    .is_some_and(|node| node.take_doubtful(key.db, &key.key))
                    .then(|| slot_of(&key.key));
                let facts = self.profile.facts();
                let was_given = self.books.give(key, dump, (facts, now_ms), batch)?;
                if let (true, Some(slot), Some(node)) = (was_given, doubtful, &mut self.node) {
                    node.gave_doubtful(slot);
                }
                Ok(())
            }
            Fate::Gone => self.books.gone(key, batch),
            Fate::Withheld => self.books.fail_as_withheld(key),
            Fate::Refused(text) => self.books.fail(key, &text),
            Fate::ExpiryUnknown => self.books.fail(key, "its expiry cannot be read"),
            Fate::TooLong(bytes) => self.books.fail_as_too_long(key, bytes),
            Fate::Elsewhere(redirect) => {
                self.books.superseded(key.db, 1);
                let node = self.node.as_mut();
                match node.and_then(|node| node.stray(key, &redirect)) {
                    Some(unserved) => self.fail_unserved(vec![unserved]),
                    None => Ok(()),
                }
            }
        }
    }

    /// They were asked for often enough: they cannot be read. What takes back what was given of them
    /// comes with the next batch.
    pub(in crate::source) fn fail_unserved(&mut self, rows: Vec<Unserved>) -> Result<()> {
        for row in rows {
            let hint = row.hint();
            let key = DbKey {
                db: row.db,
                key: row.key,
            };
            self.books.fail_superseded(key, row.reason, hint)?;
        }
        Ok(())
    }

    /// A place from which a later run can go on.
    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let at = self.reader.drained(host::now())?;
        let facts = self.profile.facts();
        let counts = self.profile.counts_before();
        Some(Checkpoint {
            run_id: facts.run_id.clone()?,
            replica: facts.role.replica,
            db: at.db,
            cursor: at
                .cursor
                .map(|cursor| String::from_utf8_lossy(&cursor).into_owned()),
            waiting: at.waiting,
            counts: self
                .books
                .rows()
                .iter()
                .map(super::counts_to_numbers)
                .collect(),
            functions: self.functions.given(),
            from_ms: self.findings.scan_from_ms(),
            started_ms: self.findings.started_ms(),
            swaps: counts.map(CommandCounts::swaps),
        })
    }

    /// Goes to the database that is read, and proves it. If it cannot be entered any more, what was
    /// still to be read of it counts as failed, by name where names are known, and nothing is left to
    /// be asked of it.
    fn enter(&mut self, db: u32) -> Result<()> {
        if self.conn.database() == Some(db) {
            self.tell(Event::Entered);
            return Ok(());
        }
        if !self.reader.is_idle() {
            return Err(anyhow!(
                "replies of another database are still to come; this is a bug"
            ));
        }
        let mut entered = self.conn.select(db)?;
        if db == 0 && entered.is_err() {
            // Every new connection is in database 0, also where SELECT is refused.
            self.conn.renew()?;
            if self.conn.database() == Some(0) {
                entered = Ok(());
            }
        }
        match entered {
            Ok(()) => {
                self.tell(Event::Entered);
                Ok(())
            }
            Err(reason) => self.lose_database(db, &reason),
        }
    }

    /// The database cannot be entered, though it could before, or turned up later.
    fn lose_database(&mut self, db: u32, reason: &str) -> Result<()> {
        let text = match self.reader.has_begun_database() {
            true => cannot_be_entered_any_more(db, reason),
            false => {
                let keys = self.databases.keys(db).unwrap_or(0);
                self.books.not_reached(db, keys);
                let keys = plural(keys, "key");
                format!("database {db} ({keys}) is not read: it cannot be selected ({reason})")
            }
        };
        self.observer.warn(&text);
        self.databases.lose(db);
        self.findings.lost(text);
        for key in self.reader.shut() {
            let key = DbKey { db, key };
            self.books
                .fail(key, &format!("SELECT {db} is refused: {reason}"))?;
        }
        Ok(())
    }

    /// Connects again after `error`, and asks again for what was not answered.
    ///
    /// # Errors
    /// `error` itself where that is not wanted or cannot help, [`crate::exit::Interrupted`], and what
    /// the last attempt said.
    pub(super) fn resume(&mut self, error: anyhow::Error) -> Result<()> {
        if !self.link.may_resume(&error) {
            return Err(error);
        }
        let mut lost = error.downcast::<ServerError>()?;
        let reason = lost.to_string();
        self.take_back()?;
        let same_process = loop {
            // How it began says more than that nobody is there any more.
            self.conn = match self.link.connect(lost) {
                Ok(conn) => conn,
                Err(error) if error.is::<ServerError>() => return Err(error.context(reason)),
                Err(error) => return Err(error),
            };
            match self.set_up_again() {
                Ok(same_process) => break same_process,
                Err(error) => lost = error.downcast::<ServerError>()?,
            }
        };
        let db = self.reader.db();
        let mut what = "reconnected, and continuing";
        if !same_process {
            self.profile.note_changed_process();
            if let Some(dropped) = self.reader.begin_database_again() {
                self.books.superseded(db, dropped);
                what = "reconnected, to a server that was restarted, or is another one, or does \
                        not tell (run_id): this database is scanned again from its beginning";
                if self.link.begins_anew_too_often() {
                    let what = "it is another process every time, and a scan never comes to an end";
                    return Err(self.conn.confused(what).into());
                }
            }
        }
        self.observer
            .notice(&format!("{reason}; {what} (database {db})"));
        // The database is entered before anything is asked.
        Ok(())
    }

    /// The connection is lost: what was under way is to be asked again, perhaps in another way.
    fn take_back(&mut self) -> Result<()> {
        let db = self.reader.db();
        let (after, dropped) = self.reader.lost(self.conn.was_closed());
        self.books.superseded(db, dropped);
        match after {
            AfterLoss::Same => {}
            AfterLoss::Less => self.link.tries_otherwise(),
            AfterLoss::WithoutKey(key) => {
                self.link.got_on(true);
                let reason = format!(
                    "the source closes the connection each time when this key alone is asked for \
                     ({} times)",
                    reader::ALONE
                );
                let hint = "its value may be more than client-output-buffer-limit normal of the \
                            source allows: raise it there (CONFIG SET), or read with --via replica";
                self.books
                    .fail_with(DbKey { db, key }, reason, Some(hint))?;
            }
            AfterLoss::Hopeless => {
                let what = "the connection ends at one key after the other, each asked for alone";
                return Err(self.conn.confused(what).into());
            }
        }
        Ok(())
    }

    /// Brings the new connection to where the lost one was; whether it leads to the same process.
    fn set_up_again(&mut self) -> Result<bool> {
        self.conn.doing("asking the source what it is");
        let facts = Facts::ask(&mut self.conn)?;
        let same_process = self.profile.is_same_process(&facts);
        if !same_process {
            let clock = ServerClock::ask(&mut self.conn)?;
            self.look_for_loss(&facts)?;
            let asking = Asking {
                facts: &facts,
                clock: &clock,
                options: &self.options,
                observer: &self.observer,
            };
            // Where the present database is forbidden, they are as they were.
            let abilities = match self.conn.select(self.reader.db())?.is_ok() {
                true => probe::abilities(&mut self.conn, &asking)?.ok(),
                false => None,
            };
            self.profile.replace(facts, clock, abilities);
            self.reader.set_terms(self.form().terms());
        }
        probe::leave_no_trace(&mut self.conn, self.profile.facts())?;
        Ok(same_process)
    }

    /// After the connection was lost, and a server was found that is another process, or may be:
    /// what it no longer has and was not read before is missing, and has to be said.
    fn look_for_loss(&mut self, facts: &Facts) -> Result<()> {
        // Where everything is read anew, everything is looked at.
        let unfinished = self.reader.unfinished_dbs();
        for db in unfinished.unwrap_or_else(|| self.databases.numbers()) {
            let Some(before) = self.databases.keys(db) else {
                continue;
            };
            let now = match &facts.keyspace {
                Some(rows) => {
                    let row = rows.iter().find(|row| row.db == db);
                    Some(row.map_or(0, |row| row.keys))
                }
                None if self.conn.select(db)?.is_ok() => probe::count_keys(&mut self.conn)?,
                None => None,
            };
            if now == Some(0) && before > 0 {
                self.books.delete_nothing_for_loss();
            }
            if let Some(text) = loss(db, before, now, self.node.is_some()) {
                self.keys_were_lost(text);
                if let Some(now) = now {
                    self.databases.note_keys(db, now);
                }
            }
        }
        Ok(())
    }

    /// Some of what the server held was lost: that is said, and what is read is never exact.
    fn keys_were_lost(&mut self, text: String) {
        self.observer.warn(&text);
        self.findings.lost(text);
    }

    /// All that the server held was lost, as `text` says. Nothing is deleted for it.
    pub(in crate::source) fn all_keys_were_lost(&mut self, text: String) {
        self.keys_were_lost(text);
        self.books.delete_nothing_for_loss();
    }

    /// Whether the server holds no key of the databases that are read. Nothing may be in flight.
    ///
    /// # Errors
    /// The connection's.
    pub(in crate::source) fn holds_nothing(&mut self, facts: &Facts) -> Result<bool> {
        if let Some(rows) = &facts.keyspace {
            let wanted = |row: &&Keyspace| self.options.selection.wants_db(row.db);
            return Ok(rows.iter().filter(wanted).all(|row| row.keys == 0));
        }
        for db in self.databases.numbers() {
            let is_there = self.conn.database() == Some(db) || self.conn.select(db)?.is_ok();
            if !is_there || !probe::is_empty(&mut self.conn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks something beside the scan, while nothing is in flight; again after each loss.
    ///
    /// # Errors
    /// Those of the question, and of [`Self::resume`].
    pub(super) fn ask<T>(&mut self, mut question: impl FnMut(&mut Conn) -> Result<T>) -> Result<T> {
        loop {
            match question(&mut self.conn) {
                Err(error) if self.link.may_resume(&error) => self.resume(error)?,
                done => return done,
            }
        }
    }

    /// Opens something else at the same server, as often as this connection may be made again.
    ///
    /// # Errors
    /// What the last attempt said.
    pub(super) fn open_beside<T>(
        &mut self,
        mut open: impl FnMut(&Self) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        loop {
            match open(self) {
                Err(error) if error.is_passing() => self.link.wait_for_server(error)?,
                done => return done,
            }
        }
    }

    /// Looks, once at the end of a scan, whether databases were swapped meanwhile.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn look_for_swaps(&mut self) -> Result<()> {
        let Some(before) = self.profile.take_counts_before() else {
            return Ok(());
        };
        let now = self.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        // What another process has counted tells nothing of the one before.
        let why = match now.map(|now| now.since(&before)) {
            _ if self.profile.became_another() => ANOTHER_PROCESS,
            Some(Since::Quiet) => return Ok(()),
            Some(Since::Swapped) => {
                self.swapped_meanwhile();
                return Ok(());
            }
            Some(Since::Reset) | None => "CONFIG RESETSTAT, or INFO is refused",
        };
        self.swaps_untold(why);
        Ok(())
    }

    /// Whether databases were swapped cannot be known, and `why`.
    pub(super) fn swaps_untold(&self, why: &str) {
        // A cluster has one database.
        if self.node.is_none() {
            self.observer.warn(&format!(
                "the source no longer tells how often databases were swapped ({why}): if they were, \
                 keys are missing"
            ));
        }
    }

    /// Databases were swapped, and are not read again for it: in the ledger, and exit code 3.
    pub(super) fn swapped_meanwhile(&mut self) {
        let text = "databases were swapped during this run (SWAPDB; the source does not say \
                    which): keys may be missing, or be under the number of another database; run \
                    again";
        if self.findings.unread_once(text) {
            self.observer.warn(text);
        }
    }
}
