//! Function libraries of a cluster. Every primary keeps its own, and nothing but custom keeps them
//! the same, so every primary is asked.

use std::collections::BTreeMap;

use anyhow::Result;

use super::ClusterOptions;
use super::part::is_lost;
use super::parts::Parts;
use crate::ledger::{LibrariesRead, LibraryApart, SourceReport};
use crate::observer::Observer;
use crate::policy::ReadFunctions;
use crate::rdb::{function_codes, functions_payload, library_name};
use crate::record::show_key;
use crate::source::server::{Libraries, function_dump, libraries_unread, warn_of_refusal};

/// When the libraries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// To see whether they can be read.
    AtFirst,
    /// To pass them on.
    AtTheEnd,
}

/// What the nodes answered.
#[derive(Default)]
struct Answers {
    /// The payload of each node that gave its libraries.
    given: Vec<Option<Vec<u8>>>,
    /// Why the first node that could not give its libraries did not.
    unread: Option<String>,
    /// In the words of the first node that refused.
    refused: Option<String>,
    /// The first node that was lost.
    lost: Option<anyhow::Error>,
}

/// The libraries of all primaries together.
#[derive(Default)]
pub(super) struct ClusterLibraries {
    /// What is to be given.
    payload: Option<Vec<u8>>,
    given: u64,
    /// Why not all libraries are known, if so.
    unread: Option<String>,
    /// Why no node gave any, though there may be some.
    none_given: Option<String>,
    /// A line for each library whose other versions were left out.
    left: Vec<String>,
    /// Libraries that differ between primaries, for a comparison.
    apart: Vec<LibraryApart>,
    /// Some node gave its libraries, or said that it has none.
    was_seen: bool,
}

impl ClusterLibraries {
    /// Reads them; [`Self::take`] returns them at the end, when differences are reported, too.
    ///
    /// # Errors
    /// Libraries that are required and refused, or no node left to answer.
    pub fn read(
        &mut self,
        parts: &mut Parts,
        options: &ClusterOptions,
        observer: &Observer,
        when: When,
    ) -> Result<()> {
        let wish = options.scan.functions;
        // Several processes read one cluster: the first of them has the functions.
        if wish == ReadFunctions::No || options.shard.is_some_and(|(which, _)| which > 1) {
            return Ok(());
        }
        let answers = ask(parts, wish)?;
        self.learn(&answers, observer, when);
        if let Some(error) = answers.lost {
            if answers.given.is_empty() && answers.unread.is_none() && answers.refused.is_none() {
                return Err(error);
            }
            // The other nodes are assumed to have the same; a comparison has to see them.
            if wish == ReadFunctions::Compared {
                self.unread
                    .get_or_insert_with(|| libraries_unread(&format!("{error:#}")));
            }
        }
        let united = United::of(&answers.given);
        if when == When::AtTheEnd {
            self.say_what_is_apart(wish, united.apart(), observer);
            self.payload = united.payload(&answers.given);
        }
        Ok(())
    }

    /// What is known from these answers.
    fn learn(&mut self, answers: &Answers, observer: &Observer, when: When) {
        self.unread = answers.unread.as_deref().map(libraries_unread);
        let unknown = answers.unread.as_ref().or(answers.refused.as_ref());
        self.none_given = unknown.filter(|_| answers.given.is_empty()).cloned();
        if let Some(text) = &answers.refused {
            // A service that has no such command refuses it everywhere, and from the beginning.
            let others_gave = !answers.given.is_empty() || self.was_seen;
            if others_gave {
                self.unread.get_or_insert_with(|| libraries_unread(text));
            } else if when == When::AtFirst {
                warn_of_refusal(text, observer);
            }
        }
        self.was_seen |= !answers.given.is_empty();
    }

    /// Whether there is something to be given.
    pub fn is_waiting(&self) -> bool {
        self.payload.is_some()
    }

    /// What is to be given.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let payload = self.payload.take();
        self.given += u64::from(payload.is_some());
        payload
    }

    pub fn report(&self, report: &mut SourceReport) {
        report.lacks.not_had.extend(self.unread.clone());
        report.lacks.not_had.extend(self.left.clone());
        report.libraries = LibrariesRead {
            given: self.given,
            unread: self.unread.clone(),
            none: self.none_given.clone(),
            apart: self.apart.clone(),
        };
    }

    /// For a comparison, differences are kept. Otherwise a library on one node is enough; of two
    /// versions under one name the first is taken, and the report says so.
    fn say_what_is_apart(
        &mut self,
        wish: ReadFunctions,
        apart: Vec<LibraryApart>,
        observer: &Observer,
    ) {
        if wish == ReadFunctions::Compared {
            self.apart = apart;
            return;
        }
        self.left = Vec::new();
        for LibraryApart { name, place, codes } in apart {
            let name = show_key(name.as_bytes());
            if codes.len() > 1 {
                self.left.push(format!(
                    "function library {name} is {place} of the cluster: the first code was taken, \
                     and the others were left out"
                ));
            } else {
                observer.warn(&format!(
                    "function library {name} is only {place} of the cluster; it was taken all the \
                     same"
                ));
            }
        }
    }
}

/// Asks every node whose slots are read.
fn ask(parts: &mut Parts, wish: ReadFunctions) -> Result<Answers> {
    let mut answers = Answers::default();
    let counts: Vec<bool> = parts.iter().map(|part| parts.counts(part)).collect();
    let any_counts = counts.contains(&true);
    for (part, counts) in parts.iter_mut().zip(counts) {
        // A node whose slots are read elsewhere by now does not count.
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

/// Libraries by name, with all their versions.
struct United {
    nodes: usize,
    /// For each name its versions in the order of the nodes, and how many nodes have each.
    names: BTreeMap<String, Vec<(Vec<u8>, usize)>>,
}

impl United {
    fn of(payloads: &[Option<Vec<u8>>]) -> Self {
        let mut names: BTreeMap<String, Vec<(Vec<u8>, usize)>> = BTreeMap::new();
        for payload in payloads.iter().flatten() {
            // They were checked when they were received.
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

    /// Libraries that are not on every node, or not in the same version.
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

    /// All of them, the first version of each name; unchanged where all nodes gave the same.
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
