//! What the world does to a server: faults, restarts, failovers, slots on their way, time.

use super::*;

fn server(name: &str) -> Server {
    let release = Release::named(name).expect("a release");
    Server::new(Config::new(release), 1)
}

/// Sends lines; what is answered.
fn say(server: &mut Server, client: ClientId, text: &str, now: u64) -> String {
    server.receive(client, text.replace('\n', "\r\n").as_bytes(), now);
    server.end_turn(now);
    String::from_utf8_lossy(&server.outbox(client)).into_owned()
}

fn get(server: &mut Server, key: &str, now: u64) -> Reply {
    server.execute(0, &[b"GET", key.as_bytes()], now)
}

fn fault(command: &str, nth: u64, in_exec: bool, answer: Answer) -> Fault {
    Fault {
        command: command.to_owned(),
        nth,
        in_exec,
        answer,
    }
}

#[test]
fn a_planned_fault_is_met_once_and_in_its_turn() {
    let mut server = server("redis-7.0");
    let client = server.connect().unwrap();
    server.plan(fault("set", 2, false, Answer::Refuse("BUSY no".to_owned())));
    let said = say(&mut server, client, "SET a 1\nSET b 1\nSET c 1\n", 1);
    assert_eq!(said, "+OK\r\n-BUSY no\r\n+OK\r\n");
    assert_eq!(get(&mut server, "b", 1), Reply::Nil);
    assert_eq!(server.faults_met(), 1);

    server.plan(fault("get", 1, false, Answer::Nil));
    server.plan(fault("client|id", 1, false, Answer::Say(Reply::OK)));
    server.plan(fault("del", 1, false, Answer::DoAndSay(Reply::Int(0))));
    server.plan(fault("ping", 1, false, Answer::Nothing));
    let said = say(
        &mut server,
        client,
        "GET a\nCLIENT ID\nDEL a\nPING\nGET a\n",
        1,
    );
    assert_eq!(said, "$-1\r\n+OK\r\n:0\r\n");
    let client = server.connect().unwrap();

    server.plan(fault("set", 1, true, Answer::Refuse("OOM no".to_owned())));
    let said = say(&mut server, client, "MULTI\nSET a 1\nSET b 2\nEXEC\n", 1);
    assert!(said.ends_with("*2\r\n-OOM no\r\n+OK\r\n"), "{said}");
}

#[test]
fn a_connection_closes_before_or_after() {
    for (answer, value) in [
        (Answer::CloseBefore, Reply::Nil),
        (Answer::CloseAfter, Reply::bulk("1")),
    ] {
        let mut server = server("valkey-9.1");
        let client = server.connect().unwrap();
        server.plan(fault("set", 1, false, answer));
        assert_eq!(
            say(&mut server, client, "PING\nSET a 1\nSET a 2\n", 1),
            "+PONG\r\n"
        );
        assert!(!server.is_open(client));
        assert_eq!(get(&mut server, "a", 1), value);
    }
}

#[test]
fn a_restart_is_another_process_and_may_have_lost_writes() {
    let mut server = server("redis-8.0");
    let client = server.connect().unwrap();
    say(&mut server, client, "SET a 1\n", 1);
    let saved = server.snapshot();
    say(&mut server, client, "SET b 1\n", 1);
    let run_id = server.run_id().to_owned();
    server.restart(None);
    assert_ne!(server.run_id(), run_id);
    assert!(!server.is_open(client));
    assert_eq!(get(&mut server, "b", 2), Reply::bulk("1"));
    server.restart(Some(saved));
    assert_eq!(get(&mut server, "a", 3), Reply::bulk("1"));
    assert_eq!(get(&mut server, "b", 3), Reply::Nil);
    server.die();
    assert!(server.is_dead() && server.connect().is_err());
    server.restart(None);
    assert!(server.connect().is_ok());
}

