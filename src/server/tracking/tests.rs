//! The tracker in a small world of one server and one connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::*;
use crate::endpoint::{ServerAddress, Transport, UrlUser};
use crate::host::{Host, LinkId};

const LATENCY: Duration = Duration::from_millis(3);

/// What the server does with a PING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Answers,
    SaysNothing,
    Closes,
    IsBusy,
}

struct State {
    now: Instant,
    server: Server,
    /// Answers that are on their way, and when they come; nothing is the end of the stream.
    coming: VecDeque<(Instant, Vec<u8>)>,
    /// What is pushed before the answer to a PING, in the order of the PINGs.
    pushed: VecDeque<Vec<u8>>,
    is_listening: bool,
    pings: usize,
    timeout: Duration,
    task: Option<(Box<dyn Beside>, Step)>,
}

struct World(RefCell<State>);

impl World {
    fn new(server: Server) -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            now: crate::host::now(),
            server,
            coming: VecDeque::new(),
            pushed: VecDeque::new(),
            is_listening: false,
            pings: 0,
            timeout: Duration::ZERO,
            task: None,
        })))
    }

    fn answer(&self, command: &str) -> Vec<u8> {
        let mut state = self.0.borrow_mut();
        if command.contains("HELLO") {
            return b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n".to_vec();
        }
        if command.contains("INFO") {
            return b"$10\r\nrun_id:abc\r\n".to_vec();
        }
        if !command.contains("PING") {
            return b"+OK\r\n".to_vec();
        }
        if !state.is_listening {
            return b"+PONG\r\n".to_vec();
        }
        state.pings += 1;
        let mut answer = state.pushed.pop_front().unwrap_or_default();
        answer.extend_from_slice(match state.server {
            Server::Answers => b"+PONG\r\n",
            Server::IsBusy => b"-BUSY a script\r\n",
            Server::SaysNothing | Server::Closes => b"",
        });
        answer
    }

    /// The earliest that something happens to the task.
    fn next_step(&self) -> Option<Instant> {
        let state = self.0.borrow();
        let (_, Step::Wait { link, until }) = state.task.as_ref()? else {
            return None;
        };
        let came = link.and_then(|_| state.coming.front());
        until.iter().copied().chain(came.map(|(at, _)| *at)).min()
    }
}

