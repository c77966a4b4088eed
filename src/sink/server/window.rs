//! How much may be in flight on a connection: little where the server is near, which keeps it all
//! in the processors' caches; as much as a round trip takes where it is far away.

use std::time::Duration;

/// What may be in flight on one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Bytes of values.
    pub bytes: usize,
    /// Records.
    pub records: usize,
}

impl Window {
    /// Of a server that is near.
    pub const NEAR: Self = Self {
        bytes: 4 << 20,
        records: 8_000,
    };

    /// Of one on the other side of the world.
    const FAR: Self = Self {
        bytes: 24 << 20,
        records: 64_000,
    };

    /// Of a server that answers after so long. Half of the window is out while the other half is
    /// filled: per millisecond it holds twice of what a server takes in that time.
    pub fn for_round_trip(time: Duration) -> Self {
        let ms = usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let of =
            |per_ms: usize, near: usize, far: usize| ms.saturating_mul(per_ms).clamp(near, far);
        Self {
            bytes: of(384 << 10, Self::NEAR.bytes, Self::FAR.bytes),
            records: of(1_300, Self::NEAR.records, Self::FAR.records),
        }
    }

    /// The share of each of so many lanes.
    pub fn shared(self, lanes: usize) -> Self {
        /// All lanes together.
        const ALL_BYTES: usize = 32 << 20;
        Self {
            bytes: (ALL_BYTES / lanes.max(1)).clamp(256 << 10, self.bytes),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_away_gets_more_within_bounds() {
        let of = |ms| Window::for_round_trip(Duration::from_millis(ms));
        assert_eq!(of(0), Window::NEAR);
        assert_eq!(of(3), Window::NEAR);
        assert!(of(20).records > 20_000 && of(20).bytes > Window::NEAR.bytes);
        assert_eq!(of(1_000), Window::FAR);
        assert_eq!(of(1_000).shared(1_000).bytes, 256 << 10);
        assert_eq!(Window::NEAR.shared(2), Window::NEAR);
    }
}
