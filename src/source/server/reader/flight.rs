//! What was asked for and is not answered yet, in the order of the answers.

use std::collections::VecDeque;

use super::KeyFacts;
use super::fate::OpenKey;

/// One thing that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// A page of names; the backlog knows which.
    Page,
    /// Keys in one transaction.
    Group(Vec<Vec<u8>>),
}

/// What is answered next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Page,
    /// A group of so many keys.
    Group(usize),
    Nothing,
}

/// Everything under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    asked: VecDeque<Asked>,
    /// Keys of the group whose payloads come next.
    open: VecDeque<OpenKey>,
    keys: usize,
}

impl Flight {
    /// Keys asked for and not yet read.
    pub fn keys(&self) -> usize {
        self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.open.is_empty()
    }

    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn next(&self) -> Next {
        match self.asked.front() {
            Some(Asked::Page) => Next::Page,
            Some(Asked::Group(keys)) => Next::Group(keys.len()),
            None => Next::Nothing,
        }
    }

    pub fn ask_page(&mut self) {
        self.asked.push_back(Asked::Page);
    }

    /// Counted as under way whether it goes out or not: what waits for an answer is asked again.
    pub fn ask_group(&mut self, keys: Vec<Vec<u8>>) -> &[Vec<u8>] {
        self.keys += keys.len();
        self.asked.push_back(Asked::Group(keys));
        match self.asked.back() {
            Some(Asked::Group(keys)) => keys,
            _ => &[],
        }
    }

    pub fn page_came(&mut self) -> bool {
        let is_page = matches!(self.asked.front(), Some(Asked::Page));
        if is_page {
            self.asked.pop_front();
        }
        is_page
    }

    /// The group whose answer is next.
    fn take_group(&mut self) -> Option<Vec<Vec<u8>>> {
        match self.asked.pop_front() {
            Some(Asked::Group(keys)) => Some(keys),
            Some(page) => {
                self.asked.push_front(page);
                None
            }
            None => None,
        }
    }

    /// The head of the next group came, with what it said of each key; `false` if that was no
    /// group, or one of another size.
    pub fn open(&mut self, facts: Vec<KeyFacts>) -> bool {
        match self.take_group() {
            Some(keys) if keys.len() == facts.len() => {
                let open = keys.into_iter().zip(facts);
                self.open.extend(open.map(|(key, facts)| OpenKey {
                    key,
                    expiry: facts.expiry,
                    eviction: facts.eviction,
                }));
                true
            }
            _ => false,
        }
    }

    /// The next group was refused as a whole: its keys are no longer under way.
    pub fn refused(&mut self) -> Vec<Vec<u8>> {
        let keys = self.take_group().unwrap_or_default();
        self.keys -= keys.len();
        keys
    }

    /// All that was to come of the next key of the open group came.
    pub fn close_key(&mut self) -> Option<OpenKey> {
        let open = self.open.pop_front();
        self.keys -= usize::from(open.is_some());
        open
    }

    /// The key whose answer is next.
    pub fn first_key(&self) -> Option<&[u8]> {
        let open = self.open.front().map(|open| open.key.as_slice());
        open.or_else(|| {
            self.asked.iter().find_map(|asked| match asked {
                Asked::Group(keys) => keys.first().map(Vec::as_slice),
                Asked::Page => None,
            })
        })
    }

    /// Nothing is under way any more: the keys that were.
    pub fn clear(&mut self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.open.drain(..).map(|open| open.key).collect();
        for asked in self.asked.drain(..) {
            if let Asked::Group(group) = asked {
                keys.extend(group);
            }
        }
        self.keys = 0;
        keys
    }
}
