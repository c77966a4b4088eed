//! A connection between the tool and a server.

use std::collections::VecDeque;
use std::io;

use crate::server::ClientId;

/// A connection between the tool and a server, by the tool's end and the server's.
#[derive(Debug)]
pub(super) struct Link {
    pub peer: Peer,
    /// `None` when the server does not have it any more.
    pub client: Option<ClientId>,
    /// How long the tool waits, in µs; 0 for ever.
    pub timeout: u64,
    /// The tool has not closed it.
    pub is_held: bool,
    pub to_server: Pipe,
    pub to_tool: Pipe,
    /// Arrived at the server, and no whole command yet.
    pub partial: Vec<u8>,
    /// Arrived at the tool.
    pub ready: VecDeque<u8>,
    /// What the tool sees when it has read what arrived.
    pub end: Option<End>,
    /// Nothing arrives any more, in either direction.
    pub is_silent: bool,
    /// Nothing arrives before then.
    pub stalled_until: u64,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A server.
    Node(usize),
    /// A sentinel.
    Sentinel(usize),
}

/// How a connection looks to the tool when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub pieces: VecDeque<(u64, Vec<u8>)>,
    /// When the last of it arrives.
    pub last: u64,
    /// After so many more bytes the connection is reset.
    pub cut_after: Option<usize>,
    /// Its end arrives then.
    pub closes_at: Option<u64>,
}

impl Link {
    pub fn new(peer: Peer, client: Option<ClientId>) -> Self {
        Self {
            peer,
            client,
            timeout: 0,
            is_held: true,
            to_server: Pipe::default(),
            to_tool: Pipe::default(),
            partial: Vec::new(),
            ready: VecDeque::new(),
            end: None,
            is_silent: false,
            stalled_until: 0,
        }
    }

    /// The server at the other end, if it is one.
    pub fn node(&self) -> Option<usize> {
        match self.peer {
            Peer::Node(node) => Some(node),
            Peer::Sentinel(_) => None,
        }
    }

    /// Whether both sides still have it.
    pub fn is_open(&self) -> bool {
        self.is_held && self.client.is_some() && self.end.is_none()
    }

    pub fn is_readable(&self) -> bool {
        !self.ready.is_empty() || self.end.is_some()
    }

    pub fn read(&mut self, out: &mut [u8]) -> Option<io::Result<usize>> {
        if !self.ready.is_empty() {
            let (front, _) = self.ready.as_slices();
            let count = front.len().min(out.len());
            out[..count].copy_from_slice(&front[..count]);
            self.ready.drain(..count);
            return Some(Ok(count));
        }
        match self.end? {
            End::Closed => Some(Ok(0)),
            End::Reset => Some(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Pipe {
    /// The next piece that has arrived by now.
    pub fn due(&mut self, now: u64) -> Option<Vec<u8>> {
        match self.pieces.front() {
            Some((at, _)) if *at <= now => self.pieces.pop_front().map(|(_, bytes)| bytes),
            _ => None,
        }
    }

    /// Sends bytes, the first so many of them ahead of the rest; when they arrive.
    pub fn send(
        &mut self,
        bytes: &[u8],
        first: usize,
        earliest: u64,
        way: u64,
    ) -> [Option<u64>; 2] {
        let (ahead, rest) = bytes.split_at(first.min(bytes.len()));
        let mut at = earliest.max(self.last + 1);
        let mut arrivals = [None, None];
        for (piece, arrival) in [ahead, rest].into_iter().zip(&mut arrivals) {
            if !piece.is_empty() {
                self.pieces.push_back((at, piece.to_vec()));
                self.last = at;
                *arrival = Some(at);
                at += 1 + way / 2;
            }
        }
        arrivals
    }

    /// How many of so many bytes get through before it is cut; `true` if it is cut by them.
    pub fn admits(&mut self, bytes: usize) -> (usize, bool) {
        match &mut self.cut_after {
            None => (bytes, false),
            Some(left) if bytes >= *left => (*left, true),
            Some(left) => {
                *left -= bytes;
                (bytes, false)
            }
        }
    }
}
