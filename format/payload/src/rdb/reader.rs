//! Reading RDB, one thing at a time.
//!
//! Fail-closed: what a version is not known to hold is an error, never skipped, because nothing in
//! the format says how long an unknown thing is. The end is believed only with its mark and, where
//! there is one, its checksum.

use std::io::Read;

use redis_migrate_format::ModuleAux;
use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Value};

use super::error::{Fault, RdbError, RdbErrorKind};
use super::input::{Input, Take};
use super::magic::{MAGIC_LEN, Magic, begins_like_rdb};
use super::taken;
use super::templates::Templates;
use crate::dialect::{MODULE_PRE_GA, Opcode};
use crate::payload::{self, walk, write};

/// Room for a value that is kept between values; a larger one is given away with its value.
const KEPT_BYTES: usize = 64 * 1024;

/// Characters of the name of a slot import (cluster_migrateslots.c, the length of a node's name).
const SLOT_IMPORT_JOB_LEN: u64 = 40;

/// What modules keep beside the next key, as it stands in the file; empty for most keys.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    /// They are larger than a value may be, and were not kept.
    is_over: bool,
}

/// In which form values are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// [`Value::Compact`]: compressed strings expanded. Values of modules are verbatim all the same.
    #[default]
    Compact,
    /// [`Value::Verbatim`]: the DUMP payload that the server would give.
    Verbatim,
}

/// What an RDB file says of itself, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its first bytes.
    pub magic: Magic,
    /// Whose type bytes: by the magic, or by the field `valkey-ver`.
    pub family: Family,
    /// `redis-ver` or `valkey-ver`; empty where neither stands.
    pub server_version: String,
    /// `ctime`, the moment it was begun, in Unix ms.
    pub created_ms: Option<u64>,
    /// `used-mem`, bytes.
    pub used_memory: Option<u64>,
    /// `aof-base`: it is the base of an append-only file, whose later parts hold what was written
    /// since.
    pub is_aof_base: bool,
    /// `redis-migrate-not-of-one-instant`: made of data that were read while they changed.
    pub is_not_of_one_instant: bool,
    /// `redis-migrate-not-whole`: something was left out of it.
    pub is_not_whole: bool,
    /// `redis-migrate-from-ms`: nothing in it was read before that, Unix ms.
    pub from_ms: Option<u64>,
    /// `redis-migrate-to-ms`: nothing in it was read after that, Unix ms.
    pub to_ms: Option<u64>,
    /// Hashes that named their fields by templates. They are given as plain ones.
    pub templated_hashes: u64,
    /// Modules that left data of their own, which belongs to no key.
    pub module_aux: Vec<String>,
}

/// What the checksum at the end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// That of the bytes; of what is compressed as a whole that of its frame.
    Verified,
    /// Not computed by the server (`rdbchecksum no`).
    Disabled,
    /// Versions before 5 have none.
    None,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A field of the file's own; those that matter are in [`Facts`] too.
    Aux {
        /// Name.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
    },
    /// The keys that follow belong to this database.
    Database(u32),
    /// How many keys it has: a hint.
    Sizes {
        /// Keys.
        keys: u64,
        /// Of those, keys that expire.
        expires: u64,
    },
    /// A function library as it stands in a FUNCTION DUMP: opcode and string.
    Function(Vec<u8>),
    /// Data of a module that belongs to no key.
    ModuleAux(ModuleAux),
    /// The same, larger than [`RdbReader::within`] allows or an archive holds; it was passed over.
    ModuleAuxTooLarge(String),
    /// A module said that it has no data of its own.
    NoModuleAux(String),
    /// A key.
    Key(KeyRecord),
    /// A key that was not wanted; its value was passed over.
    Unwanted {
        /// Database.
        db: u32,
    },
    /// A key whose value, or name, is larger than [`RdbReader::within`] allows; it was passed over.
    TooLarge {
        /// Database.
        db: u32,
        /// Its name; `None` if that is what is too large.
        key: Option<Vec<u8>>,
    },
    /// A function library that is larger than [`RdbReader::within`] allows; it was passed over.
    FunctionTooLarge,
}

/// What stands behind the end of a file and means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The 40 characters by which a server that sends a snapshot without its length marks the end.
    /// `redis-cli --rdb -` writes them out.
    EndMark,
    /// A line end.
    LineEnd,
    /// Anything behind the frame of data that are compressed as a whole.
    BehindFrame,
}

