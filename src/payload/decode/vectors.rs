//! Vector sets of Redis 8: a module's value whose layout is known, because a restored one is stored
//! in another order, so that its bytes say nothing.
//!
//! `dimension, count, M << 8 | quantization, flags`, the matrix of a reduced dimension if flag 1 is
//! set, and for each element its name, its attributes if flag 2 is set, its vector in the form of
//! the quantization, and the parameters of its node in the graph: id, level, links; the last one
//! holds the two floats that scale the vector (vset.c, VectorSetRdbSave; hnsw.c,
//! hnsw_serialize_node).

use super::text::text;
use crate::payload::object::Bytes;
use crate::payload::source::{Slice, Source};
use crate::payload::walk::{length, module_name};
use crate::payload::{ErrorKind, PayloadError};

const FLAG_MATRIX: u64 = 1;
const FLAG_ATTRIBUTES: u64 = 2;

/// Kinds of items in a module's value (module.c, RDB_MODULE_OPCODE).
const UNSIGNED: u64 = 2;
const STRING: u64 = 5;

/// A vector set, without its graph: that only serves to find what is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorSet<'a> {
    /// Of its vectors.
    pub dimension: u64,
    /// Links of a node, and the quantization in the lowest byte.
    pub config: u64,
    /// The dimension that vectors are given in, and what reduces it.
    pub matrix: Option<(u64, Bytes<'a>)>,
    /// In the order of the value.
    pub vectors: Vec<Vector<'a>>,
}

/// An element of a vector set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector<'a> {
    /// Its name.
    pub name: Bytes<'a>,
    /// Its attributes; empty for none.
    pub attributes: Bytes<'a>,
    /// The vector, normalized and quantized.
    pub bytes: Bytes<'a>,
    /// Its length, and the range of its quantization: two f32.
    pub scale: u64,
}

/// Reads a vector set; `None` for everything else, and for layouts that are not known.
pub fn vector_set(value: &[u8]) -> Option<VectorSet<'_>> {
    // 7: a module's value. Valkey has no such module.
    let [7, body @ ..] = value else { return None };
    let mut source = Slice::new(body);
    let id = length(&mut source).ok()?;
    if module_name(id) != "vectorset" || id & 0x3ff != 0 {
        return None;
    }
    read(source).ok()
}

fn read(mut source: Slice<'_>) -> Result<VectorSet<'_>, PayloadError> {
    let dimension = unsigned(&mut source)?;
    let count = unsigned(&mut source)?;
    let config = unsigned(&mut source)?;
    let flags = unsigned(&mut source)?;
    if flags & !(FLAG_MATRIX | FLAG_ATTRIBUTES) != 0 {
        return Err(source.error(ErrorKind::ModuleItem(flags)));
    }
    let matrix = match flags & FLAG_MATRIX {
        0 => None,
        _ => Some((unsigned(&mut source)?, string(&mut source)?)),
    };
    let mut vectors = Vec::new();
    for _ in 0..count {
        let name = string(&mut source)?;
        let attributes = match flags & FLAG_ATTRIBUTES {
            0 => Bytes::default(),
            _ => string(&mut source)?,
        };
        let bytes = string(&mut source)?;
        let parameters = unsigned(&mut source)?;
        let mut scale = None;
        for _ in 0..parameters {
            scale = Some(unsigned(&mut source)?);
        }
        let scale = scale.ok_or_else(|| source.error(ErrorKind::Truncated))?;
        vectors.push(Vector {
            name,
            attributes,
            bytes,
            scale,
        });
    }
    // The end mark.
    match length(&mut source)? {
        0 => source.end()?,
        other => return Err(source.error(ErrorKind::ModuleItem(other))),
    }
    Ok(VectorSet {
        dimension,
        config,
        matrix,
        vectors,
    })
}

fn item(source: &mut Slice<'_>, wanted: u64) -> Result<(), PayloadError> {
    match length(source)? {
        kind if kind == wanted => Ok(()),
        other => Err(source.error(ErrorKind::ModuleItem(other))),
    }
}

fn unsigned(source: &mut Slice<'_>) -> Result<u64, PayloadError> {
    item(source, UNSIGNED)?;
    length(source)
}

fn string<'a>(source: &mut Slice<'a>) -> Result<Bytes<'a>, PayloadError> {
    item(source, STRING)?;
    text(source)
}
