//! `copy`: a live server, or an RDB file, into a live server, without an archive in between.

mod args;

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Result;
use redis_migrate_format::header::Mode;

pub use self::args::CopyArgs;
use super::into_server::{self, rules, sink_options, try_databases};
use super::{Run, flow};
use crate::cli::Files;
use crate::cli::resolve::process_env;
use crate::compare::prove::Proof;
use crate::delete_source::{self, DeleteSource};
use crate::endpoint::ConnectOptions;
use crate::exit::usage;
use crate::glob::literal_prefix;
use crate::observer::Observer;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::place::Endpoint;
use crate::policy::{Consistency, FunctionPolicy, OnConflict, ReadFunctions, Via};
use crate::record::{Family, show_key};
use crate::rewrite::Rewrite;
use crate::select::Selection;
use crate::server::facts::{Facts, Keyspace};
use crate::server::identity::{Identity, run_id, same_server};
use crate::server::probe_key::by_probe_key;
use crate::server::{Conn, ServerError};
use crate::sink::Accepted;
use crate::sink::server::held::Repeats;
use crate::sink::server::{ServerSink, ServerSinkOptions};
use crate::source::open::{self, OpenedSource, Wishes, probe_source};
use crate::verb::{Data, Flow, Verb};

impl Run for CopyArgs {
    const VERB: Verb = Verb {
        name: "copy",
        flow: Some(Flow::Copy),
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
            .inputs(&self.source)
            .stdout()
            .server(&self.source_connect.flags())
            .server(&self.destination_connect.flags())
            .run(&self.run)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let screen = (&self.report, &self.run, false);
        flow(Self::VERB, screen, |observer| copy(self, observer, stop))
    }
}

/// Copies what the parsed command line says, until it is done or `stop` is set: the whole verb, except
/// for the screen. `observer` hears of progress, warnings and failed keys.
///
/// # Errors
/// What ended the run before any record was read. An error after that is in the outcome.
pub fn copy(args: &CopyArgs, observer: &Arc<Observer>, stop: &Stop) -> Result<Outcome> {
    let (from, to) = args.ends(&process_env)?;
    for warning in [from.warnings(), to.warnings()].into_iter().flatten() {
        observer.warn(&warning);
    }
    let Ends {
        source,
        sink_conn,
        same_server,
    } = Ends::open(args, &from, &to, observer, stop)?;
    let deletes = args.delete_source && !args.run.dry_run;
    observer.expect(source.source.estimate());
    let accepted = match (&from, deletes) {
        (Endpoint::Server(from), true) => {
            let family = source.facts.family;
            Some(deleting([from, &to], family, same_server, observer, stop)?)
        }
        _ => None,
    };
    let proof = Proof::new(args.verify);
    let accepted = proof.listening(accepted);
    let may_collide = args
        .write
        .rewrite(&to, 0)?
        .may_collide_among(&args.select.selection(from.db()));
    let options = ServerSinkOptions {
        deletes_source: args.delete_source,
        ..sink_options(&args.write, &args.run, may_collide, repeats(args, &from))
    };
    let observed = Arc::clone(observer);
    // While changes are followed Ctrl-C ends the following, and what is under way is written.
    let stop_writing = stop.of_pipe(args.read.follow);
    let mut sink = ServerSink::open(&to, sink_conn, options, accepted, observed, &stop_writing)?;
    if source.facts.mode == Mode::Standalone
        && let [node] = source.facts.nodes.as_slice()
    {
        sink.expect_twin(source.facts.family, &node.version);
    }
    let now_ms = sink.clock().now_ms();
    proof.begin(now_ms);
    let rewrite = args.write.rewrite(&to, now_ms)?;
    let rows = source.databases.iter();
    let coming: Vec<_> = rows.map(|row| (row.db, Some(row.keys))).collect();
    try_databases(&mut sink, &to, &rewrite, &coming, &proof, stop)?;
    if same_server {
        refuse_onto_itself(args, &rewrite, &source.databases)?;
    }
    if args.delete_source {
        refuse_to_lose(args, &rewrite, &source.databases)?;
    }
    if let Some(bytes) = source.used_memory {
        sink.check_memory(bytes);
    }
    let steps = Steps {
        rewrite,
        keep_origins: deletes || may_collide || proof.is_asked(),
        outside: source.outside_keys(&from, &args.read.how()),
        with_rules: rules(&args.run, &to, &sink),
    };
    let pace = args.pace.pace();
    let _source_probe = probe_source(&from, pace.as_ref(), observer)?;
    let _destination_probe = into_server::probe(pace.as_ref(), &to, observer)?;
    let outcome = pipe::run_paced(
        source.source,
        &steps,
        Box::new(sink),
        observer,
        &stop.of_pipe(args.read.follow),
        pace.as_ref(),
    );
    // Ctrl-C may have ended the following; a second one ends the process.
    let stop = stop.of_pipe(args.read.follow);
    Ok(proof.complete(&to, outcome, observer, &stop))
}

