use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use crate::commands::{Cli, Invocation};
use crate::endpoint::{ConnectOptions, Secret, SentinelLogin};
use crate::place::{Endpoint, Location};
use crate::policy::{OnConflict, ReadFunctions};

fn parse(line: &str) -> Invocation {
    let words = std::iter::once("redis-migrate").chain(line.split_whitespace());
    Cli::try_parse_from(words)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .verb
}

fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    let map: HashMap<&str, &str> = pairs.iter().copied().collect();
    move |name| map.get(name).map(OsString::from)
}

fn export(line: &str, vars: &[(&str, &str)]) -> Result<ConnectOptions> {
    match parse(&format!("export {line}")) {
        Invocation::Export(args) => args
            .source(&env(vars))
            .map(|from| from.server().expect("a server").clone()),
        other => panic!("{other:?}"),
    }
}

fn import(line: &str, vars: &[(&str, &str)]) -> Result<(ConnectOptions, Vec<Location>)> {
    match parse(&format!("import {line}")) {
        Invocation::Import(args) => args.ends(&env(vars)),
        other => panic!("{other:?}"),
    }
}

fn copy(line: &str, vars: &[(&str, &str)]) -> Result<(ConnectOptions, ConnectOptions)> {
    match parse(&format!("copy {line}")) {
        Invocation::Copy(args) => args.ends(&env(vars)).map(servers),
        other => panic!("{other:?}"),
    }
}

fn servers((from, to): (Endpoint, ConnectOptions)) -> (ConnectOptions, ConnectOptions) {
    (from.server().expect("a server").clone(), to)
}

fn password(options: &ConnectOptions) -> Option<&str> {
    let secret = options.password.as_ref()?;
    Some(std::str::from_utf8(secret.expose()).expect("text"))
}

fn is_usage<T>(result: Result<T>) -> String {
    let error = result.err().expect("refused");
    assert_eq!(crate::exit_code::of(&error), crate::exit::USAGE);
    format!("{error:#}")
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn the_nearest_password_wins() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "from file\n").expect("written");
    let flag = format!("redis://u:url@h --password-file {}", file.path().display());
    let all = [
        ("SOURCE_REDIS_PASSWORD", "own%40"),
        ("REDISCLI_AUTH", "general"),
        ("DESTINATION_REDIS_PASSWORD", "other side"),
    ];
    let with = |line: &str, vars: &[(&str, &str)]| {
        let options = export(line, vars).expect("resolves");
        password(&options).map(str::to_owned)
    };
    assert_eq!(with(&flag, &all).as_deref(), Some("from file"));
    assert_eq!(with("redis://u:url@h", &all).as_deref(), Some("own%40"));
    assert_eq!(with("redis://u:url@h", &all[1..]).as_deref(), Some("url"));
    assert_eq!(with("redis://h", &all[1..]).as_deref(), Some("general"));
    assert_eq!(with("redis://h", &all[2..]), None);
    let path = file.path().to_str().expect("text");
    let from_file = [("SOURCE_REDIS_PASSWORD_FILE", path)];
    assert_eq!(with("redis://h", &from_file).as_deref(), Some("from file"));
    is_usage(export("redis://h", &[from_file[0], all[0]]));
    is_usage(export(
        "redis://h",
        &[("SOURCE_REDIS_PASSWORD_FILE", "/does/not/exist")],
    ));
}

#[test]
fn a_lone_word_before_the_at_is_a_user_when_a_password_comes_from_elsewhere() {
    let alone = export("redis://word@h", &[]).expect("resolves");
    assert_eq!(
        (alone.username.as_deref(), password(&alone)),
        (None, Some("word"))
    );
    let env = [("SOURCE_REDIS_PASSWORD", "p")];
    let user = export("redis://word@h", &env).expect("resolves");
    assert_eq!(
        (user.username.as_deref(), password(&user)),
        (Some("word"), Some("p"))
    );
    let flag = export("redis://a:p@h --user b", &[]).expect("resolves");
    assert_eq!(
        (flag.username.as_deref(), password(&flag)),
        (Some("b"), Some("p"))
    );
    assert!(is_usage(export("redis://h --user b", &[])).contains("without a password"));
}

