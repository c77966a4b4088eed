//! `report`: the page and its JSON say the same, in a real browser, and a key's name does nothing.

mod browser;
mod figures;
mod memory;

use crate::cli::archives;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::report::archives::{SOURCE_TIME_MS, archive, string};
use crate::support::tool::Tool;

/// Names that would do something if they were taken for anything but text.
const EVIL: [&str; 6] = [
    "</script><script>document.title='owned'</script>",
    "\"><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">",
    "<!--",
    "a&b<c>:\u{1b}[31m\u{202e}",
    "]]>",
    "' style='background:url(http://127.0.0.1:9/y)",
];

/// An archive with prefixes, expiry, several databases and names that mean harm.
fn sample() -> Vec<u8> {
    let mut records = Vec::new();
    for n in 0..3_000_u64 {
        let value = "v".repeat((n % 40) as usize);
        let life_ms = (n % 3 == 0).then(|| SOURCE_TIME_MS + n * n * 1_000);
        for (db, name) in [
            (0, format!("shop:user:{n}:profile")),
            (0, format!("shop:cart:{n:08x}-4b1d")),
            (
                0,
                format!("session:{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ),
            (3, format!("queue.mail.{n}")),
        ] {
            records.push(string(db, name.as_bytes(), value.as_bytes(), life_ms));
        }
    }
    for name in EVIL {
        // With a long value and an expiry, so that it is among the largest.
        records.push(string(1, name.as_bytes(), &[b'x'; 63], Some(1)));
    }
    records.push(string(1, b"\xff\xfe\x00", &[b'x'; 63], Some(1)));
    records.push(string(1, b"", &[b'x'; 63], Some(1)));
    archive(
        &records,
        Some("evil </title><script>document.title='owned'</script> label"),
    )
}

struct Reported {
    directory: tempfile::TempDir,
    json: Value,
}

impl Reported {
    fn of(archive: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("snap <b>.rmz");
        fs::write(&file, archive).expect("written");
        let page = directory.path().join("report.html");
        // On a busy machine a second passes, and progress would be told.
        let output = Tool::new(&["report", "--json", "--progress", "none", "-o"])
            .arg(&page)
            .arg(&file)
            .run()
            .success();
        assert_eq!(output.stderr, "");
        let json = serde_json::from_slice(&output.stdout).expect("JSON");
        Self { directory, json }
    }

    fn page(&self) -> PathBuf {
        self.directory.path().join("report.html")
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}
