//! `extract`, `salvage`, `diff` and `verify --against` with encrypted archives.

use std::fs;

use age::x25519::Identity;

use crate::encryption::damage::header_len;
use crate::encryption::{Case, archives, seal_armored, text, write_identity};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

/// A chunk of an age file, with the tag that authenticates it.
const CHUNK: usize = PLAIN_CHUNK + 16;
const PLAIN_CHUNK: usize = 64 * 1024;

#[test]
fn one_value_comes_out_of_a_file_a_pipe_and_armor() {
    let case = Case::new(archives::large(12_000));
    let [flag, key] = case.key_flags();
    let listed = Tool::new(&["list", "--json"])
        .stdin_bytes(case.plain.clone())
        .run();
    let listed = String::from_utf8(listed.success().stdout).expect("text");
    let line = listed.lines().nth(7_000).expect("a key");
    let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let wanted = object["key"].as_str().expect("a name");
    let armored = case.path("armored.age");
    fs::write(&armored, seal_armored(&case.plain, &case.identity)).expect("written");
    let tool = || Tool::new(&["extract", "--key", wanted, &flag, &key]);
    for tool in [
        tool().arg(case.sealed_file()),
        tool().arg(armored),
        tool().stdin_file(&case.sealed_file()),
        tool().stdin_bytes(fs::read(case.sealed_file()).expect("there")),
    ] {
        // The value of each key of this archive is its name.
        assert_eq!(tool.run().success().stdout, wanted.as_bytes());
    }
}

#[test]
fn an_encrypted_archive_is_compared_with_what_is_in_it() {
    let case = Case::small();
    let plain = case.path("plain.rmz");
    fs::write(&plain, &case.plain).expect("written");
    let [flag, key] = case.key_flags();
    let (plain, sealed) = (text(&plain), text(&case.sealed_file()));
    for sides in [[&plain, &sealed], [&sealed, &plain], [&sealed, &sealed]] {
        Tool::new(&["diff", sides[0], sides[1], &flag, &key])
            .run()
            .success();
    }
    Tool::new(&["diff", &sealed, "-", &flag, &key])
        .stdin_bytes(fs::read(&sealed).expect("there"))
        .run()
        .success();
    let other = case.path("other.rmz");
    fs::write(&other, archives::large(3)).expect("written");
    Tool::new(&["diff", &sealed, &text(&other), "--explain", &flag, &key])
        .run()
        .expect_code(5);
}

#[test]
fn it_is_compared_with_a_server() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let case = Case::new(archives::large(500));
    let server = TestServer::start(version);
    let [flag, key] = case.key_flags();
    let (url, sealed) = (server.url(), text(&case.sealed_file()));
    Tool::new(&["import", &url, &sealed, &flag, &key])
        .run()
        .success();
    let verify = || Tool::new(&["verify", "--against", &url, &flag, &key]);
    verify().arg(&sealed).run().success();
    let bytes = fs::read(&sealed).expect("there");
    verify().stdin_bytes(bytes).run().success();
    // Without the encryption a pipe is looked at only once, too.
    Tool::new(&["verify", "--against", &url])
        .stdin_bytes(case.plain.clone())
        .run()
        .success();
    Tool::new(&["diff", &sealed, &url, &flag, &key])
        .run()
        .success();
    let _: () = redis::cmd("SET")
        .arg("more")
        .arg("v")
        .query(&mut server.client())
        .expect("set");
    verify().arg(&sealed).run().expect_code(5);
    Tool::new(&["diff", &url, &sealed, &flag, &key])
        .run()
        .expect_code(5);
}

#[test]
fn what_is_rescued_is_encrypted_again_or_plain_only_if_that_was_said() {
    let case = Case::small();
    let [flag, key] = case.key_flags();
    let (sealed, out) = (text(&case.sealed_file()), case.path("out"));
    let salvage = || Tool::new(&["salvage", &sealed, &flag, &key, "-o", &text(&out)]);
    salvage()
        .run()
        .expect_code(2)
        .expect_stderr("--age-recipient");
    assert!(!out.exists());
    salvage()
        .args(&["--plain", "--age-recipient", "age1x"])
        .run()
        .expect_code(2);

    salvage().arg("--plain").run().success();
    assert!(!fs::read(&out).expect("there").starts_with(b"age-"));
    Tool::new(&["diff", &text(&out), &sealed, &flag, &key])
        .run()
        .success();

    let (other, other_file) = (Identity::generate(), case.path("other.txt"));
    write_identity(&other_file, &other);
    let recipient = other.to_public().to_string();
    let said = salvage().args(&["--age-recipient", &recipient, "--json"]);
    let said = said.run().success();
    let summary = said.summary();
    assert_eq!(summary["sha256"], crate::encryption::readers::sha256(&out));
    assert_eq!(summary["bytes"], fs::metadata(&out).expect("there").len());
    let out = text(&out);
    Tool::new(&["verify", &out, &flag, &key])
        .run()
        .expect_code(11);
    let both = ["--age-identity", &text(&other_file), &flag, &key];
    Tool::new(&["diff", &out, &sealed])
        .args(&both)
        .run()
        .success();
    // One that is plain may be encrypted, too.
    let encrypted = Tool::new(&["salvage", "--age-recipient", &recipient])
        .stdin_bytes(case.plain.clone())
        .run()
        .success();
    assert!(encrypted.stdout.starts_with(b"age-encryption.org/"));
}

