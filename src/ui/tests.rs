use std::time::Duration;

use anyhow::anyhow;

use super::*;
use crate::ledger::{
    ArchiveWritten, ConsistencyReached, Deletions, Doubts, Exactness, OddValues, RecordCounts,
    SinkReport, SourceCounts, SourceReport,
};
use crate::verb::Data;

pub(super) const EXPORT: Verb = Verb {
    name: "export",
    flow: Some(Flow::Export),
    data: Data::UnlessOutput,
};

const IMPORT: Verb = Verb {
    name: "import",
    flow: Some(Flow::Import),
    data: Data::Never,
};

pub(super) const COPY: Verb = Verb {
    name: "copy",
    flow: Some(Flow::Copy),
    data: Data::Never,
};

fn options(verb: Verb) -> UiOptions {
    UiOptions::new(verb, &ReportArgs::default(), &RunArgs::default())
}

fn counts(counts: SourceCounts) -> SourceReport {
    SourceReport {
        counts: vec![counts],
        ..SourceReport::default()
    }
}

fn exact() -> Exactness {
    Exactness {
        reached: Some(ConsistencyReached::Exact(vec![(0, 0)])),
        ..Exactness::default()
    }
}

fn line(verb: Verb, outcome: &Outcome) -> String {
    let code = outcome.exit_code();
    summary::final_line(&options(verb), outcome, code, Duration::from_secs(10))
}

#[test]
fn the_last_line_of_an_export_is_its_ledger() {
    let outcome = Outcome {
        source: counts(SourceCounts {
            scanned: 1_000_010,
            written: 1_000_000,
            vanished: 10,
            ..SourceCounts::default()
        }),
        sink: SinkReport {
            records: RecordCounts {
                taken: 1_000_000,
                archived: 1_000_000,
                ..RecordCounts::default()
            },
            keys: Some(1_000_000),
            archive: Some(ArchiveWritten {
                archive_id: 1,
                bytes: 64_172_851,
                sha256: "ab".to_owned(),
                encrypted: false,
            }),
            ..SinkReport::default()
        },
        error: None,
    };
    assert_eq!(
        line(EXPORT, &outcome),
        "export complete: 1,000,000 keys written (scanned 1,000,010 = written 1,000,000 + \
         filtered 0 + vanished 10 + failed 0), 10s (100,001/s), 61.2 MiB, sha256 ab"
    );
    let object = summary::json(&options(EXPORT), &outcome, Duration::ZERO);
    assert_eq!(object["archive"]["archive_id"], "0000000000000001");
    assert_eq!(object["complete"], true);
}

#[test]
fn what_could_not_be_read_is_not_called_exact() {
    let mut outcome = Outcome {
        source: SourceReport {
            exactness: exact(),
            ..counts(SourceCounts {
                scanned: 3,
                written: 3,
                ..SourceCounts::default()
            })
        },
        sink: SinkReport::default(),
        error: None,
    };
    let exact = "exact as of 1970-01-01T00:00:00.000Z, ";
    let but = "except 2 keys that could not be read, ";
    let text = line(EXPORT, &outcome);
    assert!(text.contains(exact) && !text.contains(but), "{text}");
    outcome.source.counts[0].scanned = 5;
    outcome.source.counts[0].failed = 2;
    let text = line(EXPORT, &outcome);
    assert!(text.contains(&format!("{exact}{but}")), "{text}");
}

/// However exactly the source was read.
#[test]
fn a_destination_that_lost_keys_is_not_called_exact() {
    let said = |doubts: Doubts| {
        let outcome = Outcome {
            source: SourceReport {
                exactness: exact(),
                ..SourceReport::default()
            },
            sink: SinkReport {
                doubts,
                ..SinkReport::default()
            },
            error: None,
        };
        line(COPY, &outcome)
    };
    assert!(said(Doubts::default()).contains("exact as of"));
    for (doubts, word) in [
        (
            Doubts {
                memory_lost: true,
                ..Doubts::default()
            },
            "not exact at the destination",
        ),
        (
            Doubts {
                evicted: 1,
                ..Doubts::default()
            },
            "not exact at the destination",
        ),
        (
            Doubts {
                memory_unknown: true,
                ..Doubts::default()
            },
            "not known to be exact at the destination",
        ),
    ] {
        let text = said(doubts);
        assert!(
            text.contains(word) && !text.contains("exact as of"),
            "{text}"
        );
    }
}

#[test]
fn the_headline_counts_each_key_once() {
    let said = |verb, keys, records: RecordCounts| {
        let outcome = Outcome {
            source: SourceReport::default(),
            sink: SinkReport {
                keys,
                ..SinkReport::of(records)
            },
            error: None,
        };
        let text = line(verb, &outcome);
        let object = summary::json(&options(verb), &outcome, Duration::ZERO);
        let numbers = (
            object["sink"]["keys"].clone(),
            object["sink"]["records"].clone(),
        );
        (text.split(" (").next().unwrap().to_owned(), numbers)
    };
    let archived = || RecordCounts {
        archived: 51_573,
        ..RecordCounts::default()
    };
    assert_eq!(
        said(EXPORT, Some(39_951), archived()),
        (
            "export complete: 39,951 keys written in 51,573 records".to_owned(),
            (39_951.into(), 51_573.into())
        )
    );
    // A run that was resumed does not know.
    assert_eq!(
        said(EXPORT, None, archived()),
        (
            "export complete: 51,573 records written".to_owned(),
            (serde_json::Value::Null, 51_573.into())
        )
    );
    let restored = RecordCounts {
        restored: 60_000,
        replaced_own: 6_905,
        deleted: 10,
        ..RecordCounts::default()
    };
    assert_eq!(
        said(COPY, Some(50_000), restored),
        (
            "copy complete: 50,000 keys restored from 66,905 records".to_owned(),
            (50_000.into(), 66_905.into())
        )
    );
}

