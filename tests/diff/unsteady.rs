//! Values that only a server with the module can read, and whose bytes differ each time it is asked
//! (TopK of RedisBloom, graphs of FalkorDB): nobody can say whether two of them are equal.
//!
//! No server at hand has such a module, so a toy stands in: it knows SCAN, DUMP, PTTL and little else.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis_migrate_payload::payload;

use super::found::{found, objects, summary};
use crate::support::tool::run;

/// What a key of the toy gives.
#[derive(Clone, Copy, Debug)]
enum Gives {
    /// This number each time.
    Same(u8),
    /// Another one each time.
    Other,
    /// A payload with a wrong checksum.
    Garbled,
    /// A payload of no bytes.
    Empty,
    /// This error in place of a payload.
    Refuses(&'static str),
    /// This error in place of the expiry.
    HidesExpiry(&'static str),
}

/// Of all toys, so that no two answers are the same by chance.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// A server that holds values of a module.
struct Toy(SocketAddr);

impl Toy {
    fn start(keys: &[(&'static str, Gives)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys: Arc<BTreeMap<&'static str, Gives>> = Arc::new(keys.iter().copied().collect());
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keys = Arc::clone(&keys);
                std::thread::spawn(move || serve(stream, &keys));
            }
        });
        Self(address)
    }

    fn url(&self) -> String {
        format!("redis://{}", self.0)
    }
}

fn serve(stream: TcpStream, keys: &BTreeMap<&'static str, Gives>) {
    let mut out = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    while let Some(words) = command(&mut input) {
        let name = words[0].to_ascii_uppercase();
        let key = words.get(1).map_or("", String::as_str);
        let reply: Vec<u8> = match (name.as_str(), keys.get(key)) {
            ("PING", _) => b"+PONG\r\n".to_vec(),
            ("SELECT", _) if key == "0" => b"+OK\r\n".to_vec(),
            ("SCAN", _) => {
                let mut reply = format!("*2\r\n$1\r\n0\r\n*{}\r\n", keys.len());
                for key in keys.keys() {
                    reply += &format!("${}\r\n{key}\r\n", key.len());
                }
                reply.into_bytes()
            }
            ("PTTL", Some(Gives::HidesExpiry(text))) => format!("-{text}\r\n").into_bytes(),
            ("DUMP", Some(Gives::Refuses(text))) => format!("-{text}\r\n").into_bytes(),
            ("PTTL", Some(_)) => b":-1\r\n".to_vec(),
            ("PTTL", None) => b":-2\r\n".to_vec(),
            ("DUMP", None) => b"$-1\r\n".to_vec(),
            ("DUMP", Some(gives)) => {
                let number = match gives {
                    Gives::Same(number) => *number,
                    Gives::Other => ASKED.fetch_add(1, Ordering::Relaxed) as u8 & 0x3f,
                    _ => 1,
                };
                let body = [
                    b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02",
                    &[number][..],
                    b"\x00",
                ];
                let mut dump = payload::sign(&body.concat(), 10);
                match gives {
                    Gives::Garbled => dump[1] ^= 0x40,
                    Gives::Empty => dump.clear(),
                    _ => {}
                }
                [format!("${}\r\n", dump.len()).as_bytes(), &dump, b"\r\n"].concat()
            }
            _ => format!("-ERR unknown command '{name}'\r\n").into_bytes(),
        };
        if out.write_all(&reply).is_err() {
            return;
        }
    }
}

/// A command as clients pack it.
fn command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |mark: char, input: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        line.strip_prefix(mark)?.trim().parse().ok()
    };
    (0..number('*', input)?)
        .map(|_| {
            let mut word = vec![0; number('$', input)? + 2];
            input.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            Some(String::from_utf8_lossy(&word).into_owned())
        })
        .collect()
}

const KEYS: [(&str, Gives); 3] = [
    ("bloom", Gives::Same(1)),
    ("graph", Gives::Other),
    ("json", Gives::Same(2)),
];

