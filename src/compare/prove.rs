//! `--verify` of `import` and `copy`: at the end the destination is read and held against what this
//! run wrote there.
//!
//! Keys that somebody else keeps there are not read: the names that were written make a sieve.

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Result, anyhow};

use crate::compare::collect::{Collect, Side};
use crate::compare::join::{Counts, Difference};
use crate::compare::judge::{Judge, TTL_TOLERANCE_MS};
use crate::compare::meaning::Reading;
use crate::compare::names::Sieve;
use crate::compare::report;
use crate::compare::rounds::Comparison;
use crate::compare::row::{Row, What};
use crate::compare::store::{PARTITIONS, Store};
use crate::compare::unread::UnreadKeys;
use crate::compare::written::{self, Memory, Remember};
use crate::encryption::Keys;
use crate::endpoint::ConnectOptions;
use crate::exit::Differences;
use crate::ledger::Verified;
use crate::observer::{FailureKind, KeyFailure, Observer, Recording};
use crate::own_writes::FingerprintSet;
use crate::pipe::{self, Outcome, Steps};
use crate::place::Endpoint;
use crate::rewrite::Rewrite;
use crate::select::{NameCondition, Selection};
use crate::server::ServerError;
use crate::sink::Accepted;
use crate::sink::server::watch::{Purpose, Watch};
use crate::source::open::side::{Wanted, open_side};
use crate::source::server::without_hint;
use crate::stop::Stop;
use crate::units::plural;

/// How often what differs is read again, a second later.
const ROUNDS: u32 = 2;

/// The proof of one run, or none.
pub struct Proof(Option<Memory>);

impl Proof {
    /// To be made if it was asked for.
    pub fn new(is_asked: bool) -> Self {
        Self(is_asked.then(written::memory))
    }

    /// The run begins at this moment (Unix ms, by the clock of the destination, which is the one
    /// that fields of hashes expire by). To be said before anything is written.
    pub fn begin(&self, now_ms: u64) {
        if let Some(memory) = &self.0 {
            written::lock(memory).reading.from_ms = now_ms;
        }
    }

    /// Before anything is written: whether the destination, of which these databases are written, lets
    /// itself be read at all. What else is wrong with it is told when it is read.
    ///
    /// # Errors
    /// That SCAN, DUMP or PTTL is refused.
    pub fn try_reading(&self, to: &ConnectOptions, dbs: &[u32], stop: &Stop) -> Result<()> {
        if self.0.is_none() || dbs.is_empty() {
            return Ok(());
        }
        let end = Endpoint::Server(Box::new(to.clone()));
        let wanted = Wanted {
            selection: Selection {
                dbs: dbs.to_vec(),
                ..Selection::default()
            },
            ..of_destination()
        };
        // What it says is said when it is read.
        let quiet = Observer::new(Box::new(Recording::default()), None, None);
        match open_side(&end, wanted, &Arc::new(quiet), stop) {
            Err(error) if refuses_to_be_read(&error) => {
                Err(error.context("--verify reads the destination, and nothing was written yet"))
            }
            _ => Ok(()),
        }
    }

    /// Whether what is written must be remembered with its origin.
    pub fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Who is to be told of what the destination accepts: the proof, then `accepted`.
    pub fn listening(&self, accepted: Option<Box<dyn Accepted>>) -> Option<Box<dyn Accepted>> {
        match &self.0 {
            Some(memory) => Some(Box::new(Remember::new(memory, accepted))),
            None => accepted,
        }
    }

    /// After the run: reads the destination and says what differs. A run that failed proves
    /// nothing.
    pub fn complete(
        self,
        to: &ConnectOptions,
        mut outcome: Outcome,
        observer: &Arc<Observer>,
        stop: &Stop,
    ) -> Outcome {
        let Some(memory) = self.0 else {
            return outcome;
        };
        if outcome.error.is_some() {
            observer.notice("the destination was not verified, because the run failed");
            return outcome;
        }
        match prove(&memory, to, observer, stop) {
            Err(error) => outcome.error = Some(error.context("verifying the destination")),
            Ok((verified, libraries_unread)) => tell(&mut outcome, verified, libraries_unread),
        }
        outcome
    }
}

