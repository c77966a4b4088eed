//! A server that ends a connection whose replies are too much for it
//! (`client-output-buffer-limit`): less is asked for at once, down to one key. One that is too much
//! alone is named, and the others come.
//!
//! A network that breaks looks the same. So a connection that ended after there was progress, with
//! little under way, changes nothing.

use anyhow::Result;

use super::ServerSource;
use crate::observer::{FailureKind, KeyFailure};

/// With less than this under way no such limit was met.
const LITTLE_BYTES: usize = 256 * 1024;

/// The connection must end so many times at a key alone.
const ALONE: u32 = 3;

/// So many keys in a row may be given up: what ends at each of them ends at anything.
const GIVEN_UP: u32 = 64;

/// So many windows without a loss, and twice as much may be under way.
const CALM: usize = 16;

/// What a loss of the connection changes in what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Nothing,
    /// Less at once.
    Less,
    /// A key is not asked for any more.
    GivenUp,
}

/// How much may be asked for at once.
#[derive(Debug, Default)]
pub(super) struct Squeeze {
    /// Keys; `None` where there is no reason for any limit.
    most: Option<usize>,
    /// Keys that came since it last changed.
    calm: usize,
    /// Whether anything came since the connection was last lost.
    got_on: bool,
    /// The key that was under way alone when the connection ended, and how often.
    alone: Option<(u32, Vec<u8>, u32)>,
    given_up: u32,
}

impl Squeeze {
    /// At most so many keys, and no more than is allowed now.
    pub fn most_keys(&self, most: usize) -> usize {
        self.most.map_or(most, |own| own.min(most))
    }

    /// A key came.
    pub fn came(&mut self) {
        self.got_on = true;
        self.given_up = 0;
        if let Some(most) = &mut self.most {
            self.calm += 1;
            if self.calm >= CALM * *most {
                *most *= 2;
                self.calm = 0;
            }
        }
    }
}

impl ServerSource {
    /// The connection was lost: before what was under way is asked for again, whether less of it is
    /// to be asked for at once.
    ///
    /// # Errors
    /// The observer's, and that the connection ends at one key after the other.
    pub(super) fn squeeze(&mut self) -> Result<Changed> {
        let got_on = std::mem::take(&mut self.squeeze.got_on);
        if !self.conn.was_closed() {
            return Ok(Changed::Nothing);
        }
        let under_way = self.sent_keys;
        if under_way == 0 {
            let less = self.scan_in_flight && !got_on && self.page.shrink();
            return Ok(if less {
                Changed::Less
            } else {
                Changed::Nothing
            });
        }
        if under_way > 1 {
            if got_on && under_way.saturating_mul(self.guess_bytes) < LITTLE_BYTES {
                return Ok(Changed::Nothing);
            }
            self.squeeze.most = Some(under_way / 2);
            self.squeeze.calm = 0;
            return Ok(Changed::Less);
        }
        let Some(key) = self.first_under_way() else {
            return Ok(Changed::Nothing);
        };
        let times = match self.squeeze.alone.take() {
            Some((db, known, times)) if (db, &known) == (self.db, &key) => times + 1,
            _ => 1,
        };
        if times < ALONE {
            self.squeeze.alone = Some((self.db, key, times));
            return Ok(Changed::Nothing);
        }
        self.squeeze.given_up += 1;
        if self.squeeze.given_up > GIVEN_UP {
            let what = "the connection ends at one key after the other, each asked for alone";
            return Err(self.conn.confused(what).into());
        }
        self.give_up(&key)?;
        Ok(Changed::GivenUp)
    }

    fn first_under_way(&self) -> Option<Vec<u8>> {
        let awaited = self.awaited.front().map(|awaited| awaited.key.clone());
        awaited.or_else(|| {
            let mut groups = self.sent.iter().filter_map(super::Sent::group);
            groups.find_map(|group| group.first().cloned())
        })
    }

    /// The key that is under way alone is not asked for again.
    fn give_up(&mut self, key: &[u8]) -> Result<()> {
        self.awaited.clear();
        self.sent.retain(|sent| sent.group().is_none());
        self.sent_keys = 0;
        if !self.count_failure(key, false)? {
            return Ok(());
        }
        self.observer.key_failed(&KeyFailure {
            db: self.db,
            key: key.to_vec(),
            kind: FailureKind::Unread,
            reason: format!(
                "the source closes the connection each time when this key alone is asked for \
                 ({ALONE} times)"
            ),
            hint: Some(
                "its value may be more than client-output-buffer-limit normal of the source \
                 allows: raise it there (CONFIG SET), or read with --via replica"
                    .to_owned(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_squeezed_grows_again() {
        let mut squeeze = Squeeze::default();
        assert_eq!(squeeze.most_keys(2_000), 2_000);
        squeeze.most = Some(4);
        assert_eq!(squeeze.most_keys(2_000), 4);
        for _ in 0..4 * CALM {
            assert_eq!(squeeze.most_keys(2_000), 4);
            squeeze.came();
        }
        assert_eq!(squeeze.most_keys(2_000), 8);
        assert_eq!(squeeze.most_keys(3), 3);
    }
}
