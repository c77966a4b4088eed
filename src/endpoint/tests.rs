use super::*;

fn parse(text: &str) -> ServerAddress {
    ServerAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn tcp(host: &str, port: u16) -> Transport {
    Transport::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn urls_name_servers() {
    assert_eq!(parse("redis://h").transport, tcp("h", 6379));
    assert_eq!(parse("REDIS://h:1").transport, tcp("h", 1));
    assert_eq!(parse("redis://").transport, tcp("127.0.0.1", 6379));
    assert_eq!(parse("redis://[::1]:7000/3").transport, tcp("::1", 7000));
    assert_eq!(parse("redis://10.0.0.1").transport, tcp("10.0.0.1", 6379));
    assert_eq!(parse("valkey://h").transport, tcp("h", 6379));
    assert_eq!(
        parse("rediss://h:2/").transport,
        Transport::Tls {
            host: "h".to_owned(),
            port: 2
        }
    );
    for text in ["unix:///run/a%20b.sock", "redis+unix:///run/a b.sock"] {
        assert_eq!(
            parse(text).transport,
            Transport::Unix {
                path: PathBuf::from("/run/a b.sock")
            },
            "{text}"
        );
    }
}

#[test]
fn a_database_in_the_url_selects_that_one_also_zero() {
    assert_eq!(parse("redis://h").db, None);
    assert_eq!(parse("redis://h/").db, None);
    assert_eq!(parse("redis://h/0").db, Some(0));
    assert_eq!(parse("redis://h/15").db, Some(15));
    assert_eq!(parse("redis://h?db=2").db, Some(2));
    assert_eq!(parse("unix:///s?db=2").db, Some(2));
    assert!(ServerAddress::parse("redis://h/1?db=2").is_err());
    assert!(ServerAddress::parse("redis://h/x").is_err());
    assert!(ServerAddress::parse("redis://h/-1").is_err());
}

#[test]
fn userinfo_is_decoded_exactly_once() {
    let pair = |name: &str, password: &str| {
        UrlUser::Pair(name.to_owned(), Secret::new(password.as_bytes()))
    };
    assert_eq!(parse("redis://u:p@h").user, pair("u", "p"));
    assert_eq!(parse("redis://:p@h").user, pair("", "p"));
    assert_eq!(parse("redis://u:p%2540@h").user, pair("u", "p%40"));
    assert_eq!(parse("redis://u:a:b@h").user, pair("u", "a:b"));
    assert_eq!(parse("redis://u:a@b@h").user, pair("u", "a@b"));
    assert_eq!(parse("redis://u:100%@h").user, pair("u", "100%"));
    assert_eq!(parse("redis://u:ü[x@h").user, pair("u", "ü[x"));
    assert_eq!(parse("unix://u:p@/run/s").user, pair("u", "p"));
    assert_eq!(
        parse("unix:///run/s?user=u&pass=p%26").user,
        pair("u", "p&")
    );
    assert_eq!(
        parse("redis://:%ff@h").user,
        UrlUser::Pair(String::new(), Secret::new(vec![0xff]))
    );
    assert_eq!(parse("redis://x@h").user, UrlUser::Bare(Secret::new("x")));
}

#[test]
fn no_form_of_text_shows_the_password() {
    for url in [
        "redis://u:hunter2@h/1",
        "redis://hunter2@h",
        "rediss://:hunter2@h:1",
        "unix://u:hunter2@/s?db=1",
        "unix:///s?pass=hunter2",
    ] {
        let address = parse(url);
        let options = ConnectOptions::new(address.clone());
        for text in [
            format!("{address}"),
            format!("{address:?}"),
            format!("{options:?}"),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    for bad in [
        "redis://:hunter2#x@h",
        "redis://u:hunter2/x@h",
        "redis://u:77/hunter2@h",
        "redis://u:hunter2?x@h",
        "redis://u:hunter2@h:port",
        "redis://u:p@h/hunter2",
        "redis://h?hunter2=1",
        "u:hunter2@h:6379",
        "hunter2://u",
        "redis://u:hunter2@h/1?db=2",
    ] {
        let error = ServerAddress::parse(bad).expect_err(bad).to_string();
        assert!(
            !error.contains("hunter2") || bad.starts_with("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_scheme_is_said() {
    for (url, part) in [
        ("http://h", "unknown scheme http://"),
        ("redis-sentinel://h", "which primary"),
        ("localhost:6379", "redis://localhost:6379"),
    ] {
        let error = ServerAddress::parse(url).expect_err(url).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn addresses_print_as_urls() {
    assert_eq!(parse("redis://u:p@h/1").to_string(), "redis://h:6379/1");
    assert_eq!(parse("redis://[::1]").to_string(), "redis://[::1]:6379");
    assert_eq!(parse("unix:///s?db=1").to_string(), "unix:///s?db=1");
}
