//! What a destination takes in one piece: asked for where CONFIG GET is allowed, else found out.
//!
//! A server that is sent a longer argument than it takes hangs up (networking.c: "Protocol error:
//! invalid bulk length", or without a word where the query buffer is full). Where its limits are not
//! known, a value at which the connection was lost goes by native commands the next time, in
//! chunks; the worst that a cut in the network does is that a value takes that longer way.

use anyhow::Result;

use super::commands::CommandLimits;
use super::{Action, Sent, ServerSink};
use crate::payload::{Kind, kind};
use crate::server::ServerError;
use crate::server::reply::{cmd, from_reply};
use crate::units::bytes_text;

/// Every server takes so much: neither limit can be set below 1 MiB (config.c).
const SAFE_BYTES: u64 = (1 << 20) - (64 << 10);

/// The servers' words for an argument that is too long.
const TOO_LONG: &str = "Protocol error";

impl ServerSink {
    /// Whether a payload is more than the destination of `key` takes in one piece.
    pub(super) fn is_too_large(&mut self, at: usize, key: &[u8], bytes: usize) -> Result<bool> {
        // No server takes less than this unless it was told to, and few were.
        const SURELY_SMALL_BYTES: usize = 256 * 1024;
        if bytes <= SURELY_SMALL_BYTES {
            return Ok(false);
        }
        let at = if self.lanes[at].limits.is_some() {
            at
        } else {
            self.ask_lane(key, Self::learn_limits)?.0
        };
        Ok(bytes as u64 > self.lanes[at].restore_max_bytes)
    }

    /// Asks for the limits when the first large value comes; the servers' defaults where CONFIG
    /// GET is refused. Nothing may be in flight on the lane.
    pub(super) fn learn_limits(&mut self, at: usize) -> Result<CommandLimits, ServerError> {
        let lane = &mut self.lanes[at];
        if let Some(limits) = lane.limits {
            return Ok(limits);
        }
        let mut limits = CommandLimits::default();
        let conn = lane.conn()?;
        let mut ask = |name: &str| -> Result<Option<u64>, ServerError> {
            let value = conn.try_query(cmd("CONFIG").arg("GET").arg(name))?;
            let pair = value
                .ok()
                .and_then(|value| from_reply::<Vec<String>>(value).ok());
            Ok(pair.and_then(|pair| pair.get(1)?.parse().ok()))
        };
        let (bulk, query) = (
            ask("proto-max-bulk-len")?,
            ask("client-query-buffer-limit")?,
        );
        lane.limits_known = bulk.is_some() && query.is_some();
        limits.max_bulk_bytes = bulk.unwrap_or(limits.max_bulk_bytes);
        limits.max_query_bytes = query.unwrap_or(limits.max_query_bytes);
        lane.restore_max_bytes = limits.max_argument_bytes();
        lane.limits = Some(limits);
        Ok(limits)
    }

    /// The connection was lost: was it for the size of what is the first without an answer?
    pub(super) fn suspect_size(&mut self, at: usize, error: &ServerError) {
        let lane = &mut self.lanes[at];
        let says = error.to_string().contains(TOO_LONG);
        let (Some(first), Some(limits)) = (lane.sent.front(), &mut lane.limits) else {
            return;
        };
        let bytes = first.bytes as u64;
        let is_restore =
            matches!(first.action, Action::Restore { .. }) && first.by_commands.is_none();
        if !is_restore || bytes <= SAFE_BYTES || (lane.limits_known && !says) {
            return;
        }
        if says {
            limits.max_bulk_bytes = limits.max_bulk_bytes.min(bytes - 1);
            lane.commands = None;
        }
        lane.restore_max_bytes = lane.restore_max_bytes.min((bytes / 2).max(SAFE_BYTES));
        self.observer.notice(&format!(
            "the destination hung up at a value of {}, and does not say what it takes: values of \
             more than {} go by native commands from here on",
            bytes_text(bytes),
            bytes_text(lane.restore_max_bytes)
        ));
    }

    /// The connection was lost while this was written by commands: was it for an element?
    pub(super) fn suspect_element(&mut self, at: usize, sent: &mut Sent, error: &ServerError) {
        sent.strikes = sent.strikes.saturating_add(1);
        let says = error.to_string().contains(TOO_LONG);
        let value = sent.record.value.bytes();
        let is_string = kind(sent.context.family, value) == Kind::String;
        let lane = &mut self.lanes[at];
        // A string goes in pieces; and once may be chance.
        if is_string || (!says && (lane.limits_known || sent.strikes < 2)) {
            return;
        }
        let largest = super::commands::largest_argument(sent.context.family, value);
        if let (Some(limits), Some(largest)) = (&mut lane.limits, largest)
            && largest > SAFE_BYTES
        {
            limits.max_bulk_bytes = limits.max_bulk_bytes.min(largest - 1);
            lane.commands = None;
        }
    }

    /// Whether it was sent by RESTORE and must not be again.
    pub(super) fn is_refused_size(&self, sent: &Sent) -> bool {
        let lane = &self.lanes[sent.at];
        matches!(sent.action, Action::Restore { .. })
            && sent.by_commands.is_none()
            && lane.limits.is_some()
            && sent.bytes as u64 > lane.restore_max_bytes
    }
}
