//! Asking a source what it holds outside its keys.

use std::collections::{BTreeMap, BTreeSet};

use super::series::Series;
use super::{HEADER_FIELD, LIBRARY, Outside, SEARCH_INDEX, merge};
use crate::endpoint::ConnectOptions;
use crate::record::Batch;
use crate::server::cluster::{Topology, options_for};
use crate::server::conn::is_unknown_command;
use crate::server::facts::Facts;
use crate::server::reply::{Command, Reply, cmd};
use crate::server::{Conn, ServerError};

/// What a source holds outside its keys, as far as it was asked at the start and as keys come.
#[derive(Debug, Default)]
pub struct OutsideKeys {
    known: Vec<Outside>,
    /// Where there may be time series.
    series: Option<Series>,
}

/// One thing to be asked.
struct Question {
    kind: &'static str,
    command: &'static str,
    cmd: Command,
    names: fn(Reply) -> Option<Vec<Vec<u8>>>,
    /// Names of the modules that have the command, in lower case.
    modules: &'static [&'static str],
}

fn questions() -> [Question; 3] {
    [
        Question {
            kind: SEARCH_INDEX,
            command: "FT._LIST",
            cmd: cmd("FT._LIST"),
            names: plain_names,
            modules: &["search", "searchlight"],
        },
        Question {
            kind: LIBRARY,
            command: "TFUNCTION LIST",
            cmd: cmd("TFUNCTION").arg("LIST").to_owned(),
            names: |value| named(value, b"name"),
            modules: &["redisgears_2"],
        },
        Question {
            kind: LIBRARY,
            command: "RG.DUMPREGISTRATIONS",
            cmd: cmd("RG.DUMPREGISTRATIONS"),
            names: |value| named(value, b"id"),
            modules: &["rg"],
        },
    ]
}

/// Modules of time series.
const SERIES_MODULES: [&str; 1] = ["timeseries"];

/// What ACL rules say to allow the questions to these modules: `+ft._list`, `+tfunction|list`.
pub(crate) fn rights(modules: &[String]) -> Vec<String> {
    let loaded = questions()
        .into_iter()
        .filter(|one| may_be_loaded(Some(modules), one.modules));
    let of_series = may_be_loaded(Some(modules), &SERIES_MODULES).then_some("TS.INFO");
    let commands = loaded.map(|one| one.command).chain(of_series);
    commands
        .map(|command| format!("+{}", command.to_ascii_lowercase().replace(' ', "|")))
        .collect()
}

/// What was answered so far: names by kind, or why there is no answer.
#[derive(Default)]
struct Answers {
    names: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
    refused: BTreeMap<&'static str, String>,
}

impl OutsideKeys {
    /// Asks the source, of a cluster each shard. `modules` are those that are loaded, where INFO said
    /// so. Nothing that is answered or refused here, or not at all, ends a run.
    pub fn ask(connect: &ConnectOptions, modules: Option<Vec<String>>, is_cluster: bool) -> Self {
        let may_be = |of: &[&str]| may_be_loaded(modules.as_deref(), of);
        if !questions().iter().any(|one| may_be(one.modules)) && !may_be(&SERIES_MODULES) {
            return Self::default();
        }
        let mut answers = Answers::default();
        let mut may_have_series = true;
        let asked = look(
            connect,
            modules.clone(),
            is_cluster,
            &mut answers,
            &mut may_have_series,
        );
        if let Err(error) = asked {
            for question in questions().iter().filter(|one| may_be(one.modules)) {
                let why = format!("{} was not answered: {error}", question.command);
                answers.refused.entry(question.kind).or_insert(why);
            }
        }
        Self {
            known: answers.told(),
            series: may_have_series.then(|| Series::read_from(connect.clone(), is_cluster)),
        }
    }

    /// What is known before keys are read, for an archive's header.
    pub fn header_field(&self) -> Option<(String, String)> {
        if self.known.is_empty() {
            return None;
        }
        let list: Vec<serde_json::Value> = self.known.iter().map(Outside::json).collect();
        let list = serde_json::Value::from(list).to_string();
        Some((HEADER_FIELD.to_owned(), list))
    }

    /// The same as lines for people who have exported nothing yet.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.known.iter().map(Outside::standing).collect();
        if self.series.is_some() {
            lines.push(
                "compaction rules of time series are outside keys, too: an export over SCAN asks for \
                 them at its end (TS.INFO) and names them"
                    .to_owned(),
            );
        }
        lines
    }

    /// Looks at what the source gave.
    pub fn saw(&self, batch: &Batch) {
        if let Some(series) = &self.series {
            series.saw(batch);
        }
    }

    /// All that is known when the source was read.
    pub fn conclude(&self) -> Vec<Outside> {
        let mut all = self.known.clone();
        merge(&mut all, self.series.iter().filter_map(Series::ask));
        all
    }
}

/// Whether one of these modules is loaded, or nobody told which are.
fn may_be_loaded(modules: Option<&[String]>, of: &[&str]) -> bool {
    modules.is_none_or(|modules| {
        let mut names = modules.iter().map(|name| name.to_ascii_lowercase());
        names.any(|name| of.contains(&name.as_str()))
    })
}

