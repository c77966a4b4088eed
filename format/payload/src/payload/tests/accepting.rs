//! The rule: what must become of which value for which destination.

use redis_migrate_format::record::Family::{self, Other, Redis, Valkey};

use super::accept::{Accepts, Plan, Refusal, Types, Versions, plan, plan_value};
use super::vector_sets::{OF_8_2, OF_8_6, TWO, value};
use super::vectors::vectors;
use super::*;
use crate::dialect::{Dialect, Opcode, Version};

fn server(family: Family, major: u16, minor: u16) -> Accepts {
    let dialect = Dialect::of(family, Version::new(major, minor, 0));
    Accepts::of_server(dialect).expect("a known server")
}

/// The servers that were tried out against each other.
fn servers() -> Vec<(&'static str, Accepts)> {
    vec![
        ("redis-6.0", server(Redis, 6, 0)),
        ("redis-6.2", server(Redis, 6, 2)),
        ("redis-7.0", server(Redis, 7, 0)),
        ("redis-8.0", server(Redis, 8, 0)),
        ("redis-8.6", server(Redis, 8, 6)),
        ("valkey-8.1", server(Valkey, 8, 1)),
        ("valkey-9.1", server(Valkey, 9, 1)),
    ]
}

#[test]
fn sets_of_versions() {
    let versions: Versions = [9..=11u16, 80..=80, 12..=12, 1..=2].into_iter().collect();
    assert_eq!(versions.to_string(), "1–2, 9–12, 80");
    assert!(versions.contains(12) && versions.contains(80) && !versions.contains(3));
    assert_eq!(versions.highest(), Some(80));
    let singles: Versions = [3u16, 1, 2, 80].into_iter().collect();
    assert_eq!(singles.to_string(), "1–3, 80");
    assert_eq!(Versions::default().highest(), None);
    assert_eq!(Versions::default().to_string(), "");
    let types: Types = [0, 25, 255].into_iter().collect();
    assert_eq!(types.iter().collect::<Vec<_>>(), [0, 25, 255]);
}

/// Which types have to be written anew, from one server to another: as was found by trying.
#[test]
fn the_matrix() {
    let anew = |from: &str, to: &str| -> Vec<u8> {
        match (from, to) {
            (
                "redis-7.0" | "redis-8.0" | "redis-8.6" | "valkey-8.1" | "valkey-9.1",
                "redis-6.0" | "redis-6.2",
            ) => {
                vec![16, 17, 18, 19, 20, 21, 22, 24, 25, 26]
            }
            (_, "redis-7.0") => vec![20, 21, 22, 24, 25, 26],
            ("redis-8.0", "valkey-8.1" | "valkey-9.1") => vec![24, 25],
            ("redis-8.6", "valkey-8.1" | "valkey-9.1") => vec![24, 25, 26],
            ("redis-8.6", "redis-8.0") => vec![26],
            ("valkey-9.1", "redis-8.0" | "redis-8.6" | "valkey-8.1") => vec![22],
            _ => vec![],
        }
    };
    let servers = servers();
    for vector in vectors() {
        for (to, accepts) in &servers {
            let plan = plan_value(accepts, vector.family, vector.version, vector.body());
            let rewritten = anew(&vector.server, to).contains(&vector.type_byte);
            let accepted = accepts.versions.contains(vector.version);
            match &plan {
                Plan::Keep => assert!(accepted && !rewritten, "{vector} to {to}"),
                Plan::Restamp(version) => {
                    assert!(!accepted && !rewritten, "{vector} to {to}");
                    assert!(accepts.versions.contains(*version), "{vector} to {to}");
                }
                Plan::Reencode { forms, version } => {
                    assert!(rewritten, "{vector} to {to}");
                    assert!(accepts.versions.contains(*version), "{vector} to {to}");
                    let mut out = Vec::new();
                    let losses = recode(vector.family, vector.body(), *forms, &mut out)
                        .expect("a sound value");
                    // What comes out is taken as it is.
                    assert_eq!(
                        plan_value(accepts, accepts.family, *version, &out),
                        Plan::Keep,
                        "{vector} to {to}"
                    );
                    let keeps_ttls = matches!(*to, "redis-8.0" | "redis-8.6" | "valkey-9.1");
                    assert!(losses.field_ttls == 0 || !keeps_ttls, "{vector} to {to}");
                    // A stream that never heard of idempotency loses none.
                    let idempotency = vector.key.contains("idmp");
                    assert_eq!(losses.idempotency, idempotency, "{vector} to {to}");
                }
                Plan::Verbatim | Plan::Refuse(_) => panic!("{vector} to {to}: {plan:?}"),
            }
        }
    }
}

