//! One run of the tool, in process: its arguments are parsed, its verb is called, and what it says
//! is held against what was.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use redis_migrate::cli::parse;
use redis_migrate::commands::{Cli, Invocation, copy, export, import};
use redis_migrate::host;
use redis_migrate::observer::{Event, Observer, Reporter as Listener};
use redis_migrate::pipe::{Outcome, Stop};

use super::{Report, is_calm, setup};
use crate::judge::truth::{Truth, lives};
use crate::judge::wish::{Verb, Wish};
use crate::judge::{Ended, Named, Ran, Told, archive, clock, judge};
use crate::net::{By, Endless, Killed, Place, State, World};
use crate::script::{Phase, Script, Side};
use crate::server::Release;

/// Stands for the directory in command lines.
const DIRECTORY: &str = "{dir}";

/// What a run says of the keys that failed before it went on; their number comes first.
const FAILED_BEFORE: &str = "failed in the earlier run: their names are in its output";

/// What an earlier run left to go on with.
pub(super) struct Before {
    wish: Wish,
    argv: Vec<String>,
    began: u64,
    ended: u64,
    is_whole: bool,
    /// The destination lost something of it that nobody could see.
    has_unseen_loss: bool,
    /// A part of what it read may have expiries by the tool's own clock.
    by_own_clock: bool,
    /// Keys that it named as failed.
    named: BTreeMap<Place, Named>,
}

pub(super) fn run(
    world: &Rc<World>,
    script: &Script,
    phase: &Phase,
    directory: &Path,
    before: Option<Before>,
    report: &mut Report,
) -> Before {
    let wish = Wish::of(&phase.argv);
    let began = world.state(|state| state.now);
    let gone_on_with = before
        .as_ref()
        .filter(|before| before.is_gone_on_with(&wish));
    let chain = gone_on_with.map_or(began, |before| before.began);
    let listener = Heard::default();
    let ended = call(world, phase, directory, &listener);
    let now = world.state(|state| state.now);
    world.end_run();
    let mut said = listener.take();
    if let Some(before) = gone_on_with {
        match said.lines.is_empty() && matches!(ended, Ended::Killed) {
            // It had not come to say without which keys it goes on; the next run says it.
            true => said.named.clone_from(&before.named),
            false => said.take_over(&before.named),
        }
    }
    let mut archives = Archives::of(&wish, directory, setup::release_of(script, Side::Source));
    let former = archives.read.as_mut();
    let former = former.map(|content| std::mem::take(&mut content.former));
    let former = former.unwrap_or_default();
    let (source, mut target) =
        world.state(|state| truths(state, &wish, archives.read, (chain, now)));
    let goes_on = chain != began && before.as_ref().is_some_and(|before| before.by_own_clock);
    let by_own_clock = goes_on || said.warns_of_own_clock();
    if by_own_clock || setup::tells_what_remains(script) {
        let off = clock::Off::of(&source, by_own_clock);
        let written = archives.written.as_mut();
        clock::set_right(&source, (&wish, &former), written, &mut target, off);
    }
    let is_again = before.as_ref();
    let is_again = is_again.is_some_and(|before| before.is_asked_again(world, phase, now));
    let ran = Ran {
        wish: &wish,
        ended: &ended,
        lines: &said.lines,
        named: &said.named,
        source,
        former,
        target,
        archive: archives.written,
        is_disturbed: is_disturbed(script),
        is_again,
        is_calm: is_calm(script, report.codes.len()),
    };
    archives.wrong.extend(judge(&ran));
    let has_unseen_loss = !ran.target.lost_at_last(|is_unseen| is_unseen).is_empty();
    let code = tell(report, phase, &ended, said.lines, archives.wrong);
    world.rest(Duration::from_secs(1));
    Before {
        wish,
        argv: phase.argv.clone(),
        began: chain,
        ended: now,
        is_whole: code == 0,
        has_unseen_loss,
        by_own_clock,
        named: said.named,
    }
}

impl Before {
    /// Whether a run goes on with it: what one that was killed or failed did belongs to the next.
    fn is_gone_on_with(&self, wish: &Wish) -> bool {
        let goes_on = wish.resumes || wish.verb == Verb::Import;
        goes_on && self.wish == *wish && !self.is_whole
    }

    /// Whether the same is asked for again after it was done, and nothing has changed since.
    fn is_asked_again(&self, world: &World, phase: &Phase, now: u64) -> bool {
        self.is_whole
            && !self.has_unseen_loss
            && self.argv == phase.argv
            && world.state(|state| nothing_changed(state, self, &self.wish, now))
    }
}

/// The archive of a run: what it wrote, or what it read.
#[derive(Default)]
struct Archives {
    written: Option<archive::Content>,
    read: Option<archive::Content>,
    /// What is wrong with it.
    wrong: Vec<String>,
}

