//! The report as one page that asks the network for nothing: no script, no font, no image, and a
//! policy in its head that forbids them. Every picture is a table as well.
//!
//! Names of keys come from anybody. They go in through [`escaped`] only, and into the embedded data
//! with `<` written as an escape, so that nothing ends an element early.

use super::data::{About, GROUPS, json};
use super::treemap::squarified;
use super::{Bucket, Group, LargeKey, Report, Weight};
use crate::describe::{end_lines, export_failed, header_lines, loss_of};
use crate::escape::{clean, json_text};
use crate::units::{bytes_text, count_text, time_text};
use redis_migrate_format::header::ConsistencyReached;

const STYLE: &str = include_str!("page.css");

/// Colours that groups are told apart by; their names stand in them as well.
const COLOURS: usize = 8;

/// Prefixes of the second level that are listed for each of the first.
const LISTED_BELOW: usize = 8;

/// The page.
pub fn page(report: &Report, about: &About) -> String {
    let groups = report.prefixes.groups(GROUPS);
    let total = report.total();
    let mut body = String::with_capacity(128 * 1024);
    body += &head(about);
    body += &verdict(about);
    body += &totals(report, &total);
    body += &section("prefixes", "Prefixes", &prefixes(report, &groups, &total));
    body += &section("types", "Types", &bars("type", &report.by_type(), &total));
    body += &section("lives", "Expiry", &lives(report, &total));
    let sizes = bars("value", &report.sizes, &total);
    body += &section("sizes", "Sizes of values", &sizes);
    body += &section("databases", "Databases", &databases(report, &total));
    body += &section("largest", "Largest keys", &largest(report));
    body += &section("facts", "The archive", &facts(about));
    let data = in_a_data_block(&json(report, about));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{} – redis-migrate report</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n{FOOTER}\
         <script type=\"application/json\" id=\"data\">{data}</script>\n</body>\n</html>\n",
        escaped(&about.name)
    )
}

const FOOTER: &str = "<footer><p>Sizes are bytes of names and values as stored, before \
    compression. Memory is an estimate: what Redis 7 would allocate for such values on 64 bits; it \
    may be off by a third, more for other versions and for values of modules. A key that has \
    several records is counted once, as the last of them has it. The numbers are in this page as JSON too \
    (<code>#data</code>), and in <code>redis-migrate report --json</code>.</p></footer>\n";

/// JSON for a data block, where nothing is escaped but what could end it, and what must not be shown
/// to those who look at the page's text.
fn in_a_data_block(json: &serde_json::Value) -> String {
    json_text(json).replace('<', "\\u003c")
}

/// Text for an element or an attribute: control characters made visible, markup taken away.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in clean(text).chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!(
        "<section aria-labelledby=\"h-{id}\">\n<h2 id=\"h-{id}\">{title}</h2>\n{content}</section>\n"
    )
}

/// A number that is shown for people and is there exactly for programs.
fn number(exact: u64, shown: &str) -> String {
    format!("<td class=\"n\" data-n=\"{exact}\">{shown}</td>")
}

fn count(n: u64) -> String {
    number(n, &count_text(n))
}