/// Both ends, before anything is read.
struct Ends {
    source: OpenedSource,
    sink_conn: Conn,
    /// They are one server, or as good as one.
    same_server: bool,
}

impl Ends {
    fn open(
        args: &CopyArgs,
        from: &Endpoint,
        to: &ConnectOptions,
        observer: &Arc<Observer>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut source_conn = match from {
            Endpoint::Server(options) => Some(Conn::open(options)?),
            Endpoint::Stored(_) => None,
        };
        let heeds = (!args.read.follow).then_some(stop);
        let mut sink_conn = into_server::connect(to, heeds, observer)?;
        let mut selection = args.select.selection(from.db());
        let same_server = match (from, &mut source_conn) {
            (Endpoint::Server(from), Some(source)) => are_one(
                args,
                [from, to],
                [source, &mut sink_conn],
                &selection,
                observer,
            )?,
            _ => false,
        };
        let prefix = args.write.rewrite(to, 0)?.add_prefix;
        if same_server && !prefix.is_empty() {
            selection = without_own(prefix, selection, observer);
        }
        let wishes = wishes(args, selection, same_server, stop)?;
        if args.delete_source {
            check_deleting(args, from, source_conn.as_mut(), observer)?;
        }
        let source = open::open(from, source_conn, wishes, observer)?;
        Ok(Self {
            source,
            sink_conn,
            same_server,
        })
    }
}

/// Within one server, names that begin with the new prefix may be those of copies.
fn without_own(prefix: Vec<u8>, selection: Selection, observer: &Observer) -> Selection {
    observer.warn(&format!(
        "source and destination are the same server: keys that begin with {} are left out, because \
         this run may have written them",
        show_key(&prefix)
    ));
    selection.and_names(move |key| !key.starts_with(&prefix))
}

/// What is read, and how.
fn wishes<'a>(
    args: &CopyArgs,
    selection: Selection,
    same_server: bool,
    stop: &'a Stop,
) -> Result<Wishes<'a>> {
    Ok(Wishes {
        read: args.read.how(),
        selection,
        other_urls_db: None,
        functions: match args.write.functions {
            FunctionPolicy::Skip => ReadFunctions::No,
            _ => ReadFunctions::IfPossible,
        },
        // What is deleted is first compared with what the server gives then.
        verbatim: args.delete_source && !args.run.dry_run,
        consistency: consistency(args, same_server)?,
        max_value_bytes: args.write.max_value.unwrap_or(u64::MAX),
        takes_back: false,
        stop,
    })
}

