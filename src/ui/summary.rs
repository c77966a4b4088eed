//! The end of a run: the reconciled ledger, as the last line or the last object.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::console::error_text;
use super::{UiOptions, Verb};
use crate::describe::tally::{DATABASES_TOLD, ToldDb};
use crate::describe::{
    consistency_json, consistency_text, except, export_failed_json, ledger_text,
};
use crate::exit;
use crate::ledger::{ConsistencyReached, SinkReport, SourceCounts, Verified, sum};
use crate::outside::{self, Outside};
use crate::pipe::Outcome;
use crate::units::{bytes_text, count_text, duration_text, per_second, plural};

/// What can become of a record: its name, how many, and whether it is named even when none are.
type LedgerEntry = (&'static str, u64, bool);

fn entries(verb: Verb, outcome: &Outcome) -> Vec<LedgerEntry> {
    let (source, sink) = (outcome.source.total(), &outcome.sink);
    let export = matches!(verb, Verb::Export | Verb::Convert);
    let import = verb == Verb::Import;
    let writes = import || verb == Verb::Copy;
    vec![
        ("written", sink.archived, export),
        ("checked", sink.checked, verb == Verb::Verify),
        ("restored", sink.restored, writes),
        ("updated", sink.replaced_own, false),
        ("unchanged", sink.unchanged, false),
        ("skipped", sink.skipped, false),
        ("expired", sink.expired, writes),
        ("deleted", sink.deleted, false),
        ("already absent", sink.already_gone, false),
        ("conflicts", sink.conflicts, writes),
        (
            "refused",
            sink.refused.saturating_sub(sink.above_max_value),
            writes,
        ),
        ("superseded", source.superseded, false),
        ("filtered", source.filtered, export),
        ("vanished", source.vanished, !import),
        ("above --max-value", above_max_value(outcome), false),
        (
            "failed",
            source.failed.saturating_sub(outcome.source.above_max_value),
            !import,
        ),
    ]
}

/// Values that `--max-value` left out, whoever saw how large they are.
fn above_max_value(outcome: &Outcome) -> u64 {
    outcome.source.above_max_value + outcome.sink.above_max_value
}

/// What was read and what became of it. What was under way when a run ended early is named as well,
/// so that the line always adds up.
fn equation(verb: Verb, outcome: &Outcome) -> String {
    let source = outcome.source.total();
    let read = match verb {
        Verb::Export | Verb::Copy => "scanned",
        _ => "read",
    };
    let mut entries = entries(verb, outcome);
    let unacknowledged = outcome.sink.unacknowledged;
    let went: u64 = entries.iter().map(|(_, count, _)| count).sum();
    let came = source.scanned + source.reread;
    let open = came.saturating_sub(went + unacknowledged);
    entries.push(("sent without an answer", unacknowledged, false));
    entries.push(("not reached", open, false));
    ledger_text(read, &source, entries)
}

fn verdict(options: &UiOptions, outcome: &Outcome, code: u8) -> String {
    let verb = options.verb.name();
    let run = if options.dry_run {
        format!("{verb} (dry run)")
    } else {
        verb.to_owned()
    };
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
    match options.verb {
        Verb::Convert if outcome.error.is_some() && !options.dry_run => {
            "no complete file was written".to_owned()
        }
        Verb::Export if outcome.error.is_some() && !options.dry_run => {
            "no complete archive was written".to_owned()
        }
        Verb::Export | Verb::Convert if options.dry_run => {
            keys_text(sink, "would be written", "in")
        }
        Verb::Export | Verb::Convert => keys_text(sink, "written", "in"),
        Verb::Verify | Verb::Diff | Verb::Report | Verb::Salvage => {
            format!("{} checked{early}", plural(sink.checked, "record"))
        }
        Verb::Import | Verb::Copy if options.dry_run => {
            keys_text(sink, "would be restored", "from")
        }
        Verb::Import | Verb::Copy => format!("{}{early}", keys_text(sink, "restored", "from")),
    }
}

/// Distinct keys, and beside them how many records they came in, where that is another number.
/// Where keys were not told apart, only records are claimed.
fn keys_text(sink: &SinkReport, done: &str, by: &str) -> String {
    let records = plural(sink.written(), "record");
    match sink.keys {
        None => format!("{records} {done}"),
        Some(keys) if keys == sink.written() => format!("{} {done}", plural(keys, "key")),
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
    let mut line = format!(
        "{}: {} ({})",
        verdict(options, outcome, code),
        achieved(options, outcome),
        equation(options.verb, outcome)
    );
    if let Some(earlier) = &sink.earlier {
        line += &format!(
            ", {} done by an earlier run: {}",
            plural(
                earlier.records - earlier.failed.min(earlier.records),
                "record"
            ),
            earlier.seen
        );
    }
    line += &functions_text(options.verb, sink);
    line += &changes_text(sink);
    if sink.damaged > 0 {
        line += &format!(", {} damaged and archived as is", count_text(sink.damaged));
    }
    if sink.source_deleted + sink.source_kept > 0 {
        line += &format!(
            ", source keys deleted {}, kept {}",
            count_text(sink.source_deleted),
            count_text(sink.source_kept)
        );
        if sink.source_kept_for_another > 0 {
            line += &format!(
                " ({} because the destination has another value or expiry)",
                count_text(sink.source_kept_for_another)
            );
        }
    }
    if sink.evicted > 0 {
        line += &format!(
            ", {} evicted at the destination",
            plural(sink.evicted, "key")
        );
    }
    line += &sink.verified.as_ref().map_or(String::new(), verified_text);
    let is_exact = matches!(outcome.source.reached, Some(ConsistencyReached::Exact(_)));
    let lost_keys = sink.memory_lost || sink.evicted > 0;
    line += &match options.verb == Verb::Copy {
        true if is_exact && lost_keys && outcome.error.is_none() => {
            ", not exact at the destination: it lost keys that it had acknowledged during this run"
                .to_owned()
        }
        true if sink.left_standing + sink.functions.left_standing > 0 => {
            left_standing_text(outcome)
        }
        true if is_exact && sink.memory_unknown && outcome.error.is_none() => {
            ", not known to be exact at the destination: it may have restarted".to_owned()
        }
        true if is_exact && sink.may_be_emptied && outcome.error.is_none() => {
            ", not known to be exact at the destination: its databases may have been emptied or \
             swapped"
                .to_owned()
        }
        _ => exactness(options.verb, outcome),
    };
    if outcome.source.no_libraries.is_some() && outcome.error.is_none() {
        line += ", without function libraries, which could not be read";
    }
    if let Some(left_out) = &outcome.source.left_out {
        line += &format!(", {left_out}");
    }
    let outside = outside::counted(&outcome.source.outside);
    if !outside.is_empty() && outcome.error.is_none() {
        line += &format!(", without {outside} (outside keys)");
    }
    let came = outcome.source.total().scanned;
    line += &format!(", {}", duration_text(elapsed));
    // Of less than a second, a rate says nothing.
    if elapsed >= Duration::from_secs(1) {
        line += &format!(" ({}/s)", count_text(per_second(came, elapsed)));
    }
    if let Some(archive) = sink.archive.as_ref().filter(|_| outcome.error.is_none()) {
        let encrypted = if archive.encrypted { ", encrypted" } else { "" };
        let (bytes, sha256) = (bytes_text(archive.bytes), &archive.sha256);
        line += &format!("{encrypted}, {bytes}, sha256 {sha256}");
    }
    line
}

fn verified_text(verified: &Verified) -> String {
    if verified.asked() == 0 {
        return ", nothing to verify".to_owned();
    }
    let mut text = format!(
        ", verified: {} of {} as written",
        count_text(verified.equal),
        count_text(verified.asked())
    );
    for (count, what) in [
        (
            verified.partly,
            "of these except for what only one of the servers stores",
        ),
        (verified.expired, "expired since"),
        (verified.incomparable, "cannot be compared"),
        (verified.unread, "could not be read"),
    ] {
        if count > 0 {
            text += &format!(", {} {what}", count_text(count));
        }
    }
    text
}

fn functions_text(verb: Verb, sink: &SinkReport) -> String {
    let functions = sink.functions;
    if functions.taken == 0 {
        return String::new();
    }
    if verb == Verb::Export {
        return ", with functions".to_owned();
    }
    let fate = match (functions.restored, functions.skipped, functions.refused) {
        (_, _, refused) if refused > 0 => "refused",
        (restored, _, _) if restored > 0 => "restored",
        (_, skipped, _) if skipped > 0 => "skipped",
        _ => "not reached",
    };
    format!(", functions {fate}")
}

/// Keys and function libraries that were left as is are not as they are at the source,
/// however exactly that was read.
fn left_standing_text(outcome: &Outcome) -> String {
    let sink = &outcome.sink;
    let libraries = sink.functions.left_standing;
    let what = [
        (sink.left_standing > 0).then(|| plural(sink.left_standing, "key")),
        (libraries == 1).then(|| "1 function library".to_owned()),
        (libraries > 1).then(|| format!("{} function libraries", count_text(libraries))),
    ];
    let what = what.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    match &outcome.source.reached {
        Some(ConsistencyReached::Exact(_)) => format!(
            ", not exact at the destination: {what} already existed there with other contents \
             and were left as is"
        ),
        _ => format!(
            "{}, {what} left as they were at the destination",
            exactness(Verb::Copy, outcome)
        ),
    }
}

/// How exact it is, where a live server was read.
fn exactness(verb: Verb, outcome: &Outcome) -> String {
    let source = &outcome.source;
    let Some(reached) = &source.reached else {
        return String::new();
    };
    if outcome.error.is_some() || !matches!(verb, Verb::Export | Verb::Copy) {
        return String::new();
    }
    // What was never read is not as of any point in time.
    let failed = source.total().failed.saturating_sub(source.above_max_value);
    let unread = except(&[
        (failed, "key", "that could not be read"),
        (above_max_value(outcome), "value", "above --max-value"),
    ]);
    let text = consistency_text(reached, source.of_one_instant, &unread);
    let paused = source.paused.map_or_else(String::new, |paused| {
        format!(
            ", writes paused for {:.1} ms",
            paused.as_secs_f64() * 1000.0
        )
    });
    format!(", {text}{paused}")
}

/// What had to be changed for the destination to take it.
fn changes_text(sink: &SinkReport) -> String {
    let told = sink.changes.told().into_iter();
    told.map(|(name, count)| format!(", {name} {}", count_text(count)))
        .collect()
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
pub(super) fn json(options: &UiOptions, outcome: &Outcome, code: u8, elapsed: Duration) -> Value {
    let (source, sink) = (outcome.source.total(), &outcome.sink);
    let per_db = per_db_json(&outcome.source.counts);
    let kept_because = sink.source_kept_because.iter().copied();
    let mut sink_json = json!(sink);
    sink_json["records"] = json!(sink.written());
    sink_json["source_kept_because"] = json!(kept_because.collect::<BTreeMap<_, _>>());
    sink_json["undecoded"] = sink.undecoded.json();
    json!({
        "event": "summary",
        "verb": options.verb.name(),
        "exit_code": code,
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
            "functions": outcome.source.functions,
            "duplicates_possible": outcome.source.duplicates_possible,
            "consistency": outcome.source.reached.as_ref().map(consistency_json),
            "consistency_missed": outcome.source.consistency_missed,
            "not_had": outcome.source.not_had,
            "left_out": outcome.source.left_out,
            "export_failed": export_failed_json(&outcome.source.export_failed),
            "export_lacks": outcome.source.export_lacks,
            "outside": outcome.source.outside.iter().map(Outside::json).collect::<Vec<_>>(),
            "paused_ms": outcome.source.paused.map(|paused| paused.as_secs_f64() * 1000.0),
            "per_db": per_db,
        },
        "sink": sink_json,
        "earlier": sink.earlier,
        "verified": sink.verified,
        "problems": sink.problems,
        "archive": sink.archive,
    })
}
