//! Opening what verbs read from: a live server, by SCAN or as a replica; a file, by its content. A side
//! of a comparison is opened here too ([`side`]).

pub(crate) mod file;
pub(crate) mod side;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use redis_migrate_format::header::{ConsistencyAsked, Expected, Mode, Node, SourceFacts};

use self::file::{OpenedFile, Wanted, open_file};
use super::Source;
use super::cluster::{ClusterOptions, ClusterSource};
use super::rdb::RdbSourceOptions;
use super::replica::ReplicaSource;
use super::server::{ConvergeOptions, ConvergingSource, Follow, ServerSource, ServerSourceOptions};
use crate::encryption::Keys;
use crate::endpoint::ConnectOptions;
use crate::exit::{Interrupted, usage};
use crate::host::unix_ms;
use crate::observer::Observer;
use crate::outside::OutsideKeys;
use crate::pace::{LatencyProbe, Pace};
use crate::place::{Endpoint, Input, Location};
use crate::policy::{Consistency, ReadFrom, ReadFunctions, Via};
use crate::rdb::Form;
use crate::record::Checkpoint;
use crate::select::Selection;
use crate::server::facts::{Facts, Keyspace};
use crate::server::reconnect::Retries;
use crate::server::{Conn, ServerError};
use crate::stop::Stop;

/// COUNT of SCAN, if none was asked for.
const SCAN_COUNT: u32 = 1_000;

/// The longest that writes may be paused, if nothing else is asked for.
pub const DEFAULT_MAX_PAUSE: Duration = Duration::from_millis(500);

/// How long a cluster may take to come to rest, and its nodes to answer again, where nothing else is
/// asked for.
const CLUSTER_MAX_WAIT: Duration = Duration::from_secs(60);

/// How a server is read.
#[derive(Debug, Clone)]
pub struct ReadHow {
    /// Keys it looks at in one SCAN; `None` to find out what is good.
    pub scan_count: Option<u32>,
    /// Key by key, or as a replica.
    pub via: Via,
    /// It is a node of a cluster, even if it does not say so.
    pub cluster: bool,
    /// Which nodes of a cluster.
    pub read_from: ReadFrom,
    /// The I-th of N shares of a cluster's slots.
    pub shard: Option<(u32, u32)>,
    /// The nodes of a cluster whose shards are read; all, if none.
    pub nodes: Vec<String>,
    /// Whether idle times or frequencies come along.
    pub eviction: bool,
    /// Whether a replica that is not in step with its primary will do.
    pub allow_stale: bool,
    /// The longest that writes may be paused.
    pub max_pause: Duration,
    /// The longest that the rounds after the scan may take; `None` for what is usual.
    pub max_wait: Option<Duration>,
    /// How changes are followed, if they are.
    pub follow: Option<FollowHow>,
}

/// When following ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct FollowHow {
    /// When nothing changed for so long.
    pub until_idle: Option<Duration>,
    /// After so long.
    pub total: Option<Duration>,
}

impl Default for ReadHow {
    fn default() -> Self {
        Self {
            scan_count: None,
            via: Via::default(),
            cluster: false,
            read_from: ReadFrom::default(),
            shard: None,
            nodes: Vec::new(),
            eviction: false,
            allow_stale: false,
            max_pause: DEFAULT_MAX_PAUSE,
            max_wait: None,
            follow: None,
        }
    }
}

/// What is wanted of a source, whatever it is.
#[derive(Debug, Clone)]
pub struct Wishes<'a> {
    /// How to read a server.
    pub read: ReadHow,
    /// Which keys.
    pub selection: Selection,
    /// The database that another URL of the command line limits this server to.
    pub other_urls_db: Option<u32>,
    /// Whether to read function libraries.
    pub functions: ReadFunctions,
    /// Whether payloads are wanted as the server would send them.
    pub verbatim: bool,
    /// How exact, while the source is written to.
    pub consistency: Consistency,
    /// Values of more bytes are left out and named (`--max-value`).
    pub max_value_bytes: u64,
    /// Whether what was given of a key is taken back when it cannot be read any more.
    pub takes_back: bool,
    /// What ends `--follow`.
    pub stop: &'a Stop,
}

