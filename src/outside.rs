//! What a server holds outside its keys: SCAN, DUMP and RESTORE do not bring it, so it is named where
//! keys are exported or copied, and in the archive (SPEC.md, §7.4).

mod ask;
mod series;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub(crate) use self::ask::{OutsideKeys, rights};
pub(crate) use self::series::Series;
use crate::record::show_key;
use crate::units::{count_text, plural};
use crate::verb::Flow;

/// How many are named of each kind.
const MOST_NAMED: usize = 20;

/// Characters that are shown of a name, or of a server's words.
const MOST_CHARS: usize = 200;

/// The field of HEADER's `extra` for what is known before the first key is read.
pub(crate) const HEADER_FIELD: &str = "outside_keys";

/// Search indexes (RediSearch).
pub(crate) const SEARCH_INDEX: &str = "search index";
/// Libraries (RedisGears).
pub(crate) const LIBRARY: &str = "library";
/// Time series with compaction rules (RedisTimeSeries); they are counted by series.
pub(crate) const SERIES_RULE: &str = "series rule";
/// Time series that a destination has without all the rules that they brought.
pub(crate) const RULES_MISSING: &str = "series rule missing";
/// What modules wrote for themselves into an RDB file.
pub(crate) const MODULE_DATA: &str = "module data";

/// Things of one kind that a source holds outside its keys, or why they are not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outside {
    /// One of the kinds above; of an archive, anybody's text.
    pub kind: String,
    /// How many; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Their names, the first of them, as they are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// There may be more than were counted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_least: bool,
    /// Why they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The archive has them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kept: bool,
}

/// A name as it is where it is text. Whoever shows it escapes it.
fn shown_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => short(text),
        Err(_) => short(&show_key(name)),
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Outside {
    /// So many of a kind; nothing where there are none.
    pub fn of(kind: &str, names: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Option<Self> {
        let mut count = 0;
        let mut shown = Vec::new();
        for name in names {
            count += 1;
            if shown.len() < MOST_NAMED {
                shown.push(shown_name(name.as_ref()));
            }
        }
        (count > 0).then(|| Self {
            kind: kind.to_owned(),
            count: Some(count),
            names: shown,
            ..Self::default()
        })
    }

    /// It is not known whether there are any.
    pub fn unknown(kind: &str, why: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            why: Some(short(why)),
            ..Self::default()
        }
    }

    /// Whether it is data of modules that an RDB file would have, and that are not there.
    pub fn is_lost_to_modules(&self) -> bool {
        self.kind == MODULE_DATA && !self.kept
    }

    /// As a NOTE of an archive has it. What is not understood is told all the same.
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|_| Self::unknown(json, "it is not understood"))
    }

    /// The object of JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The line about it at the end of a run.
    pub fn text(&self, flow: Option<Flow>) -> String {
        if self.kind == RULES_MISSING {
            return match &self.why {
                Some(why) => format!(
                    "not known whether time series have their compaction rules at the destination: {}",
                    clean(why)
                ),
                None => format!(
                    "not at the destination: {}: a rule arrives only if both of its series keep \
                     their names in the same run; {}",
                    self.what(),
                    self.hint(flow)
                ),
            };
        }
        if let Some(why) = &self.why {
            return format!(
                "not known whether there are {} outside keys: {}",
                self.plural_name(),
                clean(why)
            );
        }
        let place = match (flow, self.kept) {
            (Some(Flow::Export), true) => "kept in this archive",
            (Some(Flow::Export), false) => "not in this archive",
            (Some(Flow::Copy), _) => "not copied",
            (Some(Flow::Import), true) => "in the archive and not imported",
            (Some(Flow::Convert), false) if self.kind == MODULE_DATA => "not in the file",
            (_, true) => "in the archive",
            (_, false) => "not in the archive",
        };
        let hint = match self.hint(flow) {
            "" => String::new(),
            hint => format!(": {hint}"),
        };
        format!("outside keys, {place}: {}{hint}", self.what())
    }

    /// The line about it of a server that was only asked.
    pub fn standing(&self) -> String {
        match &self.why {
            Some(_) => self.text(Some(Flow::Export)),
            None => format!(
                "outside keys, and not in an export over SCAN: {}",
                self.what()
            ),
        }
    }

    /// The same about an archive, beside what else it says of itself.
    pub fn inspected(&self) -> String {
        match (&self.why, self.kept) {
            (Some(why), _) => format!("{} not known: {}", self.plural_name(), clean(why)),
            (None, true) => format!("{}, in the archive", self.what()),
            (None, false) => format!("{}, not in the archive", self.what()),
        }
    }

    /// What there is: `2 search indexes (idx1, idx2)`.
    pub fn what(&self) -> String {
        let count = self.count.unwrap_or(self.names.len() as u64);
        let at_least = if self.at_least { "at least " } else { "" };
        let what = match (self.kind.as_str(), count) {
            (MODULE_DATA, _) => "data of modules".to_owned(),
            (SERIES_RULE | RULES_MISSING, _) => format!(
                "compaction rules of {at_least}{} time series",
                count_text(count)
            ),
            (_, 1) => format!("{at_least}1 {}", self.name()),
            _ => format!("{at_least}{} {}", count_text(count), self.plural_name()),
        };
        let named = self.names.iter().take(MOST_NAMED);
        let mut names: Vec<String> = named.map(|name| clean(name)).collect();
        let more = count.saturating_sub(names.len() as u64);
        if names.is_empty() {
            return what;
        }
        if more > 0 {
            names.push(format!("and {} more", count_text(more)));
        }
        format!("{what} ({})", names.join(", "))
    }

    fn name(&self) -> String {
        match self.kind.as_str() {
            LIBRARY => "RedisGears library".to_owned(),
            kind => clean(kind),
        }
    }

    fn plural_name(&self) -> String {
        match self.kind.as_str() {
            SEARCH_INDEX => "search indexes".to_owned(),
            LIBRARY => "RedisGears libraries".to_owned(),
            SERIES_RULE | RULES_MISSING => "compaction rules of time series".to_owned(),
            MODULE_DATA => "data of modules".to_owned(),
            kind => format!("items of the kind {}", clean(kind)),
        }
    }

    /// What to do about it.
    fn hint(&self, flow: Option<Flow>) -> &'static str {
        match (self.kind.as_str(), self.count) {
            (SEARCH_INDEX, Some(1)) => {
                "create it at the destination first, see docs/runbooks.md, \"Moving a RediSearch \
                 application\""
            }
            (SEARCH_INDEX, _) => {
                "create them at the destination first, see docs/runbooks.md, \"Moving a RediSearch \
                 application\""
            }
            (LIBRARY, _) => "load them at the destination (TFUNCTION LOAD)",
            (SERIES_RULE | RULES_MISSING, _) => {
                "create them again at the destination (TS.CREATERULE)"
            }
            (MODULE_DATA, _) if !self.kept => {
                "create them again at the destination, with the module's own commands"
            }
            (MODULE_DATA, _) if flow == Some(Flow::Export) => {
                "an import does not restore them; an RDB file made by convert has them"
            }
            (MODULE_DATA, _) if matches!(flow, Some(Flow::Import | Flow::Copy)) => {
                "RESTORE cannot write them; an RDB file made by convert has them"
            }
            _ => "",
        }
    }
}

