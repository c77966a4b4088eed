//! Real servers of every version in the matrix, as `tests/fetch-servers` unpacked them.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use redis_migrate_payload::dialect::{self, Dialect, Family, Feature};

/// The servers that `tests/fetch-servers` can unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// By a command of its own (`make old-servers`), never demanded.
    Redis28,
    /// By a command of its own (`make old-servers`), never demanded.
    Redis32,
    Redis50,
    Redis60,
    Redis62,
    Redis70,
    Redis80,
    Redis82,
    Redis86,
    Valkey81,
    /// By a command of its own (`make old-servers`), never demanded.
    Valkey90,
    Valkey91,
    /// Redis Stack, with modules (see [`Builder::module`]). For amd64 only.
    Stack74,
    /// A Redis newer than those above, if Debian offers one: nothing is known of it.
    RedisNew,
    /// A Valkey newer than those above, if Debian offers one: nothing is known of it.
    ValkeyNew,
}

impl Version {
    /// The five that every test of versions covers.
    pub const MATRIX: [Self; 5] = [
        Self::Redis60,
        Self::Redis70,
        Self::Redis80,
        Self::Valkey81,
        Self::Valkey91,
    ];

    /// All known versions, for the matrix of pairs and for what is quickly asked of each. Filter
    /// them with [`require`]: a few are there only if asked for.
    pub const EVERY: [Self; 13] = [
        Self::Redis28,
        Self::Redis32,
        Self::Redis50,
        Self::Redis60,
        Self::Redis62,
        Self::Redis70,
        Self::Stack74,
        Self::Redis80,
        Self::Redis82,
        Self::Redis86,
        Self::Valkey81,
        Self::Valkey90,
        Self::Valkey91,
    ];

    /// Those that data is moved from.
    pub const SOURCES: [Self; 13] = Self::EVERY;

    /// Those that data is moved to: from 5.0 on.
    pub const DESTINATIONS: [Self; 11] = {
        let [_, _, rest @ ..] = Self::EVERY;
        rest
    };

    /// What is unpacked only if Debian offers something newer than the known versions.
    pub const NEWER: [Self; 2] = [Self::RedisNew, Self::ValkeyNew];

    /// Its family and the directory's name, which is also its name in messages.
    fn row(self) -> (Family, &'static str) {
        use Family::{Redis, Valkey};
        match self {
            Self::Redis28 => (Redis, "redis-2.8"),
            Self::Redis32 => (Redis, "redis-3.2"),
            Self::Redis50 => (Redis, "redis-5.0"),
            Self::Redis60 => (Redis, "redis-6.0"),
            Self::Redis62 => (Redis, "redis-6.2"),
            Self::Redis70 => (Redis, "redis-7.0"),
            Self::Redis80 => (Redis, "redis-8.0"),
            Self::Redis82 => (Redis, "redis-8.2"),
            Self::Redis86 => (Redis, "redis-8.6"),
            Self::Valkey81 => (Valkey, "valkey-8.1"),
            Self::Valkey90 => (Valkey, "valkey-9.0"),
            Self::Valkey91 => (Valkey, "valkey-9.1"),
            Self::Stack74 => (Redis, "stack-7.4"),
            Self::RedisNew => (Redis, "redis-new"),
            Self::ValkeyNew => (Valkey, "valkey-new"),
        }
    }

    /// The name of its directory, and in messages.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Where it is unpacked, whether it is there or not.
    pub fn directory(self) -> PathBuf {
        match std::env::var_os("REDIS_MIGRATE_SERVERS") {
            Some(directory) => PathBuf::from(directory).join(self.name()),
            None => Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/servers")
                .join(self.name()),
        }
    }