/// Who deletes at the source what the destination accepts.
fn deleting(
    [from, to]: [&ConnectOptions; 2],
    family: Family,
    same_server: bool,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<Box<dyn Accepted>> {
    let (stop, observer) = (stop.clone(), Arc::clone(observer));
    let deletes = DeleteSource::open(from.clone(), to, stop, family, same_server, observer)?;
    Ok(Box::new(deletes))
}

/// Whether a key may come more than once.
fn repeats(args: &CopyArgs, from: &Endpoint) -> Repeats {
    match (from, args.read.consistency) {
        (Endpoint::Stored(_), _) => Repeats::No,
        (_, Consistency::Scan) if !args.read.follow => Repeats::No,
        _ if args.read.via == Via::Replica && !args.read.follow => Repeats::No,
        _ => Repeats::Live,
    }
}

/// Whether source and destination are one server, or as good as one.
fn are_one(
    args: &CopyArgs,
    [from, to]: [&ConnectOptions; 2],
    [source, sink]: [&mut Conn; 2],
    selection: &Selection,
    observer: &Observer,
) -> Result<bool> {
    Ok(match same_server(source, sink)? {
        Identity::Unknown(_) => {
            let silent = match run_id(source)? {
                None => from,
                Some(_) => to,
            };
            find_out(args, [from, to], silent, selection, observer)?
        }
        Identity::Same => true,
        Identity::ReplicaOf => {
            observer.warn(
                "the source is a replica of the destination, so what is written there comes back: \
                 both are treated as one server",
            );
            true
        }
        Identity::Another => false,
    })
}

/// Whether keys can be deleted at the source as `--delete-source` asks; a dry run says what it does not
/// do of that.
fn check_deleting(
    args: &CopyArgs,
    from: &Endpoint,
    conn: Option<&mut Conn>,
    observer: &Observer,
) -> Result<()> {
    let facts = conn.map_or_else(|| Ok(Facts::default()), Facts::ask)?;
    let is_cluster = args.read.cluster || facts.cluster;
    may_delete(from, is_cluster, facts.role_is_replica() == Some(true))?;
    if args.run.dry_run {
        if let Endpoint::Server(options) = from {
            delete_source::rehearse(options)?;
        }
        observer.notice(
            "--delete-source deletes each source key that the run then sees at the destination \
             with the same value and expiry; this dry run does not look for them",
        );
    }
    Ok(())
}

/// The servers do not tell whether they are one. Where that matters, a key that is written at one and
/// looked for at the other tells; where even that does not, the run ends before anything is read.
/// `silent`: the one of them that does not tell.
fn find_out(
    args: &CopyArgs,
    [from, to]: [&ConnectOptions; 2],
    silent: &ConnectOptions,
    selection: &Selection,
    observer: &Observer,
) -> Result<bool> {
    let rewrite = args.write.rewrite(to, 0)?;
    let moves = rewrite.dbs.rest.is_some() || rewrite.dbs.pairs.iter().any(|(a, b)| a != b);
    let renames = moves || rewrite.strip_prefix != rewrite.add_prefix;
    let matters = args.delete_source || renames || args.read.follow || rewrite.dbs.only.is_some();
    if !matters {
        return Ok(false);
    }
    if args.run.dry_run {
        observer.notice(
            "the servers do not tell whether source and destination are the same server; a real \
             run finds out with a key that it writes and removes, and this dry run does not",
        );
        return Ok(false);
    }
    let mut dbs = vec![0];
    for db in [from.db, to.db].into_iter().flatten() {
        if !dbs.contains(&db) {
            dbs.push(db);
        }
    }
    // Users may be held to names that begin like those that are read or written.
    let read = selection.push_down().match_.map(literal_prefix);
    let prefixes = [rewrite.add_prefix.as_slice(), read.unwrap_or_default()];
    let why = match by_probe_key(from, to, &dbs, &prefixes)? {
        Identity::Same | Identity::ReplicaOf => return Ok(true),
        Identity::Another => return Ok(false),
        Identity::Unknown(why) => why,
    };
    if !args.delete_source && !renames {
        return Ok(false);
    }
    let risk = match args.delete_source {
        true => "--delete-source would delete the only copy of its keys",
        false => "the copy would read what it writes",
    };
    let refused = ServerError::Refused {
        address: silent.address.to_string(),
        command: "INFO".to_owned(),
        reason: "it does not tell its run_id".to_owned(),
    };
    Err(anyhow::Error::new(refused).context(format!(
        "cannot find out whether source and destination are the same server ({why}); if they are, \
         {risk}: allow both users INFO (+info), or CLIENT SETNAME and CLIENT LIST (+client|setname \
         +client|list); nothing was read"
    )))
}

/// Whether keys can be deleted at this source; a dry run and the run ask alike.
fn may_delete(from: &Endpoint, is_cluster: bool, is_replica: bool) -> Result<()> {
    let why = match from {
        Endpoint::Stored(_) => "--delete-source deletes at a server, and SRC is a file",
        Endpoint::Server(_) if is_cluster => {
            "--delete-source deletes at one server, and the source is a cluster; nothing was read"
        }
        Endpoint::Server(_) if is_replica => {
            "--delete-source deletes at a primary, and the source is a replica: name its primary; \
             nothing was read"
        }
        Endpoint::Server(_) => return Ok(()),
    };
    Err(usage(why))
}

/// What this run itself does at the source would be heard of as a change: what `--delete-source`
/// deletes there would be deleted at the destination too, and what is copied within one server
/// would never come to rest. Then nothing is listened to.
fn consistency(args: &CopyArgs, same_server: bool) -> Result<Consistency> {
    match args.read.consistency {
        asked if !args.delete_source && !same_server => Ok(asked),
        Consistency::Auto | Consistency::Scan if !args.read.follow => Ok(Consistency::Scan),
        _ => Err(usage(
            "--delete-source, and a copy within one server, work only with --consistency scan and \
             without --follow: the run would follow its own writes",
        )),
    }
}

/// Source and destination are one server: a key must not be copied onto itself.
fn refuse_onto_itself(args: &CopyArgs, rewrite: &Rewrite, databases: &[Keyspace]) -> Result<()> {
    let renamed = rewrite.strip_prefix != rewrite.add_prefix;
    for row in databases {
        let into = rewrite.dbs.map(row.db)?;
        if into == row.db && renamed {
            // New names that begin with a prefix of their own are none that are read.
            if rewrite.add_prefix.is_empty() && args.write.on_conflict() == OnConflict::Replace {
                return Err(usage(format!(
                    "source and destination are the same server, and a name without its prefix may \
                     be that of a key of database {into} that is still to be read; use \
                     --on-conflict fail, or copy through an archive (export, then import)"
                )));
            }
            continue;
        }
        if into == row.db {
            return Err(usage(format!(
                "source and destination are the same server, and database {into} would be copied \
                 onto itself; change the database (--map-db) or the names (--add-prefix)"
            )));
        }
        if databases.iter().any(|read| read.db == into) {
            return Err(usage(format!(
                "source and destination are the same server, and database {into} would be written \
                 while it is read; copy through an archive (export, then import), or read fewer \
                 databases (--db)"
            )));
        }
    }
    Ok(())
}

/// Two keys of the source that come under one name: the later one overwrites the earlier one under
/// `replace`, and then the source holds the only copy.
fn refuse_to_lose(args: &CopyArgs, rewrite: &Rewrite, databases: &[Keyspace]) -> Result<()> {
    let mut into = HashSet::new();
    let mut meet = !rewrite.strip_prefix.is_empty()
        // A database that turns up later may go where another one goes.
        || (args.read.follow && rewrite.dbs.rest.is_some());
    for row in databases {
        meet |= !into.insert(rewrite.dbs.map(row.db)?);
    }
    if meet && args.write.on_conflict() == OnConflict::Replace {
        return Err(usage(
            "with these databases or prefixes different keys may get the same name; under \
             --on-conflict replace one of them overwrites the other, and --delete-source would \
             delete both: use --on-conflict fail, which keeps the second one at the source",
        ));
    }
    Ok(())
}