#[test]
fn versions_to_stamp() {
    // From Redis 8 to Valkey 9, which takes 1 to 11 and 80.
    assert_eq!(
        plan(&server(Valkey, 9, 1), Redis, 12, 21),
        Plan::Restamp(11)
    );
    assert_eq!(plan(&server(Redis, 7, 0), Valkey, 80, 0), Plan::Restamp(10));
    assert_eq!(plan(&server(Redis, 7, 0), Redis, 9, 14), Plan::Keep);
    // A version below that of the type is only taken if there is no other.
    let odd = |versions: &[u16]| Accepts {
        versions: versions.iter().copied().collect(),
        ..server(Redis, 8, 0)
    };
    assert_eq!(plan(&odd(&[5, 13]), Redis, 12, 20), Plan::Restamp(13));
    assert_eq!(plan(&odd(&[5]), Redis, 12, 20), Plan::Restamp(5));
    assert_eq!(
        plan(&odd(&[]), Redis, 12, 20),
        Plan::Refuse(Refusal::NoVersion)
    );
    assert_eq!(
        plan(&odd(&[]), Valkey, 80, 22),
        Plan::Refuse(Refusal::NoVersion)
    );
}

#[test]
fn numbers_of_the_other_family_are_not_believed() {
    for (accepts, family, type_byte) in [
        (server(Valkey, 9, 1), Redis, 22),
        (server(Valkey, 9, 1), Redis, 24),
        (server(Redis, 8, 0), Valkey, 22),
        (server(Redis, 8, 0), Redis, 22),
    ] {
        let plan = plan(&accepts, family, 12, type_byte);
        assert!(
            matches!(plan, Plan::Reencode { .. }),
            "{family:?} {type_byte}: {plan:?}"
        );
    }
    let unknown = plan(&server(Redis, 8, 0), Other, 12, 22);
    assert_eq!(unknown, Plan::Refuse(Refusal::Opaque(22)));
    assert_eq!(server(Other, 7, 4).forms().field_ttl, FieldTtlForm::Dropped);
    assert!(!server(Other, 7, 4).types.contains(25));
}

/// An empty value of this module type, version 0.
fn of_module(name: &str) -> Vec<u8> {
    let id = name.bytes().fold(0u64, |id, letter| {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let six = letters.iter().position(|&l| l == letter).expect("a letter");
        id << 6 | six as u64
    }) << 10;
    assert_eq!(module_name(id), name);
    [&[7, 0x81][..], &id.to_be_bytes(), &[0]].concat()
}

/// Of a module's value the footer's version says nothing: the module decides.
#[test]
fn values_of_modules_get_the_footer_that_the_destination_takes() {
    let json = of_module("ReJSON-RL");
    let mut accepts = server(Redis, 7, 2);
    let refused = Plan::Refuse(Refusal::Module("ReJSON-RL".to_owned()));
    assert_eq!(plan_value(&accepts, Redis, 12, &json), refused);
    accepts.modules.insert("ReJSON-RL".to_owned());
    assert_eq!(plan_value(&accepts, Redis, 12, &json), Plan::Restamp(11));
    assert_eq!(plan_value(&accepts, Redis, 11, &json), Plan::Verbatim);
    assert_eq!(plan_value(&accepts, Valkey, 80, &json), refused);
    accepts.versions = Versions::default();
    let refused = Plan::Refuse(Refusal::NoVersion);
    assert_eq!(plan_value(&accepts, Redis, 12, &json), refused);
}

