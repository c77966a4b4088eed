//! What an archive needs at a destination: every value of it is made ready as an import would, and
//! nothing is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context as _, Result};
use redis_migrate_format::Reader;
use serde::Serialize;

use super::access::{Access, Rights};
use super::keys::{AskedKey, KeyTrial};
use crate::census::Census;
use crate::describe::tally::type_name;
use crate::dialect::Lookalike;
use crate::endpoint::ConnectOptions;
use crate::exit;
use crate::ledger::{Changes, export_failed};
use crate::outside::{self, Outside};
use crate::payload::accept::{Plan, plan_value};
use crate::payload::{self, FieldTtlForm, metadata};
use crate::policy::Loss;
use crate::record::{Context, KeyRecord, Record, Value, show_key};
use crate::rewrite::DbMap;
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::facts::Facts;
use crate::sink::metadata::NOT_BY_COMMANDS;
use crate::sink::server::functions::split_libraries;
use crate::sink::server::gate::{closed_databases, show_databases};
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

/// A function library that the destination would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedLibrary {
    /// Its name; `all` where a payload cannot be read.
    pub name: String,
    /// What is in its way.
    pub reason: String,
}

/// What an archive needs. Its JSON has what is skipped here in another form.
#[derive(Debug, Default, Serialize)]
pub struct Needs {
    /// Keys: of a key with several records the last counts. All other numbers of keys here are of
    /// records.
    pub keys: u64,
    pub by_type: BTreeMap<&'static str, ValueFates>,
    /// Why some are refused. Reasons that name one key's own numbers are put together.
    #[serde(skip)]
    pub reasons: BTreeMap<String, RefusalReason>,
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
    /// Values whose payload is larger than one RESTORE there can carry.
    pub too_large: u64,
    /// The largest payload.
    pub largest_bytes: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Databases that hold keys.
    #[serde(skip)]
    pub databases: BTreeMap<u32, u64>,
    /// Databases of the destination that cannot be used: how many keys would go there, and why not.
    #[serde(skip)]
    pub closed: BTreeMap<u32, (u64, String)>,
    /// Values that this version cannot look into.
    #[serde(skip)]
    pub undecoded: Undecoded,
    /// Why an import would not begin.
    #[serde(skip)]
    pub usage: Option<String>,
    /// Payloads of function libraries.
    pub functions: u64,
    /// Function libraries in whose way something else is.
    pub libraries_refused: Vec<RefusedLibrary>,
    /// Keys that the export could not read, by database.
    #[serde(skip)]
    pub export_failed: Vec<(u32, u64)>,
    /// What the export did not have beyond single keys, a line each.
    pub export_lacks: Vec<String>,
    /// Why an import would end before it has written anything.
    pub ends: Option<String>,
    /// What the archive says its source held outside its keys.
    pub outside: Vec<Outside>,
    /// Why it could not be found out which keys may be written.
    pub unforeseen: Option<String>,
    /// Payloads of function libraries that are larger than `--max-value` allows.
    #[serde(rename = "functions_too_large")]
    pub functions_left_out: u64,
    /// Why the archive could not be read to its end.
    #[serde(skip)]
    pub error: Option<redis_migrate_format::Error>,
}

