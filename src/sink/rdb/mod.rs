//! An RDB file as a sink: what a server loads at start, and what cloud services import.
//!
//! Nothing is written that was not checked completely, because a server that does not like one
//! value refuses the whole file, or does worse. A value of a type that the target does not know is
//! written anew in a form that it does; what cannot be is refused, key by key.

pub mod latest;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};

use self::latest::Superseded;
use super::archive::Commit;
use super::metadata::leave_out;
use super::{Miscounted, Sink};
use crate::census::Census;
use crate::dialect::opcode::{FUNCTION_SINCE, MODULE_AUX_SINCE};
use crate::ledger::{Changes, SinkReport, SourceReport};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::outside::{self, Outside};
use crate::payload::accept::{Plan, plan_checked};
use crate::payload::{self, Checked, Examined, FieldTtlForm, Forms, PayloadError, Slice, walk};
use crate::policy::AllowLoss;
use crate::rdb::{Flaw, NOT_WHOLE, RdbTarget, RdbWriter, Taken, loadable_libraries};
use crate::record::{Batch, Context, KeyRecord, ModuleAux, Record, Value, larger_than, not_kept};
use crate::refusal::Refusal;
use crate::size::is_larger;

/// The module type that Redis 8 has built in.
const VECTOR_SET: &str = "vectorset";

/// Writes an RDB file.
pub struct RdbSink<W: Write + Send> {
    // `None` only after a failed write.
    writer: Option<RdbWriter<W>>,
    commit: Commit<W>,
    target: RdbTarget,
    superseded: Superseded,
    allow: AllowLoss,
    max_value_bytes: u64,
    observer: Arc<Observer>,
    /// Key records and tombstones, and function payloads, that came so far.
    ordinal: u64,
    functions: u64,
    modules: BTreeSet<String>,
    /// Classes of key metadata in the file that a server without them does not ignore.
    needed_classes: BTreeSet<String>,
    /// Modules whose data outside keys were left out.
    module_aux_left_out: BTreeSet<String>,
    /// What modules keep outside keys is not chosen, and of which modules there was some.
    without_module_aux: bool,
    module_aux_not_chosen: BTreeSet<String>,
    scratch: Vec<u8>,
    report: SinkReport,
    census: Census,
}

impl<W: Write + Send> RdbSink<W> {
    /// Begins a file on `out` for `target`, of data that are as `taken` says. `superseded` are the
    /// records that are not the last of their key, in the order in which they will come: apart from
    /// these each key may come once only.
    ///
    /// # Errors
    /// The output's.
    pub fn create(
        out: W,
        target: RdbTarget,
        superseded: Superseded,
        taken: Taken,
        allow: AllowLoss,
        commit: Commit<W>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        let mut writer = RdbWriter::new(out, target.magic);
        writer
            .aux(target.version_field(), &target.server_version)
            .and_then(|()| writer.aux("redis-bits", "64"))
            .and_then(|()| taken.write(&mut writer))
            .context("cannot write the RDB file")?;
        Ok(Self {
            writer: Some(writer),
            commit,
            target,
            superseded,
            allow,
            max_value_bytes: u64::MAX,
            observer,
            ordinal: 0,
            functions: 0,
            modules: BTreeSet::new(),
            needed_classes: BTreeSet::new(),
            module_aux_left_out: BTreeSet::new(),
            without_module_aux: false,
            module_aux_not_chosen: BTreeSet::new(),
            scratch: Vec::new(),
            report: SinkReport::default(),
            census: Census::default(),
        })
    }

    /// Refuses values of more bytes, each by name.
    #[must_use]
    pub fn within(self, max_value_bytes: u64) -> Self {
        Self {
            max_value_bytes,
            ..self
        }
    }

    /// Leaves out what modules keep outside keys, by name.
    #[must_use]
    pub fn without_module_aux(self, without: bool) -> Self {
        Self {
            without_module_aux: without,
            ..self
        }
    }

    fn leave_out_module_aux(&mut self, module: &str) {
        const MOST_NAMES: usize = 16;
        let names = match self.without_module_aux {
            true => &mut self.module_aux_not_chosen,
            false => &mut self.module_aux_left_out,
        };
        if names.len() < MOST_NAMES {
            names.insert(clean(module));
        }
    }

