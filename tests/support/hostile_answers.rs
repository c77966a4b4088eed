//! Answers that are too long or too slow to be made in one piece. They end when the client has had
//! enough, and at last at a bound, so that a client without one does not take the machine along.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::answers::Answer;

/// So much comes of an answer without end.
const MOST: usize = 64 << 20;

/// How long after the other a byte of [`Answer::Trickle`] comes: the tool is run with a timeout of
/// one second.
const DRIP: Duration = Duration::from_millis(800);

/// How long a claim is left standing of which nothing comes.
const SILENCE: Duration = Duration::from_secs(90);

/// Writes it; whether the connection lives on.
pub fn pour(answer: Answer, real: &[u8], client: &mut TcpStream) -> bool {
    match answer {
        Answer::EndlessLine => stream(client, b"+", &[b'x'; 4096]),
        Answer::EndlessBulk => stream(client, b"$1000000000000\r\n", &[b'x'; 4096]),
        Answer::EndlessArray => stream(client, b"*2000000000\r\n", &b":1\r\n".repeat(1024)),
        Answer::DeepArray => stream(client, b"", &b"*1\r\n".repeat(1024)),
        Answer::HugeClaim => silence(client, b"$9223372036854775800\r\n"),
        Answer::HugeArray => silence(client, b"*9223372036854775800\r\n"),
        Answer::EndlessPage => stream(
            client,
            b"*2\r\n$1\r\n0\r\n*2000000000\r\n",
            &b"$8\r\nname:123\r\n".repeat(256),
        ),
        Answer::Trickle => return trickle(client, real),
        // A key "k" of database 0, whose value claims 2^62 bytes (rdbLoadLen, 64 bits).
        Answer::HugeString => {
            let length = [&[0x81][..], &(1u64 << 62).to_be_bytes()].concat();
            snapshot(
                client,
                &[b"\xfe\x00\x00\x01k", &length[..]].concat(),
                &[b'x'; 4096],
            );
        }
        // The same as 4 bytes of LZF that claim to become 2^40.
        Answer::HugeLzf => {
            let length = [&[0x81][..], &(1u64 << 40).to_be_bytes()].concat();
            let value = [&b"\xc3\x04"[..], &length, b"\x00a\x00b"].concat();
            snapshot(client, &[b"\xfe\x00\x00\x01k", &value[..]].concat(), b"");
        }
        // Auxiliary fields, for ever.
        Answer::EndlessSnapshot => snapshot(client, b"", &b"\xfa\x04name\x05value".repeat(256)),
        _ => {}
    }
    false
}

fn stream(client: &mut TcpStream, head: &[u8], piece: &[u8]) {
    let piece = piece.repeat(16);
    if client.write_all(head).is_err() {
        return;
    }
    let mut written = 0;
    while written < MOST && client.write_all(&piece).is_ok() {
        written += piece.len();
    }
}

/// Says no more until the client ends the connection.
fn silence(client: &mut TcpStream, claim: &[u8]) {
    let mut heard = [0; 4096];
    if client.write_all(claim).is_ok() && client.set_read_timeout(Some(SILENCE)).is_ok() {
        // What it had asked for before is read and not answered.
        while matches!(client.read(&mut heard), Ok(1..)) {}
    }
}

fn trickle(client: &mut TcpStream, real: &[u8]) -> bool {
    real.iter().all(|byte| {
        std::thread::sleep(DRIP);
        client.write_all(&[*byte]).is_ok()
    })
}

/// A snapshot without a known length, as a diskless primary sends it.
fn snapshot(client: &mut TcpStream, begin: &[u8], rest: &[u8]) {
    let mark = "e".repeat(40);
    let head = format!(
        "+FULLRESYNC {} 0\r\n$EOF:{mark}\r\nREDIS0011",
        "a".repeat(40)
    );
    let head = [head.as_bytes(), begin].concat();
    match rest {
        [] => silence(client, &head),
        rest => stream(client, &head, rest),
    }
}
