//! The RDB type bytes (rdb.h), and what they mean in which family. Each type is one row of the table;
//! what is to be known of it anywhere stands there.

use super::kind::Kind;
use super::layout::Part::{Eight, Length, ShortText, Text};
use super::layout::{Counted, Each, Layout, Memory, StreamForm};
use super::{Family, Release, oldest_with_rdb_version};

/// What the table says of a type.
#[derive(Debug)]
struct Row {
    /// The type byte.
    byte: u8,
    /// Whose it is alone; `None` where it means the same everywhere.
    family: Option<Family>,
    /// The RDB version that brought it.
    since: u16,
    /// How it is known.
    evidence: Evidence,
    /// What it is to a user.
    kind: Kind,
    /// What its body is made of.
    layout: Layout,
    /// Its layout, for people.
    words: &'static str,
    /// What a value may be rewritten to where this form is not read, best first. What each of them
    /// cannot hold is a loss that is named.
    rewritten_to: &'static [Encoding],
    /// What it takes in a server.
    memory: Memory,
    /// The body of one value, as small as can be, to try destinations with. Strings are "a" and "b",
    /// numbers 1, expiries in the year 6429. Empty where nothing outside a file or a module can
    /// read it.
    sample: &'static [u8],
}

/// How a type is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// A real server of the tests wrote and read it.
    Tested,
    /// Only release candidates wrote it, and the tests have such values. They are always rewritten.
    ReleaseCandidates,
    /// Published sources. No server was there to try.
    FromSources,
}

/// Hashes whose fields can expire.
const HASHES_TTL: &[Encoding] = &[
    Encoding::RedisHashTtl,
    Encoding::ValkeyHashTtl,
    Encoding::Hash,
];

/// Streams of this form and those below: none is written higher than it was read.
const fn streams(form: usize) -> &'static [Encoding] {
    const DOWN: &[Encoding] = &[
        Encoding::Stream5,
        Encoding::Stream4,
        Encoding::Stream3,
        Encoding::Stream2,
        Encoding::Stream1,
    ];
    DOWN.split_at(DOWN.len() - form).1
}

