//! A slot that stays half moved: its keys lie on two nodes. What a run cannot see of it, or cannot
//! read there, it says.

use std::time::Duration;

use crate::support::answers::Answer;
use crate::support::cluster::{TestCluster, info, node_id, slot_of};
use crate::support::resp_proxy::{RespProxy, Rule};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

use super::place::{Place, dbsize, export, fill, imported};

/// Keys of the slot, half of which are moved.
const KEYS: u64 = 40;

/// Puts keys into a slot of this node, and moves half of them.
fn move_half(from: &TestServer, to: &TestServer) {
    let slot = slot_of(b"{here}");
    let (mut at_source, mut at_target) = (from.client(), to.client());
    let (source, target) = (node_id(&mut at_source), node_id(&mut at_target));
    let names: Vec<String> = (0..KEYS).map(|i| format!("{{here}}{i}")).collect();
    for name in &names {
        let mut set = redis::cmd("SET");
        set.arg(name).arg(name).exec(&mut at_source).expect("SET");
    }
    let set = |client: &mut redis::Connection, state: &str, id: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(state).arg(id);
        command.exec(client).expect("CLUSTER SETSLOT");
    };
    set(&mut at_target, "IMPORTING", &source);
    set(&mut at_source, "MIGRATING", &target);
    let mut migrate = redis::cmd("MIGRATE");
    migrate
        .arg("127.0.0.1")
        .arg(to.port())
        .arg("")
        .arg(0)
        .arg(5000);
    migrate
        .arg("KEYS")
        .arg(&names[..names.len() / 2])
        .exec(&mut at_source)
        .expect("MIGRATE");
}

fn holder(cluster: &TestCluster) -> usize {
    cluster.client().owners[usize::from(slot_of(b"{here}"))]
}

/// The cluster's URL for a user with this rule.
fn user(cluster: &TestCluster, rule: &str) -> String {
    for node in &cluster.nodes {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg("some").arg(&["reset", "on", ">pw"]);
        set.arg(rule.split(' ').collect::<Vec<_>>());
        set.exec(&mut node.client()).expect("ACL SETUSER");
    }
    cluster.url().replacen("://", "://some:pw@", 1)
}

#[track_caller]
fn assert_not_exact(output: &Output, how: &str) {
    let reached = &output.summary()["source"]["consistency"]["kind"];
    assert_ne!(reached, "exact", "{how}: {}", output.stderr);
}

/// Half of the keys are with the node that imports the slot, and their owner does not send clients
/// there: nobody knows whether they are left over.
#[track_caller]
fn assert_left_over(output: &Output, how: &str) {
    let lines = output.summary()["source"]["not_had"].to_string();
    let said = format!(
        "{} keys of slots {} came from",
        KEYS / 2,
        slot_of(b"{here}")
    );
    assert!(lines.contains(&said), "{how}: {}", output.stderr);
}

fn all_keys(cluster: &TestCluster) -> u64 {
    let nodes = cluster.primaries().iter();
    nodes.map(|node| dbsize(&mut node.client())).sum()
}

#[test]
fn keys_of_a_half_moved_slot_are_read_or_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 2, 0);
    fill(&cluster, 300);
    let from = holder(&cluster);
    let target = &cluster.nodes[1 - from];
    move_half(&cluster.nodes[from], target);
    let total = all_keys(&cluster);
    let place = Place::new();
    let file = place.file("all");

    // Who may not say ASKING is told which keys that costs.
    let forbidden = user(&cluster, "~* &* +@all -asking");
    for how in ["scan", "auto"] {
        let more = ["--consistency", how, "--max-wait", "1s"];
        let output = export(&forbidden, &place.file(how), &more).expect_code(3);
        assert_eq!(output.summary()["source"]["failed"], KEYS / 2, "{how}");
        for i in 0..KEYS / 2 {
            let name = format!("{{here}}{i}\"");
            assert!(output.stderr.contains(&name), "{how}: {}", output.stderr);
        }
        assert!(output.stderr.contains("+asking"), "{}", output.stderr);
        let server = imported(version, &[place.file(how)]);
        assert_eq!(dbsize(&mut server.client()), total - KEYS / 2, "{how}");
    }

    // One that is refused once is asked for again.
    let proxy = RespProxy::start(target.addr());
    let (at, through) = (target.addr(), proxy.url());
    let map = format!("{at}={}", through.trim_start_matches("redis://"));
    for answer in [Answer::Unknown, Answer::Nil] {
        let rule = Rule {
            command: "ASKING".to_owned(),
            from: 2,
            times: 3,
            answer,
            executed: false,
            in_exec: false,
            delay: Duration::ZERO,
        };
        proxy.begin(vec![rule]);
        let more = ["--consistency", "scan", "--node-map", &map];
        export(&cluster.url(), &file, &more).success();
        assert_eq!(proxy.fired(), 3);
        let server = imported(version, std::slice::from_ref(&file));
        assert_eq!(dbsize(&mut server.client()), total);
    }
    let output = run(&["diff", &file, &forbidden], b"");
    assert_ne!(output.code(), Some(0), "{}", output.stderr);

    // Who may not say CLUSTER NODES does not know of the slot, and says so.
    let blind = user(&cluster, "~* &* +@all -cluster|nodes");
    for how in ["scan", "auto", "converge", "pause"] {
        let output = export(&blind, &file, &["--consistency", how]);
        let output = output.expect_code(3).expect_stderr("CLUSTER NODES: NOPERM");
        assert_not_exact(&output, how);
        let lines = output.summary()["source"]["not_had"].to_string();
        assert!(
            lines.contains("keys of such slots may be missing"),
            "{lines}"
        );
    }
    every_verb_says_what_is_missing(&place, &file, version);

    // The least rights that are documented are enough.
    let least = "~* -@all +scan +dump +pttl +select +cluster|slots +cluster|nodes +asking";
    export(&user(&cluster, least), &file, &["--no-functions"]).success();
    let server = imported(version, &[file]);
    assert_eq!(dbsize(&mut server.client()), total);
}

