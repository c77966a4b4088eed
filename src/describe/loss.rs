//! What an archive says that it lost when it was salvaged.

use redis_migrate_format::header::{ArchiveOrigin, Header};

use crate::units::plural;

/// What a salvaged archive lacks, as the rest of a sentence about it; `None` if nothing was lost.
pub fn loss_of(header: &Header) -> Option<String> {
    let ArchiveOrigin::Salvaged { .. } = header.origin else {
        return None;
    };
    let differs = header
        .extra
        .iter()
        .any(|(name, _)| matches!(name.as_str(), "salvaged_digest" | "salvaged_counts"));
    if differs {
        return Some(
            "was salvaged from an archive that was changed after it was written: any of its keys may \
             have a wrong value"
                .to_owned(),
        );
    }
    let lost = header.extra.iter();
    let lost: Vec<String> = lost
        .filter_map(|(name, value)| lost_part(name, value))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "was salvaged from a damaged archive, and lacks {}",
            lost.join(", ")
        )
    })
}

fn lost_part(name: &str, value: &str) -> Option<String> {
    let count = |what: &str| match value.parse() {
        Ok(count) => plural(count, what),
        Err(_) => format!("an unknown number of {what}s"),
    };
    match name {
        "salvaged_header" => Some("its header".to_owned()),
        "salvaged_end" => Some("its end".to_owned()),
        "salvaged_lost_frames" => Some(count("frame")),
        "salvaged_lost_records" => Some(count("record")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_named() {
        let loss = |origin: ArchiveOrigin, extra: &[(&str, &str)]| {
            let extra = extra.iter();
            let extra = extra.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            loss_of(&Header {
                origin,
                extra: extra.collect(),
                ..Header::default()
            })
        };
        let frame = ("salvaged_lost_frames", "1");
        assert_eq!(loss(ArchiveOrigin::Export, &[frame]), None);
        let salvaged = || ArchiveOrigin::Salvaged { lost: Vec::new() };
        assert_eq!(loss(salvaged(), &[("salvaged_from", "x")]), None);
        let all = [
            ("salvaged_header", "lost"),
            ("salvaged_end", "lost"),
            frame,
            ("salvaged_lost_records", "unknown"),
        ];
        assert_eq!(
            loss(salvaged(), &all).as_deref(),
            Some(
                "was salvaged from a damaged archive, and lacks its header, its end, 1 frame, an \
                 unknown number of records"
            )
        );
        let changed = loss(salvaged(), &[("salvaged_digest", "differs")]);
        assert!(changed.is_some_and(|text| text.contains("wrong value")));
    }
}
