//! What `salvage` rescues, whatever was done to the archive.

use std::path::Path;

use redis_migrate_format::frame::{FRAME_HEADER_LEN, SYNC};
use redis_migrate_format::header::{ArchiveOrigin, ConsistencyReached, Expected, SourceCounts};
use redis_migrate_format::record::{Context, Record};
use redis_migrate_format::version::PREAMBLE_LEN;
use redis_migrate_format::{EndFacts, Header, Limits, Reader, Writer};

use crate::support::hostile_archives::{End, Maker, one_key};
use crate::support::random::Random;
use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;
use crate::tools::archives::{CONTEXT, Piece, archive, contents, options, pieces, records, string};

/// What was done, and which bytes of the whole archive it spoiled.
struct Damage {
    what: String,
    bytes: Vec<u8>,
    spoiled: Vec<(u64, u64)>,
}

/// A flip, a cut, a hole or garbage between; sometimes several of them, from the back to the front,
/// so that offsets stay those of the whole archive.
fn damage(whole: &[u8], random: &mut Random) -> Damage {
    let mut damage = Damage {
        what: String::new(),
        bytes: whole.to_vec(),
        spoiled: Vec::new(),
    };
    let count = if random.chance(70) {
        1
    } else {
        random.between(2, 5)
    };
    let mut places: Vec<usize> = (0..count)
        .map(|_| random.below(whole.len() as u64) as usize)
        .collect();
    places.sort_unstable();
    let mut limit = whole.len();
    for at in places.into_iter().rev().filter(|at| *at > 0) {
        if at >= limit {
            continue;
        }
        let len = (random.between(1, 3_000) as usize).min(limit - at);
        let what = match random.below(5) {
            0 | 1 => {
                damage.bytes[at] ^= 1 << random.below(8);
                damage.spoiled.push((at as u64, at as u64 + 1));
                "bit"
            }
            2 => {
                damage.bytes.truncate(at);
                damage.spoiled.push((at as u64, whole.len() as u64));
                "cut"
            }
            3 => {
                damage.bytes.drain(at..at + len);
                damage.spoiled.push((at as u64, (at + len) as u64));
                "hole"
            }
            _ => {
                let mut garbage = random.bytes(len);
                // Now and then something that begins like a frame.
                if len > 100 && random.chance(50) {
                    garbage[50..54].copy_from_slice(&SYNC);
                    let from = at.min(whole.len() - FRAME_HEADER_LEN);
                    garbage[54..90].copy_from_slice(&whole[from..][..36]);
                }
                damage.bytes.splice(at..at, garbage);
                // It spoils what it was put into, between the byte before and the byte after.
                damage.spoiled.push((at as u64 - 1, at as u64 + 1));
                "garbage"
            }
        };
        damage.what += &format!("{what} at {at}; ");
        limit = at;
    }
    damage
}

fn is_intact(piece: &Piece, spoiled: &[(u64, u64)], exactly_between: bool) -> bool {
    // Garbage exactly between two frames spoils neither.
    spoiled.iter().all(|&(from, to)| {
        let between =
            exactly_between && to - from == 2 && (from + 1 == piece.from || from + 1 == piece.to);
        between || to <= piece.from || from >= piece.to
    })
}

struct Rescued {
    records: Vec<Record>,
    code: i32,
    origin: ArchiveOrigin,
    reached: ConsistencyReached,
    stderr: String,
}

