//! The bytes that stand in an RDB file where a type byte could, and are none (rdb.h, RDB_OPCODE_*).

use super::Family;

/// What such a byte means in its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// FF: the end; from version 5 on eight bytes of checksum follow.
    Eof,
    /// FE, a length: the database of the keys that follow.
    SelectDb,
    /// FD, four bytes: expiry of the next key in seconds. No server since 2.6 writes it.
    ExpireSeconds,
    /// FC, eight bytes: expiry of the next key in milliseconds (version 3).
    ExpireMs,
    /// FB, two lengths: how many keys the database has, and how many of them expire (version 7).
    ResizeDb,
    /// FA, two strings: a field of the file's own (version 7). Unknown ones are to be ignored.
    Aux,
    /// F9, one byte: LFU counter of the next key (version 9).
    Frequency,
    /// F8, a length: idle seconds of the next key (version 9).
    Idle,
    /// F7: data of a module that belongs to no key (version 9).
    ModuleAux,
    /// F6: a function library as release candidates of 7.0 wrote it: name, engine, a length that says
    /// whether a description follows, that, and the source. Redis 7.0 and later load it.
    FunctionPreGa,
    /// F5, a string: the source of a function library (version 10).
    Function,
    /// F4, three lengths: a slot, its keys, and how many of them expire (Redis 7.4, Valkey 8;
    /// clusters).
    SlotInfo,
    /// F3 of Redis (13): metadata of modules for the next key, between its expiry and its type byte;
    /// in DUMP payloads before the type byte as well.
    KeyMetadata,
    /// F3 of Valkey (80): a string and a list of pairs of lengths, slots that were on their way here.
    SlotImport,
    /// F2 of Redis (15): the fields of hashes that refer to it by number.
    HashTemplate,
    /// F2 of Valkey (81): a command that was carried out while the snapshot was sent.
    Update,
}

impl Opcode {
    /// What a byte means in an RDB file of this family; `None` for type bytes and unknown ones.
    pub fn of(family: Family, byte: u8) -> Option<Self> {
        Some(match (byte, family) {
            (0xff, _) => Self::Eof,
            (0xfe, _) => Self::SelectDb,
            (0xfd, _) => Self::ExpireSeconds,
            (0xfc, _) => Self::ExpireMs,
            (0xfb, _) => Self::ResizeDb,
            (0xfa, _) => Self::Aux,
            (0xf9, _) => Self::Frequency,
            (0xf8, _) => Self::Idle,
            (0xf7, _) => Self::ModuleAux,
            (0xf6, _) => Self::FunctionPreGa,
            (0xf5, _) => Self::Function,
            (0xf4, _) => Self::SlotInfo,
            (0xf3, Family::Redis) => Self::KeyMetadata,
            (0xf3, Family::Valkey) => Self::SlotImport,
            (0xf2, Family::Redis) => Self::HashTemplate,
            (0xf2, Family::Valkey) => Self::Update,
            _ => return None,
        })
    }

    /// The RDB version that brought it, of those whose byte means something else in each family; 1 for
    /// the others, which are read in files of any version.
    pub const fn since(self) -> u16 {
        match self {
            Self::KeyMetadata => KEY_METADATA_SINCE,
            Self::HashTemplate => HASH_TEMPLATE_SINCE,
            Self::SlotImport => SLOT_IMPORT_SINCE,
            Self::Update => UPDATE_SINCE,
            _ => 1,
        }
    }

    /// The byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Eof => 0xff,
            Self::SelectDb => 0xfe,
            Self::ExpireSeconds => 0xfd,
            Self::ExpireMs => 0xfc,
            Self::ResizeDb => 0xfb,
            Self::Aux => 0xfa,
            Self::Frequency => 0xf9,
            Self::Idle => 0xf8,
            Self::ModuleAux => 0xf7,
            Self::FunctionPreGa => 0xf6,
            Self::Function => 0xf5,
            Self::SlotInfo => 0xf4,
            Self::KeyMetadata | Self::SlotImport => 0xf3,
            Self::HashTemplate | Self::Update => 0xf2,
        }
    }
}

/// The first RDB version whose files end with a checksum.
pub(crate) const CHECKSUM_SINCE: u16 = 5;
/// The first RDB version that has [`Opcode::Aux`] and [`Opcode::ResizeDb`].
pub(crate) const AUX_SINCE: u16 = 7;
/// The first RDB version that has [`Opcode::Idle`] and [`Opcode::Frequency`].
pub(crate) const EVICTION_SINCE: u16 = 9;
/// The first RDB version that has [`Opcode::Function`].
pub const FUNCTION_SINCE: u16 = 10;
/// The first RDB version that has [`Opcode::Update`].
pub(crate) const UPDATE_SINCE: u16 = 81;
/// The first RDB version that has [`Opcode::ModuleAux`].
pub const MODULE_AUX_SINCE: u16 = 9;
/// The first RDB version of Redis that has [`Opcode::KeyMetadata`].
pub(crate) const KEY_METADATA_SINCE: u16 = 13;
/// The first RDB version of Redis that has [`Opcode::HashTemplate`].
pub(crate) const HASH_TEMPLATE_SINCE: u16 = 15;
/// The first RDB version of Valkey that has [`Opcode::SlotImport`].
pub(crate) const SLOT_IMPORT_SINCE: u16 = 80;
