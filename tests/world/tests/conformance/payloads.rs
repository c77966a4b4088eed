//! RESTORE: what is refused, what replaces what, and idle times; payloads of every form that the
//! model writes, between all versions.

use redis_migrate_world::server::{
    self, Field, Module, Random, Release, Since, Value as Held, module_id,
};

use super::play::{Pair, Step, script};
use super::real;

fn step(words: &[&[u8]]) -> Step {
    Step {
        client: 0,
        words: words.iter().map(|word| word.to_vec()).collect(),
    }
}

#[test]
fn restore_refuses_and_replaces_alike() {
    for release in real::available() {
        let mut pair = Pair::new(release);
        let payload = server::dump(release, &Held::String(b"hello".to_vec()), true);
        let mut damaged = payload.clone();
        damaged[2] ^= 1;
        let mut steps = Vec::new();
        let past = b"1";
        for words in [
            &[&b"RESTORE"[..], b"k", b"0", &payload][..],
            &[b"RESTORE", b"k", b"0", &payload],
            &[b"RESTORE", b"k", b"0", b"nonsense"],
            &[b"RESTORE", b"new", b"0", b"nonsense"],
            &[b"RESTORE", b"new", b"0", b""],
            &[b"RESTORE", b"new", b"0", &damaged],
            &[b"RESTORE", b"new", b"-1", &payload],
            &[b"RESTORE", b"new", b"x", &payload],
            &[b"RESTORE", b"new", b"0", &payload, b"FOO"],
            &[b"RESTORE", b"k", b"0", &payload, b"FOO"],
            &[b"RESTORE", b"k", b"100000", &payload, b"REPLACE"],
            &[b"PTTL", b"k"],
            &[b"RESTORE", b"k", past, &payload, b"ABSTTL"],
            &[b"RESTORE", b"new", past, &payload, b"ABSTTL"],
            &[b"EXISTS", b"new"],
            &[b"RESTORE", b"k", past, &payload, b"ABSTTL", b"REPLACE"],
            &[b"EXISTS", b"k"],
            &[b"RESTORE", b"k", b"99999999999999", &payload, b"ABSTTL"],
            &[b"PTTL", b"k"],
            &[b"RESTORE", b"i", b"0", &payload, b"IDLETIME", b"100000"],
            &[b"OBJECT", b"IDLETIME", b"i"],
            &[b"DUMP", b"i"],
            &[b"OBJECT", b"IDLETIME", b"i"],
            &[b"RESTORE", b"j", b"0", &payload, b"IDLETIME", b"-1"],
            &[b"RESTORE", b"j", b"0", &payload, b"IDLETIME"],
            &[b"RESTORE", b"j", b"0", &payload, b"IDLETIME", b"x"],
            &[b"RESTORE", b"j", b"0", &payload, b"FREQ", b"256"],
            &[
                b"RESTORE",
                b"j",
                b"0",
                &payload,
                b"FREQ",
                b"3",
                b"IDLETIME",
                b"3",
            ],
            &[b"RESTORE", b"j", b"0", &payload, b"FREQ", b"3"],
        ] {
            steps.push(step(words));
        }
        pair.hold(&steps);
        for kind in [8].into_iter().chain(34..=60u8).chain([200, 255]) {
            let mut sealed = vec![kind];
            seal(release, &mut sealed);
            pair.hold(&[step(&[b"RESTORE", b"k", b"0", &sealed])]);
        }
        let no_touch = "CLIENT NO-TOUCH ON\nOBJECT IDLETIME nokey";
        pair.hold(&script(no_touch));
    }
}

fn seal(release: &Release, body: &mut Vec<u8>) {
    // A payload of the same version, whose footer is put behind this body.
    body.extend_from_slice(&release.rdb.to_le_bytes());
    let crc = server::crc64(body);
    body.extend_from_slice(&crc.to_le_bytes());
}