/// Runs `salvage`; what it wrote is read strictly. `None` if there was nothing to rescue.
fn salvage(directory: &Path, damaged: &[u8], by_pipe: bool) -> Option<Rescued> {
    let (broken, good) = (directory.join("broken.rmz"), directory.join("good.rmz"));
    std::fs::write(&broken, damaged).expect("written");
    let _ = std::fs::remove_file(&good);
    let output = if by_pipe {
        let output = Tool::new(&["salvage"]).stdin_bytes(damaged).run();
        std::fs::write(&good, &output.stdout).expect("written");
        output
    } else {
        Tool::new(&["salvage"])
            .arg(&broken)
            .arg("-o")
            .arg(&good)
            .run()
    };
    let code = output.code().expect("an exit code");
    if code == 10 {
        assert!(by_pipe || !good.exists());
        return None;
    }
    assert!(code == 0 || code == 3, "{code}: {}", output.stderr);
    let bytes = std::fs::read(&good).expect("a file");
    let mut reader = Reader::new(&bytes[..], Limits::default()).expect("begins");
    let mut records = Vec::new();
    while let Some(frame) = reader.next_frame().expect("complete and intact") {
        records.extend(frame.records);
    }
    Some(Rescued {
        records,
        code,
        origin: reader.header().origin.clone(),
        reached: reader.end().expect("complete").facts.reached.clone(),
        stderr: output.stderr,
    })
}

#[test]
fn after_a_thousand_damages_every_intact_record_is_there_and_no_other() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut random = Random::new(2026);
    let sources = [
        archive(&records(400, 1), options(3)),
        archive(&records(300, 2), options(0)),
        // An archive that holds an archive: its frames must never be taken for those around it.
        {
            let inner = archive(&records(60, 3), options(0));
            let mut outer = records(100, 4);
            outer.insert(50, string(0, b"an archive", &inner));
            outer.insert(1, string(5, b"another", &inner));
            archive(&outer, options(0))
        },
    ];
    let (mut nothing, mut lossy) = (0, 0);
    for round in 0..1_000 {
        let whole = &sources[round % sources.len()];
        let damage = damage(whole, &mut random);
        let pieces = pieces(whole);
        let intact: Vec<&Piece> = pieces
            .iter()
            .filter(|piece| is_intact(piece, &damage.spoiled, false))
            .collect();
        let what = format!("round {round}: {}", damage.what);
        let Some(rescued) = salvage(directory.path(), &damage.bytes, round % 10 == 0) else {
            assert!(intact.is_empty(), "{what}");
            nothing += 1;
            continue;
        };
        // Between the intact pieces at least, and those that a garbage between them did not touch
        // at most: in order, with nothing else.
        let due: Vec<&Record> = intact.iter().flat_map(|piece| &piece.records).collect();
        let allowed: Vec<&Record> = pieces
            .iter()
            .filter(|piece| is_intact(piece, &damage.spoiled, true))
            .flat_map(|piece| &piece.records)
            .collect();
        let got: Vec<&Record> = rescued.records.iter().collect();
        assert!(
            is_subsequence(&due, &got),
            "{what}: an intact record is missing"
        );
        assert!(
            is_subsequence(&got, &allowed),
            "{what}: a record that was not there"
        );
        let all: Vec<&Record> = pieces.iter().flat_map(|piece| &piece.records).collect();
        if got.len() < all.len() {
            lossy += 1;
            assert_eq!(rescued.code, 3, "{what}");
            assert!(
                rescued.stderr.contains("was lost"),
                "{what}: {}",
                rescued.stderr
            );
            assert!(
                !rescued.stderr.contains("at least about"),
                "{what}: a bound that reads like the loss: {}",
                rescued.stderr
            );
            assert!(
                matches!(rescued.reached, ConsistencyReached::Scan { .. }),
                "{what}: {:?}",
                rescued.reached
            );
        } else {
            assert_eq!(contents(got), contents(all), "{what}");
        }
        assert!(
            matches!(rescued.origin, ArchiveOrigin::Salvaged { .. }),
            "{what}"
        );
    }
    assert!(nothing < 100 && lossy > 500, "{nothing} {lossy}");
}

