//! Fields of hashes that are past their time: no server would give them, and none takes them.

use super::ServerSink;
use crate::payload::{self, FieldFate};
use crate::record::{Context, KeyRecord, Value};

impl ServerSink {
    /// Leaves them out and counts them. A hash of nothing else becomes a key past its time.
    pub(super) fn strip_past_fields(&mut self, record: &mut KeyRecord, context: &Context) {
        let Some(body) = payload::body_with_field_expiry(context.family, &record.value) else {
            return;
        };
        let now_ms = self.clock.now_ms();
        let fate = |at_ms: u64| match at_ms <= now_ms {
            true => FieldFate::Goes,
            false => FieldFate::Expires(Some(at_ms)),
        };
        let Ok(Some(done)) = payload::refield(context.family, body, fate) else {
            return;
        };
        self.report.changes.fields_expired += done.gone;
        match done.left {
            0 => record.expire_at_ms = Some(1),
            _ => record.value = Value::Compact(done.value),
        }
    }
}