/// Makes the enum, the list of all and the table out of the rows: doc, name, and the fields of `Row`.
macro_rules! encodings {
    ($( $(#[$doc:meta])* $name:ident { $($row:tt)* } )*) => {
        /// How a value is laid out. Up to 21 the type bytes mean the same everywhere; from there on
        /// Redis and Valkey count for themselves.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Encoding { $( $(#[$doc])* $name, )* }

        impl Encoding {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[ $( Self::$name, )* ];
        }

        /// By the number of the variant.
        static ROWS: [Row; Encoding::ALL.len()] = [ $( Row { $($row)* }, )* ];
    };
}

encodings! {
    /// 0: one string.
    String {
        byte: 0, family: None, since: 1, evidence: Evidence::Tested,
        kind: Kind::String, layout: Layout::Text, words: "a string",
        rewritten_to: &[Encoding::String], memory: Memory::String,
        sample: b"\x01a",
    }
    /// 1: elements.
    List {
        byte: 1, family: None, since: 1, evidence: Evidence::Tested,
        kind: Kind::List, layout: Layout::Rows(&[Text]), words: "strings",
        rewritten_to: &[Encoding::List], memory: Memory::List,
        sample: b"\x01\x01a",
    }
    /// 2: members.
    Set {
        byte: 2, family: None, since: 1, evidence: Evidence::Tested,
        kind: Kind::Set, layout: Layout::Rows(&[Text]), words: "strings",
        rewritten_to: &[Encoding::Set], memory: Memory::Table(Each::Member, 0),
        sample: b"\x01\x01a",
    }
    /// 3: members with scores as text.
    ZSetText {
        byte: 3, family: None, since: 1, evidence: Evidence::Tested,
        kind: Kind::ZSet, layout: Layout::Rows(&[Text, ShortText]), words: "strings, scores as text",
        rewritten_to: &[Encoding::ZSet], memory: Memory::Table(Each::Scored, 0),
        sample: b"\x01\x01a\x011",
    }
    /// 4: fields and values.
    Hash {
        byte: 4, family: None, since: 1, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::Rows(&[Text, Text]), words: "strings",
        rewritten_to: &[Encoding::Hash], memory: Memory::Table(Each::Field, 0),
        sample: b"\x01\x01a\x01b",
    }
    /// 5 (4.0): members with scores as eight bytes.
    ZSet {
        byte: 5, family: None, since: 8, evidence: Evidence::Tested,
        kind: Kind::ZSet, layout: Layout::Rows(&[Text, Eight]), words: "strings, scores as doubles",
        rewritten_to: &[Encoding::ZSet], memory: Memory::Table(Each::Scored, 0),
        sample: b"\x01\x01a\0\0\0\0\0\0\xf0\x3f",
    }
    /// 7 (4.0): items that only the module understands, each of a known length.
    Module {
        byte: 7, family: None, since: 8, evidence: Evidence::Tested,
        kind: Kind::Module, layout: Layout::Module, words: "the module's own",
        rewritten_to: &[], memory: Memory::Packed(Counted::Unknown),
        sample: b"",
    }
    /// 9: a zipmap.
    HashZipmap {
        byte: 9, family: None, since: 2, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::Text, words: "a zipmap",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Unknown),
        sample: b"\x07\x01\x01a\x01\0b\xff",
    }
    /// 10: a ziplist.
    ListZiplist {
        byte: 10, family: None, since: 2, evidence: Evidence::Tested,
        kind: Kind::List, layout: Layout::Text, words: "a ziplist",
        rewritten_to: &[Encoding::List], memory: Memory::Packed(Counted::Ziplist(1)),
        sample: b"\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff",
    }
    /// 11: an intset.
    SetIntset {
        byte: 11, family: None, since: 2, evidence: Evidence::Tested,
        kind: Kind::Set, layout: Layout::Text, words: "an intset",
        rewritten_to: &[Encoding::Set], memory: Memory::Packed(Counted::Intset),
        sample: b"\x0a\x02\0\0\0\x01\0\0\0\x01\0",
    }
    /// 12: a ziplist of members and scores.
    ZSetZiplist {
        byte: 12, family: None, since: 2, evidence: Evidence::Tested,
        kind: Kind::ZSet, layout: Layout::Text, words: "a ziplist",
        rewritten_to: &[Encoding::ZSet], memory: Memory::Packed(Counted::Ziplist(2)),
        sample: b"\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
    }
    /// 13: a ziplist of fields and values.
    HashZiplist {
        byte: 13, family: None, since: 4, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::Text, words: "a ziplist",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Ziplist(2)),
        sample: b"\x11\x11\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\x01b\xff",
    }
    /// 14 (3.2): ziplists.
    ListQuicklist {
        byte: 14, family: None, since: 7, evidence: Evidence::Tested,
        kind: Kind::List, layout: Layout::Rows(&[Text]), words: "a quicklist of ziplists",
        rewritten_to: &[Encoding::List], memory: Memory::Quicklist,
        sample: b"\x01\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff",
    }
    /// 15 (5.0): listpacks of entries, last id, groups.
    Stream1 {
        byte: 15, family: None, since: 9, evidence: Evidence::Tested,
        kind: Kind::Stream, layout: Layout::Stream(StreamForm::V1), words: "listpacks and groups",
        rewritten_to: streams(1), memory: Memory::Stream,
        sample: b"\0\0\0\0\0",
    }
    /// 16 (7.0): a listpack of fields and values.
    HashListpack {
        byte: 16, family: None, since: 10, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::Listpack, words: "a listpack",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Listpack(2)),
        sample: b"\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff",
    }
    /// 17 (7.0): a listpack of members and scores.
    ZSetListpack {
        byte: 17, family: None, since: 10, evidence: Evidence::Tested,
        kind: Kind::ZSet, layout: Layout::Listpack, words: "a listpack",
        rewritten_to: &[Encoding::ZSet], memory: Memory::Packed(Counted::Listpack(2)),
        sample: b"\x0c\x0c\0\0\0\x02\0\x81a\x02\x01\x01\xff",
    }
    /// 18 (7.0): listpacks and plain elements.
    ListQuicklist2 {
        byte: 18, family: None, since: 10, evidence: Evidence::Tested,
        kind: Kind::List, layout: Layout::Nodes, words: "a quicklist of listpacks",
        rewritten_to: &[Encoding::List], memory: Memory::Quicklist,
        sample: b"\x01\x02\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
    }
    /// 19 (7.0): as 15, with first id, highest deleted id, entries added and entries read.
    Stream2 {
        byte: 19, family: None, since: 10, evidence: Evidence::Tested,
        kind: Kind::Stream, layout: Layout::Stream(StreamForm::V2), words: "the same, with entries added and read",
        rewritten_to: streams(2), memory: Memory::Stream,
        sample: b"\0\0\0\0\0\0\0\0\0\0",
    }
    /// 20 (7.2): a listpack of members.
    SetListpack {
        byte: 20, family: None, since: 11, evidence: Evidence::Tested,
        kind: Kind::Set, layout: Layout::Listpack, words: "a listpack",
        rewritten_to: &[Encoding::Set], memory: Memory::Packed(Counted::Listpack(1)),
        sample: b"\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
    }
    /// 21 (7.2): as 19, with the consumers' active times.
    Stream3 {
        byte: 21, family: None, since: 11, evidence: Evidence::Tested,
        kind: Kind::Stream, layout: Layout::Stream(StreamForm::V3), words: "the same, with active times",
        rewritten_to: streams(3), memory: Memory::Stream,
        sample: b"\0\0\0\0\0\0\0\0\0\0",
    }
    /// 22 of Redis: absolute expiry, field, value. Only release candidates of 7.4 wrote it.
    RedisHashTtlRc {
        byte: 22, family: Some(Family::Redis), since: 12, evidence: Evidence::ReleaseCandidates,
        kind: Kind::Hash, layout: Layout::Rows(&[Length, Text, Text]), words: "field expiry, release candidates",
        rewritten_to: HASHES_TTL, memory: Memory::Table(Each::Field, 0),
        sample: b"\x01\0\x01a\x01b",
    }
    /// 23 of Redis: a listpack of field, value, absolute expiry. Release candidates of 7.4.
    RedisHashListpackTtlRc {
        byte: 23, family: Some(Family::Redis), since: 12, evidence: Evidence::ReleaseCandidates,
        kind: Kind::Hash, layout: Layout::Listpack, words: "a listpack, field expiry, release candidates",
        rewritten_to: HASHES_TTL, memory: Memory::Packed(Counted::Listpack(3)),
        sample: b"\x17\x17\0\0\0\x03\0\x81a\x02\x81b\x02\xf4\0\0\0\0\0\x80\0\0\x09\xff",
    }
    /// 24 of Redis (7.4): lowest expiry, then expiry relative to it, field, value.
    RedisHashTtl {
        byte: 24, family: Some(Family::Redis), since: 12, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::EightRows(&[Length, Text, Text]), words: "strings, field expiry",
        rewritten_to: HASHES_TTL, memory: Memory::Table(Each::Field, 8),
        sample: b"\0\0\0\0\0\x80\0\0\x01\x01\x01a\x01b",
    }
    /// 25 of Redis (7.4): lowest expiry, then a listpack of field, value, absolute expiry.
    RedisHashListpackTtl {
        byte: 25, family: Some(Family::Redis), since: 12, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::EightListpack, words: "a listpack, field expiry",
        rewritten_to: HASHES_TTL, memory: Memory::Packed(Counted::Unknown),
        sample:
            b"\0\0\0\0\0\x80\0\0\x17\x17\0\0\0\x03\0\x81a\x02\x81b\x02\xf4\0\0\0\0\0\x80\0\0\x09\xff",
    }
    /// 22 of Valkey (9.0): field, value, absolute expiry.
    ValkeyHashTtl {
        byte: 22, family: Some(Family::Valkey), since: 80, evidence: Evidence::Tested,
        kind: Kind::Hash, layout: Layout::Rows(&[Text, Text, Eight]), words: "strings, field expiry",
        rewritten_to: HASHES_TTL, memory: Memory::Table(Each::Field, 0),
        sample: b"\x01\x01a\x01b\0\0\0\0\0\x80\0\0",
    }
    /// 23 of Valkey (9.2): paths, each with fields and values.
    ValkeyPathHash {
        byte: 23, family: Some(Family::Valkey), since: 81, evidence: Evidence::FromSources,
        kind: Kind::PathHash, layout: Layout::Paths, words: "paths, each with fields and values",
        rewritten_to: &[], memory: Memory::AsStored,
        sample: b"\x01\x01p\x01\x01a\x01b",
    }
    /// 26 of Redis (8.6): as 21, with the idempotency state of XADD IDMP.
    Stream4 {
        byte: 26, family: Some(Family::Redis), since: 13, evidence: Evidence::Tested,
        kind: Kind::Stream, layout: Layout::Stream(StreamForm::V4), words: "the same, with idempotency",
        rewritten_to: streams(4), memory: Memory::Stream,
        sample: b"\0\0\0\0\0\0\0\0\0\0\x40\x64\x40\x64\0\0\0",
    }
    /// 27 of Redis (8.8): as 26, with the entries of each group that XNACK gave back.
    Stream5 {
        byte: 27, family: Some(Family::Redis), since: 14, evidence: Evidence::FromSources,
        kind: Kind::Stream, layout: Layout::Stream(StreamForm::V5), words: "the same, with entries given back",
        rewritten_to: streams(5), memory: Memory::Stream,
        sample: b"\0\0\0\0\0\0\0\0\0\0\x40\x64\x40\x64\0\0\0",
    }
    /// 28 of Redis (8.8): indexes and values of a sparse array.
    RedisArray {
        byte: 28, family: Some(Family::Redis), since: 14, evidence: Evidence::FromSources,
        kind: Kind::Array, layout: Layout::Array, words: "indexes and values",
        rewritten_to: &[], memory: Memory::Table(Each::Index, 0),
        sample: b"\x01\0\0\0\x01a",
    }
    /// 29 of Redis (8.10): names of fields, then a listpack of values.
    RedisTemplateListpack {
        byte: 29, family: Some(Family::Redis), since: 15, evidence: Evidence::FromSources,
        kind: Kind::Hash, layout: Layout::Template, words: "fields, a listpack of values",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Unknown),
        sample: b"\x01\x01\x01a\x0c\x0c\0\0\0\x02\0\0\x01\x81b\x02\xff",
    }
    /// 30 of Redis (8.10), in files only: a listpack of a template's number and values.
    RedisTemplateListpackRef {
        byte: 30, family: Some(Family::Redis), since: 15, evidence: Evidence::FromSources,
        kind: Kind::Hash, layout: Layout::TemplateRef, words: "a template's number, values",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Unknown),
        sample: b"",
    }
    /// 31 of Redis (8.10): names of fields, then values.
    RedisTemplateTable {
        byte: 31, family: Some(Family::Redis), since: 15, evidence: Evidence::FromSources,
        kind: Kind::Hash, layout: Layout::Template, words: "fields, values",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Unknown),
        sample: b"\x01\x01\x01a\x01b",
    }
    /// 32 of Redis (8.10), in files only: a template's number, then values.
    RedisTemplateTableRef {
        byte: 32, family: Some(Family::Redis), since: 15, evidence: Evidence::FromSources,
        kind: Kind::Hash, layout: Layout::TemplateRef, words: "a template's number, values",
        rewritten_to: &[Encoding::Hash], memory: Memory::Packed(Counted::Unknown),
        sample: b"",
    }
}

