//! Graphs of FalkorDB. The module takes a graph's name from the value and not from the key, has one
//! graph of a name in all databases, and loads a value into the graph that stands under its name:
//! RESTORE of a second one, also with REPLACE, doubles the graph or ends the server (seen with
//! FalkorDB 4.16.3). So a graph goes only to a name that is free in all databases, and what stands
//! under its own name is deleted first. Of RedisGraph no server has confirmed this.

use std::collections::HashMap;

use crate::payload::walk::first_module_string;
use crate::record::{Family, show_key};
use crate::refusal::Refusal;
use crate::server::conn::is_unknown_command;
use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::{Conn, ServerError};

/// The data type of graphs.
pub(super) const GRAPH: &str = "graphdata";

/// The data type of the keys that a large graph is spread over in an RDB file.
const GRAPH_PART: &str = "graphmeta";

/// Names of graphs that a run remembers.
pub(super) const MAX_GRAPHS: usize = 1_000_000;

/// The graphs that this run writes: by name, the database.
pub(super) type Graphs = HashMap<Vec<u8>, u32>;

/// What the head of a graph's value says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    name: Vec<u8>,
    /// Over how many keys the graph is spread; `None` where the layout does not tell.
    keys: Option<u64>,
}

impl Head {
    /// FalkorDB packs what it writes into strings: numbers of eight bytes, little-endian, and texts
    /// with their length and a zero at the end (encode_graph.c, _RdbSaveHeader). RedisGraph writes
    /// the name as a string of its own.
    fn read(first: &[u8]) -> Option<Self> {
        let text = |bytes: &[u8]| {
            let (last, name) = bytes.split_last()?;
            (*last == 0 && !name.contains(&0)).then(|| name.to_vec())
        };
        if let Some(name) = text(first) {
            return Some(Self { name, keys: None });
        }
        let (len, rest) = first.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (name, mut rest) = rest.split_at_checked(len)?;
        let name = text(name)?;
        // Nodes, edges, deleted nodes, deleted edges, labels, relations; then a flag of each
        // relation.
        let mut number = || {
            let (number, behind) = rest.split_first_chunk::<8>()?;
            rest = behind;
            Some(u64::from_le_bytes(*number))
        };
        for _ in 0..5 {
            number()?;
        }
        for _ in 0..number()? {
            number()?;
        }
        let keys = Some(number()?);
        Some(Self { name, keys })
    }
}

/// Whether a value of a module may be written under this key by RESTORE, as far as it says itself.
/// `value` begins with its type byte.
pub(super) fn check(
    family: Family,
    type_name: &str,
    key: &[u8],
    value: &[u8],
) -> Result<(), Refusal> {
    const BY_DUMP: &str = "export it from a running server by SCAN, which gives it in one piece";
    if type_name == GRAPH_PART {
        let reason = "it is a part of a large graph, and RESTORE does not put parts together";
        return Err(Refusal::new(reason).with_hint(BY_DUMP));
    }
    if type_name != GRAPH {
        return Ok(());
    }
    let Some(head) = first_module_string(family, value).and_then(|first| Head::read(&first)) else {
        let reason = "it is a graph whose name inside the value cannot be read: the module might \
                      load it into another graph";
        let hint = "move it with the tools of its module";
        return Err(Refusal::new(reason).with_hint(hint));
    };
    if head.name != key {
        let reason = format!(
            "it is the graph {}, and the module loads it under that name whatever its key is called",
            show_key(&head.name)
        );
        let hint = "import it under its own name, and copy it there with GRAPH.COPY";
        return Err(Refusal::new(reason).with_hint(hint));
    }
    match head.keys {
        None | Some(1) => Ok(()),
        Some(keys) => {
            let reason = format!(
                "it is one of {keys} parts of a large graph, and RESTORE does not put parts together"
            );
            Err(Refusal::new(reason).with_hint(BY_DUMP))
        }
    }
}

/// Whether a graph of this name stands under another key than this one of the selected database.
/// The inner error: the server's words, where it does not tell.
pub(super) fn stands_elsewhere(
    conn: &mut Conn,
    key: &[u8],
) -> Result<Result<bool, String>, ServerError> {
    let listed = match conn.ask(&cmd("GRAPH.LIST"))? {
        Ok(listed) => listed,
        // Without the module no graph stands, and RESTORE is refused.
        Err(text) if is_unknown_command(&text) => return Ok(Ok(false)),
        Err(text) => return Ok(Err(text)),
    };
    let Ok(names) = from_reply::<Vec<Vec<u8>>>(listed) else {
        let why = "the answer to GRAPH.LIST is not understood";
        return Ok(Err(why.to_owned()));
    };
    if !names.iter().any(|name| name == key) {
        return Ok(Ok(false));
    }
    Ok(match conn.ask(cmd("TYPE").arg(key))? {
        Ok(Reply::Status(name)) => Ok(name != GRAPH),
        Ok(_) => Err("the answer to TYPE is not understood".to_owned()),
        Err(text) => Err(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(name: &[u8], relations: u64, keys: u64) -> Vec<u8> {
        let mut bytes = (name.len() as u64 + 1).to_le_bytes().to_vec();
        bytes.extend_from_slice(name);
        bytes.push(0);
        let flags = std::iter::repeat_n(0, relations as usize);
        let numbers = [8, 4, 0, 0, 2, relations].into_iter();
        for number in numbers.chain(flags).chain([keys, 7, 7]) {
            bytes.extend_from_slice(&u64::to_le_bytes(number));
        }
        bytes
    }

    #[test]
    fn the_name_and_the_number_of_keys_are_read() {
        for (relations, keys) in [(0, 1), (3, 2)] {
            let head = Head::read(&packed(b"g", relations, keys)).expect("a head");
            assert_eq!((head.name.as_slice(), head.keys), (&b"g"[..], Some(keys)));
        }
        let head = Head::read(b"graph\0").expect("a head");
        assert_eq!((head.name.as_slice(), head.keys), (&b"graph"[..], None));
    }

    #[test]
    fn what_is_cut_or_says_too_much_is_no_head() {
        let whole = packed(b"g", 3, 1);
        for len in 3..whole.len() - 16 {
            assert_eq!(Head::read(&whole[..len]), None, "{len}");
        }
        assert_eq!(Head::read(&packed(b"a\0b", 0, 1)), None);
        assert_eq!(Head::read(&[0xff; 64]), None);
        let mut endless = packed(b"g", 0, 1);
        let at = 8 + 2 + 5 * 8;
        endless[at..at + 8].fill(0xff);
        assert_eq!(Head::read(&endless), None);
    }

    #[test]
    fn parts_and_what_cannot_be_read_are_refused() {
        let refused = check(Family::Redis, "graphmeta", b"g", &[7])
            .unwrap_err()
            .reason;
        assert!(refused.contains("part of a large graph"), "{refused}");
        let refused = check(Family::Redis, "graphdata", b"g", &[7])
            .unwrap_err()
            .reason;
        assert!(refused.contains("cannot be read"), "{refused}");
        assert_eq!(check(Family::Redis, "ReJSON-RL", b"g", &[7]), Ok(()));
    }
}
