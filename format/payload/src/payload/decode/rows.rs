//! Elements, members and fields, one at a time.
//!
//! Each of these iterators checks everything but that no member or field comes twice, and ends
//! after its first error.

use super::cells::Cells;
use super::packed::{Element, parse_score};
use super::text::text;
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::object::{Bytes, Field, Member};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::length;

type Next<T> = Result<Option<T>, PayloadError>;

/// What the three iterators share: none after an error, an error instead of nothing at all.
#[derive(Debug, Clone)]
struct Progress {
    what: &'static str,
    begun: bool,
    over: bool,
}

impl Progress {
    fn of(what: &'static str) -> Self {
        Self {
            what,
            begun: false,
            over: false,
        }
    }

    fn step<T>(&mut self, next: Next<T>) -> Option<Result<T, PayloadError>> {
        match next {
            Ok(Some(row)) => {
                self.begun = true;
                Some(Ok(row))
            }
            Ok(None) => {
                self.over = true;
                // Where the count stood: right after the type byte.
                let empty = PayloadError::new(1, ErrorKind::Empty(self.what));
                (!std::mem::replace(&mut self.begun, true)).then_some(Err(empty))
            }
            Err(error) => {
                self.over = true;
                Some(Err(error))
            }
        }
    }
}

/// The elements of a list or a set.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    cells: Cells<'a>,
    progress: Progress,
    sorted: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn new(cells: Cells<'a>, what: &'static str) -> Self {
        Self {
            cells,
            progress: Progress::of(what),
            sorted: false,
        }
    }

    /// Elements that come in order by themselves.
    pub(super) fn sorted(self) -> Self {
        Self {
            sorted: true,
            ..self
        }
    }

    /// Whether the way they are stored rules out that one comes twice.
    pub(super) fn in_order(&self) -> bool {
        self.sorted
    }

    /// See [`Cells::has_empty_node`].
    pub(super) fn has_empty_node(&self) -> bool {
        self.cells.has_empty_node()
    }
}

impl<'a> Elements<'a> {
    /// The next element as it is stored: an integer costs nothing until its text is wanted.
    #[inline]
    pub(super) fn next_stored(&mut self) -> Option<Result<Element<'a>, PayloadError>> {
        if self.progress.over {
            return None;
        }
        let next = self.cells.next();
        self.progress.step(next)
    }
}

impl<'a> Elements<'a> {
    /// All that are left, as they are stored.
    pub(in crate::payload) fn stored(
        mut self,
    ) -> impl Iterator<Item = Result<Element<'a>, PayloadError>> {
        std::iter::from_fn(move || self.next_stored())
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Bytes<'a>, PayloadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_stored()
            .map(|element| element.map(Element::into_bytes))
    }
}

/// The members of a sorted set.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    layout: MemberLayout<'a>,
    progress: Progress,
}

#[derive(Debug, Clone)]
enum MemberLayout<'a> {
    Cells(Cells<'a>),
    /// Scores of eight bytes.
    Binary {
        source: Slice<'a>,
        left: u64,
    },
    /// Scores as text.
    Text {
        source: Slice<'a>,
        left: u64,
    },
}

impl<'a> Members<'a> {
    pub(super) fn cells(cells: Cells<'a>) -> Self {
        Self {
            layout: MemberLayout::Cells(cells),
            progress: Progress::of("zset"),
        }
    }

    pub(super) fn binary(mut source: Slice<'a>) -> Result<Self, PayloadError> {
        let left = length(&mut source)?;
        let layout = MemberLayout::Binary { source, left };
        Ok(Self {
            layout,
            progress: Progress::of("zset"),
        })
    }

    pub(super) fn text(mut source: Slice<'a>) -> Result<Self, PayloadError> {
        let left = length(&mut source)?;
        let layout = MemberLayout::Text { source, left };
        Ok(Self {
            layout,
            progress: Progress::of("zset"),
        })
    }

