//! A server that ends a connection whose replies are too much for it
//! (`client-output-buffer-limit`): less is asked for at once, down to one key. One that is too much
//! alone is named, and the others come.
//!
//! A network that breaks looks the same. So a connection that ended after there was progress, with
//! little under way, changes nothing.

/// With less than this under way no such limit was met.
const LITTLE_BYTES: usize = 256 * 1024;

/// The connection must end so many times at a key alone.
pub(in crate::source::server) const ALONE: u32 = 3;

/// So many keys in a row may be given up: what ends at each of them ends at anything.
const GIVEN_UP: u32 = 64;

/// So many windows without a loss, and twice as much may be under way.
const CALM: usize = 16;

/// What was under way when the other side ended the connection.
#[derive(Debug)]
pub(super) enum Load<'a> {
    Nothing,
    /// A page of names.
    Page,
    /// One key of this database.
    Key(u32, &'a [u8]),
    /// Several keys, of so many bytes as far as can be guessed.
    Keys {
        count: usize,
        bytes: usize,
    },
}

/// What the end of a connection changes in what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consequence {
    Nothing,
    /// Fewer keys at once.
    FewerKeys,
    /// Smaller pages of names.
    SmallerPages,
    /// The key that was under way is not asked for any more.
    GiveUpKey,
    /// It ends at one key after the other.
    Hopeless,
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

    /// The connection was lost. `ended` is what was under way, where the other side ended it.
    pub fn lost(&mut self, ended: Option<Load<'_>>) -> Consequence {
        let got_on = std::mem::take(&mut self.got_on);
        match ended {
            None | Some(Load::Nothing) => Consequence::Nothing,
            Some(Load::Page) if got_on => Consequence::Nothing,
            Some(Load::Page) => Consequence::SmallerPages,
            Some(Load::Keys { bytes, .. }) if got_on && bytes < LITTLE_BYTES => {
                Consequence::Nothing
            }
            Some(Load::Keys { count, .. }) => {
                self.most = Some(count / 2);
                self.calm = 0;
                Consequence::FewerKeys
            }
            Some(Load::Key(db, key)) => self.ended_at(db, key),
        }
    }

    /// The connection ended at this key, which was asked for alone.
    fn ended_at(&mut self, db: u32, key: &[u8]) -> Consequence {
        let times = match self.alone.take() {
            Some((known_db, known, times)) if (known_db, known.as_slice()) == (db, key) => {
                times + 1
            }
            _ => 1,
        };
        if times < ALONE {
            self.alone = Some((db, key.to_vec(), times));
            return Consequence::Nothing;
        }
        self.given_up += 1;
        if self.given_up > GIVEN_UP {
            return Consequence::Hopeless;
        }
        Consequence::GiveUpKey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_squeezed_grows_again() {
        let mut squeeze = Squeeze::default();
        assert_eq!(squeeze.most_keys(2_000), 2_000);
        let many = Load::Keys {
            count: 8,
            bytes: usize::MAX,
        };
        assert_eq!(squeeze.lost(Some(many)), Consequence::FewerKeys);
        assert_eq!(squeeze.most_keys(2_000), 4);
        for _ in 0..4 * CALM {
            assert_eq!(squeeze.most_keys(2_000), 4);
            squeeze.came();
        }
        assert_eq!(squeeze.most_keys(2_000), 8);
        assert_eq!(squeeze.most_keys(3), 3);
    }

    #[test]
    fn only_an_end_by_the_other_side_without_progress_changes_anything() {
        let few = || Load::Keys { count: 2, bytes: 9 };
        let mut squeeze = Squeeze::default();
        for ended in [None, Some(Load::Nothing)] {
            assert_eq!(squeeze.lost(ended), Consequence::Nothing);
        }
        assert_eq!(squeeze.lost(Some(Load::Page)), Consequence::SmallerPages);
        squeeze.came();
        assert_eq!(squeeze.lost(Some(Load::Page)), Consequence::Nothing);
        squeeze.came();
        assert_eq!(squeeze.lost(Some(few())), Consequence::Nothing);
        // The next time nothing had come in between.
        assert_eq!(squeeze.lost(Some(few())), Consequence::FewerKeys);
        assert_eq!(squeeze.most_keys(9), 1);
    }

    #[test]
    fn a_key_is_given_up_after_three_ends_in_a_row_and_after_many_such_keys_all_is() {
        let mut squeeze = Squeeze::default();
        let mut end = |key: u32| squeeze.lost(Some(Load::Key(0, &key.to_be_bytes())));
        assert_eq!(end(0), Consequence::Nothing);
        assert_eq!(end(1), Consequence::Nothing, "another key begins anew");
        for key in 1..=GIVEN_UP + 1 {
            let first = if key == 1 { 2 } else { 1 };
            for _ in first..ALONE {
                assert_eq!(end(key), Consequence::Nothing);
            }
            let last = match key {
                key if key > GIVEN_UP => Consequence::Hopeless,
                _ => Consequence::GiveUpKey,
            };
            assert_eq!(end(key), last, "{key}");
        }
        squeeze.came();
        for _ in 1..ALONE {
            squeeze.lost(Some(Load::Key(0, b"x")));
        }
        let after_progress = squeeze.lost(Some(Load::Key(0, b"x")));
        assert_eq!(after_progress, Consequence::GiveUpKey);
    }
}
