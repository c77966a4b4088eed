//! The ledger: every record that came in is accounted for by what became of it, or the run says
//! that it does not add up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use redis_migrate_format::header::{ConsistencyReached, End, SourceCounts};
use serde::{Serialize, Serializer};

use crate::outside::Outside;
use crate::undecoded::Undecoded;

/// Counts by database, grown as databases turn up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CountsByDb(BTreeMap<u32, SourceCounts>);

impl CountsByDb {
    /// The row of `db`.
    pub fn of(&mut self, db: u32) -> &mut SourceCounts {
        self.0.entry(db).or_insert(SourceCounts {
            db,
            ..SourceCounts::default()
        })
    }

    /// Adds what another part of the run counted in one database.
    pub fn add(&mut self, row: &SourceCounts) {
        add(self.of(row.db), row);
    }

    /// The rows, by database.
    pub fn rows(&self) -> Vec<SourceCounts> {
        self.0.values().copied().collect()
    }
}

/// Several databases together.
pub fn sum(rows: &[SourceCounts]) -> SourceCounts {
    let mut total = SourceCounts::default();
    rows.iter().for_each(|row| add(&mut total, row));
    total
}

/// The rows may come from an archive, unchecked: a sum saturates.
fn add(sum: &mut SourceCounts, row: &SourceCounts) {
    for (sum, count) in [
        (&mut sum.scanned, row.scanned),
        (&mut sum.reread, row.reread),
        (&mut sum.written, row.written),
        (&mut sum.superseded, row.superseded),
        (&mut sum.filtered, row.filtered),
        (&mut sum.vanished, row.vanished),
        (&mut sum.failed, row.failed),
    ] {
        *sum = sum.saturating_add(count);
    }
}

/// Exact, whatever the counts are.
fn exact_sum<const N: usize>(counts: [u64; N]) -> u128 {
    counts.into_iter().map(u128::from).sum()
}

/// What a source gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceReport {
    /// By database.
    pub counts: Vec<SourceCounts>,
    /// Of the keys that failed, the ones whose values are larger than `--max-value` allows.
    pub above_max_value: u64,
    /// Whether a key may have been given more than once.
    pub duplicates_possible: bool,
    /// Start of the reading, this machine's clock, Unix ms.
    pub started_ms: u64,
    /// As of when it is.
    pub exactness: Exactness,
    /// Its function libraries.
    pub libraries: LibrariesRead,
    /// What of it is missing.
    pub lacks: Lacks,
    /// Of archives: what their exports lacked.
    pub export: ExportLacks,
    /// What the source holds outside its keys, or, of an archive, what its source held. That is no
    /// failure.
    pub outside: Vec<Outside>,
}

/// As of when the keys of a source are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exactness {
    /// What consistency was reached; `None` where the question makes no sense.
    pub reached: Option<ConsistencyReached>,
    /// Whether a file is all of one instant. `reached` is a scan all the same where it lacks
    /// something.
    pub of_one_instant: bool,
    /// Whether the consistency that was asked for was missed (exit 4).
    pub missed: bool,
    /// The longest that writes were paused, where they were.
    pub paused: Option<Duration>,
}

impl Exactness {
    /// Whether each key is as it was at one point in time that is known.
    pub fn is_exact(&self) -> bool {
        matches!(self.reached, Some(ConsistencyReached::Exact(_)))
    }
}

/// What came of the function libraries of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LibrariesRead {
    /// Payloads given (a FUNCTION DUMP counts as one).
    pub given: u64,
    /// Why libraries that are there, or may be, were not read: a line of [`Lacks`], too.
    pub unread: Option<String>,
    /// Why none was read at all where there may be some, in the server's words. Where the run does
    /// without them, this is all that tells of it.
    pub none: Option<String>,
    /// Of a cluster that is compared: those that are not the same on every primary.
    pub apart: Vec<LibraryApart>,
}

/// What a source has, or may have, and did not give, beyond single keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacks {
    /// Archives that were read only as far as they are intact, and function libraries that were not
    /// read, and why, one line each.
    pub cut_short: Vec<String>,
    /// What a server did not give, one line each: databases that cannot be gone to, function libraries
    /// that are not to be believed, what a restart cost.
    pub not_had: Vec<String>,
    /// Databases that could be gone to when the reading began, and not any more: of what they hold
    /// some or all was not read, and that a key of theirs did not come says nothing of it.
    pub lost_dbs: Vec<u32>,
    /// What the database that the URL names leaves out, in a line. That is no failure.
    pub by_choice: Option<String>,
    /// Modules whose data outside keys were left out, in whole or in part, because they are larger
    /// than can be kept. Whoever writes such data lacks them (exit 3).
    pub module_aux: BTreeSet<String>,
}

