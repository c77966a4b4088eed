//! A toy proxy that understands commands: each is passed on, answered by the toy itself, or the end
//! of the connection, as twemproxy does with a command that it does not know.
//!
//! One command after the other, so that every answer stands in its place; what a server pushes by
//! itself does not come through.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the toy does with a command.
#[derive(Clone, Debug)]
pub enum Deed {
    Pass,
    /// These bytes are the answer; the server does not see the command.
    Answer(Vec<u8>),
    /// The same, over and over, until nobody reads any more.
    Endless(Vec<u8>),
    Close,
    /// The answer of the server up to so many bytes, and then the end of the connection.
    Cut(usize),
    /// What this makes of the answer of the server.
    Edit(fn(Vec<u8>) -> Vec<u8>),
}

impl Deed {
    pub fn answer(text: &str) -> Self {
        Self::Answer(format!("{text}\r\n").into_bytes())
    }
}

/// The words of a command; the first is in upper case.
pub type Words = [Vec<u8>];
type Judge = dyn Fn(&Words) -> Deed + Send + Sync;

/// A running toy. Dropping it ends what goes through it.
pub struct Toy {
    port: u16,
    stop: Arc<AtomicBool>,
    live: Arc<Mutex<Vec<TcpStream>>>,
    sent: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Toy {
    pub fn start(
        target: SocketAddr,
        judge: impl Fn(&Words) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let stop = Arc::new(AtomicBool::new(false));
        let (live, sent) = (Arc::default(), Arc::default());
        let judge: Arc<Judge> = Arc::new(judge);
        let thread = {
            let (stop, live, sent) = (
                Arc::clone(&stop),
                Arc::clone(&live) as Arc<Mutex<Vec<TcpStream>>>,
                Arc::clone(&sent) as Arc<Mutex<Vec<String>>>,
            );
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    if stop.load(SeqCst) {
                        return;
                    }
                    let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                        continue;
                    };
                    let mut live = live.lock().expect("no panic under the lock");
                    live.extend(
                        [client.try_clone(), server.try_clone()]
                            .into_iter()
                            .flatten(),
                    );
                    let (judge, sent) = (Arc::clone(&judge), Arc::clone(&sent));
                    std::thread::spawn(move || {
                        // It ends when one of both does.
                        let _ = serve(&client, &server, &*judge, &sent);
                        let _ = client.shutdown(Shutdown::Both);
                    });
                }
            })
        };
        Self {
            port,
            stop,
            live,
            sent,
            listener: Some(thread),
        }
    }

    /// Knows these commands, and ends the connection at any other.
    pub fn knowing(target: SocketAddr, commands: &'static [&'static str]) -> Self {
        Self::start(target, move |words| {
            match commands.iter().any(|name| name.as_bytes() == words[0]) {
                true => Deed::Pass,
                false => Deed::Close,
            }
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn url_of(&self, login: &str) -> String {
        format!("redis://{login}@127.0.0.1:{}", self.port)
    }

    /// The names of all commands that came so far.
    pub fn sent(&self) -> Vec<String> {
        self.sent.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the listener, which then sees the flag.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        for stream in self.live.lock().expect("no panic under the lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(
    client: &TcpStream,
    server: &TcpStream,
    judge: &Judge,
    sent: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut commands = BufReader::new(client);
    let mut answers = BufReader::new(server);
    let (mut to_client, mut to_server) = (client, server);
    loop {
        let Some(words) = command(&mut commands)? else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(&words[0]).into_owned();
        sent.lock().expect("no panic under the lock").push(name);
        let deed = judge(&words);
        match deed {
            Deed::Close => return Ok(()),
            Deed::Answer(bytes) => to_client.write_all(&bytes)?,
            Deed::Endless(bytes) => loop {
                to_client.write_all(&bytes)?;
            },
            Deed::Pass | Deed::Cut(_) | Deed::Edit(_) => {
                to_server.write_all(&packed(&words))?;
                let mut reply = Vec::new();
                answer(&mut answers, &mut reply)?;
                if let Deed::Cut(len) = deed {
                    reply.truncate(len);
                    to_client.write_all(&reply)?;
                    return Ok(());
                }
                if let Deed::Edit(edit) = deed {
                    reply = edit(reply);
                }
                to_client.write_all(&reply)?;
            }
        }
    }
}

fn packed(words: &Words) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn line(stream: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = stream.read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}

fn number(line: &[u8]) -> i64 {
    let digits = String::from_utf8_lossy(&line[1..]);
    digits.trim_end().parse().unwrap_or(-1)
}

fn command(stream: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Vec<Vec<u8>>>> {
    let Some(head) = line(stream)? else {
        return Ok(None);
    };
    // Inline commands are closed on.
    if head[0] != b'*' {
        return Ok(None);
    }
    let mut words = Vec::new();
    for _ in 0..number(&head) {
        let Some(head) = line(stream)? else {
            return Ok(None);
        };
        let mut word = vec![0; usize::try_from(number(&head)).unwrap_or(0) + 2];
        stream.read_exact(&mut word)?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    if let Some(first) = words.first_mut() {
        first.make_ascii_uppercase();
    }
    Ok((!words.is_empty()).then_some(words))
}

/// One whole answer, nested ones included.
fn answer(stream: &mut BufReader<&TcpStream>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let head = line(stream)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    out.extend_from_slice(&head);
    let count = match head[0] {
        b'$' | b'=' | b'!' => {
            if let Ok(len) = usize::try_from(number(&head)) {
                let mut bytes = vec![0; len + 2];
                stream.read_exact(&mut bytes)?;
                out.extend_from_slice(&bytes);
            }
            0
        }
        b'*' | b'~' | b'>' => number(&head),
        b'%' => 2 * number(&head),
        _ => 0,
    };
    for _ in 0..count {
        answer(stream, out)?;
    }
    Ok(())
}
