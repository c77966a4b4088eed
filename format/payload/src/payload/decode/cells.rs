//! One flat row of elements, whichever way a value stores them. Two of them make a field and its
//! value, or a member and its score.

use super::listpack::Listpack;
use super::packed::{Element, Packed};
use super::text::{blob, text};
use super::ziplist::Ziplist;
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::length;

/// The elements of a value, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Cells<'a> {
    source: Slice<'a>,
    layout: Layout,
    /// Strings or nodes that were not begun yet.
    left: u64,
    /// The packed list that is being read.
    packed: Option<Packed<'a>>,
    /// A plain node that holds an empty string was passed.
    has_empty_node: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Plain strings.
    Strings,
    /// One packed list.
    Whole,
    /// Ziplists, one a node.
    Ziplists,
    /// Nodes that say what they are.
    Containers,
}

/// Containers of quicklist nodes (quicklist.h).
const PLAIN: u64 = 1;
pub(super) const PACKED: u64 = 2;

impl<'a> Cells<'a> {
    fn counted(mut source: Slice<'a>, layout: Layout, per: u64) -> Result<Self, PayloadError> {
        let left = length(&mut source)?.saturating_mul(per);
        Ok(Self {
            source,
            layout,
            left,
            packed: None,
            has_empty_node: false,
        })
    }

    /// A count, and so many times `per` strings.
    pub(super) fn strings(source: Slice<'a>, per: u64) -> Result<Self, PayloadError> {
        Self::counted(source, Layout::Strings, per)
    }

    /// So many strings.
    pub(super) fn so_many(source: Slice<'a>, left: u64) -> Self {
        Self {
            source,
            layout: Layout::Strings,
            left,
            packed: None,
            has_empty_node: false,
        }
    }

    /// A count, and so many ziplists.
    pub(super) fn ziplists(source: Slice<'a>) -> Result<Self, PayloadError> {
        Self::counted(source, Layout::Ziplists, 1)
    }

    /// A count, and so many nodes of either container.
    pub(super) fn containers(source: Slice<'a>) -> Result<Self, PayloadError> {
        Self::counted(source, Layout::Containers, 1)
    }

    /// One packed list, and nothing after it.
    pub(super) fn whole(source: Slice<'a>, packed: Packed<'a>) -> Self {
        Self {
            source,
            layout: Layout::Whole,
            left: 0,
            packed: Some(packed),
            has_empty_node: false,
        }
    }

    /// Whether one of the nodes read so far is nothing but an empty string. Servers take such a node
    /// for an empty list and refuse the value.
    pub(super) fn has_empty_node(&self) -> bool {
        self.has_empty_node
    }

    /// An error of `kind` where the cells were read to.
    pub(super) fn error(&self, kind: ErrorKind) -> PayloadError {
        match &self.packed {
            Some(packed) => packed.error(kind),
            None => self.source.error(kind),
        }
    }

    /// The next element; none when all of them and all the bytes were taken.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        if self.layout == Layout::Strings && self.left > 0 {
            self.left -= 1;
            return text(&mut self.source).map(|bytes| Some(Element::Text(bytes)));
        }
        self.next_packed()
    }

    fn next_packed(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        loop {
            if let Some(packed) = &mut self.packed {
                match packed.next()? {
                    Some(element) => return Ok(Some(element)),
                    None => self.packed = None,
                }
            }
            if self.left == 0 {
                self.source.end()?;
                return Ok(None);
            }
            self.left -= 1;
            if let Some(plain) = self.node()? {
                return Ok(Some(plain));
            }
        }
    }

    /// Begins the next node. A plain one is an element already.
    fn node(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        let at = self.source.clone();
        let mut packed = if self.layout == Layout::Ziplists {
            Packed::Ziplist(Ziplist::new(blob(&mut self.source)?)?)
        } else {
            match length(&mut self.source)? {
                PLAIN => {
                    let text = text(&mut self.source)?;
                    self.has_empty_node |= text.is_empty();
                    return Ok(Some(Element::Text(text)));
                }
                PACKED => Packed::Listpack(Listpack::new(blob(&mut self.source)?)?),
                other => return Err(at.error(ErrorKind::Container(other))),
            }
        };
        // A node holds at least one element; older servers fall over one that does not.
        match packed.next()? {
            Some(first) => {
                self.packed = Some(packed);
                Ok(Some(first))
            }
            None => Err(at.error(ErrorKind::Empty("list node"))),
        }
    }

    /// The element that must follow one already taken.
    pub(super) fn partner(&mut self, of: &'static str) -> Result<Element<'a>, PayloadError> {
        match self.next()? {
            Some(element) => Ok(element),
            None => Err(self.error(ErrorKind::Odd(of))),
        }
    }
}
