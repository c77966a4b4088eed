//! What an aborted move leaves at the node that a slot was to go to.

use redis::Connection;

use crate::support::cluster::{TestCluster, node_id, slot_of};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

use super::place::{Place, dbsize, export, fill};

/// Both are in slot 100.
const STALE: &str = "key:5386";
const DELETED: &str = "key:12531";

/// A third key of the slot, at its owner only.
const OTHER: &str = "{key:5386}other";

fn setslot(client: &mut Connection, words: &[&str]) {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SETSLOT").arg(slot_of(STALE.as_bytes()));
    command.arg(words).exec(client).expect("CLUSTER SETSLOT");
}

fn get(client: &mut Connection, key: &str) -> Option<String> {
    redis::cmd("GET").arg(key).query(client).expect("GET")
}

fn set(client: &mut Connection, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(client)
        .expect("SET");
}

/// A slot, its owner, and another node that a move of it was begun to.
struct Move {
    cluster: TestCluster,
    owner: Connection,
    other: Connection,
}

impl Move {
    /// Both marks are set, and no key went yet.
    fn begin(version: Version) -> Self {
        let cluster = TestCluster::start(version, 2, 0);
        fill(&cluster, 200);
        let at = cluster.client().owners[usize::from(slot_of(STALE.as_bytes()))];
        let nodes = cluster.primaries();
        let mut owner = nodes[at].client();
        let mut other = nodes[1 - at].client();
        setslot(&mut other, &["IMPORTING", &node_id(&mut owner)]);
        set(&mut owner, OTHER, "owner's");
        setslot(&mut owner, &["MIGRATING", &node_id(&mut other)]);
        Self {
            cluster,
            owner,
            other,
        }
    }

    /// Puts a key where the slot was to go, as MIGRATE does.
    fn leave(&mut self, key: &str, value: &str) {
        redis::cmd("ASKING").exec(&mut self.other).expect("ASKING");
        set(&mut self.other, key, value);
    }

    fn copy(&self, to: &TestServer, more: &[&str]) -> Output {
        let (from, to) = (self.cluster.url(), to.url());
        Tool::new(&["copy", &from, &to, "--max-wait", "1s", "--json"])
            .args(&["--on-conflict", "replace"])
            .args(more)
            .run()
    }
}

#[test]
fn the_owners_value_wins_over_what_an_aborted_move_left() {
    for version in [Version::Redis80, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let mut it = Move::begin(version);
        // Set before there is a mark, or else it would be sent on.
        setslot(&mut it.owner, &["STABLE"]);
        set(&mut it.owner, STALE, "new");
        it.leave(STALE, "old");
        for how in ["scan", "auto", "converge"] {
            let to = TestServer::start(version);
            let output = it.copy(&to, &["--consistency", how, "--verify"]);
            let wanted = if how == "converge" { 4 } else { 0 };
            let output = output.expect_code(wanted);
            let to = &mut to.client();
            assert_eq!(get(to, STALE).as_deref(), Some("new"), "{how}");
            assert_eq!(output.summary()["source"]["not_had"].to_string(), "[]");
        }

        // A key that the owner deleted since may be one that was moved: it comes, and that is said.
        it.leave(DELETED, "old");
        for how in ["scan", "auto", "converge"] {
            let to = TestServer::start(version);
            let output = it.copy(&to, &["--consistency", how, "--verify"]);
            let output = output.expect_code(3);
            let kind = &output.summary()["source"]["consistency"]["kind"];
            assert_eq!(kind, "scan", "{how}: {}", output.stderr);
            let lines = output.summary()["source"]["not_had"].to_string();
            let said = "1 key of slots 100 came from";
            assert!(lines.contains(said), "{how}: {}", output.stderr);
            assert!(!output.stderr.contains("every key current"), "{how}");
            let client = &mut to.client();
            assert_eq!(get(client, STALE).as_deref(), Some("new"), "{how}");
            assert_eq!(get(client, DELETED).as_deref(), Some("old"), "{how}");
            if how == "auto" {
                let urls = [it.cluster.url(), to.url()];
                let diff = Tool::new(&["diff", &urls[0], &urls[1]]).run();
                let diff = diff.expect_code(3);
                let text = String::from_utf8_lossy(&diff.stdout) + diff.stderr.as_str();
                assert!(text.contains(said), "{text}");
                assert!(!text.contains("equal:"), "{text}");
            }
        }
    }
}

/// Both nodes know of the move: of the keys that the owner does not have clients are sent on.
#[test]
fn where_clients_are_sent_on_the_keys_come_without_a_word() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let mut it = Move::begin(version);
    setslot(&mut it.owner, &["STABLE"]);
    set(&mut it.owner, STALE, "new");
    let other = node_id(&mut it.other);
    setslot(&mut it.owner, &["MIGRATING", &other]);
    it.leave(STALE, "old");
    it.leave(DELETED, "moved");
    for how in ["scan", "auto"] {
        let to = TestServer::start(version);
        let output = it.copy(&to, &["--consistency", how, "--verify"]).success();
        let to = &mut to.client();
        assert_eq!(get(to, STALE).as_deref(), Some("new"), "{how}");
        assert_eq!(get(to, DELETED).as_deref(), Some("moved"), "{how}");
        assert_eq!(get(to, OTHER).as_deref(), Some("owner's"), "{how}");
        assert_eq!(output.summary()["source"]["not_had"].to_string(), "[]");
    }
}

#[test]
fn a_mark_that_was_forgotten_costs_nothing_where_no_key_lies() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let mut it = Move::begin(version);
        setslot(&mut it.owner, &["STABLE"]);
        let place = Place::new();
        let more = ["--max-wait", "1s"];
        let output = export(&it.cluster.url(), &place.file("all"), &more).success();
        let kind = &output.summary()["source"]["consistency"]["kind"];
        assert_eq!(kind, "exact", "{}", output.stderr);

        // The node that gives tells, too: then keys may go any time.
        let other = node_id(&mut it.other);
        setslot(&mut it.owner, &["MIGRATING", &other]);
        let output = export(&it.cluster.url(), &place.file("moving"), &more).success();
        let kind = &output.summary()["source"]["consistency"]["kind"];
        assert_ne!(kind, "exact", "{}", output.stderr);
        assert_eq!(dbsize(&mut it.owner) + dbsize(&mut it.other), 201);
    }
}

/// A mark that was forgotten at a third node: clients are sent to the node that the owner names.
#[test]
fn where_the_owner_sends_clients_nobody_else_counts() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 200);
    let at = cluster.client().owners[usize::from(slot_of(STALE.as_bytes()))];
    let mut clients: Vec<Connection> = cluster.primaries().iter().map(|it| it.client()).collect();
    let mut owner = clients.remove(at);
    for (client, value) in clients.iter_mut().zip(["moved", "stale"]) {
        setslot(client, &["IMPORTING", &node_id(&mut owner)]);
        redis::cmd("ASKING").exec(client).expect("ASKING");
        set(client, DELETED, value);
    }
    setslot(&mut owner, &["MIGRATING", &node_id(&mut clients[0])]);
    for how in ["scan", "auto"] {
        let to = TestServer::start(version);
        let copy = ["copy", &cluster.url(), &to.url(), "--max-wait", "1s"];
        Tool::new(&copy)
            .args(&["--consistency", how, "--on-conflict", "replace"])
            .run()
            .success();
        assert_eq!(
            get(&mut to.client(), DELETED).as_deref(),
            Some("moved"),
            "{how}"
        );
    }
}
