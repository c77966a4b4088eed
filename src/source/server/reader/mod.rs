//! Decides what a server is asked next, and what its answers mean: a value without I/O, threads or
//! clock.
//!
//! [`Reader::next`] says what is to be done; whoever does it tells what came of that
//! ([`Reader::on`], and a few questions with answers of their own), and asks again. Replies come in
//! the order of the requests, so the reader always knows what the next reply belongs to.
//!
//! Keys are read in small transactions ("groups"). The next page of names is asked for before the
//! values of this one, and the window is filled again when half of it is used up: that keeps the
//! server busy and the writes large. What is refused for now is asked for again once everything
//! under way was answered. What is lost with a connection goes back to what is to be read.

mod backlog;
mod drain;
mod events;
mod fate;
mod flight;
mod page_size;
mod squeeze;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

use self::backlog::Backlog;
pub(super) use self::backlog::Job;
use self::drain::Drain;
pub(super) use self::events::{Action, AfterLoss, Event, Fault, KeyFacts, Position};
pub(super) use self::fate::{Dump, Dumped, Expiry, Fate, Terms};
use self::fate::{Judgement, is_loading, judge};
use self::flight::{Flight, Next};
pub(super) use self::page_size::NEAR;
pub(super) use self::squeeze::ALONE;
use self::squeeze::{Consequence, Load};
pub(super) use self::window::Limits;
use self::window::Window;
use super::transitions::transitions;

/// So often a key is asked for again because the server stood still while it told when it expires.
const MOST_BLURRED: u32 = 16;

transitions!(
    /// What the reader may do; tests reach all of it.
    Transition {
        JobBegun,
        DatabaseEntered,
        DatabaseShut,
        PageAsked,
        GroupAsked,
        GroupWaitsForJobBefore,
        WindowFull,
        PageCame,
        LastPageCame,
        PageCameToAbandonedScan,
        PageRefusedForNow,
        CursorRepeated,
        GroupOpened,
        GroupRefusedForNow,
        GroupTakenApart,
        KeyRefusedAlone,
        KeySettled,
        KeyChanged,
        KeyRefusedForNow,
        Loading,
        WaitsForFlight,
        PatienceWaited,
        LostAndAskedAgain,
        LostAndAskedForLess,
        KeyGivenUp,
        LostHopelessly,
        LostWhileAbandoned,
        DatabaseBegunAgain,
        Drained,
        Abandoned,
        Ended,
        Failed,
    }
);

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Something came: perhaps there is room for more.
    Look,
    /// The database has to be entered before anything is asked of it.
    Enter,
    /// The window is being filled.
    Fill,
    /// An answer is to be read.
    Read,
    /// This becomes of a key.
    Settle(Vec<u8>, Fate),
    /// The server loads another dataset.
    Loading(String),
    /// Nothing more, for this reason.
    Failed(Fault),
}

/// Reads one server.
#[derive(Debug)]
pub(super) struct Reader {
    backlog: Backlog,
    flight: Flight,
    window: Window,
    drain: Drain,
    turn: Turn,
    /// The server's words, where it asks for patience before anything else is asked.
    patience: Option<String>,
    /// The scan is being ended before its end, to begin anew.
    abandoned: bool,
    terms: Terms,
}

impl Reader {
    pub fn new(terms: Terms, scan_count: u32, dbs: impl IntoIterator<Item = u32>) -> Self {
        Self {
            backlog: Backlog::new(dbs.into_iter().map(Job::Scan)),
            flight: Flight::default(),
            window: Window::new(scan_count),
            drain: Drain::Never,
            turn: Turn::Look,
            patience: None,
            abandoned: false,
            terms,
        }
    }

