//! Vector sets of Redis 8: a module's value whose layout is known, because a restored one is stored
//! in another order, so that its bytes say nothing.
//!
//! `dimension, count, M << 8 | quantization, flags`, the matrix of a reduced dimension if flag 1 is
//! set, and for each element its name, its attributes if flag 2 is set, its vector in the form of
//! the quantization, and the parameters of its node in the graph: id, level, links; the last one
//! holds the two floats that scale the vector (vset.c, VectorSetRdbSave; hnsw.c,
//! hnsw_serialize_node). From Redis 8.2 on, the level has the version of the node's layout in its
//! highest byte, 1, and more parameters follow ([`VectorLayout`]).

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

/// The highest level of a node (hnsw.c, HNSW_MAX_LEVEL).
const MAX_LEVEL: u64 = 16;

/// How the nodes of a vector set are laid out. The module's name and version are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VectorLayout {
    /// As Redis 8.0 wrote them. All versions read it.
    First,
    /// As Redis 8.2 and later write them. To 8.0 the version in a node's level is part of the level:
    /// it makes room for 16 million levels of links before it refuses the value.
    Second,
}

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
    let mut vectors = Vec::new();
    let head = read(body_of(value)?, |vector, _| vectors.push(vector)).ok()?;
    Some(VectorSet { vectors, ..head })
}

/// How a vector set is laid out; `None` for everything else, and for layouts that are not known.
pub fn vector_layout(value: &[u8]) -> Option<VectorLayout> {
    let mut layout = Some(VectorLayout::First);
    let of_node = |level: u64| match (level >> 24, level & 0xff_ffff) {
        (0, ..=MAX_LEVEL) => Some(VectorLayout::First),
        (1, ..=MAX_LEVEL) => Some(VectorLayout::Second),
        _ => None,
    };
    read(body_of(value)?, |_, level| {
        let node = level.and_then(of_node);
        layout = layout.and_then(|so_far| node.map(|node| so_far.max(node)));
    })
    .ok()?;
    layout
}

/// What stands behind the name of the module.
fn body_of(value: &[u8]) -> Option<Slice<'_>> {
    // 7: a module's value. Valkey has no such module.
    let [7, body @ ..] = value else { return None };
    let mut source = Slice::new(body);
    let id = length(&mut source).ok()?;
    if module_name(id) != "vectorset" || id & 0x3ff != 0 {
        return None;
    }
    Some(source)
}

/// Reads it to its end, and gives each vector with the level of its node. The set that is returned
/// has none.
fn read<'a>(
    mut source: Slice<'a>,
    mut each: impl FnMut(Vector<'a>, Option<u64>),
) -> Result<VectorSet<'a>, PayloadError> {
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
    for _ in 0..count {
        let name = string(&mut source)?;
        let attributes = match flags & FLAG_ATTRIBUTES {
            0 => Bytes::default(),
            _ => string(&mut source)?,
        };
        let bytes = string(&mut source)?;
        let parameters = unsigned(&mut source)?;
        let (mut level, mut scale) = (None, None);
        for at in 0..parameters {
            let parameter = unsigned(&mut source)?;
            if at == 1 {
                level = Some(parameter);
            }
            scale = Some(parameter);
        }
        let scale = scale.ok_or_else(|| source.error(ErrorKind::Truncated))?;
        let vector = Vector {
            name,
            attributes,
            bytes,
            scale,
        };
        each(vector, level);
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
        vectors: Vec::new(),
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
