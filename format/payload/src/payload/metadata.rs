//! Key metadata: what modules of Redis 8.6 and later keep beside a value (keymeta.c).
//!
//! It stands before the type byte, in DUMP payloads and in RDB files:
//! `F3 | length: classes | each: class (u32 LE) | items of a module's value, up to their end mark`.
//! A class is a name of four characters, a version and flags. In this tool the metadata stay the
//! beginning of a value, so that they go where it goes; whoever looks at a value's first byte asks
//! [`plain`] for what follows them. Plain values pay one comparison.
//!
//! In files of Valkey the byte F3 is something else.

use redis_migrate_format::record::{Family, Value};

use super::compact::compact_items;
use super::error::{ErrorKind, PayloadError};
use super::source::{Slice, Source};
use super::walk::{length, module_items};
use crate::dialect::opcode::KEY_METADATA_SINCE;
use crate::dialect::{Kind, Opcode, family_of_rdb_version, kind_of};

/// The first byte of a value with metadata.
const MARK: u8 = Opcode::KeyMetadata.byte();

/// The characters of a class's name, six bits each (keymeta.c, keyMetaCharSet).
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// The flag of a class that servers which do not have it may leave out
/// (REDISMODULE_META_ALLOW_IGNORE).
const MAY_BE_IGNORED: u8 = 1;

/// The metadata of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class<'a> {
    /// Name, version and flags as they are stored.
    spec: u32,
    /// The items that the module wrote, their end mark included.
    pub items: &'a [u8],
}

impl Class<'_> {
    /// Its name: four characters of `A-Za-z0-9_-`.
    pub fn name(&self) -> String {
        let letter = |shift: u32| char::from(LETTERS[(self.spec >> shift) as usize & 63]);
        [26, 20, 14, 8].map(letter).iter().collect()
    }

    /// The version of the module's layout, 0 to 31.
    pub fn version(&self) -> u8 {
        (self.spec >> 3) as u8 & 0x1f
    }

    /// Three bits; only the lowest has a meaning.
    pub fn flags(&self) -> u8 {
        self.spec as u8 & 7
    }

    /// Its name, as a number: the same for every version and for all flags.
    pub fn id(&self) -> u32 {
        self.spec >> 8
    }

    /// Its items, compressed strings expanded: the same for every setting of the server that wrote
    /// them.
    ///
    /// # Errors
    /// A string does not expand.
    pub fn expanded(&self) -> Result<Vec<u8>, PayloadError> {
        let mut out = Vec::with_capacity(self.items.len());
        compact_items(self.items, &mut out)?;
        Ok(out)
    }

    /// Whether a server that does not have the class leaves it out; otherwise it refuses the value.
    pub fn may_be_ignored(&self) -> bool {
        self.flags() & MAY_BE_IGNORED != 0
    }

    /// An empty string with this class alone. `may_be_ignored`: what the class is to say of itself,
    /// by which a server's answer tells whether it has the class.
    pub fn alone(&self, may_be_ignored: bool) -> Vec<u8> {
        let flags = if may_be_ignored { MAY_BE_IGNORED } else { 0 };
        let spec = self.spec & !7 | u32::from(flags);
        let mut value = vec![MARK, 1];
        value.extend_from_slice(&spec.to_le_bytes());
        value.extend_from_slice(self.items);
        // Type and length.
        value.extend_from_slice(&[0, 0]);
        value
    }
}

/// Whether a value begins with metadata.
#[inline]
pub fn has_metadata(family: Family, value: &[u8]) -> bool {
    value.first() == Some(&MARK) && family == Family::Redis
}

/// A value's metadata, none for most, and the value without them: type byte and what follows.
///
/// # Errors
/// The metadata are damaged.
pub fn split_metadata(family: Family, value: &[u8]) -> Result<(&[u8], &[u8]), PayloadError> {
    if !has_metadata(family, value) {
        return Ok((&[], value));
    }
    let mut source = Slice::new(value);
    source.byte()?;
    pass(&mut source)?;
    match source.rest().first() {
        Some(&MARK) => Err(source.error(ErrorKind::MetadataTwice)),
        _ => Ok(value.split_at(source.at())),
    }
}

