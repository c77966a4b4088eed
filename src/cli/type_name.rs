//! The value of `--type`.

use crate::select::{CORE_TYPES, MODULE_TYPE, RARE_TYPES, UNKNOWN_TYPE, VECTOR_SET_TYPE};

/// Characters of the name of a module's type.
const MODULE_NAME_LEN: usize = 9;

/// Other words for types, and what is meant.
const OTHER_WORDS: [(&str, &str); 21] = [
    ("str", "string"),
    ("bitmap", "string"),
    ("hyperloglog", "string"),
    ("hll", "string"),
    ("sortedset", "zset"),
    ("sorted-set", "zset"),
    ("sorted_set", "zset"),
    ("geo", "zset"),
    ("map", "hash"),
    ("dict", "hash"),
    ("vector-set", VECTOR_SET_TYPE),
    ("vset", VECTOR_SET_TYPE),
    ("json", "module:ReJSON-RL"),
    ("rejson", "module:ReJSON-RL"),
    ("timeseries", "module:TSDB-TYPE"),
    ("bloom", "module:MBbloom--"),
    ("cuckoo", "module:MBbloomCF"),
    ("cms", "module:CMSk-TYPE"),
    ("topk", "module:TopK-TYPE"),
    ("tdigest", "module:TDIS-TYPE"),
    ("graph", "module:graphdata"),
];

/// Reads the name of a type, without regard to case but for the names of modules' types.
///
/// # Errors
/// One line with the names there are, or with what was meant.
pub fn parse_type(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let names = || {
        let all = CORE_TYPES.into_iter().chain([VECTOR_SET_TYPE]);
        all.chain(RARE_TYPES).chain([UNKNOWN_TYPE, MODULE_TYPE])
    };
    if let Some(name) = names().find(|name| *name == lower) {
        return Ok(name.to_owned());
    }
    if let Some((MODULE_TYPE, name)) = text.split_once(':') {
        return match is_module_name(name) {
            true => Ok(text.to_owned()),
            false => Err(format!(
                "the type of a module has {MODULE_NAME_LEN} characters, as TYPE answers it, such as \
                 module:ReJSON-RL"
            )),
        };
    }
    let singular = lower
        .strip_suffix("es")
        .into_iter()
        .chain(lower.strip_suffix('s'));
    let meant = singular.chain([lower.as_str()]).find_map(|word| {
        let other = OTHER_WORDS.iter().find(|(other, _)| *other == word);
        names()
            .find(|name| *name == word)
            .or(other.map(|(_, meant)| *meant))
    });
    if let Some(meant) = meant {
        return Err(format!("there is no such type; did you mean {meant}?"));
    }
    if is_module_name(text) {
        return Err(format!(
            "there is no such type; did you mean a module's, module:{text}?"
        ));
    }
    Err(format!(
        "there is no such type; the types are {}, and module:NAME for one type of a module",
        names().collect::<Vec<_>>().join(", ")
    ))
}

fn is_module_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.len() == MODULE_NAME_LEN && text.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_or_refused() {
        for (text, name) in [
            ("string", "string"),
            ("HASH", "hash"),
            ("vectorset", "vectorset"),
            ("array", "array"),
            ("unknown", "unknown"),
            ("module", "module"),
            ("module:ReJSON-RL", "module:ReJSON-RL"),
        ] {
            assert_eq!(parse_type(text).as_deref(), Ok(name));
        }
        for (text, word) in [
            ("hashes", "did you mean hash?"),
            ("strings", "did you mean string?"),
            ("zsets", "did you mean zset?"),
            ("sortedsets", "did you mean zset?"),
            ("json", "module:ReJSON-RL"),
            ("ReJSON-RL", "module:ReJSON-RL"),
            ("module:json", "9 characters"),
            (
                "hsah",
                "string, list, set, zset, hash, stream, vectorset, array, pathhash, unknown, module",
            ),
            ("", "string, list"),
        ] {
            let error = parse_type(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