/// Data of modules: of those of which nothing was left out, which are kept, and of the others, of
/// which some may be there, and that is not enough for the module.
pub(crate) fn module_data<'a>(
    all: impl IntoIterator<Item = &'a String>,
    left_out: &BTreeSet<String>,
) -> Vec<Outside> {
    let whole = all.into_iter().filter(|name| !left_out.contains(*name));
    let kept = Outside::of(MODULE_DATA, whole).map(|kept| Outside { kept: true, ..kept });
    let not_kept = Outside::of(MODULE_DATA, left_out);
    kept.into_iter().chain(not_kept).collect()
}

/// What an archive says, where data of these modules were left out of what it gives.
pub(crate) fn without_modules(all: Vec<Outside>, left_out: &BTreeSet<String>) -> Vec<Outside> {
    if left_out.is_empty() {
        return all;
    }
    let (data, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| one.kind == MODULE_DATA);
    let mut left_out = left_out.clone();
    let (kept, lost): (Vec<_>, Vec<_>) = data.into_iter().partition(|one| one.kept);
    left_out.extend(lost.into_iter().flat_map(|one| one.names));
    let names: Vec<String> = kept.into_iter().flat_map(|one| one.names).collect();
    others.extend(module_data(&names, &left_out));
    others
}

/// What is said of data of modules that a run leaves out.
pub(crate) fn modules_left_out(left_out: &BTreeSet<String>) -> Option<String> {
    let named = left_out.iter().take(MOST_NAMED);
    let mut names: Vec<String> = named.map(|name| clean(name)).collect();
    if left_out.len() > names.len() {
        names.push(format!("and {} more", left_out.len() - names.len()));
    }
    (!names.is_empty()).then(|| {
        format!(
            "data of modules outside keys are left out, because they are larger than can be kept: \
             {}",
            names.join(", ")
        )
    })
}

/// Adds what another source says, each once.
pub(crate) fn merge(all: &mut Vec<Outside>, more: impl IntoIterator<Item = Outside>) {
    const MOST: usize = 16;
    for one in more {
        if all.len() < MOST && !all.contains(&one) {
            all.push(one);
        }
    }
}