    /// The path of one of its programs: `server`, `cli`, `sentinel` or `check-rdb`.
    pub fn program(self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub fn is_available(self) -> bool {
        self.directory().join(".stamp").exists() && self.program("server").exists()
    }

    /// The exact version, such as `9.1.2`.
    pub fn exact(self) -> String {
        let text = std::fs::read_to_string(self.directory().join("VERSION"));
        text.unwrap_or_default().trim().to_owned()
    }

    pub fn family(self) -> Family {
        self.row().0
    }

    pub fn is_valkey(self) -> bool {
        self.family() == Family::Valkey
    }

    /// What the tool's own table says of it: of its exact version if it is unpacked, else of the
    /// series that its name says.
    pub fn dialect(self) -> Dialect {
        let exact = self.exact();
        let series = self.name().split_once('-').map_or("", |(_, series)| series);
        let version = if exact.is_empty() { series } else { &exact };
        Dialect::of(self.family(), dialect::Version::parse(version))
    }

    pub fn has(self, feature: Feature) -> bool {
        self.dialect().has(feature)
    }

    /// Whether its major and minor version are at least these. Versions of Valkey count as 7.2
    /// and more.
    pub fn is_at_least(self, major: u16, minor: u16) -> bool {
        self.dialect().version() >= dialect::Version::new(major, minor, 0)
    }

    pub fn has_streams(self) -> bool {
        self.is_at_least(5, 0)
    }

    /// Whether hash fields can have an expiry of their own.
    pub fn has_field_ttl(self) -> bool {
        self.has(Feature::FieldTtl)
    }

    /// Whether it has function libraries, PEXPIRETIME and the stream metadata of 7.0.
    pub fn is_at_least_7(self) -> bool {
        self.has(Feature::Functions)
    }

    /// Whether it was built with TLS. Some of those that come in Python packages were not.
    pub fn has_tls(self) -> bool {
        self.has(Feature::Hello) && !self.directory().join("NO-TLS").exists()
    }

    /// The RDB version in the footer of its DUMP payloads. Panics for one that the table does not
    /// know.
    pub fn rdb_version(self) -> u16 {
        let known = self.dialect().rdb_version();
        known.unwrap_or_else(|| panic!("{self} is newer than the table"))
    }

    /// Whether nobody has to have it: tests that want it are skipped where it is not there.
    pub fn is_optional(self) -> bool {
        match self {
            Self::Redis28 | Self::Redis32 | Self::Valkey90 => true,
            Self::RedisNew | Self::ValkeyNew => true,
            // Built for amd64 only.
            Self::Redis62 | Self::Stack74 => !cfg!(target_arch = "x86_64"),
            _ => false,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether this run must not skip anything.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says that a test did not run. The test harness cannot swallow it.
pub fn skipped(what: &str) {
    announce(&format!("SKIPPED {what}"));
}

/// Prints past the test harness, which keeps what a test that succeeds prints.
pub fn announce(text: &str) {
    // Losing the text is all that can go wrong.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// The version if it is there. If not, `None` and a visible line; in CI, a failure unless it is
/// an optional one.
pub fn require(version: Version) -> Option<Version> {
    if version.is_available() {
        return Some(version);
    }
    let hint = format!(
        "{version} is not in {}: run tests/fetch-servers {version}",
        version.directory().display()
    );
    assert!(!is_ci() || version.is_optional(), "{hint}");
    let thread = std::thread::current();
    skipped(&format!("{}: {hint}", thread.name().unwrap_or("a test")));
    None
}

/// The same, if it was built with TLS: a visible line if not, in CI too, for a build without may
/// be all that can be had.
pub fn require_tls(version: Version) -> Option<Version> {
    let version = require(version)?;
    if !version.has_tls() {
        skipped(&format!("TLS with {version}: it was built without"));
        return None;
    }
    Some(version)
}

/// The versions of the matrix that are there; says which are not (in CI they must all be).
pub fn available() -> Vec<Version> {
    Version::MATRIX.into_iter().filter_map(require).collect()
}

/// All versions that are there; says which are not (in CI only the optional ones may be missing).
pub fn every_available() -> Vec<Version> {
    Version::EVERY.into_iter().filter_map(require).collect()
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Builder {
    version: Version,
    arguments: Vec<String>,
    /// ACL rules, one user each.
    users: Vec<String>,
    password: Option<String>,
    known_password: Option<String>,
    cluster: bool,
    tls: bool,
    unix_socket: bool,
    rdb: Option<PathBuf>,
}

impl Builder {
    /// Adds one option as on the command line, such as `("--maxmemory", "2mb")`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds raw arguments.
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Loads one of the modules that came with the server: `redisbloom`, `rejson`, `redisearch`,
    /// `redistimeseries` and `redisgears` with [`Version::Stack74`], `falkordb` with
    /// [`Version::Redis82`].
    pub fn module(self, name: &str) -> Self {
        let path = |name: &str| {
            let file = self.version.directory().join(name);
            file.to_str().expect("a path in UTF-8").to_owned()
        };
        let file = path(&format!("modules/{name}.so"));
        let plugin = path("lib/libredisgears_v8_plugin.so");
        let started = self.option("--loadmodule", &file);
        match name {
            "redisgears" => started.args(["v8-plugin-path", &plugin]),
            _ => started,
        }
    }

    /// Demands a password of the default user. [`TestServer::client`] knows it.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The password that [`TestServer::client`] is to use where [`Builder::user`] rules say it.
    pub fn known_password(mut self, password: &str) -> Self {
        self.known_password = Some(password.to_owned());
        self
    }

    /// Adds a user by its ACL rule without the word `user`: `bob on >secret ~* +@all`.
    pub fn user(mut self, rule: &str) -> Self {
        self.users.push(rule.to_owned());
        self
    }

    /// Begins with what this RDB file holds: for servers on which a data set cannot be made,
    /// because they lack the commands.
    pub fn rdb(mut self, file: &Path) -> Self {
        self.rdb = Some(file.to_owned());
        self
    }

    /// Also listens on [`TestServer::socket`].
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Starts it as a cluster node (with no slots yet).
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Also listens with TLS on [`TestServer::tls_port`], with a certificate for `localhost`
    /// and 127.0.0.1 that [`TestServer::ca_file`] vouches for.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it and waits until it answers. Panics with its log if it does not.
    pub fn start(self) -> TestServer {
        let version = self.version;
        assert!(
            self.users.is_empty() || version.has(Feature::Hello),
            "{version} has no users"
        );
        assert!(!self.tls || version.has_tls(), "{version} has no TLS");
        assert!(
            !self.cluster || version.is_at_least(3, 0),
            "{version} has no clusters"
        );
        let directory = tempfile::Builder::new()
            .prefix("redis-migrate-test-")
            .tempdir()
            .expect("a temporary directory");
        if self.tls {
            write_certificates(directory.path());
        }
        if !self.users.is_empty() {
            let rules: String = self.users.iter().map(|u| format!("user {u}\n")).collect();
            std::fs::write(directory.path().join("users.conf"), rules).expect("user rules");
        }
        if let Some(file) = &self.rdb {
            std::fs::copy(file, directory.path().join("dump.rdb")).expect("the RDB file");
        }
        let mut server = TestServer {
            builder: self,
            directory,
            child: None,
            port: 0,
            tls_port: 0,
        };
        for _ in 0..20 {
            server.port = free_port();
            server.tls_port = if server.builder.tls { free_port() } else { 0 };
            match server.spawn() {
                Ok(()) => return server,
                Err(StartError::PortTaken) => {}
                Err(StartError::Other(why)) => panic!("{why}\n{}", server.log_tail()),
            }
        }
        panic!("{}: no free port in 20 tries", server.version());
    }
}

enum StartError {
    PortTaken,
    Other(String),
}

/// A running server with a port, a temporary directory and a log of its own. It is killed
/// when this value is dropped.
pub struct TestServer {
    builder: Builder,
    directory: TempDir,
    child: Option<Child>,
    port: u16,
    tls_port: u16,
}

impl TestServer {
    pub fn start(version: Version) -> Self {
        Self::builder(version).start()
    }

    pub fn builder(version: Version) -> Builder {
        Builder {
            version,
            arguments: Vec::new(),
            users: Vec::new(),
            password: None,
            known_password: None,
            cluster: false,
            tls: false,
            unix_socket: false,
            rdb: None,
        }
    }

    pub fn version(&self) -> Version {
        self.builder.version
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tls_port(&self) -> u16 {
        assert!(self.builder.tls, "not started with tls()");
        self.tls_port
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `redis://127.0.0.1:PORT`, without credentials.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `rediss://localhost:PORT`, without credentials.
    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port())
    }

    /// Its unix socket, if it was asked for.
    pub fn socket(&self) -> PathBuf {
        self.path().join("s")
    }

    /// The certificate authority of a server with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// Its working directory, where `SAVE` puts `dump.rdb`.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.path().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// A connection as the default user. It waits for replies as long as it takes: the redis
    /// crate takes a read with a time limit that was interrupted for an error.
    pub fn client(&self) -> redis::Connection {
        self.connect().unwrap_or_else(|error| {
            panic!(
                "{} does not answer: {error}\n{}",
                self.version(),
                self.log_tail()
            )
        })
    }

    /// A connection to one database.
    pub fn client_db(&self, db: u32) -> redis::Connection {
        let mut client = self.client();
        let reply: redis::RedisResult<()> = redis::cmd("SELECT").arg(db).query(&mut client);
        reply.expect("SELECT");
        client
    }

    fn known_password(&self) -> Option<&str> {
        let (known, required) = (&self.builder.known_password, &self.builder.password);
        known.as_deref().or(required.as_deref())
    }

    /// Another connection, if it answers.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let mut client = redis::Client::open(self.url())?
            .get_connection_with_timeout(Duration::from_secs(10))?;
        if let Some(password) = self.known_password() {
            redis::cmd("AUTH").arg(password).exec(&mut client)?;
        }
        Ok(client)
    }

    /// Runs its own command-line client against it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.version().program("cli"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.env_remove("REDISCLI_AUTH");
        if let Some(password) = self.known_password() {
            command.env("REDISCLI_AUTH", password);
        }
        command.args(arguments).output().expect("the client runs")
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it at once, as a crash would. Its directory stays until the value is dropped.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it and starts it again on the same port. What it holds is lost unless the test
    /// sent `SAVE` before.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            match self.spawn() {
                Ok(()) => return,
                Err(StartError::PortTaken) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(StartError::PortTaken) => panic!("port {} was taken over", self.port),
                Err(StartError::Other(why)) => panic!("{why}\n{}", self.log_tail()),
            }
        }
    }

    /// The most memory the server process has held so far.
    pub fn peak_memory_kib(&self) -> u64 {
        super::tool::peak_memory_kib(self.pid()).unwrap_or(0)
    }

    fn spawn(&mut self) -> Result<(), StartError> {
        let version = self.version();
        let log = self.path().join("server.log");
        let file = File::create(&log).map_err(|error| StartError::Other(error.to_string()))?;
        let errors = file
            .try_clone()
            .map_err(|error| StartError::Other(error.to_string()))?;
        let mut command = Command::new(version.program("server"));
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.path());
        if version.is_at_least_7() {
            command.args(["--enable-debug-command", "local"]);
        }
        if self.builder.unix_socket {
            command.arg("--unixsocket").arg(self.socket());
        }
        if self.builder.cluster {
            command.args(["--cluster-enabled", "yes"]);
            command.args(["--cluster-config-file", "nodes.conf"]);
            command.args(["--cluster-node-timeout", "5000"]);
        }
        if self.builder.tls {
            command.args(["--tls-port", &self.tls_port.to_string()]);
            command.args(["--tls-auth-clients", "no"]);
            for (option, name) in [
                ("--tls-cert-file", "server.pem"),
                ("--tls-key-file", "server.key"),
                ("--tls-ca-cert-file", "ca.pem"),
            ] {
                command.arg(option).arg(self.path().join(name));
            }
        }
        if !self.builder.users.is_empty() {
            command.arg("--aclfile").arg(self.path().join("users.conf"));
        }
        if let Some(password) = &self.builder.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.builder.arguments);
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command
            .spawn()
            .map_err(|error| StartError::Other(format!("{version} does not start: {error}")))?;
        self.child = Some(child);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if !self.is_running() {
                self.kill();
                return Err(if self.log().contains("Address already in use") {
                    StartError::PortTaken
                } else {
                    StartError::Other(format!("{} ended at once", self.version()))
                });
            }
            if self.answers_itself() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        Err(StartError::Other(format!(
            "{} did not answer in 30 s",
            self.version()
        )))
    }

