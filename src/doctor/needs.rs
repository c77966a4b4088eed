//! What an archive needs at a destination: every value of it is made ready as an import would, and
//! nothing is sent.

mod databases;
mod libraries;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context as _, Result};
use redis_migrate_format::{Frame, Reader};
use serde::Serialize;

pub use self::databases::DatabaseNeeds;
pub use self::libraries::LibraryNeeds;
use super::keys::{AskedKey, KeyTrial};
use crate::census::Census;
use crate::describe::tally::type_name;
use crate::endpoint::ConnectOptions;
use crate::exit;
use crate::ledger::{Changes, export_failed};
use crate::outside::{self, Outside};
use crate::payload::accept::{Plan, plan_value};
use crate::payload::{self, FieldTtlForm, metadata};
use crate::policy::Loss;
use crate::record::{Context, KeyRecord, Record, Value, show_key};
use crate::server::facts::Facts;
use crate::sink::metadata::NOT_BY_COMMANDS;
use crate::sink::server::prepare::Target;
use crate::sink::server::refusal::{is_bad_format, module_hint, module_type};
use crate::size::is_larger;
use crate::stop::Stop;
use crate::undecoded::Undecoded;
use crate::units::plural;

/// What becomes of the values of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ValueFates {
    pub keys: u64,
    /// They go as they are.
    pub kept: u64,
    /// They get a footer of another version.
    pub restamped: u64,
    /// They are written in other forms.
    pub reencoded: u64,
    /// They are not sent.
    pub refused: u64,
}

/// Where it is counted how a value would be sent.
type SentAs = fn(&mut ValueFates) -> &mut u64;

/// By what was changed for one value.
fn sent_as(before: &Changes, after: &Changes) -> SentAs {
    if after.reencoded > before.reencoded {
        |fates| &mut fates.reencoded
    } else if after.restamped > before.restamped {
        |fates| &mut fates.restamped
    } else {
        |fates| &mut fates.kept
    }
}

/// A key whose value is ready to be sent.
struct ReadyKey {
    /// Its type.
    name: &'static str,
    became: SentAs,
    asked: AskedKey,
}

/// One reason why values are refused.
#[derive(Debug, Clone, Default)]
pub struct RefusalReason {
    /// How many.
    pub keys: u64,
    /// One of them, as it is shown.
    pub example: String,
    /// The loss whose permission would let them through.
    pub loss: Option<Loss>,
}

/// What an archive needs. Its JSON is flat, and has what is skipped here in another form.
#[derive(Debug, Default, Serialize)]
pub struct Needs {
    /// Keys: of a key with several records the last counts. All other numbers of keys here are of
    /// records.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    #[serde(flatten)]
    pub values: ValueNeeds,
    #[serde(flatten)]
    pub changed: Changed,
    #[serde(skip)]
    pub databases: DatabaseNeeds,
    #[serde(flatten)]
    pub libraries: LibraryNeeds,
    #[serde(flatten)]
    pub archive: ArchiveSays,
    #[serde(flatten)]
    pub import: Prospects,
}

/// What becomes of the values.
#[derive(Debug, Default, Serialize)]
pub struct ValueNeeds {
    pub by_type: BTreeMap<&'static str, ValueFates>,
    /// Why some are refused. Reasons that name one key's own numbers are put together.
    #[serde(skip)]
    pub reasons: BTreeMap<String, RefusalReason>,
    /// Values whose payload is larger than one RESTORE there can carry.
    pub too_large: u64,
    /// The largest payload.
    pub largest_bytes: u64,
    /// Values that this version cannot look into.
    #[serde(skip)]
    pub undecoded: Undecoded,
}

/// What would be changed or left out of values on their way.
#[derive(Debug, Default, Serialize)]
pub struct Changed {
    /// Streams of which the destination fills in what the archive does not say, or drops what it
    /// does not know.
    pub streams_filled_in: u64,
    /// Records of streams whose settings of idempotency or ids of producers the destination does not keep.
    pub idempotency_lost: u64,
    /// Entries of streams that were given back and that a consumer would have again.
    pub given_back_owned: u64,
    /// Keys whose metadata of modules are left out, as they say they may be.
    pub key_metadata_lost: u64,
    /// The classes that are left out, by name.
    #[serde(rename = "key_metadata_classes_lost")]
    pub classes_left_out: BTreeSet<String>,
}