/// A source, and what it says of itself.
pub struct OpenedSource {
    /// Where the records come from.
    pub source: Box<dyn Source>,
    /// Family, layout and nodes, for an archive's header.
    pub facts: SourceFacts,
    /// Its clock, or the moment of the snapshot.
    pub time_ms: u64,
    /// What consistency it gives.
    pub consistency: ConsistencyAsked,
    /// Databases with keys, as far as they are known before reading.
    pub databases: Vec<Keyspace>,
    /// Memory its dataset takes.
    pub used_memory: Option<u64>,
    /// Whether idle times or frequencies come along.
    pub eviction: bool,
    /// Which part of a cluster, or of the databases, only, in a line.
    pub left_out: Option<String>,
    /// Databases that are wanted and cannot be read.
    pub not_had: Vec<u32>,
    /// Modules that are loaded at a server, where it told.
    pub modules: Option<Vec<String>>,
}

impl OpenedSource {
    /// Estimates for an archive's header.
    pub fn expected(&self) -> Vec<Expected> {
        let row = |row: &Keyspace| Expected {
            db: row.db,
            keys: row.keys,
            expires: row.expires,
        };
        self.databases.iter().map(row).collect()
    }

    /// What the source holds outside its keys, where it is a live server that is scanned: a snapshot
    /// brings what its modules wrote for themselves.
    pub fn outside_keys(&self, from: &Endpoint, read: &ReadHow) -> OutsideKeys {
        match from {
            Endpoint::Server(connect) if read.via == Via::Scan => {
                let is_cluster = self.facts.mode == Mode::Cluster;
                OutsideKeys::ask(connect, self.modules.clone(), is_cluster)
            }
            _ => OutsideKeys::default(),
        }
    }
}

/// Opens `from`. A connection to the server, where one was made before, is used.
///
/// # Errors
/// [`Usage`](crate::exit::Usage), what the server refuses, and what is wrong at the beginning of a file.
pub fn open(
    from: &Endpoint,
    conn: Option<Conn>,
    wishes: Wishes<'_>,
    observer: &Arc<Observer>,
) -> Result<OpenedSource> {
    let stop = wishes.stop;
    // Whatever was waited for in vain: the user did not want to wait any more.
    open_as_asked(from, conn, wishes, observer).map_err(|error| match stop.is_set() {
        true => Interrupted.into(),
        false => error,
    })
}

fn open_as_asked(
    from: &Endpoint,
    conn: Option<Conn>,
    wishes: Wishes<'_>,
    observer: &Arc<Observer>,
) -> Result<OpenedSource> {
    let is_live = matches!(from, Endpoint::Server(_)) && wishes.read.via == Via::Scan;
    if wishes.read.follow.is_some() && !is_live {
        return Err(usage(
            "--follow needs a live server that is scanned; a snapshot (--via replica, an RDB \
             file) has an end",
        ));
    }
    match from {
        Endpoint::Server(options) => {
            let Asked {
                conn,
                facts,
                is_cluster,
                is_stale,
            } = ask(conn, options, &wishes, observer)?;
            let modules = facts.as_ref().and_then(|facts| facts.modules.clone());
            let opened = match (is_cluster, wishes.read.via) {
                (false, Via::Scan) => scan(conn, facts, options, wishes, is_stale, observer),
                (false, Via::Replica) => replica(conn, wishes, observer),
                (true, Via::Scan) => cluster(conn, options, wishes, observer),
                (true, Via::Replica) => Err(usage(
                    "--via replica reads one server; a cluster is read key by key (--via scan), \
                     exact as of one instant with --consistency pause",
                )),
            };
            opened.map(|opened| OpenedSource { modules, ..opened })
        }
        Endpoint::Stored(location) => snapshot(location, wishes, observer),
    }
}

/// What is known of a server before it is read.
struct Asked {
    conn: Conn,
    /// `None` where it is said to be a node of a cluster.
    facts: Option<Facts>,
    is_cluster: bool,
    /// It is a replica that may lack what its primary has.
    is_stale: bool,
}

/// Asks the server what it is, on a connection that was made before or on a new one.
fn ask(
    conn: Option<Conn>,
    connect: &ConnectOptions,
    wishes: &Wishes<'_>,
    observer: &Observer,
) -> Result<Asked> {
    let mut conn = match conn {
        Some(conn) => conn,
        None => Conn::open(connect)?,
    };
    if let Some(warning) = conn.warning() {
        observer.warn(&warning);
    }
    let stop = wishes.stop.of_pipe(wishes.read.follow.is_some());
    conn.heed(connect, &stop.flag());
    let (conn, facts) = match wishes.read.cluster {
        true => (conn, None),
        false => ask_facts(conn, connect, wishes)?,
    };
    let is_cluster = facts.as_ref().is_none_or(|facts| facts.cluster);
    if let (false, Some(flag)) = (is_cluster, cluster_flag(&wishes.read)) {
        return Err(usage(format!(
            "{flag} works only with a cluster, and the source is not one (say --cluster if it is)"
        )));
    }
    let is_stale = match &facts {
        Some(facts) if !is_cluster => is_stale(facts, wishes, observer)?,
        _ => false,
    };
    Ok(Asked {
        conn,
        facts,
        is_cluster,
        is_stale,
    })
}

