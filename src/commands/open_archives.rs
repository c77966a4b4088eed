//! Opening what `import` reads: one archive or several, from their beginning or from where an earlier
//! run stopped.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::seek::Table;
use redis_migrate_format::{Error, Limits, Reader};
use serde::Serialize;

use super::import::ImportArgs;
use super::tell_loss;
use crate::cli::WriteArgs;
use crate::describe::loss_of;
use crate::encryption::Keys;
use crate::endpoint::ConnectOptions;
use crate::exit::{Usage, usage};
use crate::observer::Observer;
use crate::own_writes::random_hash_keys;
use crate::pipe::Stop;
use crate::place::{Holds, Input, Location, SharedBytes, Writing, keep_apart};
use crate::policy::{FunctionPolicy, word};
use crate::record::Mark;
use crate::resume::destination::{self, Standing};
use crate::resume::{self, Begin, Part, SelectionIdentity, State, VERSION, digest};
use crate::select::Sought;
use crate::size;
use crate::source::archive::{ArchiveRow, ArchiveSource};
use crate::source::reading::{Reading, walk};
use crate::source::standing::has_each_key_once;
use crate::units::hex;

/// What leads to the frames of a file.
pub struct Map {
    table: Table,
    /// `None` where the file cannot be read at several places at once.
    file: Option<SharedBytes>,
}

/// The archives of an import.
pub struct OpenedArchives {
    pub row: ArchiveRow<Input>,
    pub parts: Vec<Part>,
    /// Where their frames are, and another reader of the same bytes; `None` for a pipe.
    pub tables: Vec<Option<Map>>,
    /// A key may have several records.
    pub may_repeat: bool,
    /// Which keys of `--only-key` they were seen to hold.
    pub sought: Sought,
}

/// Opens all of them before anything is written.
///
/// # Errors
/// [`Usage`], and what is wrong with one of them.
pub fn open_archives(
    args: &ImportArgs,
    files: &[Location],
    observer: &Arc<Observer>,
    stop: &Stop,
) -> Result<OpenedArchives> {
    let opener = Opener {
        args,
        keys: args.encryption.keys()?,
        sought: Sought::default(),
        observer,
        stop,
    };
    let mut archives: Vec<(String, ArchiveSource<Input>)> = Vec::new();
    let (mut parts, mut tables) = (Vec::new(), Vec::new());
    for (at, file) in files.iter().enumerate() {
        let (name, archive, map) = opener.open(file, at + 1 == files.len())?;
        let is_same =
            |(_, other): &&(_, ArchiveSource<_>)| other.archive_id() == archive.archive_id();
        if let Some((other, _)) = archives.iter().find(is_same) {
            return Err(usage(format!("{other} and {name} are the same archive")));
        }
        parts.push(Part {
            id: format!("{:016x}", archive.archive_id()),
            sha256: map.as_ref().map(|map| hex(&map.table.end.sha256)),
        });
        archives.push((name, archive));
        tables.push(map);
    }
    let is_simple = |map: &Option<Map>| {
        map.as_ref()
            .is_some_and(|map| has_each_key_once(&map.table.end))
    };
    let may_repeat = archives.len() > 1 || !tables.iter().all(is_simple);
    let observer = Arc::clone(observer);
    Ok(OpenedArchives {
        row: ArchiveRow::new(archives, args.allow_incomplete, observer),
        parts,
        tables,
        may_repeat,
        sought: opener.sought,
    })
}

/// Opens one archive after the other.
struct Opener<'a> {
    args: &'a ImportArgs,
    keys: Keys,
    sought: Sought,
    observer: &'a Arc<Observer>,
    stop: &'a Stop,
}

