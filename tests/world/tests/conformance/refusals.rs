//! ACL rules, memory that is full, and clients that are too many.

use redis_migrate_world::server::{Commands, Config, Since, User};

use super::play::{Pair, script};
use super::real;

#[test]
fn rules_of_users_are_told_alike() {
    let scripts = [
        "AUTH u pw\nGET a\nGET b\nSET a 1\nTIME\nDUMP b\nMULTI\nGET a\nTIME\nEXEC\nMULTI\nGET b\nEXEC",
        "AUTH u wrong\nAUTH u pw\nACL WHOAMI\nEXISTS a b\nRENAME a b\nCLIENT ID\nCLIENT TRACKING ON\nSELECT 1\nSCAN 0",
        "HELLO 2 AUTH u pw\nCONFIG GET maxmemory\nCLIENT LIST\nPING\nRESTORE b 0 x\nINFO commandstats",
        "AUTH u pw\nEVAL 'return redis.pcall('GET', KEYS[1])' 1 b\nXREAD STREAMS b 0\nOBJECT FREQ b",
    ];
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R60))
    {
        let acl = match release.has(Since::R70) {
            true => "user u on >pw ~a* +@all -time -config -client|tracking -client|list",
            false => "user u on >pw ~a* +@all -time -config",
        };
        let directory =
            std::env::temp_dir().join(format!("world-acl-{}-{}", std::process::id(), release.name));
        std::fs::write(
            &directory,
            format!("user default on nopass ~* &* +@all\n{acl}\n")
                .replace(if release.has(Since::R62) { "\0" } else { "&* " }, ""),
        )
        .expect("a file");
        let mut user = User::new("u", Some("pw"));
        user.keys = vec!["a*".to_owned()];
        let mut denied = vec!["time".to_owned(), "config".to_owned()];
        if release.has(Since::R70) {
            denied.extend(["client|tracking".to_owned(), "client|list".to_owned()]);
        }
        user.commands = Commands::AllBut(denied);
        let config = Config {
            users: vec![user],
            ..Config::new(release)
        };
        let path = directory.to_string_lossy().into_owned();
        let mut pair = Pair::with(release, &["--aclfile", &path], config);
        for text in scripts {
            pair.hold(&script(text));
        }
        let _ = std::fs::remove_file(&directory);
    }
}

#[test]
fn rules_for_databases() {
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::V91))
    {
        let path = std::env::temp_dir().join(format!("world-db-acl-{}", std::process::id()));
        std::fs::write(
            &path,
            "user default on nopass ~* &* +@all alldbs\nuser u on >pw ~* +@all resetdbs db=0,2\n",
        )
        .expect("a file");
        let mut user = User::new("u", Some("pw"));
        user.databases = Some(vec![0, 2]);
        let config = Config {
            users: vec![user],
            ..Config::new(release)
        };
        let path = path.to_string_lossy().into_owned();
        let mut pair = Pair::with(release, &["--aclfile", &path], config);
        for text in [
            "AUTH u pw\nSELECT 1\nSELECT 2\nSET a 1\nMOVE a 0\nMOVE a 1\nSWAPDB 0 1\nSWAPDB 0 2\nFLUSHDB\nFLUSHALL",
            "SELECT 1\nAUTH u pw\nGET a\nSCAN 0\nDBSIZE\nPING\nSELECT 0\nGET a\nCOPY a b DB 1\nACL DRYRUN u SELECT 1",
        ] {
            pair.hold(&script(text));
        }
        let _ = std::fs::remove_file(&path);
    }
}

#[test]
fn passwords() {
    for release in real::available() {
        let config = Config {
            users: vec![User::new("default", Some("pw"))],
            ..Config::new(release)
        };
        let mut pair = Pair::with_password(release, &["--requirepass", "pw"], config, "pw");
        for text in [
            "PING\nGET a\nNOSUCH\nGET\nMULTI\nAUTH wrong\nAUTH pw\nPING\nSET a 1",
            "AUTH default pw\nPING",
        ] {
            pair.hold(&script(text));
        }
        if release.has(Since::R60) {
            pair.hold(&script(
                "HELLO 3\nHELLO 3 AUTH default wrong\nHELLO 3 AUTH default pw\nPING",
            ));
        }
    }
}

/// One byte of memory is too little for anything, on both sides.
#[test]
fn full_memory() {
    for release in real::available() {
        let mut config = Config::new(release);
        config.limits.max_memory = 1;
        let mut pair = Pair::with(release, &["--maxmemory", "1"], config);
        for text in [
            "SET a 1\nGET a\nDEL a\nRESTORE a 0 x\nPING\nEXPIRE a 1\nRPUSH a 1\nDUMP a\nSCAN 0\nXADD s 1-1 a b",
            "MULTI\nGET a\nEXEC\nMULTI\nSET a 1\nEXEC\nMULTI\nDISCARD\nMULTI\nEXEC\nMULTI\nDUMP a\nDISCARD",
            "EVAL 'return redis.pcall('SET', KEYS[1], ARGV[1])' 1 a b\nEVAL 'return redis.pcall('GET', KEYS[1])' 1 a\nEVAL 'return 1' 0",
            "RENAME a b\nHSET h a 1\nGETSET a 1\nXGROUP CREATE s g 0 MKSTREAM\nFLUSHALL\nSELECT 1\nCONFIG GET maxmemory",
        ] {
            pair.hold(&script(text));
        }
    }
}

#[test]
fn renamed_commands_are_unknown() {
    for release in real::available() {
        let mut config = Config::new(release);
        config.refused = vec![redis_migrate_world::server::Refusal {
            command: "config".to_owned(),
            text: None,
        }];
        let mut pair = Pair::with(release, &["--rename-command", "CONFIG", ""], config);
        pair.hold(&script(
            "CONFIG GET maxmemory\nMULTI\nCONFIG GET maxmemory\nEXEC\nCOMMAND INFO nosuch",
        ));
    }
}