    /// Whether the server behind the port is ours and ready. Another test's server may have
    /// been quicker to take the port, so the process id is asked for.
    fn answers_itself(&self) -> bool {
        let Ok(mut client) = self.connect() else {
            return false;
        };
        let info: redis::RedisResult<String> = redis::cmd("INFO").arg("server").query(&mut client);
        let ours = info.is_ok_and(|info| {
            let expected = format!("process_id:{}", self.pid());
            info.lines().any(|line| line.trim_end() == expected)
        });
        let answered = redis::cmd("PING").exec(&mut client);
        // Some tests take PING away.
        let is_known = |error: &redis::RedisError| !error.to_string().contains("unknown command");
        ours && !answered.as_ref().is_err_and(is_known)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() && !self.is_running() {
            eprintln!("{} had ended:\n{}", self.version(), self.log_tail());
        }
        self.kill();
    }
}

/// A port nobody listens on now. Cluster nodes also use the port 10,000 above, so it is
/// sought well below the range that the system gives to outgoing connections.
pub(super) fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    loop {
        let random = RandomState::new().hash_one(Instant::now());
        let port = 12_000 + u16::try_from(random % 10_000).expect("below 10,000");
        let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if at(port).is_ok() && at(port + 10_000).is_ok() {
            return port;
        }
    }
}

/// Writes a certificate authority and a server certificate signed by it.
fn write_certificates(directory: &Path) {
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).expect("a certificate file");
    };
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "redis-migrate tests");
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .expect("two names")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    write("ca.pem", ca_certificate.pem());
    write("server.pem", certificate.pem());
    write("server.key", key.serialize_pem());
}