/// Whether the source is a replica that may lack what its primary has, which has to be allowed.
///
/// # Errors
/// [`Usage`](crate::exit::Usage) where it is not allowed, or does not go together with what else was asked.
fn is_stale(facts: &Facts, wishes: &Wishes<'_>, observer: &Observer) -> Result<bool> {
    if !facts.role.is_told {
        observer.notice(
            "the server that is read answers neither INFO nor ROLE: it is not known whether it is a \
             replica that lags behind its primary",
        );
    }
    let Some(reason) = &facts.role.out_of_step else {
        return Ok(false);
    };
    if !wishes.read.allow_stale {
        return Err(usage(format!(
            "the source is a replica, and {reason}: it may lack what its primary has; read the \
             primary, or read it all the same with --allow-stale"
        )));
    }
    if wishes.read.follow.is_some() {
        return Err(usage(format!(
            "--follow needs a source that hears of changes: it is a replica, and {reason}"
        )));
    }
    observer.warn(&format!(
        "the source is a replica, and {reason}: what is read may lack what its primary has \
         (--allow-stale)"
    ));
    Ok(true)
}

/// The flag that was given and means something in a cluster only.
fn cluster_flag(read: &ReadHow) -> Option<&'static str> {
    if read.shard.is_some() {
        return Some("--shard");
    }
    if !read.nodes.is_empty() {
        return Some("--node");
    }
    (read.read_from == ReadFrom::Replica).then_some("--read-from replica")
}

/// What the source says of itself; also when the connection breaks while it is asked.
fn ask_facts(
    mut conn: Conn,
    connect: &ConnectOptions,
    wishes: &Wishes<'_>,
) -> Result<(Conn, Option<Facts>)> {
    let mut retries = Retries::new(connect);
    loop {
        conn.doing("asking the source what it is");
        let lost = match Facts::ask(&mut conn) {
            Ok(facts) => return Ok((conn, Some(facts))),
            Err(error) => error,
        };
        conn = match retries.connect(connect, lost, &|| wishes.stop.is_set()) {
            Err(_) if wishes.stop.is_set() => return Err(Interrupted.into()),
            connected => connected?,
        };
    }
}

fn cluster(
    conn: Conn,
    connect: &ConnectOptions,
    wishes: Wishes<'_>,
    observer: &Arc<Observer>,
) -> Result<OpenedSource> {
    let asked = wishes.consistency;
    let options = ClusterOptions {
        connect: connect.clone(),
        scan: scan_options(&wishes, connect),
        consistency: asked,
        max_pause: wishes.read.max_pause,
        max_wait: wishes.read.max_wait.unwrap_or(CLUSTER_MAX_WAIT),
        follow: follow(&wishes)?,
        adapts_scan_count: wishes.read.scan_count.is_none(),
        read_from: wishes.read.read_from,
        shard: wishes.read.shard,
        nodes: wishes.read.nodes.clone(),
        stop: wishes.stop.clone(),
    };
    let mut source = ClusterSource::open(conn, options, Arc::clone(observer))?;
    Ok(OpenedSource {
        facts: source.facts(),
        time_ms: source.now_ms(),
        consistency: asked_of(asked),
        databases: source.databases(),
        used_memory: source.used_memory(),
        eviction: wishes.read.eviction,
        left_out: source.left_out().map(str::to_owned),
        not_had: Vec::new(),
        modules: None,
        source: Box::new(source),
    })
}

fn scan_options(wishes: &Wishes<'_>, connect: &ConnectOptions) -> ServerSourceOptions {
    ServerSourceOptions {
        db_of_url: connect
            .db
            .or(wishes.other_urls_db)
            .filter(|db| wishes.selection.dbs == [*db]),
        max_value_bytes: (wishes.max_value_bytes < u64::MAX).then_some(wishes.max_value_bytes),
        scan_count: wishes.read.scan_count.unwrap_or(SCAN_COUNT),
        eviction: wishes.read.eviction,
        functions: wishes.functions,
        selection: wishes.selection.clone(),
        takes_back: wishes.takes_back,
    }
}

