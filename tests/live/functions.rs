//! Function libraries, one by one.

use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

const ONE: &str = "#!lua name=one\nredis.register_function('f1', function() return 1 end)";
const TWO: &str = "#!lua name=two\nredis.register_function('f2', function() return 2 end)";
const OTHER_ONE: &str = "#!lua name=one\nredis.register_function('f1', function() return 11 end)";

fn load(server: &TestServer, code: &str) {
    redis::cmd("FUNCTION")
        .arg("LOAD")
        .arg("REPLACE")
        .arg(code)
        .exec(&mut server.client())
        .unwrap();
}

fn call(server: &TestServer, name: &str) -> Option<u64> {
    redis::cmd("FCALL")
        .arg(name)
        .arg(0)
        .query(&mut server.client())
        .ok()
}

fn flush(server: &TestServer) {
    redis::cmd("FUNCTION")
        .arg("FLUSH")
        .exec(&mut server.client())
        .unwrap();
}

#[test]
fn a_collision_follows_the_policies() {
    for version in [
        Version::Redis70,
        Version::Redis80,
        Version::Valkey81,
        Version::Valkey91,
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        load(&source, ONE);
        load(&source, TWO);
        let export = run(&["export", &source.url()], b"").success();
        let import = |flags: &[&str]| {
            run(
                &[&["import", &destination.url()], flags].concat(),
                &export.stdout,
            )
        };

        import(&[]).success();
        assert_eq!(
            (call(&destination, "f1"), call(&destination, "f2")),
            (Some(1), Some(2))
        );
        // Equal code is no collision.
        import(&[]).success();

        // The others are added even where one collides.
        flush(&destination);
        load(&destination, OTHER_ONE);
        import(&[]).expect_code(3).expect_stderr("one");
        assert_eq!(
            (call(&destination, "f1"), call(&destination, "f2")),
            (Some(11), Some(2))
        );
        import(&["--on-conflict", "skip"]).success();
        assert_eq!(call(&destination, "f1"), Some(11));
        import(&["--functions", "replace"]).success();
        assert_eq!(call(&destination, "f1"), Some(1));

        flush(&destination);
        import(&["--functions", "skip"]).success();
        assert_eq!(call(&destination, "f2"), None);
    }
}

#[test]
fn an_export_without_functions_has_none() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    load(&source, ONE);
    let export = run(&["export", &source.url(), "--no-functions"], b"").success();
    run(&["import", &destination.url()], &export.stdout).success();
    assert_eq!(call(&destination, "f1"), None);
}

/// Into a server that has no functions: the dry run and doctor foretell how the run ends.
#[test]
fn a_destination_without_functions_is_foretold() {
    let (Some(newer), Some(older)) = (require(Version::Redis70), require(Version::Redis62)) else {
        return;
    };
    let (source, destination) = (TestServer::start(newer), TestServer::start(older));
    load(&source, ONE);
    load(&source, TWO);
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let url = destination.url();
    let losing = ["--allow-loss", "functions"];
    let skipping = ["--functions", "skip"];
    for (more, code, refused, lost) in
        [(&[][..], 3, 2, 0), (&losing, 0, 0, 2), (&skipping, 0, 0, 0)]
    {
        for dry in [&["--dry-run"][..], &[]] {
            let arguments = [&["import", &url, "--json"], more, dry].concat();
            let output = run(&arguments, &archive).expect_code(code);
            let sink = &output.summary()["sink"];
            assert_eq!(sink["functions"]["restored"], 0, "{arguments:?}: {sink}");
            assert_eq!(
                sink["functions"]["refused"], refused,
                "{arguments:?}: {sink}"
            );
            assert_eq!(
                sink["changes"]["functions_lost"], lost,
                "{arguments:?}: {sink}"
            );
        }
    }
    run(&["doctor", &url, "-"], &archive).expect_code(3);
    run(&["doctor", &source.url(), "-"], &archive).success();

    // The same where a user may use neither FUNCTION RESTORE nor FUNCTION LOAD.
    flush(&source);
    redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "no",
            "on",
            ">no",
            "~*",
            "+@all",
            "-function|restore",
        ])
        .arg("-function|load")
        .exec(&mut source.client())
        .unwrap();
    let url = source.url().replace("redis://", "redis://no:no@");
    for dry in [&["--dry-run"][..], &[]] {
        let output = run(&[&["import", &url], dry].concat(), &archive).expect_code(3);
        output.expect_stderr("function library one");
    }
    run(&["doctor", &url, "-"], &archive).expect_code(3);
}