/// The value without its metadata. `value` may be cut, or have a footer; where it ends within its
/// metadata, or they are damaged, it is given as it is, and its first byte is no type byte.
#[inline]
pub fn plain(family: Family, value: &[u8]) -> &[u8] {
    match has_metadata(family, value) {
        true => split_metadata(family, value).map_or(value, |(_, plain)| plain),
        false => value,
    }
}

/// The type byte of a value, or of its beginning.
#[inline]
pub fn type_byte(family: Family, value: &[u8]) -> Option<u8> {
    plain(family, value).first().copied()
}

/// What a value is to a user. Its beginning is enough.
#[inline]
pub fn kind(family: Family, value: &[u8]) -> Kind {
    type_byte(family, value).map_or(Kind::Unknown, |byte| kind_of(family, byte))
}

/// Takes the type byte, and what stands before it.
#[inline]
pub(super) fn take_type_byte<S: Source>(source: &mut S, family: Family) -> Result<u8, S::Error> {
    let byte = source.byte()?;
    if byte != MARK || family != Family::Redis {
        return Ok(byte);
    }
    pass(source)?;
    match source.byte()? {
        MARK => Err(source.error(ErrorKind::MetadataTwice)),
        byte => Ok(byte),
    }
}

/// Passes over metadata whose mark was taken. A count that lies ends with the bytes.
pub(crate) fn pass<S: Source>(source: &mut S) -> Result<(), S::Error> {
    for _ in 0..length(source)? {
        source.pass(4)?;
        module_items(source)?;
    }
    Ok(())
}

/// The classes of a value's metadata; none for most values.
///
/// # Errors
/// They are damaged.
pub fn classes(family: Family, value: &[u8]) -> Result<Vec<Class<'_>>, PayloadError> {
    let mut classes = Vec::new();
    if !has_metadata(family, value) {
        return Ok(classes);
    }
    let mut source = Slice::new(value);
    source.byte()?;
    for _ in 0..length(&mut source)? {
        let spec = u32::from_le_bytes(source.array()?);
        let begin = source.at();
        module_items(&mut source)?;
        let items = &value[begin..source.at()];
        classes.push(Class { spec, items });
    }
    Ok(classes)
}