    /// All that are left, as they are stored.
    pub(in crate::payload) fn stored(
        mut self,
    ) -> impl Iterator<Item = Result<(Element<'a>, f64), PayloadError>> {
        std::iter::from_fn(move || self.next_stored())
    }

    /// The next member as it is stored, and its score.
    pub(super) fn next_stored(&mut self) -> Option<Result<(Element<'a>, f64), PayloadError>> {
        if self.progress.over {
            return None;
        }
        let next = self.row();
        self.progress.step(next)
    }

    fn row(&mut self) -> Next<(Element<'a>, f64)> {
        match &mut self.layout {
            MemberLayout::Cells(cells) => {
                let Some(member) = cells.next()? else {
                    return Ok(None);
                };
                let score = cells.partner("zset")?.score();
                let score = score.ok_or_else(|| cells.error(ErrorKind::Score))?;
                Ok(Some((member, score)))
            }
            MemberLayout::Binary { source, left } | MemberLayout::Text { source, left }
                if *left == 0 =>
            {
                source.end()?;
                Ok(None)
            }
            MemberLayout::Binary { source, left } => {
                *left -= 1;
                let member = text(source)?;
                let at = source.position();
                let score = f64::from_le_bytes(source.array()?);
                if score.is_nan() {
                    return Err(PayloadError::new(at, ErrorKind::Score));
                }
                Ok(Some((Element::Text(member), score)))
            }
            MemberLayout::Text { source, left } => {
                *left -= 1;
                let member = text(source)?;
                let at = source.position();
                let score = match source.byte()? {
                    255 => Some(f64::NEG_INFINITY),
                    254 => Some(f64::INFINITY),
                    253 => None,
                    len => parse_score(source.take(len.into())?),
                };
                let score = score.ok_or(PayloadError::new(at, ErrorKind::Score))?;
                Ok(Some((Element::Text(member), score)))
            }
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_stored().map(|row| {
            row.map(|(member, score)| Member {
                member: member.into_bytes(),
                score,
            })
        })
    }
}

/// A field as it is stored: an integer costs nothing until its text is wanted.
#[derive(Debug)]
pub(super) struct StoredField<'a> {
    pub name: Element<'a>,
    pub value: Element<'a>,
    pub expire_at_ms: Option<u64>,
}

/// The fields of a hash.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    layout: FieldLayout<'a>,
    progress: Progress,
}

