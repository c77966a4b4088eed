//! Whether a destination takes the function libraries of an archive.

use serde::Serialize;

use super::MAX_REASONS;
use crate::doctor::access::{Access, Rights};
use crate::doctor::keys::KeyTrial;
use crate::server::conn::is_forbidden;
use crate::sink::server::functions::split_libraries;

/// A function library that the destination would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedLibrary {
    /// Its name; `all` where a payload cannot be read.
    pub name: String,
    /// What is in its way.
    pub reason: String,
}

/// The function libraries of an archive.
#[derive(Debug, Default, Serialize)]
pub struct LibraryNeeds {
    /// Payloads of them.
    #[serde(rename = "functions")]
    pub payloads: u64,
    /// Those in whose way something else is.
    #[serde(rename = "libraries_refused")]
    pub refused: Vec<RefusedLibrary>,
    /// Payloads that are larger than `--max-value` allows.
    #[serde(rename = "functions_too_large")]
    pub left_out: u64,
}

impl LibraryNeeds {
    /// A payload: asks what is in the way of its libraries.
    pub(super) fn dump(&mut self, dump: &[u8], trial: &mut KeyTrial<'_>) {
        self.payloads += 1;
        // One line is enough to refuse; an archive may hold any number of bad payloads.
        if self.refused.len() >= MAX_REASONS {
            return;
        }
        let libraries = match split_libraries(dump) {
            Ok(libraries) => libraries,
            Err(reason) => {
                let name = "all".to_owned();
                return self.refused.push(RefusedLibrary { name, reason });
            }
        };
        for library in libraries {
            if self.refused.len() >= MAX_REASONS {
                return;
            }
            if let Some(reason) = trial.in_the_way(&library) {
                let name = library.name;
                self.refused.push(RefusedLibrary { name, reason });
            }
        }
    }

    /// Whether there are any and the destination takes none.
    pub fn are_refused(&self, rights: &Rights) -> bool {
        let is_taken = |access: &Access| {
            access.is_usable() || matches!(access, Access::Unknown | Access::Later(_))
        };
        let (restore, load) = (rights.of("FUNCTION RESTORE"), rights.of("FUNCTION LOAD"));
        // Where RESTORE is there and refuses, an import does not try LOAD.
        let is_load_tried = match restore {
            Access::Blocked(text) | Access::Refused(text) => is_forbidden(text),
            _ => true,
        };
        self.payloads > 0 && !is_taken(restore) && !(is_load_tried && is_taken(load))
    }
}
