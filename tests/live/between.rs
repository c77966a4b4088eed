//! A proxy that reads the commands of a client one by one, and answers some of them itself.

use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of a command.
#[derive(Clone, Debug)]
pub enum Act {
    /// The server answers.
    Pass,
    /// This is the answer; the server hears nothing of it.
    Say(&'static str),
    /// The server carries it out, and this is the answer.
    DoAndSay(&'static str),
    /// The connection is closed.
    HangUp,
}

type Rule = Box<dyn FnMut(&[Vec<u8>]) -> Act + Send>;

/// Runs until the test ends.
pub struct Between {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Between {
    /// In front of `server`; `rule` is asked for every command.
    pub fn start(server: SocketAddr, rule: impl FnMut(&[Vec<u8>]) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its port");
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rule, seen) = (Arc::clone(&rule), Arc::clone(&all));
                std::thread::spawn(move || {
                    let server = TcpStream::connect(server).expect("the server");
                    for socket in [&client, &server] {
                        let _ = socket.set_nodelay(true);
                    }
                    // An end is an end, whoever makes it.
                    let _ = talk(&client, &server, &rule, &seen);
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The commands that came, in words, with their first argument.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panicked").clone()
    }
}

fn talk(
    client: &TcpStream,
    server: &TcpStream,
    rule: &Mutex<Rule>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = (BufReader::new(client), client);
    let (mut from_server, mut to_server) = (BufReader::new(server), server);
    loop {
        let mut bytes = Vec::new();
        let command = read_command(&mut from_client, &mut bytes)?;
        let words = command.iter().take(2);
        let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word)).collect();
        seen.lock().expect("nobody panicked").push(words.join(" "));
        let act = rule.lock().expect("nobody panicked")(&command);
        let mut reply = Vec::new();
        match act {
            Act::HangUp => return Ok(()),
            Act::Say(text) => reply.extend_from_slice(text.as_bytes()),
            Act::Pass | Act::DoAndSay(_) => {
                to_server.write_all(&bytes)?;
                read_reply(&mut from_server, &mut reply)?;
            }
        }
        if let Act::DoAndSay(text) = act {
            reply = text.as_bytes().to_vec();
        }
        to_client.write_all(&reply)?;
    }
}

fn line(from: &mut impl std::io::BufRead, bytes: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&line);
    Ok(line.trim_ascii_end().to_vec())
}

fn number(text: &[u8]) -> i64 {
    let text = std::str::from_utf8(text).expect("a number");
    text.parse().expect("a number")
}

fn read_command(
    from: &mut impl std::io::BufRead,
    bytes: &mut Vec<u8>,
) -> std::io::Result<Vec<Vec<u8>>> {
    let count = number(&line(from, bytes)?[1..]);
    let mut command = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(number(&line(from, bytes)?[1..])).expect("a length");
        let mut arg = vec![0; len + 2];
        from.read_exact(&mut arg)?;
        bytes.extend_from_slice(&arg);
        arg.truncate(len);
        command.push(arg);
    }
    Ok(command)
}

fn read_reply(from: &mut impl std::io::BufRead, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let mut open = 1;
    while open > 0 {
        open -= 1;
        let head = line(from, bytes)?;
        match head[0] {
            b'$' => {
                if let Ok(len) = usize::try_from(number(&head[1..])) {
                    let mut body = vec![0; len + 2];
                    from.read_exact(&mut body)?;
                    bytes.extend_from_slice(&body);
                }
            }
            b'*' => open += number(&head[1..]).max(0),
            _ => {}
        }
    }
    Ok(())
}
