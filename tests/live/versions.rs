//! What is asked of more than one version, beside the square of pairs.

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

/// Everything in universal forms, into the same version: equal all the same.
#[test]
fn a_sanitized_import_is_equal() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let archive = run(&["export", &source.url()], b"").success().stdout;
        let output = run(
            &["import", &destination.url(), "--sanitize", "--json"],
            &archive,
        )
        .success();
        assert!(
            summary(&output)["sink"]["changes"]["reencoded"]
                .as_u64()
                .unwrap_or(0)
                > 20
        );
        let found = differences(
            &mut source.client(),
            &mut destination.client(),
            &Options {
                ignore_zero_sign: true,
                ..Options::default()
            },
        );
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{version}:\n{}", lines.join("\n"));
    }
}

/// Without the right to try, the version decides.
#[test]
fn a_destination_that_cannot_be_tried_out_goes_by_its_version() {
    let (Some(new), Some(old)) = (require(Version::Redis80), require(Version::Redis70)) else {
        return;
    };
    let (source, destination) = (TestServer::start(new), TestServer::start(old));
    for n in 0..20 {
        redis::cmd("SET")
            .arg(format!("user:{n}"))
            .arg("v")
            .exec(&mut source.client())
            .unwrap();
        redis::cmd("SADD")
            .arg(format!("user:set:{n}"))
            .arg("a")
            .arg("b")
            .exec(&mut source.client())
            .unwrap();
    }
    // Within its key pattern RESTORE can be tried, on a name that begins like the first key.
    let acl = ["SETUSER", "limited", "on", ">pw", "~user:*", "+@all"];
    redis::cmd("ACL")
        .arg(&acl[..])
        .exec(&mut destination.client())
        .unwrap();
    let limited = format!("redis://limited:pw@127.0.0.1:{}", destination.port());
    run(&["copy", &source.url(), &limited], b"").success();
    let found = differences(
        &mut source.client(),
        &mut destination.client(),
        &Options::default(),
    );
    assert!(found.is_empty(), "{found:?}");
}
