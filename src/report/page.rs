//! The report as one page that asks the network for nothing: no script, no font, no image, and a
//! policy in its head that forbids them. Every picture is a table as well.
//!
//! Names of keys come from anybody. maud escapes whatever goes into the page, [`Text`] makes control
//! characters visible before that, and in the embedded data `<` is written as an escape, so that
//! nothing ends an element early.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use redis_migrate_format::header::ConsistencyReached;

use super::data::{About, GROUPS, json};
use super::treemap::{Rect, squarified};
use super::{Bucket, LargeKey, PrefixGroup, Report, Weight};
use crate::describe::{end_lines, header_lines, loss_of};
use crate::escape::{clean, json_text};
use crate::ledger::export_failed;
use crate::units::{bytes_text, count_text, time_text};

const STYLE: &str = include_str!("page.css");

/// Nothing is fetched and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Colours that groups are told apart by; their names stand in them as well.
const COLOURS: usize = 8;

/// Prefixes of the second level that are listed for each of the first.
const LISTED_BELOW: usize = 8;

/// Text from anybody, for an element or an attribute.
pub(super) struct Text<'a>(pub &'a str);

impl Render for Text<'_> {
    fn render_to(&self, page: &mut String) {
        let mut escaped = String::with_capacity(self.0.len() + 8);
        clean(self.0).render_to(&mut escaped);
        // maud leaves apostrophes, since it puts attributes into double quotes; not so every tool that
        // rewrites a page.
        *page += &escaped.replace('\'', "&#39;");
    }
}

pub fn page(report: &Report, about: &About) -> String {
    let groups = report.prefixes.groups(GROUPS);
    let total = report.total();
    // Nothing is escaped but what could end the block, and what must not be shown to those who look
    // at the page's text.
    let data = json_text(&json(report, about)).replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (Text(&about.name)) " – redis-migrate report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(about))
                    (verdict(about))
                    (totals(report, &total))
                    (section("prefixes", "Prefixes", prefixes(report, &groups, &total)))
                    (section("types", "Types", bars("types", "Type", &report.by_type(), &total)))
                    (section("lives", "Expiry", lives(report, &total)))
                    (section("sizes", "Value sizes", bars("sizes", "Value", &report.sizes, &total)))
                    (section("databases", "Databases", databases(report, &total)))
                    (section("largest", "Largest keys", largest(report)))
                    (section("facts", "The archive", facts(about)))
                }
                (footer())
                script type="application/json" id="data" { (PreEscaped(data)) }
            }
        }
    };
    page.into_string() + "\n"
}

fn footer() -> Markup {
    html! {
        footer {
            p {
                "Sizes are bytes of names and values as stored, before compression. Memory is an \
                 estimate: what Redis 7 on a 64-bit system would allocate for such values. It may be \
                 off by a third, more for other versions and for modules' values. A key with several \
                 records counts once, as its last record has it. The same numbers are in this page \
                 as JSON (" code { "#data" } ") and in " code { "redis-migrate report --json" } "."
            }
        }
    }
}

fn section(id: &str, title: &str, content: Markup) -> Markup {
    html! {
        section aria-labelledby={ "h-" (id) } {
            h2 id={ "h-" (id) } { (title) }
            (content)
        }
    }
}

/// A cell behind the name of a row. A number is shown for people and there exactly for programs.
enum Cell {
    Count(u64),
    Size(u64),
    /// So much of all.
    Share(u64, u64),
    Words(String),
}

impl Render for Cell {
    fn render(&self) -> Markup {
        let (exact, shown) = match self {
            Self::Count(n) => (Some(*n), count_text(*n)),
            Self::Size(n) => (Some(*n), bytes_text(*n)),
            Self::Share(part, whole) => (None, percent_text(*part, *whole)),
            Self::Words(text) => (None, text.clone()),
        };
        html! { td.n data-n=[exact] { (Text(&shown)) } }
    }
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

fn head(about: &About) -> Markup {
    let header = &about.header;
    let label = header.source.label.as_deref().unwrap_or_default();
    let encrypted = match about.encrypted {
        true => "encrypted by age",
        false => "not encrypted",
    };
    let time = time_text(header.source_time_ms);
    html! {
        header {
            p.kicker { "What is inside" }
            h1 { (Text(&about.name)) }
            @if !label.is_empty() {
                p.label { (Text(label)) }
            }
            p { (bytes_text(about.bytes)) ", " (encrypted) ", as of " (time) }
        }
    }
}

/// How exact it is. A word and a sign say it, the colour only repeats it.
fn verdict(about: &About) -> Markup {
    let loss = loss_of(&about.header);
    let (class, sign, word) = match &about.end.facts.reached {
        _ if !about.problems.is_empty() => ("bad", "✗", "The counts do not add up"),
        _ if loss.is_some() => ("poor", "!", "Salvaged, with losses"),
        _ if !about.end.lacks.is_empty() => ("poor", "!", "Keys may be missing"),
        _ if !export_failed(&about.end).is_empty() => ("fair", "≈", "Some keys were left out"),
        ConsistencyReached::Exact(_) => ("good", "✓", "Exact"),
        ConsistencyReached::PerKey { .. } => ("fair", "≈", "Exact for each key"),
        ConsistencyReached::Scan { .. } => ("fair", "≈", "A scan, not one point in time"),
        _ => ("poor", "!", "Keys were still changing when it ended"),
    };
    let intact = match loss {
        Some(loss) => format!("Intact, but it {loss}"),
        None => "Complete and intact".to_owned(),
    };
    let lines = end_lines(&about.header, &about.end);
    let consistency = lines.first().map_or("", |(_, text)| text.as_str());
    html! {
        div #verdict class={ "verdict " (class) } {
            p {
                span.sign aria-hidden="true" { (sign) }
                strong { (word) "." } " " (Text(&intact)) "; " (Text(consistency)) "."
            }
            @if !about.problems.is_empty() {
                ul {
                    @for problem in &about.problems {
                        li { (Text(problem)) }
                    }
                }
            }
        }
    }
}