impl Changed {
    /// Adds what was counted while values were made ready.
    fn add(&mut self, changes: &Changes) {
        self.streams_filled_in += changes.streams_filled_in;
        self.idempotency_lost += changes.idempotency_lost;
        self.given_back_owned += changes.given_back_owned;
        self.key_metadata_lost += changes.key_metadata_lost;
    }

    /// A class of key metadata is left out.
    fn leave_out(&mut self, class: &str) {
        if self.classes_left_out.len() < MAX_CLASSES {
            self.classes_left_out.insert(class.to_owned());
        }
    }
}

/// What the archive says of its own export, and how far it could be read.
#[derive(Debug, Default, Serialize)]
pub struct ArchiveSays {
    /// Keys that the export could not read, by database.
    #[serde(skip)]
    pub export_failed: Vec<(u32, u64)>,
    /// What the export did not have beyond single keys, a line each.
    pub export_lacks: Vec<String>,
    /// What its source held outside its keys.
    pub outside: Vec<Outside>,
    /// Why it could not be read to its end.
    #[serde(skip)]
    pub error: Option<redis_migrate_format::Error>,
}

impl ArchiveSays {
    /// What stands at the end of an archive that was read.
    fn at_end(reader: &Reader<impl Read>) -> Self {
        let end = reader.end();
        Self {
            export_failed: end.map(export_failed).unwrap_or_default(),
            export_lacks: end.map(|end| end.lacks.clone()).unwrap_or_default(),
            outside: outside::of_archive(reader.header(), end),
            error: None,
        }
    }

    /// It could not be read to its end.
    fn broken(error: redis_migrate_format::Error) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}

/// What would become of an import as a whole.
#[derive(Debug, Default, Serialize)]
pub struct Prospects {
    /// Why it would not begin.
    #[serde(skip)]
    pub usage: Option<String>,
    /// Why it would end before it has written anything.
    pub ends: Option<String>,
    /// Why it could not be found out which keys may be written.
    pub unforeseen: Option<String>,
}

/// What a value may have at most.
#[derive(Debug, Clone, Copy)]
pub struct ValueBounds {
    /// Bytes of a payload that the destination takes in one piece.
    pub max_payload_bytes: u64,
    /// Bytes of a value that an import would take: `--max-value`.
    pub max_value_bytes: u64,
}

/// The destination, as values are tried there.
struct There<'a, 't> {
    target: &'a mut Target,
    bounds: ValueBounds,
    trial: &'a mut KeyTrial<'t>,
}

/// Reasons that are told apart; an archive may hold any number of damaged values.
const MAX_REASONS: usize = 50;

/// Classes of key metadata that are named; an archive may name any.
const MAX_CLASSES: usize = 8;

impl Needs {
    /// Reads an archive to its end, or to its damage.
    ///
    /// # Errors
    /// [`exit::Interrupted`], and those of a temporary file.
    pub fn of(
        reader: &mut Reader<impl Read>,
        target: &mut Target,
        bounds: ValueBounds,
        trial: &mut KeyTrial<'_>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut needs = Self::default();
        let mut there = There {
            target,
            bounds,
            trial,
        };
        let mut census = Census::default();
        needs.archive = loop {
            exit::unless_stopped(stop)?;
            match reader.next_piece() {
                Ok(Some(frame)) => {
                    frame.records.iter().for_each(|record| census.add(record));
                    needs.frame(frame, &mut there);
                }
                Ok(None) => break ArchiveSays::at_end(reader),
                Err(error) => break ArchiveSays::broken(error),
            }
        };
        needs.keys = census.finish().context("cannot use a temporary file")?.keys;
        needs.changed.add(&there.target.changes);
        needs.import.ends = there.trial.ends.take();
        needs.import.unforeseen = there.trial.unforeseen.take();
        Ok(needs)
    }