/// The names of classes, for people: `"DocI" and "Tags"`.
pub fn names(classes: &[Class<'_>]) -> String {
    let names: Vec<String> = classes
        .iter()
        .map(|class| format!("{:?}", class.name()))
        .collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The names of those classes of a value that must not be ignored, for people.
///
/// # Errors
/// The metadata are damaged.
pub fn needed(family: Family, value: &[u8]) -> Result<Option<String>, PayloadError> {
    let mut classes = classes(family, value)?;
    classes.retain(|class| !class.may_be_ignored());
    Ok((!classes.is_empty()).then(|| names(&classes)))
}

/// Why metadata are not left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStripped {
    /// The metadata, or the footer of the payload, are damaged.
    Damaged(String),
    /// These classes say that they must not be ignored.
    Needed(String),
}

/// Leaves the metadata out of a value, in place; whether there were any. `allowed`: also classes
/// that say that they must not be ignored.
///
/// # Errors
/// See [`NotStripped`]. The value is as it was.
pub fn strip(family: Family, value: &mut Value, allowed: bool) -> Result<bool, NotStripped> {
    strip_some(family, value, allowed, |_| true)
}

/// As [`strip`], of those classes only that are `unwanted`.
///
/// # Errors
/// See [`NotStripped`]. The value is as it was.
pub fn strip_some(
    family: Family,
    value: &mut Value,
    allowed: bool,
    unwanted: impl Fn(&Class<'_>) -> bool,
) -> Result<bool, NotStripped> {
    let (Value::Compact(bytes) | Value::Verbatim(bytes)) = &*value else {
        return Ok(false);
    };
    if !has_metadata(family, bytes) {
        return Ok(false);
    }
    let damaged = |error: &dyn std::fmt::Display| NotStripped::Damaged(error.to_string());
    let (body, rdb_version) = match value {
        Value::Verbatim(_) => {
            let (body, version) = super::split(bytes).map_err(|error| damaged(&error))?;
            (body, Some(version))
        }
        _ => (bytes.as_slice(), None),
    };
    let all = classes(family, body).map_err(|error| damaged(&error))?;
    let (left_out, kept): (Vec<Class<'_>>, Vec<Class<'_>>) = all.into_iter().partition(unwanted);
    if left_out.is_empty() && !kept.is_empty() {
        return Ok(false);
    }
    let needed = |class: &Class<'_>| !class.may_be_ignored();
    if !allowed && left_out.iter().any(needed) {
        let needed: Vec<Class<'_>> = left_out.into_iter().filter(needed).collect();
        return Err(NotStripped::Needed(names(&needed)));
    }
    let (_, plain) = split_metadata(family, body).map_err(|error| damaged(&error))?;
    let body = [&written(&kept), plain].concat();
    *value = match rdb_version {
        Some(version) => Value::Verbatim(super::sign(&body, version)),
        None => Value::Compact(body),
    };
    Ok(true)
}

/// Metadata as they stand before a type byte; nothing for none.
fn written(classes: &[Class<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if classes.is_empty() {
        return bytes;
    }
    bytes.push(MARK);
    super::write::length(&mut bytes, classes.len() as u64);
    for class in classes {
        bytes.extend_from_slice(&class.spec.to_le_bytes());
        bytes.extend_from_slice(class.items);
    }
    bytes
}

/// The classes of a record's value, by number and name; none where they are damaged.
pub fn ids(family: Family, value: &Value) -> Vec<(u32, String)> {
    let classes = classes(family, value.head()).unwrap_or_default();
    let row = |class: &Class<'_>| (class.id(), class.name());
    classes.iter().map(row).collect()
}

/// Whether what was written with this RDB version, by a server of this family, is of one that keeps
/// key metadata: a class that does not stand there was not there.
pub fn are_kept_by(family: Family, rdb_version: u16) -> bool {
    family == Family::Redis
        && rdb_version >= KEY_METADATA_SINCE
        && family_of_rdb_version(rdb_version) == Family::Redis
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::meaning::{self, Lenience};
    use crate::payload::{Examined, FieldFate, compact, decode, examine, lzf, refield, sign, walk};

    /// Of DUMP on Redis 8.6.3: a string "hello" with a text in the class MUST (version 1, flags 0)
    /// and one in MAYB (version 1, flags 1); each module wrote a string, a number, a double, a float.
    pub(crate) const DUMP: &str = "f3020893443105c30e2906776f726c642077e01705016c640281ffffffffffff\
        ffd704000000000000e03f030000c03f00090106300501780281ffffffffffffffff04000000000000e03f03\
        0000c03f00000568656c6c6f0d00932bb08f97334a7a";

    pub(crate) fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// A value with metadata of one class that holds this text.
    pub(crate) fn with(name: &[u8; 4], flags: u32, text: &[u8], value: &[u8]) -> Vec<u8> {
        let place = |letter: &u8| LETTERS.iter().position(|one| one == letter).unwrap() as u32;
        let name = name.iter().fold(0, |sum, letter| sum << 6 | place(letter));
        let mut bytes = vec![MARK, 1];
        bytes.extend_from_slice(&(name << 8 | 2 << 3 | flags).to_le_bytes());
        bytes.push(5);
        crate::payload::write::string(&mut bytes, text);
        bytes.push(0);
        [&bytes, value].concat()
    }

    fn named(family: Family, value: &[u8]) -> Vec<(String, u8, u8)> {
        let classes = classes(family, value).unwrap();
        let row = |class: &Class<'_>| (class.name(), class.version(), class.flags());
        classes.iter().map(row).collect()
    }

    #[test]
    fn what_a_server_wrote_is_read() {
        let dump = unhex(DUMP);
        let (body, version) = crate::payload::split(&dump).unwrap();
        assert_eq!(version, 13);
        let due = [("MUST".to_owned(), 1, 0), ("MAYB".to_owned(), 1, 1)];
        assert_eq!(named(Family::Redis, body), due);
        assert_eq!(plain(Family::Redis, body), b"\x00\x05hello");
        assert_eq!(kind(Family::Redis, &dump), Kind::String);
        let classes = classes(Family::Redis, body).unwrap();
        assert!(!classes[0].may_be_ignored() && classes[1].may_be_ignored());
        assert_eq!(names(&classes), "\"MUST\" and \"MAYB\"");
        assert_eq!(names(&classes[..1]), "\"MUST\"");
        // Every letter stands for itself.
        for name in [b"A_z-", b"0a9Z"] {
            let value = with(name, 7, b"", b"\x00\x01a");
            let due = String::from_utf8_lossy(name).into_owned();
            assert_eq!(named(Family::Redis, &value), [(due, 2, 7)]);
        }
    }

    #[test]
    fn a_value_is_seen_through_its_metadata() {
        let plain_value = b"\x02\x02\x01a\x01b";
        let value = with(b"Tags", 0, b"text", plain_value);
        let (family, lenient) = (Family::Redis, Lenience::default());
        assert_eq!(examine(family, &value), examine(family, plain_value));
        assert_eq!(decode(family, &value), decode(family, plain_value));
        assert_eq!(kind(family, &value), Kind::Set);
        assert_eq!(
            walk::walk(&mut Slice::new(&value), family),
            Ok(crate::payload::Encoding::Set)
        );
        let mut out = Vec::new();
        compact(&value, family, &mut out).unwrap();
        assert_eq!(out, value);
        let same = meaning::same_but(family, &value, Family::Valkey, plain_value, lenient);
        assert_eq!(same, Ok(None));
        // A module's value and an unknown one, each whole and cut.
        let module = b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x00";
        let value = with(b"Tags", 0, b"text", module);
        assert_eq!(examine(family, &value), Examined::Opaque);
        assert_eq!(
            crate::payload::module_name_of(family, &value),
            crate::payload::module_name_of(family, module)
        );
        let cut = examine(family, &value[..value.len() - 1]);
        assert!(matches!(cut, Examined::Damaged(_)), "{cut:?}");
        let unknown = with(b"Tags", 0, b"text", b"\x63abc");
        assert_eq!(examine(family, &unknown), Examined::Opaque);
    }

    /// Whatever is wrong with metadata is an error, and never memory for what is not there.
    #[test]
    fn damaged_metadata_are_damage() {
        let value = with(b"Tags", 0, b"text", b"\x00\x01a");
        for cut in 1..value.len() {
            let found = examine(Family::Redis, &value[..cut]);
            assert!(matches!(found, Examined::Damaged(_)), "{cut}: {found:?}");
        }
        let twice = with(b"Tags", 0, b"text", &value);
        assert_eq!(
            crate::payload::check(Family::Redis, &twice)
                .unwrap_err()
                .kind,
            ErrorKind::MetadataTwice
        );
        for (bad, due) in [
            // So many classes, and no more than one there.
            (
                [&[MARK, 0x80, 0xff, 0xff, 0xff, 0xff][..], &value[2..]].concat(),
                None,
            ),
            // An item of a kind that there is not.
            (
                vec![MARK, 1, 0, 0, 0, 0, 9, 0, 0, 1, b'a'],
                Some(ErrorKind::ModuleItem(9)),
            ),
            (vec![MARK, 0xc0, 1], Some(ErrorKind::EncodedLength)),
        ] {
            let found = crate::payload::check(Family::Redis, &bad).unwrap_err();
            assert!(due.is_none_or(|due| due == found.kind), "{found:?}");
            assert!(!found.is_opaque(), "{found:?}");
            assert_eq!(plain(Family::Redis, &bad), bad);
        }
        // Elsewhere F3 begins nothing that is known.
        for family in [Family::Valkey, Family::Other] {
            assert_eq!(examine(family, &value), Examined::Opaque);
            assert_eq!(plain(family, &value), value);
        }
    }

    #[test]
    fn they_are_left_out_where_that_is_allowed() {
        let (must, may) = (0, 1);
        let body = b"\x00\x01a".to_vec();
        let strip = |mut value: Value, allowed| {
            let done = strip(Family::Redis, &mut value, allowed);
            (done, value)
        };
        let value = with(b"Tags", may, b"text", &body);
        let stripped = Value::Compact(body.clone());
        let compact = Value::Compact(value.clone());
        assert_eq!(strip(compact, false), (Ok(true), stripped.clone()));
        let dump = Value::Verbatim(sign(&value, 13));
        let signed = Value::Verbatim(sign(&body, 13));
        assert_eq!(strip(dump, false), (Ok(true), signed.clone()));
        let value = with(b"Tags", must, b"text", &body);
        let dump = Value::Verbatim(sign(&value, 13));
        let needed = Err(NotStripped::Needed("\"Tags\"".to_owned()));
        assert_eq!(strip(dump.clone(), false), (needed, dump.clone()));
        assert_eq!(strip(dump, true), (Ok(true), signed));
        // Nothing is taken off what has none, and nothing is signed whose footer is wrong.
        assert_eq!(strip(stripped.clone(), true), (Ok(false), stripped));
        let (done, _) = strip(Value::Verbatim(value), true);
        assert!(matches!(done, Err(NotStripped::Damaged(_))), "{done:?}");
    }

    #[test]
    fn single_classes_are_left_out_and_asked_about() {
        let dump = unhex(DUMP);
        let family = Family::Redis;
        let is = |name: &'static str| move |class: &Class<'_>| class.name() == name;
        let named_in = |value: &Value| {
            let (body, version) = crate::payload::split(value.bytes()).unwrap();
            assert_eq!(version, 13);
            assert_eq!(plain(family, body), b"\x00\x05hello");
            named(family, body)
        };
        let mut value = Value::Verbatim(dump.clone());
        assert_eq!(strip_some(family, &mut value, false, is("None")), Ok(false));
        assert_eq!(value.bytes(), dump);
        let needed = Err(NotStripped::Needed("\"MUST\"".to_owned()));
        assert_eq!(strip_some(family, &mut value, false, is("MUST")), needed);
        assert_eq!(strip_some(family, &mut value, false, is("MAYB")), Ok(true));
        assert_eq!(named_in(&value), [("MUST".to_owned(), 1, 0)]);
        assert_eq!(strip_some(family, &mut value, true, is("MUST")), Ok(true));
        assert_eq!(named_in(&value), []);
        let (body, _) = crate::payload::split(&dump).unwrap();
        for class in classes(family, body).unwrap() {
            for may in [false, true] {
                let alone = class.alone(may);
                assert!(is_sound(&alone));
                assert_eq!(named(family, &alone), [(class.name(), 1, u8::from(may))]);
                assert_eq!(classes(family, &alone).unwrap()[0].items, class.items);
            }
        }
        assert!(are_kept_by(family, 13) && !are_kept_by(family, 12));
        assert!(!are_kept_by(family, 80) && !are_kept_by(Family::Valkey, 13));
    }

    #[test]
    fn they_stay_where_a_hash_gets_other_expiries() {
        // Type 24: lowest expiry, one field: 1 + its offset, "f", "v".
        let mut hash = vec![24];
        hash.extend_from_slice(&5_000_000_000_000_i64.to_le_bytes());
        hash.extend_from_slice(b"\x01\x01\x01f\x01v");
        let value = with(b"Tags", 0, b"text", &hash);
        let later = |at_ms| FieldFate::Expires(Some(at_ms + 1));
        let plain_done = refield(Family::Redis, &hash, later).unwrap().unwrap();
        let done = refield(Family::Redis, &value, later).unwrap().unwrap();
        assert_eq!(done.value, with(b"Tags", 0, b"text", &plain_done.value));
        let kept = Value::Compact(value);
        let last = |value: &Value| crate::payload::last_field_ms(Family::Redis, value);
        assert_eq!(last(&kept), last(&Value::Compact(hash)));
        assert!(last(&kept).is_some());
    }

    #[test]
    fn two_values_with_metadata_are_compared_class_by_class() {
        let family = Family::Redis;
        let plain_value = b"\x00\x01a".to_vec();
        let of = |text: &[u8]| with(b"Tags", 0, text, &plain_value);
        let differ = |left: &[u8], right: &[u8], metadata_must_stand| {
            let lenience = Lenience {
                metadata_must_stand,
                ..Lenience::default()
            };
            meaning::same_but(family, left, family, right, lenience)
                .unwrap()
                .map(|difference| difference.place)
        };
        let place = Some("key metadata \"Tags\"".to_owned());
        assert_eq!(differ(&of(b"one"), &of(b"two"), false), place);
        assert_eq!(differ(&of(b"one"), &of(b"one"), true), None);
        // Where one side has none, that is a difference only if it must stand there.
        for (flags, must_stand, due) in [
            (0, false, None),
            (1, false, None),
            (0, true, place.clone()),
            (1, true, place.clone()),
        ] {
            let left = with(b"Tags", flags, b"one", &plain_value);
            assert_eq!(differ(&left, &plain_value, must_stand), due);
            assert_eq!(differ(&plain_value, &left, must_stand), None);
            // What only the right side has is one where the left side would keep it.
            let lenience = Lenience {
                no_more_metadata: true,
                ..Lenience::default()
            };
            let same = |one: &[u8], other: &[u8]| {
                let differs = meaning::same_but(family, one, family, other, lenience);
                differs.unwrap().map(|difference| difference.place)
            };
            assert_eq!(same(&plain_value, &left), place.clone());
            assert_eq!(same(&left, &plain_value), None);
        }
        // However the strings in it are stored.
        let text = [b'x'; 264];
        let long = of(&text);
        let mut lzf = vec![0, b'x', 0xe0, 254, 0];
        assert_eq!(
            lzf::decompress(&lzf, text.len(), &mut Vec::new()),
            Ok(()),
            "the example expands"
        );
        let begin = long.len() - plain_value.len() - text.len() - 3;
        let mut packed = long[..begin].to_vec();
        packed.extend_from_slice(&[0xc3, lzf.len() as u8, 0x41, 0x08]);
        packed.append(&mut lzf);
        packed.extend_from_slice(&long[long.len() - plain_value.len() - 1..]);
        assert_ne!(packed, long);
        assert_eq!(differ(&packed, &long, true), None);
        // A difference in the value itself comes first.
        let other = with(b"Tags", 0, b"one", b"\x00\x01b");
        assert_eq!(differ(&of(b"one"), &other, false), Some(String::new()));
    }

    fn is_sound(value: &[u8]) -> bool {
        matches!(examine(Family::Redis, value), Examined::Sound(_))
    }

    proptest! {
        /// Whatever bytes come: nothing panics, and each way to look at them finds the same.
        #[test]
        fn any_bytes_are_metadata_or_damage(
            mut bytes in prop::collection::vec(any::<u8>(), 0..60),
            is_real in any::<bool>(),
            at in any::<prop::sample::Index>(),
        ) {
            if is_real {
                let (mut real, to) = (unhex(DUMP), at.index(DUMP.len() / 2));
                real.truncate(real.len() - crate::payload::FOOTER_LEN);
                let to = to.min(real.len() - 1);
                real[to] ^= bytes.first().copied().unwrap_or(1);
                bytes = real;
            } else {
                bytes.insert(0, MARK);
            }
            let family = Family::Redis;
            let split = split_metadata(family, &bytes);
            let all = classes(family, &bytes);
            if let Ok((metadata, value)) = split {
                prop_assert!(all.is_ok());
                prop_assert_eq!(bytes.len(), metadata.len() + value.len());
                prop_assert_eq!(is_sound(&bytes), is_sound(value));
                prop_assert_eq!(kind(family, &bytes), kind(family, value));
            } else {
                prop_assert!(matches!(examine(family, &bytes), Examined::Damaged(_)));
            }
            let mut value = Value::Compact(bytes.clone());
            if strip(family, &mut value, true) == Ok(true) {
                prop_assert_eq!(value.bytes(), plain(family, &bytes));
            }
            let same = meaning::same_but(family, &bytes, Family::Valkey, b"\x00\x01a", Lenience::default());
            prop_assert!(same.is_ok() || !is_sound(&bytes));
        }
    }
}
