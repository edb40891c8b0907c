//! Answers from what this node knows: greetings, introspection, settings.

use quorate_types::Blob;

use super::session::{Context, Session};
use crate::commands::{CommandSpec, Local, client_name, commands, glob_matches, lookup, slot_of};
use crate::resp::{Protocol, Reply};

/// The version of Redis whose replies ours are shaped after; clients choose
/// their commands by it.
const REDIS_VERSION: &str = "7.0.0";

pub(super) const WRONG_PASSWORD: &str =
    "WRONGPASS invalid username-password pair or user is disabled.";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
     default user. Are you sure your configuration is correct?";

/// There is one user, without a password, as in a Redis without settings.
pub(super) fn is_known_user(user: &[u8]) -> bool {
    user == b"default"
}

pub(super) fn answer(local: &Local, session: &mut Session, context: &Context<'_>) -> Reply {
    match local {
        Local::Ping(None) => Reply::simple("PONG"),
        Local::Ping(Some(text)) | Local::Echo(text) => Reply::Bulk(text.clone()),
        Local::Accepted => Reply::ok(),
        Local::Auth { user: None } => Reply::error(NO_PASSWORD),
        Local::Auth { user: Some(user) } if is_known_user(user) => Reply::ok(),
        Local::Auth { .. } => Reply::error(WRONG_PASSWORD),
        Local::Client(words) => client(words, session),
        Local::Cluster(words) => cluster(words, context),
        Local::Command(words) => command(words),
        Local::Config(words) => config(words, context),
        Local::Info => Reply::bulk(info(context).as_str()),
    }
}

pub(super) fn hello(session: &Session, _: &Context<'_>) -> Reply {
    let protocol = match session.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let pairs = [
        ("server", Reply::bulk("quorate")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(protocol)),
        ("id", Reply::Integer(session_number(session))),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::array([])),
    ];
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

fn session_number(session: &Session) -> i64 {
    i64::try_from(session.id).unwrap_or(i64::MAX)
}

/// A subcommand in lower case and its arguments.
fn subcommand(words: &[Blob]) -> (Vec<u8>, &[Blob]) {
    match words.split_first() {
        Some((name, rest)) => (name.to_ascii_lowercase(), rest),
        None => (Vec::new(), &[]),
    }
}

fn unknown_subcommand(command: &str, words: &[Blob]) -> Reply {
    let name = words.first().map(|word| String::from_utf8_lossy(word).into_owned());
    let name = name.unwrap_or_default();
    Reply::error(format!("ERR unknown subcommand '{name}'. Try {command} HELP.").as_str())
}

fn client(words: &[Blob], session: &mut Session) -> Reply {
    let (name, rest) = subcommand(words);
    match (&name[..], rest) {
        (b"id", []) => Reply::Integer(session_number(session)),
        (b"getname", []) if session.name.is_empty() => Reply::Null,
        (b"getname", []) => Reply::Bulk(session.name.clone()),
        (b"setname", [name]) => match client_name(name) {
            Ok(name) => {
                session.name = name;
                Reply::ok()
            }
            Err(error) => Reply::error(error.to_string().as_str()),
        },
        (b"info", []) => Reply::bulk(client_line(session).as_str()),
        // Advice about the client's library; nothing here depends on it.
        (b"setinfo", [_, _]) => Reply::ok(),
        (b"no-evict" | b"no-touch", [_]) => Reply::ok(),
        (b"id" | b"getname" | b"setname" | b"info" | b"setinfo" | b"no-evict" | b"no-touch", _) => {
            let name = String::from_utf8_lossy(&name).into_owned();
            let text = format!("ERR wrong number of arguments for 'client|{name}' command");
            Reply::error(text.as_str())
        }
        _ => unknown_subcommand("CLIENT", words),
    }
}

fn client_line(session: &Session) -> String {
    let name = String::from_utf8_lossy(&session.name).into_owned();
    let version = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    format!("id={} addr={} name={name} db=0 resp={version}\n", session.id, session.peer)
}