/// Bytes by which RDB data are told from others.
const LONGEST_BEGINNING: u64 = 6;
/// Characters of a replication end mark (replication.h, CONFIG_RUN_ID_SIZE).
const END_MARK_LEN: usize = 40;

/// Reads an RDB file or stream.
pub struct RdbReader<R: Read> {
    input: Input<R>,
    facts: Facts,
    form: Form,
    max_value_bytes: u64,
    db: u32,
    /// Of the next key, whatever stands before it: so does rdb.c (rdbLoadRioWithLoadingCtx).
    expire_at_ms: Option<u64>,
    eviction: Option<Eviction>,
    last_key: Option<(u32, Vec<u8>)>,
    scratch: Vec<u8>,
    /// Of the next key.
    metadata: Metadata,
    templates: Templates,
    checksum: Option<Checksum>,
}

impl<R: Read> RdbReader<R> {
    /// Begins to read; the magic is checked.
    ///
    /// # Errors
    /// No RDB file, one of an unknown version, or those of `reader`.
    pub fn new(reader: R, form: Form) -> Result<Self, RdbError> {
        let first = |Fault { offset, kind }| RdbError {
            offset,
            last_key: None,
            kind,
        };
        let mut input = Input::new(reader);
        let mut bytes = [0; MAGIC_LEN];
        for at in 0..MAGIC_LEN {
            bytes[at] = input.byte().map_err(first)?;
            // At the first byte that cannot be, so that a short stranger is not called cut short.
            let begins = |name: &[u8]| name.starts_with(&bytes[..name.len().min(at + 1)]);
            if !begins(b"REDIS") && !begins(b"VALKEY") {
                return Err(first(Fault {
                    offset: 0,
                    kind: RdbErrorKind::NotRdb,
                }));
            }
        }
        let kind = match Magic::parse(&bytes) {
            Some(magic) if magic.is_readable() => {
                return Ok(Self {
                    input,
                    facts: Facts {
                        magic,
                        family: magic.family,
                        server_version: String::new(),
                        created_ms: None,
                        used_memory: None,
                        is_aof_base: false,
                        is_not_of_one_instant: false,
                        is_not_whole: false,
                        from_ms: None,
                        to_ms: None,
                        templated_hashes: 0,
                        module_aux: Vec::new(),
                    },
                    form,
                    max_value_bytes: u64::MAX,
                    db: 0,
                    expire_at_ms: None,
                    eviction: None,
                    last_key: None,
                    scratch: Vec::new(),
                    metadata: Metadata::default(),
                    templates: Templates::default(),
                    checksum: None,
                });
            }
            Some(magic) => RdbErrorKind::Version(magic),
            None => RdbErrorKind::NotRdb,
        };
        Err(first(Fault { offset: 0, kind }))
    }

    /// Values that take more bytes are passed over ([`Event::TooLarge`]), and names, fields and
    /// libraries, too: no more than that is ever held in memory of any of them.
    #[must_use]
    pub fn within(self, max_value_bytes: u64) -> Self {
        Self {
            max_value_bytes,
            ..self
        }
    }

    /// What is known of the file so far.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the values of the file share. Right from the first key on, when all fields were read.
    pub fn context(&self) -> Context {
        Context {
            source_time_ms: self.facts.created_ms.unwrap_or(0),
            family: self.facts.family,
            rdb_version: self.facts.magic.version,
            node: 0,
        }
    }

    /// The database at hand.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// Bytes read.
    pub fn offset(&self) -> u64 {
        self.input.position()
    }

    /// What the checksum was, once the end was reached.
    pub fn checksum(&self) -> Option<Checksum> {
        self.checksum
    }

    /// The next event; `None` at the end, which is proved.
    ///
    /// # Errors
    /// Whatever makes the rest unreadable.
    pub fn next_event(&mut self) -> Result<Option<Event>, RdbError> {
        self.next_wanted(|_, _, _| true)
    }

    /// As [`Self::next_event`]; the values of keys that are not wanted (by database, name, type byte) are
    /// passed over, not kept.
    ///
    /// # Errors
    /// See [`Self::next_event`].
    pub fn next_wanted(
        &mut self,
        wants: impl FnOnce(u32, &[u8], u8) -> bool,
    ) -> Result<Option<Event>, RdbError> {
        if self.checksum.is_some() {
            return Ok(None);
        }
        self.read(wants).map_err(|fault| self.error(fault))
    }

