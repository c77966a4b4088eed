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

/// A function of another library: no policy but leaving all out helps. The dry run and doctor say the
/// same as the run.
#[test]
fn a_function_that_another_library_holds_is_foretold() {
    const HOLDER: &str = "#!lua name=holder\nredis.register_function{function_name='F1', callback=function() return 7 end}";
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        load(&source, ONE);
        load(&source, TWO);
        let archive = run(&["export", &source.url()], b"").success().stdout;
        let url = destination.url();
        for more in [&[][..], &["--functions", "replace"]] {
            for dry in [&["--dry-run"][..], &[]] {
                flush(&destination);
                load(&destination, HOLDER);
                let arguments = [&["import", &url, "--json"], more, dry].concat();
                let output = run(&arguments, &archive).expect_code(3);
                let functions = &output.summary()["sink"]["functions"];
                let counts = ["restored", "refused", "left_standing"];
                let counts = counts.map(|name| functions[name].as_u64());
                assert_eq!(counts, [1, 1, 1].map(Some), "{arguments:?}: {functions}");
                let said = run(&arguments, &archive).stderr;
                let reason = "belongs to the library holder at the destination";
                assert!(said.contains(reason), "{arguments:?}: {said}");
                assert!(!said.contains("overwrites it"), "{arguments:?}: {said}");
            }
        }
        // The second of each two runs above found its own library, which is equal.
        assert_eq!(call(&destination, "f1"), Some(7));
        let doctor = run(&["doctor", &url, "-", "--json"], &archive).expect_code(3);
        let refused = &doctor.summary()["archive"]["libraries_refused"];
        assert_eq!(refused.as_array().map(Vec::len), Some(1), "{refused}");
        assert_eq!(refused[0]["name"], "one");
        run(&["doctor", &url, "-"], &archive).expect_code(3);

        // Where it is not in the way any more, none of them says so.
        flush(&destination);
        load(&destination, OTHER_ONE);
        run(&["doctor", &url, "-"], &archive).expect_code(3);
        run(&["import", &url, "--dry-run"], &archive).expect_code(3);
        let replacing = ["import", &url, "--functions", "replace"];
        run(&[&replacing[..], &["--dry-run"]].concat(), &archive).success();
        run(&replacing, &archive).success();
        run(&["doctor", &url, "-"], &archive).success();
        run(&["import", &url, "--dry-run"], &archive).success();
    }
}

/// The destination has other code than the source, as `diff` says.
#[test]
fn a_library_that_is_left_standing_is_not_exact() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    load(&source, ONE);
    let (from, to) = (source.url(), destination.url());
    let copy = ["copy", &from, &to, "--on-conflict", "skip"];
    let left = "not exact at the destination: 1 function library already existed there with other contents";
    // An equal one takes nothing away.
    for _ in 0..2 {
        run(&copy, b"").success().expect_stderr(", exact as of");
    }
    load(&destination, OTHER_ONE);
    run(&copy, b"").success().expect_stderr(left);
    let failing = ["copy", &from, &to, "--on-conflict", "fail"];
    run(&failing, b"").expect_code(3).expect_stderr(left);
    run(&["diff", &from, &to], b"").expect_code(5);
    // What was not asked for is not missed.
    let output = run(&[&copy[..], &["--functions", "skip"]].concat(), b"").success();
    assert!(!output.stderr.contains("not exact"), "{}", output.stderr);
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
