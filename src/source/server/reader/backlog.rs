//! What is still to be read: databases, the rest of a scan, names.

use std::collections::{BTreeMap, VecDeque};

/// One thing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::server) enum Job {
    /// All of a database.
    Scan(u32),
    /// These keys of a database, again.
    Names(u32, Vec<Vec<u8>>),
}

impl Job {
    fn db(&self) -> u32 {
        match self {
            Self::Scan(db) | Self::Names(db, _) => *db,
        }
    }
}

/// How far the scan of the present database is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scanning {
    /// Not begun, or through.
    Idle,
    /// The next page begins at this cursor.
    At(Vec<u8>),
    /// The page of this cursor was asked for.
    Asked(Vec<u8>),
}

/// What is still to be asked for.
#[derive(Debug)]
pub(super) struct Backlog {
    jobs: VecDeque<Job>,
    db: u32,
    scan: Scanning,
    names: VecDeque<Vec<u8>>,
    /// Names to be asked for again, each in a group of its own and before all others.
    alone: VecDeque<Vec<u8>>,
    /// How often the answers for a key were not believed.
    doubted: BTreeMap<Vec<u8>, u32>,
}

/// Where SCAN begins, and where it ends.
const START: &[u8] = b"0";

impl Backlog {
    pub fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        Self {
            jobs: jobs.into_iter().collect(),
            db: 0,
            scan: Scanning::Idle,
            names: VecDeque::new(),
            alone: VecDeque::new(),
            doubted: BTreeMap::new(),
        }
    }

    pub fn db(&self) -> u32 {
        self.db
    }

    pub fn set_db(&mut self, db: u32) {
        self.db = db;
    }

    /// Whether there is nothing left of the present job.
    pub fn needs_job(&self) -> bool {
        self.scan == Scanning::Idle && self.names.is_empty()
    }

    /// Whether there is something to ask of the present database now.
    pub fn has_questions(&self) -> bool {
        matches!(self.scan, Scanning::At(_)) || !self.names.is_empty()
    }

    /// Whether nothing is left to ask for.
    pub fn is_done(&self) -> bool {
        self.jobs.is_empty() && self.needs_job() && self.alone.is_empty()
    }

    pub fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    pub fn begin(&mut self, job: Job) {
        self.db = job.db();
        match job {
            Job::Scan(_) => self.scan = Scanning::At(START.to_vec()),
            Job::Names(_, names) => self.names = names.into(),
        }
    }

    pub fn add(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// Scans these databases instead of those that were to be scanned.
    pub fn replace_scans(&mut self, dbs: impl IntoIterator<Item = u32>) {
        self.jobs.retain(|job| matches!(job, Job::Names(..)));
        self.jobs.extend(dbs.into_iter().map(Job::Scan));
    }

    pub fn drop_jobs(&mut self) {
        self.jobs.clear();
    }

    /// The databases that are to be scanned, besides the present one.
    pub fn scans_to_come(&self) -> Vec<u32> {
        let scan = |job: &Job| match job {
            Job::Scan(db) => Some(*db),
            Job::Names(..) => None,
        };
        self.jobs.iter().filter_map(scan).collect()
    }

    pub fn names(&self) -> usize {
        self.names.len()
    }

    pub fn take_names(&mut self, count: usize) -> Vec<Vec<u8>> {
        let count = count.min(self.names.len());
        self.names.drain(..count).collect()
    }

    pub fn add_names(&mut self, names: Vec<Vec<u8>>) {
        self.names.extend(names);
    }

    /// These come before all other names.
    pub fn put_back(&mut self, names: Vec<Vec<u8>>) {
        for name in names.into_iter().rev() {
            self.names.push_front(name);
        }
    }

    /// These are asked for again before anything else, each by itself.
    pub fn put_alone(&mut self, names: Vec<Vec<u8>>) {
        self.alone.extend(names);
    }

    /// The answers for a key may be chance; whether they are still to be doubted, which is so `most`
    /// times.
    pub fn doubt(&mut self, name: &[u8], most: u32) -> bool {
        let times = self.doubted.entry(name.to_vec()).or_default();
        *times += 1;
        *times <= most
    }

    /// The answers for a key are believed.
    pub fn believe(&mut self, name: &[u8]) {
        self.doubted.remove(name);
    }

    pub fn take_alone(&mut self) -> Option<Vec<u8>> {
        self.alone.pop_front()
    }

    /// Drops all names; how many there were.
    pub fn drop_names(&mut self) -> usize {
        let count = self.names.len() + self.alone.len();
        self.names.clear();
        self.alone.clear();
        self.doubted.clear();
        count
    }

    /// Whether a page can be asked for.
    pub fn wants_page(&self) -> bool {
        matches!(self.scan, Scanning::At(_))
    }

    /// The cursor of the page that is asked for now.
    pub fn ask_page(&mut self) -> Option<Vec<u8>> {
        let Scanning::At(cursor) = &self.scan else {
            return None;
        };
        let cursor = cursor.clone();
        self.scan = Scanning::Asked(cursor.clone());
        Some(cursor)
    }

    /// The page that was asked for came, and the next one begins at `next`; `false` if that is the
    /// one that came, which would be asked for for ever.
    pub fn page_came(&mut self, next: Vec<u8>) -> bool {
        if next == START {
            self.scan = Scanning::Idle;
            return true;
        }
        if matches!(&self.scan, Scanning::Asked(asked) if *asked == next) {
            return false;
        }
        self.scan = Scanning::At(next);
        true
    }

    /// The page that was asked for is asked for again.
    pub fn page_again(&mut self) {
        if let Scanning::Asked(cursor) = &mut self.scan {
            self.scan = Scanning::At(std::mem::take(cursor));
        }
    }

    pub fn page_is_asked(&self) -> bool {
        matches!(self.scan, Scanning::Asked(_))
    }

    /// The scan ends here, whatever of it is left.
    pub fn end_scan(&mut self) {
        self.scan = Scanning::Idle;
    }

    /// Where the scan goes on; `None` where it is through or not begun.
    pub fn cursor(&self) -> Option<&[u8]> {
        match &self.scan {
            Scanning::At(cursor) | Scanning::Asked(cursor) => Some(cursor),
            Scanning::Idle => None,
        }
    }

    /// Whether the present database is in the middle of its scan.
    pub fn is_amid_scan(&self) -> bool {
        self.cursor().is_some_and(|cursor| cursor != START)
    }

    /// Whether the present database was begun to be read, by a page at the least.
    pub fn has_begun(&self) -> bool {
        self.cursor() != Some(START)
    }

    pub fn scan_from(&mut self, cursor: Option<Vec<u8>>) {
        self.scan = cursor.map_or(Scanning::Idle, Scanning::At);
    }

    pub fn scan_from_start(&mut self) {
        self.scan = Scanning::At(START.to_vec());
    }
}
