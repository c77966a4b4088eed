//! What there is to say of the value that was made ready last.

use super::OpaqueKind;
use crate::dialect::Opcode;
use crate::ledger::Changes;
use crate::payload::{Checked, Losses, metadata};
use crate::record::{Context, KeyRecord};
use crate::sink::Miscounted;

/// What there is to say of one value.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// It is a stream that miscounts its entries.
    miscounted: Option<Miscounted>,
    /// It cannot be read here, and may be tried at the destination.
    opaque: Option<OpaqueKind>,
    /// Classes of key metadata, by number and name, that were left out.
    left_out: Vec<(u32, String)>,
    /// It is a graph.
    graph: bool,
    changes: Changes,
}

impl Last {
    /// The next value: nothing is known of it.
    pub(super) fn begin(&mut self) {
        self.miscounted = None;
        self.opaque = None;
        self.left_out.clear();
        self.graph = false;
        self.changes = Changes::default();
    }

    pub(super) fn changes(&self) -> Changes {
        self.changes
    }

    /// For what is changed elsewhere, and counted there.
    pub(super) fn changes_mut(&mut self) -> &mut Changes {
        &mut self.changes
    }

    /// It was refused: nothing was changed in what is written.
    pub(super) fn forget_changes(&mut self) {
        self.changes = Changes::default();
    }

    pub(super) fn note_restamped(&mut self) {
        self.changes.restamped += 1;
    }

    pub(super) fn note_reencoded(&mut self) {
        self.changes.reencoded += 1;
    }

    /// The server fills in what a stream does not say.
    pub(super) fn note_filled_in(&mut self) {
        self.changes.streams_filled_in = 1;
    }

    /// It lost this when it was written anew.
    pub(super) fn note_losses(&mut self, losses: &Losses) {
        self.changes.field_ttls_lost += losses.field_ttls;
        self.changes.field_ttls_clamped += losses.field_ttls_clamped;
        if losses.stream_metadata || losses.active_times {
            self.note_filled_in();
        }
        self.changes.idempotency_lost += u64::from(losses.idempotency);
        self.changes.given_back_owned += losses.given_back;
    }

    /// Of the classes `before`, those are left out that are not among `after`.
    pub(super) fn note_left_out(&mut self, before: Vec<(u32, String)>, after: &[(u32, String)]) {
        self.left_out = before;
        self.left_out.retain(|row| !after.contains(row));
    }

    pub(super) fn left_out(&self) -> &[(u32, String)] {
        &self.left_out
    }

    /// `corrected`: what goes out counts right.
    pub(super) fn note_count(&mut self, checked: &Checked, corrected: bool) {
        self.miscounted = checked.miscounted.map(|said| Miscounted {
            said,
            held: checked.count,
            corrected,
        });
    }

    pub(super) fn take_miscounted(&mut self) -> Option<Miscounted> {
        self.miscounted.take()
    }

    /// It cannot be read here; `kind` only if it may be tried at the destination.
    pub(super) fn note_opaque(&mut self, kind: Option<OpaqueKind>) {
        self.opaque = kind;
    }

    /// Only the destination knows whether it takes the classes of its metadata.
    pub(super) fn note_classes(&mut self, record: &KeyRecord, context: &Context) {
        let classes = metadata::classes(context.family, record.value.head()).unwrap_or_default();
        let classes = metadata::names(&classes);
        let before = self.opaque.take();
        let (first, rdb_version, name) =
            before.unwrap_or((Opcode::KeyMetadata.byte(), context.rdb_version, None));
        let name = name.map_or_else(|| classes.clone(), |name| format!("{name} with {classes}"));
        self.opaque = Some((first, rdb_version, Some(name)));
    }

    pub(super) fn opaque(&self) -> Option<&OpaqueKind> {
        self.opaque.as_ref()
    }

    pub(super) fn note_graph(&mut self, is_graph: bool) {
        self.graph = is_graph;
    }

    pub(super) fn is_graph(&self) -> bool {
        self.graph
    }
}
