//! Writers that log every operation under a sequence number which the same transaction takes.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionLike as _, Value};

use crate::support::dataset::{command, now_ms};
use crate::support::random::Random;
use crate::support::servers::TestServer;

/// Databases that are written to.
pub const DBS: [u32; 3] = [0, 1, 5];

/// Keys of each type that stand before the writer begins, together.
pub const PRELOADED: u64 = 20_000;

/// Most operations are on so few keys of each type.
const HOT: u64 = 60;

const STREAMS: u64 = 12;

/// Transactions that are sent together.
const BURST: usize = 10;

/// One operation as it was sent.
#[derive(Clone, Debug)]
pub struct Op {
    pub db: u32,
    pub parts: Vec<Vec<u8>>,
}

impl Op {
    pub fn new(db: u32, parts: &[&str]) -> Self {
        let parts = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        Self { db, parts }
    }
}

fn pack(into: &mut Vec<u8>, op: &Op) {
    let parts: Vec<&[u8]> = op.parts.iter().map(Vec::as_slice).collect();
    command(into, &[b"SELECT", op.db.to_string().as_bytes()]);
    command(into, &parts);
}

/// What stands before the writer begins: the same wherever it is called.
pub fn preload(connection: &mut Connection) {
    let mut random = Random::new(7);
    let mut ops = Vec::new();
    for i in 0..PRELOADED {
        let db = db_of(i);
        let value = "x".repeat(random.between(10, 200) as usize);
        ops.push(match i % 5 {
            0 => Op::new(db, &["SET", &format!("s:{i}"), &value]),
            1 => Op::new(db, &["HSET", &format!("h:{i}"), "a", &value, "b", "2"]),
            2 => Op::new(db, &["RPUSH", &format!("l:{i}"), "a", &value]),
            3 => Op::new(db, &["SADD", &format!("t:{i}"), "1", "2", "3"]),
            _ => Op::new(db, &["ZADD", &format!("z:{i}"), "1", "a", "2", "b"]),
        });
    }
    for i in 0..STREAMS {
        let name = format!("x:{i}");
        ops.push(Op::new(
            db_of(i),
            &["XADD", &name, &format!("0-{}", i + 1), "f", "v"],
        ));
    }
    apply(connection, &ops);
}

/// Carries operations out, whatever comes of them.
pub fn apply(connection: &mut Connection, ops: &[Op]) {
    for chunk in ops.chunks(1000) {
        let mut packed = Vec::new();
        for op in chunk {
            pack(&mut packed, op);
        }
        connection
            .req_packed_commands(&packed, 0, 2 * chunk.len())
            .expect("the server answers");
    }
    redis::cmd("SELECT")
        .arg(0)
        .exec(connection)
        .expect("SELECT 0");
}

fn db_of(i: u64) -> u32 {
    DBS[(i % 3) as usize]
}

/// What a writer is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub ops_per_second: u64,
    /// Out of a hundred, on few keys.
    pub hot_percent: u64,
    /// Nothing but what no client is told of.
    pub unheard: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            ops_per_second: 2000,
            hot_percent: 80,
            unheard: false,
        }
    }
}

/// Cold keys that change faster than the network answers leave no moment for a round without a
/// pause.
pub const MILD: Plan = Plan {
    ops_per_second: 500,
    hot_percent: 100,
    unheard: false,
};

/// Two writers at work.
pub struct Writer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<(u64, Op)>>>,
    began: Instant,
}

impl Writer {
    pub fn start(server: &TestServer, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next_id = Arc::new(AtomicU64::new(1));
        let threads = (0..2)
            .map(|number| {
                let connection = server.client();
                let (stop, next_id) = (Arc::clone(&stop), Arc::clone(&next_id));
                std::thread::spawn(move || write(connection, number, plan, &stop, &next_id))
            })
            .collect();
        Self {
            stop,
            threads,
            began: Instant::now(),
        }
    }

    /// Ends it: what it did, in order.
    pub fn finish(self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Vec<(u64, Op)> = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().expect("the writer writes"));
        }
        all.sort_by_key(|(sequence, _)| *sequence);
        Log {
            per_second: all.len() as f64 / self.began.elapsed().as_secs_f64(),
            ops: all,
        }
    }
}

/// What was written, in order.
pub struct Log {
    pub ops: Vec<(u64, Op)>,
    pub per_second: f64,
}