/// What each type byte means in a family.
const fn by_byte(family: Family) -> [Option<Encoding>; 256] {
    let mut meanings = [None; 256];
    let mut at = 0;
    while at < Encoding::ALL.len() {
        let row = &ROWS[at];
        let is_theirs = match row.family {
            None => true,
            Some(Family::Redis) => matches!(family, Family::Redis),
            Some(Family::Valkey) => matches!(family, Family::Valkey),
            Some(Family::Other) => matches!(family, Family::Other),
        };
        if is_theirs {
            assert!(
                meanings[row.byte as usize].is_none(),
                "one type byte, two rows"
            );
            meanings[row.byte as usize] = Some(Encoding::ALL[at]);
        }
        at += 1;
    }
    meanings
}

impl Encoding {
    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// What a type byte of this family means; nothing where that is unknown.
    pub fn of(family: Family, type_byte: u8) -> Option<Self> {
        static REDIS: [Option<Encoding>; 256] = by_byte(Family::Redis);
        static VALKEY: [Option<Encoding>; 256] = by_byte(Family::Valkey);
        static OTHER: [Option<Encoding>; 256] = by_byte(Family::Other);
        let meanings = match family {
            Family::Redis => &REDIS,
            Family::Valkey => &VALKEY,
            Family::Other => &OTHER,
        };
        meanings[usize::from(type_byte)]
    }

