//! Function libraries of a cluster. Every primary keeps its own, and nothing but custom makes them
//! the same, so all of them are asked.

use std::collections::BTreeMap;

use anyhow::Result;

use super::ClusterSource;
use super::part::is_lost;
use crate::ledger::LibraryApart;
use crate::policy::ReadFunctions;
use crate::rdb::{function_codes, functions_payload, library_name};
use crate::record::show_key;
use crate::source::server::{Libraries, function_dump, libraries_unread, warn_of_refusal};

/// When the libraries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// To see whether they can be read.
    AtFirst,
    /// To be handed on.
    AtTheEnd,
}

/// What the nodes answered.
#[derive(Default)]
struct Answers {
    /// The payload of each node that gave its libraries.
    given: Vec<Option<Vec<u8>>>,
    /// Why those of the first node that did not give them are not known.
    unread: Option<String>,
    /// In the words of the first node that refused.
    refused: Option<String>,
    /// The first node that was lost.
    lost: Option<anyhow::Error>,
}

impl ClusterSource {
    /// The libraries of all primaries together. What they do not have in common is said at the end.
    ///
    /// # Errors
    /// Where they are required and refused, and where no node is left to answer.
    pub(super) fn read_functions(&mut self, when: When) -> Result<Option<Vec<u8>>> {
        let wish = self.options.scan.functions;
        // Several processes read one cluster: the first of them has the functions.
        if wish == ReadFunctions::No || self.options.shard.is_some_and(|(which, _)| which > 1) {
            return Ok(None);
        }
        let answers = self.ask_for_libraries(wish)?;
        self.libraries_unread = answers.unread.as_deref().map(libraries_unread);
        let unknown = answers.unread.as_ref().or(answers.refused.as_ref());
        self.no_libraries = unknown.filter(|_| answers.given.is_empty()).cloned();
        if let Some(text) = &answers.refused {
            // A service that has no such command refuses it everywhere, and from the beginning.
            let others_gave = !answers.given.is_empty() || self.libraries_seen;
            if others_gave {
                self.libraries_unread
                    .get_or_insert_with(|| libraries_unread(text));
            } else if when == When::AtFirst {
                warn_of_refusal(text, &self.observer);
            }
        }
        self.libraries_seen |= !answers.given.is_empty();
        if let Some(error) = answers.lost {
            if answers.given.is_empty() && answers.unread.is_none() && answers.refused.is_none() {
                return Err(error);
            }
            // Others are taken to have the same; what is compared has to be seen.
            if wish == ReadFunctions::Compared {
                self.libraries_unread
                    .get_or_insert_with(|| libraries_unread(&format!("{error:#}")));
            }
        }
        let united = United::of(&answers.given);
        if when == When::AtTheEnd {
            self.say_what_is_apart(wish, united.apart());
        }
        Ok(united.payload(&answers.given))
    }

    fn ask_for_libraries(&mut self, wish: ReadFunctions) -> Result<Answers> {
        let mut answers = Answers::default();
        let counts: Vec<bool> = self.parts.iter().map(|part| self.counts(part)).collect();
        let any_counts = counts.contains(&true);
        for (part, counts) in self.parts.iter_mut().zip(counts) {
            // Whose slots are read elsewhere now has no say any more.
            if !part.is_live() || any_counts && !counts {
                continue;
            }
            let Some(scan) = part.scan() else {
                continue;
            };
            let address = scan.conn().address().to_owned();
            let facts = scan.facts().clone();
            let libraries = match function_dump(scan.conn(), wish, &facts) {
                Err(error) if is_lost(&error) => {
                    answers.lost.get_or_insert(error);
                    continue;
                }
                answered => answered?,
            };
            let Libraries {
                by: _,
                payload,
                unread,
                refused,
            } = libraries;
            let at = |text: String| format!("{address}: {text}");
            match (unread, refused) {
                (None, None) => answers.given.push(payload),
                (Some(text), _) => {
                    answers.unread.get_or_insert_with(|| at(text));
                }
                (None, Some(text)) => {
                    answers.refused.get_or_insert_with(|| at(text));
                }
            }
        }
        Ok(answers)
    }

    /// A comparison is told what is not the same everywhere. Otherwise what one node has is enough;
    /// of two codes under one name the first is taken, and that is not all.
    fn say_what_is_apart(&mut self, wish: ReadFunctions, apart: Vec<LibraryApart>) {
        if wish == ReadFunctions::Compared {
            self.libraries_apart = apart;
            return;
        }
        self.libraries_left = Vec::new();
        for LibraryApart { name, place, codes } in apart {
            let name = show_key(name.as_bytes());
            if codes.len() > 1 {
                self.libraries_left.push(format!(
                    "function library {name} is {place} of the cluster: the first code was taken, \
                     and the others were left out"
                ));
            } else {
                self.observer.warn(&format!(
                    "function library {name} is only {place} of the cluster; it was taken all the \
                     same"
                ));
            }
        }
    }
}

