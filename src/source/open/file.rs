//! An RDB file as a source, wherever it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::host::unix_ms;
use crate::observer::Observer;
use crate::place::Input;
use crate::policy::ReadFunctions;
use crate::rdb::Form;
use crate::select::Selection;
use crate::source::rdb::{RdbSource, RdbSourceOptions};

/// What is wanted of it.
pub struct Wanted {
    /// Which keys.
    pub selection: Selection,
    /// Whether function libraries.
    pub functions: ReadFunctions,
    /// In which form values are given.
    pub form: Form,
    /// Values of more bytes are left out and named.
    pub max_value_bytes: u64,
}

/// Opens an input whose content is RDB data, with nothing behind them.
///
/// # Errors
/// [`RdbError`](crate::rdb::RdbError), with the name of the input.
pub fn rdb(input: Input, wanted: Wanted, observer: &Arc<Observer>) -> Result<RdbSource<Input>> {
    let name = input.name().to_owned();
    let options = RdbSourceOptions {
        selection: wanted.selection,
        functions: wanted.functions,
        form: wanted.form,
        alone: true,
        // Old files do not say when they were made; the file system may.
        otherwise_ms: input.modified_ms().unwrap_or_else(unix_ms),
        max_value_bytes: wanted.max_value_bytes,
        path: input.file().map(Path::to_owned),
    };
    RdbSource::open(input, options, Arc::clone(observer)).context(name)
}