/// What was verified, and what of it is a problem. `libraries_unread`: why not all function libraries of
/// the destination are known.
fn tell(outcome: &mut Outcome, verified: Verified, libraries_unread: Option<String>) {
    outcome.sink.verified = Some(verified);
    let problem = libraries_unread.map(|text| format!("not verified: {text}"));
    outcome.sink.problems.extend(problem);
    // What the source did not give was not written, and cannot be proved. Where this is
    // more than a warning, it is said already.
    let source = &outcome.source;
    if let (Some(text), None) = (&source.libraries.none, &source.libraries.unread) {
        outcome.sink.problems.push(format!(
            "not verified: the source did not give its function libraries ({text}); \
             --functions skip leaves them out"
        ));
    }
    for (count, why) in [
        (verified.incomparable, "the values cannot be compared"),
        (
            verified.unread,
            "the values could not be read at the destination",
        ),
    ] {
        if count > 0 {
            outcome.sink.problems.push(format!(
                "{} not verified, each named above with the reason: {why}",
                plural(count, "key")
            ));
        }
    }
    if verified.different > 0 {
        outcome.error = Some(Differences(verified.different).into());
    }
}

fn refuses_to_be_read(error: &anyhow::Error) -> bool {
    let refused = error.chain().find_map(|cause| cause.downcast_ref());
    matches!(
        refused,
        Some(ServerError::Refused { command, .. })
            if ["SCAN", "DUMP", "PTTL"].contains(&command.as_str())
    )
}

/// How a destination is read; of every database, and without function libraries.
fn of_destination() -> Wanted<'static> {
    Wanted {
        selection: Selection::default(),
        other_urls_db: None,
        functions: false,
        keys: Keys::NONE,
        max_value_bytes: u64::MAX,
        allow_stale: true,
        kept: None,
    }
}

/// The destination, as it is read to be verified.
struct Destination<'a> {
    end: Endpoint,
    /// Databases that were written.
    dbs: Vec<u32>,
    /// Whether function libraries were written.
    libraries: bool,
    reading: Reading,
    /// Why not all function libraries of it are known.
    libraries_unread: RefCell<Option<String>>,
    observer: &'a Arc<Observer>,
    stop: &'a Stop,
}

impl Destination<'_> {
    /// What stands under these names.
    fn read(&self, wants: Box<NameCondition>) -> Result<Side> {
        let reading = &self.reading;
        let selection = Selection {
            dbs: self.dbs.clone(),
            ..Selection::default()
        }
        .and_names(wants);
        let wanted = Wanted {
            selection,
            functions: self.libraries,
            ..of_destination()
        };
        let unread = UnreadKeys::new(&reading.prints, &Rewrite::default());
        let opened = open_side(
            &self.end,
            wanted,
            &unread.listening(self.observer),
            self.stop,
        )?;
        let (collect, collected) =
            Collect::new(reading.clone(), Selection::default(), None, opened.time_ms);
        let collect = collect.with_unread(&unread);
        let steps = Steps::default();
        let outcome = pipe::run(
            opened.source,
            &steps,
            Box::new(collect),
            self.observer,
            self.stop,
        );
        if let Some(error) = outcome.error {
            return Err(error);
        }
        // That libraries were not read leaves the keys to be verified.
        let is_of_libraries =
            |line: &&String| outcome.source.libraries.unread.as_ref() == Some(*line);
        let mut rest = outcome.source.lacks.not_had.iter();
        if let Some(text) = rest.find(|line| !is_of_libraries(line)) {
            return Err(anyhow!("{text}"));
        }
        if let Some(line) = &outcome.source.libraries.unread {
            self.libraries_unread
                .replace(Some(without_hint(line).to_owned()));
        }
        let side = collected.lock().unwrap_or_else(|e| e.into_inner()).take();
        let mut side = side.ok_or_else(|| anyhow!("nothing was collected; this is a bug"))?;
        side.learn_of_libraries(reading, &outcome.source)?;
        Ok(side)
    }
}

