//! How a server is reached: TLS that is verified, Unix sockets, IPv6, ACL users.

use std::path::Path;

use crate::support::servers::{TestServer, Version, require, require_tls, skipped};
use crate::support::tool::{Tool, run};

#[test]
fn tls_is_verified_unless_it_is_said_not_to_be() {
    for version in Version::MATRIX {
        let Some(version) = require_tls(version) else {
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

fn text(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}

fn with_a_key(server: TestServer) -> TestServer {
    let mut set = redis::cmd("SET");
    set.arg("k").arg("v").exec(&mut server.client()).unwrap();
    server
}

/// Each side of a copy has its own authority, and its own certificate to show.
#[test]
fn client_certificates_are_shown_to_the_side_they_are_for() {
    for version in Version::MATRIX {
        let Some(version) = require_tls(version) else {
            continue;
        };
        let demanding = || {
            TestServer::builder(version)
                .tls()
                .option("--tls-auth-clients", "yes")
                .start()
        };
        let (source, destination) = (with_a_key(demanding()), demanding());
        let of = |server: &TestServer, side: &str| {
            let file = |name: &str| text(&server.path().join(name));
            [
                format!("--{side}cacert={}", file("ca.pem")),
                format!("--{side}cert={}", file("server.pem")),
                format!("--{side}key={}", file("server.key")),
            ]
        };
        let run = |start: &[&str], flags: &[&[String]]| {
            let tool = flags.concat().iter().fold(Tool::new(start), Tool::arg);
            tool.run()
        };
        let (from, to) = (source.tls_url(), destination.tls_url());
        run(&["export", &from], &[&of(&source, "")]).success();
        // The right authority, and no certificate; then one that the server does not trust.
        run(&["export", &from], &[&of(&source, "")[..1]])
            .expect_code(12)
            .expect_stderr("demands a client certificate (--cert and --key)");
        // With a password the first command is another one.
        for verb in ["export", "doctor"] {
            let with_password = from.replacen("://", "://:secret@", 1);
            let output = run(&[verb, &with_password], &[&of(&source, "")[..1]]);
            let output = output.expect_code(12);
            assert!(output.stderr.contains("certificate"), "{}", output.stderr);
        }
        let [_, cert, key] = of(&destination, "");
        run(&["export", &from], &[&of(&source, "")[..1], &[cert, key]])
            .expect_code(12)
            .expect_stderr("client certificate");
        // The authority of another.
        run(&["export", &from], &[&of(&destination, "")])
            .expect_code(12)
            .expect_stderr("certificate");
        let copy = ["copy", &from, &to];
        run(
            &copy,
            &[&of(&source, "source-"), &of(&destination, "dest-")],
        )
        .success();
        run(
            &copy,
            &[&of(&source, "dest-"), &of(&destination, "source-")],
        )
        .expect_code(12);
        let value: String = redis::cmd("GET")
            .arg("k")
            .query(&mut destination.client())
            .unwrap();
        assert_eq!(value, "v");
        // A directory of authorities, of which one is the right one.
        let dir = tempfile::tempdir().unwrap();
        for (name, server) in [("a.pem", &destination), ("b.pem", &source)] {
            std::fs::copy(server.ca_file(), dir.path().join(name)).unwrap();
        }
        let [_, cert, key] = of(&source, "");
        let cacertdir = format!("--cacertdir={}", text(dir.path()));
        run(&["export", &from], &[&[cacertdir, cert, key]]).success();
    }
}

#[test]
fn an_expired_certificate_is_no_certificate() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        text(&path)
    };
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_file = write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let cert = write("old.pem", params.signed_by(&key, &issuer).unwrap().pem());
    let key = write("old.key", key.serialize_pem());
    let server = TestServer::builder(version)
        .tls()
        .option("--tls-cert-file", &cert)
        .option("--tls-key-file", &key)
        .option("--tls-ca-cert-file", &ca_file)
        .start();
    let server = with_a_key(server);
    let url = server.tls_url();
    run(&["export", &url, "--cacert", &ca_file], b"")
        .expect_code(12)
        .expect_stderr("xpired");
    run(&["export", &url, "--insecure"], b"")
        .success()
        .expect_stderr("anybody in between");
}

#[test]
fn ipv6_addresses() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skipped("ipv6_addresses: this machine has no ::1");
        return;
    }
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::builder(version)
            .args(["--bind", "127.0.0.1", "::1"])
            .start();
        let server = with_a_key(server);
        let url = format!("redis://[::1]:{}", server.port());
        let export = run(&["export", &url], b"").success();
        run(&["import", &format!("{url}/3")], &export.stdout).success();
        run(&["copy", &format!("{url}/3"), &format!("{url}/4")], b"").success();
        let value: String = redis::cmd("GET")
            .arg("k")
            .query(&mut server.client_db(4))
            .unwrap();
        assert_eq!(value, "v");
    }
}

#[test]
fn each_side_has_its_own_way_to_its_password() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let start = |password: &str| {
        let file = dir.path().join(password);
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let server = TestServer::builder(version).password(password).start();
        (server, text(&file))
    };
    let ((source, source_file), (destination, dest_file)) = (start("one"), start("two"));
    let source = with_a_key(source);
    let copy = |flags: &[&str]| {
        run(
            &[&["copy", &source.url(), &destination.url()], flags].concat(),
            b"",
        )
    };
    copy(&[
        "--source-password-file",
        &source_file,
        "--dest-password-file",
        &dest_file,
    ])
    .success();
    copy(&[
        "--source-password-file",
        &dest_file,
        "--dest-password-file",
        &source_file,
    ])
    .expect_code(12);
    copy(&["--source-password-file", &source_file])
        .expect_code(12)
        .expect_stderr("NOAUTH");
    Tool::new(&["copy", &source.url(), &destination.url()])
        .args(&["--source-user", "default", "--dest-user", "default"])
        .env("SOURCE_REDIS_PASSWORD_FILE", &source_file)
        .env("DESTINATION_REDIS_PASSWORD", "two")
        .arg("--replace")
        .run()
        .success();
}
