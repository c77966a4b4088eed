//! Listpacks: many small strings and numbers in one piece.

/// Writes a listpack.
pub(super) struct Writer {
    bytes: Vec<u8>,
    count: usize,
}

/// The number, if the text is the one that it is written as.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    if !text[text.len() - 1].is_ascii_digit() {
        return None;
    }
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

impl Writer {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; 6],
            count: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn text(&mut self, text: &[u8]) {
        if let Some(number) = integer(text) {
            return self.number(number);
        }
        let start = self.bytes.len();
        match text.len() {
            length @ 0..=63 => self.bytes.push(0x80 | length as u8),
            length @ 64..=4095 => {
                self.bytes
                    .extend_from_slice(&[0xe0 | (length >> 8) as u8, length as u8]);
            }
            length => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
        self.end(start);
    }

    pub fn number(&mut self, number: i64) {
        let start = self.bytes.len();
        let wide = number.to_le_bytes();
        match number {
            0..=127 => self.bytes.push(number as u8),
            -4096..=4095 => {
                let bits = number as u16 & 0x1fff;
                self.bytes
                    .extend_from_slice(&[0xc0 | (bits >> 8) as u8, bits as u8]);
            }
            -32768..=32767 => self.tagged(0xf1, &wide[..2]),
            -8_388_608..=8_388_607 => self.tagged(0xf2, &wide[..3]),
            -2_147_483_648..=2_147_483_647 => self.tagged(0xf3, &wide[..4]),
            _ => self.tagged(0xf4, &wide),
        }
        self.end(start);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends the length backwards.
    fn end(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        let size = back_size(length);
        for at in (0..size).rev() {
            let bits = (length >> (7 * at)) as u8 & 127;
            self.bytes
                .push(if at == size - 1 { bits } else { bits | 128 });
        }
        self.count += 1;
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0xff);
        let total = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

fn back_size(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..=16382 => 2,
        16383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// An element of a listpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    Text(Vec<u8>),
    Number(i64),
}

impl Element {
    pub fn into_text(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }
}

/// All elements of a listpack; `None` if it is damaged.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Element>> {
    let total = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let count = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
    if total as usize != bytes.len() || bytes.last() != Some(&0xff) {
        return None;
    }
    let mut rows = Vec::new();
    let mut at = 6;
    while at < bytes.len() - 1 {
        let (element, length) = element(&bytes[at..])?;
        rows.push(element);
        // One size more or less is what versions disagree about.
        let end = at + length;
        let size = back_size(length);
        let sizes = [size, back_size(length + 1)];
        let backwards = |size: usize| {
            let bytes = bytes.get(end..end + size)?;
            let low = |byte: &u8| usize::from(byte & 127);
            Some(bytes.iter().fold(0, |sum, byte| sum << 7 | low(byte)))
        };
        let size = sizes
            .into_iter()
            .find(|&size| backwards(size) == Some(length))?;
        at = end + size;
    }
    (at == bytes.len() - 1 && (count == u16::MAX || usize::from(count) == rows.len()))
        .then_some(rows)
}

fn signed(bytes: &[u8]) -> i64 {
    let mut wide = [if bytes.last().is_some_and(|last| last & 128 != 0) {
        255
    } else {
        0
    }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

fn element(bytes: &[u8]) -> Option<(Element, usize)> {
    let first = *bytes.first()?;
    let text = |head: usize, length: usize| {
        let text = bytes.get(head..head + length)?;
        Some((Element::Text(text.to_vec()), head + length))
    };
    let number = |width: usize| {
        let bytes = bytes.get(1..1 + width)?;
        Some((Element::Number(signed(bytes)), 1 + width))
    };
    match first {
        0..=0x7f => Some((Element::Number(i64::from(first)), 1)),
        0x80..=0xbf => text(1, usize::from(first & 63)),
        0xc0..=0xdf => {
            let bits = i64::from(first & 31) << 8 | i64::from(*bytes.get(1)?);
            let number = if bits >= 4096 { bits - 8192 } else { bits };
            Some((Element::Number(number), 2))
        }
        0xe0..=0xef => text(
            2,
            usize::from(first & 15) << 8 | usize::from(*bytes.get(1)?),
        ),
        0xf0 => text(
            5,
            u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize,
        ),
        0xf1 => number(2),
        0xf2 => number(3),
        0xf3 => number(4),
        0xf4 => number(8),
        _ => None,
    }
}
