//! Prefixes, found by themselves. A key is split behind each separator, what looks like an id is
//! folded to `*`, and the parts are counted in a tree: `user:42:name` and `user:43:name` are both
//! `user:` → `*:` → `name`.
//!
//! The tree is bounded. A node with too many children drops the lightest and counts it as `other`,
//! so that what is heavy stays in and nothing is lost from the sums; a part that came, was dropped
//! and came again is then counted too low.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::Weight;

/// Bytes that part a key.
const SEPARATORS: &[u8] = b":/|.#";
/// Parts that are told apart; what follows belongs to the last.
const MAX_DEPTH: usize = 4;
/// Children of a node.
const MAX_CHILDREN: usize = 128;
/// Nodes in all.
const MAX_NODES: usize = 20_000;
/// Bytes of a part's name.
const MAX_PART_BYTES: usize = 64;

#[derive(Debug, Default)]
pub struct Prefixes {
    root: PrefixNode,
    nodes: usize,
    /// Whether a part was dropped, so that counts may be too low.
    pub dropped: bool,
}

#[derive(Debug, Default)]
struct PrefixNode {
    weight: Weight,
    /// Keys below that belong to no child.
    other: Weight,
    children: HashMap<Vec<u8>, PrefixNode>,
}

/// A prefix, and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrefixGroup {
    /// The prefix with ids folded; for what was too light to be told apart, `None`.
    pub prefix: Option<String>,
    /// All keys below.
    #[serde(flatten)]
    pub weight: Weight,
    /// Its parts, heaviest first. They add up to it.
    pub children: Vec<PrefixGroup>,
}

impl Prefixes {
    pub fn add(&mut self, key: &[u8], weight: &Weight) {
        let mut node = &mut self.root;
        node.weight.add(weight);
        for part in parts(key) {
            let name = fold(part);
            if !node.children.contains_key(&name) {
                if node.children.len() >= MAX_CHILDREN {
                    self.nodes -= node.drop_lightest();
                    self.dropped = true;
                }
                if self.nodes >= MAX_NODES {
                    self.dropped = true;
                    break;
                }
                self.nodes += 1;
            }
            node = node.children.entry(name).or_default();
            node.weight.add(weight);
        }
        // Nothing below: for the node itself.
        node.other.add(weight);
    }

    /// The heaviest prefixes: at each level at most `most`, and none that is under a
    /// thousandth of everything. The rest of a level is one group without a name.
    pub fn groups(&self, most: usize) -> Vec<PrefixGroup> {
        let least = self.root.weight.bytes / 1_000;
        let mut groups = self.root.group(String::new(), most, least).children;
        if groups.is_empty() && self.root.weight.keys > 0 {
            // Many, and none that stands out.
            groups.push(PrefixGroup {
                prefix: None,
                weight: self.root.weight,
                children: Vec::new(),
            });
        }
        groups
    }
}

impl PrefixNode {
    /// Drops the child with the fewest bytes; how many nodes that were.
    fn drop_lightest(&mut self) -> usize {
        let lightest = self.children.iter();
        let lightest = lightest.min_by_key(|(_, child)| child.weight.bytes);
        let Some(name) = lightest.map(|(name, _)| name.clone()) else {
            return 0;
        };
        let Some(child) = self.children.remove(&name) else {
            return 0;
        };
        self.other.add(&child.weight);
        child.nodes()
    }

    fn nodes(&self) -> usize {
        1 + self.children.values().map(PrefixNode::nodes).sum::<usize>()
    }

    fn group(&self, prefix: String, most: usize, least: u64) -> PrefixGroup {
        // A part that never varies is told with what follows it.
        if self.other.keys == 0
            && self.children.len() == 1
            && !prefix.is_empty()
            && let Some((name, only)) = self.children.iter().next()
        {
            return only.group(prefix + &shown(name), most, least);
        }
        let mut children: Vec<(&Vec<u8>, &PrefixNode)> = self.children.iter().collect();
        children.sort_by_key(|(name, child)| (Reverse(child.weight.bytes), *name));
        let mut other = self.other;
        let mut groups = Vec::new();
        for (name, child) in children {
            if groups.len() < most && child.weight.bytes >= least {
                groups.push(child.group(prefix.clone() + &shown(name), most, least));
            } else {
                other.add(&child.weight);
            }
        }
        if other.keys > 0 && !groups.is_empty() {
            groups.push(PrefixGroup {
                prefix: None,
                weight: other,
                children: Vec::new(),
            });
        }
        PrefixGroup {
            prefix: Some(prefix),
            weight: self.weight,
            children: groups,
        }
    }
}

/// The key's parts, each with the separator at its end.
fn parts(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split_inclusive(|byte| SEPARATORS.contains(byte))
        .take(MAX_DEPTH)
}

