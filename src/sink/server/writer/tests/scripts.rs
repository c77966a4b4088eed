//! What chance does not bring about.

use std::collections::BTreeMap;

use super::model::{Command, Faults, Model, Story, context, lost, string, target};
use crate::dialect::Opcode;
use crate::payload;
use crate::policy::OnConflict;
use crate::record::{KeyRecord, Value};
use crate::server::sentinel::Standing;
use crate::sink::server::commands::{CommandLosses, Written};
use crate::sink::server::foresee::Way;
use crate::sink::server::held::Repeats;
use crate::sink::server::prepare::Ready;
use crate::sink::server::writer::databases::Gate;
use crate::sink::server::writer::item::{Form, InFlight, Item, Stage, Task};
use crate::sink::server::writer::lane::{Link, Met};
use crate::sink::server::writer::libraries::Libraries;
use crate::sink::server::writer::{Answer, Event};

const RESTORE: Task = Task::Restore {
    replace: false,
    own: false,
};

/// All of them.
pub fn all() {
    error_replies();
    an_error_reply_that_ends_the_run();
    two_keys_of_one_name();
    what_is_refused_at_once();
    stages_of_rare_values();
    a_record_for_another_node();
    whoever_answers();
    many_that_wait_for_a_database();
    sentinels_that_name_another();
    a_node_that_is_drained();
    a_node_that_always_hangs_up();
    libraries();
    after_ask();
}

fn model(story: Story) -> Model {
    Model::new(story, Faults::none(), 7)
}

fn item(model: &mut Model, task: Task, value: Vec<u8>) -> Box<Item> {
    let record = KeyRecord {
        db: 0,
        key: b"k1".to_vec(),
        value: Value::Compact(value),
        expire_at_ms: None,
        eviction: None,
    };
    let print = model.writer.memory().fingerprint(0, b"k1");
    let mut item = Item::given(None, record, None, context());
    (item.task, item.print) = (task, print);
    item.form = Form::Payload(Ready::Footer(11));
    item
}

/// A record is told this, and what follows is done.
fn told(model: &mut Model, task: Task, value: Vec<u8>, text: &str) -> anyhow::Result<()> {
    let item = item(model, task, value);
    let traffic = &mut model.writer.traffic;
    let then = traffic.outcome(0).refused(item, text.to_owned())?;
    traffic.conclude(0, then)?;
    model.go()
}

fn error_replies() {
    const NO_EXISTS: &str = "NOPERM this user has no permissions to run the 'exists' command";
    let metadata = vec![Opcode::KeyMetadata.byte(), 0];
    for (task, value, text) in [
        (
            RESTORE,
            string("v"),
            "READONLY You can't write against a read only replica.",
        ),
        (Task::Ask, Vec::new(), NO_EXISTS),
        (Task::Look, string("v"), NO_EXISTS),
        (RESTORE, metadata, "ERR Bad data format"),
        (
            RESTORE,
            string("v"),
            "NOPERM User u has no permissions to access database 0",
        ),
        (RESTORE, string("v"), "ERR Bad data format"),
        (RESTORE, string("v"), "ERR unknown command 'RESTORE'"),
        (RESTORE, string("v"), "NOAUTH Authentication required."),
        (Task::CleanUp("UNLINK"), Vec::new(), "ERR no"),
        (
            Task::Restore {
                replace: true,
                own: false,
            },
            string("v"),
            "BUSYKEY Target key name already exists.",
        ),
    ] {
        let mut model = model(Story::default());
        model.writer.traffic.fleet.lane_mut(0).note_progress();
        told(&mut model, task, value, text).expect("the run goes on");
    }
    let mut model = model(Story::default());
    let item = item(&mut model, RESTORE, string("v"));
    let traffic = &mut model.writer.traffic;
    let gone = Ok((Written::Expired, CommandLosses::default()));
    let then = traffic.outcome(0).written(item, gone).expect("no end");
    traffic.conclude(0, then).expect("no end");
    model.go().expect("it is written again");
}

fn an_error_reply_that_ends_the_run() {
    let mut model = model(Story::default());
    let text = "OOM command not allowed when used memory > 'maxmemory'.";
    let ended = told(&mut model, RESTORE, string("v"), text);
    assert!(ended.is_err());
    let run = model.end(ended);
    assert_eq!(run.report.records.refused, 1);
}