impl Lacks {
    /// Whether the run is not complete because of it (exit 3).
    pub fn is_failure(&self) -> bool {
        self.lines().next().is_some()
    }

    /// What makes it so, one line each.
    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.not_had.iter().chain(&self.cut_short)
    }
}

/// What exports did not put into the archives that are read now. It was never in them, which is no
/// failure of the run that reads them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportLacks {
    /// Keys that they could not read, or left out because their values were larger than
    /// `--max-value` allowed, by database.
    pub keys: Vec<(u32, u64)>,
    /// What they did not have beyond single keys, one line each.
    pub lines: Vec<String>,
}

impl ExportLacks {
    /// What the end of an archive says.
    pub fn of(end: Option<&End>) -> Self {
        Self {
            keys: end.map(export_failed).unwrap_or_default(),
            lines: end.map(|end| end.lacks.clone()).unwrap_or_default(),
        }
    }

    /// Whether they lacked nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.lines.is_empty()
    }
}

/// A function library that is not the same on every primary of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryApart {
    /// Its name.
    pub name: String,
    /// Which primaries have it, in words.
    pub place: String,
    /// Every code that it has somewhere, each once, in order.
    pub codes: Vec<Vec<u8>>,
}

impl SourceReport {
    /// All databases together.
    pub fn total(&self) -> SourceCounts {
        sum(&self.counts)
    }
}

/// Whether every row adds up.
///
/// # Errors
/// One line that names the row that does not.
pub fn reconcile(counts: &[SourceCounts]) -> Result<(), String> {
    let Some(row) = counts.iter().find(|row| !row.reconciles()) else {
        return Ok(());
    };
    let came = exact_sum([row.scanned, row.reread]);
    let went = exact_sum([
        row.written,
        row.superseded,
        row.filtered,
        row.vanished,
        row.failed,
    ]);
    Err(format!(
        "the ledger of database {} does not add up: {came} read, {went} accounted for",
        row.db
    ))
}

/// What a sink did. Its JSON is flat, and has what is skipped here beside it, or in another form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkReport {
    /// What became of the records.
    #[serde(flatten)]
    pub records: RecordCounts,
    /// Sent before the connection broke, and never answered: they may have been applied or not.
    pub unacknowledged: u64,
    /// Keys that exist at the end as this run wrote them, each counted once however many records of
    /// it came, and not if it was deleted again; `None` where that is not known.
    pub keys: Option<u64>,
    /// Function payloads taken, and of those accepted, skipped, refused.
    pub functions: FunctionCounts,
    /// What had to be changed so that the destination takes it.
    pub changes: Changes,
    /// Values that are out of the ordinary.
    #[serde(flatten)]
    pub values: OddValues,
    /// What became of keys at the source (`--delete-source`).
    #[serde(flatten)]
    pub deletions: Deletions,
    /// Why the destination may not hold what it was given.
    #[serde(flatten)]
    pub doubts: Doubts,
    /// What an earlier run of the same import has done, where this one went on with it.
    #[serde(skip)]
    pub earlier: Option<EarlierRun>,
    /// What `--verify` found at the end, where it was asked for.
    #[serde(skip)]
    pub verified: Option<Verified>,
    /// The archive that was written.
    #[serde(skip)]
    pub archive: Option<ArchiveWritten>,
    /// Findings that must make the exit code 3, one line each.
    #[serde(skip)]
    pub problems: Vec<String>,
}

/// What became of each record of a key that a sink took: all but the first add up to the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RecordCounts {
    /// Key and tombstone records taken.
    pub taken: u64,
    /// Written to an archive.
    pub archived: u64,
    /// Read and checked, and left at that (verify, dry run).
    pub checked: u64,
    /// Accepted by the destination for the first time.
    pub restored: u64,
    /// Accepted in place of what this run wrote earlier.
    pub replaced_own: u64,
    /// Stood at the destination already with equal value and TTL.
    pub unchanged: u64,
    /// Stood at the destination already and were left alone as asked (`--on-conflict skip`).
    pub skipped: u64,
    /// Past their time on the destination's clock.
    pub expired: u64,
    /// Tombstones that removed a key.
    pub deleted: u64,
    /// Tombstones of keys that did not exist.
    pub already_gone: u64,
    /// Stood at the destination already and were left alone (`--on-conflict fail`).
    pub conflicts: u64,
    /// Refused by the destination or by the tool.
    pub refused: u64,
}

impl RecordCounts {
    /// So many records were read and left at that.
    pub fn all_checked(records: u64) -> Self {
        Self {
            taken: records,
            checked: records,
            ..Self::default()
        }
    }