fn follow(wishes: &Wishes<'_>) -> Result<Option<Follow>> {
    if wishes.read.follow.is_some() && wishes.consistency == Consistency::Scan {
        return Err(usage(
            "--follow needs --consistency auto, converge or pause",
        ));
    }
    Ok(wishes.read.follow.map(|how| Follow {
        until_idle: how.until_idle,
        total: how.total,
        stop: wishes.stop.clone(),
    }))
}

fn asked_of(asked: Consistency) -> ConsistencyAsked {
    match asked {
        Consistency::Auto => ConsistencyAsked::Auto,
        Consistency::Scan => ConsistencyAsked::Scan,
        Consistency::Converge => ConsistencyAsked::Converge,
        Consistency::Pause => ConsistencyAsked::Pause,
    }
}

fn scan(
    conn: Conn,
    facts: Option<Facts>,
    connect: &ConnectOptions,
    wishes: Wishes<'_>,
    is_stale: bool,
    observer: &Arc<Observer>,
) -> Result<OpenedSource> {
    let follow = follow(&wishes)?;
    let mut source = open_scanned(conn, facts, connect, &wishes, observer)?;
    let asked = wishes.consistency;
    if is_stale && matches!(asked, Consistency::Converge | Consistency::Pause) {
        observer.warn("a replica that is not in step with its primary is scanned, never exact");
        source.miss_consistency();
    }
    if asked == Consistency::Scan || is_stale {
        return Ok(scanned(&source, asked, wishes.read.eviction)(Box::new(
            source,
        )));
    }
    let converge = ConvergeOptions {
        consistency: asked,
        max_pause: wishes.read.max_pause,
        max_wait: wishes.read.max_wait,
        follow,
        together: None,
    };
    match ConvergingSource::open(source, connect.clone(), converge)? {
        Ok(source) => Ok(scanned(source.scan(), asked, wishes.read.eviction)(
            Box::new(source),
        )),
        Err((mut source, refusal)) => {
            let refusal = source.facts().untold(refusal);
            if wishes.read.follow.is_some() {
                return Err(anyhow::Error::new(refusal)
                    .context("--follow needs CLIENT TRACKING, MULTI and EXEC of the source"));
            }
            let text = format!(
                "the source does not report changes ({}): a plain scan, exact only if nothing is \
                 written meanwhile",
                refusal.words()
            );
            if asked == Consistency::Auto {
                observer.notice(&text);
            } else {
                observer.warn(&text);
                source.miss_consistency();
            }
            Ok(scanned(&source, asked, wishes.read.eviction)(Box::new(
                source,
            )))
        }
    }
}

/// Opens one server to be scanned so that a later run can go on, at `at` if its cursor means
/// something there; else beside the source why not.
///
/// # Errors
/// As [`open`].
pub fn open_at(
    from: &Endpoint,
    wishes: Wishes<'_>,
    at: Option<&Checkpoint>,
    observer: &Arc<Observer>,
) -> Result<(OpenedSource, Option<&'static str>)> {
    let Endpoint::Server(connect) = from else {
        return Err(usage("--resume reads a live server"));
    };
    let asked = ask(None, connect, &wishes, observer)?;
    if asked.is_cluster {
        return Err(usage(
            "--resume works with one server, and the source is a cluster",
        ));
    }
    let modules = asked.facts.as_ref().and_then(|facts| facts.modules.clone());
    let mut source = open_scanned(asked.conn, asked.facts, connect, &wishes, observer)?;
    source.keep_checkpoints();
    let why_not = match at {
        Some(at) => source.go_on_from(at)?,
        None => None,
    };
    let opened = scanned(&source, wishes.consistency, wishes.read.eviction);
    let opened = OpenedSource {
        modules,
        ..opened(Box::new(source))
    };
    Ok((opened, why_not))
}

/// Opens a server to be scanned; also when the connection breaks while it is asked what it is.
fn open_scanned(
    mut conn: Conn,
    mut facts: Option<Facts>,
    connect: &ConnectOptions,
    wishes: &Wishes<'_>,
    observer: &Arc<Observer>,
) -> Result<ServerSource> {
    let options = scan_options(wishes, connect);
    // While changes are followed Ctrl-C means that the last round is to come.
    let stop = wishes.stop.of_pipe(wishes.read.follow.is_some());
    let mut retries = Retries::new(connect);
    loop {
        let opened = ServerSource::open(conn, facts.take(), options.clone(), Arc::clone(observer));
        let error = match opened {
            Ok(mut source) => {
                source.endure(connect.clone(), stop.clone());
                if wishes.read.scan_count.is_none() {
                    source.adapt_scan_count()?;
                }
                return Ok(source);
            }
            Err(error) => error,
        };
        let lost = error.downcast::<ServerError>()?;
        conn = match retries.connect(connect, lost, &|| stop.is_set()) {
            Err(_) if stop.is_set() => return Err(Interrupted.into()),
            connected => connected?,
        };
    }
}

