//! Whether the destination keeps a class of key metadata (Redis 8.6).
//!
//! A server without the class leaves it out without a word where the class says that it may be
//! ignored, and refuses the key where it says that it must not (keymeta.c, rdbLoadKeyMetadata). So
//! a class is offered under both flags, with what is in it, on a key that ends before it begins:
//! where it is taken as one that may be ignored and refused as one that must not, the server does
//! not have it. Nothing is written for that, and each class is asked about once.

use std::collections::BTreeMap;

use super::prepare::Target;
use super::try_out::{ProbeKeys, is_about_payload, offer_past};
use crate::payload::{self, metadata};
use crate::record::{Context, KeyRecord};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// Names of classes are anything an archive says.
const MAX_CLASSES: usize = 1024;

/// How often a class is asked about that no answer says anything of.
const MAX_TRIES: u8 = 8;

/// What the destination does with a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has the class: it keeps what it takes, and refuses what it does not take.
    Kept,
    /// It does not have it.
    LeftOut,
    /// So many answers said nothing of it.
    Unknown(u8),
}

/// What the destination does with classes of key metadata, by their number.
#[derive(Debug, Default)]
pub struct Classes(BTreeMap<u32, Fate>);

impl Classes {
    /// Whether it is known to keep the class.
    pub fn keeps(&self, class: u32) -> bool {
        self.0.get(&class) == Some(&Fate::Kept)
    }

    /// Whether it is known not to have the class.
    pub fn leaves_out(&self, class: u32) -> bool {
        self.0.get(&class) == Some(&Fate::LeftOut)
    }

    fn is_to_be_asked(&self, class: u32) -> bool {
        match self.0.get(&class) {
            None => self.0.len() < MAX_CLASSES,
            Some(Fate::Unknown(tries)) => *tries < MAX_TRIES,
            Some(Fate::Kept | Fate::LeftOut) => false,
        }
    }

    /// Takes the answers to [`metadata::Class::alone`], as a class that must not be ignored and as
    /// one that may be.
    fn learn(&mut self, class: u32, [must, may]: [Result<(), String>; 2]) {
        let is_refused = |text: &str| is_about_payload(text);
        let fate = match (&must, &may) {
            (Ok(()), Ok(())) => Fate::Kept,
            (Err(text), Ok(())) if is_refused(text) => Fate::LeftOut,
            // It does not take what is in it, and says so of each key.
            (Err(text), Err(other)) if is_refused(text) && is_refused(other) => Fate::Kept,
            _ => match self.0.get(&class) {
                Some(Fate::Unknown(tries)) => Fate::Unknown(tries.saturating_add(1)),
                _ => Fate::Unknown(1),
            },
        };
        self.0.insert(class, fate);
    }
}

/// Whether something is to be asked about a value's key metadata before it is made ready.
pub fn are_to_be_asked(target: &Target, record: &KeyRecord, context: &Context) -> bool {
    payload::has_metadata(context.family, record.value.head())
        && target.accepts().takes_metadata()
        && !open_classes(target, record, context).is_empty()
}

/// The classes that are not known and matter: those that must not be ignored are refused aloud,
/// unless their loss is allowed. With what to offer.
fn open_classes(
    target: &Target,
    record: &KeyRecord,
    context: &Context,
) -> Vec<(u32, [Vec<u8>; 2])> {
    let all_matter = target.allows_key_meta();
    let classes = metadata::classes(context.family, record.value.head()).unwrap_or_default();
    let known = target.classes();
    let open = classes
        .iter()
        .filter(|class| (all_matter || class.may_be_ignored()) && known.is_to_be_asked(class.id()));
    open.map(|class| (class.id(), [false, true].map(|may| class.alone(may))))
        .collect()
}

/// Asks what the destination does with the classes of a value's key metadata that are not known.
///
/// # Errors
/// The connection.
pub fn ask(
    conn: &mut Conn,
    target: &mut Target,
    record: &KeyRecord,
    context: &Context,
) -> Result<(), ServerError> {
    let Some(version) = target.accepts().versions.highest() else {
        return Ok(());
    };
    let key = ProbeKeys::new(&record.key, Some(slot_of(&record.key))).alike;
    for (class, offered) in open_classes(target, record, context) {
        let [must, may] = offered.map(|value| payload::sign(&value, version));
        let said = offer_past(conn, &key, &[&must, &may])?;
        if let Ok(said) = <[_; 2]>::try_from(said) {
            target.classes_mut().learn(class, said);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_together_say_what_becomes_of_a_class() {
        let bad = || Err("ERR Bad data format".to_owned());
        // As an answer is given that is neither OK nor an error.
        let odd = || Err("simple-string(\"QUEUED\")".to_owned());
        let other = || Err("NOPERM No permissions to access a key".to_owned());
        let known = |answers: [Result<(), String>; 2]| {
            let mut classes = Classes::default();
            classes.learn(7, answers);
            let open = classes.is_to_be_asked(7);
            (classes.keeps(7), classes.leaves_out(7), open)
        };
        assert_eq!(known([Ok(()), Ok(())]), (true, false, false));
        assert_eq!(known([bad(), Ok(())]), (false, true, false));
        assert_eq!(known([bad(), bad()]), (true, false, false));
        for unclear in [
            [other(), other()],
            [other(), Ok(())],
            [bad(), other()],
            [Ok(()), bad()],
            [odd(), odd()],
            [odd(), Ok(())],
        ] {
            assert_eq!(known(unclear), (false, false, true));
        }
        let mut classes = Classes::default();
        for _ in 0..MAX_TRIES {
            assert!(classes.is_to_be_asked(7));
            classes.learn(7, [other(), other()]);
        }
        assert!(!classes.is_to_be_asked(7) && !classes.keeps(7) && !classes.leaves_out(7));
        classes.learn(7, [bad(), Ok(())]);
        assert!(classes.leaves_out(7));
        for class in 0..2 * MAX_CLASSES as u32 {
            if classes.is_to_be_asked(class) {
                classes.learn(class, [Ok(()), Ok(())]);
            }
        }
        assert_eq!(classes.0.len(), MAX_CLASSES);
    }
}