/// A part with what looks like an id folded to `*`: runs of digits, UUIDs, hexadecimal and other
/// long mixtures, and bytes that are no text.
pub fn fold(part: &[u8]) -> Vec<u8> {
    let (body, separator) = match part.split_last() {
        Some((last, body)) if SEPARATORS.contains(last) => (body, std::slice::from_ref(last)),
        _ => (part, &[][..]),
    };
    let mut folded = if is_id(body) {
        b"*".to_vec()
    } else {
        without_digits(body)
    };
    if folded.len() > MAX_PART_BYTES {
        folded.truncate(MAX_PART_BYTES);
        folded.push(b'*');
    }
    // A name cut in the middle of a letter is no text any more.
    if let Err(error) = std::str::from_utf8(&folded) {
        folded.truncate(error.valid_up_to());
        folded.push(b'*');
    }
    folded.extend_from_slice(separator);
    folded
}

fn is_id(body: &[u8]) -> bool {
    let text = body.strip_prefix(b"{").unwrap_or(body);
    let text = text.strip_suffix(b"}").unwrap_or(text);
    if std::str::from_utf8(body).is_err() {
        return true;
    }
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = text
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .count();
    let is_hex = text
        .iter()
        .all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let is_token = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_=+".contains(byte));
    // Hexadecimal of some length, or a long mixture with many digits.
    (is_hex && digits > 0 && text.len() >= 8)
        || (is_token && digits * 8 >= text.len() && letters > 0 && text.len() >= 16)
}

fn without_digits(body: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(body.len());
    for &byte in body {
        if !byte.is_ascii_digit() {
            folded.push(byte);
        } else if folded.last() != Some(&b'*') {
            folded.push(b'*');
        }
    }
    folded
}

fn shown(name: &[u8]) -> String {
    crate::escape::clean(&String::from_utf8_lossy(name)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(bytes: u64) -> Weight {
        Weight {
            keys: 1,
            bytes,
            ..Weight::default()
        }
    }

    #[test]
    fn ids_are_folded_and_words_are_not() {
        for (part, folded) in [
            ("user:", "user:"),
            ("42:", "*:"),
            ("shard12-part3", "shard*-part*"),
            ("550e8400-e29b-41d4-a716-446655440000", "*"),
            ("deadbeef01:", "*:"),
            ("feedback", "feedback"),
            ("2026-11-22", "*"),
            ("V1StGXR8_Z5jdHi6B-myT", "*"),
            (
                "administrators_of_everything",
                "administrators_of_everything",
            ),
            ("{42}.", "{*}."),
            ("", ""),
            (":", ":"),
        ] {
            let got = fold(part.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), folded, "{part}");
        }
        assert_eq!(fold(b"\xff\xfe:"), b"*:");
        let long = "ü".repeat(100);
        assert!(std::str::from_utf8(&fold(long.as_bytes())).is_ok());
    }

    #[test]
    fn groups_add_up_and_what_never_varies_is_told_together() {
        let mut prefixes = Prefixes::default();
        for n in 0..100 {
            prefixes.add(format!("app:user:{n}:name").as_bytes(), &weight(10));
            prefixes.add(format!("app:user:{n}:mail").as_bytes(), &weight(20));
        }
        prefixes.add(b"lonely", &weight(1_000));
        let groups = prefixes.groups(10);
        let names: Vec<_> = groups.iter().map(|group| group.prefix.as_deref()).collect();
        assert_eq!(names, [Some("app:user:*:"), Some("lonely")]);
        assert_eq!(groups[0].weight.bytes, 3_000);
        let below = groups[0].children.iter();
        let below: Vec<_> = below
            .map(|g| (g.prefix.as_deref(), g.weight.keys))
            .collect();
        assert_eq!(
            below,
            [
                (Some("app:user:*:mail"), 100),
                (Some("app:user:*:name"), 100)
            ]
        );
    }

    #[test]
    fn what_is_heavy_stays_in_a_tree_that_is_bounded() {
        let mut prefixes = Prefixes::default();
        let mut total = 0;
        for n in 0..200_000_u32 {
            // Words without digits, so that nothing folds.
            let word: String = n.to_string().bytes().map(|b| (b + 49) as char).collect();
            prefixes.add(format!("{word}:x:{word}").as_bytes(), &weight(10));
            prefixes.add(format!("heavy:{word}").as_bytes(), &weight(1_000));
            total += 1_010;
        }
        assert!(prefixes.nodes <= MAX_NODES);
        assert!(prefixes.dropped);
        assert_eq!(prefixes.nodes + 1, prefixes.root.nodes());
        let groups = prefixes.groups(20);
        assert_eq!(groups[0].prefix.as_deref(), Some("heavy:"));
        assert_eq!(groups[0].weight.keys, 200_000);
        let sum: u64 = groups.iter().map(|group| group.weight.bytes).sum();
        assert_eq!(sum, total);
    }
}