#[test]
fn an_interrupted_run_accounts_for_what_was_under_way() {
    let outcome = Outcome {
        source: counts(SourceCounts {
            scanned: 100,
            written: 90,
            filtered: 5,
            ..SourceCounts::default()
        }),
        sink: SinkReport {
            records: RecordCounts {
                taken: 60,
                restored: 50,
                ..RecordCounts::default()
            },
            keys: Some(50),
            unacknowledged: 7,
            ..SinkReport::default()
        },
        error: Some(exit::Interrupted.into()),
    };
    assert_eq!(
        line(IMPORT, &outcome),
        "import interrupted: 50 keys restored before that (read 100 = restored 50 + expired 0 + \
         conflicts 0 + refused 0 + filtered 5 + sent without an answer 7 + not reached 38), \
         10s (10/s)"
    );
    assert!(
        line(EXPORT, &outcome).starts_with("export interrupted: no complete archive was written")
    );
}

#[test]
fn failed_keys_are_not_called_complete() {
    let outcome = Outcome {
        source: SourceReport::default(),
        sink: SinkReport {
            keys: Some(1),
            ..SinkReport::of(RecordCounts {
                taken: 2,
                restored: 1,
                conflicts: 1,
                ..RecordCounts::default()
            })
        },
        error: None,
    };
    let text = line(COPY, &outcome);
    assert!(
        text.starts_with("copy finished with problems: 1 key restored"),
        "{text}"
    );
    let failed = Outcome {
        error: Some(anyhow!("something")),
        ..outcome
    };
    assert!(line(COPY, &failed).starts_with("copy failed: 1 key restored before that"));
}

#[test]
fn text_from_outside_cannot_steer_a_terminal() {
    assert_eq!(clean("plain – text"), "plain – text");
    assert_eq!(clean("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
    assert_eq!(clean("\u{202e}x"), "\\u{202e}x");
}

#[test]
fn errors_come_with_advice() {
    let error = anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::StorageFull))
        .context("write the archive");
    assert!(advice::of(&error).is_some_and(|text| text.contains("make room")));
    let error = anyhow::Error::new(crate::server::ServerError::Connect {
        address: "redis://h:1".to_owned(),
        reason: "refused".to_owned(),
    });
    assert!(advice::of(&error).is_some());
    assert_eq!(advice::of(&exit::usage("x")), None);
}

#[test]
fn databases_beyond_a_thousand_are_told_together() {
    let row = |db| SourceCounts {
        db,
        scanned: 3,
        written: 2,
        filtered: 1,
        ..SourceCounts::default()
    };
    let outcome = Outcome {
        source: SourceReport {
            counts: (0..65_536).map(row).collect(),
            ..SourceReport::default()
        },
        sink: SinkReport::default(),
        error: None,
    };
    let said = summary::json(&options(IMPORT), &outcome, Duration::ZERO);
    let told = said["source"]["per_db"].as_array().expect("a list");
    assert_eq!(told.len(), 1_001);
    assert_eq!(
        (&told[9]["db"], &told[9]["scanned"]),
        (&9.into(), &3.into())
    );
    let others = &told[1_000];
    assert!(others["db"].is_null());
    assert_eq!(others["written"], 2 * (65_536 - 1_000));
}

/// Each count with a number of its own.
fn told_apart() -> SinkReport {
    SinkReport {
        records: RecordCounts {
            taken: 1,
            archived: 3,
            checked: 4,
            restored: 5,
            replaced_own: 6,
            unchanged: 7,
            skipped: 8,
            expired: 9,
            deleted: 10,
            already_gone: 11,
            conflicts: 12,
            refused: 13,
        },
        keys: Some(2),
        unacknowledged: 23,
        values: OddValues {
            above_max_value: 14,
            damaged: 16,
            ..OddValues::default()
        },
        deletions: Deletions {
            deleted: 17,
            unknown: 18,
            kept: 19,
            kept_because: vec![("changed", 20)],
            kept_for_another: 21,
        },
        doubts: Doubts {
            left_standing: 15,
            evicted: 22,
            may_be_emptied: true,
            memory_lost: true,
            memory_unknown: true,
        },
        ..SinkReport::default()
    }
}

/// A program reads one flat object, however the counts are kept here.
#[test]
fn the_counts_of_a_sink_have_their_names_in_json() {
    let outcome = Outcome {
        source: SourceReport::default(),
        sink: told_apart(),
        error: None,
    };
    let mut object = summary::json(&options(COPY), &outcome, Duration::ZERO)["sink"].take();
    object["changes"].take();
    assert_eq!(
        object.to_string(),
        "{\"above_max_value\":14,\"already_gone\":11,\"archived\":3,\"changes\":null,\"checked\":4,\
         \"conflicts\":12,\"damaged\":16,\"deleted\":10,\"evicted\":22,\"expired\":9,\"functions\":{\
         \"left_standing\":0,\"refused\":0,\"restored\":0,\"skipped\":0,\"taken\":0},\"keys\":2,\
         \"left_standing\":15,\"records\":14,\"refused\":13,\"replaced_own\":6,\"restored\":5,\
         \"skipped\":8,\"source_deleted\":17,\"source_kept\":19,\"source_kept_because\":{\
         \"changed\":20},\"source_kept_for_another\":21,\"source_unknown\":18,\"taken\":1,\
         \"unacknowledged\":23,\"unchanged\":7,\"undecoded\":[]}"
    );
}
