//! The bytes that stand where a type byte could, and are none (rdb.h, RDB_OPCODE_*).

/// The end; from version 5 on eight bytes of checksum follow.
pub const EOF: u8 = 0xff;
/// A length: the database of the keys that follow.
pub const SELECT_DB: u8 = 0xfe;
/// Four bytes: expiry of the next key in seconds. No server since 2.6 writes it.
pub const EXPIRE_SECONDS: u8 = 0xfd;
/// Eight bytes: expiry of the next key in milliseconds (version 3).
pub const EXPIRE_MS: u8 = 0xfc;
/// Two lengths: how many keys the database has, and how many of them expire (version 7).
pub const RESIZE_DB: u8 = 0xfb;
/// Two strings: a field of the file's own (version 7). Unknown ones are to be ignored.
pub const AUX: u8 = 0xfa;
/// One byte: LFU counter of the next key (version 9).
pub const FREQUENCY: u8 = 0xf9;
/// A length: idle seconds of the next key (version 9).
pub const IDLE: u8 = 0xf8;
/// Data of a module that belongs to no key (version 9).
pub const MODULE_AUX: u8 = 0xf7;
/// A function library as release candidates of 7.0 wrote it: name, engine, a length that says whether
/// a description follows, that, and the source. Redis 7.0 and later load it.
pub const FUNCTION_PRE_GA: u8 = 0xf6;
/// A string: the source of a function library (version 10).
pub const FUNCTION: u8 = 0xf5;
/// Three lengths: a slot, its keys, and how many of them expire (Redis 7.4, Valkey 8; clusters).
pub const SLOT_INFO: u8 = 0xf4;
/// Of Valkey (80): a string and a list of pairs of lengths, slots that were on their way here. Redis
/// uses the same byte for something else (13).
pub const VALKEY_SLOT_IMPORT: u8 = 0xf3;