fn two_keys_of_one_name() {
    for dry_run in [false, true] {
        let mut model = model(Story {
            may_collide: true,
            repeats: Repeats::Archive,
            dry_run,
            ..Story::default()
        });
        // What stands differs from the first, and is what the second brings.
        model.put(0, b"k2", "0:stands");
        for (key, value, origin) in [
            (b"k1", "0:1", b"a"),
            (b"k1", "0:2", b"b"),
            (b"k2", "0:other", b"c"),
            (b"k2", "0:stands", b"d"),
        ] {
            let event = Model::key_from(0, key, value, origin);
            model.take(event).expect("it goes on");
            model.take(Event::Idle).expect("it goes on");
        }
        let done = model.take(Event::Finish);
        let run = model.end(done);
        run.done.as_ref().expect("it ends well");
        assert!(run.report.records.conflicts >= 1, "{:?}", run.said);
    }
}

fn what_is_refused_at_once() {
    let mut model = model(Story::default());
    model.writer.settings().options.max_value_bytes = Some(1);
    model.take(Model::key(0, b"k1", "0:long")).expect("refused");
    assert_eq!(model.writer.ledger().report().values.above_max_value, 1);
    let traffic = &mut model.writer.traffic;
    let (databases, ledger) = (&mut traffic.databases, &mut traffic.ledger);
    databases.close(3, "ERR DB index is out of range".to_owned(), ledger);
    let gate = databases.gate(traffic.fleet.lane(0), 3, ledger);
    assert!(matches!(gate, Gate::Refused(_)));
    model.take(Model::key(3, b"k1", "3:v")).expect("refused");
    assert_eq!(model.writer.ledger().records().refused, 2);
}

/// Takes a record on from this stage.
fn from_stage(model: &mut Model, stage: Stage, form: Form, task: Task) {
    let mut item = item(model, task, string("0:v"));
    item.stage = stage;
    item.form = form;
    model.writer.coming = Some(item);
    model.go().expect("it goes on");
    model.take(Event::Idle).expect("it goes on");
}

fn stages_of_rare_values() {
    let replace = Task::Restore {
        replace: true,
        own: true,
    };
    let graph = Form::Graph(Ready::Footer(11));
    for (stage, form, task) in [
        (Stage::Classes, Form::Payload(Ready::AsIs), RESTORE),
        (Stage::Graph, graph, RESTORE),
        (Stage::Place, graph, replace),
        (Stage::PrepareAnew, Form::Payload(Ready::AsIs), RESTORE),
    ] {
        let mut model = model(Story::default());
        model.writer.traffic.fleet.lane_mut(0).takes.target = Some(target());
        from_stage(&mut model, stage, form, task);
        assert_eq!(model.writer.ledger().records().refused, 0);
    }
    // Its key metadata were asked about.
    let mut asked = model(Story::default());
    asked.writer.traffic.fleet.lane_mut(0).takes.target = Some(target());
    let mut item = item(&mut asked, RESTORE, string("0:v"));
    item.stage = Stage::Classes;
    asked.writer.coming = Some(item);
    asked
        .take(Event::Answered(0, Ok(Answer::Classes), Some(0)))
        .expect("it goes on");
    // A value that cannot be read here is offered; and what is known of the right to write a key
    // stands for others.
    for on_conflict in [OnConflict::Fail, OnConflict::Replace] {
        let mut dry = model(Story {
            dry_run: true,
            on_conflict,
            ..Story::default()
        });
        dry.writer.traffic.fleet.lane_mut(0).takes.target = Some(target().opaque_next());
        let payload = Form::Payload(Ready::AsIs);
        from_stage(&mut dry, Stage::Offer, payload, Task::Look);
        from_stage(&mut dry, Stage::Rights(Way::Restore), payload, Task::Look);
    }
    // A value of more than every server takes.
    let mut large = model(Story::default());
    let mut value = vec![0, 0x80];
    value.extend_from_slice(&300_000_u32.to_be_bytes());
    value.extend(std::iter::repeat_n(b'v', 300_000));
    let mut item = self::item(&mut large, RESTORE, value);
    item.stage = Stage::Size;
    large.writer.coming = Some(item);
    large.go().expect("it goes on");
    large.take(Event::Idle).expect("it goes on");
    assert_eq!(large.writer.ledger().records().restored, 1);
}

fn a_record_for_another_node() {
    let mut model = model(Story {
        nodes: 3,
        ..Story::default()
    });
    let mut item = item(&mut model, RESTORE, string("0:v"));
    item.stage = Stage::Refit;
    model.writer.coming = Some(item);
    model.go().expect("it goes on");
    model.take(Event::Idle).expect("it goes on");
    assert_eq!(model.writer.ledger().records().restored, 1);
}

