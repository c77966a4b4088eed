//! Which changes a server announces, to who tracks and to who watches: what the tool takes for granted
//! when it calls something exact. Whatever is not announced has to be looked at by other means.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Connection, RedisResult, Value};
use redis_migrate::endpoint::{ConnectOptions, ServerAddress};
use redis_migrate::server::tracking::Tracker;

use crate::support::servers::{TestServer, Version, available, require};

/// Commands that change the key `k` or may; an empty line begins anew, `!` changes another key,
/// and `wait` lets time pass. What a version does not know changes nothing there.
const CORE: &str = "
SET k 1
APPEND k x
SETRANGE k 1 y
BITFIELD k SET u8 0 255
INCR k
EXPIRE k 1000
GETEX k PX 2000000
PERSIST k
GETDEL k

SET k 1
!SET j 2
RENAME j k
!SET j 3
COPY j k REPLACE
MOVE k 1

SET k 1
PEXPIRE k 30
wait

RPUSH k a b c
LSET k 0 z
LINSERT k BEFORE z q
LMOVE k k LEFT RIGHT
LTRIM k 0 2
SORT k ALPHA STORE k
LPOP k

SADD k a b c
SREM k a
SPOP k
SUNIONSTORE k k nowhere

ZADD k 1 a 2 b
ZINCRBY k 3 a
ZPOPMIN k
GEOADD k 1 1 here
ZUNIONSTORE k 1 k WEIGHTS 2

PFADD k a b c
PFCOUNT k
PFMERGE k k

HSET k a 1 b 2 c 3 d 4
HINCRBY k a 1
HPEXPIRE k 1000000 FIELDS 1 a
HPERSIST k FIELDS 1 a
HGETEX k EX 1000 FIELDS 1 b
HSETEX k PX 1000000 FIELDS 1 e 1
HGETDEL k FIELDS 1 b
HPEXPIRE k 30 FIELDS 1 c
wait
HDEL k d

XADD k 1-1 a b
XGROUP CREATE k g 0
XREADGROUP GROUP g c STREAMS k >
XCLAIM k g d 0 1-1
XAUTOCLAIM k g e 0 0
XACK k g 1-1
XGROUP CREATECONSUMER k g z
XGROUP DELCONSUMER k g z
XGROUP SETID k g 0
XSETID k 5-5
XDEL k 1-1
XADD k 6-1 a b
XTRIM k MAXLEN 0
XGROUP DESTROY k g

