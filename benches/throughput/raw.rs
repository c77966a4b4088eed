//! The ceiling: clients on bare sockets that send the very commands the tool sends, in the same
//! order and the same small transactions, and look at the replies only to find their ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::dataset::command;

/// Keys asked for by one SCAN.
const PAGE: &[u8] = b"1000";
/// Keys read in one transaction.
const TRANSACTION: usize = 16;

/// A key and its value as they travel.
pub struct Row {
    pub key: Vec<u8>,
    /// Unix milliseconds, or 0 for a key that does not expire.
    pub expire_at: u64,
    pub payload: Vec<u8>,
}

/// Replies, taken apart only as far as their framing.
struct Replies {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Replies {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; 256 * 1024],
            start: 0,
            end: 0,
        }
    }

    /// Reads more after what is there.
    fn fill(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.expect("the server answers"),
            }
        };
        assert_ne!(read, 0, "the server closed the connection");
        self.end += read;
    }

    /// The kind and the number of the next line: `*3` is an array of three.
    fn line(&mut self) -> (u8, i64) {
        loop {
            let held = &self.buffer[self.start..self.end];
            if let Some(length) = held.iter().position(|byte| *byte == b'\n') {
                let line = &held[..length - 1];
                let (kind, rest) = (line[0], &line[1..]);
                assert_ne!(kind, b'-', "{}", String::from_utf8_lossy(rest));
                let mut number: i64 = 0;
                if kind != b'+' {
                    for byte in rest {
                        if *byte != b'-' {
                            number = number * 10 + i64::from(byte - b'0');
                        }
                    }
                    if rest.first() == Some(&b'-') {
                        number = -number;
                    }
                }
                self.start += length + 1;
                return (kind, number);
            }
            assert!(held.len() < 4096, "no end of line");
            self.fill();
        }
    }

    /// Passes over `length` bytes and the end of their line.
    fn skip(&mut self, length: usize) {
        let mut left = length + 2;
        while left > self.end - self.start {
            left -= self.end - self.start;
            self.start = self.end;
            self.fill();
        }
        self.start += left;
    }

    /// Appends `length` bytes to `into` and passes over the end of their line.
    fn take(&mut self, length: usize, into: &mut Vec<u8>) {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill();
            }
            let piece = left.min(self.end - self.start);
            into.extend_from_slice(&self.buffer[self.start..self.start + piece]);
            self.start += piece;
            left -= piece;
        }
        self.skip(0);
    }

    fn bulk(&mut self) -> Vec<u8> {
        let (kind, length) = self.line();
        assert_eq!(kind, b'$');
        let mut bytes = Vec::new();
        self.take(usize::try_from(length).expect("not nil"), &mut bytes);
        bytes
    }

    fn skip_bulk(&mut self) {
        let (kind, length) = self.line();
        assert_eq!(kind, b'$');
        if let Ok(length) = usize::try_from(length) {
            self.skip(length);
        }
    }

    /// A reply to SCAN: the next cursor and the keys.
    fn page(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        assert_eq!(self.line(), (b'*', 2));
        let cursor = self.bulk();
        let (_, count) = self.line();
        (cursor, (0..count).map(|_| self.bulk()).collect())
    }

    /// The replies of a transaction up to the values: OK, QUEUED for each, and the number of
    /// results.
    fn open_transaction(&mut self, keys: usize) {
        for _ in 0..=2 * keys {
            assert_eq!(self.line().0, b'+');
        }
        assert_eq!(self.line(), (b'*', 2 * keys as i64));
    }
}

fn connect(server: SocketAddr) -> (TcpStream, Replies) {
    let stream = TcpStream::connect(server).expect("the server listens");
    stream.set_nodelay(true).expect("TCP");
    let replies = stream.try_clone().expect("a second handle");
    (stream, Replies::new(replies))
}

/// Appends the transactions that read these keys.
fn ask(keys: &[Vec<u8>], into: &mut Vec<u8>) {
    for keys in keys.chunks(TRANSACTION) {
        command(into, &[b"MULTI"]);
        for key in keys {
            command(into, &[b"PEXPIRETIME", key]);
        }
        for key in keys {
            command(into, &[b"DUMP", key]);
        }
        command(into, &[b"EXEC"]);
    }
}

/// Reads every key of database 0 with the next page always in flight, and hands each page's
/// keys to `answers`, which must take that page's replies.
fn scan_and_ask(server: SocketAddr, mut answers: impl FnMut(&[Vec<u8>], &mut Replies)) -> u64 {
    let (mut stream, mut replies) = connect(server);
    let mut packed = Vec::new();
    let mut cursor = b"0".to_vec();
    let mut waiting: Option<Vec<Vec<u8>>> = None;
    let mut keys = 0;
    command(&mut packed, &[b"SCAN", &cursor, b"COUNT", PAGE]);
    stream.write_all(&packed).expect("the server reads");
    packed.clear();
    while cursor != b"0" || waiting.is_none() {
        // The page comes ahead of the values of the page before it, and the requests for this
        // page's values go out before those are looked at.
        let (next, page) = replies.page();
        keys += page.len() as u64;
        cursor = next;
        if cursor != b"0" {
            command(&mut packed, &[b"SCAN", &cursor, b"COUNT", PAGE]);
        }
        ask(&page, &mut packed);
        stream.write_all(&packed).expect("the server reads");
        packed.clear();
        if let Some(before) = waiting.replace(page) {
            answers(&before, &mut replies);
        }
    }
    let page = waiting.take().expect("at least one page");
    answers(&page, &mut replies);
    keys
}

