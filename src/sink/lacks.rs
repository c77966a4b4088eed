//! What an archive says that its source did not give beyond single keys.

use std::io::Write;

use anyhow::Result;
use redis_migrate_format::Writer;
use redis_migrate_format::limits::MAX_NOTES_KEPT;

use crate::ledger::SourceReport;

/// Characters of a line: it may hold anything that a server said.
const MAX_CHARS: usize = 4096;

/// Says it, behind the last record.
///
/// # Errors
/// The output's.
pub(super) fn say<W: Write>(writer: &mut Writer<W>, source: &SourceReport) -> Result<()> {
    let lines: Vec<&String> = source.lacks.lines().chain(&source.export.lines).collect();
    let told = match lines.len() <= MAX_NOTES_KEPT {
        true => lines.len(),
        false => MAX_NOTES_KEPT - 1,
    };
    for line in &lines[..told] {
        let text: String = without_addresses(line).chars().take(MAX_CHARS).collect();
        writer.lacks(&text)?;
    }
    if told < lines.len() {
        let more = lines.len() - told;
        writer.lacks(&format!("and {more} more that the export named"))?;
    }
    for outside in source.outside.iter().take(MAX_NOTES_KEPT) {
        let mut outside = outside.clone();
        outside.why = outside.why.map(|why| without_addresses(&why));
        writer.outside(&outside.json().to_string())?;
    }
    Ok(())
}

/// Archives travel: they name no hosts.
fn without_addresses(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let of_address = |at: char| !matches!(at, '(' | ')' | ',' | ';' | ':' | '"' | '\'');
        let begin = word.find(of_address).unwrap_or(word.len());
        let end = word.rfind(of_address).map_or(begin, |at| {
            at + word[at..].chars().next().map_or(0, char::len_utf8)
        });
        match is_address(&word[begin..end]) {
            true => format!("{}(a server){}", &word[..begin], &word[end..]),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_address(word: &str) -> bool {
    let has_port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    word.contains("://") || word.rsplit_once(':').is_some_and(has_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_goes_into_an_archive() {
        for (line, told) in [
            (
                "redis://some@10.0.0.1:7001 does not tell (CLUSTER NODES: NOPERM no): keys may be",
                "(a server) does not tell (CLUSTER NODES: NOPERM no): keys may be",
            ),
            (
                "at 127.0.0.1:7001, and [::1]:7002: gone",
                "at (a server), and (a server): gone",
            ),
            ("MOVED 12 db.example:6379", "MOVED 12 (a server)"),
            ("database 3: ERR index 12", "database 3: ERR index 12"),
            (
                "slots 1-2, 5: (SWAPDB); é: \u{e9}",
                "slots 1-2, 5: (SWAPDB); é: \u{e9}",
            ),
        ] {
            assert_eq!(without_addresses(line), told);
        }
    }
}
