//! Which keys of the right side are to be compared, when the left side is renamed or moved to other
//! databases on its way: those that could have come from a key that takes part.

use crate::rewrite::Rewrite;
use crate::select::Selection;

/// What the left side's selection is on the right side.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    rewrite: Rewrite,
    selection: Selection,
}

impl Scope {
    /// The scope of what `selection` takes and `rewrite` changes.
    pub(crate) fn new(rewrite: &Rewrite, selection: &Selection) -> Self {
        Self {
            rewrite: rewrite.clone(),
            selection: selection.clone(),
        }
    }

    /// Whether a key of the right side is to be compared.
    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.contains_db(db) && self.contains_name(key)
    }

    /// Whether something comes into this database.
    pub(crate) fn contains_db(&self, db: u32) -> bool {
        let dbs = &self.rewrite.dbs;
        if let Some(only) = dbs.only {
            return db == only;
        }
        let goes_to = |from: u32| {
            let pair = dbs.pairs.iter().find(|(known, _)| *known == from);
            pair.map(|(_, to)| *to).or(dbs.rest).unwrap_or(from)
        };
        if !self.selection.dbs.is_empty() {
            return self.selection.dbs.iter().any(|&from| goes_to(from) == db);
        }
        dbs.rest == Some(db) || dbs.pairs.iter().any(|(_, to)| *to == db) || goes_to(db) == db
    }

    /// The databases that something comes into, where the selection names them.
    pub(crate) fn dbs(&self) -> Vec<u32> {
        if let Some(only) = self.rewrite.dbs.only {
            return vec![only];
        }
        let mut dbs: Vec<u32> = Vec::new();
        for &from in &self.selection.dbs {
            let pair = self
                .rewrite
                .dbs
                .pairs
                .iter()
                .find(|(known, _)| *known == from);
            dbs.push(
                pair.map(|(_, to)| *to)
                    .or(self.rewrite.dbs.rest)
                    .unwrap_or(from),
            );
        }
        dbs.sort_unstable();
        dbs.dedup();
        dbs
    }

    /// Whether some name that takes part becomes this one.
    pub(crate) fn contains_name(&self, key: &[u8]) -> bool {
        let (strip, add) = (&self.rewrite.strip_prefix, &self.rewrite.add_prefix);
        let Some(rest) = key.strip_prefix(add.as_slice()) else {
            return false;
        };
        // It was the rest, if nothing was to be stripped from it, or the rest with the prefix.
        let was_rest = strip.is_empty() || !rest.starts_with(strip);
        (was_rest && self.selection.wants_key(rest))
            || (!strip.is_empty() && self.selection.wants_key(&[strip, rest].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::Glob;
    use crate::rewrite::DbMap;

    #[test]
    fn the_scope_is_where_selected_keys_can_come_to() {
        let selection = Selection {
            matches: vec![Glob::new(b"old:a*")],
            ..Selection::default()
        };
        let rewrite = Rewrite {
            strip_prefix: b"old:".to_vec(),
            add_prefix: b"new:".to_vec(),
            ..Rewrite::default()
        };
        let scope = Scope::new(&rewrite, &selection);
        for (key, within) in [
            (&b"new:abc"[..], true),
            (b"new:bc", false),
            (b"old:abc", false),
            // From old:old:a, whose pattern does not fit.
            (b"new:old:abc", false),
        ] {
            assert_eq!(scope.contains(3, key), within, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn databases_where_nothing_comes_are_out_of_scope() {
        let scope = |dbs: DbMap, selected: &[u32]| {
            let rewrite = Rewrite {
                dbs,
                ..Rewrite::default()
            };
            let selection = Selection {
                dbs: selected.to_vec(),
                ..Selection::default()
            };
            let scope = Scope::new(&rewrite, &selection);
            (0..4)
                .filter(|&db| scope.contains_db(db))
                .collect::<Vec<_>>()
        };
        let pairs = |pairs: &[(u32, u32)]| {
            let mut dbs = DbMap::default();
            dbs.pairs = pairs.to_vec();
            dbs
        };
        assert_eq!(scope(DbMap::default(), &[]), [0, 1, 2, 3]);
        assert_eq!(scope(DbMap::default(), &[2]), [2]);
        assert_eq!(scope(pairs(&[(0, 1)]), &[]), [1, 2, 3]);
        assert_eq!(scope(pairs(&[(0, 1), (1, 0)]), &[]), [0, 1, 2, 3]);
        assert_eq!(scope(pairs(&[(0, 1)]), &[0, 3]), [1, 3]);
        assert_eq!(scope(DbMap::all_into(2), &[]), [2]);
        assert_eq!(scope(DbMap::only_into(1), &[]), [1]);
    }
}
