//! Function libraries, and the scripts that the tool sends.

use redis_migrate_world::server::Since;

use super::play::{Pair, Step, script};
use super::real;

fn step(words: &[&[u8]]) -> Step {
    Step {
        client: 0,
        words: words.iter().map(|word| word.to_vec()).collect(),
    }
}

const ONE: &[u8] = b"#!lua name=one\nredis.register_function('f', function() return 1 end)";
const OTHER: &[u8] = b"#!lua name=other\nredis.register_function('g', function() return 1 end)";
const CLASH: &[u8] = b"#!lua name=clash\nredis.register_function('f', function() return 2 end)";
const TABLE: &[u8] =
    b"#!lua name=table\nredis.register_function{function_name='h', callback=function() return 1 end}";
const NEW: &[u8] = b"#!lua name=one\nredis.register_function('f2', function() return 1 end)";

#[test]
fn libraries_are_kept_alike() {
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R70))
    {
        let mut pair = Pair::new(release);
        let list = step(&[b"FUNCTION", b"LIST", b"WITHCODE"]);
        let dump = step(&[b"FUNCTION", b"DUMP"]);
        let load = |code: &[u8]| step(&[b"FUNCTION", b"LOAD", code]);
        pair.hold(&[
            load(ONE),
            load(ONE),
            load(CLASH),
            step(&[b"FUNCTION", b"LOAD", b"REPLACE", ONE]),
            step(&[b"FUNCTION", b"LOAD", b"FOO", ONE]),
            list.clone(),
            dump.clone(),
            step(&[b"FUNCTION", b"LIST", b"LIBRARYNAME", b"one", b"WITHCODE"]),
            step(&[b"FUNCTION", b"LIST", b"LIBRARYNAME", b"no*"]),
            step(&[b"FUNCTION", b"DELETE", b"one"]),
            step(&[b"FUNCTION", b"DELETE", b"one"]),
            dump.clone(),
        ]);
        for (codes, before, policy) in [
            (&[ONE][..], &[][..], &b"APPEND"[..]),
            (&[ONE], &[ONE], b"APPEND"),
            (&[NEW], &[ONE], b"REPLACE"),
            (&[NEW], &[ONE, OTHER], b"FLUSH"),
            (&[CLASH], &[ONE], b"REPLACE"),
            (&[CLASH], &[ONE], b"APPEND"),
            (&[TABLE], &[ONE], b"APPEND"),
            (&[CLASH], &[ONE], b"FOO"),
        ] {
            let mut body = Vec::new();
            for code in codes {
                body.push(0xf5);
                let length = u16::try_from(code.len()).expect("a short code") | 0x4000;
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(code);
            }
            body.extend_from_slice(&release.rdb.to_le_bytes());
            let crc = redis_migrate_world::server::crc64(&body);
            body.extend_from_slice(&crc.to_le_bytes());
            let mut steps: Vec<Step> = before.iter().map(|code| load(code)).collect();
            steps.push(step(&[b"FUNCTION", b"RESTORE", &body, policy]));
            steps.push(step(&[b"FUNCTION", b"LIST"]));
            pair.hold(&steps);
        }
    }
}

/// As the tool's texts are.
const BATCH: &str = "local out, at = {}, 1 while at <= #ARGV do local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) at = at + count + 1 end return out";
const DELETE_IF_SAME: &str = "pcall(function() redis.replicate_commands() end) local at = \
    redis.call('PTTL', KEYS[1]) if at >= 0 then local now = redis.call('TIME') at = at + now[1] * 1000 \
    + math.floor(now[2] / 1000) end if math.abs(at - ARGV[2]) > 2 then return 0 end if \
    redis.call('DUMP', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const DELETE_IF_SET_SO: &str = "local facts, has = redis.call('XINFO', 'STREAM', KEYS[1]), {} for n \
    = 1, #facts, 2 do has[facts[n]] = facts[n + 1] end for n, name in ipairs({'idmp-duration', \
    'idmp-maxsize', 'iids-added'}) do if has[name] ~= tonumber(ARGV[n]) then return 0 end end if \
    has['groups'] ~= 0 then return 0 end return redis.call('DEL', KEYS[1])";

fn eval(script: &str, rest: &[&str]) -> Step {
    let mut words: Vec<&[u8]> = vec![b"EVAL", script.as_bytes()];
    words.extend(rest.iter().map(|word| word.as_bytes()));
    step(&words)
}

#[test]
fn scripts_do_alike() {
    for release in real::available() {
        let mut pair = Pair::new(release);
        let mut with_flags = vec![BATCH.to_owned()];
        if release.has(Since::R70) {
            with_flags.push(format!(
                "#!lua flags=allow-cross-slot-keys,no-writes\n{BATCH}"
            ));
        } else {
            pair.hold(&[eval("#!lua flags=no-writes\nreturn 1", &["0"])]);
        }
        for batch in &with_flags {
            let mut steps = script("SET a 1\nHSET h f v\nSADD s x\nXADD x 1-1 a b\nZADD z 1.5 m");
            for words in [
                &[][..],
                &[
                    "2", "GET", "a", "2", "GET", "nokey", "2", "DUMP", "nokey", "1", "NOSUCH",
                ],
                &[
                    "2", "GET", "h", "1", "GET", "2", "HGETALL", "h", "2", "SMEMBERS", "s",
                ],
                &[
                    "3", "XINFO", "STREAM", "nokey", "3", "ZSCORE", "z", "m", "2", "PTTL", "a",
                ],
                &[
                    "2", "INFO", "keyspace", "2", "TYPE", "a", "1", "MULTI", "3", "SET", "a", "2",
                    "2", "GET", "a",
                ],
                &["2", "SELECT", "3", "2", "GET", "a", "1", "DBSIZE"],
            ] {
                steps.push(eval(batch, &[&["0"][..], words].concat()));
            }
            steps.extend(script("GET a\nSET b 1"));
            pair.hold(&steps);
        }
        let compared = [
            eval(DELETE_IF_SAME, &["1", "nokey", "", "-2"]),
            eval(DELETE_IF_SAME, &["1", "nokey", "", "-1"]),
            step(&[b"SET", b"a", b"1"]),
            eval(DELETE_IF_SAME, &["1", "a", "other", "-1"]),
            eval(DELETE_IF_SAME, &["1", "a", "other", "32503680000000"]),
            step(&[b"PEXPIREAT", b"a", b"32503680000000"]),
            eval(DELETE_IF_SAME, &["1", "a", "other", "32503680000000"]),
            eval(DELETE_IF_SAME, &["1", "a", "other", "-1"]),
            step(&[b"EXISTS", b"a"]),
        ];
        pair.hold(&compared);
        if release.has(Since::R86) {
            let mut steps = script("XADD s 1-1 a b");
            steps.push(eval(DELETE_IF_SET_SO, &["1", "nokey"]));
            steps.push(eval(DELETE_IF_SET_SO, &["1", "s", "100", "100", "1"]));
            steps.push(eval(DELETE_IF_SET_SO, &["1", "s", "100", "100", "0"]));
            steps.extend(script("EXISTS s\nXADD s 1-1 a b\nXGROUP CREATE s g 0"));
            steps.push(eval(DELETE_IF_SET_SO, &["1", "s", "100", "100", "0"]));
            steps.extend(script("EXISTS s"));
            pair.hold(&steps);
        }
    }
}
