//! `doctor`: what a server is and allows, and what an archive would need there. Writes nothing.

mod args;

use anyhow::{Context as _, Result};
use redis_migrate_format::{Limits, Reader};

pub use self::args::DoctorArgs;
use super::{Run, code_unless_damaged, ended, print_unless, warn_of_loss};
use crate::cli::Files;
use crate::cli::resolve::process_env;
use crate::doctor::acl::AclJob;
use crate::doctor::keys::{KeyTrial, PATIENCE};
use crate::doctor::layout::Shards;
use crate::doctor::needs::{Needs, ValueBounds};
use crate::doctor::probes::NATIVE;
use crate::doctor::promise::{is_possible, promises};
use crate::doctor::{Findings, examine, report};
use crate::exit;
use crate::pipe::Stop;
use crate::place::Input;
use crate::record::Record;
use crate::server::Conn;
use crate::size;
use crate::ui;
use crate::verb::{Data, Verb};

impl Run for DoctorArgs {
    const VERB: Verb = Verb {
        name: "doctor",
        flow: None,
        data: Data::Never,
    };

    fn files(&self) -> Files {
        Files::default()
            .inputs(&self.file)
            .stdout()
            .age_read(&self.encryption)
            .server(&self.connect.flags())
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        let (mut to, file) = self.ends(&process_env)?;
        if let Some(warning) = to.warnings() {
            ui::print_warning(&warning);
        }
        // Before connecting: a file that is not there is no matter of the server.
        let keys = self.encryption.keys();
        let mut input = match file {
            Some(_) => Some(Input::open(file, &keys?, stop)?),
            None => None,
        };
        // A server that loads its dataset is waited for as long as for any verb. Further waits are
        // short: a report is waited for by somebody.
        let mut conn = Conn::open(&to)?;
        if to.retry_for > PATIENCE {
            drop(conn);
            to.retry_for = PATIENCE;
            conn = Conn::open(&to)?;
        }
        let like = match (&self.prefix, input.as_mut()) {
            (Some(prefix), _) => {
                std::os::unix::ffi::OsStrExt::as_bytes(prefix.as_os_str()).to_vec()
            }
            (None, Some(input)) if input.is_rereadable() => first_key(input)?,
            (None, _) => Vec::new(),
        };
        let mut found = examine(&mut conn, &to, &like)?;
        drop(conn);
        if let Some(input) = input {
            let name = input.name().to_owned();
            let limits = size::limits(self.limits.max_value_bytes());
            let mut reader = Reader::new(input, limits).context(name.clone())?;
            let bounds = ValueBounds {
                max_payload_bytes: found.limits.largest_payload_bytes(),
                max_value_bytes: self.limits.max_value_bytes(),
            };
            let by_commands = found.goes_by_commands();
            let mut trial = KeyTrial::new(&to, &found.facts, found.features, by_commands);
            let mut needs = Needs::of(&mut reader, &mut found.target, bounds, &mut trial, stop)?;
            warn_of_loss(&name, reader.header());
            needs.try_databases(&to, &found.facts, &mut trial);
            found.archive = Some((name, needs));
        }
        let code = code_of(&found);
        if let Some(words) = found.later() {
            ui::print_warning(&format!(
                "this report is incomplete; run doctor again later: the server answers {words}"
            ));
        }
        ui::session::summary(report::json(&found));
        let printed = print_unless(self.json || self.quiet, || report::text(&found));
        let (name, needs) = found.archive.unwrap_or_default();
        let code = code_unless_damaged(needs.archive.error, name, code);
        Ok(ended(printed, code))
    }
}

/// The name of the archive's first key, which tells what an import would begin with. Damage is
/// left to the reading that follows.
fn first_key(input: &mut Input) -> Result<Vec<u8>> {
    let mut reader = Reader::new(&mut *input, Limits::default())?.heads_only();
    let mut first = None;
    while first.is_none() {
        let visited = reader.visit_frame(|_, record, _| {
            if let (None, Record::Key(record)) = (&first, record) {
                first = Some(record.key.clone());
            }
        });
        if !matches!(visited, Ok(Some(_))) {
            break;
        }
    }
    drop(reader);
    input
        .rewind()
        .context("cannot go back to the start of the archive")?;
    Ok(first.unwrap_or_default())
}

/// A report is a success, whatever it says, if it is complete. A server that answers "not now" (BUSY,
/// LOADING …) leaves it incomplete: [`exit::FAILED`], with which an export or import there would end
/// as well. With an archive, the code is the one that an import would end with.
fn code_of(found: &Findings) -> u8 {
    let Some((_, needs)) = &found.archive else {
        return match found.later() {
            Some(_) => exit::FAILED,
            None => exit::OK,
        };
    };
    let mut codes = Vec::new();
    if needs.archive.error.is_some() {
        codes.push(exit::ARCHIVE);
    }
    if is_possible(&promises(AclJob::Import, found)) == Some(false) {
        // Slots that nobody serves are no refusal.
        codes.push(match found.layout.shards().and_then(Shards::gap) {
            Some(_) => exit::FAILED,
            None => exit::REFUSED,
        });
    }
    if needs.import.usage.is_some() {
        codes.push(exit::USAGE);
    }
    if needs.import.ends.is_some() {
        codes.push(exit::REFUSED);
    }
    // Nothing good can be said of what could not be asked.
    if needs.import.unforeseen.is_some() || is_not_known(needs, found) {
        codes.push(exit::FAILED);
    }
    if needs.values.total().refused > 0
        || needs.libraries.left_out > 0
        || !needs.databases.closed.is_empty()
        || (needs.values.too_large > 0 && !found.rights.can(NATIVE) && !is_not_known(needs, found))
        || needs.libraries.are_refused(&found.rights)
        || !needs.libraries.refused.is_empty()
    {
        codes.push(exit::SOME_KEYS);
    }
    exit::strongest(&codes)
}

/// Whether the server answers "not now" to what an import of this archive cannot do without.
fn is_not_known(needs: &Needs, found: &Findings) -> bool {
    let is_later =
        |is_needed: bool, names: &[&str]| is_needed && found.rights.later(names).is_some();
    found.layout.later().is_some()
        || is_later(true, &["RESTORE"])
        || is_later(
            needs.values.too_large > 0 || found.goes_by_commands(),
            &[NATIVE],
        )
        || is_later(needs.libraries.payloads > 0, &["FUNCTION RESTORE"])
}