impl Host for World {
    fn now(&self) -> Instant {
        self.0.borrow().now
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn sleep(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    fn random(&self) -> u64 {
        7
    }

    fn connect(&self, _: &Transport, _: &ConnectOptions) -> io::Result<LinkId> {
        Ok(1)
    }

    fn read(&self, _: LinkId, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let Some((at, mut bytes)) = state.coming.pop_front() else {
            let timeout = state.timeout;
            state.now += timeout;
            return Err(io::ErrorKind::TimedOut.into());
        };
        state.now = state.now.max(at);
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        if count < bytes.len() {
            state.coming.push_front((at, bytes.split_off(count)));
        }
        Ok(count)
    }

    fn write(&self, _: LinkId, bytes: &[u8]) -> io::Result<usize> {
        let answer = self.answer(&String::from_utf8_lossy(bytes));
        let mut state = self.0.borrow_mut();
        let at = state.now + LATENCY;
        // A push may come apart from the answer behind it, and in pieces.
        if state.server == Server::Closes && state.pings > 0 {
            state.coming.push_back((at, Vec::new()));
        }
        for piece in answer.chunks(5) {
            state.coming.push_back((at, piece.to_vec()));
        }
        Ok(bytes.len())
    }

    fn is_readable(&self, _: LinkId) -> bool {
        let state = self.0.borrow();
        state.coming.front().is_some_and(|(at, _)| *at <= state.now)
    }

    fn set_timeout(&self, _: LinkId, timeout: Duration) {
        self.0.borrow_mut().timeout = timeout;
    }

    fn close(&self, _: LinkId) {}

    fn beside(&self, task: Box<dyn Beside>) -> TaskId {
        let at_once = Step::Wait {
            link: None,
            until: Some(self.now()),
        };
        let mut state = self.0.borrow_mut();
        state.is_listening = true;
        state.task = Some((task, at_once));
        1
    }

    fn end(&self, _: TaskId) {
        let task = self.0.borrow_mut().task.take();
        drop(task);
    }

    fn drive(&self, limit: Option<Duration>, done: &dyn Fn() -> bool) {
        let deadline = self.now() + limit.unwrap_or(Duration::from_secs(3600));
        while !done() {
            let Some(at) = self.next_step() else { return };
            if at > deadline {
                self.0.borrow_mut().now = deadline;
                return;
            }
            let mut state = self.0.borrow_mut();
            state.now = state.now.max(at);
            let Some((mut task, _)) = state.task.take() else {
                return;
            };
            drop(state);
            let step = task.step();
            self.0.borrow_mut().task = Some((task, step));
        }
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new(ServerAddress {
        transport: Transport::Tcp {
            host: "h".to_owned(),
            port: 1,
        },
        user: UrlUser::default(),
        db: None,
    })
}

fn start() -> Tracker {
    let wanted = |name: &[u8]| name != b"other";
    Tracker::start(&options(), None, wanted).unwrap().unwrap()
}

fn invalidation(names: &[&str]) -> Vec<u8> {
    let mut push = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", names.len());
    for name in names {
        push += &format!("${}\r\n{name}\r\n", name.len());
    }
    push.into_bytes()
}

#[test]
fn a_barrier_hears_what_comes_before_the_second_answer() {
    let world = World::new(Server::Answers);
    let _entered = host::enter(world.clone());
    let tracker = start();
    assert!(tracker.listens_to(Some("abc")) && !tracker.listens_to(Some("xyz")));
    let pushed = [invalidation(&["a", "other"]), invalidation(&["b"])];
    world.0.borrow_mut().pushed.extend(pushed);
    tracker.barrier();
    assert_eq!(world.0.borrow().pings, 2);
    let heard = tracker.take();
    let names = [b"a".to_vec(), b"b".to_vec()];
    assert_eq!(heard.names, HashSet::from_iter(names));
    assert!(heard.since.is_some() && heard.means_rescan().is_none());
    assert_eq!(tracker.waiting(), (0, false));

    let others = [
        b">2\r\n$10\r\ninvalidate\r\n_\r\n".to_vec(),
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n$1\r\nx\r\n".to_vec(),
    ];
    world.0.borrow_mut().pushed.extend(others);
    tracker.barrier();
    assert_eq!(tracker.take().means_rescan(), Some(FLUSHED));
    assert!(!tracker.is_lost());
    drop(tracker);
    assert!(world.0.borrow().task.is_none());
}

#[test]
fn names_are_heard_while_nobody_waits() {
    let world = World::new(Server::Answers);
    let _entered = host::enter(world.clone());
    let tracker = start();
    world.0.borrow_mut().pushed.push_back(invalidation(&["a"]));
    let began = host::now();
    world.drive(Some(Duration::from_secs(1)), &|| tracker.lag().0 > 0);
    assert!(host::elapsed(began) < Duration::from_secs(1));
    assert!(tracker.lag().1.is_some());
}

#[test]
fn a_barrier_ends_when_the_server_is_lost() {
    let nonsense = |world: &World, text: &str| {
        world.0.borrow_mut().pushed.push_back(text.into());
    };
    for (server, text, words) in [
        (Server::SaysNothing, "", "no answer in time"),
        (Server::Closes, "", "closed the connection"),
        (Server::IsBusy, "", "BUSY a script (retried for 2m"),
        (
            Server::Answers,
            ":1\r\n",
            "PING was answered by something else",
        ),
        (
            Server::Answers,
            ">2\r\n$10\r\ninvalidate\r\n:1\r\n",
            "an invalidation without names",
        ),
        (
            Server::Answers,
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n:1\r\n",
            "whose name is not a string",
        ),
    ] {
        let world = World::new(server);
        let _entered = host::enter(world.clone());
        let tracker = start();
        nonsense(&world, text);
        tracker.barrier();
        let heard = tracker.take();
        let lost = heard.lost.unwrap();
        assert!(lost.contains(words), "{lost}");
        // And does not wait for it again.
        let began = host::now();
        tracker.barrier();
        assert_eq!(host::elapsed(began), Duration::ZERO);
    }
}

#[test]
fn a_wish_to_stop_ends_a_barrier() {
    let world = World::new(Server::SaysNothing);
    let _entered = host::enter(world.clone());
    let mut tracker = start();
    let stop = Arc::new(AtomicBool::new(true));
    tracker.heed(&stop);
    let began = host::now();
    tracker.barrier();
    let lost = tracker.take().lost.unwrap();
    assert!(lost.contains("interrupted"), "{lost}");
    assert!(host::elapsed(began) < options().timeout);
}