    /// What is to be done next.
    pub fn next(&mut self) -> Action<'_> {
        match std::mem::replace(&mut self.turn, Turn::Look) {
            Turn::Settle(key, fate) => return Action::Settle(key, fate),
            Turn::Loading(text) => return Action::Loading(text),
            Turn::Failed(fault) => {
                self.turn = Turn::Failed(fault);
                return Action::Fail(fault);
            }
            turn => self.turn = turn,
        }
        if let Some(key) = self.backlog.take_alone() {
            Transition::GroupAsked.record();
            return Action::AskGroup(self.flight.ask_group(vec![key]));
        }
        if self.flight.has_open() {
            return Action::ReadValue;
        }
        if self.is_drained() {
            Transition::Drained.record();
            return Action::Drained;
        }
        if self.turn == Turn::Look {
            self.turn = match self.flight.keys() <= self.window.keys() / 2 {
                true if self.patience.is_some() && self.flight.is_empty() => {
                    let text = self.patience.as_deref().unwrap_or_default();
                    return Action::Wait(text);
                }
                true if self.patience.is_some() => {
                    Transition::WaitsForFlight.record();
                    Turn::Read
                }
                // Something else may have been asked meanwhile, in another database.
                true if self.flight.is_empty() && self.backlog.has_questions() => Turn::Enter,
                true => Turn::Fill,
                false => Turn::Read,
            };
        }
        match self.turn {
            Turn::Enter => Action::Enter(self.backlog.db()),
            Turn::Fill => self.fill(),
            _ => self.read(),
        }
    }

    /// Fills the window, one request at a time: the next page of names before the values of this
    /// one.
    fn fill(&mut self) -> Action<'_> {
        let drains = self.drain.is_draining();
        if self.backlog.needs_job() && !drains {
            // Groups of the last database may still be under way: the number of the database must
            // not change before they are read.
            if self.flight.keys() > 0 {
                Transition::GroupWaitsForJobBefore.record();
                return self.flush();
            }
            return match self.backlog.next_job() {
                Some(job) => Action::Begin(job),
                None => self.flush(),
            };
        }
        if !drains
            && self.backlog.names() < self.window.names_ahead()
            && let Some(cursor) = self.backlog.ask_page()
        {
            Transition::PageAsked.record();
            self.flight.ask_page();
            return Action::AskPage {
                cursor,
                count: self.window.scan_count(),
                at_once: self.window.is_far(),
            };
        }
        let room = self.window.keys().saturating_sub(self.flight.keys());
        if room == 0 {
            Transition::WindowFull.record();
        }
        let group = self.backlog.take_names(room.min(self.window.group_keys()));
        if group.is_empty() {
            return self.flush();
        }
        Transition::GroupAsked.record();
        Action::AskGroup(self.flight.ask_group(group))
    }

    fn flush(&mut self) -> Action<'_> {
        self.turn = Turn::Read;
        Action::Flush
    }

    fn read(&mut self) -> Action<'_> {
        match self.flight.next() {
            Next::Page => Action::ReadPage,
            Next::Group(keys) => Action::ReadGroup(keys),
            Next::Nothing if self.backlog.is_done() => {
                Transition::Ended.record();
                self.turn = Turn::Look;
                Action::End
            }
            // Reaching the end is claimed only where it is proved.
            Next::Nothing => {
                let fault = Fault::Bug("the scan stopped before its end; this is a bug");
                self.fail(fault);
                Action::Fail(fault)
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        Transition::Failed.record();
        self.turn = Turn::Failed(fault);
    }

    /// Tells what came. Returns whether something came as a whole, a page of names or all there is
    /// of a key: the next loss of the connection is a new one then. Half an answer is nothing, or a
    /// connection that breaks in the middle of the same answer each time would be made again for
    /// ever.
    pub fn on(&mut self, event: Event) -> bool {
        match event {
            Event::Begun(job) => {
                Transition::JobBegun.record();
                self.backlog.begin(job);
                self.turn = Turn::Enter;
            }
            Event::Entered => {
                Transition::DatabaseEntered.record();
                self.turn = Turn::Fill;
            }
            Event::Waited => {
                Transition::PatienceWaited.record();
                self.patience = None;
                self.turn = Turn::Look;
            }
            Event::Page { next, names, at } => return self.on_page(next, names, at),
            Event::PageRefused(text) => {
                Transition::PageRefusedForNow.record();
                self.flight.page_came();
                self.backlog.page_again();
                if self.abandoned {
                    self.backlog.end_scan();
                }
                self.patience = Some(text);
                self.turn = Turn::Look;
            }
            Event::Group(facts) => {
                Transition::GroupOpened.record();
                self.turn = Turn::Look;
                if !self.flight.open(facts) {
                    self.fail(Fault::Bug(
                        "a group was answered that was not asked for; this is a bug",
                    ));
                }
            }
            Event::GroupRefused(text) => self.on_group_refused(text),
            Event::Value { dumped, after } => return self.on_value(dumped, after),
        }
        false
    }

    fn on_page(&mut self, next: Vec<u8>, names: Vec<Vec<u8>>, at: Instant) -> bool {
        self.turn = Turn::Look;
        if !self.flight.page_came() {
            self.fail(Fault::Bug(
                "a page was answered that was not asked for; this is a bug",
            ));
            return false;
        }
        if !self.backlog.page_came(next) {
            Transition::CursorRepeated.record();
            self.fail(Fault::Server(
                "SCAN gave back the cursor that it was asked with",
            ));
            return false;
        }
        self.window.page_came(at);
        match self.backlog.wants_page() {
            true => Transition::PageCame.record(),
            false => Transition::LastPageCame.record(),
        }
        if self.abandoned {
            Transition::PageCameToAbandonedScan.record();
            self.backlog.end_scan();
        } else {
            self.backlog.add_names(names);
        }
        true
    }

    /// A group that was refused as a whole: in a while where the server asks for patience, else
    /// every key by itself, so that one forbidden key does not cost its fifteen neighbours.
    fn on_group_refused(&mut self, text: String) {
        self.turn = Turn::Look;
        if is_loading(&text) {
            // What is under way is taken back with the connection.
            Transition::Loading.record();
            self.turn = Turn::Loading(text);
            return;
        }
        let mut keys = self.flight.refused();
        if self.terms.may_pass(&text) {
            Transition::GroupRefusedForNow.record();
            self.backlog.put_back(keys);
            self.patience = Some(text);
            return;
        }
        if keys.len() > 1 {
            Transition::GroupTakenApart.record();
            self.backlog.put_alone(keys);
            return;
        }
        match keys.pop() {
            Some(key) => {
                Transition::KeyRefusedAlone.record();
                self.turn = Turn::Settle(key, Fate::Refused(text));
            }
            None => self.fail(Fault::Bug(
                "a group was refused that was not asked for; this is a bug",
            )),
        }
    }

    fn on_value(&mut self, dumped: Dumped, after: Option<Expiry>) -> bool {
        self.turn = Turn::Look;
        let Some(open) = self.flight.close_key() else {
            self.fail(Fault::Bug(
                "a value was answered that was not asked for; this is a bug",
            ));
            return false;
        };
        let (is_apart, is_blurred) = (after.is_some(), open.expiry == Expiry::Blurred);
        let judgement = match judge(open.expiry, open.eviction, dumped, after, self.terms) {
            // It may have been deleted and written anew between the questions.
            Judgement::Settled(Fate::Withheld) if is_apart && self.backlog.doubt(&open.key, 1) => {
                Judgement::Changed
            }
            // A server that is always so slow would be asked for ever.
            Judgement::Changed if is_blurred && !self.backlog.doubt(&open.key, MOST_BLURRED) => {
                Judgement::Settled(Fate::ExpiryUnknown)
            }
            judgement => judgement,
        };
        match judgement {
            Judgement::Loading(text) => {
                Transition::Loading.record();
                self.backlog.put_back(vec![open.key]);
                self.turn = Turn::Loading(text);
                false
            }
            Judgement::Later(text) => {
                Transition::KeyRefusedForNow.record();
                self.backlog.put_back(vec![open.key]);
                self.patience = Some(text);
                false
            }
            Judgement::Changed => {
                // By itself: then its commands are carried out in one go, or nearly.
                Transition::KeyChanged.record();
                self.window.key_came(None);
                self.backlog.put_alone(vec![open.key]);
                true
            }
            Judgement::Settled(fate) => {
                Transition::KeySettled.record();
                self.backlog.believe(&open.key);
                self.window.key_came(fate.reply_bytes());
                self.turn = Turn::Settle(open.key, fate);
                true
            }
        }
    }

    /// The connection is lost, or is given up; `closed` where the other side ended it. What was asked
    /// and not answered is to be asked again, before what was not asked yet. Returns also how many
    /// names were dropped, because an abandoned scan will return them again.
    pub fn lost(&mut self, closed: bool) -> (AfterLoss, usize) {
        let consequence =
            self.window.lost(
                closed.then(|| match (self.flight.keys(), self.flight.first_key()) {
                    (0, _) if self.backlog.page_is_asked() => Load::Page,
                    (1, Some(key)) => Load::Key(self.backlog.db(), key),
                    (0, _) | (_, None) => Load::Nothing,
                    (count, Some(_)) => Load::Keys {
                        count,
                        bytes: count.saturating_mul(self.window.guess_bytes()),
                    },
                }),
            );
        if !matches!(self.turn, Turn::Failed(_)) {
            self.turn = Turn::Look;
        }
        let mut keys = self.flight.clear();
        let after = match consequence {
            Consequence::Nothing => {
                Transition::LostAndAskedAgain.record();
                AfterLoss::Same
            }
            Consequence::FewerKeys | Consequence::SmallerPages => {
                Transition::LostAndAskedForLess.record();
                AfterLoss::Less
            }
            Consequence::GiveUpKey => {
                Transition::KeyGivenUp.record();
                keys.pop().map_or(AfterLoss::Same, AfterLoss::WithoutKey)
            }
            Consequence::Hopeless => {
                Transition::LostHopelessly.record();
                AfterLoss::Hopeless
            }
        };
        while let Some(key) = self.backlog.take_alone() {
            keys.push(key);
        }
        self.backlog.put_back(keys);
        self.backlog.page_again();
        let mut dropped = 0;
        if self.abandoned {
            Transition::LostWhileAbandoned.record();
            self.backlog.end_scan();
            dropped = self.backlog.drop_names();
        }
        (after, dropped)
    }

    /// The connection leads to another process now. Whether the present database was in the middle of
    /// its scan, and begins from its start: then how many names were dropped. Names that are complete
    /// are as good as before.
    pub fn begin_database_again(&mut self) -> Option<usize> {
        if !self.backlog.is_amid_scan() {
            return None;
        }
        Transition::DatabaseBegunAgain.record();
        let dropped = self.backlog.drop_names();
        self.backlog.scan_from_start();
        Some(dropped)
    }

    /// The present database cannot be entered: the names that were to be read of it. Nothing may be
    /// under way.
    pub fn shut(&mut self) -> Vec<Vec<u8>> {
        Transition::DatabaseShut.record();
        self.backlog.end_scan();
        let names = self.backlog.take_names(usize::MAX);
        self.turn = Turn::Fill;
        names
    }

    /// Ends the scan as soon as what is under way has come; it will begin anew. How many names were
    /// dropped.
    pub fn abandon(&mut self) -> usize {
        Transition::Abandoned.record();
        self.abandoned = true;
        self.backlog.drop_jobs();
        if !self.backlog.page_is_asked() {
            self.backlog.end_scan();
        }
        self.backlog.drop_names()
    }

    /// All that was under way when the scan was abandoned has come.
    pub fn end_abandoned(&mut self) {
        self.abandoned = false;
    }

    /// These databases are read after the present job, and no others. Names that are to be read
    /// stay.
    pub fn read_databases(&mut self, dbs: impl IntoIterator<Item = u32>) {
        self.backlog.replace_scans(dbs);
    }

    /// This is to be read, too.
    pub fn add(&mut self, job: Job) {
        self.backlog.add(job);
    }

    /// The connection is gone for good, and the rest is read elsewhere. How many keys were asked for,
    /// or were to be.
    pub fn give_up(&mut self) -> usize {
        let keys = self.flight.clear().len() + self.backlog.drop_names();
        self.backlog.page_again();
        self.backlog.drop_jobs();
        keys
    }

    /// How much others leave to us, from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.window.limit(limits);
    }

    /// COUNT of SCAN grows from now on, where this round trip is most of the time.
    pub fn adapt_to(&mut self, round_trip: Duration) {
        self.window.adapt_to(round_trip);
    }

    /// From now on places to go on from are made.
    pub fn keep_positions(&mut self, now: Instant) {
        self.drain = Drain::from(now);
    }

    /// Begins to make such a place if that is due.
    pub fn tick(&mut self, now: Instant) {
        self.drain.begin(now);
    }

    /// [`Action::Drained`] was taken notice of.
    pub fn drained(&mut self, now: Instant) -> Option<Position> {
        self.drain.end(now).then(|| Position {
            db: self.backlog.db(),
            cursor: self.backlog.cursor().map(<[u8]>::to_vec),
            waiting: self.backlog.scans_to_come(),
        })
    }

    /// Goes on here, before anything was read.
    pub fn go_on_at(&mut self, at: Position) {
        self.backlog.set_db(at.db);
        self.backlog.scan_from(at.cursor);
        self.read_databases(at.waiting);
    }

    /// Whether every name that SCAN gave was read, and nothing is under way.
    fn is_drained(&self) -> bool {
        self.drain.is_draining() && self.backlog.names() == 0 && self.flight.is_empty()
    }

    /// The database that is read.
    pub fn db(&self) -> u32 {
        self.backlog.db()
    }

    /// Whether a page of the present database came already.
    pub fn has_begun_database(&self) -> bool {
        self.backlog.has_begun()
    }

    /// The databases of which something is still to be read; `None` if that is all of them, anew.
    pub fn unfinished_dbs(&self) -> Option<Vec<u32>> {
        if self.abandoned {
            return None;
        }
        let mut dbs = self.backlog.scans_to_come();
        if !self.backlog.needs_job() {
            dbs.push(self.backlog.db());
        }
        Some(dbs)
    }

    /// Whether nothing is left to ask for.
    pub fn has_asked_all(&self) -> bool {
        self.backlog.is_done()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Whether the scan is being ended before its end.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Whether the server asks for patience.
    pub fn is_patient(&self) -> bool {
        self.patience.is_some()
    }

    /// By which rules answers are judged; they change with the server.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// What a value is likely to take.
    pub fn guess_bytes(&self) -> usize {
        self.window.guess_bytes()
    }
}
