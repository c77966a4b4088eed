//! A proxy that understands commands and replies: it records every command that is sent through it,
//! and gives other answers than the server's to those that it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::answers::Answer;
use super::{hostile_answers, wire};

/// Which commands get another answer, and which.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As [`RespProxy::seen`] calls it.
    pub command: String,
    /// From this occurrence on, counted from 1 over all connections.
    pub from: u32,
    /// So many in a row; `u32::MAX` is always.
    pub times: u32,
    pub answer: Answer,
    /// Whether the server carries the command out all the same.
    pub executed: bool,
    /// For a command within MULTI: whether its element of EXEC's reply is changed, and not what
    /// is said when it is queued.
    pub in_exec: bool,
    /// How late [`Answer::Late`] is.
    pub delay: Duration,
}

/// What is to be done, and what was seen since that was said.
#[derive(Default)]
struct Log {
    rules: Vec<Rule>,
    counts: BTreeMap<String, u32>,
    fired: u32,
}

struct Shared {
    target: SocketAddr,
    log: Mutex<Log>,
    live: AtomicUsize,
    stop: AtomicBool,
}

/// A running proxy in front of one server.
pub struct RespProxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl RespProxy {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let shared = Arc::new(Shared {
            target,
            log: Mutex::default(),
            live: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let for_listener = Arc::clone(&shared);
        let listener = std::thread::spawn(move || accept(&listener, &for_listener));
        Self {
            port,
            shared,
            listener: Some(listener),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Begins anew: with these rules, and with nothing seen.
    pub fn begin(&self, rules: Vec<Rule>) {
        *lock(&self.shared.log) = Log {
            rules,
            ..Log::default()
        };
    }

    /// Every command and how often it came: its name, with the subcommand where there is one, and
    /// `MULTI:` before it within a transaction.
    pub fn seen(&self) -> BTreeMap<String, u32> {
        lock(&self.shared.log).counts.clone()
    }

    /// How often a rule was applied.
    pub fn fired(&self) -> u32 {
        lock(&self.shared.log).fired
    }

    /// Waits until nothing goes through it any more, so that all that reached the server was
    /// carried out.
    pub fn wait_until_quiet(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        while self.shared.live.load(SeqCst) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

impl Drop for RespProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // Wakes the listener, which then sees the flag.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stop.load(SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        // A server that is down looks like a connection closed at once.
        let Ok(server) = TcpStream::connect(shared.target) else {
            continue;
        };
        if client.set_nodelay(true).is_ok() && server.set_nodelay(true).is_ok() {
            begin(&client, &server, shared);
        }
    }
}

/// One connection: a thread for each direction.
fn begin(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    let clones = || -> std::io::Result<[TcpStream; 4]> {
        let (a, b) = (client.try_clone()?, server.try_clone()?);
        Ok([a, b, client.try_clone()?, server.try_clone()?])
    };
    let Ok([up_client, up_server, down_client, down_server]) = clones() else {
        return;
    };
    let link = Arc::new(Link::default());
    shared.live.fetch_add(2, SeqCst);
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    let for_down = Arc::clone(&link);
    std::thread::spawn(move || {
        Upward::new(&up, &link).run(up_client, up_server);
        up.live.fetch_sub(1, SeqCst);
    });
    std::thread::spawn(move || {
        Downward::new(for_down).run(down_client, down_server);
        down.live.fetch_sub(1, SeqCst);
    });
}

/// What becomes of the next reply of the server.
enum Fate {
    Pass,
    /// Another answer in its place.
    Change(Answer, Duration),
    /// EXEC: these elements of it are changed.
    ChangeElements(Vec<(usize, String, Answer)>),
    /// From here on nothing is understood.
    Raw,
}

/// What the two directions of a connection share: the commands whose replies are due.
#[derive(Default)]
struct Link {
    due: Mutex<VecDeque<(String, Fate)>>,
    more: Condvar,
}

impl Link {
    fn push(&self, name: String, fate: Fate) {
        lock(&self.due).push_back((name, fate));
        self.more.notify_one();
    }

    /// The command that the reply at hand belongs to. Commands are noted before they are passed on,
    /// so only what the server says unasked has none.
    fn pop(&self) -> Option<(String, Fate)> {
        let due = lock(&self.due);
        let wait = Duration::from_millis(200);
        let (mut due, _) = self
            .more
            .wait_timeout_while(due, wait, |due| due.is_empty())
            .unwrap_or_else(|error| error.into_inner());
        due.pop_front()
    }
}

/// From the client to the server.
struct Upward<'a> {
    shared: &'a Shared,
    link: &'a Link,
    /// Commands queued in the transaction that is open, and which of their replies change.
    queued: Option<usize>,
    changes: Vec<(usize, String, Answer)>,
    raw: bool,
}

/// Sent to the server in place of a command that it is not to carry out: it answers once, and knows
/// in a transaction that a command was refused.
const SUBSTITUTE: &[u8] = b"*1\r\n$24\r\nREDIS-MIGRATE-NO-COMMAND\r\n";

impl<'a> Upward<'a> {
    fn new(shared: &'a Shared, link: &'a Link) -> Self {
        Self {
            shared,
            link,
            queued: None,
            changes: Vec::new(),
            raw: false,
        }
    }

    fn run(&mut self, mut client: TcpStream, mut server: TcpStream) {
        let mut input = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        'all: loop {
            let length = match client.read(&mut buffer) {
                Ok(length @ 1..) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
            };
            input.extend_from_slice(&buffer[..length]);
            let mut at = 0;
            while let Some((arguments, length)) = wire::command(&input[at..]) {
                let bytes = &input[at..at + length];
                at += length;
                let (goes_on, sent) = if self.raw {
                    (true, bytes)
                } else {
                    self.command(&arguments, bytes)
                };
                if server.write_all(sent).is_err() || !goes_on {
                    break 'all;
                }
            }
            input.drain(..at);
        }
        let _ = server.shutdown(Shutdown::Write);
    }

    /// Notes a command. Whether more may follow on this connection, and what the server gets.
    fn command<'b>(&mut self, arguments: &[Vec<u8>], bytes: &'b [u8]) -> (bool, &'b [u8]) {
        let plain = name_of(arguments);
        let is_end = matches!(plain.as_str(), "EXEC" | "DISCARD");
        let name = match self.queued {
            Some(_) if !is_end => format!("MULTI:{plain}"),
            _ => plain.clone(),
        };
        let rule = self.shared.rule_for(&name);
        let executed = rule.as_ref().is_none_or(|rule| rule.executed);
        let mut fate = Fate::Pass;
        let mut goes_on = true;
        if let Some(rule) = rule {
            match self.queued {
                Some(at) if rule.in_exec && !is_end => {
                    self.changes.push((at, name.clone(), rule.answer));
                }
                _ => {
                    goes_on = !rule.answer.closes();
                    fate = Fate::Change(rule.answer, rule.delay);
                }
            }
        } else if is_end && !self.changes.is_empty() {
            fate = Fate::ChangeElements(std::mem::take(&mut self.changes));
        } else if matches!(plain.as_str(), "PSYNC" | "SYNC" | "MONITOR") {
            self.raw = true;
            fate = Fate::Raw;
        }
        match (plain.as_str(), &mut self.queued) {
            ("MULTI", queued) if executed => *queued = Some(0),
            ("EXEC" | "DISCARD", queued) => *queued = None,
            (_, Some(queued)) if executed => *queued += 1,
            _ => {}
        }
        self.link.push(name, fate);
        let sent = match (executed, is_end) {
            (true, _) => bytes,
            (false, true) => b"*1\r\n$7\r\nDISCARD\r\n",
            (false, false) => SUBSTITUTE,
        };
        (goes_on, sent)
    }
}

