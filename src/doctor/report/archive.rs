//! What an archive needs here, in words.

use std::collections::BTreeSet;

use crate::describe::export_warnings;
use crate::describe::table::Table;
use crate::doctor::Findings;
use crate::doctor::access::Access;
use crate::doctor::needs::{Needs, loss_name};
use crate::escape::clean;
use crate::payload::GIVEN_BACK;
use crate::units::{bytes_text, count_text, plural};

/// A table of its types, and a line for each finding.
pub(super) fn needs_text(name: &str, needs: &Needs, found: &Findings) -> String {
    let mut table =
        Table::new("type | >records | >as is | >version changed | >re-encoded | >refused");
    let total = needs.total();
    let rows = needs.by_type.iter().map(|(name, fates)| (*name, fates));
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
        bytes_text(needs.largest_bytes)
    );
    for line in needs_lines(needs, found) {
        text += &format!("{line}\n");
    }
    text
}

fn needs_lines(needs: &Needs, found: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &needs.outside {
        lines.push(format!("outside keys: {}", one.inspected()));
    }
    for (text, reason) in &needs.reasons {
        let allow = reason.loss.map_or_else(String::new, |loss| {
            format!("; --allow-loss {} accepts that", loss_name(loss))
        });
        lines.push(format!(
            "refused: {} such as {}: {}{allow}",
            needs.counted(reason.keys),
            reason.example,
            clean(text)
        ));
    }
    if needs.streams_filled_in > 0 {
        lines.push(format!(
            "{}: metadata that only one of the two servers has is filled in or left out",
            plural(needs.streams_filled_in, "stream record")
        ));
    }
    if needs.key_metadata_lost > 0 {
        lines.push(format!(
            "{} with key metadata of modules that this server does not keep: it is left out \
             (class {})",
            plural(needs.key_metadata_lost, "key"),
            classes_told(&needs.classes_left_out)
        ));
    }
    if needs.idempotency_lost > 0 {
        lines.push(format!(
            "{}: idempotency settings or remembered producer ids are left out, because this server \
             has none or native commands may not set them (XCFGSET, XIDMPRECORD): an entry that a \
             producer sends again is added again",
            plural(needs.idempotency_lost, "stream record")
        ));
    }
    if needs.given_back_owned > 0 {
        lines.push(format!(
            "pending stream entries released by XNACK: {}. On this server every pending entry has a \
             consumer, so they go to one named {}; claim them from there",
            count_text(needs.given_back_owned),
            String::from_utf8_lossy(GIVEN_BACK)
        ));
    }
    if needs.too_large > 0 {
        lines.push(format!(
            "{} larger than one RESTORE can carry here ({}): native commands write them in chunks",
            plural(needs.too_large, "payload"),
            bytes_text(found.limits.largest_payload_bytes())
        ));
    }
    if needs.functions_left_out > 0 {
        lines.push("refused: function libraries that are larger than --max-value".to_owned());
    }
    if needs.refuses_functions(&found.rights) {
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
    for library in &needs.libraries_refused {
        let (name, reason) = (clean(&library.name), clean(&library.reason));
        lines.push(format!("refused: function library {name}: {reason}"));
    }
    for (dbs, keys, why) in needs.closed_told() {
        lines.push(format!(
            "refused: {} for {dbs}, which cannot be used ({}); --map-db puts them into another database",
            needs.counted(keys),
            clean(why)
        ));
    }
    lines.extend(needs.undecoded.warning());
    lines.extend(needs.undecoded.notice());
    lines.extend(export_warnings(&needs.export_failed, &needs.export_lacks));
    if let Some(end) = &needs.ends {
        let why = end.to_string();
        lines.push(format!("an import stops at once: {}", clean(&why)));
    }
    if let Some(why) = &needs.unforeseen {
        lines.push(format!(
            "cannot tell which keys this user may write: {}",
            clean(why)
        ));
    }
    if let Some(usage) = &needs.usage {
        lines.push(clean(usage).to_string());
    }
    if let Some(error) = &needs.error {
        lines.push(format!("only what could be read was checked: {error}"));
    }
    lines
}

/// Names of classes of key metadata, for people.
fn classes_told(classes: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = classes.iter().map(|class| format!("{class:?}")).collect();
    quoted.join(", ")
}
