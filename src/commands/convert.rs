//! `convert`: an archive or an RDB file into an RDB file, or into JSON Lines.

mod args;

use std::io::{BufWriter, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::header::{ArchiveOrigin, ConsistencyReached, Mode, Node, SelectionFacts};
use redis_migrate_format::record::Family;
use redis_migrate_format::{Error, Header};

pub use self::args::{ConvertArgs, ConvertTo};
use super::{Run, flow, tell_loss};
use crate::cli::Files;
use crate::describe::loss_of;
use crate::dialect::{Dialect, Version};
use crate::exit::{self, Usage, usage};
use crate::observer::Observer;
use crate::pipe::{self, Outcome, Steps, Stop};
use crate::place::{Holds, Input, Location, Output, Place};
use crate::policy::ReadFunctions;
use crate::rdb::{Form, RdbTarget, Taken};
use crate::select::Selection;
use crate::sink::Sink;
use crate::sink::archive::Commit;
use crate::sink::jsonl::JsonlSink;
use crate::sink::rdb::RdbSink;
use crate::sink::rdb::latest::{Latest, Superseded};
use crate::size;
use crate::source::Source;
use crate::source::archive::ArchiveSource;
use crate::source::open::file::{OpenedFile, Snapshot, Wanted, open_file};
use crate::source::reading::Reading;
use crate::verb::{Data, Flow, Verb};

impl Run for ConvertArgs {
    const VERB: Verb = Verb {
        name: "convert",
        flow: Some(Flow::Convert),
        data: Data::UnlessSecond,
    };

    fn files(&self) -> Files {
        let holds = match self.kind() {
            Ok(ConvertTo::Rdb) => Holds::Rdb,
            _ => Holds::Other,
        };
        let holds = holds.unless(self.overwrite);
        let (input, output) = (Some(&self.input), self.output.as_ref());
        Files::default()
            .made_of(input, &self.encryption, output, holds)
            .run(&self.run)
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let screen = (&self.report, &self.run, false);
        flow(Self::VERB, screen, |observer| convert(self, observer, stop))
    }
}

fn convert(args: &ConvertArgs, observer: &Arc<Observer>, stop: &Stop) -> Result<Outcome> {
    let to = args.kind()?;
    let named = args.target(to)?;
    let input = Input::open(Some(&args.input), &args.encryption.keys()?, stop)?;
    let Opened {
        source,
        target,
        origin,
        superseded,
        taken,
        may_repeat,
    } = match open_file(input, wanted_of_snapshot(args), observer)? {
        OpenedFile::Snapshot(snapshot) => of_snapshot(args, snapshot),
        OpenedFile::Archive(input) => open_archive(args, input, to, observer, stop)?,
    };
    observer.expect(source.estimate());
    let sink: Box<dyn Sink> = match to {
        ConvertTo::Rdb => {
            let target = named.or(target).ok_or_else(|| {
                Usage(match origin {
                    Some(name) => format!(
                        "the source is {name}, and this tool does not write RDB files that old; \
                         name a newer server with --for"
                    ),
                    None => "the source does not say which server it is from; name one with --for"
                        .to_owned(),
                })
            })?;
            if !target.is_proven() {
                observer.warn(&format!(
                    "{} is written by published layouts and was not tested with a server that \
                     loads it: test the file before you need it",
                    target.magic
                ));
            }
            let taken = taken.ok_or_else(|| {
                anyhow!("an archive was read, but not its trailer; this is a bug")
            })?;
            let out = open_output(args, to)?;
            let commit: Commit<Out> = Box::new(publish);
            let allow = args.allow_loss.iter().copied().collect();
            let observer = Arc::clone(observer);
            let sink = RdbSink::create(out, target, superseded, taken, allow, commit, observer)?;
            let sink = sink.without_module_aux(!args.selection().wants_module_data());
            Box::new(sink.within(args.limits.max_value_bytes()))
        }
        ConvertTo::Jsonl => {
            let out = open_output(args, to)?;
            let commit: Commit<Out> = Box::new(publish);
            let mut sink = JsonlSink::new(out, commit, Arc::clone(observer)).without(superseded);
            if may_repeat {
                sink = sink.taking_back();
            }
            Box::new(sink.within(args.limits.max_value_bytes()))
        }
    };
    Ok(pipe::run(source, &Steps::default(), sink, observer, stop))
}

/// A source, and what the output must know of it before it is read.
struct Opened {
    source: Box<dyn Source>,
    /// The server it is from.
    target: Option<RdbTarget>,
    /// What it is called, as far as it is known.
    origin: Option<String>,
    superseded: Superseded,
    /// Of what moment it is; `None` where that is known at its end only, and nobody asks before.
    taken: Option<Taken>,
    /// A key may come several times, other than `superseded` knows.
    may_repeat: bool,
}

fn wanted_of_snapshot(args: &ConvertArgs) -> Wanted {
    Wanted {
        selection: args.selection(),
        functions: match args.no_functions {
            true => ReadFunctions::No,
            false => ReadFunctions::IfPossible,
        },
        form: Form::Compact,
        max_value_bytes: args.limits.max_value_bytes(),
    }
}

fn of_snapshot(args: &ConvertArgs, snapshot: Snapshot) -> Opened {
    let (family, version) = (snapshot.facts.family, snapshot.server_version());
    Opened {
        target: target_like(family, version, snapshot.rdb_version()),
        origin: Some(match version {
            "" => snapshot.format.clone(),
            version => origin_text(family, version).unwrap_or_else(|| version.to_owned()),
        }),
        // The source gives each key once.
        superseded: Superseded::default(),
        may_repeat: false,
        taken: Some(Taken {
            is_whole: snapshot.taken.is_whole && args.wants_all(),
            ..snapshot.taken
        }),
        source: snapshot.source,
    }
}

fn open_archive(
    args: &ConvertArgs,
    mut input: Input,
    to: ConvertTo,
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<Opened> {
    let (name, len) = (input.name().to_owned(), input.len_bytes());
    // All records go into JSON Lines, and the last line of a key counts. Where a selection looks at
    // values, though, the last record may be none that it wants.
    let is_streamed =
        to == ConvertTo::Jsonl && !(args.selection().needs_value() && input.is_rereadable());
    if is_streamed {
        let source = archive_source(args, input, len, observer)?;
        tell_loss(&name, source.header(), |text| observer.warn(text));
        return Ok(Opened {
            origin: None,
            source: Box::new(source),
            target: None,
            taken: None,
            superseded: Superseded::default(),
            may_repeat: true,
        });
    }
    if !input.is_rereadable() {
        return Err(usage(
            "an archive is read twice to become an RDB file, and standard input can be read only \
             once; save it to a file first",
        ));
    }
    input.rewind()?;
    let first = archive_source(args, &mut input, len, observer)?;
    let first = read_first(first.heads_only(), to, stop)?;
    input.rewind()?;
    let source = archive_source(args, input, len, observer)?.again(first.reading);
    let header = source.header();
    tell_loss(&name, header, |text| observer.warn(text));
    let Node {
        version,
        rdb_version,
        ..
    } = header.source.nodes.first().cloned().unwrap_or_default();
    Ok(Opened {
        target: target_like(header.source.family, &version, rdb_version),
        origin: origin_text(header.source.family, &version),
        taken: first.reached.map(|reached| Taken {
            is_whole: is_whole(header) && !is_part_of_file(header, &reached) && args.wants_all(),
            at_one_instant: is_of_one_instant(header, &reached),
            ..taken_by(&reached, header.source_time_ms)
        }),
        // Where the first reading met damage, nobody knows which record is the last.
        may_repeat: first.superseded.records.is_none(),
        superseded: first.superseded,
        source: Box::new(source),
    })
}

fn archive_source<R: Read + Send>(
    args: &ConvertArgs,
    input: R,
    len: Option<u64>,
    observer: &Arc<Observer>,
) -> Result<ArchiveSource<R>> {
    let limits = size::limits(args.limits.max_value_bytes());
    let (selection, functions) = (args.selection(), !args.no_functions);
    let observer = Arc::clone(observer);
    ArchiveSource::open(input, limits, selection, functions, len, observer)
}

/// What the first reading of an archive found.
struct First {
    superseded: Superseded,
    reading: Reading,
    /// How exact it is; `None` where its end was not reached.
    reached: Option<ConsistencyReached>,
}

/// The first reading: every record's name, and with it the whole archive checked.
fn read_first<R: Read + Send>(
    mut source: ArchiveSource<R>,
    to: ConvertTo,
    stop: &Stop,
) -> Result<First> {
    let mut latest = Latest::default();
    loop {
        exit::unless_stopped(stop)?;
        match source.visit(|record| latest.take(record).context("cannot write a temporary file")) {
            Ok(true) => {}
            Ok(false) => break,
            // What is intact becomes lines all the same; the damage is found again, and told.
            Err(error) if to == ConvertTo::Jsonl && error.is::<Error>() => {
                return Ok(First {
                    superseded: Superseded::default(),
                    reading: source.reading(),
                    reached: None,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(First {
        superseded: latest.finish().context("cannot read a temporary file")?,
        reading: source.reading(),
        reached: source.report().exactness.reached,
    })
}

/// Whether the archive is of all that its source held, as far as its header says.
fn is_whole(header: &Header) -> bool {
    let of_one = match header.origin {
        ArchiveOrigin::Salvaged { .. } => loss_of(header).is_none(),
        ArchiveOrigin::Split { of, .. } => of <= 1,
        ArchiveOrigin::Export => true,
    };
    of_one && header.functions && header.selection == SelectionFacts::default()
}

/// Whether an archive is of an RDB file that is of one instant, and still not exact: it lacks
/// something, if only what was written after it (the base of an append-only file).
fn is_part_of_file(header: &Header, reached: &ConsistencyReached) -> bool {
    let is_known =
        matches!(reached, ConsistencyReached::Scan { from_ms, to_ms } if from_ms == to_ms);
    is_known && header.source.mode == Mode::RdbFile
}

/// Of several shards each has an instant of its own.
fn is_of_one_instant(header: &Header, reached: &ConsistencyReached) -> bool {
    matches!(reached, ConsistencyReached::Exact(moments) if moments.len() == 1)
        || is_part_of_file(header, reached)
}

/// Between which moments an archive was read that reached this; `otherwise_ms` (Unix ms) where it
/// names none. Nothing else is claimed.
fn taken_by(reached: &ConsistencyReached, otherwise_ms: u64) -> Taken {
    let (from_ms, to_ms) = match reached {
        ConsistencyReached::Scan { from_ms, to_ms }
        | ConsistencyReached::PerKey { from_ms, to_ms }
        | ConsistencyReached::Changing { from_ms, to_ms, .. } => (*from_ms, *to_ms),
        ConsistencyReached::Exact(moments) => {
            let times = || moments.iter().map(|(_, at_ms)| *at_ms);
            (
                times().min().unwrap_or(otherwise_ms),
                times().max().unwrap_or(otherwise_ms),
            )
        }
    };
    Taken {
        from_ms,
        to_ms: to_ms.max(from_ms),
        at_one_instant: false,
        is_whole: false,
    }
}

/// `Redis 3.2.6`; `None` where nothing is known.
fn origin_text(family: Family, version: &str) -> Option<String> {
    let known = Dialect::of(family, Version::parse(version))
        .release()
        .is_some();
    known.then(|| format!("{} {version}", crate::describe::family_name(family)))
}

/// A target like the source itself.
fn target_like(family: Family, version: &str, rdb_version: u16) -> Option<RdbTarget> {
    RdbTarget::server(family, Version::parse(version))
        .or_else(|| RdbTarget::rdb_version(rdb_version))
}

/// Where the file is written to.
type Out = BufWriter<Output>;

fn open_output(args: &ConvertArgs, to: ConvertTo) -> Result<Out> {
    let stream = Place::Stored(Location::Stream);
    let output = match (&args.output, to) {
        _ if args.run.dry_run => Output::nowhere(),
        // Text may go to a terminal.
        (None, ConvertTo::Jsonl) => Output::open(Some(&stream))?,
        (place, _) => Output::open(place.as_ref())?,
    };
    Ok(BufWriter::with_capacity(256 * 1024, output))
}

fn publish(out: Out) -> Result<()> {
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .publish()
}

impl ConvertArgs {
    fn selection(&self) -> Selection {
        self.select.selection(None)
    }

    /// Whether nothing is to be left out.
    fn wants_all(&self) -> bool {
        self.selection().is_everything() && !self.no_functions
    }

    /// What to write: as asked, or by the name of the output.
    pub(crate) fn kind(&self) -> Result<ConvertTo> {
        if let Some(to) = self.to {
            return Ok(to);
        }
        let output = self.output.as_ref().map(|place| Path::new(place.word()));
        let extension = output.and_then(Path::extension);
        match extension.and_then(|extension| extension.to_str()) {
            Some("rdb") => Ok(ConvertTo::Rdb),
            Some("jsonl" | "ndjson") => Ok(ConvertTo::Jsonl),
            Some("rmz") => Err(usage(
                "convert does not write archives; use `redis-migrate export dump.rdb -o snap.rmz`",
            )),
            _ => Err(usage(
                "name the output dump.rdb or keys.jsonl, or say --to rdb or --to jsonl",
            )),
        }
    }

    /// The server that the RDB file is for, where one is named.
    fn target(&self, to: ConvertTo) -> Result<Option<RdbTarget>> {
        let named = self.for_server.is_some() || self.rdb_version.is_some();
        if named && to != ConvertTo::Rdb {
            return Err(usage("--for and --rdb-version are for RDB files"));
        }
        if let Some(server) = &self.for_server {
            let target = RdbTarget::parse(server).ok_or_else(|| {
                Usage(format!(
                    "--for {server:?} is not understood; write redis- or valkey- and a version \
                     from 4.0 on, such as redis-7.2"
                ))
            })?;
            return Ok(Some(target));
        }
        let target = |version| {
            RdbTarget::rdb_version(version).ok_or_else(|| {
                usage(format!(
                    "this tool does not write RDB version {version}; it writes {}",
                    RdbTarget::versions()
                ))
            })
        };
        self.rdb_version.map(target).transpose()
    }
}
