//! Where the nodes of a cluster are: what they announce, and where that is really reached.

use std::collections::BTreeMap;
use std::fmt;

/// Where a node is, as it is announced: host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl NodeAddress {
    /// Reads `host:port`, `[v6]:port`, or an unbracketed IPv6 address with a port, as redirections
    /// have it.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// Where announced addresses are really reached (`--node-map ANNOUNCED=REACHABLE`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeMap(BTreeMap<NodeAddress, NodeAddress>);

impl NodeMap {
    /// Of these pairs.
    pub fn new(pairs: impl IntoIterator<Item = (NodeAddress, NodeAddress)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Where `announced` is reached.
    pub fn reach<'a>(&'a self, announced: &'a NodeAddress) -> &'a NodeAddress {
        self.0.get(announced).unwrap_or(announced)
    }
}

/// Reads `10.0.0.1:6379=localhost:17000`.
///
/// # Errors
/// What is expected.
pub fn parse_node_map(text: &str) -> Result<(NodeAddress, NodeAddress), String> {
    let pair = text.split_once('=').and_then(|(announced, reachable)| {
        Some((
            NodeAddress::parse(announced)?,
            NodeAddress::parse(reachable)?,
        ))
    });
    pair.filter(|(announced, reachable)| !announced.host.is_empty() && !reachable.host.is_empty())
        .ok_or_else(|| "write host:port=host:port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_addresses_are_mapped() {
        let announced = NodeAddress::parse("10.0.0.1:6379").unwrap();
        let map = NodeMap::new([(
            announced.clone(),
            NodeAddress::parse("[::1]:17000").unwrap(),
        )]);
        assert_eq!(map.reach(&announced).to_string(), "[::1]:17000");
        let other = NodeAddress::parse("10.0.0.2:6379").unwrap();
        assert_eq!(map.reach(&other), &other);
    }
}