/// What a value may have at most.
#[derive(Debug, Clone, Copy)]
pub struct ValueBounds {
    /// Bytes of a payload that the destination takes in one piece.
    pub max_payload_bytes: u64,
    /// Bytes of a value that an import would take: `--max-value`.
    pub max_value_bytes: u64,
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
        let mut ready = Vec::new();
        let mut census = Census::default();
        loop {
            exit::unless_stopped(stop)?;
            match reader.next_piece() {
                Ok(Some(frame)) => {
                    for record in frame.records {
                        census.add(&record);
                        match record {
                            Record::Key(key) => {
                                ready.extend(needs.key(key, frame.context, target, bounds, trial));
                            }
                            Record::Functions(dump) => {
                                needs.functions += 1;
                                needs.try_libraries(&dump, trial);
                            }
                            Record::WithheldFunctions(_) => needs.functions_left_out += 1,
                            _ => {}
                        }
                    }
                    needs.try_keys(&ready, trial);
                    ready.clear();
                }
                Ok(None) => {
                    needs.export_failed = reader.end().map(export_failed).unwrap_or_default();
                    needs.outside = outside::of_archive(reader.header(), reader.end());
                    let lacks = reader.end().map(|end| end.lacks.clone());
                    needs.export_lacks = lacks.unwrap_or_default();
                    break;
                }
                Err(error) => {
                    needs.error = Some(error);
                    break;
                }
            }
        }
        needs.keys = census.finish().context("cannot use a temporary file")?.keys;
        needs.streams_filled_in = target.changes.streams_filled_in;
        needs.idempotency_lost += target.changes.idempotency_lost;
        needs.given_back_owned = target.changes.given_back_owned;
        needs.key_metadata_lost = target.changes.key_metadata_lost;
        needs.ends = trial.ends.take();
        needs.unforeseen = trial.unforeseen.take();
        Ok(needs)
    }

    /// Asks what is in the way of function libraries.
    fn try_libraries(&mut self, dump: &[u8], trial: &mut KeyTrial<'_>) {
        // One line is enough to refuse; an archive may hold any number of bad payloads.
        if self.libraries_refused.len() >= MAX_REASONS {
            return;
        }
        let libraries = match split_libraries(dump) {
            Ok(libraries) => libraries,
            Err(reason) => {
                let name = "all".to_owned();
                return self.libraries_refused.push(RefusedLibrary { name, reason });
            }
        };
        for library in libraries {
            if self.libraries_refused.len() >= MAX_REASONS {
                return;
            }
            if let Some(reason) = trial.in_the_way(&library) {
                let name = library.name;
                self.libraries_refused.push(RefusedLibrary { name, reason });
            }
        }
    }

    /// Asks whether keys may be written whose values are ready.
    fn try_keys(&mut self, ready: &[ReadyKey], trial: &mut KeyTrial<'_>) {
        let asked: Vec<&AskedKey> = ready.iter().map(|row| &row.asked).collect();
        for (row, refused) in ready.iter().zip(trial.refused(&asked)) {
            if let Some(reason) = refused {
                let fates = self.by_type.entry(row.name).or_default();
                *(row.became)(fates) -= 1;
                fates.refused += 1;
                self.refused(reason, None, &row.asked.key);
            }
        }
    }

    fn key(
        &mut self,
        mut record: KeyRecord,
        mut context: Context,
        target: &mut Target,
        bounds: ValueBounds,
        trial: &mut KeyTrial<'_>,
    ) -> Option<ReadyKey> {
        let bytes = (record.key.len() + record.value.bytes().len()) as u64;
        self.bytes += bytes;
        *self.databases.entry(record.db).or_default() += 1;
        let name = type_name(&record, &context);
        self.undecoded.note(context.family, &record, true);
        let before = target.changes;
        let is_past = (record.expire_at_ms).is_some_and(|at_ms| at_ms <= crate::host::unix_ms());
        let ready = self.make_ready(&mut record, &mut context, target, bounds, trial);
        let fates = self.by_type.entry(name).or_default();
        fates.keys += 1;
        match ready {
            Ok(()) => {
                let became = sent_as(&before, &target.changes);
                *became(fates) += 1;
                let payload_bytes = (record.value.bytes().len() + payload::FOOTER_LEN) as u64;
                self.largest_bytes = self.largest_bytes.max(payload_bytes);
                let too_large = payload_bytes > bounds.max_payload_bytes;
                self.too_large += u64::from(too_large);
                // What is past its time is not written.
                let asked = (!is_past).then(|| trial.asked(&mut record, &context, too_large));
                if let Value::Compact(buffer) = record.value {
                    target.reuse(buffer);
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
                let loss = loss_of(&record, &context, target, &reason);
                let reason = explained(reason, loss, &record, &context);
                self.refused(reason, loss, &record.key);
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
        target: &mut Target,
        bounds: ValueBounds,
        trial: &mut KeyTrial<'_>,
    ) -> Result<(), String> {
        if is_larger(&record.value, context.family, bounds.max_value_bytes) {
            return Err("larger than --max-value allows".to_owned());
        }
        if trial.is_by_commands() {
            let loses = trial.check_for_commands(record, context);
            self.idempotency_lost += u64::from(loses.map_err(|it| it.reason)?);
            return Ok(());
        }
        trial.ask_for_classes(target, record, context);
        let ready = target.prepare(record, context);
        for (_, class) in target.left_out() {
            if self.classes_left_out.len() < MAX_CLASSES {
                self.classes_left_out.insert(class.clone());
            }
        }
        let ready = ready.map_err(|(reason, _)| reason)?;
        let fits = record.value.stored_len() <= bounds.max_payload_bytes;
        match fits.then(|| trial.offer(target, record, ready)).flatten() {
            Some(words) => Err(words),
            None => Ok(()),
        }
    }

    fn refused(&mut self, reason: String, loss: Option<Loss>, key: &[u8]) {
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

    /// Tries the databases that an import would write. `trial` may have met some that it could not
    /// select.
    pub fn try_databases(&mut self, to: &ConnectOptions, facts: &Facts, trial: &mut KeyTrial<'_>) {
        let dbs: Vec<u32> = self.databases.keys().copied().collect();
        let map = to.db.map_or_else(DbMap::default, DbMap::only_into);
        self.usage = map.check(&dbs).err().map(|usage| usage.to_string());
        let into: Vec<u32> = match to.db {
            Some(db) => vec![db],
            None => dbs,
        };
        let mut closed = closed_databases(to, &into);
        if trial.passed_over.iter().any(|db| !closed.contains_key(db)) {
            let why =
                "too many databases cannot be used, so the keys of the others were not checked";
            self.unforeseen.get_or_insert_with(|| why.to_owned());
        }
        closed.append(&mut trial.closed);
        let mut has_one = false;
        for db in &into {
            if let Some(why) = facts.lacks_database(*db) {
                has_one = true;
                closed.insert(*db, why);
            }
        }
        for (db, why) in closed {
            if asks_for_patience(&why) {
                self.unforeseen.get_or_insert(why);
                continue;
            }
            let keys = match to.db {
                Some(_) => self.databases.values().sum(),
                None => self.databases.get(&db).copied().unwrap_or(0),
            };
            if facts.cluster || has_one {
                let what = facts.lookalike.map_or("a cluster", Lookalike::name);
                self.usage.get_or_insert_with(|| {
                    format!("the destination is {what} and has no database {db}")
                });
            }
            self.closed.insert(db, (keys, why));
        }
    }

    /// Databases that cannot be used, those with the same reason together: their numbers, as they are
    /// shown; how many keys would go there; and the reason. The list is short whatever an archive and
    /// a server say.
    pub fn closed_told(&self) -> Vec<(String, u64, &str)> {
        let mut told: Vec<(Vec<u32>, u64, &str)> = Vec::new();
        for (db, (keys, why)) in &self.closed {
            let why = match told.iter().any(|(_, _, known)| known == why) {
                false if told.len() >= MAX_REASONS => "for other reasons",
                _ => why.as_str(),
            };
            match told.iter_mut().find(|(_, _, known)| *known == why) {
                Some((dbs, sum, _)) => {
                    dbs.push(*db);
                    *sum += keys;
                }
                None => told.push((vec![*db], *keys, why)),
            }
        }
        told.into_iter()
            .map(|(dbs, keys, why)| (show_databases(&dbs), keys, why))
            .collect()
    }

    /// Whether it holds function libraries and the destination takes none.
    pub fn refuses_functions(&self, rights: &Rights) -> bool {
        let is_taken = |access: &Access| {
            access.is_usable() || matches!(access, Access::Unknown | Access::Later(_))
        };
        let (restore, load) = (rights.of("FUNCTION RESTORE"), rights.of("FUNCTION LOAD"));
        // Where RESTORE is there and refuses, an import does not try LOAD.
        let is_load_tried = match restore {
            Access::Blocked(text) | Access::Refused(text) => is_forbidden(text),
            _ => true,
        };
        self.functions > 0 && !is_taken(restore) && !(is_load_tried && is_taken(load))
    }

    /// So many of the records that were counted, in words: records of most archives are keys.
    pub fn counted(&self, count: u64) -> String {
        match self.total().keys == self.keys {
            true => plural(count, "key"),
            false => plural(count, "record"),
        }
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
    use super::*;

    #[test]
    fn databases_that_are_not_to_be_had_are_told_by_reason() {
        let closed = |reason: fn(u32) -> String| Needs {
            closed: (16..65_536).map(|db| (db, (2, reason(db)))).collect(),
            ..Needs::default()
        };
        let same = closed(|_| "ERR DB index is out of range".to_owned());
        let told = same.closed_told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, 2 * 65_520);
        assert!(told[0].0.starts_with("databases 16, 17, "), "{}", told[0].0);
        assert_eq!(told[0].2, "ERR DB index is out of range");
        // A server that says something else of each.
        let each = closed(|db| format!("ERR {db}"));
        let told = each.closed_told();
        assert_eq!(told.len(), MAX_REASONS + 1);
        assert_eq!(
            told.iter().map(|(_, keys, _)| keys).sum::<u64>(),
            2 * 65_520
        );
        assert_eq!(told[0], ("database 16".to_owned(), 2, "ERR 16"));
    }
}
