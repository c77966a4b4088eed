//! A module that keeps a text beside keys (Redis 8.6), built for the test that asks for it.

use std::path::PathBuf;
use std::process::Command;

use super::servers::{Builder, TestServer, Version, is_ci, require, skipped};

/// The class that a server without it may ignore.
pub const MAY: &str = "May_";
/// The class that must not be ignored.
pub const MUST: &str = "mu-9";

/// Servers of Redis 8.6, some of them with the module.
pub struct Module {
    version: Version,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Module {
    /// Builds it. `None` and a visible line where there is no server for it or no C compiler, which
    /// in CI is a failure.
    pub fn build() -> Option<Self> {
        let version = require(Version::Redis86)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("text.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/key_metadata.c");
        let built = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&file)
            .arg(source)
            .output();
        match built {
            Ok(output) => assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => {
                let what = format!("key metadata: there is no C compiler: {error}");
                assert!(!is_ci(), "{what}");
                skipped(&what);
                return None;
            }
        }
        Some(Self {
            version,
            file,
            _directory: directory,
        })
    }

    /// A server that is to have both classes.
    pub fn builder(&self) -> Builder {
        let file = self.file.to_str().expect("a path in UTF-8");
        TestServer::builder(self.version)
            .option("--loadmodule", file)
            .args([MUST, "0", MAY, "1"])
    }

    /// A server that has both classes.
    pub fn server(&self) -> TestServer {
        self.builder().start()
    }

    /// A server of the same version without the module.
    pub fn without(&self) -> TestServer {
        TestServer::start(self.version)
    }
}

/// Keeps a text beside a key.
pub fn set(client: &mut redis::Connection, class: &str, key: &str, text: &str) {
    let mut command = redis::cmd("TEXT.SET");
    command.arg(class).arg(key).arg(text);
    command.exec(client).expect("TEXT.SET");
}

/// The text beside a key.
pub fn get(client: &mut redis::Connection, class: &str, key: &str) -> Option<String> {
    let mut command = redis::cmd("TEXT.GET");
    command.arg(class).arg(key);
    command.query(client).expect("TEXT.GET")
}