/// A vector set goes down as far as its layout is read, and no further.
#[test]
fn vector_sets_only_go_where_their_layout_is_read() {
    let with_vectors = |major, minor| {
        let mut accepts = server(Redis, major, minor);
        accepts.modules.insert("vectorset".to_owned());
        accepts
    };
    let (eight, two, six) = (with_vectors(8, 0), with_vectors(8, 2), with_vectors(8, 6));
    let (first, second, newest) = (value(TWO), value(OF_8_2), value(OF_8_6));
    for accepts in [&eight, &two, &six] {
        assert_eq!(plan_value(accepts, Redis, 12, &first), Plan::Verbatim);
    }
    let refused = Plan::Refuse(Refusal::VectorLayout);
    assert_eq!(plan_value(&eight, Redis, 12, &second), refused);
    assert_eq!(plan_value(&eight, Redis, 13, &newest), refused);
    assert_eq!(plan_value(&two, Redis, 12, &second), Plan::Verbatim);
    assert_eq!(plan_value(&two, Redis, 13, &newest), Plan::Restamp(12));
    assert_eq!(plan_value(&six, Redis, 13, &newest), Plan::Verbatim);
    // What is not known to be of the first layout may be of a later one.
    let unread = of_module("vectorset");
    assert_eq!(plan_value(&eight, Redis, 12, &unread), refused);
    assert_eq!(plan_value(&two, Redis, 12, &unread), Plan::Verbatim);
    let text = Refusal::VectorLayout.to_string();
    assert!(text.contains("as Redis 8.2 and later"), "{text}");
}

#[test]
fn opaque_values_are_offered_to_servers_of_their_family() {
    const NOBODYS: u8 = 99;
    let asked = |family, major, minor| Accepts {
        answers: true,
        ..server(family, major, minor)
    };
    // Whatever its version and that of the footer: the server answers.
    for (major, minor) in [(6, 0), (8, 6), (8, 10)] {
        let accepts = asked(Redis, major, minor);
        for version in [9, 16, 40] {
            assert_eq!(plan(&accepts, Redis, version, NOBODYS), Plan::Verbatim);
        }
    }
    let refused = Plan::Refuse(Refusal::Opaque(NOBODYS));
    assert_eq!(plan(&asked(Valkey, 9, 1), Redis, 16, NOBODYS), refused);
    assert_eq!(plan(&asked(Redis, 8, 6), Valkey, 81, NOBODYS), refused);
    assert_eq!(plan(&asked(Other, 8, 6), Other, 16, NOBODYS), refused);
    assert_eq!(plan(&asked(Redis, 8, 6), Other, 16, NOBODYS), refused);
}

#[test]
fn opaque_values_only_go_into_files_where_they_are_known() {
    const NOBODYS: u8 = 99;
    let mut accepts = server(Redis, 8, 8);
    let refusal = Refusal::Unknown(NOBODYS);
    assert!(refusal.to_string().contains("type 99"), "{refusal}");
    assert_eq!(plan(&accepts, Redis, 14, NOBODYS), Plan::Refuse(refusal));
    accepts.types.insert(NOBODYS);
    assert_eq!(plan(&accepts, Redis, 14, NOBODYS), Plan::Verbatim);
    assert_eq!(
        plan(&accepts, Valkey, 14, NOBODYS),
        Plan::Refuse(Refusal::Opaque(NOBODYS))
    );
    // Not to be read, so not to be signed anew.
    let expected = Refusal::OpaqueVersion {
        type_byte: NOBODYS,
        version: 15,
    };
    assert_eq!(plan(&accepts, Redis, 15, NOBODYS), Plan::Refuse(expected));

    let value = of_module("vectorset");
    accepts.types.insert(7);
    let refused = Plan::Refuse(Refusal::Module("vectorset".to_owned()));
    assert_eq!(plan_value(&accepts, Redis, 12, &value), refused);
    accepts.modules.insert("other----".to_owned());
    assert_eq!(plan_value(&accepts, Redis, 12, &value), refused);
    accepts.modules.insert("vectorset".to_owned());
    assert_eq!(plan_value(&accepts, Redis, 12, &value), Plan::Verbatim);
    // A person reads what it is, also where the servers are of two families.
    let refused = plan_value(&accepts, Valkey, 12, &value);
    assert_eq!(
        refused,
        Plan::Refuse(Refusal::Module("vectorset".to_owned()))
    );
    let text = |refusal: Refusal| refusal.to_string();
    assert!(text(Refusal::Module("vectorset".to_owned())).ends_with("to have vector sets"));
    assert!(text(Refusal::Opaque(7)).contains("modules"));
    assert_eq!(
        plan_value(&accepts, Redis, 12, &[7]),
        Plan::Refuse(Refusal::Opaque(7))
    );
}

