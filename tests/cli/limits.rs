//! Limits: of a shell (`ulimit`), which are an error of the tool's own and no signal, and of what TLS is
//! spoken.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::cli::archives::large;
use crate::support::tool::{Tool, path};

/// Runs the tool, as `$0`, under a limit.
fn under(limit: &str, line: &str, directory: &std::path::Path) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit {limit}; exec \"$0\" {line}"))
        .arg(path())
        .current_dir(directory)
        .output()
        .expect("a shell")
}

#[test]
fn a_file_that_grows_beyond_its_limit_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.rmz"), large(50_000)).expect("written");
    for (line, place) in [
        ("convert a.rmz --to jsonl > out.jsonl", "out.jsonl"),
        ("convert a.rmz out.jsonl", "out.jsonl.none"),
        ("salvage a.rmz -o out.rmz", "out.rmz"),
        ("list a.rmz > keys.txt", "keys.txt"),
    ] {
        // Blocks of 512 bytes in dash, of 1,024 in bash: less than any of these is.
        let output = under("-f 100", line, directory.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.contains("ulimit -f"), "{line}: {stderr}");
        let written = std::fs::metadata(directory.path().join(place)).map_or(0, |data| data.len());
        assert!(written <= 100 * 1024, "{line}: {written}");
    }
}

#[test]
fn little_address_space_is_enough() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.rmz"), large(250_000)).expect("written");
    for (line, words) in [
        ("diff a.rmz a.rmz", "equal: 250,000 compared"),
        ("verify a.rmz", "complete and intact"),
    ] {
        let output = under("-v 150000", line, directory.path());
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{line}: {:?} {stderr}",
            output.status
        );
        assert!(stdout.contains(words), "{line}: {stdout}");
    }
}

/// Answers each connection with these bytes, whatever it says.
fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            // Until the other side has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    format!("rediss://127.0.0.1:{port}")
}

#[test]
fn a_server_whose_tls_is_too_old_is_told_the_minimum() {
    // What OpenSSL answers that allows TLS 1.1 at most: the alert protocol_version.
    let alert = vec![0x15, 3, 1, 0, 2, 2, 70];
    // What others answer: a ServerHello of TLS 1.1 (RFC 4346, 7.4.1.3).
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0x00, 0x2f, 0]);
    let mut hello = vec![0x16, 3, 2, 0, u8::try_from(body.len() + 4).expect("short")];
    hello.extend([2, 0, 0, u8::try_from(body.len()).expect("short")]);
    hello.extend(body);
    for answer in [alert, hello] {
        let url = answering(answer);
        for verb in ["export", "doctor"] {
            Tool::new(&[verb, &url, "--insecure", "--retries", "0"])
                .run()
                .expect_code(12)
                .expect_stderr("1.2 is the minimum");
        }
    }
}