VADD k VALUES 3 1 2 3 one
VADD k VALUES 3 1 5 3 two
VADD k VALUES 3 7 7 7 three CAS
VADD k VALUES 3 9 5 3 two SETATTR {\"a\":1}
VSETATTR k one {\"x\":2}
VREM k two

EVAL redis.call('SET','k','script') 0
EVAL redis.call('DEL','k') 0
";

/// The same for modules.
const MODULES: &str = "
CMS.INITBYDIM k 100 5
CMS.INCRBY k a 1
!CMS.INITBYDIM j 100 5
!CMS.INCRBY j a 5
CMS.MERGE k 1 j

TOPK.RESERVE k 3 50 4 0.9
TOPK.ADD k a b c
TOPK.INCRBY k a 3

BF.RESERVE k 0.01 100
BF.ADD k a
BF.MADD k b c
BF.INSERT k ITEMS d e

CF.RESERVE k 100
CF.ADD k a
CF.ADDNX k b
CF.INSERT k ITEMS c d
CF.INSERTNX k ITEMS e
CF.DEL k a
CF.COMPACT k

TDIGEST.CREATE k
TDIGEST.ADD k 1 2 3
TDIGEST.QUANTILE k 0.5
!TDIGEST.CREATE j
!TDIGEST.ADD j 9
TDIGEST.MERGE k 1 j
TDIGEST.RESET k

JSON.SET k $ {\"a\":1,\"b\":[1,2],\"s\":\"x\",\"t\":true}
JSON.SET k $.a 2
JSON.NUMINCRBY k $.a 1
JSON.NUMMULTBY k $.a 2
JSON.STRAPPEND k $.s \"y\"
JSON.ARRAPPEND k $.b 3
JSON.ARRINSERT k $.b 0 7
JSON.ARRPOP k $.b
JSON.ARRTRIM k $.b 0 0
JSON.TOGGLE k $.t
JSON.CLEAR k $.b
JSON.MERGE k $ {\"z\":1}
JSON.MSET k $.a 9
JSON.FORGET k $.z
JSON.DEL k $.a

TS.CREATE k LABELS a b
TS.ADD k 1 1
TS.MADD k 2 2
TS.INCRBY k 1 TIMESTAMP 3
TS.DECRBY k 1 TIMESTAMP 4
TS.ALTER k LABELS a c
TS.DEL k 2 2

TS.CREATE k
!TS.CREATE j
TS.CREATERULE j k AGGREGATION sum 10
!TS.ADD j 1 1
TS.ADD j 20 1
TS.DEL j 20 20
TS.MADD j 70 1
TS.DELETERULE j k

FT.SUGADD k hello 1
FT.SUGADD k hello 2 INCR
FT.SUGDEL k hello
";

/// What a key is: its value and the moment of its end, roughly.
fn state(client: &mut Connection) -> (Value, bool) {
    let dump = redis::cmd("DUMP").arg("k").query(client).expect("DUMP");
    let left_ms: i64 = redis::cmd("PTTL").arg("k").query(client).expect("PTTL");
    (dump, left_ms > 0)
}

/// Carries the commands out: how many changed the key, and which of those were not announced.
fn unannounced(server: &TestServer, commands: &str) -> (usize, BTreeSet<String>) {
    let mut client = server.client();
    let mut watcher = server.client();
    let address = ServerAddress::parse(&server.url()).expect("an address");
    let tracker = Tracker::start(&ConnectOptions::new(address), None, |_| true);
    let tracker = tracker.expect("the server answers").expect("it tracks");
    let (mut changes, mut silent) = (0, BTreeSet::new());
    for line in commands.lines() {
        let words: Vec<&str> = match line.strip_prefix("EVAL ") {
            Some(rest) => {
                let (script, keys) = rest.rsplit_once(' ').expect("a script and a number");
                vec!["EVAL", script, keys]
            }
            None => line.trim_start_matches('!').split(' ').collect(),
        };
        let run = |client: &mut Connection| -> RedisResult<Value> {
            redis::cmd(words[0]).arg(&words[1..]).query(client)
        };
        if line.is_empty() {
            redis::cmd("FLUSHALL").exec(&mut client).expect("FLUSHALL");
            continue;
        }
        if line.starts_with('!') {
            run(&mut client).unwrap_or_else(|error| panic!("{line}: {error}"));
            continue;
        }
        let before = state(&mut client);
        tracker.barrier();
        tracker.take();
        redis::cmd("WATCH")
            .arg("k")
            .exec(&mut watcher)
            .expect("WATCH");
        if line == "wait" {
            std::thread::sleep(Duration::from_millis(600));
        } else {
            // Some versions do not have it.
            let _ = run(&mut client);
        }
        let mut pipe = redis::pipe();
        let done: Value = pipe.atomic().cmd("PING").query(&mut watcher).expect("EXEC");
        tracker.barrier();
        let heard = tracker.take();
        if state(&mut client) == before {
            continue;
        }
        changes += 1;
        let is_watched = matches!(done, Value::Nil);
        if !heard.names.contains(b"k".as_slice()) || !is_watched {
            let two = if words[0] == "XGROUP" { 2 } else { 1 };
            silent.insert(words[..two].join(" "));
        }
    }
    (changes, silent)
}

#[test]
fn of_the_core_only_groups_and_ids_of_streams_change_unannounced() {
    let silent_ones = [
        "XACK",
        "XAUTOCLAIM",
        "XCLAIM",
        "XGROUP CREATE",
        "XGROUP CREATECONSUMER",
        "XGROUP DELCONSUMER",
        "XGROUP DESTROY",
        "XGROUP SETID",
        "XREADGROUP",
        "XSETID",
    ];
    for version in available() {
        let (changes, silent) = unannounced(&TestServer::start(version), CORE);
        assert!(changes > 40, "{version}: {changes}");
        for name in &silent {
            assert!(silent_ones.contains(&name.as_str()), "{version}: {name}");
        }
        assert!(silent.contains("XACK"), "{version}: {silent:?}");
    }
}

#[test]
fn of_modules_only_these_change_unannounced() {
    let Some(version) = require(Version::Stack74) else {
        return;
    };
    let modules = ["redisbloom", "rejson", "redisearch", "redistimeseries"];
    let builder = TestServer::builder(version);
    let server = modules
        .into_iter()
        .fold(builder, |builder, name| builder.module(name))
        .start();
    let (changes, silent) = unannounced(&server, MODULES);
    assert!(changes > 45, "{changes}");
    let silent: Vec<&str> = silent.iter().map(String::as_str).collect();
    assert_eq!(silent, ["CMS.INCRBY", "FT.SUGDEL"]);
}
