//! What `verify` sees of values: whether a destination could be given them.

use anyhow::Result;
use serde_json::{Value as Json, json};

use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::payload::{self, Examined};
use crate::rdb::library_flaws;
use crate::record::{Context, Family, KeyRecord, Record, Value, larger_than, not_kept};
use crate::size::is_larger;
use crate::source::archive::functions_not_kept;
use crate::units::{libraries_text, plural};

/// Decodes values as `import` would, and counts what it finds.
#[derive(Debug, Default)]
pub struct Values {
    /// Values that are larger are named and not decoded.
    pub max_bytes: u64,
    /// Decoded to their last byte.
    pub decoded: u64,
    /// Only their own server can read them.
    pub opaque: u64,
    /// No destination takes them.
    pub damaged: u64,
    /// Larger than was allowed.
    pub too_large: u64,
    /// Streams whose own counter is not the number of their entries.
    pub miscounted: u64,
    /// Function libraries that no server takes; a payload that cannot be read counts as one.
    pub bad_functions: u64,
    /// Function payloads larger than was allowed.
    pub withheld_functions: u64,
}

impl Values {
    /// Looks at a record.
    ///
    /// # Errors
    /// Those of [`Observer::key_failed`].
    pub fn look_at(
        &mut self,
        record: &Record,
        context: &Context,
        observer: &Observer,
    ) -> Result<()> {
        match record {
            Record::Key(key) => self.key(key, context.family, observer),
            Record::Functions(dump) => self.libraries(dump, observer),
            Record::WithheldFunctions(len) => {
                self.withheld_functions += 1;
                observer.warn(&functions_not_kept(*len));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn libraries(&mut self, dump: &[u8], observer: &Observer) -> Result<()> {
        let flaws = match library_flaws(dump) {
            Ok(flaws) => flaws,
            Err(reason) => {
                self.bad_functions += 1;
                observer.warn(&format!("the function libraries cannot be read: {reason}"));
                return Ok(());
            }
        };
        for flaw in flaws {
            self.bad_functions += 1;
            observer.key_failed(&KeyFailure {
                db: 0,
                key: flaw.title(),
                kind: FailureKind::Damaged,
                reason: format!("it is damaged: {}", flaw.kind),
                hint: None,
            })?;
        }
        Ok(())
    }

    fn key(&mut self, key: &KeyRecord, family: Family, observer: &Observer) -> Result<()> {
        if is_larger(&key.value, family, self.max_bytes) {
            self.too_large += 1;
            let reason = format!("{}, and was not decoded", larger_than(self.max_bytes));
            return fail(key, FailureKind::Unread, reason, observer);
        }
        let examined = match &key.value {
            Value::Compact(body) => payload::examine(family, body),
            Value::Withheld(value) => {
                self.too_large += 1;
                return fail(key, FailureKind::Unread, not_kept(value), observer);
            }
            Value::Verbatim(dump) => match payload::split(dump) {
                Ok((body, _)) => payload::examine(family, body),
                Err(error) => {
                    self.damaged += 1;
                    let reason = format!("its DUMP payload is damaged: {error}");
                    return fail(key, FailureKind::Damaged, reason, observer);
                }
            },
        };
        match examined {
            Examined::Sound(checked) => {
                self.decoded += 1;
                self.miscounted += u64::from(checked.miscounted.is_some());
                Ok(())
            }
            // Without its footer a server cannot be given it.
            Examined::Opaque if matches!(key.value, Value::Compact(_)) => {
                self.damaged += 1;
                let reason = "it is of a type that only its own server can read, and has no footer";
                fail(key, FailureKind::Damaged, reason.to_owned(), observer)
            }
            Examined::Opaque => {
                self.opaque += 1;
                Ok(())
            }
            Examined::Damaged(error) => {
                self.damaged += 1;
                let reason = format!("its value is damaged: {error}");
                fail(key, FailureKind::Damaged, reason, observer)
            }
        }
    }

    /// What is wrong, a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.damaged > 0 {
            problems.push(format!(
                "{} would be refused by every destination: {}",
                plural(self.damaged, "damaged value"),
                "the archive holds them as they were at the source"
            ));
        }
        if self.too_large > 0 {
            problems.push(format!(
                "{} larger than --max-value allows and not decoded",
                plural(self.too_large, "value")
            ));
        }
        if self.withheld_functions > 0 {
            problems.push(format!(
                "{} of function libraries larger than --max-value allows and not read",
                plural(self.withheld_functions, "payload")
            ));
        }
        if self.bad_functions > 0 {
            let libraries = libraries_text(self.bad_functions, "damaged function");
            problems.push(format!("{libraries} would be refused by every destination"));
        }
        problems
    }

    /// What was looked at, for the last line.
    pub fn text(&self) -> String {
        let mut text = format!("{} decoded", plural(self.decoded, "value"));
        if self.opaque > 0 {
            text += &format!(
                ", {} that only a server that knows the type can read",
                plural(self.opaque, "value")
            );
        }
        if self.damaged > 0 {
            text += &format!(", {}", plural(self.damaged, "damaged value"));
        }
        if self.miscounted > 0 {
            text += &format!(
                ", {} with a wrong counter (XLEN; the entries are sound)",
                plural(self.miscounted, "stream")
            );
        }
        text
    }

    pub fn json(&self) -> Json {
        json!({
            "decoded": self.decoded,
            "opaque": self.opaque,
            "damaged": self.damaged,
            "too_large": self.too_large,
            "streams_miscounted": self.miscounted,
            "bad_function_payloads": self.bad_functions,
            "too_large_function_payloads": self.withheld_functions,
        })
    }
}

fn fail(key: &KeyRecord, kind: FailureKind, reason: String, observer: &Observer) -> Result<()> {
    observer.key_failed(&KeyFailure {
        db: key.db,
        key: key.key.clone(),
        kind,
        reason,
        hint: None,
    })
}
