//! `diff`: two of archive, RDB file and live server, compared by meaning.

mod args;

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;

pub use self::args::{CompareArgs, DiffArgs};
use super::unread::{Unread, left_out_of_file, temporary_keys};
use super::{Run, tell_loss, watch};
use crate::cli::resolve::process_env;
use crate::cli::{Files, ScreenArgs};
use crate::compare::collect::{Collect, Side};
use crate::compare::explain::{self, Keep, Places};
use crate::compare::join::Totals;
use crate::compare::names::Sample;
use crate::compare::rounds::Comparison;
use crate::compare::scope::Scope;
use crate::compare::unread::UnreadKeys;
use crate::compare::{Judge, Prints, Reading, report};
use crate::describe::{export_failed_json, export_failed_text};
use crate::encryption::Keys;
use crate::escape::{clean_lines, write_json_line};
use crate::exit::{self, Interrupted, usage};
use crate::ledger::SourceReport;
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::own_writes::FingerprintSet;
use crate::pipe::{self, Steps, Stop};
use crate::place::{Endpoint, Kept};
use crate::rewrite::Rewrite;
use crate::select::{NameCondition, PassedOver, Selection};
use crate::sink::Sink;
use crate::source::open::side::{OpenedSide, Wanted, open_side};
use crate::ui;
use crate::units::plural;
use crate::verb::{Data, Verb};

/// Differences that are printed for people before the rest is only counted.
const SHOWN: u64 = 20;

impl Run for DiffArgs {
    const VERB: Verb = Verb {
        name: "diff",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
            .inputs([&self.left, &self.right])
            .stdout()
            .age_read(&self.encryption)
            .server(&self.left_connect.flags())
            .server(&self.right_connect.flags())
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let (left, right) = self.sides(&process_env)?;
        let question = Question {
            verb: Self::VERB,
            left: &left,
            right: &right,
            keys: &self.encryption.keys()?,
            compare: &self.compare,
            selection: self.select.selection(left.db()),
            max_value_bytes: self.limits.max_value_bytes(),
            kept: None,
            json: self.json,
            screen: self.screen,
        };
        Ok(question.ask(stop))
    }
}

/// What is to be compared, and how the answer is printed.
pub struct Question<'a> {
    /// The verb that asks.
    pub verb: Verb,
    pub left: &'a Endpoint,
    pub right: &'a Endpoint,
    /// What opens encrypted archives.
    pub keys: &'a Keys,
    /// What counts.
    pub compare: &'a CompareArgs,
    /// Which keys, as they are called on the left side.
    pub selection: Selection,
    /// Values of more bytes are not looked at.
    pub max_value_bytes: u64,
    /// The left side, where it was opened before: a pipe that was saved, and can be read again.
    pub kept: Option<&'a Kept<'a>>,
    /// JSON Lines instead of text.
    pub json: bool,
    /// What is printed beside the answer.
    pub screen: ScreenArgs,
}

/// How both sides are read, the first time and again.
struct Readers<'a> {
    question: &'a Question<'a>,
    rewrite: Rewrite,
    scope: Option<Scope>,
    prints: Prints,
    /// Databases of the right side that one of the sides cannot be read in.
    without: Vec<u32>,
    observer: Arc<Observer>,
    stop: &'a Stop,
}

/// A side that was opened, and what is told of the keys that it cannot give.
struct Opened {
    side: OpenedSide,
    unread: UnreadKeys,
    passed_over: PassedOver,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Left,
    Right,
}

