//! The databases of the server, in words and as JSON.

use crate::describe::table::Table;
use crate::doctor::Findings;
use crate::escape::clean;
use crate::server::facts::Keyspace;
use crate::units::{count_text, plural};

/// Databases that a rule is written out for.
const MOST_IN_RULE: usize = 16;

/// The databases with keys, a row each; where some are refused, also what this user may do.
pub(super) fn databases_table(rows: &[Keyspace], found: &Findings) -> Table {
    let has_closed = rows.iter().any(|row| found.closed.contains_key(&row.db));
    let mut table = Table::new(match has_closed {
        true => ">db | >keys | >with expiry | this user",
        false => ">db | >keys | >with expiry",
    });
    for row in rows {
        let mut cells = vec![
            row.db.to_string(),
            count_text(row.keys),
            count_text(row.expires),
        ];
        if has_closed {
            cells.push(match found.closed.get(&row.db) {
                Some(why) => format!("may not read it ({})", clean(why.trim())),
                None if found.tried.contains(&row.db) => "may enter it".to_owned(),
                None => "not known".to_owned(),
            });
        }
        table.row(cells);
    }
    table
}

/// What may replace `alldbs`.
pub(super) fn database_rules_text(found: &Findings) -> String {
    let needs = found.archive.as_ref().map(|(_, needs)| &needs.databases);
    match needs.filter(|needs| !needs.with_keys.is_empty()) {
        Some(needs) if needs.with_keys.len() <= MOST_IN_RULE => {
            let dbs: Vec<String> = needs.with_keys.keys().map(u32::to_string).collect();
            let list = dbs.join(",");
            format!(
                "alldbs allows every database; db={list} in its place is enough for this archive\n"
            )
        }
        _ => "alldbs allows every database; db=0,1 in its place allows only databases 0 and 1\n"
            .to_owned(),
    }
}

/// How many keys there are, and how many of them are in databases that this user may not enter.
pub(super) fn keys_text(rows: &[Keyspace], found: &Findings) -> String {
    let total = |rows: &mut dyn Iterator<Item = &Keyspace>| {
        let (count, keys) = rows.fold((0, 0), |(count, keys), row| (count + 1, keys + row.keys));
        format!("{} in {}", plural(keys, "key"), plural(count, "database"))
    };
    let is_closed = |row: &&Keyspace| found.closed.contains_key(&row.db);
    let mut text = total(&mut rows.iter());
    if rows.iter().any(|row| is_closed(&row)) {
        let closed = total(&mut rows.iter().filter(is_closed));
        text += &format!("; of these {closed} that this user may not enter");
    }
    text
}