fn whoever_answers() {
    for met in [Met::Successor, Met::Unknown] {
        let mut model = model(Story::default());
        model.take(Model::key(0, b"k1", "0:v")).expect("it goes on");
        model.take(Event::Idle).expect("it goes on");
        let Event::Met(at, mut introduction) = model.meet(0) else {
            panic!("it is met");
        };
        introduction.met = met;
        model
            .take(Event::Met(at, introduction))
            .expect("it goes on");
    }
}

fn many_that_wait_for_a_database() {
    let mut model = model(Story {
        window: 1000,
        ..Story::default()
    });
    model.take(Model::key(0, b"k", "0:v")).expect("it goes on");
    for number in 0..200 {
        let key = format!("k{number}");
        model
            .take(Model::key(1, key.as_bytes(), "1:v"))
            .expect("it goes on");
    }
    model.take(Event::Idle).expect("it goes on");
    assert_eq!(model.writer.ledger().records().restored, 201);
}

fn sentinels_that_name_another() {
    let mut model = model(Story {
        is_watched: true,
        ..Story::default()
    });
    model.take(Model::key(0, b"k1", "0:v")).expect("it goes on");
    model.standing = [
        Standing::Disputed("n2".to_owned()),
        Standing::Replaced("n2".to_owned()),
        Standing::Named,
    ]
    .into();
    let done = model.take(Event::Finish);
    let run = model.end(done);
    run.done.as_ref().expect("it ends well");
    assert_eq!(run.report.records.restored, 1);
}

fn a_node_that_is_drained() {
    let mut model = model(Story {
        nodes: 3,
        ..Story::default()
    });
    let traffic = &mut model.writer.traffic;
    traffic.fleet.lane_mut(2).kept.note_unkept(true);
    traffic.fleet.doubt(None);
    traffic.fleet.begin_refresh();
    model.drain_node(2, 0);
    model.go().expect("it goes on");
    assert!(!model.writer.has_lost_memory());
}

/// It can be connected to, and nothing gets done there: that does not go on for ever.
fn a_node_that_always_hangs_up() {
    let mut model = model(Story {
        nodes: 3,
        ..Story::default()
    });
    let retries = model.writer.traffic.fleet.lane(0).to().retries;
    let mut lose = |is_got_done: bool| {
        model.go().expect("it goes on");
        let event = model.meet(0);
        model.on(event).expect("it goes on");
        if is_got_done {
            model.writer.traffic.fleet.lane_mut(0).note_progress();
        }
        model.on(Event::ReadFailed(0, lost())).expect("it goes on");
        model.writer.traffic.connect(0).map(drop)
    };
    for _ in 0..3 * retries {
        lose(true).expect("something gets done each time");
    }
    for _ in 1..retries {
        lose(false).expect("it may be tried again");
    }
    assert!(lose(false).is_err(), "nothing gets done");
}

fn library() -> Vec<u8> {
    let code = b"#!lua name=one\n";
    let mut dump = vec![0xF5, u8::try_from(code.len()).expect("short")];
    dump.extend_from_slice(code);
    payload::sign(&dump, 11)
}

fn libraries() {
    let mut model = model(Story::default());
    model
        .writer
        .note_databases(BTreeMap::new(), [2].into_iter());
    let lane = model.writer.traffic.fleet.lane_mut(0);
    lane.link = Link::Down {
        why: None,
        last: None,
        left_writes: false,
        was_up: false,
    };
    model.take(Event::Libraries(library())).expect("it goes on");
    assert_eq!(model.writer.ledger().report().functions.restored, 1);
    // WAIT is in flight when the next one comes.
    let traffic = &mut model.writer.traffic;
    let libraries = Libraries::of(&library(), Default::default(), &mut traffic.ledger);
    traffic.fleet.lane_mut(0).flight.push(InFlight::Wait);
    model.writer.libraries = Some(libraries);
    model.queue(0, Command::Wait);
    model.go().expect("it goes on");
    assert_eq!(model.writer.ledger().report().functions.restored, 2);
}

fn after_ask() {
    let mut model = model(Story {
        nodes: 3,
        ..Story::default()
    });
    // SELECT is not asked: each connection is in database 0.
    model.next_answers.push_back("ASK 1 n1:1".to_owned());
    model.take(Model::key(0, b"k1", "0:v")).expect("it goes on");
    model.take(Event::Idle).expect("it goes on");
    assert_eq!(model.writer.ledger().records().restored, 1);
}
