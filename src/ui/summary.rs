//! The end of a run: the reconciled ledger, as the last line or the last object.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::UiOptions;
use super::console::error_text;
use crate::describe::tally::{DATABASES_TOLD, ToldDb};
use crate::describe::{
    consistency_json, consistency_text, except, export_failed_json, ledger_text,
};
use crate::exit;
use crate::ledger::{Deletions, SinkReport, SourceCounts, Verified, sum};
use crate::outside::{self, Outside};
use crate::pipe::Outcome;
use crate::units::{bytes_text, count_text, duration_text, libraries_text, per_second, plural};
use crate::verb::Flow;

/// What can become of a record: its name, how many, and whether it is named even when none are.
type LedgerEntry = (&'static str, u64, bool);

fn entries(flow: Option<Flow>, outcome: &Outcome) -> Vec<LedgerEntry> {
    let (source, records) = (outcome.source.total(), &outcome.sink.records);
    // What is too large is named apart.
    let refused = records
        .refused
        .saturating_sub(outcome.sink.values.above_max_value);
    let failed = source.failed.saturating_sub(outcome.source.above_max_value);
    let export = matches!(flow, Some(Flow::Export | Flow::Convert));
    let import = flow == Some(Flow::Import);
    let writes = import || flow == Some(Flow::Copy);
    vec![
        ("written", records.archived, export),
        ("checked", records.checked, flow.is_none()),
        ("restored", records.restored, writes),
        ("updated", records.replaced_own, false),
        ("unchanged", records.unchanged, false),
        ("skipped", records.skipped, false),
        ("expired", records.expired, writes),
        ("deleted", records.deleted, false),
        ("already absent", records.already_gone, false),
        ("conflicts", records.conflicts, writes),
        ("refused", refused, writes),
        ("superseded", source.superseded, false),
        ("filtered", source.filtered, export),
        ("vanished", source.vanished, !import),
        ("above --max-value", above_max_value(outcome), false),
        ("failed", failed, !import),
    ]
}

/// Values that `--max-value` left out, whoever saw how large they are.
fn above_max_value(outcome: &Outcome) -> u64 {
    outcome.source.above_max_value + outcome.sink.values.above_max_value
}

/// What was read and what became of it. What was under way when a run ended early is named as well,
/// so that the line always adds up.
fn equation(flow: Option<Flow>, outcome: &Outcome) -> String {
    let source = outcome.source.total();
    let read = match flow {
        Some(Flow::Export | Flow::Copy) => "scanned",
        _ => "read",
    };
    let mut entries = entries(flow, outcome);
    let unacknowledged = outcome.sink.unacknowledged;
    let went: u64 = entries.iter().map(|(_, count, _)| count).sum();
    let came = source.scanned + source.reread;
    let open = came.saturating_sub(went + unacknowledged);
    entries.push(("sent without an answer", unacknowledged, false));
    entries.push(("not reached", open, false));
    ledger_text(read, &source, entries)
}

fn verdict(options: &UiOptions, outcome: &Outcome, code: u8) -> String {
    let dry = if options.dry_run { " (dry run)" } else { "" };
    let run = options.verb.name.to_owned() + dry;
    match code {
        exit::OK => format!("{run} complete"),
        exit::INTERRUPTED => format!("{run} interrupted"),
        exit::SOME_KEYS if outcome.error.is_some() => format!("{run} stopped"),
        exit::SOME_KEYS => format!("{run} finished with problems"),
        exit::DIFFERENCES => format!("{run} finished, but the destination differs"),
        exit::CONSISTENCY => format!("{run} finished, but not as consistent as asked for"),
        _ => format!("{run} failed"),
    }
}

fn achieved(options: &UiOptions, outcome: &Outcome) -> String {
    let sink = &outcome.sink;
    let early = if outcome.error.is_some() {
        " before that"
    } else {
        ""
    };
    let Some(flow) = options.verb.flow else {
        return format!("{} checked{early}", plural(sink.records.checked, "record"));
    };
    match flow {
        Flow::Convert if outcome.error.is_some() && !options.dry_run => {
            "no complete file was written".to_owned()
        }
        Flow::Export if outcome.error.is_some() && !options.dry_run => {
            "no complete archive was written".to_owned()
        }
        Flow::Export | Flow::Convert if options.dry_run => {
            keys_text(sink, "would be written", "in")
        }
        Flow::Export | Flow::Convert => keys_text(sink, "written", "in"),
        Flow::Import | Flow::Copy if options.dry_run => {
            keys_text(sink, "would be restored", "from")
        }
        Flow::Import | Flow::Copy => format!("{}{early}", keys_text(sink, "restored", "from")),
    }
}

/// Distinct keys, and beside them how many records they came in, where that is another number.
/// Where keys were not told apart, only records are claimed.
fn keys_text(sink: &SinkReport, done: &str, by: &str) -> String {
    let records = plural(sink.records.written(), "record");
    match sink.keys {
        None => format!("{records} {done}"),
        Some(keys) if keys == sink.records.written() => format!("{} {done}", plural(keys, "key")),
        Some(keys) => format!("{} {done} {by} {records}", plural(keys, "key")),
    }
}

/// The last line.
pub(super) fn final_line(
    options: &UiOptions,
    outcome: &Outcome,
    code: u8,
    elapsed: Duration,
) -> String {
    let sink = &outcome.sink;
    let mut parts = vec![format!(
        "{}: {} ({})",
        verdict(options, outcome, code),
        achieved(options, outcome),
        equation(options.verb.flow, outcome)
    )];
    if let Some(earlier) = &sink.earlier {
        let done = earlier.records.saturating_sub(earlier.failed);
        let (done, seen) = (plural(done, "record"), &earlier.seen);
        parts.push(format!("{done} done by an earlier run: {seen}"));
    }
    parts.extend(functions_text(options.verb.flow, sink));
    let changes = sink.changes.told().into_iter();
    parts.extend(changes.map(|(name, count)| format!("{name} {}", count_text(count))));
    parts.extend(damages(sink));
    parts.extend(sink.verified.iter().flat_map(verified_text));
    parts.extend(match options.verb.flow {
        Some(Flow::Copy) => copy_exactness(outcome),
        Some(Flow::Export) => exactness(outcome),
        _ => Vec::new(),
    });
    parts.extend(left_out(outcome));
    let mut time = duration_text(elapsed);
    // Of less than a second, a rate says nothing.
    if elapsed >= Duration::from_secs(1) {
        let rate = per_second(outcome.source.total().scanned, elapsed);
        time += &format!(" ({}/s)", count_text(rate));
    }
    parts.push(time);
    if let Some(archive) = sink.archive.as_ref().filter(|_| outcome.error.is_none()) {
        parts.extend(archive.encrypted.then(|| "encrypted".to_owned()));
        parts.push(bytes_text(archive.bytes));
        parts.push(format!("sha256 {}", archive.sha256));
    }
    parts.join(", ")
}

/// What was damaged, deleted or evicted.
fn damages(sink: &SinkReport) -> Vec<String> {
    let (damaged, evicted) = (sink.values.damaged, sink.doubts.evicted);
    let damaged =
        (damaged > 0).then(|| format!("{} damaged and archived as is", count_text(damaged)));
    let evicted =
        (evicted > 0).then(|| format!("{} evicted at the destination", plural(evicted, "key")));
    let parts = [damaged, deletions_text(&sink.deletions), evicted];
    parts.into_iter().flatten().collect()
}

fn deletions_text(deletions: &Deletions) -> Option<String> {
    let because = match deletions.kept_for_another {
        0 => String::new(),
        keys => format!(
            " ({} because the destination has another value or expiry)",
            count_text(keys)
        ),
    };
    let unknown = match deletions.unknown {
        0 => String::new(),
        keys => format!(", not known {}", count_text(keys)),
    };
    (deletions.total() > 0).then(|| {
        format!(
            "source keys deleted {}{unknown}, kept {}{because}",
            count_text(deletions.deleted),
            count_text(deletions.kept)
        )
    })
}

/// What the run did without.
fn left_out(outcome: &Outcome) -> Vec<String> {
    let (source, is_whole) = (&outcome.source, outcome.error.is_none());
    let mut parts = Vec::new();
    if source.libraries.none.is_some() && is_whole {
        parts.push("without function libraries, which could not be read".to_owned());
    }
    parts.extend(source.lacks.by_choice.clone());
    let outside = outside::counted(&source.outside);
    if !outside.is_empty() && is_whole {
        parts.push(format!("without {outside} (outside keys)"));
    }
    parts
}

fn verified_text(verified: &Verified) -> Vec<String> {
    if verified.asked() == 0 {
        return vec!["nothing to verify".to_owned()];
    }
    let mut parts = vec![format!(
        "verified: {} of {} as written",
        count_text(verified.equal),
        count_text(verified.asked())
    )];
    let others = [
        (
            verified.partly,
            "of these except for what only one of the servers stores",
        ),
        (verified.expired, "expired since"),
        (verified.incomparable, "cannot be compared"),
        (verified.unread, "could not be read"),
    ];
    let others = others.iter().filter(|(count, _)| *count > 0);
    parts.extend(others.map(|(count, what)| format!("{} {what}", count_text(*count))));
    parts
}

fn functions_text(flow: Option<Flow>, sink: &SinkReport) -> Option<String> {
    let functions = sink.functions;
    let fate = match (functions.restored, functions.skipped, functions.refused) {
        (_, _, refused) if refused > 0 => "refused",
        (restored, _, _) if restored > 0 => "restored",
        (_, skipped, _) if skipped > 0 => "skipped",
        _ => "not reached",
    };
    (functions.taken > 0).then(|| match flow {
        Some(Flow::Export) => "with functions".to_owned(),
        _ => format!("functions {fate}"),
    })
}

/// How exact a copy is. What the destination lost, or kept of its own, is not as it is at the source,
/// however exactly that was read.
fn copy_exactness(outcome: &Outcome) -> Vec<String> {
    let (doubts, functions) = (&outcome.sink.doubts, &outcome.sink.functions);
    let is_exact = outcome.source.exactness.is_exact();
    let claims = is_exact && outcome.error.is_none();
    let text = if claims && doubts.has_lost_keys() {
        "not exact at the destination: it lost keys that it had acknowledged during this run"
            .to_owned()
    } else if doubts.left_standing + functions.left_standing > 0 {
        return left_standing_text(outcome, is_exact);
    } else if claims && doubts.memory_unknown {
        "not known to be exact at the destination: it may have restarted".to_owned()
    } else if claims && doubts.may_be_emptied {
        "not known to be exact at the destination: its databases may have been emptied or swapped"
            .to_owned()
    } else {
        return exactness(outcome);
    };
    vec![text]
}

/// Of keys and function libraries that were left as is at the destination.
fn left_standing_text(outcome: &Outcome, is_exact: bool) -> Vec<String> {
    let libraries = outcome.sink.functions.left_standing;
    let keys = outcome.sink.doubts.left_standing;
    let what = [
        (keys > 0).then(|| plural(keys, "key")),
        (libraries > 0).then(|| libraries_text(libraries, "function")),
    ];
    let what = what.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    if is_exact {
        return vec![format!(
            "not exact at the destination: {what} already existed there with other contents and were \
             left as is"
        )];
    }
    let mut parts = exactness(outcome);
    parts.push(format!("{what} left as they were at the destination"));
    parts
}

/// How exact it is, where a live server was read.
fn exactness(outcome: &Outcome) -> Vec<String> {
    let (source, exactness) = (&outcome.source, &outcome.source.exactness);
    let Some(reached) = &exactness.reached else {
        return Vec::new();
    };
    if outcome.error.is_some() {
        return Vec::new();
    }
    // What was never read is not as of any point in time.
    let failed = source.total().failed.saturating_sub(source.above_max_value);
    let unread = except(&[
        (failed, "key", "that could not be read"),
        (above_max_value(outcome), "value", "above --max-value"),
    ]);
    let mut parts = vec![consistency_text(reached, exactness.of_one_instant, &unread)];
    if let Some(paused) = exactness.paused {
        let ms = paused.as_secs_f64() * 1000.0;
        parts.push(format!("writes paused for {ms:.1} ms"));
    }
    parts
}

/// Counts of each database. Those beyond the first ones are together in a last row, whose
/// `db` is null.
fn per_db_json(counts: &[SourceCounts]) -> Vec<Value> {
    let row = |db: ToldDb, counts: &SourceCounts| {
        let mut row = json!(counts);
        row["db"] = db.json();
        row
    };
    let (told, others) = counts.split_at(counts.len().min(DATABASES_TOLD));
    let mut rows: Vec<Value> = told
        .iter()
        .map(|counts| row(ToldDb::One(counts.db), counts))
        .collect();
    if !others.is_empty() {
        rows.push(row(ToldDb::Others, &sum(others)));
    }
    rows
}

/// The last object.
pub(super) fn json(options: &UiOptions, outcome: &Outcome, elapsed: Duration) -> Value {
    let (source, sink) = (outcome.source.total(), &outcome.sink);
    let per_db = per_db_json(&outcome.source.counts);
    let kept_because = sink.deletions.kept_because.iter().copied();
    let mut sink_json = json!(sink);
    sink_json["records"] = json!(sink.records.written());
    sink_json["source_kept_because"] = json!(kept_because.collect::<BTreeMap<_, _>>());
    sink_json["undecoded"] = sink.values.undecoded.json();
    json!({
        "complete": outcome.error.is_none(),
        "dry_run": options.dry_run,
        "elapsed_ms": elapsed.as_millis() as u64,
        "error": outcome.error.as_ref().map(error_text),
        "source": {
            "scanned": source.scanned,
            "reread": source.reread,
            "given": source.written,
            "superseded": source.superseded,
            "filtered": source.filtered,
            "vanished": source.vanished,
            "failed": source.failed,
            "above_max_value": outcome.source.above_max_value,
            "functions": outcome.source.libraries.given,
            "duplicates_possible": outcome.source.duplicates_possible,
            "consistency": outcome.source.exactness.reached.as_ref().map(consistency_json),
            "consistency_missed": outcome.source.exactness.missed,
            "not_had": outcome.source.lacks.not_had,
            "left_out": outcome.source.lacks.by_choice,
            "export_failed": export_failed_json(&outcome.source.export.keys),
            "export_lacks": outcome.source.export.lines,
            "outside": outcome.source.outside.iter().map(Outside::json).collect::<Vec<_>>(),
            "paused_ms": outcome.source.exactness.paused.map(|paused| paused.as_secs_f64() * 1000.0),
            "per_db": per_db,
        },
        "sink": sink_json,
        "earlier": sink.earlier,
        "verified": sink.verified,
        "problems": sink.problems,
        "archive": sink.archive,
    })
}