impl Opener<'_> {
    /// The archive with its name, checked as far as was asked for, and what leads to its frames.
    fn open(
        &self,
        file: &Location,
        is_last: bool,
    ) -> Result<(String, ArchiveSource<Input>, Option<Map>)> {
        let limits = limits_of(self.args);
        let mut input = Input::open_at(file, &self.keys, self.stop)?;
        let name = input.name().to_owned();
        let mut first = None;
        if self.args.verify_first {
            let (reading, found) =
                verify_first(&mut input, limits, self.stop).with_context(|| name.clone())?;
            first = Some(reading);
            // The next one may be damaged, and then nothing is imported.
            let then = match is_last {
                true => "; importing",
                false => "",
            };
            self.observer.notice(&format!("{name} is {found}{then}"));
        }
        let mut map = None;
        if input.is_rereadable() {
            let file = input.another();
            let table =
                table_of(&mut input, self.args.allow_incomplete).with_context(|| name.clone())?;
            map = table.map(|table| Map { table, file });
        }
        if let Some(Map { table, .. }) = &map {
            let found = Reading::of(table.archive_id, Some(&table.end));
            if let Some(first) = first {
                first.must_equal(found).with_context(|| name.clone())?;
            }
            first = Some(found);
        }
        let input_bytes = input.len_bytes();
        let mut archive = ArchiveSource::open(
            input,
            limits,
            self.sought.watch(self.args.selection()?),
            self.args.write.functions != FunctionPolicy::Skip,
            input_bytes,
            Arc::clone(self.observer),
        )
        .with_context(|| name.clone())?;
        if let Some(first) = first {
            archive = archive.again(first);
        }
        tell_loss(&name, archive.header(), |text| self.observer.warn(text));
        Ok((name, archive, map))
    }
}

/// Of a value that will be refused for its size no more is read than tells what it is.
fn limits_of(args: &ImportArgs) -> Limits {
    size::limits(args.write.max_value.unwrap_or(u64::MAX))
}

/// What the end of an archive says. One without its end is refused before anything is written,
/// unless that is allowed. Of a pipe the end is seen only at the end.
fn table_of(input: &mut Input, allow_incomplete: bool) -> Result<Option<Table>> {
    let table = if allow_incomplete {
        Table::read(input).map(Some).or(Ok(None))
    } else {
        Table::read_or_explain(input).map(Some)
    };
    input.rewind()?;
    table.map_err(|error: Error| {
        anyhow::Error::new(error).context(
            "nothing was written (--allow-incomplete imports what is intact before that, `salvage` \
         rescues everything that is intact)",
        )
    })
}

/// Every argument that decides what is written.
#[derive(Serialize)]
struct ArgumentsIdentity {
    selection: SelectionIdentity,
    allow_incomplete: bool,
    on_conflict: String,
    ttl: String,
    map_db: Vec<(Option<u32>, u32)>,
    strip_prefix: Option<Vec<u8>>,
    add_prefix: Option<Vec<u8>>,
    functions: String,
    max_value_bytes: Option<u64>,
    allow_loss: Vec<String>,
    method: String,
    sanitize: bool,
    no_check: bool,
}

impl ArgumentsIdentity {
    fn of(args: &ImportArgs) -> Result<Self> {
        // All fields, so that a new one is not forgotten.
        let WriteArgs {
            on_conflict: _,
            replace: _,
            ttl,
            map_db,
            strip_prefix,
            add_prefix,
            functions,
            max_value,
            allow_loss,
            method,
            sanitize,
            no_check,
        } = &args.write;
        let bytes = |text: &OsString| text.as_bytes().to_vec();
        Ok(Self {
            selection: SelectionIdentity::of(&args.selection()?),
            allow_incomplete: args.allow_incomplete,
            on_conflict: word(&args.write.on_conflict()),
            ttl: word(ttl),
            map_db: map_db.clone(),
            strip_prefix: strip_prefix.as_ref().map(bytes),
            add_prefix: add_prefix.as_ref().map(bytes),
            functions: word(functions),
            max_value_bytes: *max_value,
            allow_loss: allow_loss.iter().map(word).collect(),
            method: word(method),
            sanitize: *sanitize,
            no_check: *no_check,
        })
    }
}

/// Which import this is.
///
/// # Errors
/// [`Usage`] for arguments that make no sense.
pub fn begin_of(
    args: &ImportArgs,
    parts: Vec<Part>,
    to: &ConnectOptions,
    now_ms: u64,
) -> Result<Begin> {
    // Names of state files are made of these words.
    let db = match to.db {
        Some(db) => format!("Some({db})"),
        None => "None".to_owned(),
    };
    Ok(Begin {
        version: VERSION,
        parts,
        destination: format!("{} {db}", to.address),
        arguments: digest(&ArgumentsIdentity::of(args)?)?,
        base_now_ms: now_ms,
        hash_keys: random_hash_keys(),
    })
}