fn look(
    connect: &ConnectOptions,
    modules: Option<Vec<String>>,
    is_cluster: bool,
    answers: &mut Answers,
    may_have_series: &mut bool,
) -> Result<(), ServerError> {
    let mut conn = Conn::open(connect)?;
    conn.doing("asking what modules keep outside keys");
    let modules = match modules {
        Some(modules) => Some(modules),
        None => ask_modules(&mut conn)?,
    };
    let may_be = |of: &[&str]| may_be_loaded(modules.as_deref(), of);
    *may_have_series = may_be(&SERIES_MODULES);
    let questions = questions().into_iter().filter(|one| may_be(one.modules));
    let questions: Vec<Question> = questions.collect();
    if questions.is_empty() {
        return Ok(());
    }
    if !is_cluster {
        return ask_all(&mut conn, &questions, modules.is_some(), answers);
    }
    for shard in Topology::ask(&mut conn)?.shards {
        let mut conn = Conn::open(&options_for(connect, &shard.primary))?;
        ask_all(&mut conn, &questions, modules.is_some(), answers)?;
    }
    Ok(())
}

/// Names of the modules that are loaded; `None` where the server does not tell.
fn ask_modules(conn: &mut Conn) -> Result<Option<Vec<String>>, ServerError> {
    if let Some(modules) = Facts::ask(conn)?.modules {
        return Ok(Some(modules));
    }
    Ok(match conn.ask(cmd("MODULE").arg("LIST"))? {
        Ok(value) => named(value, b"name").map(|names| {
            let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
            names.into_iter().map(text).collect()
        }),
        // Before 4.0 there are none.
        Err(text) if is_unknown_command(&text) => Some(Vec::new()),
        Err(_) => None,
    })
}

fn ask_all(
    conn: &mut Conn,
    questions: &[Question],
    knows_modules: bool,
    answers: &mut Answers,
) -> Result<(), ServerError> {
    for question in questions {
        let refused = match conn.ask(&question.cmd)? {
            Ok(value) => match (question.names)(value) {
                Some(names) => {
                    answers
                        .names
                        .entry(question.kind)
                        .or_default()
                        .extend(names);
                    continue;
                }
                None => format!("the answer to {} is not understood", question.command),
            },
            // No module has it, as far as anybody can tell.
            Err(text) if !knows_modules && is_unknown_command(&text) => continue,
            Err(text) => format!("{} was refused: {text}", question.command),
        };
        answers.refused.entry(question.kind).or_insert(refused);
    }
    Ok(())
}

impl Answers {
    fn told(self) -> Vec<Outside> {
        let names = self.names.into_iter();
        let mut all: Vec<Outside> = names
            .filter_map(|(kind, names)| {
                let mut one = Outside::of(kind, names)?;
                one.at_least = self.refused.contains_key(kind);
                Some(one)
            })
            .collect();
        for (kind, why) in &self.refused {
            merge(&mut all, [Outside::unknown(kind, why)]);
        }
        all
    }
}

/// A list of names.
fn plain_names(value: Reply) -> Option<Vec<Vec<u8>>> {
    match value {
        Reply::Array(items) => items.into_iter().map(bytes).collect(),
        _ => None,
    }
}

/// A list of maps, or of names and values in turn, of which one is the name.
fn named(value: Reply, field: &[u8]) -> Option<Vec<Vec<u8>>> {
    let Reply::Array(rows) = value else {
        return None;
    };
    let name_of = |row: Reply| match row {
        Reply::Map(pairs) => pairs
            .into_iter()
            .find_map(|(name, value)| (bytes(name)? == field).then(|| bytes(value))?),
        Reply::Array(items) => {
            let at = items
                .iter()
                .step_by(2)
                .position(|name| bytes(name.clone()).is_some_and(|name| name == field))?;
            bytes(items.into_iter().nth(2 * at + 1)?)
        }
        _ => None,
    };
    rows.into_iter().map(name_of).collect()
}

fn bytes(value: Reply) -> Option<Vec<u8>> {
    match value {
        Reply::Bulk(bytes) => Some(bytes),
        Reply::Status(text) => Some(text.into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::ServerAddress;

    fn text(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn names_in_every_form_of_reply() {
        let list = Reply::Array(vec![text("a"), text("b")]);
        assert_eq!(plain_names(list), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(plain_names(Reply::Nil), None);
        assert_eq!(plain_names(Reply::Array(vec![Reply::Int(1)])), None);
        let row = Reply::Array(vec![text("ver"), Reply::Int(1), text("name"), text("x")]);
        assert_eq!(
            named(Reply::Array(vec![row]), b"name"),
            Some(vec![b"x".to_vec()])
        );
        let map = Reply::Map(vec![(text("name"), text("y"))]);
        assert_eq!(
            named(Reply::Array(vec![map]), b"name"),
            Some(vec![b"y".to_vec()])
        );
        let odd = Reply::Array(vec![Reply::Array(vec![text("ver")])]);
        assert_eq!(named(odd, b"name"), None);
    }

    #[test]
    fn nobody_is_asked_who_has_no_such_module() {
        let nowhere = ServerAddress::parse("redis://127.0.0.1:1").expect("an address");
        let mut nowhere = ConnectOptions::new(nowhere);
        nowhere.retries = 0;
        let outside = OutsideKeys::ask(&nowhere, Some(vec!["bf".to_owned()]), false);
        assert!(outside.header_field().is_none() && outside.conclude().is_empty());
        // Who has it and does not answer leaves it open.
        let outside = OutsideKeys::ask(&nowhere, Some(vec!["search".to_owned()]), false);
        let why = outside.known[0].why.as_deref().unwrap_or_default();
        assert!(why.starts_with("FT._LIST was not answered"), "{why}");
        assert_eq!(outside.known.len(), 1);
    }
}
