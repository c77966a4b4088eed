//! What must become of a value, by what the destination accepts.

use crate::payload::accept::{
    Accepts, Plan, Refusal, plan, plan_checked, plan_value, refused_as_is,
};
use crate::payload::{self, Checked, Encoding};
use crate::record::Family;

/// Plans for values, one by one.
#[derive(Debug)]
pub(super) struct Planner {
    accepts: Accepts,
    /// For `--sanitize`: what it accepts of the types that hold nothing packed.
    universal: Option<Accepts>,
    /// Whether the destination is of neither family, whatever types it turned out to know: what a
    /// number that nobody here knows means there, nobody knows either.
    is_other: bool,
}

impl Planner {
    /// For a destination that accepts this; with `sanitize`, every value is written anew.
    pub(super) fn new(accepts: Accepts, sanitize: bool, is_other: bool) -> Self {
        Self {
            universal: sanitize.then(|| without_packed(&accepts)),
            accepts,
            is_other,
        }
    }

    pub(super) fn accepts(&self) -> &Accepts {
        &self.accepts
    }

    /// From now on values of this module's type are let through.
    pub(super) fn let_through(&mut self, module_type: String) {
        self.accepts.modules.insert(module_type);
    }

    /// Whether every value is written anew, whatever the destination would take (`--sanitize`).
    pub(super) fn sanitizes(&self) -> bool {
        self.universal.is_some()
    }

    /// For a value that was checked. `body` is type byte and body, without a footer.
    pub(super) fn plan(
        &self,
        family: Family,
        rdb_version: u16,
        body: &[u8],
        checked: &Checked,
    ) -> Plan {
        let plan = plan_checked(&self.accepts, family, rdb_version, body, checked);
        match &self.universal {
            Some(universal) if !matches!(plan, Plan::Refuse(_) | Plan::Reencode { .. }) => {
                self.anew(universal, family, rdb_version, body)
            }
            _ => plan,
        }
    }

    /// For a value that cannot be read here; `first` is its type byte.
    pub(super) fn plan_opaque(
        &self,
        family: Family,
        rdb_version: u16,
        first: u8,
        body: &[u8],
    ) -> Plan {
        match self.is_other {
            true => Plan::Refuse(Refusal::Opaque(first)),
            false => plan_value(&self.accepts, family, rdb_version, body),
        }
    }

    /// Whether a value of this type byte is taken in the form that it has, by all that is known here.
    pub(super) fn takes_as_is(&self, family: Family, first: u8, checked: &Checked) -> bool {
        Encoding::of(family, first)
            .is_some_and(|encoding| !refused_as_is(&self.accepts, encoding, checked))
    }

    fn anew(&self, universal: &Accepts, family: Family, rdb_version: u16, body: &[u8]) -> Plan {
        match plan(universal, family, rdb_version, type_byte(family, body)) {
            Plan::Refuse(refusal) => Plan::Refuse(refusal),
            Plan::Verbatim => Plan::Verbatim,
            Plan::Keep | Plan::Restamp(_) | Plan::Reencode { .. } => {
                let forms = self.accepts.forms();
                let version = self.accepts.versions.nearest(rdb_version, forms.since());
                Plan::Reencode {
                    forms,
                    version: version.unwrap_or(rdb_version),
                }
            }
        }
    }
}

/// The same destination, if it took nothing that is packed.
fn without_packed(accepts: &Accepts) -> Accepts {
    const PACKED: [u8; 11] = [9, 10, 11, 12, 13, 14, 16, 17, 18, 20, 25];
    Accepts {
        types: accepts
            .types
            .iter()
            .filter(|byte| !PACKED.contains(byte))
            .collect(),
        ..accepts.clone()
    }
}

/// The type byte of a value, behind its key metadata; one that nobody has where there is none.
pub(super) fn type_byte(family: Family, value: &[u8]) -> u8 {
    payload::type_byte(family, value).unwrap_or(u8::MAX)
}
