//! What the figures are, and that the page has those of the JSON.

use std::fs;

use serde_json::Value;

use crate::report::archives::{archive, large, string};
use crate::report::{EVIL, Reported, read, sample};
use crate::support::tool::{Tool, run};

fn n(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

fn sum(rows: &Value, field: &str) -> u64 {
    let rows = rows.as_array().expect("rows");
    rows.iter().map(|row| n(&row[field])).sum()
}

/// The exact numbers of a table's rows, column by column, as they stand in a page.
pub fn numbers(page: &str, table: &str) -> Vec<Vec<u64>> {
    let at = page
        .find(&format!("id=\"{table}\""))
        .unwrap_or_else(|| panic!("no {table}"));
    let body = &page[at..];
    let body = &body[..body.find("</table>").expect("its end")];
    let rows = body.split("<tr").skip(2);
    rows.map(|row| {
        let cells = row.split("data-n=\"").skip(1);
        cells
            .map(|cell| {
                let digits = cell.split('"').next().expect("digits");
                digits.parse().expect("a number")
            })
            .collect()
    })
    .collect()
}

/// Compares every table of a page with the JSON.
pub fn assert_same_figures(page: &str, json: &Value) {
    let row = |row: &Value| -> Vec<u64> {
        ["keys", "bytes", "memory_bytes_estimated"]
            .iter()
            .map(|field| n(&row[*field]))
            .collect()
    };
    let rows = |name: &str| -> Vec<Vec<u64>> {
        json[name]
            .as_array()
            .expect("rows")
            .iter()
            .map(row)
            .collect()
    };
    assert_eq!(numbers(page, "t-types"), rows("by_type"));
    assert_eq!(numbers(page, "t-sizes"), rows("by_value_size"));
    assert_eq!(numbers(page, "t-databases"), rows("by_db"));
    let mut lives = vec![row(&json["without_ttl"])];
    lives.extend(rows("by_remaining_life"));
    assert_eq!(numbers(page, "t-lives"), lives);
    let mut prefixes = Vec::new();
    for group in json["prefixes"].as_array().expect("rows") {
        prefixes.push(row(group));
        let children = group["children"].as_array().expect("rows");
        prefixes.extend(children.iter().take(8).map(row));
    }
    assert_eq!(numbers(page, "t-prefixes"), prefixes);
    let largest = json["largest"].as_array().expect("rows").iter();
    let largest: Vec<Vec<u64>> = largest
        .map(|key| {
            let mut row = vec![n(&key["memory_bytes_estimated"]), n(&key["value_bytes"])];
            row.extend(key["elements"].as_u64());
            row.push(n(&key["db"]));
            row
        })
        .collect();
    assert_eq!(numbers(page, "t-largest"), largest);
    for (id, value) in [
        ("keys", &json["total"]["keys"]),
        ("bytes", &json["total"]["bytes"]),
        ("memory", &json["total"]["memory_bytes_estimated"]),
        ("ttl", &json["total"]["with_ttl"]),
    ] {
        let tile = format!("id=\"total-{id}\" data-n=\"{value}\"");
        assert!(page.contains(&tile), "no {tile}");
    }
}

#[test]
fn the_page_and_the_json_say_the_same() {
    let reported = Reported::of(&sample());
    let page = read(&reported.page());
    assert_same_figures(&page, &reported.json);
    // And the data that is embedded is the JSON itself.
    let data = page
        .split("id=\"data\">")
        .nth(1)
        .and_then(|rest| rest.split("</script>").next())
        .expect("a data block");
    let mut data: Value = serde_json::from_str(data).expect("JSON");
    // But for what is known only when the run has ended.
    for name in ["event", "verb", "exit_code", "error"] {
        data[name] = reported.json[name].clone();
    }
    assert_eq!(data, reported.json);
}

#[test]
fn the_figures_are_those_of_the_archive() {
    let bytes = sample();
    let report = Reported::of(&bytes).json;
    let verified = run(&["verify", "--json"], &bytes).success();
    let verified: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    for field in ["keys", "with_ttl"] {
        assert_eq!(
            sum(&report["by_db_and_type"], field),
            sum(&verified["by_db_and_type"], field)
        );
    }
    let bytes = sum(&verified["by_db_and_type"], "key_bytes")
        + sum(&verified["by_db_and_type"], "value_bytes");
    let total = &report["total"];
    assert_eq!(n(&total["bytes"]), bytes);
    for field in ["keys", "with_ttl", "bytes", "memory_bytes_estimated"] {
        for rows in ["by_db", "by_type", "by_value_size", "prefixes"] {
            assert_eq!(
                sum(&report[rows], field),
                n(&total[field]),
                "{rows} {field}"
            );
        }
        let lives = sum(&report["by_remaining_life"], field) + n(&report["without_ttl"][field]);
        assert_eq!(lives, n(&total[field]), "{field}");
    }
    for same in ["sha256", "bytes", "archive_id", "header", "end"] {
        assert_eq!(report[same], verified[same], "{same}");
    }
    let prefixes = report["prefixes"].as_array().expect("rows");
    let names: Vec<&str> = prefixes
        .iter()
        .filter_map(|g| g["prefix"].as_str())
        .collect();
    for name in ["shop:", "session:*", "queue.mail.*"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let shop = prefixes
        .iter()
        .find(|group| group["prefix"] == "shop:")
        .expect("there");
    let below: Vec<&Value> = shop["children"].as_array().expect("rows").iter().collect();
    let below: Vec<_> = below
        .iter()
        .map(|g| (g["prefix"].as_str(), n(&g["keys"])))
        .collect();
    assert_eq!(below.len(), 2, "{below:?}");
    for name in ["shop:user:*:profile", "shop:cart:*"] {
        assert!(below.contains(&(Some(name), 3_000)), "{below:?}");
    }
}

#[test]
fn names_that_mean_harm_are_text() {
    let reported = Reported::of(&sample());
    let page = read(&reported.page());
    let (shown, data) = page.split_once("id=\"data\">").expect("a data block");
    for name in EVIL {
        assert!(!shown.contains(name), "{name}");
    }
    assert_eq!(data.matches('<').count(), 3, "the ends of three elements");
    assert_eq!(page.matches("<script").count(), 1, "the data block only");
    assert_eq!(page.matches("<img").count(), 0);
    assert!(!page.contains('\x1b') && !page.contains('\u{202e}'));
    assert!(page.contains("\\xff\\xfe\\x00"));
    let largest = reported.json["largest"].as_array().expect("rows");
    for name in EVIL {
        assert!(largest.iter().any(|key| key["key"] == name), "{name}");
    }
    assert!(largest.iter().any(|key| key["key_hex"] == "fffe00"));
}

#[test]
fn what_is_written_where_is_as_asked() {
    let archive = sample();
    let page = run(&["report"], &archive).success();
    assert!(page.stdout.starts_with(b"<!DOCTYPE html>"));
    let json = run(&["report", "--json", "--largest", "2"], &archive).success();
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
    assert_eq!(json["largest"].as_array().map(Vec::len), Some(2));
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("report.html");
    let cut = &archive[..archive.len() - 30];
    let output = Tool::new(&["report", "-o"]).arg(&place);
    output.stdin_bytes(cut).run().expect_code(10);
    assert!(!place.exists(), "a page of half an archive");
    fs::write(&place, "old").expect("written");
    let output = Tool::new(&["report", "-q", "-o"]).arg(&place);
    let output = output.stdin_bytes(archive).run().success();
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    assert!(read(&place).starts_with("<!DOCTYPE html>"));
}

#[test]
fn an_empty_archive_has_a_page_too() {
    let reported = Reported::of(&archive(&[], None));
    let page = read(&reported.page());
    assert!(page.contains("No keys."));
    assert_eq!(reported.json["total"]["keys"], 0);
    let one = Reported::of(&archive(&[string(0, b"k", b"v", None)], None));
    assert_same_figures(&read(&one.page()), &one.json);
}

#[test]
fn memory_does_not_grow_with_the_archive() {
    let peak = |keys: u32| {
        let output = Tool::new(&["report", "--json"])
            .stdin_bytes(large(keys))
            .run();
        output.success().peak_memory_kib
    };
    let (small, large) = (peak(50_000), peak(500_000));
    assert!(large < small + 16 * 1024, "{small} KiB, then {large} KiB");
}