    /// The type byte.
    pub fn type_byte(self) -> u8 {
        self.row().byte
    }

    /// The RDB version that brought it.
    pub fn since(self) -> u16 {
        self.row().since
    }

    /// The first server that has it, for people: `Redis 8.8`.
    pub fn brought_by(self) -> String {
        let release = oldest_with_rdb_version(self.since());
        release.map_or_else(String::new, Release::title)
    }

    /// Whose it is alone; `None` for those that mean the same everywhere.
    pub fn family(self) -> Option<Family> {
        self.row().family
    }

    /// What its body is made of.
    pub(crate) fn layout(self) -> Layout {
        self.row().layout
    }

    /// Its layout, for people: `a quicklist of ziplists`.
    pub fn words(self) -> &'static str {
        self.row().words
    }

    /// What a value takes in a server's memory, to estimate it by.
    pub fn memory(self) -> Memory {
        self.row().memory
    }

    /// Whether fields of such a hash can expire by themselves: it is rewritten to a form that says so.
    pub(crate) fn has_field_ttls(self) -> bool {
        self.rewritten_to().contains(&Self::RedisHashTtl)
    }

    /// Whether only release candidates wrote it. Such values are always rewritten.
    pub(crate) fn is_of_release_candidates(self) -> bool {
        self.row().evidence == Evidence::ReleaseCandidates
    }

    /// Whether it can stand in a DUMP payload. A reference needs a template of its file.
    pub(crate) fn in_payloads(self) -> bool {
        self.layout() != Layout::TemplateRef
    }

    /// Whether a hash goes by a template, its own or one of its file.
    pub fn is_templated(self) -> bool {
        matches!(self.layout(), Layout::Template | Layout::TemplateRef)
    }

    /// Whether a real server of the tests wrote and read it. The others were read about.
    pub fn is_proven(self) -> bool {
        self.row().evidence != Evidence::FromSources
    }

    /// What a value may be rewritten to where this form is not read, best first.
    pub(crate) fn rewritten_to(self) -> &'static [Self] {
        self.row().rewritten_to
    }

    /// What it is to a user.
    pub fn kind(self) -> Kind {
        self.row().kind
    }

    /// The body of a small value. Empty for modules and for what stands in files only.
    pub(crate) fn sample(self) -> &'static [u8] {
        self.row().sample
    }

    /// Whether a destination is asked for it with a sample: not for modules, because there are servers
    /// that exit, not for what stands in files only, and not for what is always rewritten.
    pub(crate) fn is_probed(self) -> bool {
        self.layout() != Layout::Module && self.in_payloads() && !self.is_of_release_candidates()
    }
}