/// Carries out one operation besides, under a sequence number as the writers'.
pub fn do_besides(server: &TestServer, op: Op) -> (u64, Op) {
    let mut connection = server.client();
    if op.parts[0] == b"FLUSHALL" {
        // The number has to survive.
        let script = "local s = redis.call('INCR', 'seq') redis.call('FLUSHALL') \
                      redis.call('SET', 'seq', s) return s";
        let sequence = redis::cmd("EVAL")
            .arg(script)
            .arg(1)
            .arg("seq")
            .query(&mut connection)
            .expect("EVAL");
        return (sequence, op);
    }
    let mut packed = Vec::new();
    command(&mut packed, &[b"MULTI"]);
    pack(&mut packed, &op);
    command(&mut packed, &[b"SELECT", b"0"]);
    command(&mut packed, &[b"INCR", b"seq"]);
    command(&mut packed, &[b"EXEC"]);
    let replies = connection
        .req_packed_commands(&packed, 0, 6)
        .expect("the server answers");
    let Value::Array(done) = &replies[5] else {
        panic!("EXEC answered {:?}", replies[5]);
    };
    let Some(Value::Int(sequence)) = done.last() else {
        panic!("INCR answered {done:?}");
    };
    (*sequence as u64, op)
}

impl Log {
    /// Puts in what was done besides.
    pub fn add(&mut self, done: Vec<(u64, Op)>) {
        self.ops.extend(done);
        self.ops.sort_by_key(|(sequence, _)| *sequence);
    }

    /// Replays it up to and with a sequence number.
    pub fn replay(&self, connection: &mut Connection, until: u64) {
        let upto = self
            .ops
            .iter()
            .take_while(|(sequence, _)| *sequence <= until);
        let ops: Vec<Op> = upto.map(|(_, op)| op.clone()).collect();
        apply(connection, &ops);
        if until > 0 {
            apply(
                connection,
                &[Op::new(0, &["SET", "seq", &until.to_string()])],
            );
        }
    }
}

fn write(
    mut connection: Connection,
    number: u64,
    plan: Plan,
    stop: &AtomicBool,
    next_id: &AtomicU64,
) -> Vec<(u64, Op)> {
    let mut random = Random::new(100 + number);
    let mut log = Vec::new();
    let began = Instant::now();
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let ops: Vec<Op> = (0..BURST)
            .map(|_| operation(&mut random, plan, next_id))
            .collect();
        let mut packed = Vec::new();
        for op in &ops {
            command(&mut packed, &[b"MULTI"]);
            pack(&mut packed, op);
            command(&mut packed, &[b"SELECT", b"0"]);
            command(&mut packed, &[b"INCR", b"seq"]);
            command(&mut packed, &[b"EXEC"]);
        }
        let replies = connection
            .req_packed_commands(&packed, 0, 6 * ops.len())
            .expect("the server answers");
        for (op, replies) in ops.into_iter().zip(replies.chunks(6)) {
            let Value::Array(done) = &replies[5] else {
                panic!("EXEC answered {:?}", replies[5]);
            };
            let Some(Value::Int(sequence)) = done.last() else {
                panic!("INCR answered {done:?}");
            };
            log.push((*sequence as u64, op));
        }
        sent += BURST as u64;
        let due = Duration::from_secs_f64(sent as f64 * 2.0 / plan.ops_per_second as f64);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
    }
    log
}

/// Changes of streams that CLIENT TRACKING is silent about; to every other stream a group never
/// comes, and only its last id moves.
fn unheard(random: &mut Random, next_id: &AtomicU64) -> Op {
    let i = random.below(STREAMS);
    let (db, x) = (db_of(i), format!("x:{i}"));
    let group = format!("g{}", random.below(3));
    let id = format!("{}-1", next_id.fetch_add(1, Ordering::Relaxed));
    if i.is_multiple_of(2) {
        return Op::new(db, &["XSETID", &x, &id]);
    }
    match random.below(5) {
        0 => Op::new(db, &["XGROUP", "CREATE", &x, &group, "0"]),
        1 => Op::new(db, &["XGROUP", "DESTROY", &x, &group]),
        2 => Op::new(db, &["XGROUP", "SETID", &x, &group, "0"]),
        3 => Op::new(db, &["XACK", &x, &group, &format!("0-{}", i + 1)]),
        _ => Op::new(
            db,
            &["XREADGROUP", "GROUP", &group, "c", "STREAMS", &x, ">"],
        ),
    }
}

