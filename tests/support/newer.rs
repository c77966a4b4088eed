//! A server that is newer than anything the tool knows: a real one behind a proxy. Strings that begin
//! with [`MARK`] leave it as values of a type and of an RDB version that nobody knows, with a right
//! checksum; if it is to know the type, RESTORE of such a value reaches it as that of the string.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use redis_migrate_payload::payload;

use super::wire;

/// How the values begin that the proxy takes for new ones. They have at most 20 bytes, so that no
/// server compresses them.
pub const MARK: &[u8] = b"new!";

/// What the newer server is like.
#[derive(Clone, Copy, Debug)]
pub struct Newer {
    /// The type byte of its new values.
    pub type_byte: u8,
    /// The RDB version in their footers.
    pub rdb_version: u16,
    /// Whether it takes such values, or hands them to the real server, which refuses them.
    pub takes: bool,
    /// The RDB version of the real server.
    pub real_version: u16,
}

/// A running proxy. It ends with the test.
pub struct NewerServer(SocketAddr);

impl NewerServer {
    pub fn start(target: SocketAddr, newer: Newer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                let ends = [&client, &server].map(TcpStream::try_clone);
                let [Ok(from_client), Ok(from_server)] = ends else {
                    continue;
                };
                let newer = Arc::new(newer);
                let up = Arc::clone(&newer);
                std::thread::spawn(move || pass(from_client, server, |bytes| up.command(bytes)));
                std::thread::spawn(move || pass(from_server, client, |bytes| newer.reply(bytes)));
            }
        });
        Self(address)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.0)
    }
}

/// Passes whole commands, or whole replies, on as `change` makes them: no byte more, none less.
fn pass(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut input = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        input.extend_from_slice(&buffer[..length]);
        let mut at = 0;
        while let Some(end) = wire::value_end(&input, at) {
            change(&mut input[at..end]);
            at = end;
        }
        if to.write_all(&input[..at]).is_err() {
            break;
        }
        input.drain(..at);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

impl Newer {
    /// Values on their way out.
    fn reply(&self, bytes: &mut [u8]) {
        each_bulk(bytes, 0, &mut |content| {
            let Ok((&[0, _, ref value @ ..], _)) = payload::split(content) else {
                return;
            };
            if value.starts_with(MARK) {
                sign(content, self.type_byte, self.rdb_version);
            }
        });
    }

    /// Values on their way in.
    fn command(&self, bytes: &mut [u8]) {
        if !self.takes {
            return;
        }
        each_bulk(bytes, 0, &mut |content| {
            let Ok((&[type_byte, ..], rdb_version)) = payload::split(content) else {
                return;
            };
            if (type_byte, rdb_version) == (self.type_byte, self.rdb_version) {
                sign(content, 0, self.real_version);
            }
        });
    }
}

fn sign(dump: &mut [u8], type_byte: u8, rdb_version: u16) {
    dump[0] = type_byte;
    let body_len = dump.len() - payload::FOOTER_LEN;
    let footer = payload::footer(&dump[..body_len], rdb_version);
    dump[body_len..].copy_from_slice(&footer);
}

/// Visits every bulk string of a whole value, however deep it stands; where the value ends.
fn each_bulk(bytes: &mut [u8], at: usize, visit: &mut impl FnMut(&mut [u8])) -> usize {
    let end = wire::value_end(bytes, at).expect("a whole value");
    let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n");
    let begin = at + line.expect("a line") + 2;
    match bytes[at] {
        b'$' if end > begin => visit(&mut bytes[begin..end - 2]),
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let mut next = begin;
            while next < end {
                next = each_bulk(bytes, next, visit);
            }
        }
        _ => {}
    }
    end
}