/// Libraries by name, and where each code of them stands.
struct United {
    nodes: usize,
    /// Of each name the codes in the order of the nodes, and how many nodes have each.
    names: BTreeMap<String, Vec<(Vec<u8>, usize)>>,
}

impl United {
    fn of(payloads: &[Option<Vec<u8>>]) -> Self {
        let mut names: BTreeMap<String, Vec<(Vec<u8>, usize)>> = BTreeMap::new();
        for payload in payloads.iter().flatten() {
            // They were looked at when they came.
            for code in function_codes(payload).unwrap_or_default() {
                let codes = names.entry(library_name(&code)).or_default();
                match codes.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, nodes)) => *nodes += 1,
                    None => codes.push((code, 1)),
                }
            }
        }
        Self {
            nodes: payloads.len(),
            names,
        }
    }

    /// Those that are not on every node, or not with the same code.
    fn apart(&self) -> Vec<LibraryApart> {
        let is_apart = |codes: &[(Vec<u8>, usize)]| codes.iter().all(|row| row.1 < self.nodes);
        let rows = self.names.iter().filter(|(_, codes)| is_apart(codes));
        rows.map(|(name, rows)| {
            let having: usize = rows.iter().map(|(_, nodes)| nodes).sum();
            let mut codes: Vec<Vec<u8>> = rows.iter().map(|(code, _)| code.clone()).collect();
            codes.sort();
            let mut place = format!("on {having} of {} primaries", self.nodes);
            if codes.len() > 1 {
                place += &format!(" with {} different codes", codes.len());
            }
            LibraryApart {
                name: name.clone(),
                place,
                codes,
            }
        })
        .collect()
    }

    /// All of them, of each name the first code; as it came where every node gave the same.
    fn payload(self, payloads: &[Option<Vec<u8>>]) -> Option<Vec<u8>> {
        if let [first, rest @ ..] = payloads
            && rest.iter().all(|other| other == first)
        {
            return first.clone();
        }
        let firsts = self.names.into_values().filter_map(|codes| {
            let (code, _) = codes.into_iter().next()?;
            Some(code)
        });
        let codes: Vec<Vec<u8>> = firsts.collect();
        (!codes.is_empty()).then(|| functions_payload(&codes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str, body: &str) -> Vec<u8> {
        format!("#!lua name={name}\n{body}").into_bytes()
    }

    fn node(libraries: &[(&str, &str)]) -> Option<Vec<u8>> {
        let codes: Vec<_> = libraries
            .iter()
            .map(|(name, body)| code(name, body))
            .collect();
        (!codes.is_empty()).then(|| functions_payload(&codes))
    }

    fn united(nodes: &[Option<Vec<u8>>]) -> (Vec<Vec<u8>>, Vec<(String, String)>) {
        let together = United::of(nodes);
        let apart = together.apart();
        let apart = apart.into_iter().map(|row| (row.name, row.place)).collect();
        let payload = together.payload(nodes);
        let codes = payload.map(|payload| function_codes(&payload).unwrap());
        (codes.unwrap_or_default(), apart)
    }

    #[test]
    fn what_every_node_has_is_together_in_whatever_order_it_came() {
        let (one, other) = (
            node(&[("a", "1"), ("b", "2")]),
            node(&[("b", "2"), ("a", "1")]),
        );
        for nodes in [vec![one.clone(), one.clone()], vec![one.clone(), other]] {
            let (codes, apart) = united(&nodes);
            assert_eq!(codes, [code("a", "1"), code("b", "2")]);
            assert_eq!(apart, []);
        }
        assert_eq!(united(&[None, None]), (Vec::new(), Vec::new()));
        assert_eq!(united(&[]), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_some_nodes_lack_is_taken_and_named() {
        let b = node(&[("b", "2")]);
        for nodes in [[b.clone(), None], [None, b]] {
            let (codes, apart) = united(&nodes);
            assert_eq!(codes, [code("b", "2")]);
            let place = "on 1 of 2 primaries".to_owned();
            assert_eq!(apart, [("b".to_owned(), place)]);
        }
    }

    #[test]
    fn of_two_codes_under_one_name_the_first_is_taken() {
        let nodes = [
            node(&[("a", "1"), ("b", "2")]),
            node(&[("a", "1"), ("b", "3")]),
            node(&[("a", "1")]),
        ];
        let (codes, apart) = united(&nodes);
        assert_eq!(codes, [code("a", "1"), code("b", "2")]);
        let place = "on 2 of 3 primaries with 2 different codes".to_owned();
        assert_eq!(apart, [("b".to_owned(), place)]);
    }
}
