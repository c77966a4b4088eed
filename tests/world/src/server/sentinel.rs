//! A sentinel: it tells where the primary of a name is.

use std::collections::BTreeMap;

use super::reply::Reply;
use super::request::{self, Request};

/// A sentinel process.
#[derive(Debug, Default)]
pub struct Sentinel {
    /// The primaries that it watches, by name.
    pub primaries: BTreeMap<String, Watched>,
    /// The password that clients have to say.
    pub password: Option<String>,
    connections: BTreeMap<u64, Connection>,
    last_id: u64,
}

/// A primary that a sentinel watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Where the sentinel believes it to be.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its replicas.
    pub replicas: Vec<(String, u16)>,
}

#[derive(Debug, Default)]
struct Connection {
    input: Vec<u8>,
    output: Vec<u8>,
    is_known: bool,
    protocol: u8,
}

impl Sentinel {
    /// A sentinel that watches one primary.
    pub fn of(name: &str, host: &str, port: u16) -> Self {
        let watched = Watched {
            host: host.to_owned(),
            port,
            replicas: Vec::new(),
        };
        Self {
            primaries: BTreeMap::from([(name.to_owned(), watched)]),
            ..Self::default()
        }
    }

    /// A new connection.
    pub fn connect(&mut self) -> u64 {
        self.last_id += 1;
        let connection = Connection {
            is_known: self.password.is_none(),
            protocol: 2,
            ..Connection::default()
        };
        self.connections.insert(self.last_id, connection);
        self.last_id
    }

    /// The connection is gone.
    pub fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Whether the connection is open.
    pub fn is_open(&self, id: u64) -> bool {
        self.connections.contains_key(&id)
    }

    /// Takes what is to be sent to the client.
    pub fn outbox(&mut self, id: u64) -> Vec<u8> {
        let connection = self.connections.get_mut(&id);
        connection
            .map(|connection| std::mem::take(&mut connection.output))
            .unwrap_or_default()
    }

    /// Bytes from a client.
    pub fn receive(&mut self, id: u64, bytes: &[u8]) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        connection.input.extend_from_slice(bytes);
        let mut at = 0;
        let is_open = loop {
            match request::read(&connection.input[at..], 512 << 20) {
                Request::Partial => break true,
                Request::Broken(text) => {
                    Reply::error(text).write(&mut connection.output, connection.protocol);
                    break false;
                }
                Request::Words(words, end) => {
                    let words: Vec<String> = words
                        .into_iter()
                        .map(|word| &connection.input[at + word.start..at + word.end])
                        .map(|word| String::from_utf8_lossy(word).into_owned())
                        .collect();
                    at += end;
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let reply = self.answer(&mut connection, &words);
                    reply.write(&mut connection.output, connection.protocol);
                }
            }
        };
        connection.input.drain(..at);
        if is_open {
            self.connections.insert(id, connection);
        }
    }

    fn answer(&self, connection: &mut Connection, words: &[&str]) -> Reply {
        let name = words
            .first()
            .map(|word| word.to_lowercase())
            .unwrap_or_default();
        match (name.as_str(), &words[1.min(words.len())..]) {
            ("auth", [.., password]) => {
                if self
                    .password
                    .as_deref()
                    .is_some_and(|known| known != *password)
                {
                    return Reply::error(
                        "WRONGPASS invalid username-password pair or user is disabled.",
                    );
                }
                connection.is_known = true;
                Reply::OK
            }
            _ if !connection.is_known => Reply::error("NOAUTH Authentication required."),
            ("ping", _) => Reply::Simple("PONG"),
            ("client", _) => Reply::OK,
            ("role", _) => Reply::Array(vec![
                Reply::bulk("sentinel"),
                Reply::bulks(self.primaries.keys()),
            ]),
            ("info", _) => Reply::Text(
                "# Server\r\nredis_version:7.0.15\r\nredis_mode:sentinel\r\n".to_owned(),
            ),
            ("sentinel", [sub, rest @ ..]) => self.sentinel(&sub.to_lowercase(), rest),
            _ => Reply::error(format!(
                "ERR unknown command '{}', with args beginning with: ",
                words.first().unwrap_or(&"")
            )),
        }
    }

    fn sentinel(&self, sub: &str, rest: &[&str]) -> Reply {
        let watched = rest.first().and_then(|name| self.primaries.get(*name));
        let map = |rows: Vec<(&str, String)>| {
            Reply::Map(
                rows.into_iter()
                    .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
                    .collect(),
            )
        };
        let unknown = || Reply::error("ERR No such master with that name");
        match sub {
            "get-master-addr-by-name" => match watched {
                Some(watched) => Reply::bulks([watched.host.clone(), watched.port.to_string()]),
                None => Reply::NilArray,
            },
            "masters" => {
                let row = |(name, watched): (&String, &Watched)| {
                    map(vec![
                        ("name", name.clone()),
                        ("ip", watched.host.clone()),
                        ("port", watched.port.to_string()),
                        ("flags", "master".to_owned()),
                    ])
                };
                Reply::Array(self.primaries.iter().map(row).collect())
            }
            "replicas" | "slaves" => match watched {
                None => unknown(),
                Some(watched) => {
                    let row = |(host, port): &(String, u16)| {
                        map(vec![
                            ("name", format!("{host}:{port}")),
                            ("ip", host.clone()),
                            ("port", port.to_string()),
                            ("flags", "slave".to_owned()),
                        ])
                    };
                    Reply::Array(watched.replicas.iter().map(row).collect())
                }
            },
            "sentinels" => watched.map_or_else(unknown, |_| Reply::Array(Vec::new())),
            _ => Reply::error(format!(
                "ERR unknown subcommand '{sub}'. Try SENTINEL HELP."
            )),
        }
    }
}