/// Whether `part` stands in `whole` in the same order. Records are grouped by type within a frame,
/// and frames are joined, so order is compared by key: the last record of each must be the same.
fn is_subsequence(part: &[&Record], whole: &[&Record]) -> bool {
    let name = |record: &Record| match record {
        Record::Key(key) => (key.db, key.key.clone()),
        Record::Deleted { db, key } => (*db, key.clone()),
        _ => unreachable!("no functions here"),
    };
    let by_key = |records: &[&Record]| {
        let mut by_key = std::collections::BTreeMap::<_, Vec<Record>>::new();
        for record in records {
            by_key
                .entry(name(record))
                .or_default()
                .push((*record).clone());
        }
        by_key
    };
    let (part, whole) = (by_key(part), by_key(whole));
    part.iter().all(|(key, records)| {
        let mut there = whole.get(key).into_iter().flatten();
        records
            .iter()
            .all(|record| there.any(|other| other == record))
    })
}

#[test]
fn a_whole_archive_loses_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let whole = archive(&records(200, 7), options(3));
    for by_pipe in [false, true] {
        let rescued = salvage(directory.path(), &whole, by_pipe).expect("rescued");
        assert_eq!(rescued.code, 0);
        assert!(
            rescued.stderr.contains("nothing was lost"),
            "{}",
            rescued.stderr
        );
        assert!(matches!(rescued.reached, ConsistencyReached::Exact(_)));
    }
    // What was put behind it or between its frames is none of it.
    let mut padded = whole.clone();
    padded.extend_from_slice(&[0; 100]);
    let rescued = salvage(directory.path(), &padded, false).expect("rescued");
    assert_eq!(rescued.code, 0, "{}", rescued.stderr);
}

#[test]
fn frames_that_were_swapped_or_doubled_are_put_in_order() {
    let directory = tempfile::tempdir().expect("tempdir");
    let key = |text: &[u8]| string(0, b"k", text);
    let whole = archive(&[key(b"old"), key(b"new"), key(b"newest")], options(0));
    let pieces = pieces(&whole);
    let cut = |piece: &Piece| whole[piece.from as usize..piece.to as usize].to_vec();
    let mut swapped = whole[..pieces[0].from as usize].to_vec();
    for piece in [2, 0, 1, 0] {
        swapped.extend(cut(&pieces[piece]));
    }
    swapped.extend_from_slice(&whole[pieces[2].to as usize..]);
    let rescued = salvage(directory.path(), &swapped, false).expect("rescued");
    assert_eq!(rescued.records, [key(b"old"), key(b"new"), key(b"newest")]);
    assert_eq!(rescued.code, 0);
    assert!(
        rescued.stderr.contains("1 frame repeated"),
        "{}",
        rescued.stderr
    );
}

/// The same archive at the start and at the end says nothing of what lies between.
#[test]
fn another_archive_between_two_copies_is_told() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (one, other) = (
        archive(&records(40, 1), options(3)),
        archive(&records(40, 2), options(3)),
    );
    for (pieces, code, others) in [
        (vec![&one, &other, &one], 3, 1),
        (vec![&one, &one], 0, 0),
        (vec![&one], 0, 0),
    ] {
        let input = directory.path().join("x.rmz");
        let bytes: Vec<u8> = pieces.into_iter().flatten().copied().collect();
        std::fs::write(&input, bytes).expect("written");
        let output = Tool::new(&["salvage", "--json"])
            .arg(&input)
            .arg("-o")
            .arg(directory.path().join("g.rmz"))
            .run()
            .expect_code(code);
        let said = output.summary();
        assert_eq!(said["whole"], true, "{said}");
        let named = said["other_archives"].as_array().expect("a list").len();
        assert_eq!(named, others, "{said}");
        let text = Tool::new(&["salvage"]).arg(&input).arg("-o");
        let text = text.arg(directory.path().join("h.rmz")).run();
        let is_all = text.stderr.contains("nothing was lost");
        assert_eq!(is_all, others == 0, "{}", text.stderr);
    }
}