/// Type byte of a module's value as release candidates of 4.0 wrote it; how it ends only the module
/// knows.
pub const MODULE_PRE_GA: u8 = 6;

/// Whether a type byte means the same in every family, as far as it means anything.
pub const fn is_common(type_byte: u8) -> bool {
    type_byte < 22
}

/// What a value of this type byte is to a user.
pub fn kind_of(family: Family, type_byte: u8) -> Kind {
    match type_byte {
        MODULE_PRE_GA => Kind::Module,
        _ => Encoding::of(family, type_byte).map_or(Kind::Unknown, Encoding::kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_bytes_go_both_ways() {
        for family in [Family::Redis, Family::Valkey, Family::Other] {
            for byte in 0..=255 {
                if let Some(encoding) = Encoding::of(family, byte) {
                    assert_eq!(encoding.type_byte(), byte);
                    assert_eq!(kind_of(family, byte), encoding.kind());
                }
            }
        }
    }

    #[test]
    fn from_22_on_the_family_decides() {
        assert_eq!(
            Encoding::of(Family::Redis, 22),
            Some(Encoding::RedisHashTtlRc)
        );
        assert_eq!(
            Encoding::of(Family::Valkey, 22),
            Some(Encoding::ValkeyHashTtl)
        );
        assert_eq!(Encoding::of(Family::Other, 22), None);
        assert_eq!(Encoding::of(Family::Valkey, 25), None);
        assert_eq!(kind_of(Family::Valkey, 26), Kind::Unknown);
        assert_eq!(kind_of(Family::Redis, 26).name(), "stream");
        assert_eq!(Encoding::RedisArray.brought_by(), "Redis 8.8");
        assert_eq!(Encoding::ValkeyPathHash.brought_by(), "Valkey 9.2");
        for &encoding in Encoding::ALL {
            let family = encoding.family().unwrap_or(Family::Other);
            assert_eq!(Encoding::of(family, encoding.type_byte()), Some(encoding));
        }
    }
}