    /// Nothing may follow the end.
    ///
    /// # Errors
    /// [`RdbErrorKind::Trailing`], and those of the reader.
    pub fn expect_end(&mut self) -> Result<(), RdbError> {
        match self.input.is_at_end() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let fault = self.input.fault(RdbErrorKind::Trailing);
                Err(self.error(fault))
            }
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// Nothing may follow the end of a file but what every server passes over, which is told.
    ///
    /// # Errors
    /// [`RdbErrorKind::Trailing`], [`RdbErrorKind::Glued`], and those of the reader.
    pub fn expect_end_of_file(&mut self) -> Result<Option<Tail>, RdbError> {
        let at = self.input.fault(RdbErrorKind::Trailing);
        match self.tail() {
            Ok(Some(tail)) => Ok(tail),
            Ok(None) => Err(self.error(at)),
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// `None`: something that does not belong there.
    fn tail(&mut self) -> Result<Option<Option<Tail>>, Fault> {
        if self.input.envelope_has_checksum().is_some() && self.input.is_at_end()? {
            let behind = self.input.behind_envelope(LONGEST_BEGINNING)?;
            return match begins_like_rdb(&behind) {
                true => Err(self.input.fault(RdbErrorKind::Glued)),
                false => Ok(Some((!behind.is_empty()).then_some(Tail::BehindFrame))),
            };
        }
        let mut tail = Vec::new();
        while !self.input.is_at_end()? {
            if tail.len() == END_MARK_LEN {
                return Ok(None);
            }
            tail.push(self.input.byte()?);
        }
        let is_mark = tail.len() == END_MARK_LEN
            && tail
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        Ok(match tail.as_slice() {
            [] => Some(None),
            b"\n" | b"\r\n" => Some(Some(Tail::LineEnd)),
            _ if is_mark => Some(Some(Tail::EndMark)),
            _ => None,
        })
    }

    /// Takes bytes that follow the end.
    ///
    /// # Errors
    /// [`RdbErrorKind::Truncated`], and those of the reader.
    pub fn take_after_end<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        self.input.array().map_err(|fault| self.error(fault))
    }

    /// What is read from; `None` after compressed data could not be opened.
    pub fn get_mut(&mut self) -> Option<&mut R> {
        self.input.get_mut()
    }

    fn error(&self, Fault { offset, kind }: Fault) -> RdbError {
        RdbError {
            offset,
            last_key: self.last_key.clone(),
            kind,
        }
    }

    fn read(&mut self, wants: impl FnOnce(u32, &[u8], u8) -> bool) -> Result<Option<Event>, Fault> {
        loop {
            let offset = self.input.position();
            let byte = self.input.byte()?;
            let opcode = Opcode::of(self.facts.magic.family, byte);
            match opcode.filter(|opcode| self.facts.magic.version >= opcode.since()) {
                Some(Opcode::ExpireMs) => {
                    self.expire_at_ms = at(i64::from_le_bytes(self.input.array()?))
                }
                Some(Opcode::ExpireSeconds) => {
                    let seconds = i32::from_le_bytes(self.input.array()?);
                    self.expire_at_ms = at(i64::from(seconds) * 1000);
                }
                Some(Opcode::Idle) => {
                    self.eviction = Some(Eviction::IdleSecs(self.input.length()?))
                }
                Some(Opcode::Frequency) => self.eviction = Some(Eviction::Freq(self.input.byte()?)),
                Some(Opcode::Eof) => {
                    self.end()?;
                    return Ok(None);
                }
                Some(Opcode::SelectDb) => {
                    let db = self.input.length()?;
                    self.db = u32::try_from(db)
                        .ok()
                        .filter(|&db| db < i32::MAX as u32)
                        .ok_or(Fault {
                            offset,
                            kind: RdbErrorKind::Database(db),
                        })?;
                    return Ok(Some(Event::Database(self.db)));
                }
                Some(Opcode::ResizeDb) => {
                    let (keys, expires) = (self.input.length()?, self.input.length()?);
                    return Ok(Some(Event::Sizes { keys, expires }));
                }
                Some(Opcode::Aux) => return self.aux().map(Some),
                Some(Opcode::ModuleAux) => return self.module_aux().map(Some),
                Some(Opcode::Function) => return self.function().map(Some),
                Some(Opcode::FunctionPreGa) => return self.old_function().map(Some),
                None if byte == MODULE_PRE_GA => {
                    let kind = RdbErrorKind::ReleaseCandidate("a module's value");
                    return Err(Fault { offset, kind });
                }
                // Hints for clusters.
                Some(Opcode::SlotInfo) => {
                    for _ in 0..3 {
                        self.input.length()?;
                    }
                }
                Some(Opcode::SlotImport) => self.slot_import()?,
                None if self.encoding(byte).is_some() => {
                    return self.key(byte, wants).map(Some);
                }
                Some(Opcode::KeyMetadata) => {
                    let type_byte = self.key_metadata()?;
                    return self.key(type_byte, wants).map(Some);
                }
                Some(Opcode::HashTemplate) => {
                    self.templates.take(&mut self.input, self.max_value_bytes)?;
                }
                Some(Opcode::Update) => {
                    let kind = RdbErrorKind::Update;
                    return Err(Fault { offset, kind });
                }
                None => {
                    let kind = RdbErrorKind::Unknown(byte);
                    return Err(Fault { offset, kind });
                }
            }
        }
    }

    /// What a type byte means in this file. From 22 on it says something else in each family, and
    /// servers that write an older version have types of their own there (Dragonfly): such a byte
    /// means nothing in a file of a version before its own.
    fn encoding(&self, type_byte: u8) -> Option<payload::Encoding> {
        let encoding = payload::Encoding::of(self.facts.family, type_byte)?;
        let is_known = encoding.family().is_none() || self.facts.magic.version >= encoding.since();
        is_known.then_some(encoding)
    }

    /// Keeps what modules have beside the next key, and takes the type byte behind it. Nothing else may
    /// stand between the two (rdb.c, rdbResolveKeyType).
    fn key_metadata(&mut self) -> Result<u8, Fault> {
        let mut bytes = vec![Opcode::KeyMetadata.byte()];
        let mut take = Take::verbatim(&mut self.input, &mut bytes, self.max_value_bytes);
        payload::metadata::pass(&mut take)?;
        let is_over = take.is_over();
        self.metadata = Metadata { bytes, is_over };
        let offset = self.input.position();
        let type_byte = self.input.byte()?;
        let kind = match self.encoding(type_byte) {
            Some(_) => return Ok(type_byte),
            None if type_byte == MODULE_PRE_GA => {
                RdbErrorKind::ReleaseCandidate("a module's value")
            }
            None => RdbErrorKind::Unknown(type_byte),
        };
        Err(Fault { offset, kind })
    }

    fn key(
        &mut self,
        type_byte: u8,
        wants: impl FnOnce(u32, &[u8], u8) -> bool,
    ) -> Result<Event, Fault> {
        let (expire_at_ms, eviction) = (self.expire_at_ms.take(), self.eviction.take());
        let metadata = std::mem::take(&mut self.metadata);
        let Some(key) = self.input.string_within(self.max_value_bytes)? else {
            self.pass_value(type_byte)?;
            let db = self.db;
            return Ok(Event::TooLarge { db, key: None });
        };
        if !wants(self.db, &key, type_byte) {
            self.pass_value(type_byte)?;
            self.was_good(&key);
            return Ok(Event::Unwanted { db: self.db });
        }
        let verbatim =
            self.form == Form::Verbatim || type_byte == payload::Encoding::Module.type_byte();
        if !self.take_value(&metadata, type_byte, verbatim)? {
            self.was_good(&key);
            let (db, key) = (self.db, Some(key));
            return Ok(Event::TooLarge { db, key });
        }
        if verbatim {
            let footer = payload::footer(&self.scratch, self.facts.magic.version);
            self.scratch.extend_from_slice(&footer);
        }
        // One allocation of the right size each, unless it is worth more than a copy.
        let bytes = if self.scratch.len() > KEPT_BYTES {
            std::mem::take(&mut self.scratch)
        } else {
            self.scratch.as_slice().to_vec()
        };
        self.was_good(&key);
        Ok(Event::Key(KeyRecord {
            db: self.db,
            key,
            value: match verbatim {
                true => Value::Verbatim(bytes),
                false => Value::Compact(bytes),
            },
            expire_at_ms,
            eviction,
        }))
    }

    /// Takes a value into the scratch room, metadata and type byte first; `false` if it is too large,
    /// and was passed over.
    fn take_value(
        &mut self,
        metadata: &Metadata,
        type_byte: u8,
        verbatim: bool,
    ) -> Result<bool, Fault> {
        let (family, limit) = (self.facts.family, self.max_value_bytes);
        self.scratch.clear();
        self.scratch.extend_from_slice(&metadata.bytes);
        if let Some(encoding) = payload::Encoding::of(family, type_byte)
            && encoding.is_templated()
        {
            self.facts.templated_hashes += 1;
            let input = &mut self.input;
            let fits = self
                .templates
                .hash(input, encoding, limit, &mut self.scratch)?;
            return Ok(fits && !metadata.is_over);
        }
        self.scratch.push(type_byte);
        let mut take = match verbatim {
            true => Take::verbatim(&mut self.input, &mut self.scratch, limit),
            false => Take::compact(&mut self.input, &mut self.scratch, limit),
        };
        walk::walk_body(&mut take, family, type_byte)?;
        Ok(!take.is_over() && !metadata.is_over)
    }

    /// Passes over a value, behind its key.
    fn pass_value(&mut self, type_byte: u8) -> Result<(), Fault> {
        let family = self.facts.family;
        if let Some(encoding) = payload::Encoding::of(family, type_byte)
            && encoding.is_templated()
        {
            self.templates
                .hash(&mut self.input, encoding, 0, &mut Vec::new())?;
            return Ok(());
        }
        walk::walk_body(&mut Take::nothing(&mut self.input), family, type_byte)?;
        Ok(())
    }

    /// Remembers a key for the message about what is wrong after it.
    fn was_good(&mut self, key: &[u8]) {
        let (db, last) = self.last_key.get_or_insert_default();
        *db = self.db;
        last.clear();
        last.extend_from_slice(key);
    }

    fn aux(&mut self) -> Result<Event, Fault> {
        let mut string = || self.input.string_within(self.max_value_bytes);
        // What is too long is none of the fields that matter.
        let (name, value) = (string()?.unwrap_or_default(), string()?.unwrap_or_default());
        let text = || String::from_utf8_lossy(&value).into_owned();
        let number = || std::str::from_utf8(&value).ok()?.parse::<u64>().ok();
        match name.as_slice() {
            b"redis-ver" => self.facts.server_version = text(),
            b"valkey-ver" => {
                self.facts.server_version = text();
                self.facts.family = Family::Valkey;
            }
            b"ctime" => {
                let secs = number().filter(|&secs| secs > 0);
                self.facts.created_ms = secs.and_then(|secs| secs.checked_mul(1000));
            }
            b"used-mem" => self.facts.used_memory = number(),
            b"aof-base" => self.facts.is_aof_base = value == b"1",
            name => match std::str::from_utf8(name) {
                Ok(taken::NOT_OF_ONE_INSTANT) => self.facts.is_not_of_one_instant = value == b"1",
                Ok(taken::NOT_WHOLE) => self.facts.is_not_whole = value == b"1",
                Ok(taken::FROM_MS) => self.facts.from_ms = number(),
                Ok(taken::TO_MS) => self.facts.to_ms = number(),
                _ => {}
            },
        }
        Ok(Event::Aux { name, value })
    }

    fn function(&mut self) -> Result<Event, Fault> {
        let mut library = vec![Opcode::Function.byte()];
        let mut take = Take::verbatim(&mut self.input, &mut library, self.max_value_bytes);
        walk::string(&mut take)?;
        if take.is_over() {
            return Ok(Event::FunctionTooLarge);
        }
        Ok(Event::Function(library))
    }

    /// A library in the form of a release candidate, in today's form: as Redis 7.0 itself makes it when
    /// it loads such a file, whose description is dropped (rdb.c, rdbFunctionLoad).
    fn old_function(&mut self) -> Result<Event, Fault> {
        let mut string = || self.input.string_within(self.max_value_bytes);
        let (name, engine) = (string()?, string()?);
        if self.input.length()? != 0 {
            walk::string(&mut Take::nothing(&mut self.input))?;
        }
        let code = self.input.string_within(self.max_value_bytes)?;
        let (Some(name), Some(engine), Some(code)) = (name, engine, code) else {
            return Ok(Event::FunctionTooLarge);
        };
        let code = [b"#!", &engine[..], b" name=", &name, b"\n", &code].concat();
        let mut library = vec![Opcode::Function.byte()];
        write::string(&mut library, &code);
        Ok(Event::Function(library))
    }

    /// A module's id, the moment it wants the data at, and its items (rdb.c, rdbSaveSingleModuleAux).
    fn module_aux(&mut self) -> Result<Event, Fault> {
        /// RDB_MODULE_OPCODE_UINT: the moment is written as one.
        const UINT: u64 = 2;
        /// The moment behind the keys (module.h, REDISMODULE_AUX_AFTER_RDB).
        const AFTER_KEYS: u64 = 2;
        let id = self.input.length()?;
        let module = payload::module_name(id);
        let offset = self.input.position();
        let moment = match self.input.length()? {
            UINT => self.input.length()?,
            other => {
                let kind = RdbErrorKind::ModuleAux(other);
                return Err(Fault { offset, kind });
            }
        };
        // As servers write it, whatever the upper bits are.
        let mut data = vec![0x81];
        data.extend_from_slice(&id.to_be_bytes());
        write::length(&mut data, UINT);
        write::length(&mut data, moment);
        let head = data.len();
        let limit = self.max_value_bytes.min(MAX_MODULE_AUX);
        let mut take = Take::verbatim(&mut self.input, &mut data, limit);
        walk::module_items(&mut take)?;
        if take.is_over() {
            return Ok(Event::ModuleAuxTooLarge(module));
        }
        if says_nothing(&data[head..]) {
            return Ok(Event::NoModuleAux(module));
        }
        const MOST_NAMES: usize = 64;
        let names = &mut self.facts.module_aux;
        if !names.contains(&module) && names.len() < MOST_NAMES {
            names.push(module.clone());
        }
        Ok(Event::ModuleAux(ModuleAux {
            family: self.facts.family,
            rdb_version: self.facts.magic.version,
            after_keys: moment == AFTER_KEYS,
            module,
            data,
        }))
    }

    /// Slots that were being imported: a job's name and ranges of slots. Their keys are no part of
    /// the file's meaning to anybody but that cluster.
    fn slot_import(&mut self) -> Result<(), Fault> {
        let offset = self.input.position();
        let job = self.input.string_within(SLOT_IMPORT_JOB_LEN)?;
        if job.is_none_or(|job| job.len() as u64 != SLOT_IMPORT_JOB_LEN) {
            let kind = RdbErrorKind::SlotImport;
            return Err(Fault { offset, kind });
        }
        for _ in 0..self.input.length()? {
            self.input.length()?;
            self.input.length()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let computed = self.input.checksum();
        let offset = self.input.position();
        // Of what is compressed as a whole servers take any checksum, and so is what their own files
        // may hold; the frame has one of its own.
        let by_frame = self.input.envelope_has_checksum();
        let checksum = if self.facts.magic.has_checksum() {
            match u64::from_le_bytes(self.input.array()?) {
                _ if by_frame == Some(true) => Checksum::Verified,
                0 => Checksum::Disabled,
                stored if stored == computed => Checksum::Verified,
                _ if by_frame.is_some() => Checksum::Disabled,
                stored => {
                    let kind = RdbErrorKind::Checksum { stored, computed };
                    return Err(Fault { offset, kind });
                }
            }
        } else {
            Checksum::None
        };
        // The frame is proved at its end only, and nothing may stand between.
        if by_frame.is_some() && !self.input.is_at_end()? {
            return Err(self.input.fault(RdbErrorKind::Trailing));
        }
        self.checksum = Some(checksum);
        Ok(())
    }
}

/// Largest data of a module that are kept: what a frame of an archive holds, without what is around
/// them.
const MAX_MODULE_AUX: u64 = redis_migrate_format::limits::MAX_RAW_LEN as u64 - 64;

/// Whether the items of a module's own data are none, or nothing but the number 0: modules write how
/// many things they have, also where that is none. A server without the module refuses a file that
/// has even that.
fn says_nothing(items: &[u8]) -> bool {
    const UINT_ZERO: [u8; 2] = [2, 0];
    let Some((&[0], numbers)) = items.split_last_chunk::<1>().map(|(head, end)| (end, head)) else {
        return false;
    };
    let (pairs, rest) = numbers.as_chunks::<2>();
    rest.is_empty() && pairs.iter().all(|pair| *pair == UINT_ZERO)
}

/// An expiry as our records have it. −1 is "none" to rdb.c; any other moment before 1970 is long
/// ago, and 0 would mean "none" to RESTORE.
fn at(ms: i64) -> Option<u64> {
    match ms {
        -1 => None,
        ms => Some(u64::try_from(ms).unwrap_or(0).max(1)),
    }
}
