//! What a verb writes: an archive, an RDB file, JSON Lines, a page, a value.

use std::io::{self, Write};

use anyhow::Result;

use super::standard::refuse_unmeant_stdout;
use super::store::Draft;
use super::{Location, Place};

/// Receives what is written. Dropped without [`Output::publish`], it leaves nothing where it can be
/// taken back.
pub struct Output {
    draft: Box<dyn Draft>,
    name: String,
}

impl Output {
    /// Opens what `-o` names. Without a name it is standard output, which must be no terminal and
    /// no file that holds something already; with `-` it is standard output whatever it is.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for an output that cannot be meant; the store's errors.
    pub fn open(place: Option<&Place>) -> Result<Self> {
        let location = place.map_or(Ok(&Location::Stream), Place::stored)?;
        if place.is_none() {
            refuse_unmeant_stdout()?;
        }
        Ok(Self {
            draft: location.store().create(location.word().as_ref())?,
            name: location.output_name(),
        })
    }

    /// What a dry run writes to.
    pub fn nowhere() -> Self {
        Self {
            draft: Box::new(Nowhere),
            name: "nowhere".to_owned(),
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Completes it: everything is kept safely, under its name.
    ///
    /// # Errors
    /// The store's; then it is not there.
    pub fn publish(self) -> Result<()> {
        self.draft.publish()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

struct Nowhere;

impl Draft for Nowhere {
    fn publish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