impl Question<'_> {
    /// Compares, prints, and gives the exit code.
    pub fn ask(&self, stop: &Stop) -> u8 {
        let mut answer = Answer::default();
        let asked = watch(self.verb, self.screen, |observer| {
            self.answer(observer, stop, &mut answer)
        });
        asked.unwrap_or_else(|error| {
            let code = ui::print_error(&error);
            answer.error = Some(format!("{error:#}"));
            ui::session::summary(self.summary(&answer));
            code
        })
    }

    fn answer(&self, observer: &Arc<Observer>, stop: &Stop, answer: &mut Answer) -> Result<u8> {
        for warning in [self.left.warnings(), self.right.warnings()]
            .into_iter()
            .flatten()
        {
            observer.warn(&warning);
        }
        let is_read_once = self.kept.is_none() && self.left.is_stream() || self.right.is_stream();
        if self.compare.explain && is_read_once {
            return Err(usage(
                "--explain reads both sides twice, and standard input can be read only once; save \
                 it to a file first",
            ));
        }
        let rewrite = self.compare.rewrite(self.right)?;
        let mut readers = Readers {
            question: self,
            scope: (!rewrite.is_identity()).then(|| Scope::new(&rewrite, &self.selection)),
            rewrite,
            prints: Prints::default(),
            without: Vec::new(),
            observer: Arc::clone(observer),
            stop,
        };
        let sample = self.compare.sample.map(|size| Arc::new(Sample::new(size)));
        let (left, right) = (
            readers.open(Which::Left, sample_filter(&readers, &sample))?,
            readers.open(Which::Right, sample_filter(&readers, &sample))?,
        );
        readers.without = right.side.not_had.clone();
        for db in &left.side.not_had {
            readers.without.push(readers.rewrite.dbs.map(*db)?);
        }
        answer.what = (left.side.what, right.side.what);
        self.warn_of_losses([&left, &right], observer);
        expect([&left, &right], observer);
        let reading = Reading {
            prints: readers.prints.clone(),
            from_ms: left.side.time_ms.max(right.side.time_ms),
        };
        let (left, right) = readers.read_both(left, right, &reading, &mut answer.unread)?;
        self.warn_of_exports(&answer.unread, observer);
        let mut comparison = Comparison::new(left, right, self.judge(), &readers.prints);
        comparison.sample = sample.as_deref();
        let rounds = match self.left.is_server() || self.right.is_server() {
            true => self.compare.recheck,
            false => 0,
        };
        answer.totals = comparison.settle(rounds, stop, |names| {
            readers.read_again(&names, &reading, &mut answer.unread)
        })?;
        answer.settled = comparison.settled();
        if self.compare.explain && answer.totals.all.different() > 0 {
            answer.places = readers.explain(&comparison)?;
        }
        let all = &answer.totals.all;
        ui::check_matched(all.compared + all.unknown());
        let code = code_of(answer);
        if self.screen.quiet && !self.json {
            self.name_unread(&comparison, answer, observer)?;
        }
        match self.print(&comparison, answer) {
            Err(error) if exit::is_broken_pipe(&error) => Ok(code),
            printed => printed.map(|()| code),
        }
    }

    fn judge(&self) -> Judge {
        Judge {
            ttl_tolerance_ms: self.compare.ttl_tolerance,
            ignore_ttl: self.compare.ignore_ttl,
            ignore_field_ttl: self.compare.ignore_ttl,
            moments_ms: (0, 0),
        }
    }

    /// What an export could not read is not in its archive, and so extra on the other side.
    fn warn_of_exports(&self, unread: &Unread, observer: &Observer) {
        if self.verb != DiffArgs::VERB {
            // Who checked the archive first said so then.
            return;
        }
        for (end, failed) in [self.left, self.right].iter().zip(&unread.by_exports) {
            if let Some(text) = export_failed_text(failed) {
                observer.warn(&format!("{}: {text}", ui::clean(&end.name())));
            }
        }
    }

    /// Nor is what was lost before it was salvaged.
    fn warn_of_losses(&self, opened: [&Opened; 2], observer: &Observer) {
        if self.verb != DiffArgs::VERB {
            return;
        }
        for (end, opened) in [self.left, self.right].iter().zip(opened) {
            if let Some(header) = &opened.side.header {
                tell_loss(&ui::clean(&end.name()), header, |text| observer.warn(text));
            }
        }
    }

    /// Without a result on standard output the keys that could not be read are still errors.
    fn name_unread(
        &self,
        comparison: &Comparison<'_>,
        answer: &Answer,
        observer: &Observer,
    ) -> Result<()> {
        if answer.totals.all.unread == 0 {
            return Ok(());
        }
        comparison.differences(|difference| match difference.either() {
            Some(row) if difference.is_unread() => observer.key_failed(&KeyFailure {
                db: row.db,
                key: report::title(row),
                kind: FailureKind::Unread,
                reason: report::explain(&difference),
                hint: None,
            }),
            _ => Ok(()),
        })?;
        Ok(())
    }

    fn print(&self, comparison: &Comparison<'_>, answer: &Answer) -> Result<()> {
        const WHAT: &str = "cannot write to standard output";
        ui::session::summary(self.summary(answer));
        if self.screen.quiet && !self.json {
            return Ok(());
        }
        let mut out = BufWriter::new(io::stdout().lock());
        if !self.json {
            for (letter, end, what) in [
                ("A", self.left, answer.what.0),
                ("B", self.right, answer.what.1),
            ] {
                writeln!(out, "{letter}: {} ({what})", ui::clean(&end.name())).context(WHAT)?;
            }
        }
        let mut seen = 0;
        if answer.totals.all.different() + answer.totals.all.unknown() > 0 {
            comparison.differences(|difference| {
                seen += 1;
                if self.json {
                    let object = report::object(&difference, &answer.places);
                    write_json_line(&mut out, &object).context(WHAT)?;
                } else if self.compare.all || seen <= SHOWN {
                    let text = report::text(&difference, &answer.places);
                    writeln!(out, "{}", clean_lines(&text)).context(WHAT)?;
                }
                Ok(())
            })?;
        }
        if !self.json {
            if !self.compare.all && seen > SHOWN {
                let what = match answer.totals.all.unknown() {
                    0 => "more difference",
                    _ => "more key",
                };
                let rest = plural(seen - SHOWN, what);
                writeln!(out, "… and {rest}; --all prints them, and so does --json")
                    .context(WHAT)?;
            }
            writeln!(out, "{}", self.verdict(answer)).context(WHAT)?;
        }
        out.flush().context(WHAT)
    }

    fn verdict(&self, answer: &Answer) -> String {
        let all = &answer.totals.all;
        let word = match all.different() {
            0 if all.compared == 0 && (all.unknown() > 0 || answer.unread.is_any()) => {
                "nothing could be compared"
            }
            0 if all.unknown() > 0 => "not all could be compared",
            0 if all.compared == 0 => "nothing to compare on either side",
            0 if answer.unread.is_any() => "no difference found, but not everything was compared",
            0 => "equal",
            _ => "different",
        };
        let mut text = format!("{word}: {}", report::counts_text(all));
        if answer.settled > 0 {
            text += &format!(
                "; {} equal only when read again",
                plural(answer.settled, "key")
            );
        }
        if self.compare.sample.is_some() {
            text += "; of a sample only";
        }
        for line in answer.unread.lines.iter().chain(&answer.unread.left_out) {
            text += &format!("\nnot compared: {}", ui::clean(line));
        }
        text
    }

    fn summary(&self, answer: &Answer) -> serde_json::Value {
        let totals = &answer.totals;
        let by_db = report::by_db_json(&totals.by_db);
        let mut object = report::counts_object(&totals.all);
        let side = |end: &Endpoint, what: &str, failed: &[(u32, u64)]| {
            let failed = export_failed_json(failed);
            json!({ "name": end.name(), "what": what, "export_failed": failed })
        };
        let [left_failed, right_failed] = &answer.unread.by_exports;
        for (name, value) in [
            ("error", json!(answer.error)),
            ("left_side", side(self.left, answer.what.0, left_failed)),
            ("right_side", side(self.right, answer.what.1, right_failed)),
            ("by_db", json!(by_db)),
            ("libraries", report::counts_object(&totals.libraries)),
            ("settled", json!(answer.settled)),
            ("not_had", json!(answer.unread.lines)),
            ("left_out", json!(answer.unread.left_out)),
            ("is_sample", json!(self.compare.sample.is_some())),
        ] {
            object[name] = value;
        }
        object
    }
}

