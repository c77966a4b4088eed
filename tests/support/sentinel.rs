//! A primary, replicas of it, and sentinels that watch them, on loopback.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Connection;
use tempfile::TempDir;

use super::servers::{Builder, TestServer, Version, free_port};

/// The name under which the primary is watched.
pub const NAME: &str = "mymaster";

/// How long sentinels and servers may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the sentinels are started.
#[derive(Clone, Debug, Default)]
pub struct SentinelSetup {
    /// Further lines of their configuration.
    pub lines: Vec<String>,
    /// Demanded by the sentinels; they know it of each other.
    pub password: Option<String>,
    /// They speak TLS only, with each other, clients and servers, and use these certificates.
    pub tls: Option<std::path::PathBuf>,
}

/// One running sentinel.
pub struct Sentinel {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Sentinel {
    fn start(version: Version, primary_port: u16, quorum: usize, setup: &SentinelSetup) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("redis-migrate-test-")
            .tempdir()
            .expect("a temporary directory");
        let port = free_port();
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", directory.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {primary_port} {quorum}"),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 5000"),
            format!("sentinel parallel-syncs {NAME} 5"),
        ];
        lines.extend(setup.lines.iter().cloned());
        if let Some(password) = &setup.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        match &setup.tls {
            None => lines.push(format!("port {port}")),
            Some(certificates) => {
                let file = |name: &str| certificates.join(name).display().to_string();
                lines.extend([
                    "port 0".to_owned(),
                    format!("tls-port {port}"),
                    "tls-replication yes".to_owned(),
                    "tls-auth-clients no".to_owned(),
                    format!("tls-cert-file {}", file("server.pem")),
                    format!("tls-key-file {}", file("server.key")),
                    format!("tls-ca-cert-file {}", file("ca.pem")),
                ]);
            }
        }
        let conf = directory.path().join("sentinel.conf");
        std::fs::write(&conf, lines.join("\n") + "\n").expect("a configuration");
        let log = File::create(directory.path().join("sentinel.log")).expect("a log");
        let errors = log.try_clone().expect("the log again");
        let child = Command::new(version.program("sentinel"))
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("a sentinel starts");
        Self {
            directory,
            child,
            port,
        }
    }

    fn listening(self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.path().join("sentinel.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A connection without TLS; `None` as long as it does not listen.
    fn client(&self, password: Option<&str>) -> Option<Connection> {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let mut client = redis::Client::open(url).ok()?.get_connection().ok()?;
        if let Some(password) = password {
            redis::cmd("AUTH").arg(password).exec(&mut client).ok()?;
        }
        Some(client)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One primary, its replicas, and their sentinels. All are killed when it is dropped.
pub struct Watched {
    /// The primary first, as it was started.
    pub servers: Vec<TestServer>,
    pub sentinels: Vec<Sentinel>,
    setup: SentinelSetup,
}

impl Watched {
    /// Two replicas, three sentinels.
    pub fn start(version: Version) -> Self {
        Self::start_with(version, SentinelSetup::default(), |builder| builder)
    }

    pub fn start_with(
        version: Version,
        setup: SentinelSetup,
        change: impl Fn(Builder) -> Builder,
    ) -> Self {
        // A replica must not wait five seconds for others before it is served.
        let builder =
            || change(TestServer::builder(version)).option("--repl-diskless-sync-delay", "0");
        let primary = builder().start();
        let port = primary.port().to_string();
        let replicas = (0..2).map(|_| builder().args(["--replicaof", "127.0.0.1", &port]).start());
        let servers: Vec<TestServer> = std::iter::once(primary).chain(replicas).collect();
        let sentinels = (0..3)
            .map(|_| Sentinel::start(version, servers[0].port(), 2, &setup))
            .collect();
        let watched = Self {
            servers,
            sentinels,
            setup,
        };
        watched.wait("to know each other", |watched| {
            watched.sentinels.iter().all(|sentinel| {
                let facts = watched.facts(sentinel);
                let is = |name: &str, value: &str| {
                    let mut pairs = facts.chunks_exact(2);
                    pairs.any(|pair| pair[0] == name && pair[1] == value)
                };
                is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")
            })
        });
        watched.wait("to be in step", |watched| watched.replicas_in_step() == 2);
        watched
    }

    /// `redis-sentinel://…/mymaster`, without credentials.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis-sentinel://{}/{NAME}", hosts.join(","))
    }

    /// The port of the primary, as most sentinels see it.
    pub fn primary_port(&self) -> Option<u16> {
        let mut ports: Vec<u16> = self
            .sentinels
            .iter()
            .filter_map(|sentinel| self.port_named_by(sentinel))
            .collect();
        ports.sort_unstable();
        ports.get(ports.len() / 2).copied()
    }

    /// The server that is the primary now.
    pub fn primary(&mut self) -> &mut TestServer {
        let port = self.primary_port().expect("a sentinel answers");
        let mut servers = self.servers.iter_mut();
        let found = servers.find(|server| server.port() == port);
        found.expect("a server of ours")
    }

    fn port_named_by(&self, sentinel: &Sentinel) -> Option<u16> {
        let mut client = sentinel.client(self.setup.password.as_deref())?;
        let (_, port): (String, u16) = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(NAME)
            .query(&mut client)
            .ok()?;
        Some(port)
    }

    fn facts(&self, sentinel: &Sentinel) -> Vec<String> {
        let Some(mut client) = sentinel.client(self.setup.password.as_deref()) else {
            return Vec::new();
        };
        redis::cmd("SENTINEL")
            .arg("MASTER")
            .arg(NAME)
            .query(&mut client)
            .unwrap_or_default()
    }

    /// Replicas that the primary counts as in step, whoever it is.
    fn replicas_in_step(&self) -> usize {
        let Some(port) = self.primary_port() else {
            return 0;
        };
        let Some(primary) = self.servers.iter().find(|server| server.port() == port) else {
            return 0;
        };
        let text: String = redis::cmd("INFO")
            .arg("replication")
            .query(&mut primary.client())
            .unwrap_or_default();
        text.matches("state=online").count()
    }

    /// Waits until the replicas have all that was written.
    pub fn wait_for_replicas(&mut self, count: usize) {
        self.wait("to be in step", |watched| {
            watched.replicas_in_step() >= count
        });
        let mut client = self.primary().client();
        let done: usize = redis::cmd("WAIT")
            .arg(count)
            .arg(30_000)
            .query(&mut client)
            .expect("WAIT");
        assert!(done >= count, "{done} of {count} replicas");
    }

    /// Makes another server the primary, and waits until all sentinels say so.
    pub fn fail_over(&mut self) {
        let before = self.primary_port().expect("a primary");
        self.wait("to begin a failover", |watched| {
            let client = watched.sentinels[0].client(watched.setup.password.as_deref());
            let Some(mut client) = client else {
                return false;
            };
            redis::cmd("SENTINEL")
                .arg("FAILOVER")
                .arg(NAME)
                .exec(&mut client)
                .is_ok()
        });
        self.wait_for_another(before);
    }

    /// Waits until all sentinels that live name another primary, and it takes writes.
    pub fn wait_for_another(&self, before: u16) {
        self.wait("to have another primary", |watched| {
            let named: Vec<u16> = watched
                .sentinels
                .iter()
                .filter_map(|sentinel| watched.port_named_by(sentinel))
                .collect();
            let [first, rest @ ..] = named.as_slice() else {
                return false;
            };
            let Some(server) = watched
                .servers
                .iter()
                .find(|server| server.port() == *first)
            else {
                return false;
            };
            *first != before
                && rest.iter().all(|port| port == first)
                && redis::cmd("INFO")
                    .arg("replication")
                    .query::<String>(&mut server.client())
                    .is_ok_and(|text| text.contains("role:master"))
        });
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() > deadline {
                let logs: Vec<String> = self.sentinels.iter().map(Sentinel::log).collect();
                panic!("they do not come {what}\n{}", logs.join("\n----\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One sentinel that watches this server alone; not waited for.
pub fn lone_sentinel(server: &TestServer) -> Sentinel {
    Sentinel::start(
        server.version(),
        server.port(),
        1,
        &SentinelSetup::default(),
    )
    .listening()
}

/// One sentinel that speaks TLS, watching a server with TLS; not waited for.
pub fn tls_sentinel(server: &TestServer) -> Sentinel {
    let setup = SentinelSetup {
        tls: Some(server.path().to_owned()),
        ..SentinelSetup::default()
    };
    Sentinel::start(server.version(), server.tls_port(), 1, &setup).listening()
}