    /// What modules keep outside keys, those of before the keys or of behind them. Only a server of
    /// the same family may have the module, and one without it refuses the whole file.
    fn put_module_aux(&mut self, batch: &[ModuleAux], after_keys: bool) -> Result<()> {
        for aux in batch.iter().filter(|aux| aux.after_keys == after_keys) {
            if self.without_module_aux
                || aux.family != self.target.accepts.family
                || self.target.magic.version < MODULE_AUX_SINCE
            {
                self.leave_out_module_aux(&aux.module);
                continue;
            }
            if !is_module_aux(&aux.data) {
                self.leave_out_module_aux(&aux.module);
                self.report.problems.push(format!(
                    "the data outside keys of the module type {} are damaged and are left out",
                    clean(&aux.module)
                ));
                continue;
            }
            let writer = self
                .writer
                .as_mut()
                .ok_or_else(|| anyhow!("the RDB file is closed already"))?;
            writer
                .module_aux(&aux.data)
                .context("cannot write the RDB file")?;
            self.modules.insert(clean(&aux.module));
        }
        Ok(())
    }

    fn put(&mut self, record: Record, context: &Context) -> Result<()> {
        if let Record::Functions(payload) = &record {
            return self.put_functions(payload);
        }
        let is_superseded = self.superseded.contains(self.ordinal);
        self.ordinal += 1;
        self.report.records.taken += 1;
        match record {
            // Its successor is counted as the one that was written.
            _ if is_superseded => self.report.records.replaced_own += 1,
            Record::Key(record) => {
                if is_larger(&record.value, context.family, self.max_value_bytes) {
                    return self.refuse(record, Refusal::new(larger_than(self.max_value_bytes)));
                }
                let undecoded = &mut self.report.values.undecoded;
                undecoded.note(context.family, &record, true);
                return self.put_key(record, context);
            }
            // The records that it deletes were superseded.
            _ => self.report.records.deleted += 1,
        }
        Ok(())
    }

    fn put_key(&mut self, mut record: KeyRecord, context: &Context) -> Result<()> {
        if payload::has_metadata(context.family, record.value.head())
            && !self.target.accepts.takes_metadata()
        {
            let why = format!("{} has no key metadata", self.target.magic);
            let changes = &mut self.report.changes;
            if let Err(refusal) = leave_out(&mut record, context, self.allow, &why, changes) {
                return self.refuse(record, refusal);
            }
        }
        let writer = self
            .writer
            .as_mut()
            .ok_or_else(|| anyhow!("the RDB file is closed already"))?;
        let aim = Aim {
            target: &self.target,
            allow: self.allow,
            observer: &self.observer,
        };
        let prepared = prepare(
            &aim,
            &record,
            context,
            &mut self.modules,
            &mut self.report,
            &mut self.scratch,
        );
        let value = match prepared {
            Ok(Prepared::AsIs(len)) => &record.value.bytes()[..len],
            Ok(Prepared::Anew) => &self.scratch,
            Err(refusal) => return self.refuse(record, refusal),
        };
        writer
            .key(
                record.db,
                &record.key,
                record.expire_at_ms,
                record.eviction,
                value,
            )
            .context("cannot write the RDB file")?;
        self.note_classes(context, &record);
        self.report.records.archived += 1;
        self.census.add_key(record.db, &record.key, false);
        Ok(())
    }

    /// Remembers classes of metadata that a server without them does not ignore (keymeta.c).
    fn note_classes(&mut self, context: &Context, record: &KeyRecord) {
        const MOST_NAMES: usize = 16;
        let classes = payload::metadata::classes(context.family, record.value.head());
        for class in classes.unwrap_or_default() {
            if !class.may_be_ignored() && self.needed_classes.len() < MOST_NAMES {
                self.needed_classes.insert(class.name());
            }
        }
    }

    fn refuse(&mut self, record: KeyRecord, Refusal { reason, hint }: Refusal) -> Result<()> {
        self.report.records.refused += 1;
        self.observer.key_failed(&KeyFailure {
            db: record.db,
            key: record.key,
            kind: FailureKind::Refused,
            reason,
            hint,
        })
    }

    fn put_functions(&mut self, payload: &[u8]) -> Result<()> {
        self.functions += 1;
        let counts = &mut self.report.functions;
        counts.taken += 1;
        // Each payload holds all libraries, and a library that comes twice is an error.
        if self.functions < self.superseded.functions {
            counts.skipped += 1;
            return Ok(());
        }
        let sorted = match loadable_libraries(payload) {
            Ok(sorted) => sorted,
            Err(reason) => {
                counts.refused += 1;
                self.observer
                    .warn(&format!("function libraries are left out: {reason}"));
                return Ok(());
            }
        };
        let has_any = !sorted.libraries.is_empty() || !sorted.flaws.is_empty();
        if self.target.magic.version < FUNCTION_SINCE && has_any {
            if self.allow.functions {
                counts.skipped += 1;
                self.report.changes.functions_lost += 1;
            } else {
                counts.refused += 1;
                self.observer.warn(&format!(
                    "function libraries are left out: {} has none (--allow-loss functions accepts \
                     that)",
                    self.target.magic
                ));
            }
            return Ok(());
        }
        let writer = self
            .writer
            .as_mut()
            .ok_or_else(|| anyhow!("the RDB file is closed already"))?;
        writer
            .functions(&sorted.libraries)
            .context("cannot write the RDB file")?;
        self.refuse_libraries(&sorted.flaws, sorted.libraries.is_empty())?;
        for name in sorted.twice {
            self.report.problems.push(format!(
                "the input holds the function library {name} twice, and servers refuse such a \
                 file; the first one was written"
            ));
        }
        Ok(())
    }