fn prove(
    memory: &Memory,
    to: &ConnectOptions,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<(Verified, Option<String>)> {
    let mut written = written::lock(memory);
    let store = std::mem::take(&mut written.store);
    let destination = Destination {
        end: Endpoint::Server(Box::new(to.clone())),
        dbs: std::mem::take(&mut written.dbs),
        libraries: written.libraries > 0,
        reading: written.reading.clone(),
        libraries_unread: RefCell::new(None),
        observer,
        stop,
    };
    drop(written);
    if store.rows() == 0 {
        return Ok(Default::default());
    }
    observer.notice(&format!(
        "reading the destination to verify what was written: {}",
        plural(store.rows(), "record")
    ));
    let mut watch = Watch::begin(to, Purpose::Verifying, stop)?;
    let prints = &destination.reading.prints;
    let (sieve, own) = (sieve(&store, prints)?, prints.clone());
    let right = destination.read(Box::new(move |name| sieve.contains(own.name(name))))?;
    let left = Side {
        store,
        moment_ms: 0,
        lost_dbs: Vec::new(),
        libraries_unread: false,
    };
    let judge = Judge {
        ttl_tolerance_ms: TTL_TOLERANCE_MS,
        ignore_ttl: false,
        // Where the destination has none, none are expected.
        ignore_field_ttl: false,
        moments_ms: (0, 0),
    };
    let mut comparison = Comparison::new(left, right, judge, prints);
    comparison.ignore_extra = true;
    let totals = comparison.settle(ROUNDS, stop, |names: Arc<FingerprintSet>| {
        let prints = prints.clone();
        let again = destination.read(Box::new(move |name| names.contains(&prints.name(name))))?;
        Ok((None, Some(again)))
    })?;
    if let Some(why) = watch.look()? {
        return Err(anyhow!(
            "the destination {why}: what was read there before may be gone since, so nothing is \
             verified; diff compares both ends as they are now"
        ));
    }
    let counts = totals.all;
    if counts.different() + counts.unknown() > 0 {
        let of_libraries = destination.libraries_unread.borrow();
        let of_libraries = of_libraries.as_deref();
        comparison.differences(|difference| match failure(&difference, of_libraries) {
            Some(failure) => observer.key_failed(&failure),
            None => Ok(()),
        })?;
    }
    Ok((verified(&counts), destination.libraries_unread.take()))
}

/// In the numbers of the ledger.
fn verified(counts: &Counts) -> Verified {
    Verified {
        compared: counts.compared,
        equal: counts.equal,
        partly: counts.partly,
        expired: counts.expired,
        different: counts.different(),
        incomparable: counts.incomparable,
        unread: counts.unread,
    }
}

/// What is told of a key that is not as it was written, or of which nobody knows.
/// `of_libraries`: why not all function libraries were read.
fn failure(difference: &Difference, of_libraries: Option<&str>) -> Option<KeyFailure> {
    let row = difference.either()?;
    let (kind, reason) = if difference.is_unread() {
        let reason = difference.right.as_ref().and_then(report::reason);
        let is_library = row.what == What::Library;
        let reason = reason.or(of_libraries.filter(|_| is_library));
        let reason = reason.unwrap_or("the server did not return it");
        let text = format!("not verified, could not be read at the destination: {reason}");
        (FailureKind::Unread, text)
    } else if difference.is_incomparable() {
        (FailureKind::Incomparable, report::explain(difference))
    } else {
        let text = format!(
            "{} (A: as it was written, B: the destination)",
            report::explain(difference)
        );
        (FailureKind::Different, text)
    };
    Some(KeyFailure {
        db: row.db,
        key: report::title(row),
        kind,
        reason,
        hint: None,
    })
}

/// The names of all rows.
fn sieve(store: &Store, prints: &crate::compare::Prints) -> Result<Sieve> {
    let mut sieve = Sieve::for_names(store.rows());
    for partition in 0..PARTITIONS {
        let bytes = store.partition(partition)?;
        let mut rest = &bytes[..];
        while let Some(row) = Row::read(&mut rest) {
            sieve.insert(prints.name(&row.key));
        }
    }
    Ok(sieve)
}
