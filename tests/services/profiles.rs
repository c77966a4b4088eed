//! Servers that forbid what managed services forbid. Data moves all the same, and what that costs
//! is said in one line, and nothing where it costs nothing.
//!
//! Whole commands are taken away from everybody, where the services answer "unknown command", or
//! from the user by ACL, where they answer NOPERM; subcommands by ACL. What each allows stands in
//! the vendors' own lists of restricted commands.

use std::path::PathBuf;

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::servers::{TestServer, Version, available};
use crate::support::tool::{Output, run};

/// What a service forbids.
struct Profile {
    /// Unknown to everybody.
    unknown: &'static [&'static str],
    /// Refused to the user: ACL words, from 7.0 on and before, where subcommands can only be
    /// given and not taken.
    refused: &'static str,
    refused_before_7: &'static str,
    /// Whether there is more than database 0.
    databases: bool,
    /// Whether function libraries move.
    functions: bool,
    /// Whether a run can be exact as of one instant.
    exact: bool,
    /// What a run says of the source, from 7.0 on and before: a part of each line.
    says: &'static [&'static str],
    says_before_7: &'static [&'static str],
}

const PLAIN: Profile = Profile {
    unknown: &[],
    refused: "",
    refused_before_7: "",
    databases: true,
    functions: true,
    exact: true,
    says: &[],
    says_before_7: &[],
};

/// A server with every type, made elsewhere, as the service would have it.
struct Service {
    server: TestServer,
    url: String,
}

impl Profile {
    fn start(&self, version: Version, rdb: Option<&PathBuf>) -> Service {
        let refused = match version.is_at_least_7() {
            true => self.refused,
            false => self.refused_before_7,
        };
        let mut builder = TestServer::builder(version)
            .user("default on nopass ~* &* +@all")
            .user(&format!("customer on >pw ~* &* +@all {refused}"));
        if version == Version::Redis60 {
            // Channels have no rules yet.
            builder = TestServer::builder(version)
                .user("default on nopass ~* +@all")
                .user(&format!("customer on >pw ~* +@all {refused}"));
        }
        for command in self.unknown {
            builder = builder.args(["--rename-command", command, ""]);
        }
        if !self.databases {
            builder = builder.option("--databases", "1");
        }
        if let Some(rdb) = rdb {
            builder = builder.rdb(rdb);
        }
        let server = builder.start();
        let url = format!("redis://customer:pw@127.0.0.1:{}", server.port());
        Service { server, url }
    }

    /// Every type as an RDB file. The directory goes with the server.
    fn data(&self, version: Version) -> (TestServer, PathBuf) {
        let server = TestServer::start(version);
        let mut client = server.client();
        fill_every_type(&mut client, version);
        if !self.databases {
            for db in 1..16 {
                redis::cmd("FLUSHDB")
                    .exec(&mut server.client_db(db))
                    .unwrap();
            }
        }
        redis::cmd("SAVE").exec(&mut server.client()).unwrap();
        let file = server.path().join("dump.rdb");
        (server, file)
    }

    fn check(&self) {
        for version in available() {
            let (_made, rdb) = self.data(version);
            let source = self.start(version, Some(&rdb));
            let keys: u64 = redis::cmd("DBSIZE")
                .query(&mut source.server.client())
                .unwrap();
            assert!(keys > 50, "{version}: {keys} keys of every type");
            self.check_refusals(version, &source);
            let says = match version.is_at_least_7() {
                true => self.says,
                false => self.says_before_7,
            };

            let export = run(&["export", &source.url], b"").success();
            self.check_words(version, &export, says);
            let destination = self.start(version, None);
            let import = run(&["import", &destination.url], &export.stdout).success();
            self.check_words(version, &import, &[]);
            self.compare(version, &source.server, &destination.server);

            let destination = self.start(version, None);
            let copy = run(&["copy", &source.url, &destination.url], b"").success();
            self.check_words(version, &copy, says);
            self.compare(version, &source.server, &destination.server);
        }
    }