/// What an archive says at its end, or else at its start.
pub(crate) fn of_archive(
    header: &redis_migrate_format::Header,
    end: Option<&redis_migrate_format::End>,
) -> Vec<Outside> {
    if let Some(end) = end {
        return end.outside.iter().map(|json| Outside::read(json)).collect();
    }
    let mut extra = header.extra.iter();
    let field = extra.find(|(name, _)| name == HEADER_FIELD);
    let list = field.and_then(|(_, json)| serde_json::from_str::<Vec<Outside>>(json).ok());
    let mut all = Vec::new();
    merge(&mut all, list.unwrap_or_default());
    all
}

/// `2 search indexes`, for the last line of a run.
pub(crate) fn counted(all: &[Outside]) -> String {
    let known = all.iter().filter(|one| one.why.is_none() && !one.kept);
    let names: Vec<String> = known
        .map(|one| match (one.kind.as_str(), one.count) {
            (SERIES_RULE | RULES_MISSING, Some(count)) => {
                format!("rules of {} time series", count_text(count))
            }
            (MODULE_DATA, _) => one.plural_name(),
            (SEARCH_INDEX, Some(count)) if count != 1 => {
                format!("{} search indexes", count_text(count))
            }
            (LIBRARY, Some(count)) if count != 1 => {
                format!("{} RedisGears libraries", count_text(count))
            }
            (_, Some(count)) => plural(count, &one.name()),
            (_, None) => one.plural_name(),
        })
        .collect();
    names.join(", ")
}

/// Of an archive, and of a server's words, everything may be anything.
fn clean(text: &str) -> String {
    crate::escape::clean(&short(text)).into_owned()
}

fn short(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_keys_is_named_with_what_to_do() {
        let indexes = Outside::of(SEARCH_INDEX, ["idx1", "a b"]).expect("two");
        assert_eq!(
            indexes.text(Some(Flow::Export)),
            "outside keys, not in this archive: 2 search indexes (idx1, a b): create them at \
             the destination first, see docs/runbooks.md, \"Moving a RediSearch application\""
        );
        assert!(
            indexes
                .text(Some(Flow::Copy))
                .contains("not copied: 2 search")
        );
        assert_eq!(Outside::of(SEARCH_INDEX, [""; 0]), None);
        let many: Vec<String> = (0..30).map(|n| format!("i{n}")).collect();
        let many = Outside::of(LIBRARY, &many).expect("thirty");
        assert_eq!(many.names.len(), 20);
        assert!(many.what().starts_with("30 RedisGears libraries (i0, i1,"));
        assert!(
            many.what().ends_with("i19, and 10 more)"),
            "{}",
            many.what()
        );
        let unknown = Outside::unknown(SEARCH_INDEX, "FT._LIST was refused: NOPERM");
        assert_eq!(
            unknown.text(Some(Flow::Export)),
            "not known whether there are search indexes outside keys: FT._LIST was refused: NOPERM"
        );
        assert_eq!(
            counted(&[indexes, unknown, many]),
            "2 search indexes, 30 RedisGears libraries"
        );
    }

    #[test]
    fn data_of_a_module_are_kept_only_if_nothing_of_them_was_left_out() {
        let all = ["whole".to_owned(), "in part".to_owned()];
        let left_out = BTreeSet::from(["in part".to_owned(), "none".to_owned()]);
        let told = module_data(&all, &left_out);
        let texts: Vec<String> = told
            .iter()
            .map(|one| one.text(Some(Flow::Export)))
            .collect();
        assert_eq!(
            texts,
            [
                "outside keys, kept in this archive: data of modules (whole): an import does not \
                 restore them; an RDB file made by convert has them",
                "outside keys, not in this archive: data of modules (in part, none): create them \
                 again at the destination, with the module's own commands"
            ]
        );
        assert_eq!(counted(&told), "data of modules");
        assert!(
            told[1]
                .text(Some(Flow::Convert))
                .contains("not in the file")
        );
        assert_eq!(module_data(&[], &BTreeSet::new()), []);
    }

    #[test]
    fn it_goes_through_an_archive_and_back() {
        let mut rules = Outside::of(SERIES_RULE, [b"\xff\n".as_slice()]).expect("one");
        rules.at_least = true;
        let json = rules.json().to_string();
        assert!(!json.contains('\n'));
        assert_eq!(Outside::read(&json), rules);
        assert!(
            rules
                .what()
                .starts_with("compaction rules of at least 1 time series")
        );
        // Anybody may have written it.
        let odd = Outside::read("\u{1b}[2J nothing that is JSON");
        assert!(!odd.text(Some(Flow::Import)).contains('\u{1b}'));
        let of_later = Outside::read(r#"{"kind":"new","count":3,"more":[1]}"#);
        assert_eq!(of_later.what(), "3 items of the kind new");
    }
}
