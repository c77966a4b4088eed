//! The pipe with a source and a sink in memory: order, which error is reported, stopping, and the
//! ledger. No server; what servers do is tested in `tests/live`.

use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use redis_migrate::exit;
use redis_migrate::ledger::{CountsByDb, RecordCounts, SinkReport, SourceReport};
use redis_migrate::observer::{Observer, Recording};
use redis_migrate::pipe::{self, Outcome, Steps, Stop};
use redis_migrate::record::{Batch, KeyRecord, Record, Value};
use redis_migrate::rewrite::Rewrite;
use redis_migrate::sink::Sink;
use redis_migrate::source::{Estimate, Source};

/// Gives `total` keys in batches of ten; fails, or stops the run, before the key it is told.
struct Numbers {
    next: u32,
    total: u32,
    fail_at: Option<u32>,
    stop_at: Option<(u32, Stop)>,
    lie: u64,
    counts: CountsByDb,
}

impl Numbers {
    fn new(total: u32) -> Self {
        Self {
            next: 0,
            total,
            fail_at: None,
            stop_at: None,
            lie: 0,
            counts: CountsByDb::default(),
        }
    }
}

impl Source for Numbers {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        for _ in 0..10 {
            if self.next == self.total {
                break;
            }
            if self.fail_at == Some(self.next) {
                return Err(anyhow!("the source broke"));
            }
            if let Some((at, stop)) = &self.stop_at
                && *at == self.next
            {
                stop.set();
            }
            batch.push(Record::Key(KeyRecord {
                db: 0,
                key: self.next.to_string().into_bytes(),
                value: Value::Compact(vec![0, 1, b'x']),
                expire_at_ms: None,
                eviction: None,
            }));
            let row = self.counts.of(0);
            row.scanned += 1;
            row.written += 1;
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }

    fn report(&self) -> SourceReport {
        let mut counts = self.counts.rows();
        if let Some(row) = counts.first_mut() {
            row.scanned += self.lie;
        }
        SourceReport {
            counts,
            ..SourceReport::default()
        }
    }

    fn estimate(&self) -> Estimate {
        Estimate::default()
    }
}

#[derive(Clone, Default)]
struct Kept {
    keys: Arc<Mutex<Vec<Vec<u8>>>>,
    ended: Arc<Mutex<Option<String>>>,
    fail_at: Option<usize>,
    forget_one: bool,
}

impl Kept {
    fn report(&self) -> SinkReport {
        let taken = self.keys.lock().unwrap().len() as u64;
        SinkReport::of(RecordCounts {
            checked: taken - u64::from(self.forget_one),
            ..RecordCounts::all_checked(taken)
        })
    }

    fn ended(&self) -> String {
        self.ended
            .lock()
            .unwrap()
            .clone()
            .expect("finished or aborted")
    }
}

impl Sink for Kept {
    fn write(&mut self, batch: Batch) -> Result<()> {
        for record in batch.records {
            let Record::Key(record) = record else {
                panic!("only keys were given")
            };
            let mut keys = self.keys.lock().unwrap();
            if self.fail_at == Some(keys.len()) {
                return Err(anyhow!("the sink broke"));
            }
            keys.push(record.key);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        *self.ended.lock().unwrap() = Some("finished".to_owned());
        (self.report(), Ok(()))
    }

    fn abort(self: Box<Self>, reason: &str) -> SinkReport {
        *self.ended.lock().unwrap() = Some(format!("aborted: {reason}"));
        self.report()
    }
}

fn run(source: Numbers, sink: &Kept, steps: &Steps, stop: &Stop) -> Outcome {
    let observer = Observer::new(Box::new(Recording::default()), None, None);
    pipe::run(
        Box::new(source),
        steps,
        Box::new(sink.clone()),
        &observer,
        stop,
    )
}

#[test]
fn records_arrive_all_and_in_order() {
    let sink = Kept::default();
    let outcome = run(Numbers::new(10_007), &sink, &Steps::default(), &Stop::new());
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.exit_code(), exit::OK);
    let want: Vec<Vec<u8>> = (0..10_007)
        .map(|n: u32| n.to_string().into_bytes())
        .collect();
    assert_eq!(*sink.keys.lock().unwrap(), want);
    assert_eq!(sink.ended(), "finished");
}

#[test]
fn records_are_rewritten_on_the_way() {
    let sink = Kept::default();
    let rewrite = Rewrite {
        add_prefix: b"new:".to_vec(),
        ..Rewrite::default()
    };
    let steps = Steps {
        rewrite,
        ..Steps::default()
    };
    run(Numbers::new(1), &sink, &steps, &Stop::new());
    assert_eq!(*sink.keys.lock().unwrap(), vec![b"new:0".to_vec()]);
}

#[test]
fn a_source_that_fails_keeps_what_it_gave_and_aborts_the_sink() {
    let sink = Kept::default();
    let source = Numbers {
        fail_at: Some(25),
        ..Numbers::new(100)
    };
    let outcome = run(source, &sink, &Steps::default(), &Stop::new());
    assert_eq!(
        outcome.error.as_ref().map(ToString::to_string).as_deref(),
        Some("the source broke")
    );
    assert_eq!(outcome.exit_code(), exit::FAILED);
    assert_eq!(sink.ended(), "aborted: the source broke");
    // Two whole batches; the third was never handed over.
    assert_eq!(outcome.sink.records.taken, 20);
}

#[test]
fn when_the_sink_fails_its_error_is_the_one_reported() {
    let sink = Kept {
        fail_at: Some(33),
        ..Kept::default()
    };
    let outcome = run(
        Numbers::new(1_000_000),
        &sink,
        &Steps::default(),
        &Stop::new(),
    );
    assert_eq!(
        outcome.error.map(|error| error.to_string()).as_deref(),
        Some("the sink broke")
    );
    assert_eq!(sink.ended(), "aborted: the sink broke");
}

#[test]
fn a_stop_is_an_interruption_and_never_a_success() {
    let (sink, stop) = (Kept::default(), Stop::new());
    let source = Numbers {
        stop_at: Some((50, stop.clone())),
        ..Numbers::new(1000)
    };
    let outcome = run(source, &sink, &Steps::default(), &stop);
    assert_eq!(outcome.exit_code(), exit::INTERRUPTED);
    assert_eq!(sink.ended(), "aborted: interrupted");
    assert!(outcome.sink.records.taken < 1000);
}

#[test]
fn a_ledger_that_does_not_add_up_is_a_failure() {
    let source = Numbers {
        lie: 1,
        ..Numbers::new(10)
    };
    let sink = Kept::default();
    let outcome = run(source, &sink, &Steps::default(), &Stop::new());
    assert!(format!("{:?}", outcome.error).contains("11 read, 10 accounted for"));
    assert!(
        sink.ended().starts_with("aborted"),
        "an archive must not be completed then"
    );

    let sink = Kept {
        forget_one: true,
        ..Kept::default()
    };
    let outcome = run(Numbers::new(10), &sink, &Steps::default(), &Stop::new());
    assert!(format!("{:?}", outcome.error).contains("10 records taken, 9 accounted for"));
    assert_eq!(outcome.exit_code(), exit::FAILED);
}