impl Shared {
    /// Counts a command, and finds what is to be done with it.
    fn rule_for(&self, name: &str) -> Option<Rule> {
        let mut log = lock(&self.log);
        let count = log.counts.entry(name.to_owned()).or_insert(0);
        *count += 1;
        let count = *count;
        let rule = log.rules.iter().find(|rule| {
            rule.command == name && count >= rule.from && count - rule.from < rule.times
        });
        let rule = rule?.clone();
        log.fired += 1;
        Some(rule)
    }
}

/// The name of a command, with its subcommand where it has one: what servers allow or refuse apart.
fn name_of(arguments: &[Vec<u8>]) -> String {
    let word = |at: usize| {
        let bytes = arguments.get(at)?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        is_word.then(|| text.to_ascii_uppercase())
    };
    let first = word(0).unwrap_or_else(|| "?".to_owned());
    let words = match first.as_str() {
        "CLIENT" | "CLUSTER" | "FUNCTION" | "OBJECT" | "XINFO" | "INFO" | "COMMAND" | "DEBUG"
        | "MEMORY" | "ACL" | "SCRIPT" | "XGROUP" | "HELLO" | "LATENCY" | "MODULE" | "PUBSUB" => 1,
        "CONFIG" => 2,
        _ => 0,
    };
    let rest = (1..=words).filter_map(word).map(|word| format!(".{word}"));
    std::iter::once(first).chain(rest).collect()
}