#[test]
fn what_was_lost_is_told_in_json_and_in_the_archive() {
    let directory = tempfile::tempdir().expect("tempdir");
    let whole = archive(&records(200, 9), options(3));
    let pieces = pieces(&whole);
    let small = |piece: &&Piece| piece.records.len() > 1;
    let spoiled = pieces
        .iter()
        .skip(3)
        .find(small)
        .expect("a frame of several records");
    let mut damaged = whole.clone();
    damaged[spoiled.from as usize + 60] ^= 1;
    let (broken, good) = (
        directory.path().join("b.rmz"),
        directory.path().join("g.rmz"),
    );
    std::fs::write(&broken, &damaged).expect("written");
    let output = Tool::new(&["salvage", "--json"])
        .arg(&broken)
        .arg("-o")
        .arg(&good)
        .run()
        .expect_code(3);
    let json: serde_json::Value = output.summary();
    assert_eq!(json["lost_frames"], 1);
    assert_eq!(json["lost_records"], spoiled.records.len());
    assert_eq!(json["lost_records_exact"], true);
    assert_eq!(json["lost_ranges"][0][0], spoiled.from);
    let inspected = Tool::new(&["inspect"]).arg(&good).run().success();
    let text = String::from_utf8(inspected.stdout).expect("text");
    assert!(text.contains("salvaged from a damaged archive"), "{text}");
    assert!(text.contains("salvaged_lost_frames = 1"), "{text}");
    // Whoever looks into the new archive hears of it, and nobody calls it complete.
    let file = good.display().to_string();
    let lines = directory.path().join("x.jsonl").display().to_string();
    for arguments in [
        &["verify", &file][..],
        &["verify", &file, "--level", "records"],
        &["verify", &file, "--quick"],
        &["list", &file],
        &["inspect", &file],
        &["report", &file],
        &["extract", &file, "--key", "none"],
        &["diff", &file, &file],
        &["convert", &file, &lines],
        &["import", "redis://127.0.0.1:1", &file, "--verify-first"],
    ] {
        let output = Tool::new(arguments).run().expect_stderr("lacks 1 frame");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            !text.contains("omplete and intact") && !output.stderr.contains("complete and intact"),
            "{arguments:?}: {text}"
        );
        if arguments[0] == "verify" {
            assert!(
                text.contains("salvaged from an incomplete archive"),
                "{text}"
            );
        }
        if let "verify" | "list" | "inspect" | "report" | "diff" = arguments[0] {
            output.success();
        }
    }
    // Of one from which nothing was lost nothing is said.
    std::fs::write(&broken, &whole).expect("written");
    Tool::new(&["salvage"])
        .arg(&broken)
        .arg("-o")
        .arg(&good)
        .run()
        .success();
    let output = Tool::new(&["verify"]).arg(&good).run().success();
    assert!(!output.stderr.contains("lacks"), "{}", output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("complete and intact"), "{text}");
}

