//! How a model server is set up.

use super::release::Release;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which version it is.
    pub release: &'static Release,
    /// How many databases it has; one in a cluster, unless it is Valkey 9.
    pub databases: u32,
    /// The host that it announces.
    pub host: String,
    /// The port that it announces.
    pub port: u16,
    /// Whether it is a cluster's node.
    pub cluster: bool,
    /// Its limits.
    pub limits: Limits,
    /// The modules that are loaded.
    pub modules: Vec<ModuleInfo>,
    /// Users beside the default one. A first user called `default` replaces that.
    pub users: Vec<User>,
    /// Commands that it refuses to everybody.
    pub refused: Vec<Refusal>,
}

/// Limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `maxclients`
    pub max_clients: usize,
    /// `maxmemory`, in bytes; 0 for none.
    pub max_memory: u64,
    /// `maxmemory-policy`
    pub policy: String,
    /// `proto-max-bulk-len`, in bytes.
    pub max_bulk: u64,
    /// Bytes that may wait for a client before it is closed; 0 for any number.
    pub max_output: usize,
}

/// A module that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Its name, such as `bf`.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Where it was loaded from.
    pub path: String,
    /// The nine characters of the name of its type; none for a module without one.
    pub type_name: String,
}

/// A user of the ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password; `None` lets anybody in.
    pub password: Option<String>,
    /// Which commands it may use.
    pub commands: Commands,
    /// Patterns of keys that it may use; `*` for all.
    pub keys: Vec<String>,
    /// Databases that it may use (Valkey 9.1); `None` for all.
    pub databases: Option<Vec<u32>>,
}

/// Which commands a user may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commands {
    /// All but these, such as `config` or `client|tracking`.
    AllBut(Vec<String>),
    /// These alone.
    Only(Vec<String>),
}

/// A command that is refused to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The command, such as `config`, or its subcommand, such as `client|tracking`.
    pub command: String,
    /// The answer; `None` if the server does not know the command (`rename-command`).
    pub text: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            max_memory: 0,
            policy: "noeviction".to_owned(),
            max_bulk: 512 << 20,
            max_output: 0,
        }
    }
}

impl Config {
    /// The defaults of a version.
    pub fn new(release: &'static Release) -> Self {
        Self {
            release,
            databases: 16,
            host: "127.0.0.1".to_owned(),
            port: 6379,
            cluster: false,
            limits: Limits::default(),
            modules: ModuleInfo::built_in(release),
            users: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The same, as a node of a cluster.
    pub fn cluster_node(release: &'static Release, host: &str, port: u16) -> Self {
        Self {
            cluster: true,
            databases: 1,
            host: host.to_owned(),
            port,
            ..Self::new(release)
        }
    }
}

impl ModuleInfo {
    /// The modules that a version brings along.
    fn built_in(release: &Release) -> Vec<Self> {
        let (name, path, type_name) = match () {
            () if release.at_least((u16::MAX, 0), (9, 1)) => ("lua", "lua", ""),
            () if release.at_least((8, 0), (u16::MAX, 0)) => ("vectorset", "", "vectorset"),
            () => return Vec::new(),
        };
        vec![Self {
            name: name.to_owned(),
            version: 1,
            path: path.to_owned(),
            type_name: type_name.to_owned(),
        }]
    }
}

impl User {
    /// A user who may do everything.
    pub fn new(name: &str, password: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            password: password.map(str::to_owned),
            commands: Commands::AllBut(Vec::new()),
            keys: vec!["*".to_owned()],
            databases: None,
        }
    }

    /// Whether the user may use the command; `full` is its name with its subcommand.
    pub(super) fn may(&self, name: &str, full: &str) -> bool {
        let names = |rows: &[String]| rows.iter().any(|row| row == name || row == full);
        match &self.commands {
            Commands::AllBut(rows) => !names(rows),
            Commands::Only(rows) => names(rows),
        }
    }

    /// Whether the user may use the key.
    pub(super) fn may_use(&self, key: &[u8]) -> bool {
        self.keys
            .iter()
            .any(|pattern| pattern == "*" || super::glob::matches(pattern.as_bytes(), key))
    }
}