/// The state of this import: a new one, or that of the run to go on with, and then the archives
/// go on where it stopped, if what it has settled was seen to stand. Beside it, what was seen.
///
/// # Errors
/// [`Usage`] for what cannot be resumed; the state's, the archives', the destination's.
pub fn state_of(
    args: &ImportArgs,
    (place, begin): (&OsStr, Begin),
    to: &ConnectOptions,
    (may_collide, may_repeat): (bool, bool),
    row: &mut ArchiveRow<Input>,
    tables: &[Option<Map>],
    observer: &Observer,
) -> Result<(State, Option<String>)> {
    if may_collide {
        return Err(usage(
            "--resume does not work with databases or prefixes that may give different keys the \
             same name: it does not remember which of them was written",
        ));
    }
    let place = resume::place(place, &begin)?;
    apart_from_errors(args, &place)?;
    let Some(state) = resume::load(&place, &begin)? else {
        observer.begin_errors_anew()?;
        return Ok((State::create(&place, begin)?, None));
    };
    if state.settled == Mark::default() && state.sending == Mark::default() {
        observer.begin_errors_anew()?;
        return Ok((state, None));
    }
    let standing = match args.verify {
        true => Standing::Doubtful("--verify checks everything that the archive holds".to_owned()),
        false => destination::look(to, &state)
            .context("cannot look whether the destination holds what was imported earlier")?,
    };
    let seen = match standing {
        Standing::Stands(seen) => seen,
        Standing::Doubtful(why) => {
            observer.notice(&format!(
                "an earlier run came to frame {}, but this run starts again from the beginning: \
                 {why}",
                state.settled.frame
            ));
            // Expiries are counted from the same moment.
            let begin = Begin {
                version: VERSION,
                ..state.begin.clone()
            };
            observer.begin_errors_anew()?;
            return Ok((state.begin_anew(begin)?, None));
        }
    };
    observer.go_on_with_errors(state.errors, state.failed)?;
    let Mark { archive, frame } = state.settled;
    // Where a record that is not wanted may replace one that was, the earlier ones have to be known.
    let reads_all = may_repeat && args.selection()?.needs_value();
    if reads_all {
        row.pass_over_to(state.settled);
    } else {
        row.begin_with(archive);
    }
    if frame > 0 && !reads_all {
        let map = tables.get(archive as usize).and_then(Option::as_ref);
        row.go_on_with(frame, limits_of(args), map.map(|map| &map.table))?;
    }
    let which = match tables.len() {
        0 | 1 => String::new(),
        count => format!(" of archive {} of {count}", archive + 1),
    };
    observer.notice(&format!(
        "continuing with frame {frame}{which}: everything before it was imported earlier ({}), and \
         {seen}",
        place.display()
    ));
    Ok((state, Some(seen)))
}

/// Where the user names no file for the state, its place is not known before the archives are.
fn apart_from_errors(args: &ImportArgs, state: &Path) -> Result<(), Usage> {
    let file = |what, name: &Path| Writing::Stored {
        what,
        location: Location::File(name.to_owned()),
        holds: Holds::Other,
    };
    let errors = args.run.errors_to.as_deref();
    let errors = errors.map(|name| file("the --errors-to file", name));
    let state = file("the --resume state", state);
    keep_apart(
        &[],
        &[Some(state), errors]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    )
}

/// The databases that the archives hold, and how many keys: what their ends say. Of a pipe only what
/// its beginning expects is known.
pub fn expected_of(row: &ArchiveRow<Input>, tables: &[Option<Map>]) -> BTreeMap<u32, Option<u64>> {
    let mut expected: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    // Archives that an earlier run has settled are no longer among those of the row.
    let settled = tables.len().saturating_sub(row.archives().count());
    for (archive, map) in row.archives().zip(tables.iter().skip(settled)) {
        match map {
            Some(map) => {
                for db in &map.table.end.per_db {
                    let keys = expected.entry(db.db).or_insert(Some(0));
                    *keys = keys.map(|keys| keys.saturating_add(db.records));
                }
            }
            None => {
                for db in &archive.header().expected {
                    expected.insert(db.db, None);
                }
            }
        }
    }
    expected
}