#[test]
fn a_destination_without_a_form_is_told_so() {
    let mut accepts = server(Redis, 6, 0);
    accepts.types = [0, 1, 2, 4].into_iter().collect();
    assert_eq!(
        plan(&accepts, Redis, 9, 15),
        Plan::Refuse(Refusal::NoForm(Kind::Stream))
    );
    assert_eq!(
        plan(&accepts, Redis, 9, 12),
        Plan::Refuse(Refusal::NoForm(Kind::ZSet))
    );
    assert!(matches!(
        plan(&accepts, Redis, 9, 14),
        Plan::Reencode { .. }
    ));
    assert!(Accepts::of_server(Dialect::of(Redis, Version::new(3, 2, 0))).is_none());
}

#[test]
fn what_is_filled_in() {
    assert!(server(Redis, 7, 0).fills_in(15));
    assert!(!server(Redis, 7, 0).fills_in(19));
    assert!(server(Valkey, 8, 1).fills_in(19));
    assert!(!server(Redis, 6, 2).fills_in(15));
    assert!(!server(Redis, 8, 0).fills_in(21));
    assert!(!server(Redis, 8, 0).fills_in(16));
}

#[test]
fn probes_are_sound_values() {
    for family in [Redis, Valkey, Other] {
        let probes = probe::type_probes(family, 9);
        let mut known: Vec<u8> = probes.iter().map(|(type_byte, _)| *type_byte).collect();
        // Key metadata are tried at the end.
        let mark = Opcode::KeyMetadata.byte();
        assert_eq!(known.last() == Some(&mark), family == Redis);
        known.retain(|&type_byte| type_byte != mark);
        let newest = match family {
            Redis => server(Redis, 8, 10),
            Valkey => server(Valkey, 9, 2),
            Other => server(Other, 8, 0),
        };
        // There is no sample of a type that cannot be read.
        let readable = |&byte: &u8| {
            let error = decode(family, &[byte]).expect_err("a type byte alone");
            // Hashes with templates that do not fit are opaque, too.
            !error.is_opaque() || (family == Redis && [29, 31].contains(&byte))
        };
        let types = newest.types.iter().filter(|&byte| byte != mark);
        let newest: Vec<u8> = types.filter(readable).collect();
        assert_eq!(known, newest);
        assert!(!known.contains(&6) && !known.contains(&7));
        for (type_byte, payload) in probes {
            let (value, version) = split(&payload).expect("a good footer");
            assert_eq!((value[0], version), (type_byte, 9));
            assert!(check(family, value).is_ok(), "type {type_byte}");
            let mut out = Vec::new();
            assert_eq!(compact(value, family, &mut out), Ok(()), "type {type_byte}");
        }
    }
    for version in probe::versions() {
        assert_eq!(
            split(&probe::version_probe(version)),
            Ok((&b"\x00\x01a"[..], version))
        );
    }
}

