//! What it means that a key is on one side, or on both, as it is.

use super::meaning::{Depth, Meaning};
use super::row::{Row, What};
use crate::payload::Kind;

/// How far two expiries may lie apart unless something else is asked for. Servers before 7.0 say
/// only how long there is left, and what is derived from it is off by some milliseconds.
pub(crate) const TTL_TOLERANCE_MS: u64 = 1_000;

/// What counts as a difference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge {
    /// How far expiries of keys may lie apart.
    pub ttl_tolerance_ms: u64,
    /// Whether they are looked at.
    pub ignore_ttl: bool,
    /// Whether expiries of fields are not looked at.
    pub ignore_field_ttl: bool,
    /// The latest moment that the left and the right side speak of.
    pub moments_ms: (u64, u64),
}

/// In what a key differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    /// Only on the left.
    Missing,
    /// Only on the right.
    Extra,
    /// The type.
    Type,
    /// The value.
    Value,
    /// Nobody but its server can read the value, and its bytes are not the same.
    Unreadable,
    /// Consumer groups of a stream.
    Groups,
    /// What a stream says of itself from 7.0 on.
    StreamMetadata,
    /// What modules keep beside the value.
    KeyMetadata,
    /// Expiries of fields.
    FieldTtl,
    /// The expiry.
    Ttl,
    /// Only its server can read the value, and gives other bytes each time it is asked.
    Unsteady,
    /// Only its server can read the value, whose bytes are not the same for the same value.
    Shifting,
    /// Of a type that is newer than this version, and its bytes are not the same. Two values of a known
    /// type may have other bytes and mean the same, so nobody can tell.
    UnknownType,
    /// Only fields differ that expire while the sides are read, and they are too many to be told apart.
    FieldsExpiring,
    /// The value is larger than was allowed, and was not looked at.
    TooLarge,
    /// The value could not be read.
    Unread,
    /// Several keys of the left side have this name after it was changed.
    Collision,
}

impl Aspect {
    /// The class that it is counted under.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Aspect::Missing => "missing",
            Aspect::Extra => "extra",
            Aspect::Type => "type",
            Aspect::Value
            | Aspect::Unreadable
            | Aspect::Groups
            | Aspect::StreamMetadata
            | Aspect::KeyMetadata => "value",
            Aspect::FieldTtl => "field-ttl",
            Aspect::Ttl => "ttl",
            Aspect::Unsteady
            | Aspect::Shifting
            | Aspect::UnknownType
            | Aspect::FieldsExpiring
            | Aspect::TooLarge => "incomparable",
            Aspect::Unread => "unread",
            Aspect::Collision => "collision",
        }
    }

    /// Whether nobody can tell whether the key, which was read, differs.
    pub(crate) fn is_incomparable(self) -> bool {
        self.class() == "incomparable"
    }

    /// Whether it is a matter of the value, whose type is the same.
    pub(crate) fn is_of_value(self) -> bool {
        self.class() == "value" || self == Aspect::FieldTtl
    }

    /// The word for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Aspect::Unreadable => "unreadable",
            Aspect::Groups => "groups",
            Aspect::StreamMetadata => "stream-metadata",
            Aspect::KeyMetadata => "key-metadata",
            Aspect::Unsteady | Aspect::Shifting => "unsteady",
            Aspect::UnknownType => "unknown-type",
            Aspect::FieldsExpiring => "fields-expiring",
            Aspect::TooLarge => "too-large",
            other => other.class(),
        }
    }

    /// The words for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Aspect::Missing => "missing",
            Aspect::Extra => "extra",
            Aspect::Type => "another type",
            Aspect::Value => "another value",
            Aspect::Unreadable => "other bytes of a value that cannot be read to compare",
            Aspect::Groups => "other consumer groups",
            Aspect::StreamMetadata => "other stream metadata",
            Aspect::KeyMetadata => "other key metadata of modules",
            Aspect::FieldTtl => "other field expiry",
            Aspect::Ttl => "another expiry",
            Aspect::Unsteady => {
                "only a server with the module can read it, and its bytes differ each time it is asked"
            }
            Aspect::Shifting => {
                "only a server with the module can read it, and its bytes are not the same for the \
                 same value"
            }
            Aspect::UnknownType => {
                "of a type that this version cannot read, and its bytes are not the same: only its \
                 servers know whether the values are"
            }
            Aspect::FieldsExpiring => {
                "only fields that expire while it is compared differ, and they are too many to be \
                 told apart"
            }
            Aspect::TooLarge => "larger than --max-value allows, and not looked at",
            Aspect::Unread => "could not be read",
            Aspect::Collision => "several keys of A get this name",
        }
    }
}