/// The gateway answers for every key, so clients shall not take it for a
/// member of a Redis Cluster.
fn cluster(words: &[Blob], context: &Context<'_>) -> Reply {
    let (name, rest) = subcommand(words);
    match (&name[..], rest) {
        (b"keyslot", [key]) => Reply::Integer(i64::from(slot_of(key))),
        (b"myid", []) => Reply::bulk(format!("{:040x}", context.backend.info().node).as_str()),
        _ => Reply::error("ERR This instance has cluster support disabled"),
    }
}

fn command(words: &[Blob]) -> Reply {
    let (name, rest) = subcommand(words);
    match &name[..] {
        b"" => Reply::array(commands().iter().map(describe)),
        b"count" => Reply::count(commands().len()),
        b"list" => Reply::array(commands().iter().map(|spec| Reply::bulk(spec.name))),
        b"info" if rest.is_empty() => Reply::array(commands().iter().map(describe)),
        b"info" => Reply::array(
            rest.iter().map(|name| lookup(name).map_or(Reply::NullArray, |(_, row)| describe(row))),
        ),
        b"docs" => Reply::Map(Vec::new().into()),
        _ => unknown_subcommand("COMMAND", words),
    }
}

fn describe(spec: &CommandSpec) -> Reply {
    let (first, last, step) = spec.keys;
    Reply::array([
        Reply::bulk(spec.name),
        Reply::Integer(spec.arity),
        Reply::array(spec.flags.iter().map(|flag| Reply::simple(flag))),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::array([]),
        Reply::array([]),
        Reply::array([]),
        Reply::array([]),
    ])
}

/// Settings that tools ask for. They describe, and cannot be set.
fn config(words: &[Blob], context: &Context<'_>) -> Reply {
    let (name, patterns) = subcommand(words);
    match (&name[..], patterns) {
        (b"get", [_, ..]) => {}
        (b"get", []) => {
            return Reply::error("ERR wrong number of arguments for 'config|get' command");
        }
        (b"set" | b"rewrite" | b"resetstat", _) => {
            return Reply::error(
                "ERR settings are read from the command line and the configuration file",
            );
        }
        _ => return unknown_subcommand("CONFIG", words),
    }
    let settings = [
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", context.limits.connections_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("proto-max-bulk-len", context.limits.bulk_bytes_max.to_string()),
        ("save", String::new()),
    ];
    let asked = |name: &str| {
        let name = name.as_bytes();
        patterns.iter().any(|pattern| glob_matches(&pattern.to_ascii_lowercase(), name))
    };
    let found = settings.iter().filter(|(name, _)| asked(name));
    Reply::Map(
        found.map(|(name, value)| (Reply::bulk(*name), Reply::bulk(value.as_str()))).collect(),
    )
}

fn info(context: &Context<'_>) -> String {
    let node = context.backend.info();
    let metrics = context.metrics;
    let bits = usize::BITS;
    let port = node.gateway.rsplit(':').next().unwrap_or_default();
    [
        "# Server".to_owned(),
        format!("redis_version:{REDIS_VERSION}"),
        format!("quorate_version:{}", env!("CARGO_PKG_VERSION")),
        "redis_mode:standalone".to_owned(),
        format!("arch_bits:{bits}"),
        format!("tcp_port:{port}"),
        String::new(),
        "# Clients".to_owned(),
        format!("connected_clients:{}", metrics.connections_open()),
        format!("maxclients:{}", context.limits.connections_max),
        String::new(),
        "# Persistence".to_owned(),
        format!("loading:{}", u8::from(!context.backend.serving())),
        String::new(),
        "# Stats".to_owned(),
        format!("total_connections_received:{}", metrics.connections_accepted()),
        format!("total_commands_processed:{}", metrics.commands_received()),
        String::new(),
        "# Replication".to_owned(),
        "role:master".to_owned(),
        String::new(),
        "# Cluster".to_owned(),
        "cluster_enabled:0".to_owned(),
        format!("quorate_cluster:{}", node.cluster),
        format!("quorate_node:{}", node.node),
        format!("quorate_nodes:{}", node.nodes),
        format!("quorate_shards:{}", node.shards),
        String::new(),
    ]
    .join("\r\n")
}