fn size(n: u64) -> String {
    number(n, &bytes_text(n))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

fn percent_text(part: u64, whole: u64) -> String {
    match percent(part, whole) {
        0.0 => "0 %".to_owned(),
        small if small < 0.1 => "< 0.1 %".to_owned(),
        share => format!("{share:.1} %"),
    }
}

fn head(about: &About) -> String {
    let header = &about.header;
    let label = header.source.label.as_deref().unwrap_or_default();
    let label = match label {
        "" => String::new(),
        label => format!("<p class=\"label\">{}</p>\n", escaped(label)),
    };
    format!(
        "<header>\n<p class=\"kicker\">What is inside</p>\n<h1>{}</h1>\n{label}<p>{}, {}, as of {}</p>\n</header>\n",
        escaped(&about.name),
        bytes_text(about.bytes),
        if about.encrypted {
            "encrypted by age"
        } else {
            "not encrypted"
        },
        time_text(header.source_time_ms),
    )
}

/// How exact it is. A word and a sign say it, the colour only repeats it.
fn verdict(about: &About) -> String {
    let loss = loss_of(&about.header);
    let (class, sign, word) = match &about.end.facts.reached {
        _ if !about.problems.is_empty() => ("bad", "✗", "It does not add up"),
        _ if loss.is_some() => ("poor", "!", "Salvaged, and not all of it"),
        _ if !about.end.lacks.is_empty() => ("poor", "!", "Keys may be missing"),
        _ if !export_failed(&about.end).is_empty() => ("fair", "≈", "Not every key is in it"),
        ConsistencyReached::Exact(_) => ("good", "✓", "Exact"),
        ConsistencyReached::PerKey { .. } => ("fair", "≈", "Exact for each key"),
        ConsistencyReached::Scan { .. } => ("fair", "≈", "A scan, not one moment"),
        _ => ("poor", "!", "Still changing when it ended"),
    };
    let lines = end_lines(&about.header, &about.end);
    let text = lines.first().map_or("", |(_, text)| text.as_str());
    let problems: String = about
        .problems
        .iter()
        .map(|problem| format!("<li>{}</li>", escaped(problem)))
        .collect();
    let problems = match problems.as_str() {
        "" => String::new(),
        items => format!("<ul>{items}</ul>\n"),
    };
    format!(
        "<div class=\"verdict {class}\" id=\"verdict\">\n<p><span class=\"sign\" aria-hidden=\"true\">{sign}</span>\
         <strong>{word}.</strong> {}; {}.</p>\n{problems}</div>\n",
        match &loss {
            Some(loss) => format!("Intact, but it {}", escaped(loss)),
            None => "Complete and intact".to_owned(),
        },
        escaped(text)
    )
}

fn totals(report: &Report, total: &Weight) -> String {
    let tile = |id: &str, name: &str, exact: u64, shown: &str, more: &str| {
        format!(
            "<div><dt>{name}</dt><dd id=\"total-{id}\" data-n=\"{exact}\">{shown}</dd>\
             <dd class=\"more\">{more}</dd></div>\n"
        )
    };
    let bytes = bytes_text(total.bytes);
    let memory = bytes_text(total.memory_bytes);
    let mut more = Vec::new();
    if report.superseded > 0 {
        let records = total.keys + report.superseded;
        more.push(format!("in {} records", count_text(records)));
    }
    if report.tombstones > 0 {
        more.push(format!("{} were deleted", count_text(report.tombstones)));
    }
    if report.functions > 0 {
        more.push("with function libraries".to_owned());
    }
    let more = more.join(", ");
    format!(
        "<dl class=\"tiles\">\n{}{}{}{}</dl>\n",
        tile("keys", "Keys", total.keys, &count_text(total.keys), &more),
        tile(
            "bytes",
            "Names and values",
            total.bytes,
            &bytes,
            "as stored"
        ),
        tile(
            "memory",
            "Memory",
            total.memory_bytes,
            &format!("≈ {memory}"),
            "in a server, estimated"
        ),
        tile(
            "ttl",
            "With expiry",
            total.with_ttl,
            &percent_text(total.with_ttl, total.keys),
            &count_text(total.with_ttl)
        ),
    )
}

fn prefix_text(group: &Group) -> &str {
    match group.prefix.as_deref() {
        None => "other",
        Some("") => "(no name)",
        Some(prefix) => prefix,
    }
}

fn prefixes(report: &Report, groups: &[Group], total: &Weight) -> String {
    if groups.is_empty() {
        return "<p>No keys.</p>\n".to_owned();
    }
    let mut text = String::new();
    for (class, width, height) in [("wide", 200.0, 84.0), ("tall", 100.0, 125.0)] {
        text += &map(class, groups, width, height, total);
    }
    text +=
        "<p class=\"note\">Areas are bytes of names and values. Ids are folded to <code>*</code>.";
    if report.prefixes.dropped {
        text += " There are more prefixes than were told apart: what is small and rare is counted as <em>other</em>.";
    }
    text += "</p>\n";
    let mut rows = String::new();
    for group in groups {
        rows += &prefix_row(group, total, "");
        for child in group.children.iter().take(LISTED_BELOW) {
            rows += &prefix_row(child, total, " class=\"below\"");
        }
    }
    text + &table(
        "t-prefixes",
        &["Prefix", "Keys", "Size", "Share", "Memory ≈"],
        &rows,
    )
}

fn prefix_row(group: &Group, total: &Weight, class: &str) -> String {
    let Weight {
        keys,
        bytes,
        memory_bytes,
        ..
    } = group.weight;
    format!(
        "<tr{class}><th scope=\"row\">{}</th>{}{}<td class=\"n\">{}</td>{}</tr>\n",
        escaped(prefix_text(group)),
        count(keys),
        size(bytes),
        percent_text(bytes, total.bytes),
        size(memory_bytes)
    )
}

/// The treemap: boxes in percent of their box, so that it fits any width; one form for wide screens
/// and one for narrow ones.
fn map(class: &str, groups: &[Group], width: f64, height: f64, total: &Weight) -> String {
    let weights: Vec<u64> = groups.iter().map(|group| group.weight.bytes).collect();
    let rects = squarified(&weights, width, height);
    let mut text = format!(
        "<div class=\"map {class}\" role=\"img\" aria-label=\"Prefixes by bytes; the table below has the same\">\n"
    );
    for (n, (group, rect)) in groups.iter().zip(rects).enumerate() {
        let title = map_title(group, total);
        let colour = match group.prefix {
            None => "other".to_owned(),
            Some(_) => format!("c{}", n % COLOURS),
        };
        text += &format!(
            "<div class=\"g {colour}\" style=\"left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%\" title=\"{title}\"><b>{}</b>",
            rect.x * 100.0 / width,
            rect.y * 100.0 / height,
            rect.w * 100.0 / width,
            rect.h * 100.0 / height,
            escaped(prefix_text(group))
        );
        if rect.w * 100.0 / width > 12.0 && rect.h * 100.0 / height > 12.0 {
            text += &inner_map(group, rect.w, rect.h, total);
        }
        text += "</div>\n";
    }
    text + "</div>\n"
}

fn inner_map(group: &Group, width: f64, height: f64, total: &Weight) -> String {
    let weights: Vec<u64> = group
        .children
        .iter()
        .map(|child| child.weight.bytes)
        .collect();
    let prefix = group.prefix.as_deref().unwrap_or_default();
    let mut text = "<div class=\"in\">".to_owned();
    for (child, rect) in group
        .children
        .iter()
        .zip(squarified(&weights, width, height))
    {
        let shown = prefix_text(child);
        let shown = shown.strip_prefix(prefix).unwrap_or(shown);
        text += &format!(
            "<div class=\"l\" style=\"left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%\" title=\"{}\">{}</div>",
            rect.x * 100.0 / width,
            rect.y * 100.0 / height,
            rect.w * 100.0 / width,
            rect.h * 100.0 / height,
            map_title(child, total),
            escaped(shown)
        );
    }
    text + "</div>"
}

fn map_title(group: &Group, total: &Weight) -> String {
    let Weight { keys, bytes, .. } = group.weight;
    let share = percent_text(bytes, total.bytes);
    escaped(&format!(
        "{}: {} keys, {}, {share}",
        prefix_text(group),
        count_text(keys),
        bytes_text(bytes),
    ))
}

fn table(id: &str, columns: &[&str], rows: &str) -> String {
    let head: String = columns
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let class = if n == 0 { "" } else { " class=\"n\"" };
            format!("<th scope=\"col\"{class}>{name}</th>")
        })
        .collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table id=\"{id}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A row with a bar of its share of the keys behind its name, and the numbers.
