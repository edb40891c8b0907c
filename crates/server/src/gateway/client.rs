//! `CLIENT`: about this connection and the others of this node.

use std::sync::Arc;

use quorate_types::Blob;

use super::local::{help, is_known_user, subcommand, unknown_subcommand};
use super::roster::Client;
use super::session::{Context, Session};
use crate::commands::{client_name, parse_integer};
use crate::resp::Reply;

const SYNTAX: &str = "ERR syntax error";

/// Every subcommand and how `CLIENT LIST` and errors name it.
const SUBCOMMANDS: &[(&str, &str)] = &[
    ("caching", "client|caching"),
    ("getname", "client|getname"),
    ("getredir", "client|getredir"),
    ("help", "client|help"),
    ("id", "client|id"),
    ("info", "client|info"),
    ("kill", "client|kill"),
    ("list", "client|list"),
    ("no-evict", "client|no-evict"),
    ("no-touch", "client|no-touch"),
    ("pause", "client|pause"),
    ("reply", "client|reply"),
    ("setinfo", "client|setinfo"),
    ("setname", "client|setname"),
    ("tracking", "client|tracking"),
    ("trackinginfo", "client|trackinginfo"),
    ("unblock", "client|unblock"),
    ("unpause", "client|unpause"),
];

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "GETREDIR",
    "    Return -1: there is no tracking.",
    "ID",
    "    Return the ID of the current connection, unique on this node.",
    "INFO",
    "    Return information about the current connection.",
    "KILL <ip:port>",
    "    Kill the connection made from <ip:port> to this node.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections to this node. Options are:",
    "    ID <id>, ADDR <ip:port>, LADDR <ip:port>, TYPE <type>, USER <user>, SKIPME (YES|NO)",
    "LIST [TYPE <type> | ID <id> [<id> ...]]",
    "    Return information about the connections to this node.",
    "NO-EVICT (ON|OFF), NO-TOUCH (ON|OFF)",
    "    Accepted; nothing is evicted.",
    "REPLY ON",
    "    Accepted; every command is answered.",
    "SETINFO <attribute> <value>",
    "    Accepted.",
    "SETNAME <name>",
    "    Name the current connection.",
    "TRACKINGINFO",
    "    Report that there is no tracking.",
    "HELP",
    "    Print this help.",
];

pub(super) fn answer(words: &[Blob], session: &mut Session, context: &Context<'_>) -> Reply {
    let (name, rest) = subcommand(words);
    let known = SUBCOMMANDS.iter().find(|(known, _)| known.as_bytes() == name);
    let Some((name, full_name)) = known else {
        return unknown_subcommand("CLIENT", words);
    };
    session.client.commanded(full_name);
    match (*name, rest) {
        ("help", []) => help(HELP),
        ("id", []) => Reply::Integer(session.number()),
        ("getname", []) => match session.client.name() {
            name if name.is_empty() => Reply::Null,
            name => Reply::Bulk(name),
        },
        ("setname", [name]) => match client_name(name) {
            Ok(name) => {
                session.client.set_name(name);
                Reply::ok()
            }
            Err(error) => Reply::error(error.to_string().as_str()),
        },
        ("info", []) => Reply::bulk(session.client.line().as_str()),
        ("list", options) => list(options, context),
        ("kill", [_, ..]) => kill(rest, session, context),
        ("getredir", []) => Reply::Integer(-1),
        ("trackinginfo", []) => untracked(),
        // Advice; nothing here is evicted or depends on the client's library.
        ("setinfo", [_, _]) => Reply::ok(),
        ("no-evict" | "no-touch", [switch]) => match is_one_of(switch, &["on", "off"]) {
            true => Reply::ok(),
            false => Reply::error(SYNTAX),
        },
        ("reply", [how]) if is_one_of(how, &["on"]) => Reply::ok(),
        ("reply", [how]) if is_one_of(how, &["off", "skip"]) => Reply::error(
            "ERR CLIENT REPLY OFF and SKIP are not supported: every command is answered",
        ),
        ("reply", [_]) => Reply::error(SYNTAX),
        ("tracking", [switch]) if is_one_of(switch, &["off"]) => Reply::ok(),
        ("caching" | "pause" | "tracking" | "unblock" | "unpause", _) => {
            let name = name.to_uppercase();
            Reply::error(format!("ERR CLIENT {name} is not supported").as_str())
        }
        _ => {
            let text = format!("ERR wrong number of arguments for '{full_name}' command");
            Reply::error(text.as_str())
        }
    }
}