/// What was found of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not take part.
    Nothing,
    /// The same. `partly`: without what only one of the two servers keeps.
    Equal {
        /// See there.
        partly: bool,
    },
    /// It, or fields of it, expired between the two readings.
    Expired,
    /// Different in these aspects, the weightiest first.
    Different(Vec<Aspect>),
    /// Nobody can tell, and why.
    Incomparable(Aspect),
}

/// Why the values cannot be compared, if one of them is not known. A server that is asked with the
/// same limit does not give what is too large: that one of them is says more.
fn unknown(left: &Row, right: &Row) -> Option<Aspect> {
    let is = |depth| left.meaning.depth == depth || right.meaning.depth == depth;
    if is(Depth::Collided) {
        Some(Aspect::Collision)
    } else if is(Depth::TooLarge) {
        Some(Aspect::TooLarge)
    } else {
        is(Depth::Unread).then_some(Aspect::Unread)
    }
}

/// Whether the bytes of a value say nothing of what it is.
fn is_shifting(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.meaning.depth == Depth::Shifting)
}

/// How key metadata of two sides compare.
enum Metadata {
    Same,
    /// One side has a class that the other one does not have: its server keeps none, or the class was
    /// left out on the way there, which was told then.
    OneSided,
    Different,
}

fn metadata(left: &Meaning, right: &Meaning) -> Metadata {
    let both_keep = left.keeps_metadata && right.keeps_metadata;
    let (mut differ, mut one_sided) = (false, false);
    for (side, others) in [
        (&left.metadata, &right.metadata),
        (&right.metadata, &left.metadata),
    ] {
        for one in side {
            match others.iter().find(|other| other.class == one.class) {
                Some(other) => differ |= one.print != other.print,
                None if both_keep && !one.left_out => differ = true,
                None => one_sided = true,
            }
        }
    }
    match (differ, one_sided) {
        (true, _) => Metadata::Different,
        (false, true) => Metadata::OneSided,
        (false, false) => Metadata::Same,
    }
}

/// Whether one of them is of a type that is newer than this version; a module's is not.
fn is_of_unknown_type(left: Option<&Row>, right: Option<&Row>) -> bool {
    let rows = || left.into_iter().chain(right);
    let is_unknown =
        |row: &Row| row.meaning.depth == Depth::Opaque && row.what != What::Key(Kind::Module);
    rows().any(is_unknown) && !rows().any(|row| row.meaning.depth == Depth::Damaged)
}

impl Judge {
    /// Judges a key. `is_unsteady`: one side gave other bytes for it when it was asked again.
    pub(crate) fn judge(
        &self,
        left: Option<&Row>,
        right: Option<&Row>,
        is_unsteady: bool,
    ) -> Verdict {
        match self.judge_steady(left, right) {
            Verdict::Different(aspects) if is_unsteady && aspects == [Aspect::Unreadable] => {
                Verdict::Incomparable(Aspect::Unsteady)
            }
            Verdict::Different(aspects)
                if aspects == [Aspect::Unreadable] && is_shifting(left) && is_shifting(right) =>
            {
                Verdict::Incomparable(Aspect::Shifting)
            }
            Verdict::Different(aspects)
                if aspects == [Aspect::Unreadable] && is_of_unknown_type(left, right) =>
            {
                Verdict::Incomparable(Aspect::UnknownType)
            }
            verdict => verdict,
        }
    }

    fn judge_steady(&self, left: Option<&Row>, right: Option<&Row>) -> Verdict {
        let there = |row: &&Row| row.what != What::Gone;
        match (left.filter(there), right.filter(there)) {
            (None, None) => Verdict::Nothing,
            (Some(left), None) => self.alone(left, self.moments_ms.1, Aspect::Missing),
            (None, Some(right)) => self.alone(right, self.moments_ms.0, Aspect::Extra),
            (Some(left), Some(right)) if !left.selected && !right.selected => Verdict::Nothing,
            (Some(left), Some(right)) => match unknown(left, right) {
                Some(aspect) => Verdict::Incomparable(aspect),
                None => self.both(left, right),
            },
        }
    }