fn bar_row(name: &str, weight: &Weight, total: &Weight) -> String {
    let share = percent(weight.keys, total.keys);
    format!(
        "<tr><th scope=\"row\">{}<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:{share:.2}%\"></i></span></th>{}\
         <td class=\"n\">{}</td>{}{}</tr>\n",
        escaped(name),
        count(weight.keys),
        percent_text(weight.keys, total.keys),
        size(weight.bytes),
        size(weight.memory_bytes)
    )
}

fn bars(what: &str, rows: &[Bucket], total: &Weight) -> String {
    let text: String = rows
        .iter()
        .map(|(name, weight)| bar_row(name, weight, total))
        .collect();
    let (id, head) = match what {
        "type" => ("t-types", "Type"),
        _ => ("t-sizes", "Value"),
    };
    table(id, &[head, "Keys", "Share", "Size", "Memory ≈"], &text)
}

fn lives(report: &Report, total: &Weight) -> String {
    let mut rows = bar_row("no expiry", &report.without_ttl, total);
    for (name, weight) in &report.lives {
        rows += &bar_row(name, weight, total);
    }
    let head = ["Life that remained", "Keys", "Share", "Size", "Memory ≈"];
    "<p class=\"note\">Counted from when each key was read.</p>\n".to_owned()
        + &table("t-lives", &head, &rows)
}

fn databases(report: &Report, total: &Weight) -> String {
    let rows: String = report
        .by_db()
        .iter()
        .map(|(db, weight)| bar_row(&format!("db {db}"), weight, total))
        .collect();
    let head = ["Database", "Keys", "Share", "Size", "Memory ≈"];
    table("t-databases", &head, &rows)
}

fn largest(report: &Report) -> String {
    let rows: String = report.largest().into_iter().map(large_row).collect();
    if rows.is_empty() {
        return "<p>No keys.</p>\n".to_owned();
    }
    let head = [
        "Key",
        "Memory ≈",
        "Value",
        "Elements",
        "Type",
        "db",
        "Expires",
    ];
    table("t-largest", &head, &rows)
}

fn large_row(key: &LargeKey) -> String {
    let name = match std::str::from_utf8(&key.key) {
        Ok(text) => escaped(text),
        Err(_) => escaped(&key.key.escape_ascii().to_string()),
    };
    let more = if key.key_bytes > key.key.len() as u64 {
        "…"
    } else {
        ""
    };
    let name = if name.is_empty() {
        "<em>(no name)</em>".to_owned()
    } else {
        name
    };
    format!(
        "<tr><th scope=\"row\" class=\"key\">{name}{more}</th>{}{}{}<td class=\"n\">{}</td>{}<td class=\"n\">{}</td></tr>\n",
        size(key.memory_bytes),
        size(key.value_bytes),
        key.elements
            .map_or_else(|| "<td class=\"n\">–</td>".to_owned(), count),
        key.type_name,
        count(key.db.into()),
        key.expire_at_ms.map_or_else(|| "–".to_owned(), time_text),
    )
}

fn facts(about: &About) -> String {
    let mut lines = header_lines(&about.header, about.archive_id);
    lines.extend(end_lines(&about.header, &about.end));
    lines.push(("size", bytes_text(about.bytes)));
    lines.push(("sha256", about.sha256.clone()));
    let rows: String = lines
        .iter()
        .map(|(name, text)| {
            format!(
                "<div><dt>{}</dt><dd>{}</dd></div>\n",
                escaped(name),
                escaped(text)
            )
        })
        .collect();
    format!("<dl class=\"facts\">\n{rows}</dl>\n")
}