fn is_one_of(word: &[u8], all: &[&str]) -> bool {
    all.iter().any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
}

fn untracked() -> Reply {
    let pairs = [
        ("flags", Reply::array([Reply::bulk("off")])),
        ("redirect", Reply::Integer(-1)),
        ("prefixes", Reply::array([])),
    ];
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

fn list(options: &[Blob], context: &Context<'_>) -> Reply {
    let chosen = match options {
        [] => Ok(Filter::default()),
        [option, kind] if is_one_of(option, &["type"]) => Filter::of_type(kind),
        [option, ids @ ..] if is_one_of(option, &["id"]) && !ids.is_empty() => {
            let ids = ids.iter().map(|id| positive(id).ok_or("ERR Invalid client ID".to_owned()));
            ids.collect::<Result<_, _>>().map(|ids| Filter { ids: Some(ids), ..Filter::default() })
        }
        _ => Err(SYNTAX.to_owned()),
    };
    match chosen {
        Ok(filter) => Reply::bulk(lines(&filter, context).as_str()),
        Err(text) => Reply::error(text.as_str()),
    }
}

fn lines(filter: &Filter, context: &Context<'_>) -> String {
    let clients = context.roster.clients();
    clients.iter().filter(|client| filter.takes(client)).map(|client| client.line()).collect()
}

fn positive(word: &[u8]) -> Option<u64> {
    parse_integer(word).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)
}

/// Which connections are meant.
#[derive(Default)]
struct Filter {
    ids: Option<Vec<u64>>,
    address: Option<Blob>,
    local_address: Option<Blob>,
    /// A kind of connection that there is none of.
    is_nobody: bool,
}

impl Filter {
    fn of_type(kind: &[u8]) -> Result<Self, String> {
        match is_one_of(kind, &["normal", "master", "replica", "slave", "pubsub"]) {
            true => Ok(Self { is_nobody: !is_one_of(kind, &["normal"]), ..Self::default() }),
            false => Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind))),
        }
    }

    fn takes(&self, client: &Client) -> bool {
        let is = |wanted: &Option<Blob>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted[..] == *found.as_bytes())
        };
        !self.is_nobody
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && is(&self.address, &client.address)
            && is(&self.local_address, &client.local_address)
    }
}

fn kill(words: &[Blob], session: &mut Session, context: &Context<'_>) -> Reply {
    if let [address] = words {
        let filter = Filter { address: Some(address.clone()), ..Filter::default() };
        return match end(&filter, false, session, context) {
            0 => Reply::error("ERR No such client"),
            _ => Reply::ok(),
        };
    }
    match kill_options(words) {
        Ok((filter, skip_me)) => Reply::count(end(&filter, skip_me, session, context)),
        Err(text) => Reply::error(text.as_str()),
    }
}

fn kill_options(words: &[Blob]) -> Result<(Filter, bool), String> {
    let (mut filter, mut skip_me) = (Filter::default(), true);
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(SYNTAX.to_owned()) };
        match option.to_ascii_lowercase().as_slice() {
            b"id" => {
                let id = positive(value).ok_or("ERR client-id should be greater than 0")?;
                filter.ids = Some(vec![id]);
            }
            b"addr" => filter.address = Some(value.clone()),
            b"laddr" => filter.local_address = Some(value.clone()),
            b"type" => filter.is_nobody |= Filter::of_type(value)?.is_nobody,
            b"user" if is_known_user(value) => {}
            b"user" => {
                return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value)));
            }
            b"skipme" if is_one_of(value, &["yes"]) => skip_me = true,
            b"skipme" if is_one_of(value, &["no"]) => skip_me = false,
            _ => return Err(SYNTAX.to_owned()),
        }
    }
    Ok((filter, skip_me))
}

/// Ends connections and says how many. One's own ends after its answer.
fn end(filter: &Filter, skip_me: bool, session: &mut Session, context: &Context<'_>) -> usize {
    let is_meant = |client: &&Arc<Client>| {
        filter.takes(client) && !(skip_me && client.id == session.client.id)
    };
    let clients = context.roster.clients();
    let meant: Vec<&Arc<Client>> = clients.iter().filter(is_meant).collect();
    for client in &meant {
        match client.id == session.client.id {
            true => session.is_over = true,
            false => client.kill(),
        }
    }
    meant.len()
}