/// Keys that the export could not read are not in its archive, and that is said of what is salvaged
/// of it too, whole or not.
#[test]
fn what_the_export_could_not_read_is_said_of_the_salvaged_archive() {
    let directory = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| directory.path().join(name);
    let records: Vec<Record> = (0..40)
        .map(|n| string(0, format!("k{n}").as_bytes(), &[b'v'; 300]))
        .collect();
    let row = |db, written, failed| SourceCounts {
        db,
        scanned: written + failed,
        written,
        failed,
        ..SourceCounts::default()
    };
    let mut writer = Writer::new(Vec::new(), &Header::default(), options(3)).expect("begins");
    writer.set_context(CONTEXT).expect("context");
    for record in &records {
        writer.write(record).expect("written");
    }
    let reached = ConsistencyReached::Exact(vec![(0, CONTEXT.source_time_ms)]);
    let facts = EndFacts {
        // Of the last it was not even known how many keys it has.
        counts: vec![row(0, 40, 3), row(2, 0, 5), row(7, 0, 0)],
        ..EndFacts::new(reached)
    };
    let whole = writer.finish(facts).expect("finished").inner;
    let spoiled = pieces(&whole)[1].from as usize + 60;
    for is_damaged in [false, true] {
        let mut bytes = whole.clone();
        bytes[spoiled] ^= u8::from(is_damaged);
        std::fs::write(at("b.rmz"), &bytes).expect("written");
        let output = Tool::new(&["salvage", "--json"])
            .arg(at("b.rmz"))
            .arg("-o")
            .arg(at("g.rmz"))
            .run()
            .expect_code(if is_damaged { 3 } else { 0 });
        let failed = serde_json::json!({
            "keys": 8,
            "by_db": [{ "db": 0, "keys": 3 }, { "db": 2, "keys": 5 }],
        });
        assert_eq!(output.summary()["export_failed"], failed);
        assert_eq!(output.summary()["whole"], !is_damaged);
        let verified = Tool::new(&["verify", "--json"]).arg(at("g.rmz")).run();
        assert_eq!(verified.code(), Some(0), "{}", verified.stderr);
        assert_eq!(verified.summary()["export_failed"], failed);
        let good = std::fs::read(at("g.rmz")).expect("there");
        let mut reader = Reader::new(good.as_slice(), Limits::default()).expect("begins");
        while reader.next_frame().expect("intact").is_some() {}
        let counts = &reader.end().expect("an end").facts.counts;
        assert_eq!(
            counts.iter().map(|row| row.db).collect::<Vec<_>>(),
            [0, 2, 7]
        );
        assert!(counts.iter().all(SourceCounts::reconciles), "{counts:?}");
        let told = "the export left out 8 keys (db 0: 3, db 2: 5)";
        let again = Tool::new(&["salvage"]).arg(at("b.rmz")).arg("-o");
        again.arg(at("h.rmz")).run().expect_stderr(told);
        let extract = Tool::new(&["extract", "-k", "not there", "--db", "0"]);
        let output = extract.arg(at("g.rmz")).run().expect_code(1);
        output.expect_stderr(told);
        let extract = Tool::new(&["extract", "-k", "k39", "--db", "0"]);
        let output = extract.arg(at("g.rmz")).run().success();
        assert!(!output.stderr.contains("left out"), "{}", output.stderr);
    }
}

/// Takes the frames of an archive to pieces, with their headers.
fn frames_of(whole: &[u8]) -> Vec<(usize, usize)> {
    let (mut frames, mut at) = (Vec::new(), PREAMBLE_LEN);
    while whole[at..].starts_with(&SYNC) {
        let stored = u32::from_le_bytes(whole[at + 24..at + 28].try_into().expect("four"));
        let to = at + FRAME_HEADER_LEN + stored as usize;
        frames.push((at, to));
        at = to;
    }
    frames
}

/// Makes the checksums of a frame right after its payload was changed.
fn repair(whole: &mut [u8], (from, to): (usize, usize)) {
    let crc = crc32(&whole[from + FRAME_HEADER_LEN..to]).to_le_bytes();
    whole[from + 32..from + 36].copy_from_slice(&crc);
    let crc = crc32(&whole[from..from + 36]).to_le_bytes();
    whole[from + 36..from + 40].copy_from_slice(&crc);
}