/// From the server to the client.
struct Downward {
    link: Arc<Link>,
    resp3: bool,
}

impl Downward {
    fn new(link: Arc<Link>) -> Self {
        Self { link, resp3: false }
    }

    fn run(&mut self, mut client: TcpStream, mut server: TcpStream) {
        let mut input = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut raw = false;
        'all: loop {
            let length = match server.read(&mut buffer) {
                Ok(length @ 1..) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
            };
            input.extend_from_slice(&buffer[..length]);
            let mut at = 0;
            while !raw && let Some(end) = wire::value_end(&input, at) {
                let reply = &input[at..end];
                at = end;
                if let Some(answer) = self.hostile_answer(reply) {
                    // It ends when the client has had enough.
                    if hostile_answers::pour(answer, reply, &mut client) {
                        continue;
                    }
                    break 'all;
                }
                let (bytes, goes_on) = self.reply(reply, &mut raw);
                if client.write_all(&bytes).is_err() || !goes_on {
                    break 'all;
                }
            }
            if raw && at < input.len() {
                if client.write_all(&input[at..]).is_err() {
                    break;
                }
                at = input.len();
            }
            input.drain(..at);
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }

    /// The answer that does not fit into memory, if the next one is such.
    fn hostile_answer(&mut self, reply: &[u8]) -> Option<Answer> {
        let is_push = reply.first() == Some(&b'>');
        let mut due = lock(&self.link.due);
        let hostile = match due.front() {
            Some((_, Fate::Change(answer, _))) if !is_push && answer.is_poured() => *answer,
            _ => return None,
        };
        due.pop_front();
        Some(hostile)
    }

    /// What the client gets, and whether the connection lives on.
    fn reply(&mut self, reply: &[u8], raw: &mut bool) -> (Vec<u8>, bool) {
        if reply.first() == Some(&b'>') {
            return (reply.to_vec(), true);
        }
        let Some((name, fate)) = self.link.pop() else {
            return (reply.to_vec(), true);
        };
        if name == "HELLO.3" && reply.first() != Some(&b'-') {
            self.resp3 = true;
        }
        match fate {
            Fate::Pass => (reply.to_vec(), true),
            Fate::Raw => {
                *raw = true;
                (reply.to_vec(), true)
            }
            Fate::Change(answer, delay) => {
                if answer == Answer::Late {
                    std::thread::sleep(delay);
                }
                (answer.bytes(&name, reply, self.resp3), !answer.closes())
            }
            Fate::ChangeElements(changes) => (self.change_elements(reply, &changes), true),
        }
    }

    fn change_elements(&self, reply: &[u8], changes: &[(usize, String, Answer)]) -> Vec<u8> {
        let Some(mut elements) = wire::elements(reply) else {
            return reply.to_vec();
        };
        let changed: Vec<(usize, Vec<u8>)> = changes
            .iter()
            .filter_map(|(at, name, answer)| {
                Some((*at, answer.bytes(name, elements.get(*at)?, self.resp3)))
            })
            .collect();
        for (at, bytes) in &changed {
            elements[*at] = bytes;
        }
        let head = format!("*{}\r\n", elements.len());
        [head.as_bytes(), &elements.concat()].concat()
    }
}