#[test]
fn one_sides_secret_never_goes_to_the_other() {
    let vars = [("REDISCLI_AUTH", "general"), ("SOURCE_REDIS_PASSWORD", "s")];
    let (source, destination) = copy("redis://a redis://b", &vars).expect("resolves");
    assert_eq!(password(&source), Some("s"));
    assert_eq!(password(&destination), None);
    for line in [
        "redis://a redis://b --user x",
        "redis://a redis://b --askpass",
    ] {
        let words = format!("redis-migrate copy {line}");
        assert!(Cli::try_parse_from(words.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn urls_default_to_the_environment() {
    let source = ("SOURCE_REDIS_URL", "redis://s");
    let destination = ("DESTINATION_REDIS_URL", "redis://d");
    let host = |options: &ConnectOptions| options.address.to_string();
    assert_eq!(
        host(&export("", &[source]).expect("resolves")),
        "redis://s:6379"
    );
    assert!(is_usage(export("", &[])).contains("SOURCE_REDIS_URL"));
    let (to, files) = import("snap.rmz", &[destination]).expect("resolves");
    assert_eq!(
        (host(&to).as_str(), files),
        ("redis://d:6379", vec![Location::File("snap.rmz".into())])
    );
    let (to, files) = import("redis://x -", &[destination]).expect("resolves");
    assert_eq!(
        (host(&to).as_str(), files),
        ("redis://x:6379", vec![Location::Stream])
    );
    assert!(import("snap.rmz", &[]).is_err());
    let (from, to) = copy("", &[source, destination]).expect("resolves");
    assert_eq!(
        (host(&from).as_str(), host(&to).as_str()),
        ("redis://s:6379", "redis://d:6379")
    );
    let (from, to) = copy("redis://x", &[source]).expect("resolves");
    assert_eq!(
        (host(&from).as_str(), host(&to).as_str()),
        ("redis://s:6379", "redis://x:6379")
    );
    let (from, to) = copy("redis://x", &[source, destination]).expect("resolves");
    assert_eq!(
        (host(&from).as_str(), host(&to).as_str()),
        ("redis://x:6379", "redis://d:6379")
    );
}

#[test]
fn tls_flags_need_tls() {
    is_usage(export("redis://h --insecure", &[]));
    let options = export("rediss://h --insecure --timeout 5", &[]).expect("resolves");
    assert!(options.warnings().is_some());
    assert_eq!(options.timeout, Duration::from_secs(5));
    assert!(
        export("rediss://h", &[])
            .expect("resolves")
            .warnings()
            .is_none()
    );
    let (_, to) = copy("redis://a rediss://b --dest-sni name", &[]).expect("resolves");
    assert_eq!(to.tls.sni.as_deref(), Some("name"));
}

#[test]
fn a_database_selects_at_a_source_and_maps_at_a_destination() {
    let Invocation::Copy(args) = parse("copy redis://a/0 redis://b/5") else {
        panic!("copy");
    };
    let (source, destination) = args.ends(&env(&[])).expect("resolves");
    assert_eq!(args.select.selection(source.db()).dbs, [0]);
    let rewrite = args.write.rewrite(&destination, 0).expect("rewrite");
    assert_eq!(rewrite.dbs.only, Some(5));
    let Invocation::Copy(args) =
        parse("copy redis://a/0 redis://b --db 1,2 --map-db 1:3 --map-db *:4")
    else {
        panic!("copy");
    };
    let (source, destination) = args.ends(&env(&[])).expect("resolves");
    assert_eq!(args.select.selection(source.db()).dbs, [1, 2]);
    let rewrite = args.write.rewrite(&destination, 0).expect("rewrite");
    assert_eq!(
        (rewrite.dbs.pairs, rewrite.dbs.rest),
        (vec![(1, 3)], Some(4))
    );
    for line in [
        "copy redis://a redis://b/1 --map-db 0:2",
        "copy redis://a redis://b --map-db 0:2 --map-db 0:3",
    ] {
        let Invocation::Copy(args) = parse(line) else {
            panic!("copy");
        };
        let (_, destination) = args.ends(&env(&[])).expect("resolves");
        is_usage(args.write.rewrite(&destination, 0));
    }
}

#[test]
fn flags_of_the_verbs_become_their_types() {
    let Invocation::Export(args) =
        parse("export redis://h --no-compress --functions --no-functions")
    else {
        panic!("export");
    };
    assert_eq!(args.zstd_level(), 0);
    assert_eq!(args.read_functions(), ReadFunctions::No);
    let Invocation::Export(args) =
        parse("export redis://h --type HASH,set --min-ttl 1d --min-size 1k")
    else {
        panic!("export");
    };
    assert_eq!((args.zstd_level(), args.read.scan_count), (3, None));
    let selection = args.select.selection(None);
    assert_eq!(selection.types, ["hash", "set"]);
    assert_eq!(selection.min_ttl_ms, Some(86_400_000));
    assert_eq!(selection.min_size_bytes, Some(1_024));
    let Invocation::Import(args) = parse("import redis://h --replace") else {
        panic!("import");
    };
    assert_eq!(args.write.on_conflict(), OnConflict::Replace);
    for line in [
        "export redis://h --level 0",
        "export redis://h --level 20",
        "export redis://h --scan-count 0",
        "import redis://h --replace --on-conflict skip",
        "import redis://h --ttl never",
        "list --with-ttl --without-ttl",
        "export redis://h -q -v",
    ] {
        let words = format!("redis-migrate {line}");
        assert!(Cli::try_parse_from(words.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn sentinels_have_credentials_of_their_own() {
    let url = "redis-sentinel://u:p@h/m/1";
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "from file\n").expect("written");
    let vars = [
        ("SOURCE_REDIS_SENTINEL_PASSWORD", "theirs"),
        ("DESTINATION_REDIS_SENTINEL_PASSWORD", "other side"),
    ];
    let secret = |text: &str| Some(Secret::new(text));
    let options = export(url, &vars).expect("resolves");
    assert_eq!(
        (options.username.as_deref(), password(&options)),
        (Some("u"), Some("p"))
    );
    assert_eq!(options.sentinel.password, secret("theirs"));
    assert_eq!(options.db, Some(1));
    let options = export(url, &[("REDISCLI_AUTH", "general")]).expect("resolves");
    assert_eq!(options.sentinel, SentinelLogin::default());
    let flags = format!(
        "{url} --sentinel-user s --sentinel-password-file {}",
        file.path().display()
    );
    let options = export(&flags, &vars).expect("resolves");
    assert_eq!(options.sentinel.password, secret("from file"));
    assert_eq!(options.sentinel.username.as_deref(), Some("s"));
    let (source, destination) =
        copy(&format!("{url} {url} --dest-sentinel-user d"), &vars).expect("resolves");
    assert_eq!(source.sentinel.password, secret("theirs"));
    assert_eq!(destination.sentinel.password, secret("other side"));
    assert_eq!(destination.sentinel.username.as_deref(), Some("d"));
    assert!(is_usage(export(&format!("{url} --sentinel-user s"), &[])).contains("password"));
    assert!(
        is_usage(export("redis://h --sentinel-user s", &vars)).contains("is not a sentinel URL")
    );
    assert!(is_usage(export(&format!("{url} --insecure"), &[])).contains("rediss-sentinel://"));
    let tls = export("rediss-sentinel://h/m --sni x", &[]).expect("resolves");
    assert_eq!(tls.tls.sni.as_deref(), Some("x"));
}