    /// `moment_ms`: the latest that the side speaks of that does not have it.
    fn alone(&self, row: &Row, moment_ms: u64, aspect: Aspect) -> Verdict {
        if !row.selected {
            return Verdict::Nothing;
        }
        let is_past = row
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= moment_ms.saturating_add(TTL_TOLERANCE_MS));
        let is_gone = match row.what {
            What::Key(kind) => row.meaning.at(self.now_ms()).is_gone(kind),
            _ => false,
        };
        if is_past || is_gone {
            Verdict::Expired
        } else if row.meaning.depth == Depth::Collided {
            Verdict::Incomparable(Aspect::Collision)
        } else if row.meaning.depth == Depth::TooLarge {
            // The other side may have left it out for the same reason.
            Verdict::Incomparable(Aspect::TooLarge)
        } else if row.meaning.depth == Depth::Unread {
            // It may have been on its way out, and its expiry is not known either.
            Verdict::Incomparable(Aspect::Unread)
        } else {
            Verdict::Different(vec![aspect])
        }
    }

    fn now_ms(&self) -> u64 {
        self.moments_ms.0.max(self.moments_ms.1)
    }

    fn both(&self, left: &Row, right: &Row) -> Verdict {
        let (mut aspects, mut partly, mut is_unsure) = (Vec::new(), false, false);
        let (ours, theirs) = (&left.meaning, &right.meaning);
        let unreadable = |row: &Row| {
            matches!(
                row.meaning.depth,
                Depth::Opaque | Depth::Shifting | Depth::Damaged
            )
        };
        let unknown = |row: &Row| row.what == What::Key(Kind::Unknown);
        if unreadable(left) || unreadable(right) {
            let is_type = left.what != right.what && !unknown(left) && !unknown(right);
            if is_type {
                aspects.push(Aspect::Type);
            } else if ours.body != theirs.body || left.what != right.what {
                aspects.push(Aspect::Unreadable);
            }
        } else if left.what != right.what {
            aspects.push(Aspect::Type);
        } else {
            let now_ms = self.now_ms();
            (aspects, partly) = self.values(left.what, &ours.at(now_ms), &theirs.at(now_ms));
            if !aspects.is_empty() && (ours.is_unsure(now_ms) || theirs.is_unsure(now_ms)) {
                is_unsure = true;
                // Without their expiry nobody can say which fields last.
                (aspects, partly) = match self.ignore_field_ttl {
                    true => (Vec::new(), true),
                    false => self.values(left.what, &ours.lasting(), &theirs.lasting()),
                };
            }
        }
        match metadata(ours, theirs) {
            Metadata::Same => {}
            Metadata::OneSided => partly = true,
            Metadata::Different => aspects.push(Aspect::KeyMetadata),
        }
        if !self.ignore_ttl && !self.is_same_expiry(left.expire_at_ms, right.expire_at_ms) {
            aspects.push(Aspect::Ttl);
        }
        if is_unsure && aspects.is_empty() {
            Verdict::Incomparable(Aspect::FieldsExpiring)
        } else if aspects.is_empty() {
            Verdict::Equal { partly }
        } else {
            Verdict::Different(aspects)
        }
    }

    /// In what two values of one type differ, and whether something was left out of that.
    fn values(&self, what: What, ours: &Meaning, theirs: &Meaning) -> (Vec<Aspect>, bool) {
        let (mut aspects, mut partly) = (Vec::new(), false);
        if ours.body != theirs.body || ours.count != theirs.count {
            aspects.push(Aspect::Value);
        }
        if ours.more != theirs.more {
            match what {
                What::Key(Kind::Stream) => aspects.push(Aspect::Groups),
                // One that says nothing of rules may have some all the same: DUMP leaves them out.
                What::Key(Kind::Module) => match ours.more == 0 || theirs.more == 0 {
                    true => partly = true,
                    false if aspects.is_empty() => aspects.push(Aspect::Value),
                    false => {}
                },
                _ if self.ignore_field_ttl => partly = true,
                _ => aspects.push(Aspect::FieldTtl),
            }
        }
        let mut differs = false;
        for (has, ours_of, theirs_of) in [
            (Depth::has_late as fn(Depth) -> bool, ours.late, theirs.late),
            (Depth::has_idempotency, ours.idempotency, theirs.idempotency),
            (Depth::has_given_back, ours.given_back, theirs.given_back),
        ] {
            if ours_of == theirs_of {
                continue;
            }
            // What only one of them keeps is left out.
            match has(ours.depth) && has(theirs.depth) {
                true => differs = true,
                false => partly = true,
            }
        }
        if differs {
            aspects.push(Aspect::StreamMetadata);
        }
        (aspects, partly)
    }

    fn is_same_expiry(&self, left: Option<u64>, right: Option<u64>) -> bool {
        match (left, right) {
            (None, None) => true,
            (Some(left), Some(right)) => left.abs_diff(right) <= self.ttl_tolerance_ms,
            _ => false,
        }
    }
}