#[test]
fn a_failover_loses_what_had_not_reached_the_replica() {
    let mut primary = server("redis-7.0");
    let mut replica = server("redis-7.0");
    replica.config_mut().port = 2;
    primary.execute(0, &[b"SET", b"a", b"1"], 1);
    primary.attach(&mut replica);
    let client = primary.connect().unwrap();
    say(&mut primary, client, "SET b 1\nSET c 1\nDEL a\n", 2);
    assert_eq!(primary.lag(&replica), 3);
    // Nobody has it yet, and so WAIT waits.
    assert_eq!(say(&mut primary, client, "WAIT 1 50\nPING\n", 2), "");
    assert_eq!(primary.wakes_at(), Some(52));
    primary.tick(52);
    assert_eq!(primary.outbox(client), b":0\r\n+PONG\r\n");
    assert_eq!(say(&mut primary, client, "WAIT 1 0\n", 60), "");
    assert_eq!(primary.replicate(&mut replica, 1, 61), 1);
    assert_eq!(primary.outbox(client), b"");
    assert_eq!(get(&mut replica, "b", 61), Reply::bulk("1"));

    let id = primary.execute(0, &[b"INFO", b"replication"], 61);
    replica.promote();
    assert!(!replica.is_replica());
    assert_eq!(get(&mut replica, "c", 62), Reply::Nil);
    assert_eq!(get(&mut replica, "a", 62), Reply::bulk("1"));
    let text = |reply: Reply| match reply {
        Reply::Text(text) => text,
        other => panic!("no text: {other:?}"),
    };
    let (old, new) = (
        text(id),
        text(replica.execute(0, &[b"INFO", b"replication"], 62)),
    );
    let line = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name).map(str::to_owned))
            .unwrap()
    };
    assert_eq!(line(&new, "master_replid2:"), line(&old, "master_replid:"));

    // The rest reaches it only if the link still stands.
    assert_eq!(primary.replicate(&mut replica, usize::MAX, 63), 2);
    assert_eq!(primary.outbox(client), b":1\r\n");
}

#[test]
fn time_ends_pauses_and_removes_what_is_over() {
    let mut server = server("redis-6.2");
    let (one, other) = (server.connect().unwrap(), server.connect().unwrap());
    say(
        &mut server,
        one,
        "SET a 1 PX 100\nCLIENT PAUSE 500 WRITE\n",
        1000,
    );
    assert_eq!(say(&mut server, other, "SET b 1\nGET b\n", 1001), "");
    assert_eq!(server.wakes_at(), Some(1101));
    server.tick(1200);
    assert_eq!(
        server.keyspace().len(0),
        1,
        "nothing is removed while writes are paused"
    );
    assert_eq!(say(&mut server, one, "GET a\n", 1200), "$-1\r\n");
    server.tick(1500);
    assert_eq!(server.outbox(other), b"+OK\r\n$1\r\n1\r\n");
    for turn in 0..50 {
        server.tick(1600 + 100 * turn);
    }
    assert!(
        server.keyspace().get(0, b"a").is_none(),
        "the cron finds it"
    );
    assert_eq!(server.wakes_at(), None);
}

#[test]
fn a_key_goes_over_with_its_slot() {
    let release = Release::named("redis-7.0").unwrap();
    let node = |n: u16| ClusterNode {
        id: n.to_string().repeat(40),
        host: "h".to_owned(),
        port: n,
        replica_of: None,
        epoch: u64::from(n),
        has_failed: false,
    };
    let mut servers: Vec<Server> = [1, 2]
        .map(|n| {
            let mut server = Server::new(Config::cluster_node(release, "h", n), u64::from(n));
            let mut cluster = Cluster::new(&node(n).id, vec![node(1), node(2)]);
            cluster.assign(0..=SLOTS - 1, &node(1).id);
            server.set_cluster(cluster);
            server
        })
        .into();
    let slot = slot_of(b"a");
    let (left, right) = servers.split_at_mut(1);
    let (from, to) = (&mut left[0], &mut right[0]);
    let (at_from, at_to) = (from.connect().unwrap(), to.connect().unwrap());
    say(from, at_from, "SET a 1\n", 1);
    from.cluster_mut()
        .unwrap()
        .migrating
        .insert(slot, node(2).id);
    to.cluster_mut().unwrap().importing.insert(slot, node(1).id);
    assert_eq!(say(from, at_from, "GET a\n", 1), "$1\r\n1\r\n");
    assert!(from.migrate(to, 0, b"a", 2) && !from.migrate(to, 0, b"a", 2));
    assert_eq!(
        say(from, at_from, "GET a\n", 2),
        format!("-ASK {slot} h:2\r\n")
    );
    assert_eq!(
        say(to, at_to, "GET a\n", 2),
        format!("-MOVED {slot} h:1\r\n")
    );
    assert_eq!(say(to, at_to, "ASKING\nGET a\n", 2), "+OK\r\n$1\r\n1\r\n");
    for server in [&mut *from, &mut *to] {
        let cluster = server.cluster_mut().unwrap();
        cluster.assign(slot..=slot, &node(2).id);
        assert_eq!(cluster.owner(slot), Some(node(2).id.as_str()));
        assert_eq!(cluster.assigned(), usize::from(SLOTS));
        assert_eq!(cluster.ranges().count(), 3);
    }
    assert_eq!(
        say(from, at_from, "GET a\n", 3),
        format!("-MOVED {slot} h:2\r\n")
    );
    from.conditions_mut().cluster_down = true;
    assert_eq!(
        say(from, at_from, "GET b\n", 3),
        "-CLUSTERDOWN The cluster is down\r\n"
    );
}