#[test]
fn listpacks_go_where_they_are_read_as_they_were_written() {
    use pack::Element::Text;
    let element = vec![b'x'; 16_378];
    let early = pack::listpack(&[Text(&element)]);
    let exact = decode::listpack::rewritten(&early, BackLengths::Exact).expect("another way");
    let value = |head: &[u8], listpack: &[u8], tail: &[u8]| {
        let mut value = head.to_vec();
        write::string(&mut value, listpack);
        value.extend_from_slice(tail);
        value
    };
    let (redis, valkey) = (server(Redis, 8, 0), server(Valkey, 9, 1));
    for (head, tail) in [(&[20][..], &[][..]), (&[18, 1, 2], &[])] {
        let (early, exact) = (value(head, &early, tail), value(head, &exact, tail));
        assert_eq!(plan_value(&redis, Redis, 12, &early), Plan::Keep);
        assert_eq!(plan_value(&valkey, Valkey, 80, &exact), Plan::Keep);
        for (accepts, value) in [(&redis, &exact), (&valkey, &early)] {
            let plan = plan_value(accepts, accepts.family, 11, value);
            assert!(matches!(plan, Plan::Reencode { .. }), "{plan:?}");
        }
    }

    let entries = [Entry {
        id: StreamId { ms: 1, seq: 1 },
        fields: vec![(b"f"[..].into(), element.into())],
    }];
    let stream = Object::Stream(Stream {
        form: StreamForm::V1,
        nodes: pack::nodes(&entries, 1),
        length: 1,
        counter: 1,
        last_id: StreamId { ms: 1, seq: 1 },
        first_id: StreamId::default(),
        max_deleted_id: StreamId::default(),
        entries_added: 0,
        groups: Vec::new(),
        idempotency: Idempotency::default(),
    });
    let mut early = Vec::new();
    assert!(encode(&stream, redis.forms(), &mut early).is_none());
    assert_eq!(plan_value(&redis, Redis, 9, &early), Plan::Keep);
    let Plan::Reencode { forms, .. } = plan_value(&valkey, Redis, 9, &early) else {
        panic!("not to be kept");
    };
    let mut exact = Vec::new();
    assert_eq!(
        recode(Redis, &early, forms, &mut exact),
        Ok(Losses::default())
    );
    assert_eq!(exact.len(), early.len() - 1);
    assert_eq!(plan_value(&valkey, Valkey, 80, &exact), Plan::Keep);
    assert_eq!(meaning::same(Redis, &early, Valkey, &exact), Ok(None));

    for steps in [BackLengths::Early, BackLengths::Exact] {
        let probe = probe::back_length_probe(steps, 11);
        let (value, _) = split(&probe).expect("a good footer");
        assert!(check(Redis, value).is_ok());
        assert_eq!(
            plan_value(&redis, Redis, 12, value) == Plan::Keep,
            steps == BackLengths::Early
        );
    }
}

/// A stream is never written higher than it was read, and in the highest form that is known there.
#[test]
fn forms_of_streams() {
    let form = |accepts: &Accepts, type_byte| match plan(accepts, Redis, 14, type_byte) {
        Plan::Reencode { forms, version } => {
            assert!(accepts.versions.contains(version));
            Some(forms.stream.encoding().type_byte())
        }
        Plan::Keep | Plan::Restamp(_) => None,
        other => panic!("{other:?}"),
    };
    for (accepts, from, to) in [
        (server(Redis, 8, 8), 27, None),
        (server(Redis, 8, 6), 27, Some(26)),
        (server(Redis, 8, 6), 26, None),
        (server(Redis, 8, 6), 21, None),
        (server(Redis, 8, 6), 15, None),
        (server(Redis, 8, 4), 27, Some(21)),
        (server(Redis, 8, 4), 26, Some(21)),
        (server(Valkey, 9, 1), 26, Some(21)),
        (server(Valkey, 9, 1), 27, Some(21)),
        (server(Redis, 7, 0), 26, Some(19)),
        (server(Redis, 6, 2), 27, Some(15)),
        (server(Redis, 5, 0), 26, Some(15)),
        (server(Other, 8, 6), 26, Some(21)),
    ] {
        assert_eq!(form(&accepts, from), to, "{from} to {:?}", accepts.family);
    }
    // Numbers of another family are nothing to go by.
    let mut odd = server(Valkey, 9, 1);
    odd.types.insert(26);
    assert_eq!(form(&odd, 26), Some(21));
    assert_eq!(plan(&odd, Valkey, 80, 26), Plan::Verbatim);
}
