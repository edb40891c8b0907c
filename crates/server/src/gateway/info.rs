//! `INFO`.

use quorate_types::Blob;

use super::local::REDIS_VERSION;
use super::session::Context;

/// The sections there are. What Redis has besides (memory, processor time,
/// keyspace, ...) is left out: this node alone cannot count the cluster's
/// keys, `DBSIZE` does, and the rest is among the metrics.
const SECTIONS: &[Section] = &[
    Section { title: "Server", lines: server },
    Section { title: "Clients", lines: clients },
    Section { title: "Persistence", lines: persistence },
    Section { title: "Stats", lines: stats },
    Section { title: "Replication", lines: replication },
    Section { title: "Cluster", lines: cluster },
];

struct Section {
    title: &'static str,
    lines: fn(&Context<'_>) -> Vec<String>,
}

/// The sections asked for, all when none is. As in Redis, one that does not
/// exist is empty.
pub(super) fn info(asked: &[Blob], context: &Context<'_>) -> String {
    let is = |word: &Blob, name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let is_all = asked.is_empty()
        || asked
            .iter()
            .any(|word| ["all", "everything", "default"].iter().any(|all| is(word, all)));
    let chosen = SECTIONS
        .iter()
        .filter(|section| is_all || asked.iter().any(|word| is(word, section.title)));
    let texts = chosen.map(|section| {
        let lines = (section.lines)(context);
        format!("# {}\r\n{}\r\n", section.title, lines.join("\r\n"))
    });
    texts.collect::<Vec<_>>().join("\r\n")
}

fn server(context: &Context<'_>) -> Vec<String> {
    let node = context.backend.info();
    let port = node.gateway.rsplit(':').next().unwrap_or_default();
    vec![
        format!("redis_version:{REDIS_VERSION}"),
        format!("quorate_version:{}", env!("CARGO_PKG_VERSION")),
        "redis_mode:standalone".to_owned(),
        format!("arch_bits:{}", usize::BITS),
        format!("tcp_port:{port}"),
    ]
}

fn clients(context: &Context<'_>) -> Vec<String> {
    vec![
        format!("connected_clients:{}", context.metrics.connections_open()),
        format!("maxclients:{}", context.limits.connections_max),
    ]
}

fn persistence(context: &Context<'_>) -> Vec<String> {
    vec![format!("loading:{}", u8::from(!context.backend.serving()))]
}

fn stats(context: &Context<'_>) -> Vec<String> {
    vec![
        format!("total_connections_received:{}", context.metrics.connections_accepted()),
        format!("total_commands_processed:{}", context.metrics.commands_received()),
    ]
}

fn replication(_: &Context<'_>) -> Vec<String> {
    vec!["role:master".to_owned()]
}

fn cluster(context: &Context<'_>) -> Vec<String> {
    let node = context.backend.info();
    vec![
        "cluster_enabled:0".to_owned(),
        format!("quorate_cluster:{}", node.cluster),
        format!("quorate_node:{}", node.node),
        format!("quorate_nodes:{}", node.nodes),
        format!("quorate_shards:{}", node.shards),
    ]
}