/// Asks the source all the time how long it takes to answer, where that is to be kept low.
///
/// # Errors
/// The connection.
pub fn probe_source(
    from: &Endpoint,
    pace: Option<&Arc<Pace>>,
    observer: &Observer,
) -> Result<Option<LatencyProbe>> {
    Ok(match (from, pace) {
        (Endpoint::Server(connect), Some(pace)) => {
            LatencyProbe::start("source", connect, pace, observer)?
        }
        _ => None,
    })
}

/// What a scanned server says of itself, waiting for the source that it becomes.
fn scanned(
    source: &ServerSource,
    asked: Consistency,
    eviction: bool,
) -> impl FnOnce(Box<dyn Source>) -> OpenedSource + use<> {
    let facts = server_facts(source.facts(), source.facts().rdb_version());
    let time_ms = source.clock().now_ms();
    let databases = source.databases().to_vec();
    let used_memory = source.facts().memory.used;
    let not_had = source.databases_not_had();
    let left_out = left_out(&not_had);
    move |source| OpenedSource {
        source,
        facts,
        time_ms,
        consistency: asked_of(asked),
        databases,
        used_memory,
        eviction,
        left_out,
        not_had,
        modules: None,
    }
}

/// What an archive's header says of databases that could not be read.
fn left_out(not_had: &[u32]) -> Option<String> {
    let list: Vec<String> = not_had.iter().map(u32::to_string).collect();
    (!list.is_empty()).then(|| format!("without database {}, which is refused", list.join(", ")))
}

fn replica(conn: Conn, wishes: Wishes<'_>, observer: &Arc<Observer>) -> Result<OpenedSource> {
    let options = RdbSourceOptions {
        selection: wishes.selection.clone(),
        functions: wishes.functions,
        form: form(&wishes),
        alone: false,
        otherwise_ms: unix_ms(),
        max_value_bytes: wishes.max_value_bytes,
        path: None,
    };
    let source = ReplicaSource::open(conn, options, Arc::clone(observer))?;
    Ok(OpenedSource {
        facts: server_facts(source.facts(), source.rdb_version()),
        time_ms: source.taken_ms(),
        consistency: ConsistencyAsked::Snapshot,
        databases: source.databases(&wishes.selection),
        used_memory: source.facts().memory.used,
        eviction: true,
        left_out: None,
        not_had: Vec::new(),
        modules: None,
        source: Box::new(source),
    })
}

fn server_facts(facts: &Facts, rdb_version: u16) -> SourceFacts {
    SourceFacts {
        family: facts.family,
        mode: Mode::Standalone,
        nodes: vec![Node {
            version: facts.version_told(),
            run_id: facts.run_id.clone().unwrap_or_default(),
            rdb_version,
        }],
        label: None,
    }
}

fn snapshot(
    location: &Location,
    wishes: Wishes<'_>,
    observer: &Arc<Observer>,
) -> Result<OpenedSource> {
    if wishes.read.via != Via::Scan {
        return Err(usage("--via says how a server is read, and SRC is a file"));
    }
    let input = Input::open_at(location, Keys::NONE, wishes.stop)?;
    let name = input.name().to_owned();
    let wanted = Wanted {
        form: form(&wishes),
        selection: wishes.selection,
        functions: wishes.functions,
        max_value_bytes: wishes.max_value_bytes,
    };
    let snapshot = match open_file(input, wanted, observer)? {
        OpenedFile::Snapshot(snapshot) => snapshot,
        OpenedFile::Archive(_) => {
            return Err(usage(format!(
                "{name} is an archive, and not an RDB file: write it into a server with \
                 `redis-migrate import DEST FILE`, or make an RDB file of it with `redis-migrate \
                 convert`"
            )));
        }
    };
    Ok(OpenedSource {
        facts: snapshot.facts,
        time_ms: snapshot.taken_ms,
        consistency: ConsistencyAsked::Snapshot,
        databases: Vec::new(),
        used_memory: snapshot.used_memory,
        eviction: true,
        left_out: snapshot.left_out,
        not_had: Vec::new(),
        modules: None,
        source: snapshot.source,
    })
}

fn form(wishes: &Wishes<'_>) -> Form {
    match wishes.verbatim {
        true => Form::Verbatim,
        false => Form::Compact,
    }
}