impl Archives {
    fn of(wish: &Wish, directory: &Path, release: &'static Release) -> Self {
        let mut archives = Self::default();
        let Some(name) = &wish.archive else {
            return archives;
        };
        let place = PathBuf::from(name.replace(DIRECTORY, &directory.to_string_lossy()));
        match wish.verb {
            Verb::Export if place.exists() => match archive::read(&place, release) {
                Ok(content) => archives.written = Some(content),
                Err(error) => {
                    let text = format!("an archive that cannot be read: {error}");
                    archives.wrong.push(text);
                }
            },
            Verb::Import => archives.read = archive::read(&place, release).ok(),
            Verb::Export | Verb::Copy => {}
        }
        archives
    }
}

/// What source and destination held in that time; for `import` the source is the archive.
fn truths(
    state: &State,
    wish: &Wish,
    read: Option<archive::Content>,
    (from, to): (u64, u64),
) -> (Truth, Truth) {
    let source = match wish.verb {
        Verb::Import => Truth::still(read.map(|content| content.keys).unwrap_or_default(), to),
        Verb::Export | Verb::Copy => Truth::of(state, Side::Source, from, to),
    };
    (source, Truth::of(state, Side::Destination, from, to))
}

/// Reports what a run said, and what is wrong with it; its exit code.
fn tell(
    report: &mut Report,
    phase: &Phase,
    ended: &Ended,
    lines: Vec<String>,
    wrong: Vec<String>,
) -> u8 {
    let code = match ended {
        Ended::Told(told) => told.code,
        _ => u8::MAX,
    };
    report.codes.push(code);
    report.lines.extend(lines);
    if let Ended::Told(told) = ended {
        let problems = told.problems.iter().map(|text| format!("problem: {text}"));
        report.lines.extend(problems);
        let error = told.error.iter().map(|text| format!("error: {text}"));
        report.lines.extend(error);
    }
    let (which, name) = (report.codes.len(), phase.argv.join(" "));
    let wrong = wrong.into_iter();
    let wrong = wrong.map(|text| format!("run {which} ({name}): {text}"));
    report.wrong.extend(wrong);
    code
}

/// Whether neither side changed by itself since an earlier run began; what it wrote does not count.
fn nothing_changed(state: &State, before: &Before, wish: &Wish, now: u64) -> bool {
    let source = state.history(Side::Source).between(before.began, now);
    let target = Truth::of(state, Side::Destination, before.began, now);
    let others = target
        .changes
        .iter()
        .filter(|change| change.at > before.ended);
    let mut others = others.filter(|change| change.by != By::Tool);
    let written = target
        .changes
        .iter()
        .filter_map(|change| change.after.as_ref());
    let mut held = target.start.values().chain(written);
    (wish.verb == Verb::Import || source.is_empty())
        && others.next().is_none()
        && !target.had_leftovers()
        && held.all(|held| lives(held, target.end_ms))
}

/// The destination loses keys by itself: what it holds says little then.
fn is_disturbed(script: &Script) -> bool {
    let mut nodes = script.nodes.iter();
    nodes.any(|node| node.side == Side::Destination && node.evicts)
}

/// Calls the verb, and catches whatever ends it.
fn call(world: &Rc<World>, phase: &Phase, directory: &Path, listener: &Heard) -> Ended {
    quiet_panics();
    let argv = phase
        .argv
        .iter()
        .map(|word| word.replace(DIRECTORY, &directory.to_string_lossy()));
    let cli = match parsed(argv.collect()) {
        Ok(cli) => cli,
        Err(text) => return Ended::Panicked(text),
    };
    let stop = Stop::new();
    let files: Rc<RefCell<Option<Files>>> = Rc::default();
    let kept = Rc::clone(&files);
    let place = directory.to_owned();
    let before_kill = move || *kept.borrow_mut() = Some(Files::of(&place));
    world.begin(phase, stop.clone(), Box::new(before_kill));
    let observer = Arc::new(Observer::new(Box::new(listener.clone()), None, None));
    let entered = host::enter(Rc::clone(world) as Rc<dyn host::Host>);
    let result = catch_unwind(AssertUnwindSafe(|| {
        match &cli.verb {
            Invocation::Export(args) => export::export(args, &observer, &stop),
            Invocation::Import(args) => import::import(args, &observer, &stop),
            Invocation::Copy(args) => copy::copy(args, &observer, &stop),
            _ => Err(anyhow::anyhow!("a verb that the world does not know")),
        }
        .unwrap_or_else(Outcome::failed)
    }));
    drop(entered);
    match result {
        Ok(outcome) => Ended::Told(told(&outcome)),
        Err(payload) if payload.is::<Killed>() => {
            if let Some(files) = files.borrow_mut().take() {
                files.put_back(directory);
            }
            Ended::Killed
        }
        Err(payload) => match payload.downcast::<Endless>() {
            Ok(endless) => Ended::Endless(endless.0),
            Err(_) => Ended::Panicked(last_panic()),
        },
    }
}