fn names(archive: Tool) -> Vec<String> {
    let listed = String::from_utf8(archive.run().success().stdout).expect("text");
    listed.lines().skip(1).map(str::to_owned).collect()
}

/// Each chunk is decrypted by itself: what stands behind a damaged one comes back too.
#[test]
fn of_a_damaged_one_comes_back_all_but_what_stands_in_damaged_chunks() {
    let case = Case::new(archives::large(80_000));
    let whole = fs::read(case.sealed_file()).expect("there");
    let header = header_len(&whole) + 16;
    let chunks = (whole.len() - header).div_ceil(CHUNK);
    assert!(chunks > 6, "{chunks} chunks");
    let all = names(Tool::new(&["list"]).stdin_bytes(case.plain.clone()));
    let [flag, key] = case.key_flags();
    let out = case.path("out");
    // Flipped chunks; how many bytes stand at the end of the file; whether its end can be read.
    for (flipped, cut, places) in [
        (&[2][..], 0, "1 place"),
        (&[2, 3], 0, "1 place"),
        (&[1, 4], 0, "2 places"),
        (&[2], CHUNK + 100, "1 place"),
    ] {
        let mut bytes = whole.clone();
        for chunk in flipped {
            bytes[header + chunk * CHUNK + 7] ^= 1;
        }
        bytes.truncate(whole.len() - cut);
        let salvaged = Tool::new(&["salvage", "-", &flag, &key, "--plain"])
            .args(&["-o", &text(&out)])
            .stdin_bytes(bytes.clone())
            .run()
            .expect_code(3)
            .expect_stderr(places);
        assert_eq!(
            salvaged.stderr.contains("nothing after them"),
            cut > 0,
            "{}",
            salvaged.stderr
        );
        Tool::new(&["verify"]).arg(&out).run().success();
        let rescued = names(Tool::new(&["list"]).arg(&out));
        // As much as if the damaged chunks of the plain archive were zeros.
        let mut holes = case.plain.clone();
        for chunk in flipped {
            holes[chunk * PLAIN_CHUNK..][..PLAIN_CHUNK].fill(0);
        }
        if cut > 0 {
            holes.truncate((chunks - 2) * PLAIN_CHUNK);
        }
        let expected = Tool::new(&["salvage", "-"]).stdin_bytes(holes).run();
        let expected = names(Tool::new(&["list"]).stdin_bytes(expected.expect_code(3).stdout));
        assert_eq!(rescued, expected, "{flipped:?} {cut}");
        let behind = all.len() - all.len() / 4;
        assert!(
            cut > 0 || rescued.iter().any(|name| all[behind..].contains(name)),
            "{flipped:?}"
        );
    }
}

/// What stands before the damage comes back, and nothing that was not there.
#[test]
fn of_a_damaged_one_comes_back_what_stands_before_the_damage() {
    let case = Case::new(archives::large(40_000));
    let whole = fs::read(case.sealed_file()).expect("there");
    let header = header_len(&whole) + 16;
    assert!(whole.len() > header + 3 * CHUNK, "several chunks");
    let mut armored = seal_armored(&case.plain, &case.identity);
    armored.truncate(armored.len() * 3 / 4);
    let all = names(Tool::new(&["list"]).stdin_bytes(case.plain.clone()));
    let [flag, key] = case.key_flags();
    let (broken, out) = (case.path("broken.age"), case.path("out"));
    for (what, bytes) in [
        (
            "cut within a chunk",
            whole[..header + 2 * CHUNK + 99].to_vec(),
        ),
        ("cut between chunks", whole[..header + 2 * CHUNK].to_vec()),
        ("armor, cut", armored),
    ] {
        fs::write(&broken, &bytes).expect("written");
        let salvage = || Tool::new(&["salvage", &flag, &key, "--plain"]);
        let from_file = salvage()
            .arg(&broken)
            .args(&["-o", &text(&out)])
            .run()
            .expect_code(3)
            .expect_stderr("nothing after them");
        assert!(from_file.stderr.contains("its end"), "{}", from_file.stderr);
        Tool::new(&["verify"]).arg(&out).run().success();
        let rescued = names(Tool::new(&["list"]).arg(&out));
        let count = rescued.len();
        assert!(count > 1_000 && count < all.len(), "{what}: {count}");
        assert_eq!(rescued, all[..count], "{what}");
        let piped = salvage().stdin_bytes(bytes).run().expect_code(3);
        let from_pipe = names(Tool::new(&["list"]).stdin_bytes(piped.stdout));
        assert_eq!(from_pipe, rescued, "{what}");
    }
    // Nothing can be opened, and nothing is written.
    fs::remove_file(&out).expect("removed");
    for len in [header - 20, header + 500] {
        fs::write(&broken, &whole[..len]).expect("written");
        Tool::new(&["salvage", &text(&broken), &flag, &key, "--plain"])
            .args(&["-o", &text(&out)])
            .run()
            .expect_code(10);
        assert!(!out.exists());
    }
}