    fn frame(&mut self, frame: Frame, there: &mut There<'_, '_>) {
        let mut ready = Vec::new();
        for record in frame.records {
            match record {
                Record::Key(key) => ready.extend(self.key(key, frame.context, there)),
                Record::Functions(dump) => self.libraries.dump(&dump, there.trial),
                Record::WithheldFunctions(_) => self.libraries.left_out += 1,
                _ => {}
            }
        }
        self.values.try_keys(&ready, there.trial);
    }

    fn key(
        &mut self,
        mut record: KeyRecord,
        mut context: Context,
        there: &mut There<'_, '_>,
    ) -> Option<ReadyKey> {
        let bytes = (record.key.len() + record.value.bytes().len()) as u64;
        self.bytes += bytes;
        self.databases.key(record.db);
        let name = type_name(&record, &context);
        self.values.undecoded.note(context.family, &record, true);
        let before = there.target.changes;
        let is_past = (record.expire_at_ms).is_some_and(|at_ms| at_ms <= crate::host::unix_ms());
        let ready = self.make_ready(&mut record, &mut context, there);
        let fates = self.values.by_type.entry(name).or_default();
        fates.keys += 1;
        match ready {
            Ok(()) => {
                let became = sent_as(&before, &there.target.changes);
                *became(fates) += 1;
                let payload_bytes = (record.value.bytes().len() + payload::FOOTER_LEN) as u64;
                let largest_bytes = &mut self.values.largest_bytes;
                *largest_bytes = payload_bytes.max(*largest_bytes);
                let too_large = payload_bytes > there.bounds.max_payload_bytes;
                self.values.too_large += u64::from(too_large);
                // What is past its time is not written.
                let asked = (!is_past).then(|| there.trial.asked(&mut record, &context, too_large));
                if let Value::Compact(buffer) = record.value {
                    there.target.reuse(buffer);
                }
                asked.map(|asked| ReadyKey {
                    name,
                    became,
                    asked,
                })
            }
            Err(reason) => {
                fates.refused += 1;
                // A value that is refused was not touched.
                let loss = loss_of(&record, &context, there.target, &reason);
                let reason = explained(reason, loss, &record, &context);
                self.values.refuse(reason, loss, &record.key);
                None
            }
        }
    }

    /// Makes a value ready as an import would, and offers the destination what only it can judge; else
    /// why it would be refused.
    fn make_ready(
        &mut self,
        record: &mut KeyRecord,
        context: &mut Context,
        there: &mut There<'_, '_>,
    ) -> Result<(), String> {
        let There {
            target,
            bounds,
            trial,
        } = there;
        if is_larger(&record.value, context.family, bounds.max_value_bytes) {
            return Err("larger than --max-value allows".to_owned());
        }
        if trial.is_by_commands() {
            let loses = trial.check_for_commands(record, context);
            self.changed.idempotency_lost += u64::from(loses.map_err(|it| it.reason)?);
            return Ok(());
        }
        trial.ask_for_classes(target, record, context);
        let ready = target.prepare(record, context);
        for (_, class) in target.left_out() {
            self.changed.leave_out(class);
        }
        let ready = ready.map_err(|(reason, _)| reason)?;
        let fits = record.value.stored_len() <= bounds.max_payload_bytes;
        match fits.then(|| trial.offer(target, record, ready)).flatten() {
            Some(words) => Err(words),
            None => Ok(()),
        }
    }

    /// Tries the databases that an import would write. `trial` may have met some that it could not
    /// select.
    pub fn try_databases(&mut self, to: &ConnectOptions, facts: &Facts, trial: &mut KeyTrial<'_>) {
        self.databases.try_all(to, facts, trial, &mut self.import);
    }

    /// So many of the records that were counted, in words: records of most archives are keys.
    pub fn counted(&self, count: u64) -> String {
        match self.values.total().keys == self.keys {
            true => plural(count, "key"),
            false => plural(count, "record"),
        }
    }
}

