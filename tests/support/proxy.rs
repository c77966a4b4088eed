//! A TCP proxy that can be made to fail: cut, stall, delay and refuse.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::random::Random;

/// What happens to the bytes of one direction. Limits count each connection's bytes.
#[derive(Clone, Debug, Default)]
pub struct Direction {
    /// Passes every piece on so much later than it came: latency, at full bandwidth.
    pub delay: Duration,
    /// Passes at most so many bytes on at a time, however many came; 0 is no limit.
    pub piece: usize,
    /// Closes the connection after so many bytes, both ways and at once.
    pub cut_after: Option<u64>,
    /// The same after a random number of bytes out of this range.
    pub cut_within: Option<Range<u64>>,
    /// Passes nothing more on after so many bytes, and leaves the connection open.
    pub stall_after: Option<u64>,
}

/// What the proxy does. Connections take the rules that stand when they are made.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub to_server: Direction,
    pub to_client: Direction,
    /// Cuts only so many connections, then behaves well; `None` cuts them all.
    pub cuts: Option<u64>,
    /// Closes new connections at once.
    pub refuse: bool,
    /// Decides where random cuts fall.
    pub seed: u64,
}

struct Shared {
    target: SocketAddr,
    rules: Mutex<Rules>,
    live: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
    accepted: AtomicU64,
    cuts: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

/// A running proxy in front of one server. Dropping it cuts what goes through it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(target: SocketAddr, rules: Rules) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let shared = Arc::new(Shared {
            target,
            rules: Mutex::new(rules),
            live: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        });
        let for_listener = Arc::clone(&shared);
        let listener = std::thread::spawn(move || accept(&listener, &for_listener));
        Self {
            port,
            shared,
            listener: Some(listener),
        }
    }

    /// A proxy that only passes on.
    pub fn plain(target: SocketAddr) -> Self {
        Self::start(target, Rules::default())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Changes the rules for connections to come.
    pub fn set_rules(&self, rules: Rules) {
        *self.shared.rules.lock().expect("no panic under the lock") = rules;
    }

    /// Closes every connection there is now.
    pub fn cut_all(&self) {
        for stream in self
            .shared
            .live
            .lock()
            .expect("no panic under the lock")
            .drain(..)
        {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// How many connections the rules have cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(SeqCst)
    }

    pub fn bytes_to_server(&self) -> u64 {
        self.shared.to_server.load(SeqCst)
    }

    pub fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // Wakes the listener, which then sees the flag.
        drop(TcpStream::connect(self.addr()));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.cut_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stop.load(SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let number = shared.accepted.fetch_add(1, SeqCst);
        let rules = shared
            .rules
            .lock()
            .expect("no panic under the lock")
            .clone();
        if rules.refuse {
            continue;
        }
        // A server that is down looks like a connection closed at once.
        let Ok(server) = TcpStream::connect(shared.target) else {
            continue;
        };
        if client.set_nodelay(true).is_ok() && server.set_nodelay(true).is_ok() {
            connect(&client, &server, &rules, number, shared);
        }
    }
}

fn connect(
    client: &TcpStream,
    server: &TcpStream,
    rules: &Rules,
    number: u64,
    shared: &Arc<Shared>,
) {
    let mut random = Random::new(rules.seed.wrapping_add(number));
    let copies = || -> std::io::Result<[TcpStream; 6]> {
        Ok([
            client.try_clone()?,
            server.try_clone()?,
            server.try_clone()?,
            client.try_clone()?,
            client.try_clone()?,
            server.try_clone()?,
        ])
    };
    let Ok([from_client, into_server, from_server, into_client, a, b]) = copies() else {
        return;
    };
    shared
        .live
        .lock()
        .expect("no panic under the lock")
        .extend([a, b]);
    let mut start = |direction: &Direction, from: TcpStream, into: TcpStream, up: bool| {
        let mut direction = direction.clone();
        if let Some(range) = direction.cut_within.clone() {
            direction.cut_after = Some(random.between(range.start, range.end.max(1) - 1));
        }
        let (limit, shared) = (rules.cuts, Arc::clone(shared));
        std::thread::spawn(move || forward(from, into, &direction, up, limit, &shared));
    };
    start(&rules.to_server, from_client, into_server, true);
    start(&rules.to_client, from_server, into_client, false);
}

/// Whether one more cut is allowed; takes it if so.
fn may_cut(shared: &Shared, limit: Option<u64>) -> bool {
    let taken = shared.cuts.fetch_update(SeqCst, SeqCst, |cuts| {
        limit.is_none_or(|limit| cuts < limit).then_some(cuts + 1)
    });
    taken.is_ok()
}

/// What is on its way: when it is to arrive, its bytes, and whether the connection is cut then.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    cut: bool,
}

/// Pieces of one direction that may be on their way; at most 64 KiB each.
const PIECES_ON_THE_WAY: usize = 1024;

fn forward(
    mut from: TcpStream,
    into: TcpStream,
    rules: &Direction,
    to_server: bool,
    cuts: Option<u64>,
    shared: &Arc<Shared>,
) {
    // The pieces are under way side by side: one thread takes them in, the other delivers.
    let (sender, receiver) = sync_channel::<Piece>(PIECES_ON_THE_WAY);
    let deliverer = {
        let (Ok(source), shared) = (from.try_clone(), Arc::clone(shared)) else {
            return;
        };
        std::thread::spawn(move || deliver(&receiver, &source, into, to_server, &shared))
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut cut_after = rules.cut_after;
    let mut passed = 0;
    loop {
        let limit = if rules.piece == 0 {
            buffer.len()
        } else {
            rules.piece.min(buffer.len())
        };
        let mut length = match from.read(&mut buffer[..limit]) {
            Ok(length @ 1..) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
        };
        let mut cut = false;
        if let Some(at) = cut_after
            && passed + length as u64 >= at
        {
            if may_cut(shared, cuts) {
                cut = true;
                length = usize::try_from(at - passed).expect("at most a buffer");
            } else {
                cut_after = None;
            }
        }
        if let Some(at) = rules.stall_after {
            // What comes after is read and never passed on.
            length = length.min(usize::try_from(at.saturating_sub(passed)).unwrap_or(length));
        }
        passed += length as u64;
        let piece = Piece {
            due: Instant::now() + rules.delay,
            bytes: buffer[..length].to_vec(),
            cut,
        };
        if sender.send(piece).is_err() || cut {
            break;
        }
    }
    drop(sender);
    let _ = deliverer.join();
}

fn deliver(
    receiver: &Receiver<Piece>,
    from: &TcpStream,
    mut into: TcpStream,
    to_server: bool,
    shared: &Shared,
) {
    let counter = if to_server {
        &shared.to_server
    } else {
        &shared.to_client
    };
    for piece in receiver {
        std::thread::sleep(piece.due.saturating_duration_since(Instant::now()));
        counter.fetch_add(piece.bytes.len() as u64, SeqCst);
        if into.write_all(&piece.bytes).is_err() || piece.cut {
            let _ = from.shutdown(Shutdown::Both);
            let _ = into.shutdown(Shutdown::Both);
            return;
        }
    }
    // The end of one direction is passed on; the other may still have to say something.
    let _ = into.shutdown(Shutdown::Write);
}