fn crc32(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

/// An archive of one value, which is then changed as if by somebody who repairs checksums.
fn with_a_changed_value() -> Vec<u8> {
    let mut whole = archive(
        &[string(0, b"balance", b"100"), string(0, b"other", b"text")],
        options(0),
    );
    let at = whole.windows(3).position(|three| three == b"100");
    whole[at.expect("there")] = b'9';
    let frame = frames_of(&whole)[1];
    repair(&mut whole, frame);
    whole
}

#[test]
fn a_digest_that_does_not_match_is_a_loss() {
    let directory = tempfile::tempdir().expect("tempdir");
    let changed = with_a_changed_value();
    let rescued = salvage(directory.path(), &changed, false).expect("rescued");
    assert_eq!(rescued.code, 3, "{}", rescued.stderr);
    assert!(
        rescued.stderr.contains("was changed after it was written")
            && !rescued.stderr.contains("nothing was lost"),
        "{}",
        rescued.stderr
    );
    assert!(matches!(rescued.reached, ConsistencyReached::Scan { .. }));
    // Who imports the new archive hears of it.
    let listed = Tool::new(&["inspect"])
        .arg(directory.path().join("good.rmz"))
        .run()
        .success();
    let text = String::from_utf8(listed.stdout).expect("text");
    assert!(text.contains("salvaged_digest = differs"), "{text}");
    // Nobody calls the records before it intact.
    for verb in ["verify", "list", "inspect", "report"] {
        let output = Tool::new(&[verb]).stdin_bytes(changed.clone()).run();
        let output = output.expect_code(10).expect_stderr("SHA-256");
        assert!(!output.stderr.contains("intact"), "{}", output.stderr);
    }
}

#[test]
fn a_digest_that_does_not_match_is_never_allowed() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("changed.rmz");
    std::fs::write(&file, with_a_changed_value()).expect("written");
    let server = TestServer::start(available()[0]);
    for more in [&[][..], &["--jobs", "2"], &["--allow-incomplete"]] {
        let () = redis::cmd("FLUSHALL")
            .query(&mut server.client())
            .expect("flushed");
        let output = Tool::new(&["import", &server.url()])
            .args(more)
            .arg(&file)
            .run();
        let output = output.expect_code(10).expect_stderr("SHA-256");
        assert!(!output.stderr.contains("intact"), "{}", output.stderr);
    }
}

#[test]
fn of_a_cut_archive_the_header_says_how_many_keys_there_were() {
    let directory = tempfile::tempdir().expect("tempdir");
    let records: Vec<Record> = (0..1_000)
        .map(|n| string(0, format!("key:{n}").as_bytes(), &[b'x'; 100]))
        .collect();
    let header = Header {
        expected: vec![Expected {
            db: 0,
            keys: 1_003,
            expires: 0,
        }],
        ..Header::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, options(3)).expect("begins");
    writer.set_context(CONTEXT).expect("context");
    for record in &records {
        writer.write(record).expect("written");
    }
    let facts = EndFacts::new(ConsistencyReached::Exact(vec![(0, 1)]));
    let whole = writer.finish(facts).expect("finished").inner;
    let pieces = pieces(&whole);
    let half = &pieces[pieces.len() / 2];
    let cut = &whole[..half.from as usize];
    let intact: usize = pieces[..pieces.len() / 2]
        .iter()
        .map(|piece| piece.records.len())
        .sum();
    let rescued = salvage(directory.path(), cut, false).expect("rescued");
    assert_eq!((rescued.code, rescued.records.len()), (3, intact));
    let said = format!("about 1,003 keys when the export began; {intact} of them were rescued");
    assert!(rescued.stderr.contains(&said), "{}", rescued.stderr);
    let output = Tool::new(&["salvage", "--json"])
        .stdin_bytes(cut)
        .run()
        .expect_code(3);
    let json = output.summary();
    assert_eq!(json["expected_keys"], 1_003);
    assert_eq!(json["keys"], intact);
    assert!(json["lost_records"].is_null(), "{json}");
}

