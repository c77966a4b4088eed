//! Going on with an import that was stopped, however it was stopped.
//!
//! A state file says how far the import has come: the frames before one mark are settled, every
//! record of them was answered; those between it and a second mark are the open window, sent and
//! perhaps carried out; those behind it were never sent. The next run begins with the open window.
//! Under `--on-conflict fail` and `skip` a key that stands already is left alone, so there the keys
//! that the import wrote itself are part of the state, and what stands of the open window is
//! compared with what was sent: equal is ours.
//!
//! All that holds only as long as the destination remembers. So the state also says which process
//! it was, and some keys that it acknowledged; where these do not stand, or somebody else answers,
//! the import looks at everything again from the beginning ([`destination`]).

mod confirm;
pub mod destination;
mod export;
mod identity;
mod rows;
mod sink;
mod state;
mod witness;

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use self::export::{EXPORT_VERSION, Earlier, ExportBegin, Partial, files_beside};
pub use self::identity::{SelectionIdentity, digest};
pub use self::sink::ResumingSink;
pub use self::state::{Begin, Part, State, VERSION};
use crate::exit::{Usage, usage};
use crate::units::hex;

/// Where the state of this import is kept: as the user said, else among the user's other states,
/// under a name made of the first archive and the destination.
///
/// # Errors
/// [`Usage`] where there is no place for it.
pub fn place(given: &OsStr, begin: &Begin) -> Result<PathBuf> {
    if !given.is_empty() {
        return Ok(PathBuf::from(given));
    }
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| Path::new(value).is_absolute())
            .map(PathBuf::from)
    };
    let directory = set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Usage("neither XDG_STATE_HOME nor HOME is set; say --resume=FILE".to_owned())
        })?
        .join("redis-migrate");
    create_private(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let first = begin.parts.first().map_or("none", |part| part.id.as_str());
    let to = hex(&begin.destination_digest()[..4]);
    Ok(directory.join(format!("import-{first}-{to}.state")))
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Reads the state of this very import, if it was begun before.
///
/// # Errors
/// [`Usage`] where the file is another import's; the system's errors.
pub fn load(place: &Path, begin: &Begin) -> Result<Option<State>> {
    let state = State::load(place).with_context(|| format!("cannot read {}", place.display()))?;
    let Some(state) = state else {
        return Ok(None);
    };
    let shown = place.display();
    match state.begin.version.cmp(&VERSION) {
        Ordering::Equal => {}
        Ordering::Less => {
            return Err(usage(format!(
                "the state in {shown} was left by an older version of redis-migrate, and does not \
                 tell whether this is the same import: finish the import with that version, or \
                 remove the file to start over (with --on-conflict fail or skip, what was imported \
                 already then counts as a conflict)"
            )));
        }
        Ordering::Greater => {
            return Err(usage(format!(
                "the state in {shown} was left by a newer version of redis-migrate: finish the \
                 import with that version, or remove the file to start over"
            )));
        }
    }
    if let Some(difference) = state.begin.differs_from(begin) {
        return Err(usage(format!(
            "the state in {shown} is of another import: {difference}; repeat the command as it \
             was, or remove that file to start over"
        )));
    }
    Ok(Some(state))
}