/// Reads all keys as the tool does and throws them away. Returns their number.
pub fn export(server: SocketAddr) -> u64 {
    scan_and_ask(server, |keys, replies| {
        for keys in keys.chunks(TRANSACTION) {
            replies.open_transaction(keys.len());
            for _ in keys {
                replies.line();
            }
            for _ in keys {
                replies.skip_bulk();
            }
        }
    })
}

/// Reads all keys and keeps them.
pub fn read_all(server: SocketAddr, mut keep: impl FnMut(Row)) {
    scan_and_ask(server, |keys, replies| {
        for keys in keys.chunks(TRANSACTION) {
            replies.open_transaction(keys.len());
            let expiries: Vec<i64> = keys.iter().map(|_| replies.line().1).collect();
            for (key, expire_at) in keys.iter().zip(expiries) {
                keep(Row {
                    key: key.clone(),
                    expire_at: u64::try_from(expire_at).unwrap_or(0),
                    payload: replies.bulk(),
                });
            }
        }
    });
}

/// Appends the command that writes a key, up to where its payload goes.
fn open_restore(key: &[u8], expire_at: u64, payload: usize, into: &mut Vec<u8>) {
    let expire_at = expire_at.to_string();
    into.extend_from_slice(b"*5\r\n$7\r\nRESTORE\r\n$");
    into.extend_from_slice(key.len().to_string().as_bytes());
    into.extend_from_slice(b"\r\n");
    into.extend_from_slice(key);
    into.extend_from_slice(b"\r\n$");
    into.extend_from_slice(expire_at.len().to_string().as_bytes());
    into.extend_from_slice(b"\r\n");
    into.extend_from_slice(expire_at.as_bytes());
    into.extend_from_slice(b"\r\n$");
    into.extend_from_slice(payload.to_string().as_bytes());
    into.extend_from_slice(b"\r\n");
}

const CLOSE_RESTORE: &[u8] = b"\r\n$6\r\nABSTTL\r\n";

/// Commands that write keys, ready to be sent.
#[derive(Default)]
pub struct Prepared {
    pieces: Vec<Vec<u8>>,
    pub keys: u64,
}

impl Prepared {
    pub fn push(&mut self, row: &Row) {
        const PIECE: usize = 256 * 1024;
        if self.pieces.last().is_none_or(|piece| piece.len() >= PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE + 16 * 1024));
        }
        let piece = self.pieces.last_mut().expect("just pushed");
        open_restore(&row.key, row.expire_at, row.payload.len(), piece);
        piece.extend_from_slice(&row.payload);
        piece.extend_from_slice(CLOSE_RESTORE);
        self.keys += 1;
    }
}

/// Writes prepared keys on one connection as fast as the server takes them.
pub fn import(server: SocketAddr, prepared: &Prepared) {
    let (mut stream, mut replies) = connect(server);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in &prepared.pieces {
                stream.write_all(piece).expect("the server reads");
            }
        });
        for _ in 0..prepared.keys {
            assert_eq!(replies.line().0, b'+');
        }
    });
}

/// Moves all keys from one server to another, the replies of one becoming the commands of the
/// other. Returns their number.
pub fn copy(source: SocketAddr, destination: SocketAddr) -> u64 {
    let (mut stream, mut acknowledged) = connect(destination);
    let (count, counts) = std::sync::mpsc::channel::<usize>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(keys) = counts.recv() {
                for _ in 0..keys {
                    assert_eq!(acknowledged.line().0, b'+');
                }
            }
        });
        let mut packed = Vec::new();
        let keys = scan_and_ask(source, |keys, replies| {
            for keys in keys.chunks(TRANSACTION) {
                replies.open_transaction(keys.len());
                let expiries: Vec<i64> = keys.iter().map(|_| replies.line().1).collect();
                for (key, expire_at) in keys.iter().zip(expiries) {
                    let (_, length) = replies.line();
                    let length = usize::try_from(length).expect("the key is still there");
                    let expire_at = u64::try_from(expire_at).unwrap_or(0);
                    open_restore(key, expire_at, length, &mut packed);
                    replies.take(length, &mut packed);
                    packed.extend_from_slice(CLOSE_RESTORE);
                }
            }
            stream.write_all(&packed).expect("the destination reads");
            packed.clear();
            count.send(keys.len()).expect("the other thread counts");
        });
        drop(count);
        keys
    })
}