    /// Counts and names the libraries that no server loads. `all`: there were no others.
    fn refuse_libraries(&mut self, flaws: &[Flaw], all: bool) -> Result<()> {
        let counts = &mut self.report.functions;
        if flaws.is_empty() || !all {
            counts.restored += 1;
            counts.taken += flaws.len() as u64;
        } else {
            counts.taken += flaws.len() as u64 - 1;
        }
        counts.refused += flaws.len() as u64;
        for flaw in flaws {
            self.observer.key_failed(&KeyFailure {
                db: 0,
                key: flaw.title(),
                kind: FailureKind::Refused,
                reason: format!("a server refuses a file with this library: {}", flaw.kind),
                hint: None,
            })?;
        }
        Ok(())
    }

    /// Whether the file lacks something that its source may have held.
    fn lacks_some(&self, source: &SourceReport) -> bool {
        let sink = &self.report;
        // A library that came twice may have been the other one.
        let of_sink =
            sink.failed() > 0 || sink.changes.functions_lost > 0 || !sink.problems.is_empty();
        of_sink
            || !self.module_aux_left_out.is_empty()
            || !self.module_aux_not_chosen.is_empty()
            || source.outside.iter().any(Outside::is_lost_to_modules)
            || source.total().failed > 0
            || !source.export.is_empty()
            || source.lacks.is_failure()
            || source.lacks.by_choice.is_some()
    }

