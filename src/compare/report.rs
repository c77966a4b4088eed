//! What was found, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::explain::Places;
use super::join::{Counts, Difference};
use super::judge::Aspect;
use super::meaning::Depth;
use super::row::{Row, What};
use crate::describe::tally::{DATABASES_TOLD, ToldDb};
use crate::payload::Kind;
use crate::record::show_key;
use crate::units::{count_text, plural, put_key, time_text};
use crate::version::SCHEMA_VERSION;

/// Counts of each database, for programs. Databases beyond those that are told one by one stand
/// together in a last row, whose `db` is null.
pub(crate) fn by_db_json(by_db: &BTreeMap<u32, Counts>) -> Vec<Value> {
    let row = |db: ToldDb, counts: &Counts| {
        let mut object = counts_object(counts);
        object["db"] = db.json();
        object
    };
    let told = by_db.iter().take(DATABASES_TOLD);
    let mut rows: Vec<Value> = told
        .map(|(db, counts)| row(ToldDb::One(*db), counts))
        .collect();
    if by_db.len() > DATABASES_TOLD {
        let mut others = Counts::default();
        let rest = by_db.values().skip(DATABASES_TOLD);
        rest.for_each(|counts| others.include(counts));
        rows.push(row(ToldDb::Others, &others));
    }
    rows
}

/// One difference, a line: class, place, and what is on either side.
pub(crate) fn text(difference: &Difference, places: &Places) -> String {
    let Some(either) = difference.either() else {
        return String::new();
    };
    let class = difference.class();
    let place = match either.what {
        What::Library => format!("function library {}", show_key(&either.key)),
        _ => format!("db {}  {}", either.db, show_key(&either.key)),
    };
    let mut text = format!("{class:<9}  {place}: {}", explain(difference));
    if let Some(place) = places.get(&either.print) {
        text += "\n           ";
        if !place.place.is_empty() {
            text += &format!("{}: ", place.place);
        }
        text += &format!("{} in A, {} in B", place.left, place.right);
    }
    text
}

/// In words, what is on either side.
pub(crate) fn explain(difference: &Difference) -> String {
    let side = |row: &Option<Row>, at_ttl: bool| match row {
        None => "nothing".to_owned(),
        Some(row) if at_ttl => expiry(row),
        Some(row) => describe(row),
    };
    let sides = |at_ttl: bool| {
        format!(
            "{} in A, {} in B",
            side(&difference.left, at_ttl),
            side(&difference.right, at_ttl)
        )
    };
    let differing: Vec<&str> = difference
        .aspects
        .iter()
        .map(|aspect| aspect.words())
        .collect();
    match difference.aspects.as_slice() {
        [Aspect::Unread] => unread(difference),
        [Aspect::Collision] => collision(difference),
        [aspect] if aspect.is_incomparable() => differing.join(", "),
        [Aspect::Missing | Aspect::Extra, ..] => sides(false),
        [Aspect::Ttl] => sides(true),
        aspects if aspects.contains(&Aspect::Ttl) => {
            format!(
                "{} ({}; {})",
                differing.join(", "),
                sides(false),
                sides(true)
            )
        }
        _ => format!("{} ({})", differing.join(", "), sides(false)),
    }
}

/// Which side did not give a key, and why.
fn unread(difference: &Difference) -> String {
    let sides = [(&difference.left, "A"), (&difference.right, "B")];
    let reasons: Vec<String> = sides
        .into_iter()
        .filter_map(|(row, name)| Some((reason(row.as_ref()?)?, name)))
        .map(|(reason, name)| format!("could not be read in {name}: {reason}"))
        .collect();
    let absent = sides.into_iter().find(|(row, _)| row.is_none());
    if let (Some((_, name)), true) = (absent, reasons.is_empty()) {
        // Of keys it is known which ones were not read.
        return format!("the function libraries in {name} were not all read");
    }
    let absent = absent.map_or(String::new(), |(_, name)| format!("; not seen in {name}"));
    reasons.join("; ") + &absent
}

/// Which keys of the left side have one name.
fn collision(difference: &Difference) -> String {
    let keys = difference
        .left
        .as_ref()
        .map_or("", |row| &row.meaning.reason);
    format!("not compared: several keys of A get this name: {keys}")
}

/// Why a row could not be read, if it could not.
pub(crate) fn reason(row: &Row) -> Option<&str> {
    (row.meaning.depth == Depth::Unread).then_some(&row.meaning.reason)
}

/// What messages call a key or a function library.
pub(crate) fn title(row: &Row) -> Vec<u8> {
    match row.what {
        What::Library => [b"function library ", &row.key[..]].concat(),
        _ => row.key.clone(),
    }
}