    /// Records of keys that the destination neither accepted nor had already.
    pub fn left(&self) -> u64 {
        self.skipped + self.conflicts + self.refused
    }

    /// Records of keys that were written, whatever became of them later.
    pub fn written(&self) -> u64 {
        self.archived + self.restored + self.replaced_own
    }

    /// Whether every record taken is accounted for.
    ///
    /// # Errors
    /// One line with both sides.
    pub fn reconcile(&self) -> Result<(), String> {
        let stood = self.unchanged + self.skipped + self.conflicts;
        let removed = self.expired + self.deleted + self.already_gone;
        let went = self.written() + self.checked + stood + removed + self.refused;
        if went == self.taken {
            Ok(())
        } else {
            Err(format!(
                "the ledger does not add up: {} records taken, {went} accounted for",
                self.taken
            ))
        }
    }
}

/// Values that a sink could not take like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OddValues {
    /// Of the refused records, those whose values are larger than `--max-value` allows.
    pub above_max_value: u64,
    /// Of those that were written to an archive, the ones that no destination should be given;
    /// function libraries that no destination takes count too.
    pub damaged: u64,
    /// Values that came and that this version cannot look into.
    #[serde(skip)]
    pub undecoded: Undecoded,
}

/// What became of keys at the source, once the destination accepted or had them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Deletions {
    /// Surely deleted by this run.
    #[serde(rename = "source_deleted")]
    pub deleted: u64,
    /// Perhaps: the answer to the deletion was lost, and since then the key no longer stands there as
    /// it was read. Somebody else may have deleted it.
    #[serde(rename = "source_unknown")]
    pub unknown: u64,
    /// Not deleted by this run: they had changed, or never came that far.
    #[serde(rename = "source_kept")]
    pub kept: u64,
    /// Of those that were accepted and kept all the same, how many for which reason, by a name for
    /// machines.
    #[serde(skip)]
    pub kept_because: Vec<(&'static str, u64)>,
    /// Of those that were kept, the ones that the destination has with another value or expiry.
    #[serde(rename = "source_kept_for_another")]
    pub kept_for_another: u64,
}

impl Deletions {
    /// Keys that may not be at the source any more.
    pub fn may_be_deleted(&self) -> u64 {
        self.deleted + self.unknown
    }

    /// Keys of which anything is known.
    pub fn total(&self) -> u64 {
        self.may_be_deleted() + self.kept
    }
}

/// Why a destination may hold something else than it was given, however well each record went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Doubts {
    /// Distinct keys that existed at the destination with other contents and were left as is.
    pub left_standing: u64,
    /// Keys that the destination evicted while we wrote; lost after acceptance.
    pub evicted: u64,
    /// Databases of the destination were emptied or swapped while we wrote, or it does not tell.
    #[serde(skip)]
    pub may_be_emptied: bool,
    /// A destination that had acknowledged keys was started anew or replaced: some may be gone.
    #[serde(skip)]
    pub memory_lost: bool,
    /// A destination was connected to again that does not say whether it is still the same process.
    #[serde(skip)]
    pub memory_unknown: bool,
}

impl Doubts {
    /// Whether it lost keys that it had acknowledged.
    pub fn has_lost_keys(&self) -> bool {
        self.memory_lost || self.evicted > 0
    }
}

/// Function payloads: FUNCTION DUMPs taken, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FunctionCounts {
    /// Taken.
    pub taken: u64,
    /// Accepted.
    pub restored: u64,
    /// Left out as asked, or already there.
    pub skipped: u64,
    /// Refused.
    pub refused: u64,
    /// Of those that were skipped or refused, the ones for which another library existed and was left
    /// as is.
    pub left_standing: u64,
}

/// What happened on the way to values that were written, for the ledger. What was only made ready
/// and then refused or left as is, is not in it; `streams_miscounted` and `fields_expired` are
/// of every value that came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Values whose footer got another version.
    pub restamped: u64,
    /// Values written in other forms.
    pub reencoded: u64,
    /// Hash fields that lost their expiry (`--allow-loss hash-field-ttl`).
    pub field_ttls_lost: u64,
    /// Hash fields whose expiry is later than the destination takes, and became its latest.
    pub field_ttls_clamped: u64,
    /// Streams whose own counter is not the number of their entries.
    pub streams_miscounted: u64,
    /// Hash fields that were past their time and were left out.
    pub fields_expired: u64,
    /// Records of streams of which the destination fills in by default what it knows and the source did not,
    /// or the other way round.
    pub streams_filled_in: u64,
    /// Records of streams whose settings of idempotency, or ids that were remembered, the destination
    /// does not keep. A stream with a group may come in several.
    pub idempotency_lost: u64,
    /// Entries of streams that were given back (XNACK) and that a consumer has again, because the
    /// destination knows none that belong to nobody.
    pub given_back_owned: u64,
    /// Values written by native commands.
    pub by_commands: u64,
    /// Keys whose idle time or frequency did not go with them: native commands cannot set it.
    pub eviction_lost: u64,
    /// Function libraries left out (`--allow-loss functions`).
    pub functions_lost: u64,
    /// Keys whose metadata of modules were left out, for a destination that does not keep them (of
    /// classes that must not be ignored: `--allow-loss key-meta`). Also of keys that stood already
    /// as they would have been written.
    pub key_metadata_lost: u64,
}

