//! The same script, played by the model and by a real server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis_migrate_world::server::{ClientId, Config, Release, Server, Since};

use super::compare;
use super::real::{Connection, Real};
use super::resp::{self, Value};

/// One step of a script: a client's number and what it says. Without words: both wait a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub client: usize,
    pub words: Vec<Vec<u8>>,
}

/// A step of a client.
pub fn by(client: usize, words: &[&str]) -> Step {
    Step {
        client,
        words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
    }
}

/// What a script is written as, a command a line. `1> ` in front: client 1. `wait 20`: for 20 ms.
pub fn script(text: &str) -> Vec<Step> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"));
    let step = |line: &str| {
        let (client, line) = match line.split_once("> ") {
            Some((client, line)) => (client.parse().expect("a client"), line),
            None => (0, line),
        };
        by(client, &words(line))
    };
    lines.map(step).collect()
}

/// The words of a line; `''` is an empty one, and quotes hold words together.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the end of time")
}

/// A script as text, a step a line.
fn lines(steps: &[Step]) -> String {
    let line = |step: &Step| format!("  {}> {}\n", step.client, compare::shown(&step.words));
    steps.iter().map(line).collect()
}

/// The model and a real server side by side.
pub struct Pair {
    pub release: &'static Release,
    pub real: Real,
    pub model: Server,
    connections: Vec<(Connection, ClientId)>,
    /// What was played last, should the server not have lived through it.
    played: Vec<Step>,
    password: String,
    differences: Vec<String>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let is_quiet = self.differences.is_empty() || std::thread::panicking();
        assert!(is_quiet, "{}", self.differences.join("\n"));
    }
}

impl Pair {
    pub fn new(release: &'static Release) -> Self {
        Self::with(release, &[], Config::new(release))
    }

    pub fn with(release: &'static Release, options: &[&str], config: Config) -> Self {
        Self::with_password(release, options, config, "")
    }

    /// A server that wants a password of the one who empties it.
    pub fn with_password(
        release: &'static Release,
        options: &[&str],
        config: Config,
        password: &str,
    ) -> Self {
        let mut options = options.to_vec();
        if release.has(Since::R70) {
            options.extend(["--enable-debug-command", "yes"]);
        }
        let real = Real::start(release, &options);
        // When keys are found to be over without being asked for is a matter of luck.
        let quiet = ["DEBUG", "SET-ACTIVE-EXPIRE", "0"].map(|word| word.as_bytes().to_vec());
        let mut admin = real.connect();
        if !password.is_empty() {
            admin
                .ask(&[b"AUTH".to_vec(), password.as_bytes().to_vec()])
                .expect("an answer");
        }
        admin.ask(&quiet).expect("an answer");
        Self {
            release,
            real,
            model: Server::new(config, 1),
            connections: Vec::new(),
            played: Vec::new(),
            password: password.to_owned(),
            differences: Vec::new(),
        }
    }