/// Nobody who reads the archive later takes it for all of its cluster.
#[track_caller]
fn every_verb_says_what_is_missing(place: &Place, file: &str, version: Version) {
    const MISSING: &str = "keys of such slots may be missing";
    let (rdb, salvaged) = (place.file("r.rdb"), place.file("s.rmz"));
    let server = TestServer::start(version);
    let url = server.url();
    let convert = ["convert", file, &rdb, "--to", "rdb"];
    for (verb, code) in [
        (&["verify", file][..], 0),
        (&["verify", file, "--quick"], 0),
        (&["inspect", file], 0),
        (&["list", file], 0),
        (&["report", file, "-o", &place.file("page.html")], 0),
        (&["import", &url, file, "--dry-run"], 0),
        (&["import", &url, file], 0),
        (
            &[
                "import",
                &url,
                file,
                "--jobs",
                "3",
                "--on-conflict",
                "replace",
            ],
            0,
        ),
        (&["doctor", &url, file], 0),
        (&["diff", file, &url], 3),
        (&["verify", file, "--against", &url], 3),
        (&convert, 0),
        (&["convert", file, &place.file("lines"), "--to", "jsonl"], 0),
        (&["salvage", file, "-o", &salvaged], 0),
        (&["verify", &salvaged], 0),
    ] {
        let output = run(verb, b"").expect_code(code);
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            output.stderr
        );
        assert!(all.contains(MISSING), "{verb:?}: {all}");
        assert!(!all.contains("complete and intact"), "{verb:?}: {all}");
        assert!(!all.contains("equal: "), "{verb:?}: {all}");
    }
    let bytes = std::fs::read(&rdb).expect("an RDB file");
    let mark = b"redis-migrate-not-whole";
    assert!(bytes.windows(mark.len()).any(|part| part == mark));
    let output = run(&["verify", file, "--json"], b"").success();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("\"lacks\":[\"(a server) does not tell"),
        "{text}"
    );
}

/// The node that gives does not know that the slot is on its way, because that was called off there, or
/// because a replica took its place. Where the slot goes there are no slots yet.
#[test]
fn only_the_node_that_a_slot_goes_to_tells_of_it() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 1, 1);
    let mut target = TestServer::builder(version).cluster().start();
    join(&cluster, &target);
    fill(&cluster, 100);
    let [source, replica] = cluster.nodes.as_slice() else {
        panic!("a primary and its replica");
    };
    move_half(source, &target);
    redis::cmd("CLUSTER")
        .arg("SETSLOT")
        .arg(slot_of(b"{here}"))
        .arg("STABLE")
        .exec(&mut source.client())
        .expect("CLUSTER SETSLOT");
    let place = Place::new();
    let file = place.file("all");
    for (how, code) in [("scan", 3), ("pause", 3)] {
        let more = ["--consistency", how, "--max-wait", "1s"];
        let output = export(&cluster.url(), &file, &more).expect_code(code);
        assert_not_exact(&output, how);
        assert_left_over(&output, how);
        let server = imported(version, std::slice::from_ref(&file));
        assert_eq!(dbsize(&mut server.client()), 100 + KEYS, "{how}");
    }

    redis::cmd("CLUSTER")
        .arg("FAILOVER")
        .exec(&mut replica.client())
        .expect("CLUSTER FAILOVER");
    let id = node_id(&mut replica.client());
    for node in cluster.nodes.iter().chain([&target]) {
        let client = &mut node.client();
        wait_until("the replica has taken over", || {
            let mut nodes = redis::cmd("CLUSTER");
            let text: String = nodes.arg("NODES").query(client).expect("CLUSTER NODES");
            let mut lines = text.lines();
            lines.any(|line| line.starts_with(&id) && line.ends_with("-16383"))
        });
    }
    // Where the slot goes it may be that nobody serves it any more (CLUSTERDOWN).
    for how in ["scan", "auto"] {
        let more = ["--consistency", how, "--max-wait", "1s"];
        let output = export(&cluster.url(), &file, &more);
        assert_not_exact(&output, how);
        let failed = output.summary()["source"]["failed"].as_u64();
        let failed = failed.expect("a number");
        let server = imported(version, std::slice::from_ref(&file));
        let arrived = dbsize(&mut server.client());
        assert!(arrived + failed >= 100 + KEYS, "{how}: {}", output.stderr);
        if failed == 0 {
            assert_left_over(&output, how);
        }
        output.expect_code(3);
    }

    // It is not to be asked any more, and the others do not take it for dead yet.
    target.kill();
    let how = ["--consistency", "auto", "--max-wait", "1s"];
    let output = export(&cluster.url(), &file, &how)
        .expect_code(3)
        .expect_stderr("cannot be asked whether slots are migrating to it");
    assert_not_exact(&output, "auto");
}

/// A node without slots joins a cluster.
fn join(cluster: &TestCluster, node: &TestServer) {
    redis::cmd("CLUSTER")
        .arg("MEET")
        .arg("127.0.0.1")
        .arg(node.port())
        .exec(&mut cluster.nodes[0].client())
        .expect("CLUSTER MEET");
    let known = format!("cluster_known_nodes:{}\r\n", cluster.nodes.len() + 1);
    for node in cluster.nodes.iter().chain([node]) {
        let client = &mut node.client();
        wait_until("all nodes know each other", || {
            let text = info(client);
            text.contains(&known) && text.contains("cluster_state:ok")
        });
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited for a minute: {what}");
}
