//! How a server is reached: TLS that is verified, Unix sockets, IPv6, ACL users.

use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

/// Every version but the 6.2 of the matrix's extras speaks TLS.
#[test]
fn tls_is_verified_unless_it_is_said_not_to_be() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::builder(version).tls().start();
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut server.client())
            .unwrap();
        let url = server.tls_url();
        assert!(url.starts_with("rediss://"));
        let ca = server.ca_file();
        let ca = ca.to_str().unwrap();
        // Nobody on this machine trusts the tests' own authority.
        run(&["export", &url], b"")
            .expect_code(12)
            .expect_stderr("certificate");
        let export = run(&["export", &url, "--cacert", ca], b"").success();
        run(&["verify"], &export.stdout).success();
        run(&["export", &url, "--insecure"], b"")
            .success()
            .expect_stderr("--insecure");
        // The right authority, for another name.
        run(
            &["export", &url, "--cacert", ca, "--sni", "elsewhere.example"],
            b"",
        )
        .expect_code(12);
        run(&["export", &url, "--cacert", ca, "--sni", "localhost"], b"").success();
        let dir = server.path().to_str().unwrap();
        let cert = format!("{dir}/server.pem");
        let key = format!("{dir}/server.key");
        run(
            &[
                "export", &url, "--cacert", ca, "--cert", &cert, "--key", &key,
            ],
            b"",
        )
        .success();
        run(
            &["import", &url, "--cacert", ca, "--replace"],
            &export.stdout,
        )
        .success();
        if version != Version::Redis70 {
            continue;
        }
        // Plain text to a TLS port, and the other way round: no hang, one sentence.
        let plain = format!("redis://127.0.0.1:{}", server.tls_port());
        run(&["export", &plain, "--timeout", "1s"], b"").expect_code(12);
        let tls = format!("rediss://127.0.0.1:{}", server.port());
        run(&["export", &tls, "--cacert", ca, "--timeout", "1s"], b"").expect_code(12);
    }
}

#[test]
fn unix_sockets_and_ipv6() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version).unix_socket().start();
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut server.client_db(3))
        .unwrap();
    let socket = server.socket();
    let url = format!("unix://{}", socket.display());
    let export = run(&["export", &url], b"").success();
    assert!(!run(&["list"], &export.stdout).success().stdout.is_empty());
    let one = run(&["export", &format!("{url}?db=3")], b"").success();
    let listed = run(&["list", "--json"], &one.stdout).success();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("\"db\":3"));
    run(&["import", &format!("{url}?db=5")], &one.stdout).success();
    let value: String = redis::cmd("GET")
        .arg("k")
        .query(&mut server.client_db(5))
        .unwrap();
    assert_eq!(value, "v");
    // An address in brackets is understood; nobody listens there.
    run(&["export", "redis://[::1]:1"], b"").expect_code(12);
}

#[test]
fn acl_users_in_every_form() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let acl = [
        "SETUSER",
        "some one",
        "on",
        ">p@ss:w/rd",
        "~*",
        "&*",
        "+@all",
    ];
    redis::cmd("ACL")
        .arg(&acl[..])
        .exec(&mut client)
        .unwrap_err();
    let acl = [
        "SETUSER",
        "someone",
        "on",
        ">p@ss:w/rd",
        "~*",
        "&*",
        "+@all",
    ];
    redis::cmd("ACL").arg(&acl[..]).exec(&mut client).unwrap();
    redis::cmd("ACL")
        .arg(&["SETUSER", "default", "off"][..])
        .exec(&mut client)
        .unwrap();
    let bare = format!("redis://127.0.0.1:{}", server.port());
    let encoded = format!(
        "redis://someone:p%40ss%3Aw%2Frd@127.0.0.1:{}",
        server.port()
    );
    let named = format!("redis://someone@127.0.0.1:{}", server.port());
    run(&["export", &encoded], b"").success();
    Tool::new(&["export", &bare, "--user", "someone"])
        .env("SOURCE_REDIS_PASSWORD", "p@ss:w/rd")
        .run()
        .success();
    Tool::new(&["export", &named])
        .env("SOURCE_REDIS_PASSWORD", "p@ss:w/rd")
        .run()
        .success();
    run(&["export", &bare, "-o", "-"], b"").expect_code(12);
}
