//! Answers from what this node knows: greetings, introspection, settings.

use quorate_types::Blob;

use super::session::{Context, LOADING, Session};
use super::{client, info};
use crate::commands::{CommandSpec, Local, commands, glob_matches, lookup, slot_of};
use crate::resp::Reply;

/// The version of Redis whose replies ours are shaped after; clients choose
/// their commands by it.
pub(super) const REDIS_VERSION: &str = "7.0.0";

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
        // Who asks whether the node is up asks whether it serves.
        Local::Ping(_) | Local::Echo(_) if !context.backend.serving() => Reply::error(LOADING),
        Local::Ping(None) => Reply::simple("PONG"),
        Local::Ping(Some(text)) | Local::Echo(text) => Reply::Bulk(text.clone()),
        Local::Accepted => Reply::ok(),
        Local::Auth { user: None } => Reply::error(NO_PASSWORD),
        Local::Auth { user: Some(user) } if is_known_user(user) => Reply::ok(),
        Local::Auth { .. } => Reply::error(WRONG_PASSWORD),
        Local::Client(words) => client::answer(words, session, context),
        Local::Cluster(words) => cluster(words, context),
        Local::Command(words) => command(words),
        Local::Config(words) => config(words, context),
        Local::Info(sections) => Reply::bulk(info::info(sections, context).as_str()),
    }
}

pub(super) fn hello(session: &Session) -> Reply {
    let pairs = [
        ("server", Reply::bulk("quorate")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(session.protocol.number())),
        ("id", Reply::Integer(session.number())),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::array([])),
    ];
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// A subcommand in lower case and its arguments.
pub(super) fn subcommand(words: &[Blob]) -> (Vec<u8>, &[Blob]) {
    match words.split_first() {
        Some((name, rest)) => (name.to_ascii_lowercase(), rest),
        None => (Vec::new(), &[]),
    }
}

pub(super) fn unknown_subcommand(command: &str, words: &[Blob]) -> Reply {
    let name = words.first().map(|word| String::from_utf8_lossy(word).into_owned());
    let name = name.unwrap_or_default();
    Reply::error(format!("ERR unknown subcommand '{name}'. Try {command} HELP.").as_str())
}

/// The lines of a `HELP`.
pub(super) fn help(lines: &[&'static str]) -> Reply {
    Reply::array(lines.iter().map(|line| Reply::simple(line)))
}

const CLUSTER_HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "KEYSLOT <key>",
    "    Return the hash slot of a key.",
    "MYID",
    "    Return this node's number.",
    "HELP",
    "    Print this help.",
];

const COMMAND_HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand), INFO [<name> ...]",
    "    Return details about commands.",
    "COUNT",
    "    Return how many commands there are.",
    "DOCS",
    "    Return nothing: there are none.",
    "LIST",
    "    Return the names of all commands.",
    "HELP",
    "    Print this help.",
];

const CONFIG_HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern> [<pattern> ...]",
    "    Return settings that match. They are set by flags and the configuration file.",
    "HELP",
    "    Print this help.",
];

/// The gateway answers for every key, so clients shall not take it for a
/// member of a Redis Cluster.
fn cluster(words: &[Blob], context: &Context<'_>) -> Reply {
    let (name, rest) = subcommand(words);
    match (&name[..], rest) {
        (b"keyslot", [key]) => Reply::Integer(i64::from(slot_of(key))),
        (b"help", []) => help(CLUSTER_HELP),
        (b"myid", []) => Reply::bulk(format!("{:040x}", context.backend.info().node).as_str()),
        _ => Reply::error("ERR This instance has cluster support disabled"),
    }
}

fn command(words: &[Blob]) -> Reply {
    let (name, rest) = subcommand(words);
    match &name[..] {
        b"" => Reply::array(commands().iter().map(describe)),
        b"help" => help(COMMAND_HELP),
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
        (b"help", []) => return help(CONFIG_HELP),
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
