//! The older packed forms: ziplists, intsets, zipmaps.

use super::listpack::Element;

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// All elements of a ziplist; `None` if it is damaged.
pub(super) fn ziplist(bytes: &[u8]) -> Option<Vec<Element>> {
    if u32_at(bytes, 0)? != bytes.len() || bytes.last() != Some(&0xff) {
        return None;
    }
    let count = usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?));
    let mut rows = Vec::new();
    let mut at = 10;
    let mut before = 0;
    while *bytes.get(at)? != 0xff {
        let start = at;
        let (said, size) = match bytes[at] {
            0xfe => (u32_at(bytes, at + 1)?, 5),
            length => (usize::from(length), 1),
        };
        if said != before {
            return None;
        }
        at += size;
        let (element, length) = ziplist_element(bytes.get(at..)?)?;
        rows.push(element);
        at += length;
        before = at - start;
    }
    (at == bytes.len() - 1 && (count == 0xffff || count == rows.len())).then_some(rows)
}

fn ziplist_element(bytes: &[u8]) -> Option<(Element, usize)> {
    let first = *bytes.first()?;
    let text = |head: usize, length: usize| {
        Some((
            Element::Text(bytes.get(head..head + length)?.to_vec()),
            head + length,
        ))
    };
    let number = |width: usize| {
        let given = bytes.get(1..1 + width)?;
        let mut wide = [if given[width - 1] & 128 != 0 { 255 } else { 0 }; 8];
        wide[..width].copy_from_slice(given);
        Some((Element::Number(i64::from_le_bytes(wide)), 1 + width))
    };
    match first {
        0..=0x3f => text(1, usize::from(first)),
        0x40..=0x7f => text(
            2,
            usize::from(first & 63) << 8 | usize::from(*bytes.get(1)?),
        ),
        0x80 => text(
            5,
            u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize,
        ),
        0xc0 => number(2),
        0xd0 => number(4),
        0xe0 => number(8),
        0xf0 => number(3),
        0xfe => number(1),
        0xf1..=0xfd => Some((Element::Number(i64::from(first & 15) - 1), 1)),
        _ => None,
    }
}

/// All numbers of an intset; `None` if it is damaged.
pub(super) fn intset(bytes: &[u8]) -> Option<Vec<i64>> {
    let width = u32_at(bytes, 0)?;
    let count = u32_at(bytes, 4)?;
    if !matches!(width, 2 | 4 | 8) || bytes.len() != 8 + width * count {
        return None;
    }
    let number = |bytes: &[u8]| match bytes.len() {
        2 => i64::from(i16::from_le_bytes([bytes[0], bytes[1]])),
        4 => i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => bytes.try_into().map_or(0, i64::from_le_bytes),
    };
    let rows: Vec<i64> = bytes[8..].chunks(width).map(number).collect();
    rows.is_sorted_by(|one, next| one < next).then_some(rows)
}

/// Writes an intset; the numbers are sorted.
pub(super) fn put_intset(numbers: &[i64]) -> Vec<u8> {
    let fits = |low: i64, high: i64| numbers.iter().all(|number| (low..=high).contains(number));
    let width = match () {
        () if fits(i64::from(i16::MIN), i64::from(i16::MAX)) => 2,
        () if fits(i64::from(i32::MIN), i64::from(i32::MAX)) => 4,
        () => 8,
    };
    let mut out = Vec::new();
    out.extend_from_slice(&(width as u32).to_le_bytes());
    out.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes()[..width]);
    }
    out
}

/// Fields and values of a zipmap by turns; `None` if it is damaged.
pub(super) fn zipmap(bytes: &[u8]) -> Option<Vec<Element>> {
    let mut at = 1;
    let mut rows = Vec::new();
    let length = |at: &mut usize| {
        let first = *bytes.get(*at)?;
        *at += 1;
        if first < 254 {
            return Some(usize::from(first));
        }
        let long = u32_at(bytes, *at)?;
        *at += 4;
        (first == 254).then_some(long)
    };
    while *bytes.get(at)? != 0xff {
        let name = length(&mut at)?;
        rows.push(Element::Text(bytes.get(at..at + name)?.to_vec()));
        at += name;
        let value = length(&mut at)?;
        let free = usize::from(*bytes.get(at)?);
        at += 1;
        rows.push(Element::Text(bytes.get(at..at + value)?.to_vec()));
        at += value + free;
    }
    (at == bytes.len() - 1).then_some(rows)
}
