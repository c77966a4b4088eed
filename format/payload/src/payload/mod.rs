//! A DUMP payload: its footer, its layout and what stands in it.
//!
//! `type (1) | body | RDB version (u16 LE) | CRC-64 (u64 LE)`. Throughout this room *value* or
//! *body* means type byte and body without the footer, and what a type byte means depends on the
//! [`Family`](redis_migrate_format::record::Family) of the server that wrote it. Before the type byte
//! there may be [`metadata`] of modules; everything here sees through them.
//!
//! On the way of every key: [`split`] checks the footer and takes it off, [`compact`] checks the
//! value down to its strings and expands the compressed ones, [`examine`] decodes it to its last
//! byte, [`footer`] puts a footer back. Everything else is for values that go to another kind of
//! server, or are compared.

pub mod accept;
mod array;
mod aux_tail;
mod compact;
pub mod crc64;
mod decode;
mod encode;
mod error;
mod expiry;
mod footer;
mod gate;
pub(crate) mod lzf;
pub mod meaning;
pub mod metadata;
mod object;
pub mod probe;
mod source;
pub mod walk;
pub mod write;

pub use self::array::{Array, Slot, SlotValue};
pub use self::aux_tail::without_aux;
pub use self::compact::{compact, compact_within};
pub use self::decode::{
    BackLengths, Checked, Elements, Fields, Members, PathRow, Paths, Reader, SERIES_TYPE, Slots,
    TimeSeries, Vector, VectorLayout, VectorSet, check, decode, read, time_series, vector_layout,
    vector_set,
};
pub(crate) use self::decode::{PACKED_NAMES, PLAIN_NAMES, is_in_order, listpack_texts, text};
pub use self::encode::{
    FieldTtlForm, Forms, GIVEN_BACK, Losses, Packing, encode, is_plain_string, recode,
    recode_checked, with_owners,
};
pub use self::error::{ErrorKind, PayloadError};
pub use self::expiry::{FieldFate, Refielded, body_with_field_expiry, last_field_ms, refield};
pub use self::footer::{FOOTER_LEN, FooterError, footer, sign, split};
pub use self::gate::{Examined, examine};
pub use self::lzf::LzfError;
pub use self::metadata::{has_metadata, kind, plain, split_metadata, type_byte};
pub use self::object::{
    Bytes, Consumer, ENTRIES_READ_UNKNOWN, Entry, Field, Group, Idempotency, IdempotentId, Member,
    Object, Path, Pending, Producer, Stream, StreamForm, StreamId, StreamNode,
};
pub use self::source::{Slice, Source};
pub use self::walk::{module_name, module_name_of};
pub use crate::dialect::{Encoding, Kind, kind_of};

#[cfg(test)]
pub(crate) mod tests;