    fn complete(mut self, source: &SourceReport) -> (SinkReport, Result<()>) {
        let writer = self.writer.take();
        self.report.keys = std::mem::take(&mut self.census).keys();
        if !self.without_module_aux {
            let left_out = outside::modules_left_out(&source.lacks.module_aux);
            self.report.problems.extend(left_out);
        }
        // Known only now. Servers take such a field anywhere in the file (rdb.c).
        let lacks_some = self.lacks_some(source);
        let done = move || {
            let mut writer = writer.ok_or_else(|| anyhow!("the RDB file is closed already"))?;
            if lacks_some {
                let marked = writer.aux(NOT_WHOLE, "1");
                marked.context("cannot write the RDB file")?;
            }
            let out = writer.finish().context("cannot complete the RDB file")?;
            (self.commit)(out).context("cannot complete the RDB file")
        };
        if !self.modules.is_empty() {
            let names: Vec<&str> = self.modules.iter().map(String::as_str).collect();
            self.observer.warn(&format!(
                "the file holds what modules wrote ({}); a server without them refuses the whole \
                 file (for such a server, select the types that it has with --type)",
                names.join(", ")
            ));
        }
        if !self.needed_classes.is_empty() {
            let names: Vec<&str> = self.needed_classes.iter().map(String::as_str).collect();
            self.observer.warn(&format!(
                "the file holds key metadata that must not be ignored ({}); a server without the \
                 modules that wrote them refuses the whole file",
                names.join(", ")
            ));
        }
        if !self.module_aux_not_chosen.is_empty() {
            let names = self.module_aux_not_chosen.iter().map(String::as_str);
            self.observer.warn(&format!(
                "data of modules outside keys are left out, because --type names no type of a \
                 module: {} (add \"module\" to it to keep them)",
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        if !self.module_aux_left_out.is_empty() {
            let names = self.module_aux_left_out.iter().map(String::as_str);
            self.observer.warn(&format!(
                "data of modules outside keys are left out, because {} {} cannot load them: {}",
                self.target.family_name(),
                self.target.server_version,
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        (self.report, done())
    }
}

/// Where the bytes to be written stand.
enum Prepared {
    /// In the record, so many.
    AsIs(usize),
    /// In the scratch room.
    Anew,
}

/// For whom values are made ready, and who is told of what is odd about them.
struct Aim<'a> {
    target: &'a RdbTarget,
    allow: AllowLoss,
    observer: &'a Observer,
}

/// The name of a module's type for people: in an archive it is anybody's text.
fn clean(module: &str) -> String {
    let short: String = module.chars().take(64).collect();
    crate::escape::clean(&short).into_owned()
}

/// Whether a server can follow module data to their end: the type's id, the moment, the items.
fn is_module_aux(data: &[u8]) -> bool {
    let mut rest = Slice::new(data);
    let head = (|| {
        let _id = walk::length(&mut rest)?;
        Ok::<_, PayloadError>((walk::length(&mut rest)?, walk::length(&mut rest)?))
    })();
    let is_whole = |rest: &mut Slice<'_>| walk::module_items(rest).is_ok() && rest.end().is_ok();
    matches!(head, Ok((2, _))) && is_whole(&mut rest)
}

fn prepare(
    aim: &Aim<'_>,
    record: &KeyRecord,
    context: &Context,
    modules: &mut BTreeSet<String>,
    report: &mut SinkReport,
    scratch: &mut Vec<u8>,
) -> Result<Prepared, Refusal> {
    let Aim {
        target,
        allow,
        observer,
    } = *aim;
    let (body, rdb_version) = match &record.value {
        Value::Compact(body) => (body.as_slice(), context.rdb_version),
        Value::Verbatim(dump) => payload::split(dump)
            .map_err(|error| Refusal::new(format!("its DUMP payload is damaged: {error}")))?,
        Value::Withheld(value) => return Err(Refusal::new(not_kept(value))),
    };
    let checked = match payload::examine(context.family, body) {
        Examined::Sound(checked) => checked,
        Examined::Opaque => match payload::module_name_of(context.family, body) {
            Some(module) => {
                refuse_module(target, &module, context, body)?;
                modules.insert(module);
                return Ok(Prepared::AsIs(body.len()));
            }
            None => Checked::default(),
        },
        Examined::Damaged(error) => {
            return Err(Refusal::new(format!("its value is damaged: {error}")));
        }
    };
    let expiring_fields = checked.expiring_fields;
    let plan = plan_checked(&target.accepts, context.family, rdb_version, body, &checked);
    if let Some(said) = checked.miscounted {
        let miscounted = Miscounted {
            said,
            held: checked.count,
            corrected: matches!(plan, Plan::Reencode { .. }),
        };
        miscounted.note(observer, &mut report.changes, record.db, &record.key);
    }
    match plan {
        Plan::Keep | Plan::Restamp(_) | Plan::Verbatim => Ok(Prepared::AsIs(body.len())),
        Plan::Reencode { forms, .. } => {
            let dropped = forms.field_ttl == FieldTtlForm::Dropped;
            if dropped && expiring_fields > 0 && !allow.hash_field_ttl {
                let place = target.magic.to_string();
                return Err(Refusal::of_field_expiry(expiring_fields, &place));
            }
            recode(context, body, forms, &mut report.changes, scratch)
                .map_err(|error| Refusal::new(format!("its value is damaged: {error}")))?;
            Ok(Prepared::Anew)
        }
        Plan::Refuse(refusal) => Err(Refusal::new(format!(
            "it cannot be written for {}: {refusal}",
            target.magic
        ))),
    }
}

/// Whether what a module wrote may stand in the file.
fn refuse_module(
    target: &RdbTarget,
    module: &str,
    context: &Context,
    body: &[u8],
) -> Result<(), Refusal> {
    if context.family != target.accepts.family {
        return Err(Refusal::new(format!(
            "it is of the module type {module:?}, which only a server of the family it comes from \
             may read"
        )));
    }
    if module != VECTOR_SET {
        return Ok(());
    }
    let (name, version) = (target.family_name(), &target.server_version);
    if !target.has_vector_sets {
        return Err(Refusal::new(format!(
            "it is a vector set, and {name} {version} has none: it would refuse the whole file"
        )));
    }
    let value = payload::plain(context.family, body);
    match target.accepts.refuses_vectors(value) {
        Some(refusal) => Err(Refusal::new(format!(
            "it cannot be written for {name} {version}: {refusal}"
        ))),
        None => Ok(()),
    }
}

/// Writes a value anew, with its metadata as they are, and counts what was changed.
fn recode(
    context: &Context,
    body: &[u8],
    forms: Forms,
    changes: &mut Changes,
    scratch: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    scratch.clear();
    let (metadata, _) = payload::split_metadata(context.family, body)?;
    scratch.extend_from_slice(metadata);
    let losses = payload::recode(context.family, body, forms, scratch)?;
    changes.reencoded += 1;
    changes.field_ttls_lost += losses.field_ttls;
    changes.field_ttls_clamped += losses.field_ttls_clamped;
    changes.streams_filled_in += u64::from(losses.stream_metadata || losses.active_times);
    changes.idempotency_lost += u64::from(losses.idempotency);
    changes.given_back_owned += losses.given_back;
    Ok(())
}

impl<W: Write + Send> Sink for RdbSink<W> {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let context = batch.context;
        self.put_module_aux(&batch.module_aux, false)?;
        for record in batch.records {
            self.put(record, &context)?;
        }
        self.put_module_aux(&batch.module_aux, true)
    }

    fn finish(self: Box<Self>, source: &SourceReport) -> (SinkReport, Result<()>) {
        self.complete(source)
    }

    fn abort(self: Box<Self>, _: &str) -> SinkReport {
        self.report
    }
}
