//! INFO.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{Keys, LOADING, Row, STALE, row};
use super::words::{SYNTAX, text};

pub(super) const ROWS: &[Row] = &[
    row("info", -1, LOADING | STALE, Keys::None, Since::Always, info),
    row(
        "lastsave",
        1,
        LOADING | STALE,
        Keys::None,
        Since::Always,
        |_, _, _| Reply::Int(1),
    ),
];

const DEFAULT: [&str; 9] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "modules",
    "errorstats",
    "cluster",
];

fn info(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    if args.len() > 2 && !release.has(Since::R70) {
        return SYNTAX;
    }
    let mut wanted: Vec<String> = args[1..]
        .iter()
        .map(|word| text(word).to_lowercase())
        .collect();
    if wanted.is_empty() {
        wanted.push("default".to_owned());
    }
    let is_in_default = |name: &str| DEFAULT.contains(&name) || name == "keyspace";
    let has = |name: &str| {
        wanted.iter().any(|word| match word.as_str() {
            "all" | "everything" => true,
            "default" => is_in_default(name),
            word => word == name,
        })
    };
    let mut text = String::new();
    let names = DEFAULT.into_iter().chain(["commandstats", "keyspace"]);
    for name in names.filter(|name| has(name)) {
        let Some(lines) = section(server, cx, name) else {
            continue;
        };
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let title = name[..1].to_uppercase() + &name[1..];
        text.push_str(&format!("# {title}\r\n"));
        for line in lines {
            text.push_str(&line);
            text.push_str("\r\n");
        }
    }
    Reply::Text(text)
}

fn section(server: &Server, cx: &Cx, name: &str) -> Option<Vec<String>> {
    let release = server.release();
    Some(match name {
        "server" => server_lines(server, cx),
        "clients" => vec![format!("connected_clients:{}", server.clients.len() - 1)],
        "memory" => vec![
            format!("used_memory:{}", server.used_memory()),
            format!("maxmemory:{}", server.config().limits.max_memory),
            format!("maxmemory_policy:{}", server.config().limits.policy),
            "allocator_frag_ratio:1.00".to_owned(),
        ],
        "persistence" => vec![
            format!("loading:{}", i32::from(server.faults.conditions.loading)),
            format!("rdb_changes_since_last_save:{}", server.stats.dirty),
            "aof_enabled:0".to_owned(),
        ],
        "stats" => vec![
            format!(
                "total_commands_processed:{}",
                server.stats.calls.values().sum::<u64>()
            ),
            "sync_full:0".to_owned(),
            format!("expired_keys:{}", server.stats.expired),
            format!("evicted_keys:{}", server.stats.evicted),
            format!(
                "total_error_replies:{}",
                server.stats.errors.values().sum::<u64>()
            ),
        ],
        "replication" => server.replication_lines(),
        "modules" if !release.has(Since::R60) => return None,
        "modules" => server
            .config()
            .modules
            .iter()
            .map(|module| {
                format!(
                    "module:name={},ver={},api=1,filters=0,usedby=[],using=[],options=[]",
                    module.name, module.version
                )
            })
            .collect(),
        "commandstats" => server
            .stats
            .calls
            .iter()
            .map(|(name, calls)| {
                let mut line =
                    format!("cmdstat_{name}:calls={calls},usec={calls},usec_per_call=1.00");
                if release.has(Since::R62) {
                    line.push_str(",rejected_calls=0,failed_calls=0");
                }
                line
            })
            .collect(),
        "errorstats" => {
            if !release.has(Since::R62) {
                return None;
            }
            let row = |(name, count): (&String, &u64)| format!("errorstat_{name}:count={count}");
            server.stats.errors.iter().map(row).collect()
        }
        "cluster" => vec![format!(
            "cluster_enabled:{}",
            i32::from(server.config().cluster)
        )],
        "keyspace" => keyspace_lines(server),
        _ => return None,
    })
}

fn server_lines(server: &Server, cx: &Cx) -> Vec<String> {
    let release = server.release();
    let mode = if server.config().cluster {
        "cluster"
    } else {
        "standalone"
    };
    let mut lines = Vec::new();
    if release.is_valkey() {
        lines.push("redis_version:7.2.4".to_owned());
        lines.push("server_name:valkey".to_owned());
        lines.push(format!("valkey_version:{}", release.version_text()));
        lines.push("valkey_release_stage:ga".to_owned());
        lines.push(format!("server_mode:{mode}"));
    } else {
        lines.push(format!("redis_version:{}", release.version_text()));
        lines.push(format!("redis_mode:{mode}"));
    }
    lines.push("os:Linux".to_owned());
    lines.push("arch_bits:64".to_owned());
    lines.push("process_id:1".to_owned());
    lines.push(format!("run_id:{}", server.run_id()));
    lines.push(format!("tcp_port:{}", server.config().port));
    let uptime_secs = server.time.uptime_ms() / 1000;
    lines.push(format!("uptime_in_seconds:{uptime_secs}"));
    if release.has(Since::R62) {
        lines.push(format!("server_time_usec:{}", cx.now * 1000));
    }
    lines
}

fn keyspace_lines(server: &Server) -> Vec<String> {
    let release = server.release();
    let databases = (0..server.keyspace.databases()).filter(|db| server.keyspace.len(*db) > 0);
    databases
        .map(|db| {
            let mut line = format!(
                "db{db}:keys={},expires={},avg_ttl=0",
                server.keyspace.len(db),
                server.keyspace.expiring(db)
            );
            let hashes = server.keyspace.expiring_hashes(db);
            match (release.is_valkey(), release.has(Since::FieldTtl)) {
                (false, true) => line.push_str(&format!(",subexpiry={hashes}")),
                (true, true) => line.push_str(&format!(",keys_with_volatile_items={hashes}")),
                _ => {}
            }
            line
        })
        .collect()
}
