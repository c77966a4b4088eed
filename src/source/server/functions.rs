//! The function libraries of a server that is read by itself.

use super::libraries::FunctionsBy;
use crate::record::{Batch, Record};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// To be given.
    payload: Option<Vec<u8>>,
    /// What they are read by, where they can be.
    by: Option<FunctionsBy>,
    given: u64,
}

impl Functions {
    pub fn new(payload: Option<Vec<u8>>, by: Option<FunctionsBy>) -> Self {
        Self {
            payload,
            by,
            given: 0,
        }
    }

    pub fn by(&self) -> Option<FunctionsBy> {
        self.by
    }

    /// How many payloads were given.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// An earlier run gave them.
    pub fn were_given(&mut self, payloads: u64) {
        if payloads > 0 {
            self.payload = None;
            self.given = payloads;
        }
    }

    /// They are to be given later, as they are then.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.payload.take()
    }

    /// Gives them, if there are any and they were not given.
    pub fn give(&mut self, batch: &mut Batch) {
        if let Some(payload) = self.payload.take() {
            self.given += 1;
            batch.push(Record::Functions(payload));
        }
    }

    /// These are to be given.
    pub fn put(&mut self, payload: Option<Vec<u8>>) {
        self.payload = payload;
    }
}