    /// Empties both and forgets all connections.
    pub fn clear(&mut self) {
        for (_, id) in std::mem::take(&mut self.connections) {
            self.model.disconnect(id);
        }
        let words = |text: &str| {
            text.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let admin = self.real.try_connect();
        let flushed = admin.and_then(|mut admin| {
            if !self.password.is_empty() {
                admin.ask(&words(&format!("AUTH {}", self.password)));
            }
            let answer = admin.ask(&words("FLUSHALL"));
            admin.ask(&words("FUNCTION FLUSH"));
            answer
        });
        if flushed.is_none() {
            panic!(
                "{} is gone after\n{}",
                self.release.name,
                lines(&self.played)
            );
        }
        self.model.execute(0, &[b"FLUSHALL"], now_ms());
        self.model.execute(0, &[b"FUNCTION", b"FLUSH"], now_ms());
        self.played.clear();
    }

    fn client(&mut self, number: usize) {
        while self.connections.len() <= number {
            let id = self.model.connect().expect("a client");
            self.connections.push((self.real.connect(), id));
        }
    }

    /// Plays one step: the answers of the real server and of the model. `None` is no answer.
    pub fn play(&mut self, step: &Step) -> (Option<Value>, Option<Value>) {
        if step.words.first().is_some_and(|word| word == b"wait") {
            let ms = String::from_utf8_lossy(&step.words[1]).parse().expect("ms");
            std::thread::sleep(Duration::from_millis(ms));
            return (None, None);
        }
        self.client(step.client);
        self.played.push(step.clone());
        let (connection, id) = &mut self.connections[step.client];
        let bytes = resp::pack(&step.words);
        let now = now_ms();
        connection.send(&bytes);
        self.model.receive(*id, &bytes, now);
        self.model.end_turn(now);
        let out = self.model.outbox(*id);
        let mut model = None;
        let mut at = 0;
        while at < out.len() {
            let (value, length) = resp::read(&out[at..]).expect("a whole reply");
            at += length;
            if !matches!(value, Value::Push(_)) {
                model = Some(value);
            }
        }
        let patience = if model.is_some() { 5000 } else { 250 };
        let real = self.connections[step.client]
            .0
            .reply(Duration::from_millis(patience));
        let model = model.or_else(|| self.late(step.client));
        (real, model)
    }

    /// What the model says when it has seen the time go on.
    fn late(&mut self, client: usize) -> Option<Value> {
        self.model.tick(now_ms());
        let out = self.model.outbox(self.connections[client].1);
        (!out.is_empty())
            .then(|| resp::read(&out))
            .flatten()
            .map(|(value, _)| value)
    }

    /// What both say to a client who was held up.
    pub fn late_answers(&mut self, client: usize) -> (Option<Value>, Option<Value>) {
        let model = self.late(client);
        let real = self.connections[client].0.reply(Duration::from_secs(5));
        (real, model)
    }

    /// The pushes that both have sent to a client so far: names, or `None` for everything. The real
    /// server is asked twice for a sign of life first, for pushes come after replies.
    pub fn pushes(&mut self, client: usize) -> (compare::Names, compare::Names) {
        self.client(client);
        let ping = resp::pack(&[b"PING".to_vec()]);
        let mut said = Vec::new();
        for _ in 0..2 {
            let (connection, id) = &mut self.connections[client];
            connection.send(&ping);
            connection.reply(Duration::from_secs(5)).expect("an answer");
            let now = now_ms();
            self.model.receive(*id, &ping, now);
            self.model.end_turn(now);
            said.extend(self.model.outbox(*id));
        }
        let mut model = Vec::new();
        let mut at = 0;
        while at < said.len() {
            let (value, length) = resp::read(&said[at..]).expect("a whole reply");
            at += length;
            model.push(value);
        }
        let real = std::mem::take(&mut self.connections[client].0.pushes);
        (compare::names(real), compare::names(model))
    }

    /// Plays a script to its first difference: the step, and both answers.
    pub fn difference(&mut self, script: &[Step]) -> Option<(usize, String)> {
        self.clear();
        for (n, step) in script.iter().enumerate() {
            let (real, model) = self.play(step);
            let reals = compare::normal(self.release, &step.words, real.as_ref());
            let models = compare::normal(self.release, &step.words, model.as_ref());
            if !compare::same(&reals, &models) {
                return Some((n, format!("  real:  {reals:?}\n  model: {models:?}")));
            }
        }
        None
    }

    /// Plays a script. A difference is a failure when all scripts have been played.
    pub fn hold(&mut self, script: &[Step]) {
        let told = self.told(script);
        self.differences.extend(told);
    }

    /// The shortest part of the script that shows a difference, as text.
    pub fn told(&mut self, script: &[Step]) -> Option<String> {
        let (at, mut words) = self.difference(script)?;
        let mut short = script[..=at].to_vec();
        let mut n = short.len();
        while n > 0 {
            n -= 1;
            let mut fewer = short.clone();
            fewer.remove(n);
            if let Some((at, told)) = self.difference(&fewer) {
                fewer.truncate(at + 1);
                (short, words) = (fewer, told);
                n = n.min(short.len());
            }
        }
        Some(format!(
            "{} differs:\n{}{words}",
            self.release.name,
            lines(&short)
        ))
    }

    /// Compares what all keys of database 0 hold, by the payloads of both; and gives each server the
    /// payloads of the other.
    pub fn hold_values(&mut self, keys: &[&str]) -> Option<String> {
        let mut admin = self.real.connect();
        for key in keys {
            let key = key.as_bytes();
            let real = match admin.ask(&[b"DUMP".to_vec(), key.to_vec()]) {
                Some(Value::Bulk(payload)) => payload,
                _ => continue,
            };
            let now = now_ms();
            let model = match self.model.execute(0, &[b"DUMP", key], now) {
                redis_migrate_world::server::Reply::Bulk(payload) => payload,
                other => return Some(format!("{}: DUMP says {other:?}", self.release.name)),
            };
            let read = |payload: &[u8]| compare::value(self.release, payload);
            if !compare::same_value(&read(&real), &read(&model)) {
                return Some(format!(
                    "{} {}: the payloads differ\n  real:  {:?}\n  model: {:?}",
                    self.release.name,
                    String::from_utf8_lossy(key),
                    read(&real),
                    read(&model)
                ));
            }
            let restore = [
                b"RESTORE".to_vec(),
                b"there".to_vec(),
                b"0".to_vec(),
                model,
                b"REPLACE".to_vec(),
            ];
            let answer = admin.ask(&restore);
            let back = admin.ask(&[b"DUMP".to_vec(), b"there".to_vec()]);
            match (&answer, back) {
                (Some(Value::Simple(_)), Some(Value::Bulk(back)))
                    if compare::same_value(&read(&back), &read(&real)) => {}
                (answer, back) => {
                    return Some(format!(
                        "{}: the model's payload is answered with {answer:?}\n  real:  {:?}\n  model: {back:?}",
                        self.release.name,
                        read(&real)
                    ));
                }
            }
        }
        None
    }
}