#[test]
fn records_keep_the_time_that_they_were_read_at() {
    let directory = tempfile::tempdir().expect("tempdir");
    const HOUR_MS: u64 = 3_600_000;
    let mut writer = Writer::new(Vec::new(), &Header::default(), options(3)).expect("begins");
    let times: Vec<u64> = (0..96)
        .map(|n| CONTEXT.source_time_ms + n * HOUR_MS)
        .collect();
    for (n, source_time_ms) in times.iter().enumerate() {
        writer
            .set_context(Context {
                source_time_ms: *source_time_ms,
                ..CONTEXT
            })
            .expect("context");
        let key = format!("key:{n}");
        writer
            .write(&string(0, key.as_bytes(), b"small"))
            .expect("written");
    }
    let facts = EndFacts::new(ConsistencyReached::Exact(vec![(0, 1)]));
    let mut whole = writer.finish(facts).expect("finished").inner;
    let read = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes, Limits::default()).expect("begins");
        let mut times = Vec::new();
        while let Some(frame) = reader.next_frame().expect("intact") {
            times.extend(frame.records.iter().map(|_| frame.context.source_time_ms));
        }
        times
    };
    // Already the writer keeps apart what was read at different times.
    assert_eq!(read(&whole), times);
    let (last, _) = frames_of(&whole)[96];
    whole[last + 50] ^= 1;
    salvage(directory.path(), &whole, false).expect("rescued");
    let rescued = std::fs::read(directory.path().join("good.rmz")).expect("a file");
    assert_eq!(read(&rescued), times[..95]);
}

#[test]
fn the_beginning_of_another_archive_hides_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let whole = archive(&records(300, 31), options(3));
    let all: Vec<Piece> = pieces(&whole);
    let other = archive(&records(300, 32), options(3));
    let (_, header_end) = frames_of(&other)[0];
    // Only its HEADER, and some records of it as well; with this archive's trailer, and without.
    let ends = [header_end, frames_of(&other)[3].1];
    for len in ends {
        for cut in [0, 300] {
            let mut bytes = whole.clone();
            bytes[..len].copy_from_slice(&other[..len]);
            bytes.truncate(whole.len() - cut);
            let rescued = salvage(directory.path(), &bytes, false).expect("rescued");
            assert_eq!(rescued.code, 3);
            let spoiled = [(0, len as u64), (bytes.len() as u64, whole.len() as u64)];
            let due: Vec<&Record> = all
                .iter()
                .filter(|piece| is_intact(piece, &spoiled, false))
                .flat_map(|piece| &piece.records)
                .collect();
            assert!(due.len() > 200);
            let got: Vec<&Record> = rescued.records.iter().collect();
            assert!(
                is_subsequence(&due, &got) && is_subsequence(&got, &due),
                "{len} {cut}"
            );
        }
    }
    // Two whole ones in a file: one is rescued, and the other named.
    let joined = [&whole[..], &other[..]].concat();
    let rescued = salvage(directory.path(), &joined, false).expect("rescued");
    assert_eq!(rescued.code, 3, "{}", rescued.stderr);
    assert!(
        rescued.stderr.contains("the input also holds"),
        "{}",
        rescued.stderr
    );
    assert!(
        rescued.stderr.contains("1 other archive in the same input")
            && !rescued.stderr.contains("nothing was lost"),
        "{}",
        rescued.stderr
    );
}

#[test]
fn counts_that_are_not_those_of_the_records_are_damage() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut maker = Maker::new();
    maker.data(&one_key(3));
    // END counts the key in another database; every checksum is right, the digest too.
    let bytes = maker.finish(&End::of(1, &[(4, 1, 2, 1)]).body());
    let rescued = salvage(directory.path(), &bytes, false).expect("rescued");
    assert_eq!((rescued.code, rescued.records.len()), (3, 1));
    assert!(
        rescued.stderr.contains("contradicts itself") && !rescued.stderr.contains("mistake of the"),
        "{}",
        rescued.stderr
    );
    let verified = Tool::new(&["verify"]).stdin_bytes(bytes).run();
    let verified = verified.expect_code(10);
    assert!(!verified.stderr.contains("intact"), "{}", verified.stderr);
}

#[test]
fn where_nothing_is_intact_nothing_is_written() {
    let directory = tempfile::tempdir().expect("tempdir");
    let whole = archive(&records(20, 1), options(3));
    for damaged in [&b""[..], b"no archive", &whole[..10], &whole[..60]] {
        assert!(salvage(directory.path(), damaged, false).is_none());
    }
}