/// What was found.
#[derive(Default)]
struct Answer {
    totals: Totals,
    /// Keys that were found equal only when they were read again.
    settled: u64,
    /// What a server refused to give.
    unread: Unread,
    /// Where values differ, as far as it was asked for.
    places: Places,
    /// What the sides are.
    what: (&'static str, &'static str),
    error: Option<String>,
}

/// A condition on names as they are called on the right side.
type Condition = Arc<NameCondition>;

fn sample_filter(readers: &Readers<'_>, sample: &Option<Arc<Sample>>) -> Option<Condition> {
    let sample = Arc::clone(sample.as_ref()?);
    let prints = readers.prints.clone();
    Some(Arc::new(move |name| sample.admits(prints.name(name))))
}

impl Readers<'_> {
    fn end(&self, which: Which) -> &Endpoint {
        match which {
            Which::Left => self.question.left,
            Which::Right => self.question.right,
        }
    }

    /// What to ask the source for: by names only, because another value of the same key is to be
    /// compared whatever its type and size.
    fn selection(&self, which: Which, condition: Option<Condition>) -> Selection {
        let asked = self.question.selection.by_name();
        match (which, &self.scope, condition) {
            (_, None, None) | (Which::Left, Some(_), None) => asked,
            (_, None, Some(condition)) => asked.and_names(move |name| condition(name)),
            (Which::Left, Some(_), Some(condition)) => {
                let rewrite = self.rewrite.clone();
                asked.and_names(move |name| condition(&rewrite.renamed(name)))
            }
            (Which::Right, Some(scope), condition) => {
                let within = scope.clone();
                let selection = Selection {
                    dbs: scope.dbs(),
                    ..Selection::default()
                };
                selection.and_names(move |name| {
                    within.contains_name(name)
                        && condition.as_ref().is_none_or(|condition| condition(name))
                })
            }
        }
    }

    fn open(&self, which: Which, condition: Option<Condition>) -> Result<Opened> {
        // What A is called later is never such a name.
        let is_counted = which == Which::Left || self.rewrite.add_prefix.is_empty();
        let passed_over = match is_counted {
            true => PassedOver::counting(),
            false => PassedOver::default(),
        };
        let wanted = Wanted {
            selection: Selection {
                passed_over: passed_over.clone(),
                ..self.selection(which, condition)
            },
            other_urls_db: self.other_urls_db(which),
            functions: !self.question.compare.no_functions,
            keys: self.question.keys,
            max_value_bytes: self.question.max_value_bytes,
            allow_stale: self.question.compare.allow_stale,
            kept: self.question.kept.filter(|_| which == Which::Left),
        };
        let unread = UnreadKeys::new(&self.prints, &self.rewrite_of(which));
        let observer = unread.listening(&self.observer);
        let side = open_side(self.end(which), wanted, &observer, self.stop)?;
        Ok(Opened {
            side,
            unread,
            passed_over,
        })
    }

    /// The database that the left side's URL limits the right side to, as the right side calls it.
    fn other_urls_db(&self, which: Which) -> Option<u32> {
        let db = self.question.left.db().filter(|_| which == Which::Right)?;
        // With `--db` the URL is not what limits it.
        let is_the_urls = self.question.selection.dbs == [db];
        is_the_urls.then(|| self.rewrite.dbs.map(db).ok()).flatten()
    }

    /// Reads a side to its end, and says what could not be read.
    fn read(&self, which: Which, opened: Opened, reading: &Reading) -> Result<(Side, Unread)> {
        let selection = self.question.selection.clone();
        let scope = self.scope.clone().filter(|_| which == Which::Right);
        let Opened {
            side,
            unread,
            passed_over,
        } = opened;
        let (collect, collected) = Collect::new(reading.clone(), selection, scope, side.time_ms);
        let collect = collect
            .within(self.question.max_value_bytes)
            .without(&self.without)
            .with_unread(&unread);
        let not_had = side.not_had.clone();
        let report = self.run(which, side, Box::new(collect))?;
        let side = collected.lock().unwrap_or_else(|e| e.into_inner()).take();
        let mut side = side.ok_or_else(|| anyhow!("nothing was collected; this is a bug"))?;
        // Those that neither side is looked at in are known.
        let dbs = self.rewrite_of(which).dbs;
        let lost = not_had.iter().chain(&report.lacks.lost_dbs);
        let lost = lost.map(|&db| dbs.map(db).unwrap_or(db));
        side.lost_dbs = lost.filter(|db| !self.without.contains(db)).collect();
        let name = self.end(which).name();
        side.learn_of_libraries(reading, &report)?;
        let mut unread = Unread::of(&name, &report);
        let at = usize::from(which == Which::Right);
        let passed_over = temporary_keys(passed_over.count(), &name);
        unread.left_out.extend(passed_over);
        unread.by_exports[at] = report.export.keys.clone();
        if let (Endpoint::Stored(_), Some(db)) = (self.end(which), self.other_urls_db(which)) {
            let line = left_out_of_file(db, &report);
            unread
                .left_out
                .extend(line.map(|line| format!("{line} ({name})")));
        }
        Ok((side, unread))
    }

    fn rewrite_of(&self, which: Which) -> Rewrite {
        match which {
            Which::Left => self.rewrite.clone(),
            Which::Right => Rewrite::default(),
        }
    }

    fn run(&self, which: Which, opened: OpenedSide, sink: Box<dyn Sink>) -> Result<SourceReport> {
        let steps = Steps {
            keep_origins: self.rewrite_of(which).may_collide(),
            rewrite: self.rewrite_of(which),
            ..Steps::default()
        };
        let outcome = pipe::run(opened.source, &steps, sink, &self.observer, self.stop);
        match outcome.error {
            None => Ok(outcome.source),
            Some(error) => {
                // The other side need not be read on; its own error is then that it was stopped.
                self.stop.set();
                let name = self.end(which).name();
                Err(error.context(format!("reading {name}")))
            }
        }
    }

    /// Reads the values of the first keys that differ again, to say where.
    fn explain(&self, comparison: &Comparison<'_>) -> Result<Places> {
        let (mut keys, mut names) = (FingerprintSet::default(), FingerprintSet::default());
        comparison.differences(|difference| {
            if let (Some(row), Some(_)) = (&difference.left, &difference.right)
                && keys.len() < explain::MAX_KEYS
                && difference.aspects.iter().any(|aspect| aspect.is_of_value())
            {
                keys.insert(row.print);
                names.insert(self.prints.name(&row.key));
            }
            Ok(())
        })?;
        let (keys, names) = (Arc::new(keys), Arc::new(names));
        let values = |which: Which| -> Result<explain::Values> {
            let opened = self.open(which, Some(self.named(&names)))?;
            let (keep, kept) = Keep::new(self.prints.clone(), Arc::clone(&keys));
            self.run(which, opened.side, Box::new(keep))?;
            let mut kept = kept.lock().unwrap_or_else(|error| error.into_inner());
            Ok(std::mem::take(&mut kept))
        };
        Ok(explain::places(
            &values(Which::Left)?,
            &values(Which::Right)?,
        ))
    }

    /// The condition that a name is one of these.
    fn named(&self, names: &Arc<FingerprintSet>) -> Condition {
        let (names, prints) = (Arc::clone(names), self.prints.clone());
        Arc::new(move |name| names.contains(&prints.name(name)))
    }

    /// Both at the same time: so they are as close to each other as can be.
    fn read_both(
        &self,
        left: Opened,
        right: Opened,
        reading: &Reading,
        unread: &mut Unread,
    ) -> Result<(Side, Side)> {
        let (left, right) = std::thread::scope(|scope| {
            let reader = std::thread::Builder::new()
                .spawn_scoped(scope, || self.read(Which::Left, left, reading));
            let reader = match reader {
                Ok(reader) => reader,
                Err(error) => return (Err(pipe::no_thread(error)), Err(Interrupted.into())),
            };
            let right = self.read(Which::Right, right, reading);
            let left = reader
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the reading thread panicked; this is a bug")));
            (left, right)
        });
        match (left, right) {
            (Ok((left, left_unread)), Ok((right, right_unread))) => {
                for of_side in [left_unread, right_unread] {
                    unread.learn(of_side.lines);
                    unread.left_out.extend(of_side.left_out);
                    for (known, more) in unread.by_exports.iter_mut().zip(of_side.by_exports) {
                        known.extend(more);
                    }
                }
                Ok((left, right))
            }
            (Err(left), Err(right)) if left.chain().any(|cause| cause.is::<Interrupted>()) => {
                Err(right)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// Reads the live sides again, the keys of these names only.
    fn read_again(
        &self,
        names: &Arc<FingerprintSet>,
        reading: &Reading,
        unread: &mut Unread,
    ) -> Result<(Option<Side>, Option<Side>)> {
        let one = |which: Which| -> Result<Option<(Side, Unread)>> {
            if !self.end(which).is_server() {
                return Ok(None);
            }
            let opened = self.open(which, Some(self.named(names)))?;
            self.read(which, opened, reading).map(Some)
        };
        let (left, right) = (one(Which::Left)?, one(Which::Right)?);
        let mut keep = |read: Option<(Side, Unread)>| {
            let (side, of_side) = read?;
            unread.learn(of_side.lines);
            Some(side)
        };
        Ok((keep(left), keep(right)))
    }
}

/// How many records are going to be read, as far as both sides tell.
fn expect(sides: [&Opened; 2], observer: &Observer) {
    let expected = sides.map(|opened| opened.side.source.estimate());
    let sum = expected
        .iter()
        .filter_map(|estimate| estimate.records)
        .fold(0, u64::saturating_add);
    observer.progress.expected_records.store(sum, Relaxed);
}

fn code_of(answer: &Answer) -> u8 {
    let all = &answer.totals.all;
    match (all.different(), all.unknown()) {
        (0, 0) if answer.unread.lines.is_empty() => exit::OK,
        (0, _) => exit::SOME_KEYS,
        _ => exit::DIFFERENCES,
    }
}