fn told(outcome: &Outcome) -> Told {
    Told {
        code: outcome.exit_code(),
        error: outcome.error.as_ref().map(|error| format!("{error:#}")),
        reached: outcome.source.exactness.reached.clone(),
        counts: (outcome.source.total().written, outcome.sink.records.taken),
        source_deleted: outcome.sink.deletions.deleted,
        source_unknown: outcome.sink.deletions.unknown,
        memory_lost: outcome.sink.doubts.memory_lost,
        problems: outcome.sink.problems.clone(),
    }
}

thread_local! {
    /// Parsing a command line takes longer than many a run.
    static PARSED: RefCell<HashMap<Vec<String>, Rc<Cli>>> = RefCell::default();
    static PANICKED: RefCell<String> = RefCell::default();
}

fn parsed(argv: Vec<String>) -> Result<Rc<Cli>, String> {
    if let Some(cli) = PARSED.with(|parsed| parsed.borrow().get(&argv).cloned()) {
        return Ok(cli);
    }
    let mut words = vec!["redis-migrate".into()];
    words.extend(argv.iter().map(Into::into));
    let cli = parse::parse(&words).map_err(|error| format!("{error:?}"))?;
    let cli = Rc::new(cli);
    PARSED.with(|parsed| parsed.borrow_mut().insert(argv, Rc::clone(&cli)));
    Ok(cli)
}

/// From now on panics print nothing; the runs tell what is to be told.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().is::<Killed>() || info.payload().is::<Endless>() {
                return;
            }
            if host::simulated().is_none() {
                before(info);
                return;
            }
            PANICKED.with(|panicked| *panicked.borrow_mut() = info.to_string());
        }));
    });
}

fn last_panic() -> String {
    PANICKED.with(|panicked| std::mem::take(&mut *panicked.borrow_mut()))
}

/// What the files of a directory held at a moment.
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    fn of(directory: &Path) -> Self {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let file = |path: PathBuf| std::fs::read(&path).ok().map(|bytes| (path, bytes));
        Self(entries.filter_map(|entry| file(entry.path())).collect())
    }

    /// What was written after that moment is undone.
    fn put_back(self, directory: &Path) {
        super::empty(directory);
        for (path, bytes) in self.0 {
            let _ = std::fs::write(path, bytes);
        }
    }
}

/// Remembers what the tool prints.
#[derive(Debug, Default, Clone)]
struct Heard(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    named: BTreeMap<Place, Named>,
}

impl Said {
    fn warns_of_own_clock(&self) -> bool {
        let mut lines = self.lines.iter();
        lines.any(|line| line.starts_with(clock::WARNING))
    }

    /// Takes over the keys that the run before named, as many as this one says that it goes on without.
    /// What was named later than what the run had put on the disk is asked for again.
    fn take_over(&mut self, before: &BTreeMap<Place, Named>) {
        let number = |line: &String| {
            let (count, rest) = line.strip_prefix("notice: ")?.split_once(' ')?;
            let is_meant = rest.contains(FAILED_BEFORE);
            is_meant.then(|| count.replace(',', "").parse().ok())?
        };
        let known: usize = self.lines.iter().find_map(number).unwrap_or(0);
        for named in self.named.values_mut() {
            named.nth += known;
        }
        let first = before.iter().filter(|(_, named)| named.nth < known);
        let first: Vec<_> = first
            .map(|(place, named)| (place.clone(), *named))
            .collect();
        for (place, named) in first {
            self.named.entry(place).or_insert(named);
        }
    }
}

impl Heard {
    fn take(&self) -> Said {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(|error| error.into_inner()))
    }
}

impl Listener for Heard {
    fn event(&self, event: &Event<'_>) {
        let mut heard = self.0.lock().unwrap_or_else(|error| error.into_inner());
        match event {
            Event::Notice(text) => heard.lines.push(format!("notice: {text}")),
            Event::Warning(text) => heard.lines.push(format!("warning: {text}")),
            Event::KeyFailed(failure) => {
                let (db, key) = (failure.db, failure.key.clone());
                heard.lines.push(format!(
                    "{}: {db}/{}: {}",
                    failure.kind.name(),
                    key.escape_ascii(),
                    failure.reason
                ));
                let named = Named {
                    kind: failure.kind.name(),
                    at_ms: host::unix_ms(),
                    nth: heard.named.len(),
                };
                heard.named.insert((db, key), named);
            }
        }
    }
}
