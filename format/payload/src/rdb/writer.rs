//! Writing RDB files, one thing at a time.
//!
//! What a server of the version can read is the caller's to see to, and that no key comes twice: a
//! server that finds one twice refuses the whole file (rdb.c, "RDB has duplicated key").

use std::io::{self, Write};

use redis_migrate_format::record::Eviction;

use super::magic::Magic;
use crate::dialect::{Opcode, opcode};
use crate::payload;
use crate::payload::crc64::Crc64;
use crate::payload::write;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes an RDB file. Dropped before [`RdbWriter::finish`], it leaves one that is visibly cut
/// short.
pub struct RdbWriter<W: Write> {
    out: W,
    magic: Magic,
    buffer: Vec<u8>,
    crc: Crc64,
    bytes: u64,
    db: Option<u32>,
}

impl<W: Write> RdbWriter<W> {
    /// Begins a file.
    pub fn new(out: W, magic: Magic) -> Self {
        Self {
            out,
            magic,
            buffer: magic.bytes(),
            crc: Crc64::new(),
            bytes: 0,
            db: None,
        }
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.bytes + self.buffer.len() as u64
    }

    /// A field of the file's own. Servers before 3.2 know none.
    ///
    /// # Errors
    /// Those of the output.
    pub fn aux(&mut self, name: &str, value: &str) -> io::Result<()> {
        if self.magic.version >= opcode::AUX_SINCE {
            self.buffer.push(Opcode::Aux.byte());
            write::string(&mut self.buffer, name.as_bytes());
            write::string(&mut self.buffer, value.as_bytes());
        }
        self.flush_if_full()
    }

    /// Data of a module that belongs to no key: what stands behind the opcode. Servers before 5.0
    /// know none.
    ///
    /// # Errors
    /// Those of the output.
    pub fn module_aux(&mut self, data: &[u8]) -> io::Result<()> {
        self.buffer.push(Opcode::ModuleAux.byte());
        self.buffer.extend_from_slice(data);
        self.flush_if_full()
    }

    /// Function libraries, as they stand in a FUNCTION DUMP: opcode and string each, no footer.
    ///
    /// # Errors
    /// Those of the output.
    pub fn functions(&mut self, libraries: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(libraries);
        self.flush_if_full()
    }

    /// A key: its value is type byte and body; key metadata may stand before them. Databases may alternate; a server takes that.
    ///
    /// # Errors
    /// Those of the output.
    pub fn key(
        &mut self,
        db: u32,
        key: &[u8],
        expire_at_ms: Option<u64>,
        eviction: Option<Eviction>,
        value: &[u8],
    ) -> io::Result<()> {
        let split = payload::split_metadata(self.magic.family, value);
        let (metadata, value) = split.map_err(io::Error::other)?;
        let Some((&type_byte, body)) = value.split_first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a value without a type byte",
            ));
        };
        let out = &mut self.buffer;
        if self.db != Some(db) {
            out.push(Opcode::SelectDb.byte());
            write::length(out, db.into());
            self.db = Some(db);
        }
        if let Some(ms) = expire_at_ms {
            // As a number with a sign; −1 would mean "none".
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            out.push(Opcode::ExpireMs.byte());
            out.extend_from_slice(&ms.to_le_bytes());
        }
        match eviction {
            Some(Eviction::IdleSecs(secs)) if self.magic.version >= opcode::EVICTION_SINCE => {
                out.push(Opcode::Idle.byte());
                write::length(out, secs);
            }
            Some(Eviction::Freq(freq)) if self.magic.version >= opcode::EVICTION_SINCE => {
                out.extend_from_slice(&[Opcode::Frequency.byte(), freq]);
            }
            _ => {}
        }
        out.extend_from_slice(metadata);
        out.push(type_byte);
        write::string(out, key);
        if body.len() < BUFFER_BYTES {
            out.extend_from_slice(body);
            return self.flush_if_full();
        }
        // A large value is not copied.
        self.flush()?;
        self.crc.update(body);
        self.bytes += body.len() as u64;
        self.out.write_all(body)
    }

    /// The end mark and the checksum; gives the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.buffer.push(Opcode::Eof.byte());
        self.flush()?;
        if self.magic.has_checksum() {
            let crc = self.crc.clone().finish();
            self.out.write_all(&crc.to_le_bytes())?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