fn operation(random: &mut Random, plan: Plan, next_id: &AtomicU64) -> Op {
    if plan.unheard {
        return unheard(random, next_id);
    }
    let i = match random.chance(plan.hot_percent) {
        true => random.below(HOT),
        false => random.below(PRELOADED),
    };
    let db = db_of(i);
    let value = format!("v{}", random.next_u64()).repeat(if random.chance(20) { 20 } else { 1 });
    let field = format!("f{}", random.below(30));
    let member = random.below(1000).to_string();
    let stream = random.below(STREAMS);
    let (xdb, x) = (db_of(stream), format!("x:{stream}"));
    let any = format!("{}:{i}", random.pick(&["s", "h", "l", "t", "z"]));
    let far = (now_ms() + 1_000_000_000).to_string();
    let soon = (now_ms() + random.between(50, 400)).to_string();
    match random.below(100) {
        0..20 => Op::new(db, &["SET", &format!("s:{i}"), &value]),
        20..33 => Op::new(db, &["HSET", &format!("h:{i}"), &field, &value]),
        33..38 => Op::new(db, &["HDEL", &format!("h:{i}"), &field, "a"]),
        38..46 => Op::new(db, &["RPUSH", &format!("l:{i}"), &value]),
        46..49 => Op::new(db, &["LPOP", &format!("l:{i}")]),
        49..55 => Op::new(db, &["SADD", &format!("t:{i}"), &member]),
        55..58 => Op::new(db, &["SREM", &format!("t:{i}"), &member]),
        58..65 => Op::new(db, &["ZADD", &format!("z:{i}"), &member, &field]),
        65..69 => Op::new(db, &["DEL", &any]),
        69..72 => Op::new(db, &["PEXPIREAT", &any, &far]),
        72..74 => Op::new(db, &["PERSIST", &any]),
        // Nothing but SET and a short expiry happens to these: replayed later, they are gone too.
        74..76 => Op::new(db, &["SET", &format!("e:{i}"), &value]),
        76..78 => Op::new(db, &["PEXPIREAT", &format!("e:{i}"), &soon]),
        78..81 => {
            let to = random.below(PRELOADED / 3) * 3 + i % 3;
            Op::new(db, &["RENAME", &format!("s:{i}"), &format!("s:{to}")])
        }
        81..88 => {
            let id = format!("{}-1", next_id.fetch_add(1, Ordering::Relaxed));
            // Bounded, so that a run of many minutes is as one of a few seconds.
            Op::new(xdb, &["XADD", &x, "MAXLEN", "500", &id, &field, &value])
        }
        88..89 => {
            let group = format!("g{}", random.below(3));
            match random.chance(5) {
                true => Op::new(xdb, &["XGROUP", "DESTROY", &x, &group]),
                false => Op::new(xdb, &["XGROUP", "CREATE", &x, &group, "0"]),
            }
        }
        89..95 => {
            let group = format!("g{}", random.below(3));
            let consumer = format!("c{}", random.below(2));
            Op::new(
                xdb,
                &[
                    "XREADGROUP",
                    "GROUP",
                    &group,
                    &consumer,
                    "COUNT",
                    "2",
                    "STREAMS",
                    &x,
                    ">",
                ],
            )
        }
        _ => {
            let group = format!("g{}", random.below(3));
            let newest = next_id.load(Ordering::Relaxed);
            let oldest = newest.saturating_sub(2_000).max(1);
            let id = format!("{}-1", random.between(oldest, newest));
            Op::new(xdb, &["XACK", &x, &group, &id])
        }
    }
}

/// Whether the server answers a write within this time.
pub fn writes_within(server: &TestServer, limit: Duration) -> bool {
    // The redis crate's own time limits take an interruption for an error.
    let stream = TcpStream::connect(server.addr()).expect("the server listens");
    stream.set_read_timeout(Some(limit)).expect("a time limit");
    use std::io::{Read as _, Write as _};
    let mut stream = stream;
    stream
        .write_all(b"SET probe 1\r\n")
        .expect("the server reads");
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).is_ok() && &reply == b"+OK\r\n"
}
