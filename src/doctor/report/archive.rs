//! What an archive needs here, in words.

use std::collections::BTreeSet;

use crate::describe::export_warnings;
use crate::describe::table::Table;
use crate::doctor::Findings;
use crate::doctor::access::Access;
use crate::doctor::needs::Needs;
use crate::escape::clean;
use crate::payload::GIVEN_BACK;
use crate::policy::word;
use crate::units::{bytes_text, count_text, plural};

/// A table of its types, and a line for each finding.
pub(super) fn needs_text(name: &str, needs: &Needs, found: &Findings) -> String {
    let mut table =
        Table::new("type | >records | >as is | >version changed | >re-encoded | >refused");
    let total = needs.values.total();
    let rows = needs
        .values
        .by_type
        .iter()
        .map(|(name, fates)| (*name, fates));
    for (name, fates) in rows.chain([("all", &total)]) {
        let cells = [
            fates.keys,
            fates.kept,
            fates.restamped,
            fates.reencoded,
            fates.refused,
        ];
        let mut row = vec![name.to_owned()];
        row.extend(cells.map(count_text));
        table.row(row);
    }
    let records = match needs.keys == total.keys {
        true => String::new(),
        false => format!(" in {}", plural(total.keys, "record")),
    };
    let mut text = format!(
        "{} here: {}{records}, {} of keys and values, the largest {}\n{table}",
        clean(name),
        plural(needs.keys, "key"),
        bytes_text(needs.bytes),
        bytes_text(needs.values.largest_bytes)
    );
    for line in needs_lines(needs, found) {
        text += &format!("{line}\n");
    }
    text
}

fn needs_lines(needs: &Needs, found: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &needs.archive.outside {
        lines.push(format!("outside keys: {}", one.inspected()));
    }
    for (text, reason) in &needs.values.reasons {
        let allow = reason.loss.map_or_else(String::new, |loss| {
            format!("; --allow-loss {} accepts that", word(&loss))
        });
        lines.push(format!(
            "refused: {} such as {}: {}{allow}",
            needs.counted(reason.keys),
            reason.example,
            clean(text)
        ));
    }
    lines.extend(changed_lines(needs, found));
    if needs.libraries.left_out > 0 {
        lines.push("refused: function libraries that are larger than --max-value".to_owned());
    }
    if needs.libraries.are_refused(&found.rights) {
        lines.push(match found.rights.of("FUNCTION RESTORE") {
            Access::Absent => "refused: function libraries, which this server does not have; \
                 --allow-loss functions or --functions skip leaves them out"
                .to_owned(),
            _ => {
                "refused: function libraries, since neither FUNCTION RESTORE nor FUNCTION LOAD can \
                 be used here; --functions skip leaves them out"
                    .to_owned()
            }
        });
    }
    for library in &needs.libraries.refused {
        let (name, reason) = (clean(&library.name), clean(&library.reason));
        lines.push(format!("refused: function library {name}: {reason}"));
    }
    for (dbs, keys, why) in needs.databases.closed_told() {
        lines.push(format!(
            "refused: {} for {dbs}, which cannot be used ({}); --map-db puts them into another database",
            needs.counted(keys),
            clean(why)
        ));
    }
    lines.extend(needs.values.undecoded.warning());
    lines.extend(needs.values.undecoded.notice());
    lines.extend(export_warnings(
        &needs.archive.export_failed,
        &needs.archive.export_lacks,
    ));
    if let Some(why) = &needs.import.ends {
        lines.push(format!("an import stops at once: {}", clean(why)));
    }
    if let Some(why) = &needs.import.unforeseen {
        lines.push(format!(
            "cannot tell which keys this user may write: {}",
            clean(why)
        ));
    }
    if let Some(usage) = &needs.import.usage {
        lines.push(clean(usage).to_string());
    }
    if let Some(error) = &needs.archive.error {
        lines.push(format!("only what could be read was checked: {error}"));
    }
    lines
}

/// What would be changed or left out on the way, a line each.
fn changed_lines(needs: &Needs, found: &Findings) -> Vec<String> {
    let classes = classes_told(&needs.changed.classes_left_out);
    let limit = bytes_text(found.limits.largest_payload_bytes());
    let released = format!(
        "released by XNACK; on this server every pending message has a consumer, so these go to one \
         named {}: claim them from there",
        String::from_utf8_lossy(GIVEN_BACK)
    );
    let rows = [
        (
            needs.changed.streams_filled_in,
            "stream record",
            "metadata that only one of the two servers has is filled in or left out".to_owned(),
        ),
        (
            needs.changed.key_metadata_lost,
            "key",
            format!("key metadata of modules (class {classes}), which this server does not keep, is left out"),
        ),
        (
            needs.changed.idempotency_lost,
            "stream record",
            "idempotency settings or remembered producer ids are left out, because this server has none \
             or native commands may not set them (XCFGSET, XIDMPRECORD): an entry that a producer sends \
             again is added again"
                .to_owned(),
        ),
        (needs.changed.given_back_owned, "pending stream message", released),
        (
            needs.values.too_large,
            "payload",
            format!("larger than one RESTORE can carry here ({limit}), so native commands write it in chunks"),
        ),
    ];
    let rows = rows.into_iter().filter(|(count, ..)| *count > 0);
    rows.map(|(count, noun, text)| format!("{}: {text}", plural(count, noun)))
        .collect()
}

/// Names of classes of key metadata, for people.
fn classes_told(classes: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = classes.iter().map(|class| format!("{class:?}")).collect();
    quoted.join(", ")
}