impl ValueNeeds {
    /// Asks whether keys may be written whose values are ready.
    fn try_keys(&mut self, ready: &[ReadyKey], trial: &mut KeyTrial<'_>) {
        let asked: Vec<&AskedKey> = ready.iter().map(|row| &row.asked).collect();
        for (row, refused) in ready.iter().zip(trial.refused(&asked)) {
            if let Some(reason) = refused {
                let fates = self.by_type.entry(row.name).or_default();
                *(row.became)(fates) -= 1;
                fates.refused += 1;
                self.refuse(reason, None, &row.asked.key);
            }
        }
    }

    /// A value is refused.
    fn refuse(&mut self, reason: String, loss: Option<Loss>, key: &[u8]) {
        let reason = if self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&reason) {
            reason
        } else {
            "for other reasons".to_owned()
        };
        let row = self.reasons.entry(reason).or_insert_with(|| RefusalReason {
            example: show_key(key),
            loss,
            ..RefusalReason::default()
        });
        row.keys += 1;
    }

    /// All types together.
    pub fn total(&self) -> ValueFates {
        let mut total = ValueFates::default();
        for fates in self.by_type.values() {
            total.keys += fates.keys;
            total.kept += fates.kept;
            total.restamped += fates.restamped;
            total.reencoded += fates.reencoded;
            total.refused += fates.refused;
        }
        total
    }
}

/// The loss by which a value could be carried, if it cannot be carried without.
fn loss_of(record: &KeyRecord, context: &Context, target: &Target, reason: &str) -> Option<Loss> {
    let head = record.value.head();
    if payload::has_metadata(context.family, head) {
        let in_the_way = !target.accepts().takes_metadata()
            || is_bad_format(reason)
            || reason.contains(NOT_BY_COMMANDS);
        if in_the_way && metadata::needed(context.family, head).ok()?.is_some() {
            return Some(Loss::KeyMeta);
        }
    }
    // Of values only hashes can lose something yet.
    if payload::kind(context.family, head) != payload::Kind::Hash {
        return None;
    }
    let (body, version) = match &record.value {
        Value::Compact(body) => (body.as_slice(), context.rdb_version),
        Value::Verbatim(dump) => payload::split(dump).ok()?,
        Value::Withheld(_) => return None,
    };
    let Plan::Reencode { forms, .. } = plan_value(target.accepts(), context.family, version, body)
    else {
        return None;
    };
    let expiring = payload::check(context.family, body).ok()?.expiring_fields;
    (forms.field_ttl == FieldTtlForm::Dropped && expiring > 0).then_some(Loss::HashFieldTtl)
}

/// Why a value is refused, in words that say more than a server does.
fn explained(reason: String, loss: Option<Loss>, record: &KeyRecord, context: &Context) -> String {
    match loss {
        Some(Loss::HashFieldTtl) => {
            "hash fields expire, and the destination cannot expire fields".to_owned()
        }
        Some(Loss::KeyMeta) if is_bad_format(&reason) => {
            format!("{reason}: the destination does not accept its key metadata")
        }
        _ if is_bad_format(&reason) => match module_type(context.family, record.value.head()) {
            Some(name) => format!("{reason}: {}", module_hint(&name)),
            None => reason,
        },
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A program reads one flat object, however the counts are kept here.
    #[test]
    fn needs_have_their_names_in_json() {
        assert_eq!(
            json!(Needs::default()).to_string(),
            "{\"by_type\":{},\"bytes\":0,\"ends\":null,\"export_lacks\":[],\"functions\":0,\
             \"functions_too_large\":0,\"given_back_owned\":0,\"idempotency_lost\":0,\
             \"key_metadata_classes_lost\":[],\"key_metadata_lost\":0,\"keys\":0,\
             \"largest_bytes\":0,\"libraries_refused\":[],\"outside\":[],\
             \"streams_filled_in\":0,\"too_large\":0,\"unforeseen\":null}"
        );
    }
}