fn totals(report: &Report, total: &Weight) -> Markup {
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
    let (keys, with_ttl) = (count_text(total.keys), count_text(total.with_ttl));
    let memory = format!("≈ {}", bytes_text(total.memory_bytes));
    let share = percent_text(total.with_ttl, total.keys);
    let bytes = bytes_text(total.bytes);
    let tiles = [
        ("keys", "Keys", total.keys, &keys, &*more.join(", ")),
        (
            "bytes",
            "Names and values",
            total.bytes,
            &bytes,
            "as stored",
        ),
        (
            "memory",
            "Memory",
            total.memory_bytes,
            &memory,
            "in a server, estimated",
        ),
        ("ttl", "With expiry", total.with_ttl, &share, &with_ttl),
    ];
    html! {
        dl.tiles {
            @for (id, name, exact, shown, more) in tiles {
                div {
                    dt { (name) }
                    dd id={ "total-" (id) } data-n=(exact) { (shown) }
                    dd.more { (more) }
                }
            }
        }
    }
}

fn prefix_text(group: &PrefixGroup) -> &str {
    match group.prefix.as_deref() {
        None => "other",
        Some("") => "(no name)",
        Some(prefix) => prefix,
    }
}

fn prefixes(report: &Report, groups: &[PrefixGroup], total: &Weight) -> Markup {
    if groups.is_empty() {
        return html! { p { "No keys." } };
    }
    let rows = html! {
        @for group in groups {
            (prefix_row(group, total, None))
            @for child in group.children.iter().take(LISTED_BELOW) {
                (prefix_row(child, total, Some("below")))
            }
        }
    };
    html! {
        (map("wide", groups, 200.0, 84.0, total))
        (map("tall", groups, 100.0, 125.0, total))
        p.note {
            "Areas are bytes of names and values. Ids are folded to " code { "*" } "."
            @if report.prefixes.dropped {
                " There are too many prefixes to list: small and rare ones are counted as "
                em { "other" } "."
            }
        }
        (table("prefixes", &["Prefix", "Keys", "Size", "Share", "Memory ≈"], rows))
    }
}

fn prefix_row(group: &PrefixGroup, total: &Weight, class: Option<&str>) -> Markup {
    let weight = &group.weight;
    html! {
        tr class=[class] {
            th scope="row" { (Text(prefix_text(group))) }
            (Cell::Count(weight.keys))
            (Cell::Size(weight.bytes))
            (Cell::Share(weight.bytes, total.bytes))
            (Cell::Size(weight.memory_bytes))
        }
    }
}

/// A place in percent of the box around it, so that it fits any width.
fn place(rect: &Rect, width: f64, height: f64) -> String {
    format!(
        "left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%",
        rect.x * 100.0 / width,
        rect.y * 100.0 / height,
        rect.w * 100.0 / width,
        rect.h * 100.0 / height
    )
}

fn boxes(groups: &[PrefixGroup], width: f64, height: f64) -> Vec<(&PrefixGroup, Rect)> {
    let weights: Vec<u64> = groups.iter().map(|group| group.weight.bytes).collect();
    let rects = squarified(&weights, width, height);
    groups.iter().zip(rects).collect()
}

