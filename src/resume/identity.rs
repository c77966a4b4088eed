//! What makes a run the same as an earlier one: everything that decides what is written, as data whose
//! form is a promise. It is put into JSON and kept as a digest, so that a state names no keys and does
//! not grow with the command line.
//!
//! A field that is added, left out or renamed makes all states foreign: then the versions
//! ([`VERSION`](super::VERSION), [`EXPORT_VERSION`](super::EXPORT_VERSION)) go up, and older states are
//! refused with words that say so.

use anyhow::Result;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::glob::Glob;

use crate::select::Selection;
use crate::units::hex;

/// Of what a run goes by.
///
/// # Errors
/// None that a struct of plain data gives.
pub fn digest(identity: &impl Serialize) -> Result<String> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(identity)?)))
}

/// Which keys take part.
#[derive(Debug, Serialize)]
pub struct SelectionIdentity {
    dbs: Vec<u32>,
    only_keys: Vec<Vec<u8>>,
    matches: Vec<Vec<u8>>,
    excludes: Vec<Vec<u8>>,
    types: Vec<String>,
    min_size_bytes: Option<u64>,
    max_size_bytes: Option<u64>,
    with_ttl: bool,
    without_ttl: bool,
    min_ttl_ms: Option<u64>,
    max_ttl_ms: Option<u64>,
}

impl SelectionIdentity {
    /// Of what the command line selects.
    pub fn of(selection: &Selection) -> Self {
        // All fields, so that a new one is not forgotten.
        let Selection {
            dbs,
            only_keys,
            matches,
            excludes,
            types,
            min_size_bytes,
            max_size_bytes,
            with_ttl,
            without_ttl,
            min_ttl_ms,
            max_ttl_ms,
            names: _,
            passed_over: _,
        } = selection;
        let patterns = |globs: &[Glob]| globs.iter().map(|glob| glob.pattern().to_vec()).collect();
        Self {
            dbs: dbs.clone(),
            only_keys: only_keys.clone(),
            matches: patterns(matches),
            excludes: patterns(excludes),
            types: types.clone(),
            min_size_bytes: *min_size_bytes,
            max_size_bytes: *max_size_bytes,
            with_ttl: *with_ttl,
            without_ttl: *without_ttl,
            min_ttl_ms: *min_ttl_ms,
            max_ttl_ms: *max_ttl_ms,
        }
    }
}
