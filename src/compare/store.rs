//! Rows of one side, dealt out over partitions by key, in one temporary file.
//!
//! The file has no name from the start: it goes away with us, however we end.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result};

use super::hashing::Print;
use super::row::Row;

/// Partitions. Two of them, one of each side, are in memory at a time.
pub(crate) const PARTITIONS: usize = 256;

/// Bytes of a partition that are written at once: 4 MiB for all of a side.
const BLOCK_BYTES: usize = 16 * 1024;

/// Room for the row behind which a block is full. Most are shorter.
const ROW_BYTES: usize = 256;

/// The rows of one side.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// Made when the first block is full.
    file: Option<File>,
    file_len: u64,
    partitions: Vec<Partition>,
    rows: u64,
}

#[derive(Debug, Default, Clone)]
struct Partition {
    /// Where its blocks are, and how long, in the order of writing.
    blocks: Vec<(u64, u32)>,
    block: Vec<u8>,
}

/// The partition that a key belongs to.
pub(crate) fn partition_of(print: Print) -> usize {
    (print >> 120) as usize
}

impl Store {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            partitions: vec![Partition::default(); PARTITIONS],
            ..Self::default()
        }
    }

    /// How many rows were added.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row. Of rows of the same key the last counts.
    ///
    /// # Errors
    /// The temporary file.
    pub(crate) fn add(&mut self, row: &Row) -> Result<()> {
        let partition = &mut self.partitions[partition_of(row.print)];
        if partition.block.capacity() == 0 {
            // A little more than is written at once: growing would double it.
            partition.block.reserve_exact(BLOCK_BYTES + ROW_BYTES);
        }
        row.write(&mut partition.block);
        self.rows += 1;
        if partition.block.len() < BLOCK_BYTES {
            return Ok(());
        }
        const WHAT: &str = "cannot write a temporary file (TMPDIR says where they are)";
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile().context(WHAT)?),
        };
        file.write_all(&partition.block).context(WHAT)?;
        let len = partition.block.len();
        // A row is at most a key of half a gigabyte.
        let len_bytes = u32::try_from(len).context("a row of more than 4 GiB")?;
        partition.blocks.push((self.file_len, len_bytes));
        self.file_len += len as u64;
        partition.block.clear();
        if partition.block.capacity() > 2 * BLOCK_BYTES {
            // A very long key is not kept room for.
            partition.block = Vec::new();
        }
        Ok(())
    }

    /// All rows of a partition, in the order in which they were added.
    ///
    /// # Errors
    /// The temporary file.
    pub(crate) fn partition(&self, number: usize) -> Result<Vec<u8>> {
        let Some(partition) = self.partitions.get(number) else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        self.read_blocks(partition, &mut all)
            .context("cannot read a temporary file")?;
        all.extend_from_slice(&partition.block);
        Ok(all)
    }

    fn read_blocks(&self, partition: &Partition, all: &mut Vec<u8>) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        for &(offset, len) in &partition.blocks {
            let start = all.len();
            all.resize(start + len as usize, 0);
            file.read_exact_at(&mut all[start..], offset)?;
        }
        Ok(())
    }
}