#[derive(Debug, Clone)]
enum FieldLayout<'a> {
    /// Field, value.
    Pairs(Cells<'a>),
    /// Field, value, absolute expiry or 0; those that expire first come first.
    Triples {
        cells: Cells<'a>,
        /// The last expiry, the highest number for none.
        last: u64,
    },
    /// Expiry or 0, field, value; the expiry counts from one before `base` where there is one.
    TtlFirst {
        source: Slice<'a>,
        left: u64,
        base: Option<i64>,
    },
    /// Field, value, absolute expiry or −1.
    TtlLast { source: Slice<'a>, left: u64 },
    /// Fields and values apart, as many of the one as of the other.
    Template(Box<[Cells<'a>; 2]>),
}

impl<'a> Fields<'a> {
    /// The fields and values that are left, in turn and as they are stored, without expiry.
    pub(in crate::payload) fn stored(
        mut self,
    ) -> impl Iterator<Item = Result<Element<'a>, PayloadError>> {
        let mut value = None;
        std::iter::from_fn(move || {
            if let Some(value) = value.take() {
                return Some(Ok(value));
            }
            match self.next_stored()? {
                Ok(row) => {
                    value = Some(row.value);
                    Some(Ok(row.name))
                }
                Err(error) => Some(Err(error)),
            }
        })
    }

    fn new(layout: FieldLayout<'a>) -> Self {
        Self {
            layout,
            progress: Progress::of("hash"),
        }
    }

    pub(super) fn pairs(cells: Cells<'a>) -> Self {
        Self::new(FieldLayout::Pairs(cells))
    }

    pub(super) fn triples(cells: Cells<'a>) -> Self {
        Self::new(FieldLayout::Triples { cells, last: 0 })
    }

    pub(super) fn ttl_first(
        mut source: Slice<'a>,
        base: Option<i64>,
    ) -> Result<Self, PayloadError> {
        let left = length(&mut source)?;
        Ok(Self::new(FieldLayout::TtlFirst { source, left, base }))
    }

    pub(super) fn template(names: Cells<'a>, values: Cells<'a>) -> Self {
        Self::new(FieldLayout::Template(Box::new([names, values])))
    }

    pub(super) fn ttl_last(mut source: Slice<'a>) -> Result<Self, PayloadError> {
        let left = length(&mut source)?;
        Ok(Self::new(FieldLayout::TtlLast { source, left }))
    }

    /// The next field as it is stored.
    #[inline]
    pub(super) fn next_stored(&mut self) -> Option<Result<StoredField<'a>, PayloadError>> {
        if self.progress.over {
            return None;
        }
        let next = self.row();
        self.progress.step(next)
    }

    fn row(&mut self) -> Next<StoredField<'a>> {
        match &mut self.layout {
            FieldLayout::Pairs(cells) => {
                let Some(name) = cells.next()? else {
                    return Ok(None);
                };
                let value = cells.partner("hash")?;
                Ok(Some(StoredField {
                    name,
                    value,
                    expire_at_ms: None,
                }))
            }
            FieldLayout::Template(both) => {
                let [names, values] = &mut **both;
                let Some(name) = names.next()? else {
                    return Ok(None);
                };
                let value = values.partner("hash")?;
                Ok(Some(StoredField {
                    name,
                    value,
                    expire_at_ms: None,
                }))
            }
            FieldLayout::Triples { cells, last } => {
                let Some(name) = cells.next()? else {
                    return Ok(None);
                };
                let value = cells.partner("hash")?;
                let expire_at_ms = match cells.partner("hash")? {
                    Element::Int(0) => None,
                    Element::Int(ms @ 1..) => Some(ms as u64),
                    _ => return Err(cells.error(ErrorKind::FieldTtl)),
                };
                let ttl = expire_at_ms.unwrap_or(u64::MAX);
                if ttl < *last {
                    return Err(cells.error(ErrorKind::FieldOrder));
                }
                *last = ttl;
                Ok(Some(StoredField {
                    name,
                    value,
                    expire_at_ms,
                }))
            }
            FieldLayout::TtlFirst { source, left, .. } | FieldLayout::TtlLast { source, left }
                if *left == 0 =>
            {
                source.end()?;
                Ok(None)
            }
            FieldLayout::TtlFirst { source, left, base } => {
                *left -= 1;
                let at = source.position();
                let ttl = length(source)?;
                let expire_at_ms = if ttl == 0 {
                    None
                } else {
                    let ms = i128::from(ttl) + base.map_or(0, |base| i128::from(base) - 1);
                    let ms = i64::try_from(ms).ok().and_then(|ms| u64::try_from(ms).ok());
                    Some(ms.ok_or(PayloadError::new(at, ErrorKind::FieldTtl))?)
                };
                let name = Element::Text(text(source)?);
                let value = Element::Text(text(source)?);
                Ok(Some(StoredField {
                    name,
                    value,
                    expire_at_ms,
                }))
            }
            FieldLayout::TtlLast { source, left } => {
                *left -= 1;
                let name = Element::Text(text(source)?);
                let value = Element::Text(text(source)?);
                let at = source.position();
                let expire_at_ms = match i64::from_le_bytes(source.array()?) {
                    -1 => None,
                    ms @ 0.. => Some(ms as u64),
                    _ => return Err(PayloadError::new(at, ErrorKind::FieldTtl)),
                };
                Ok(Some(StoredField {
                    name,
                    value,
                    expire_at_ms,
                }))
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_stored().map(|row| {
            row.map(|row| Field {
                name: row.name.into_bytes(),
                value: row.value.into_bytes(),
                expire_at_ms: row.expire_at_ms,
            })
        })
    }
}