fn describe(row: &Row) -> String {
    let count = row.meaning.count;
    let counted = |noun: &str| plural(count, noun);
    let amount = match (row.what, row.meaning.depth) {
        (
            What::Key(_),
            Depth::Opaque | Depth::Shifting | Depth::Damaged | Depth::TooLarge | Depth::Unread,
        ) => counted("byte"),
        (What::Key(Kind::Module), Depth::TimeSeries) => counted("sample"),
        // Of other modules only vector sets are read.
        (What::Key(Kind::List | Kind::Module | Kind::Array), _) => counted("element"),
        (What::Key(Kind::Set | Kind::ZSet), _) => counted("member"),
        (What::Key(Kind::Hash | Kind::PathHash), _) => counted("field"),
        (What::Key(Kind::Stream), _) => match count {
            1 => "1 entry".to_owned(),
            _ => format!("{} entries", count_text(count)),
        },
        (What::Key(Kind::String | Kind::Unknown) | What::Library | What::Gone, _) => {
            counted("byte")
        }
    };
    match row.what {
        // Not everywhere in a cluster.
        What::Library if !row.meaning.reason.is_empty() => row.meaning.reason.clone(),
        What::Library => amount,
        What::Key(Kind::Module) => {
            let name = match row.meaning.depth {
                Depth::TimeSeries => "time series",
                Depth::Whole => "vector set",
                _ => "module",
            };
            format!("{name} of {amount}")
        }
        what => format!("{} of {amount}", what.name()),
    }
}

fn expiry(row: &Row) -> String {
    row.expire_at_ms.map_or("no expiry".to_owned(), time_text)
}

/// One difference as an object.
pub(crate) fn object(difference: &Difference, places: &Places) -> Value {
    let side = |row: &Option<Row>| {
        row.as_ref().map(|row| match reason(row) {
            Some(reason) => json!({ "unread": reason }),
            None if row.meaning.depth == Depth::Collided => {
                json!({ "collision": row.meaning.reason })
            }
            None => json!({
                "type": row.what.name(),
                "count": row.meaning.count,
                "expire_at_ms": row.expire_at_ms,
            }),
        })
    };
    let names: Vec<&str> = difference
        .aspects
        .iter()
        .map(|aspect| aspect.name())
        .collect();
    let event = if difference.is_unread() {
        "unread"
    } else if difference.is_collision() {
        "collision"
    } else if difference.is_incomparable() {
        "incomparable"
    } else {
        "difference"
    };
    let mut object = json!({
        "schema_version": SCHEMA_VERSION,
        "event": event,
        "class": difference.class(),
        "differs": names,
        "left": side(&difference.left),
        "right": side(&difference.right),
    });
    if let Some(either) = difference.either() {
        if let Some(place) = places.get(&either.print) {
            object["where"] = json!({
                "place": place.place,
                "left": place.left,
                "right": place.right,
            });
        }
        match either.what {
            What::Library => object["library"] = json!(String::from_utf8_lossy(&either.key)),
            _ => {
                object["db"] = json!(either.db);
                put_key(&mut object, &either.key);
            }
        }
    }
    object
}

/// Counts as an object.
pub(crate) fn counts_object(counts: &Counts) -> Value {
    json!({
        "compared": counts.compared,
        "equal": counts.equal,
        "partly": counts.partly,
        "expired": counts.expired,
        "incomparable": counts.incomparable,
        "unread": counts.unread,
        "collided": counts.collided,
        "different": counts.different(),
        "missing": counts.missing,
        "extra": counts.extra,
        "type": counts.other_type,
        "value": counts.value,
        "field_ttl": counts.field_ttl,
        "ttl": counts.ttl,
    })
}

/// Counts in a line: `3 differ (2 missing, 1 ttl) of 10`.
pub(crate) fn counts_text(counts: &Counts) -> String {
    let classes: Vec<String> = [
        ("missing", counts.missing),
        ("extra", counts.extra),
        ("of another type", counts.other_type),
        ("with another value", counts.value),
        ("with other field expiry", counts.field_ttl),
        ("with another expiry", counts.ttl),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| format!("{} {name}", count_text(count)))
    .collect();
    let mut text = match counts.different() {
        0 => format!("{} compared, no difference", count_text(counts.compared)),
        different => format!(
            "{} of {} differ: {}",
            count_text(different),
            count_text(counts.compared),
            classes.join(", ")
        ),
    };
    if counts.incomparable > 0 {
        text += &format!("; {} cannot be compared", count_text(counts.incomparable));
    }
    if counts.unread > 0 {
        text += &format!("; {} could not be read", count_text(counts.unread));
    }
    if counts.collided > 0 {
        text += &format!(
            "; {} of several keys of A not compared",
            plural(counts.collided, "name")
        );
    }
    if counts.expired > 0 {
        text += &format!("; {} expired meanwhile", count_text(counts.expired));
    }
    if counts.partly > 0 {
        text += &format!(
            "; {} compared without what only one side keeps",
            count_text(counts.partly)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_beyond_a_thousand_are_told_together() {
        let counts = Counts {
            compared: 3,
            equal: 1,
            missing: 2,
            ..Counts::default()
        };
        let of = |dbs: u32| by_db_json(&(0..dbs).map(|db| (db, counts)).collect());
        let few = of(DATABASES_TOLD as u32);
        assert_eq!(few.len(), DATABASES_TOLD);
        assert_eq!((&few[7]["db"], &few[7]["missing"]), (&json!(7), &json!(2)));
        let many = of(65_536);
        assert_eq!(many.len(), DATABASES_TOLD + 1);
        let others = &many[DATABASES_TOLD];
        let rest = 65_536 - DATABASES_TOLD as u64;
        assert_eq!(others["db"], Value::Null);
        assert_eq!(others["compared"], json!(3 * rest));
        assert_eq!(others["equal"], json!(rest));
        assert_eq!(others["missing"], json!(2 * rest));
    }
}
