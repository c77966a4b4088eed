//! Learning what a destination accepts, by trying it out or by its version.

use std::collections::BTreeSet;

use crate::dialect::Feature;
use crate::observer::Observer;
use crate::payload::accept::{Accepts, Types, Versions};
use crate::payload::{BackLengths, VectorLayout};
use crate::record::Family;
use crate::server::facts::Facts;
use crate::server::patience::Patience;
use crate::server::{Conn, ServerError};
use crate::sink::server::refusal::has_no_absttl;
use crate::sink::server::try_out::{ProbeKeys, Tried, try_out};

/// What was learnt.
pub(super) struct Learnt {
    pub(super) accepts: Accepts,
    /// Whether that was tried out, or only looked up by version.
    pub(super) probed: bool,
    /// The destination's words, where it refuses every RESTORE.
    pub(super) obstacle: Option<String>,
}

/// What a destination accepts: what it showed, else what servers of its version accept.
///
/// # Errors
/// The connection.
pub(super) fn learn(
    conn: &mut Conn,
    facts: &Facts,
    keys: &ProbeKeys,
    observer: &Observer,
) -> Result<Learnt, ServerError> {
    let mut table = match facts.lookalike {
        Some(lookalike) => Some(Accepts::of_lookalike(lookalike)),
        None => Accepts::of_server(facts.dialect()),
    };
    let obstacle = match try_names(conn, facts, keys)? {
        Tried::Accepts(accepts) => {
            return Ok(Learnt {
                accepts,
                probed: true,
                obstacle: None,
            });
        }
        Tried::Refused(text) => Some(text),
        Tried::Blind(versions) => {
            if let (Some(versions), Some(table)) = (versions, &mut table) {
                table.versions = versions;
            }
            None
        }
        Tried::Unclear => None,
    };
    // Nothing goes by RESTORE then.
    let is_too_old = facts.dialect().lacks(Feature::RestoreAbsoluteTtl);
    let is_of_no_use = is_too_old || obstacle.as_deref().is_some_and(has_no_absttl);
    let accepts = match is_of_no_use {
        true => nothing(facts.family),
        false => look_up(table, facts, observer),
    };
    Ok(Learnt {
        accepts,
        probed: false,
        obstacle,
    })
}

/// Tries it on a name that nobody has; if that shows nothing, on one that the user may write.
fn try_names(conn: &mut Conn, facts: &Facts, keys: &ProbeKeys) -> Result<Tried, ServerError> {
    let mut patience = Patience::new(keys.patience);
    match try_out(conn, facts, &keys.plain, &mut patience)? {
        shown @ (Tried::Accepts(_) | Tried::Blind(_)) => Ok(shown),
        Tried::Refused(_) | Tried::Unclear => try_out(conn, facts, &keys.alike, &mut patience),
    }
}

/// What the server's version accepts, by the `table` of it.
fn look_up(table: Option<Accepts>, facts: &Facts, observer: &Observer) -> Accepts {
    match table {
        Some(mut table) => {
            table.answers = true;
            observer.notice(&format!(
                "the destination cannot be tried out; going by its version, {}",
                facts.title()
            ));
            table
        }
        None => {
            observer.warn(
                "what the destination accepts can neither be tried out nor looked up; payloads are \
                 sent as they are",
            );
            everything(facts.family)
        }
    }
}

/// Of a server that no payload can be sent to.
fn nothing(family: Family) -> Accepts {
    Accepts {
        family,
        versions: Versions::default(),
        types: Types::default(),
        modules: BTreeSet::new(),
        back_lengths: BackLengths::Early,
        vector_layout: VectorLayout::First,
        answers: false,
    }
}

/// For a server of which nothing is known: what it gets is what there is.
fn everything(family: Family) -> Accepts {
    Accepts {
        family,
        versions: std::iter::once(0..=u16::MAX).collect(),
        types: (0..=5).chain(9..=25).collect(),
        modules: BTreeSet::new(),
        back_lengths: BackLengths::Early,
        vector_layout: VectorLayout::First,
        answers: true,
    }
}