impl Changes {
    /// Every count, by what people call it, in the order in which they are told.
    fn named(&mut self) -> [(&'static str, &mut u64); 13] {
        [
            ("payload version changed", &mut self.restamped),
            ("re-encoded", &mut self.reencoded),
            ("written by native commands", &mut self.by_commands),
            ("without idle time or frequency", &mut self.eviction_lost),
            (
                "stream records with missing metadata filled in",
                &mut self.streams_filled_in,
            ),
            (
                "stream records without idempotency settings",
                &mut self.idempotency_lost,
            ),
            (
                "released stream entries given to a consumer",
                &mut self.given_back_owned,
            ),
            ("hash field expiries lost", &mut self.field_ttls_lost),
            (
                "hash field expiries moved to the latest possible",
                &mut self.field_ttls_clamped,
            ),
            (
                "streams with a wrong entry count",
                &mut self.streams_miscounted,
            ),
            ("hash fields expired", &mut self.fields_expired),
            ("function libraries left out", &mut self.functions_lost),
            ("without key metadata", &mut self.key_metadata_lost),
        ]
    }

    /// What is not zero, by what people call it.
    pub fn told(mut self) -> Vec<(&'static str, u64)> {
        let all = self.named().map(|(name, count)| (name, *count));
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Adds what was changed in another value.
    pub fn add(&mut self, mut more: Self) {
        for ((_, sum), (_, more)) in self.named().into_iter().zip(more.named()) {
            *sum += *more;
        }
    }

    /// Takes back what was added of a value that is not written after all.
    pub fn take_back(&mut self, mut less: Self) {
        for ((_, sum), (_, less)) in self.named().into_iter().zip(less.named()) {
            *sum = sum.saturating_sub(*less);
        }
    }

    /// The changes of one value that was changed a second time: it is still one value.
    #[must_use]
    pub fn and_then(mut self, later: Self) -> Self {
        self.add(later);
        for count in [
            &mut self.restamped,
            &mut self.reencoded,
            &mut self.streams_filled_in,
            &mut self.idempotency_lost,
            &mut self.key_metadata_lost,
        ] {
            *count = (*count).min(1);
        }
        self
    }
}

/// What an earlier run of the same import has done; this run read none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EarlierRun {
    /// Key and tombstone records that were answered.
    pub records: u64,
    /// Keys that failed among them.
    pub failed: u64,
    /// What was seen at the destination that makes it true, for people.
    pub seen: String,
}

/// A complete archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ArchiveWritten {
    /// Its id.
    #[serde(serialize_with = "id_in_hex")]
    pub archive_id: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

fn id_in_hex<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:016x}"))
}

/// What was found when the destination was read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Keys and function libraries that were written and not deleted again.
    pub compared: u64,
    /// As they were written.
    pub equal: u64,
    /// Of these, without what the destination does not keep.
    pub partly: u64,
    /// Expired since.
    pub expired: u64,
    /// Not as they were written.
    pub different: u64,
    /// Cannot be compared; none of the compared ones.
    pub incomparable: u64,
    /// Could not be read at the destination; none of the compared ones.
    pub unread: u64,
}

impl Verified {
    /// All that was to be verified.
    pub fn asked(&self) -> u64 {
        self.compared + self.incomparable + self.unread
    }
}

impl SinkReport {
    /// The report of a sink that has nothing else to tell.
    pub fn of(records: RecordCounts) -> Self {
        Self {
            records,
            ..Self::default()
        }
    }

    /// Keys that did not arrive though they should have.
    pub fn failed(&self) -> u64 {
        self.records.conflicts + self.records.refused + self.functions.refused
    }
}

/// Keys that the export could not read or left out for its `--max-value`, by database: the archive's
/// end has one number for both.
pub fn export_failed(end: &End) -> Vec<(u32, u64)> {
    let rows = end.facts.counts.iter().filter(|row| row.failed > 0);
    rows.map(|row| (row.db, row.failed)).collect()
}
