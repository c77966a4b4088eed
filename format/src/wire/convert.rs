//! From wire structs to domain types and back.

use super::*;
use crate::header::{
    ConsistencyAsked, DbTotals, EndFacts, Expected, Mode, Node, SelectionFacts, SourceCounts,
    SourceFacts, Tool,
};
use crate::record::Family;

/// Two enums of the same variants without fields.
macro_rules! same_variants {
    ($wire:ident, $domain:ident, $($variant:ident),+) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => $wire::$variant),+ }
            }
        }
        impl From<$wire> for $domain {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => $domain::$variant),+ }
            }
        }
    };
}

same_variants!(WireFamily, Family, Redis, Valkey, Other);
same_variants!(WireMode, Mode, Standalone, Cluster, Sentinel, RdbFile);
same_variants!(
    WireAsked,
    ConsistencyAsked,
    Auto,
    Scan,
    Converge,
    Pause,
    Snapshot
);

/// Two structs of the same fields, each converted by `into`.
macro_rules! same_fields {
    ($wire:ident, $domain:ident, $($field:ident),+) => {
        impl From<&$domain> for $wire {
            fn from(value: &$domain) -> Self {
                $wire { $($field: value.$field.clone().into()),+ }
            }
        }
        impl From<$wire> for $domain {
            fn from(value: $wire) -> Self {
                $domain { $($field: value.$field.into()),+ }
            }
        }
    };
}

same_fields!(WireTool, Tool, name, version, git);
same_fields!(WireNode, Node, version, run_id, rdb_version);
same_fields!(WireExpected, Expected, db, keys, expires);
same_fields!(
    WireSelection,
    SelectionFacts,
    dbs,
    matches,
    excludes,
    types,
    other
);
same_fields!(
    WireDbTotals,
    DbTotals,
    db,
    records,
    with_ttl,
    value_bytes,
    key_bytes,
    tombstones
);
same_fields!(
    WireSourceCounts,
    SourceCounts,
    db,
    scanned,
    reread,
    written,
    superseded,
    filtered,
    vanished,
    failed
);

fn all<'a, A: 'a, B: From<&'a A>>(list: &'a [A]) -> Vec<B> {
    list.iter().map(B::from).collect()
}

fn into_all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

impl From<&SourceFacts> for WireSource {
    fn from(source: &SourceFacts) -> Self {
        WireSource {
            family: source.family.into(),
            mode: source.mode.into(),
            nodes: all(&source.nodes),
            label: source.label.clone(),
        }
    }
}

impl From<WireSource> for SourceFacts {
    fn from(wire: WireSource) -> Self {
        SourceFacts {
            family: wire.family.into(),
            mode: wire.mode.into(),
            nodes: into_all(wire.nodes),
            label: wire.label,
        }
    }
}

impl From<&ArchiveOrigin> for WireOrigin {
    fn from(origin: &ArchiveOrigin) -> Self {
        match origin {
            ArchiveOrigin::Export => WireOrigin::Export,
            ArchiveOrigin::Salvaged { lost } => WireOrigin::Salvaged { lost: lost.clone() },
            ArchiveOrigin::Split { part, of } => WireOrigin::Split {
                part: *part,
                of: *of,
            },
        }
    }
}

impl From<WireOrigin> for ArchiveOrigin {
    fn from(wire: WireOrigin) -> Self {
        match wire {
            WireOrigin::Export => ArchiveOrigin::Export,
            WireOrigin::Salvaged { lost } => ArchiveOrigin::Salvaged { lost },
            WireOrigin::Split { part, of } => ArchiveOrigin::Split { part, of },
        }
    }
}

impl From<&ConsistencyReached> for WireReached {
    fn from(reached: &ConsistencyReached) -> Self {
        match *reached {
            ConsistencyReached::Scan { from_ms, to_ms } => WireReached::Scan { from_ms, to_ms },
            ConsistencyReached::PerKey { from_ms, to_ms } => WireReached::PerKey { from_ms, to_ms },
            ConsistencyReached::Exact(ref nodes) => WireReached::Exact(nodes.clone()),
            ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys,
            } => WireReached::Changing {
                from_ms,
                to_ms,
                keys,
            },
        }
    }
}

impl From<WireReached> for ConsistencyReached {
    fn from(wire: WireReached) -> Self {
        match wire {
            WireReached::Scan { from_ms, to_ms } => ConsistencyReached::Scan { from_ms, to_ms },
            WireReached::PerKey { from_ms, to_ms } => ConsistencyReached::PerKey { from_ms, to_ms },
            WireReached::Exact(nodes) => ConsistencyReached::Exact(nodes),
            WireReached::Changing {
                from_ms,
                to_ms,
                keys,
            } => ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys,
            },
        }
    }
}

impl From<&Header> for WireHeader {
    fn from(header: &Header) -> Self {
        WireHeader {
            tool: (&header.tool).into(),
            created_ms: header.created_ms,
            source_time_ms: header.source_time_ms,
            source: (&header.source).into(),
            consistency: header.consistency.into(),
            expected: all(&header.expected),
            selection: (&header.selection).into(),
            functions: header.functions,
            eviction: header.eviction,
            level: header.level,
            frame_target_bytes: header.frame_target_bytes,
            origin: (&header.origin).into(),
            extra: header.extra.clone(),
        }
    }
}

impl From<WireHeader> for Header {
    fn from(wire: WireHeader) -> Self {
        Header {
            tool: wire.tool.into(),
            created_ms: wire.created_ms,
            source_time_ms: wire.source_time_ms,
            source: wire.source.into(),
            consistency: wire.consistency.into(),
            expected: into_all(wire.expected),
            selection: wire.selection.into(),
            functions: wire.functions,
            eviction: wire.eviction,
            level: wire.level,
            frame_target_bytes: wire.frame_target_bytes,
            origin: wire.origin.into(),
            extra: wire.extra,
        }
    }
}

impl From<&End> for WireEnd {
    fn from(end: &End) -> Self {
        WireEnd {
            frames: end.frames,
            records: end.records,
            per_db: all(&end.per_db),
            functions: end.functions,
            rdb_version_min: end.rdb_versions.0,
            rdb_version_max: end.rdb_versions.1,
            reached: (&end.facts.reached).into(),
            counts: all(&end.facts.counts),
            duplicates_possible: end.facts.duplicates_possible,
            started_ms: end.facts.started_ms,
            finished_ms: end.facts.finished_ms,
            sha256: end.sha256,
        }
    }
}

impl From<WireEnd> for End {
    fn from(wire: WireEnd) -> Self {
        End {
            frames: wire.frames,
            records: wire.records,
            per_db: into_all(wire.per_db),
            functions: wire.functions,
            rdb_versions: (wire.rdb_version_min, wire.rdb_version_max),
            facts: EndFacts {
                reached: wire.reached.into(),
                counts: into_all(wire.counts),
                duplicates_possible: wire.duplicates_possible,
                started_ms: wire.started_ms,
                finished_ms: wire.finished_ms,
            },
            sha256: wire.sha256,
            lacks: Vec::new(),
            outside: Vec::new(),
        }
    }
}
