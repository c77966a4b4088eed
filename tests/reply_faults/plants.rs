//! The judge is judged: what is planted after a run that went well, it has to find.

use std::time::Duration;

use super::judge::{Facts, Judge};
use super::scenario::{Faults, Scenario};
use super::world::{Pair, World};
use crate::support::servers::{Version, require};

/// What is planted: the scenario that ran before, the database, the command, and what the judge has
/// to call it.
const PLANTS: [(&str, u32, &str, &str); 10] = [
    (
        "import-replace",
        5,
        "SET new x",
        "writes where nothing belongs",
    ),
    (
        "import-replace",
        7,
        "SET any x",
        "writes where nothing belongs",
    ),
    ("import-replace", 3, "DEL own:a", "deletes a stranger's key"),
    (
        "import-replace",
        3,
        "SET own:a x",
        "changes a stranger's key",
    ),
    (
        "import-replace",
        0,
        "PERSIST own:expires",
        "changes a stranger's key",
    ),
    (
        "import-replace",
        1,
        "DEL only:1",
        "exit 0, and not what a run without faults leaves",
    ),
    (
        "import-replace",
        1,
        "RPUSH list x",
        "leaves a half or wrong value",
    ),
    (
        "import-replace",
        1,
        "PERSIST ttl:1",
        "leaves another expiry",
    ),
    (
        "import-dry",
        1,
        "SET only:1 one",
        "changes a server that it only looks at",
    ),
    (
        "copy-move",
        1,
        "DEL only:1",
        "deleted at the source, and not at the destination",
    ),
];

#[test]
fn the_judge_sees_what_is_planted() {
    if require(Version::Redis70).is_none() {
        return;
    }
    let pair = Pair::ALL[0];
    let mut world = World::start(pair);
    for (name, db, command, kind) in PLANTS {
        let scenario = Scenario::by_name(name).expect("a scenario");
        world.tidy();
        let before = world.prepare(scenario.crowd);
        let ran = scenario.run(&world, Faults::default(), Duration::from_secs(60));
        let mut planted = redis::Cmd::new();
        planted.arg(command.split(' ').collect::<Vec<_>>());
        let mut client = world.destination.client_db(db);
        let changed: redis::Value = planted.query(&mut client).expect("a plant");
        assert_ne!(changed, redis::Value::Int(0), "{command} does nothing");
        let (source, after) = (world.source_now(), world.destination_now());
        let found = Judge::default().judge(&Facts {
            scenario,
            case: None,
            ran: &ran,
            given: &world.given,
            wanted: world.moved_by(scenario),
            source: &source,
            before: &before,
            after: &after,
        });
        assert!(
            found.iter().any(|violation| violation.kind == kind),
            "{name}, {command} in {db}: {found:?}"
        );
        world.mend_source();
    }
}
