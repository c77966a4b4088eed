//! What a run of the tool said it found.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::tool::{Output, run};

/// A difference: database (as text), key, class. Libraries are in database `library`.
pub type Found = BTreeSet<(String, String, String)>;

/// The objects on standard output.
pub fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

pub fn found(output: &Output) -> Found {
    objects(output)
        .iter()
        .filter(|object| object["event"] == "difference")
        .map(|object| {
            let key = match (&object["key"], &object["key_hex"], &object["library"]) {
                (Value::String(key), _, _) => key,
                (_, Value::String(key), _) => key,
                (_, _, library) => library.as_str().expect("a key or a library"),
            };
            let db = match object["library"].is_null() {
                true => object["db"].to_string(),
                false => "library".to_owned(),
            };
            let class = object["class"].as_str().expect("a class");
            (db, key.to_owned(), class.to_owned())
        })
        .collect()
}

pub fn summary(output: &Output) -> Value {
    let last = objects(output).pop().expect("a summary");
    assert_eq!(last["event"], "summary", "{last}");
    assert_eq!(
        last["exit_code"].as_i64(),
        output.code().map(i64::from),
        "{last}"
    );
    last
}

/// `diff A B --json` and what is asked besides.
pub fn diff(left: &str, right: &str, flags: &[&str]) -> Output {
    run(&[&["diff", left, right, "--json"], flags].concat(), b"")
}

/// Compares the sides and expects exactly these differences.
#[track_caller]
pub fn expect(left: &str, right: &str, flags: &[&str], expected: &[(&str, &str, &str)]) -> Output {
    let output = diff(left, right, flags);
    let expected: Found = expected
        .iter()
        .map(|(db, key, class)| ((*db).to_owned(), (*key).to_owned(), (*class).to_owned()))
        .collect();
    assert_eq!(found(&output), expected, "{}", output.stderr);
    let code = if expected.is_empty() { 0 } else { 5 };
    let output = output.expect_code(code);
    let different = summary(&output)["different"].as_u64();
    assert_eq!(different, Some(expected.len() as u64));
    output
}

/// Runs a command of words on a server.
pub fn send(client: &mut redis::Connection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
        .exec(client)
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
}