#[test]
fn what_differs_from_itself_is_neither_equal_nor_different() {
    let (left, right) = (Toy::start(&KEYS), Toy::start(&KEYS));
    let export = run(&["export", &left.url()], b"").success();
    for (a, input) in [(left.url(), &b""[..]), ("-".to_owned(), &export.stdout)] {
        for recheck in ["0", "1"] {
            let diff = ["diff", &a, &right.url(), "--recheck", recheck, "--json"];
            let output = run(&diff, input).expect_code(3);
            assert!(found(&output).is_empty());
            let named: Vec<_> = objects(&output)
                .into_iter()
                .filter(|object| object["event"] == "incomparable")
                .map(|object| object["key"].clone())
                .collect();
            assert_eq!(named, ["graph"]);
            let last = summary(&output);
            assert_eq!(last["incomparable"], 1, "{last}");
            assert_eq!((&last["compared"], &last["equal"]), (&2.into(), &2.into()));
            let text = run(&diff[..5], input).expect_code(3);
            let text = String::from_utf8(text.stdout).unwrap();
            assert!(
                text.contains("not all could be compared: 2 compared"),
                "{text}"
            );
            assert!(
                text.contains("bytes differ each time it is asked"),
                "{text}"
            );
        }
    }
}

/// What is the same each time, and not the same on both sides, differs.
#[test]
fn what_is_steady_is_compared_by_its_bytes() {
    let left = Toy::start(&KEYS);
    let right = Toy::start(&[("bloom", Gives::Same(9)), ("graph", Gives::Other)]);
    let diff = [
        "diff",
        &left.url(),
        &right.url(),
        "--recheck",
        "0",
        "--json",
    ];
    let output = run(&diff, b"").expect_code(5);
    let expected = [("bloom", "value"), ("json", "missing")];
    let expected = expected.map(|(key, class)| ("0".to_owned(), key.to_owned(), class.to_owned()));
    assert_eq!(found(&output), expected.into());
    assert_eq!(summary(&output)["incomparable"], 1);
}

/// What an error, or a payload that did not come whole, stands for is a value that could not be read,
/// which is no difference. `only` is not on the other side at all.
#[test]
fn what_was_not_given_could_not_be_read() {
    const ERRORS: [&str; 8] = [
        "ERR unknown command",
        "NOPERM No permissions to access a key",
        "OOM command not allowed",
        "READONLY You can't write",
        "MISCONF Errors writing",
        "NOAUTH Authentication required.",
        "NOREPLICAS Not enough good replicas to write.",
        "WRONGTYPE Operation against a key",
    ];
    let errors = ERRORS.map(|text| [Gives::Refuses(text), Gives::HidesExpiry(text)]);
    let kinds = errors
        .concat()
        .into_iter()
        .chain([Gives::Garbled, Gives::Empty]);
    for gives in kinds {
        let keys = [("bloom", Gives::Same(1)), ("json", Gives::Same(2))];
        let whole = Toy::start(&keys);
        let other = Toy::start(&[("bloom", gives), ("json", Gives::Same(2)), ("only", gives)]);
        for (left, right, side) in [(&whole, &other, "right"), (&other, &whole, "left")] {
            let sides = [left.url(), right.url()];
            let diff = ["diff", &sides[0], &sides[1], "--recheck", "0", "--json"];
            let output = run(&diff, b"").expect_code(3);
            assert!(found(&output).is_empty());
            let named: Vec<_> = objects(&output)
                .into_iter()
                .filter(|object| object["event"] == "unread")
                .filter(|object| object[side]["unread"].is_string())
                .map(|object| object["key"].as_str().unwrap().to_owned())
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            assert_eq!(named, ["bloom", "only"], "{gives:?}");
            let last = summary(&output);
            let counts = [
                "unread",
                "incomparable",
                "equal",
                "compared",
                "missing",
                "extra",
            ];
            let counts = counts.map(|name| last[name].as_u64().unwrap());
            assert_eq!(counts, [2, 0, 1, 1, 0, 0], "{gives:?}: {last}");
        }
    }
}

#[test]
fn nothing_compared_is_not_called_equal() {
    let (left, right) = (Toy::start(&[]), Toy::start(&[]));
    let diff = ["diff", &left.url(), &right.url()];
    // Servers of an unknown version, which may have libraries.
    let output = run(&diff, b"").expect_code(3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("nothing could be compared"), "{text}");
    assert!(!text.contains("equal"), "{text}");
    let output = run(&[&diff[..], &["--no-functions"]].concat(), b"");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("nothing to compare"),
        "{text}{}",
        output.stderr
    );
    assert!(!text.contains("equal"), "{text}");
}