/// The treemap; one form for wide screens and one for narrow ones.
fn map(class: &str, groups: &[PrefixGroup], width: f64, height: f64, total: &Weight) -> Markup {
    let colour = |n: usize, group: &PrefixGroup| match group.prefix {
        None => "other".to_owned(),
        Some(_) => format!("c{}", n % COLOURS),
    };
    let has_room = |rect: &Rect| rect.w / width > 0.12 && rect.h / height > 0.12;
    html! {
        div class={ "map " (class) } role="img"
            aria-label="Prefixes by bytes; the table below has the same" {
            @for (n, (group, rect)) in boxes(groups, width, height).into_iter().enumerate() {
                div class={ "g " (colour(n, group)) } style=(place(&rect, width, height))
                    title=(Text(&map_title(group, total))) {
                    b { (Text(prefix_text(group))) }
                    @if has_room(&rect) {
                        (inner_map(group, rect.w, rect.h, total))
                    }
                }
            }
        }
    }
}

fn inner_map(group: &PrefixGroup, width: f64, height: f64, total: &Weight) -> Markup {
    let prefix = group.prefix.as_deref().unwrap_or_default();
    let own = |child| {
        let shown = prefix_text(child);
        shown.strip_prefix(prefix).unwrap_or(shown)
    };
    html! {
        div.in {
            @for (child, rect) in boxes(&group.children, width, height) {
                div.l style=(place(&rect, width, height)) title=(Text(&map_title(child, total))) {
                    (Text(own(child)))
                }
            }
        }
    }
}

fn map_title(group: &PrefixGroup, total: &Weight) -> String {
    let Weight { keys, bytes, .. } = group.weight;
    format!(
        "{}: {} keys, {}, {}",
        prefix_text(group),
        count_text(keys),
        bytes_text(bytes),
        percent_text(bytes, total.bytes)
    )
}

/// A table of the section of this name; all columns but the first are of numbers.
fn table(section: &str, columns: &[&str], rows: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table id={ "t-" (section) } {
                thead {
                    tr {
                        @for (n, name) in columns.iter().enumerate() {
                            th scope="col" .n[n > 0] { (name) }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// A row for each: a bar of its share of the keys behind its name, and the numbers.
fn bars<'a, N: AsRef<str> + 'a>(
    section: &str,
    what: &str,
    rows: impl IntoIterator<Item = &'a (N, Weight)>,
    total: &Weight,
) -> Markup {
    let rows = html! {
        @for (name, weight) in rows {
            tr {
                th scope="row" {
                    (Text(name.as_ref()))
                    span.bar aria-hidden="true" {
                        i style={ "width:" (format!("{:.2}", percent(weight.keys, total.keys))) "%" } {}
                    }
                }
                (Cell::Count(weight.keys))
                (Cell::Share(weight.keys, total.keys))
                (Cell::Size(weight.bytes))
                (Cell::Size(weight.memory_bytes))
            }
        }
    };
    table(section, &[what, "Keys", "Share", "Size", "Memory ≈"], rows)
}

fn lives(report: &Report, total: &Weight) -> Markup {
    let without: Bucket = ("no expiry", report.without_ttl);
    let rows = std::iter::once(&without).chain(&report.lives);
    html! {
        p.note { "Counted from when each key was read." }
        (bars("lives", "Time to live", rows, total))
    }
}

fn databases(report: &Report, total: &Weight) -> Markup {
    let rows = report.by_db().into_iter();
    let rows: Vec<(String, Weight)> = rows.map(|(db, row)| (format!("db {db}"), row)).collect();
    bars("databases", "Database", &rows, total)
}

fn largest(report: &Report) -> Markup {
    let keys = report.largest();
    if keys.is_empty() {
        return html! { p { "No keys." } };
    }
    let columns = [
        "Key",
        "Memory ≈",
        "Value",
        "Elements",
        "Type",
        "db",
        "Expires",
    ];
    table(
        "largest",
        &columns,
        html! { @for key in keys { (large_row(key)) } },
    )
}

fn large_row(key: &LargeKey) -> Markup {
    let name = match std::str::from_utf8(&key.key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.key.escape_ascii().to_string(),
    };
    let none = || Cell::Words("–".to_owned());
    html! {
        tr {
            th.key scope="row" {
                @if name.is_empty() { em { "(no name)" } } @else { (Text(&name)) }
                @if key.key_bytes > key.key.len() as u64 { "…" }
            }
            (Cell::Size(key.memory_bytes))
            (Cell::Size(key.value_bytes))
            (key.elements.map_or_else(none, Cell::Count))
            (Cell::Words(key.type_name.to_owned()))
            (Cell::Count(key.db.into()))
            (key.expire_at_ms.map_or_else(none, |at_ms| Cell::Words(time_text(at_ms))))
        }
    }
}

fn facts(about: &About) -> Markup {
    let mut lines = header_lines(&about.header, about.archive_id);
    lines.extend(end_lines(&about.header, &about.end));
    lines.push(("size", bytes_text(about.bytes)));
    lines.push(("sha256", about.sha256.clone()));
    html! {
        dl.facts {
            @for (name, text) in &lines {
                div {
                    dt { (name) }
                    dd { (Text(text)) }
                }
            }
        }
    }
}