/// A value of any kind that old servers know.
fn value(random: &mut Random, n: u64) -> Held {
    let count = 1 + random.below(if n.is_multiple_of(5) { 600 } else { 9 });
    let text = |random: &mut Random| match random.below(4) {
        0 => random.below(100_000).to_string().into_bytes(),
        1 => vec![b'y'; random.below(300) as usize],
        2 => random.next_u64().to_le_bytes().to_vec(),
        _ => format!("row:{}", random.below(10_000)).into_bytes(),
    };
    let rows: Vec<Vec<u8>> = (0..count).map(|_| text(random)).collect();
    match n % 6 {
        0 => Held::String(text(random)),
        1 => Held::List(rows.into()),
        2 => Held::Set(rows.into_iter().collect()),
        3 => Held::ZSet(
            rows.into_iter()
                .enumerate()
                .map(|(n, row)| (row, n as f64 / 3.0))
                .collect(),
        ),
        4 => Held::Set(
            (0..count)
                .map(|n| (n * 1000).to_string().into_bytes())
                .collect(),
        ),
        _ => {
            let field = |value: Vec<u8>| Field {
                value,
                expire_at: None,
            };
            Held::Hash(
                rows.into_iter()
                    .map(|row| (row.clone(), field(row)))
                    .collect(),
            )
        }
    }
}

/// What the model dumps for a version is taken by that version and is the same value there, by the
/// real server's own DUMP; and what the real server dumps is read by the model.
#[test]
fn payloads_are_taken_by_real_servers() {
    for release in real::available() {
        let pair = Pair::new(release);
        let mut connection = pair.real.connect();
        let mut random = Random::new(11);
        for n in 0..120 {
            let mut held = value(&mut random, n);
            if let (Held::Hash(fields), true) =
                (&mut held, release.has(Since::FieldTtl) && n % 2 == 1)
            {
                for field in fields.values_mut().take(3) {
                    field.expire_at = Some(super::play::now_ms() + 1_000_000 + random.below(99));
                }
            }
            for compact in [false, true] {
                let payload = server::dump(release, &held, compact);
                let restore = [
                    b"RESTORE".to_vec(),
                    b"k".to_vec(),
                    b"0".to_vec(),
                    payload,
                    b"REPLACE".to_vec(),
                ];
                let answer = connection.ask(&restore);
                assert_eq!(
                    answer,
                    Some(super::resp::Value::Simple("OK".to_owned())),
                    "{} {held:?}",
                    release.name
                );
                let Some(super::resp::Value::Bulk(back)) =
                    connection.ask(&[b"DUMP".to_vec(), b"k".to_vec()])
                else {
                    panic!("no payload");
                };
                assert_eq!(
                    server::restore(release, &back, &[]),
                    Ok(held.clone()),
                    "{}",
                    release.name
                );
            }
        }
    }
}

/// A module's value is refused where the module is not loaded.
#[test]
fn values_of_modules() {
    let module = Held::Module(Module {
        id: module_id("ReJSON-RL", 3),
        data: vec![5, 2, b'{', b'}'],
    });
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(Since::R62))
    {
        let mut pair = Pair::new(release);
        let payload = server::dump(release, &module, true);
        pair.hold(&[step(&[b"RESTORE", b"k", b"0", &payload])]);
    }
}

/// Each version takes and refuses the payloads of each.
#[test]
fn footers_are_taken_alike() {
    for release in real::available() {
        let mut pair = Pair::new(release);
        for other in server::RELEASES {
            for held in [
                Held::String(b"hello".to_vec()),
                Held::List(vec![b"a".to_vec()].into()),
                Held::Set([b"a".to_vec()].into()),
                Held::ZSet([(b"a".to_vec(), 1.5)].into()),
            ] {
                let payload = server::dump(other, &held, true);
                pair.hold(&[
                    step(&[b"RESTORE", b"k", b"0", &payload]),
                    step(&[b"DUMP", b"k"]),
                ]);
            }
        }
        for version in (0..=14).chain(78..=82) {
            let mut body = vec![0, 1, b'x'];
            body.extend_from_slice(&u16::to_le_bytes(version));
            let crc = server::crc64(&body);
            body.extend_from_slice(&crc.to_le_bytes());
            pair.hold(&[step(&[b"RESTORE", b"k", b"0", &body])]);
        }
    }
}