#[test]
fn memory_that_is_full_evicts_or_refuses() {
    for (policy, answer) in [("allkeys-lru", "+OK\r\n"), ("noeviction", "-OOM")] {
        let mut server = server("redis-7.0");
        server.config_mut().limits.policy = policy.to_owned();
        let client = server.connect().unwrap();
        say(&mut server, client, "SET old 1\n", 1);
        say(&mut server, client, "SET new 1\n", 2);
        server.config_mut().limits.max_memory = server.used_memory() - 1;
        let said = say(&mut server, client, "SET more 1\n", 3);
        assert!(said.starts_with(answer), "{policy} {said}");
        let is_evicted = get(&mut server, "old", 3) == Reply::Nil;
        assert_eq!(is_evicted, policy == "allkeys-lru");
    }
}

#[test]
fn there_are_only_so_many_clients_and_so_many_bytes_for_each() {
    let mut server = server("redis-7.0");
    server.config_mut().limits.max_clients = 1;
    server.config_mut().limits.max_output = 100;
    let client = server.connect().unwrap();
    assert_eq!(
        server.connect(),
        Err(b"-ERR max number of clients reached\r\n".to_vec())
    );
    server.execute(0, &[b"SET", b"a", &[b'x'; 200]], 1);
    assert_eq!(say(&mut server, client, "GET a\n", 1), "");
    assert!(!server.is_open(client));
    server.disconnect(client);
    assert!(server.connect().is_ok());
}

#[test]
fn states_in_which_nothing_is_served() {
    let mut server = server("valkey-8.1");
    let client = server.connect().unwrap();
    for (set, refused, served) in [
        (
            Conditions {
                loading: true,
                ..Conditions::default()
            },
            "GET a",
            "INFO server",
        ),
        (
            Conditions {
                busy: true,
                ..Conditions::default()
            },
            "GET a",
            "SCRIPT KILL",
        ),
        (
            Conditions {
                misconf: true,
                ..Conditions::default()
            },
            "SET a 1",
            "GET a",
        ),
        (
            Conditions {
                master_down: true,
                ..Conditions::default()
            },
            "GET a",
            "INFO server",
        ),
    ] {
        *server.conditions_mut() = set;
        let said = say(&mut server, client, &format!("{refused}\n"), 1);
        let code = said.split(' ').next().unwrap_or_default();
        assert!(
            ["-LOADING", "-BUSY", "-MISCONF", "-MASTERDOWN"].contains(&code),
            "{said}"
        );
        let said = say(&mut server, client, &format!("{served}\n"), 1);
        assert!(!said.starts_with('-'), "{served} {said}");
    }
}

#[test]
fn a_sentinel_wants_its_password_and_names_the_primary() {
    let mut sentinel = Sentinel::of("main", "h", 7);
    sentinel.password = Some("pw".to_owned());
    let id = sentinel.connect();
    sentinel.receive(id, b"SENTINEL GET-MASTER-ADDR-BY-NAME main\r\nAUTH pw\r\n");
    sentinel.receive(id, b"SENTINEL GET-MASTER-ADDR-BY-NAME main\r\n");
    let said = sentinel.outbox(id);
    assert_eq!(
        said,
        b"-NOAUTH Authentication required.\r\n+OK\r\n*2\r\n$1\r\nh\r\n$1\r\n7\r\n"
    );
    sentinel.disconnect(id);
    assert!(!sentinel.is_open(id));
}

/// A value of a module that would end an old server's process does so here.
#[test]
fn an_old_server_does_not_live_through_an_unknown_module() {
    let module = Value::Module(Module {
        id: module_id("ReJSON-RL", 3),
        data: vec![5, 1, b'x'],
    });
    for name in ["redis-5.0", "redis-6.0", "redis-6.2"] {
        let mut server = server(name);
        let payload = dump(server.release(), &module, true);
        server.execute(0, &[b"RESTORE", b"k", b"0", &payload], 1);
        assert_eq!(server.is_dead(), name != "redis-6.2", "{name}");
    }
}
