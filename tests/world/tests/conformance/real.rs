//! Real servers, started for one test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis_migrate_world::server::{RELEASES, Release};

use super::resp::{self, Value};

/// Where the servers are.
pub fn directory() -> PathBuf {
    match std::env::var_os("REDIS_MIGRATE_SERVERS") {
        Some(directory) => directory.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/servers"),
    }
}

/// The releases whose servers are there. Those that are missing are told of, or are a failure.
pub fn available() -> Vec<&'static Release> {
    let wanted = std::env::var("REDIS_MIGRATE_WORLD_SERVER").ok();
    let mut found = Vec::new();
    for release in RELEASES {
        if wanted.as_ref().is_some_and(|wanted| wanted != release.name) {
            continue;
        }
        if directory().join(release.name).join("server").exists() {
            found.push(release);
            continue;
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "{} is missing",
            release.name
        );
        // Past the test harness, which would swallow it.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no {} to compare with",
            release.name
        );
    }
    found
}

/// A server process.
pub struct Real {
    child: Child,
    pub port: u16,
    path: PathBuf,
}

impl Real {
    pub fn start(release: &Release, options: &[&str]) -> Self {
        // A port above 55,000 has none for the cluster's bus, and there may be many of those.
        for _ in 0..50 {
            if let Some(server) = Self::try_start(release, options) {
                return server;
            }
        }
        panic!("{} does not start", release.name);
    }

    /// A sentinel with this file of settings.
    pub fn start_sentinel(release: &Release, settings: &Path) -> Self {
        let start = |port: u16, path: &Path| {
            let mut command = Command::new(directory().join(release.name).join("sentinel"));
            // A sentinel writes its file anew.
            let own = path.join("sentinel.conf");
            std::fs::copy(settings, &own).expect("a copy");
            command.arg(&own).args(["--port", &port.to_string()]);
            command
        };
        (0..50)
            .find_map(|_| Self::try_command(start))
            .expect("a sentinel that starts")
    }

    /// A server that loads this RDB file.
    pub fn start_with_file(release: &Release, file: &Path) -> Self {
        let start = |port: u16, path: &Path| {
            std::fs::copy(file, path.join("dump.rdb")).expect("a copy");
            Self::command(release, port, path, &[])
        };
        (0..50)
            .find_map(|_| Self::try_command(start))
            .expect("a server that starts")
    }

    fn command(release: &Release, port: u16, path: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(directory().join(release.name).join("server"));
        command
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(path)
            .args(options);
        command
    }

    pub fn try_start(release: &Release, options: &[&str]) -> Option<Self> {
        Self::try_command(|port, path| Self::command(release, port, path, options))
    }

    fn try_command(start: impl Fn(u16, &Path) -> Command) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .ok()?
            .local_addr()
            .ok()?
            .port();
        if port > 55_000 {
            return None;
        }
        let path = std::env::temp_dir().join(format!("world-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&path).ok()?;
        let child = start(port, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut server = Self { child, port, path };
        server.is_up().then_some(server)
    }

    /// Whether it answers within some seconds.
    fn is_up(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            // Another server may have got the port first.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            let connection = self.try_connect();
            let pong = connection.and_then(|mut it| it.ask(&[b"PING".to_vec()]));
            if pong.is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends the process at once, whatever it does.
    pub fn crash(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("the end of a process");
    }

    /// Starts another process with what the one that has ended had on disk.
    pub fn start_again(&mut self, release: &Release, options: &[&str]) {
        self.child = Self::command(release, self.port, &self.path, options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        assert!(self.is_up(), "{} does not start again", release.name);
    }

    /// A connection, if the server lives.
    pub fn try_connect(&self) -> Option<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Connection {
            stream,
            input: Vec::new(),
            pushes: Vec::new(),
        })
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().expect("a connection")
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A connection to a real server.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    pub pushes: Vec<Value>,
}

impl Connection {
    pub fn send(&mut self, bytes: &[u8]) {
        // A server that is gone gives no answer, and that is told.
        let _ = self.stream.write_all(bytes);
    }

    /// The next reply; `None` if none comes within the time, or the connection has ended.
    pub fn reply(&mut self, within: Duration) -> Option<Value> {
        let start = Instant::now();
        loop {
            while let Some((value, length)) = (!self.input.is_empty())
                .then(|| resp::read(&self.input))
                .flatten()
            {
                self.input.drain(..length);
                match value {
                    Value::Push(_) => self.pushes.push(value),
                    value => return Some(value),
                }
            }
            let left = within.checked_sub(start.elapsed())?;
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .ok()?;
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(_) => return None,
            }
        }
    }

    /// All bytes that come within the time.
    pub fn raw(&mut self, within: Duration) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.input);
        let start = Instant::now();
        while let Some(left) = within.checked_sub(start.elapsed()) {
            let left = left.max(Duration::from_millis(1));
            if self.stream.set_read_timeout(Some(left)).is_err() {
                break;
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => all.extend_from_slice(&buffer[..length]),
            }
        }
        all
    }

    pub fn ask(&mut self, words: &[Vec<u8>]) -> Option<Value> {
        self.send(&resp::pack(words));
        self.reply(Duration::from_secs(5))
    }
}