    /// The service is what it is said to be.
    fn check_refusals(&self, version: Version, service: &Service) {
        let url = service.url.as_str();
        let mut client = redis::Client::open(url).unwrap().get_connection().unwrap();
        for command in self.unknown {
            let error = redis::cmd(command).exec(&mut client).unwrap_err();
            assert!(
                error.to_string().contains("unknown command"),
                "{version}: {error}"
            );
        }
        let refused = self
            .refused
            .split(' ')
            .filter_map(|word| word.strip_prefix('-'));
        for command in refused.filter(|command| !command.contains('|')) {
            if !version.is_at_least_7() && !self.refused_before_7.contains(command) {
                continue;
            }
            // The number of arguments is looked at before the right to the command.
            let errors: Vec<String> = (0..6)
                .filter_map(|count| {
                    let mut command = redis::cmd(command);
                    command.arg(&["0"; 6][..count]);
                    command.exec(&mut client).err()
                })
                .map(|error| error.to_string())
                .collect();
            let is_refused = errors
                .iter()
                .any(|error| error.contains("permission") || error.contains("unknown"));
            let is_partly = self.refused.contains(&format!("+{command}|"));
            assert!(is_refused || is_partly, "{version}: {command}: {errors:?}");
        }
    }

    /// One line for each thing that costs something, and none else.
    fn check_words(&self, version: Version, output: &Output, says: &[&str]) {
        let mut lines: Vec<&str> = output.stderr.lines().collect();
        let last = lines.pop().expect("a last line");
        for part in says {
            let count = lines.iter().filter(|line| line.contains(part)).count();
            assert_eq!(count, 1, "{version}: {part:?} in\n{}", output.stderr);
        }
        assert_eq!(lines.len(), says.len(), "{version}:\n{}", output.stderr);
        let exact = !last.contains("import") && self.exact;
        assert_eq!(last.contains("exact as of"), exact, "{version}: {last}");
    }

    fn compare(&self, version: Version, source: &TestServer, destination: &TestServer) {
        let options = Options {
            functions: self.functions,
            ..Options::default()
        };
        let found = differences(&mut source.client(), &mut destination.client(), &options);
        assert!(found.is_empty(), "{version}: {found:?}");
    }
}

#[test]
fn like_elasticache() {
    let unknown = &[
        "MIGRATE",
        "CONFIG",
        "SYNC",
        "PSYNC",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "DEBUG",
        "REPLICAOF",
        "SLAVEOF",
        "SHUTDOWN",
    ];
    Profile { unknown, ..PLAIN }.check();
}

#[test]
fn like_redis_cloud() {
    Profile {
        refused: "-select -role -client|pause -client|unpause -psync -sync -replconf -replicaof \
                  -migrate -bgsave -config",
        refused_before_7: "-select -role -client +client|tracking +client|id -psync -sync \
                           -replconf -replicaof -migrate -bgsave -config",
        databases: false,
        ..PLAIN
    }
    .check();
}

#[test]
fn like_upstash() {
    Profile {
        refused: "-client +client|getname +client|id +client|info +client|list +client|setname \
                  -object -psync -sync -config -function +function|delete +function|flush \
                  +function|kill +function|list +function|load +function|stats",
        refused_before_7: "-client +client|getname +client|id +client|list +client|setname \
                           -object -psync -sync -config",
        exact: false,
        says: &["the source does not report changes"],
        says_before_7: &["the source does not report changes"],
        ..PLAIN
    }
    .check();
}

#[test]
fn like_oci() {
    Profile {
        refused: "-eval -evalsha -eval_ro -evalsha_ro -script -fcall -fcall_ro -function -acl \
                  -cluster -module -psync -sync",
        refused_before_7: "-eval -evalsha -script -acl -cluster -module -psync -sync",
        functions: false,
        says: &["function libraries are not read"],
        ..PLAIN
    }
    .check();
}

#[test]
fn like_memorystore_for_valkey() {
    Profile {
        refused: "-xsetid -config +config|help -client|pause -client|unpause -psync -sync \
                  -replconf -save -bgsave -debug",
        refused_before_7: "-xsetid -config -client +client|tracking +client|id -psync -sync \
                           -replconf -save -bgsave -debug",
        ..PLAIN
    }
    .check();
}

#[test]
fn like_aiven() {
    let unknown = &[
        "CONFIG", "ROLE", "COMMAND", "MONITOR", "ACL", "CLUSTER", "DEBUG", "MIGRATE", "SAVE",
        "BGSAVE",
    ];
    Profile { unknown, ..PLAIN }.check();
}