/// Has several workers read where that was asked for, from `from` on, which lies in the first archive
/// that is left.
pub fn read_ahead(
    args: &ImportArgs,
    row: &mut ArchiveRow<Input>,
    tables: Vec<Option<Map>>,
    from: Mark,
) {
    // What is damaged is best read one after the other.
    if args.jobs == 1 || args.allow_incomplete {
        return;
    }
    let settled = tables.len().saturating_sub(row.archives().count());
    let rest = tables.into_iter().skip(settled);
    for (at, (archive, map)) in row.archives_mut().zip(rest).enumerate() {
        if let Some(Map {
            table,
            file: Some(file),
        }) = map
        {
            let frame = match at {
                0 if !archive.passes_over() => from.frame,
                _ => 0,
            };
            let open = move || Ok(file.clone());
            archive.read_ahead(table, frame, args.jobs.into(), limits_of(args), open);
        }
    }
}

/// Reads the whole archive before the first key is written, then goes back to its start. What was
/// read, and what it was found to be.
fn verify_first(input: &mut Input, limits: Limits, stop: &Stop) -> Result<(Reading, &'static str)> {
    if !input.is_rereadable() {
        return Err(usage(
            "--verify-first reads the archive twice and needs a regular file; save the pipe to a \
             file first, and check that with `redis-migrate verify`",
        ));
    }
    // Everything is checked, and nothing of it is needed yet.
    let mut reader = Reader::new(&mut *input, limits)?.heads_only();
    walk(&mut reader, None, stop, |_, _, _| Ok(()))?;
    let reading = Reading::of(reader.archive_id(), reader.end());
    // What was lost when it was salvaged is told next.
    let found = match loss_of(reader.header()) {
        Some(_) => "intact",
        None => "complete and intact",
    };
    drop(reader);
    input
        .rewind()
        .context("cannot go back to the start of the archive")?;
    Ok((reading, found))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::{Cli, Invocation};
    use crate::encryption::Keys;
    use crate::source::reading::tests::archive;

    /// What `--verify-first` has read is what is imported then, or nothing is.
    #[test]
    fn what_was_verified_is_known_again() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.rmz");
        std::fs::write(&path, archive("one", true)).expect("written");
        let mut input = Input::open_at(&Location::File(path.clone()), Keys::NONE, &Stop::new())
            .expect("opened");
        let (first, _) =
            verify_first(&mut input, Limits::default(), &Stop::new()).expect("verified");
        let found = |input: &mut Input| {
            let table = table_of(input, false).expect("read").expect("a table");
            Reading::of(table.archive_id, Some(&table.end))
        };
        first.must_equal(found(&mut input)).expect("the same");
        std::fs::write(&path, archive("two", true)).expect("written over");
        let error = first.must_equal(found(&mut input)).expect_err("another");
        assert!(error.to_string().contains("the archive changed"), "{error}");
    }

    fn arguments(options: &[&str]) -> String {
        let line = ["redis-migrate", "import", "redis://h", "x.rmz"];
        let Invocation::Import(args) = Cli::parse_from(line.iter().chain(options)).verb else {
            panic!("an import");
        };
        digest(&ArgumentsIdentity::of(&args).expect("sound")).expect("digested")
    }

    #[test]
    fn an_option_that_changes_what_is_written_makes_it_another_import() {
        assert_eq!(
            arguments(&[]),
            arguments(&["--rate-limit", "7", "--jobs", "2", "--max-errors", "1"])
        );
        assert_eq!(
            arguments(&["--replace"]),
            arguments(&["--on-conflict", "replace"])
        );
        let options: [&[&str]; 19] = [
            &[],
            &["--replace"],
            &["--on-conflict", "skip"],
            &["--ttl", "drop"],
            &["--map-db", "0:1"],
            &["--map-db", "*:1"],
            &["--strip-prefix", "a"],
            &["--add-prefix", "a"],
            &["--functions", "skip"],
            &["--max-value", "1KiB"],
            &["--allow-loss", "functions"],
            &["--method", "commands"],
            &["--sanitize"],
            &["--no-check"],
            &["--allow-incomplete"],
            &["--only-key", "a"],
            &["--match", "a*"],
            &["--exclude", "a*"],
            &["--with-ttl"],
        ];
        let all: Vec<String> = options.iter().map(|some| arguments(some)).collect();
        for (at, one) in all.iter().enumerate() {
            let same = all.iter().position(|other| other == one);
            assert_eq!(same, Some(at), "{:?}", options[at]);
        }
        // As it was when this was written: a state that stands must not become foreign by chance.
        assert_eq!(
            arguments(&[]),
            "3b21d881048c6a689afe3510ec7ef0a14f0183b84b7b675a5bf0bd0f77f67926"
        );
    }
}
