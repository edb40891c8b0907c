//! Every command: its name, its shape and the function that reads it.

use bytes::Bytes;

use super::parse::{self, Command, ParseError};

/// A row of the table.
pub(crate) struct CommandSpec {
    /// The name in lower case.
    pub(crate) name: &'static str,
    /// Words of the request, the name included; negative means at least.
    pub(crate) arity: i64,
    /// What `COMMAND` says about it.
    pub(crate) flags: &'static [&'static str],
    /// The first and last argument that is a key, and the step between keys;
    /// a negative last counts from the end.
    pub(crate) keys: (i64, i64, i64),
    /// Reads the arguments.
    pub(crate) parse: fn(&[Bytes]) -> Result<Command, ParseError>,
}

const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "denyoom", "fast"];
const LOCAL: &[&str] = &["loading", "stale", "fast"];
/// Of this node, and refused before it serves.
const NODE: &[&str] = &["fast"];
const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE: (i64, i64, i64) = (1, 1, 1);
const ALL: (i64, i64, i64) = (1, -1, 1);
const PAIRS: (i64, i64, i64) = (1, -1, 2);

macro_rules! table {
    ($($name:literal $arity:literal $flags:ident $keys:ident $parse:expr;)*) => {
        &[$(CommandSpec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            parse: $parse,
        }),*]
    };
}

/// In alphabetical order, for the search.
static COMMANDS: &[CommandSpec] = table! {
    "append" 3 WRITE ONE parse::append;
    "asking" 1 LOCAL NO_KEYS parse::accepted;
    "auth" -2 LOCAL NO_KEYS parse::auth;
    "client" -2 LOCAL NO_KEYS parse::client;
    "cluster" -2 LOCAL NO_KEYS parse::cluster;
    "command" -1 LOCAL NO_KEYS parse::command;
    "config" -2 LOCAL NO_KEYS parse::config;
    "dbsize" 1 READ NO_KEYS parse::dbsize;
    "decr" 2 WRITE ONE parse::decr;
    "decrby" 3 WRITE ONE parse::decrby;
    "del" -2 WRITE ALL parse::del;
    "discard" 1 LOCAL NO_KEYS parse::discard;
    "echo" 2 NODE NO_KEYS parse::echo;
    "exec" 1 LOCAL NO_KEYS parse::exec;
    "exists" -2 READ ALL parse::exists;
    "expire" -3 WRITE ONE parse::expire;
    "expireat" -3 WRITE ONE parse::expireat;
    "expiretime" 2 READ ONE parse::expiretime;
    "flushall" -1 WRITE NO_KEYS parse::flush;
    "flushdb" -1 WRITE NO_KEYS parse::flush;
    "get" 2 READ ONE parse::get;
    "getdel" 2 WRITE ONE parse::getdel;
    "getset" 3 WRITE ONE parse::getset;
    "hello" -1 LOCAL NO_KEYS parse::hello;
    "incr" 2 WRITE ONE parse::incr;
    "incrby" 3 WRITE ONE parse::incrby;
    "info" -1 LOCAL NO_KEYS parse::info;
    "keys" 2 READ NO_KEYS parse::keys;
    "mget" -2 READ ALL parse::mget;
    "mset" -3 WRITE PAIRS parse::mset;
    "msetnx" -3 WRITE PAIRS parse::msetnx;
    "multi" 1 LOCAL NO_KEYS parse::multi;
    "persist" 2 WRITE ONE parse::persist;
    "pexpire" -3 WRITE ONE parse::pexpire;
    "pexpireat" -3 WRITE ONE parse::pexpireat;
    "pexpiretime" 2 READ ONE parse::pexpiretime;
    "ping" -1 NODE NO_KEYS parse::ping;
    "psetex" 4 WRITE ONE parse::psetex;
    "pttl" 2 READ ONE parse::pttl;
    "quit" -1 LOCAL NO_KEYS parse::quit;
    "readonly" 1 LOCAL NO_KEYS parse::accepted;
    "readwrite" 1 LOCAL NO_KEYS parse::accepted;
    "reset" 1 LOCAL NO_KEYS parse::reset;
    "scan" -2 READ NO_KEYS parse::scan;
    "select" 2 LOCAL NO_KEYS parse::select;
    "set" -3 WRITE ONE parse::set;
    "setex" 4 WRITE ONE parse::setex;
    "setnx" 3 WRITE ONE parse::setnx;
    "strlen" 2 READ ONE parse::strlen;
    "touch" -2 READ ALL parse::exists;
    "ttl" 2 READ ONE parse::ttl;
    "type" 2 READ ONE parse::type_of;
    "unlink" -2 WRITE ALL parse::del;
    "unwatch" 1 LOCAL NO_KEYS parse::unwatch;
    "watch" -2 NODE ALL parse::watch;
};

/// All commands, in alphabetical order.
pub(crate) fn commands() -> &'static [CommandSpec] {
    COMMANDS
}

/// Finds a command by its name in any case, and its place in [`commands`].
pub(crate) fn lookup(name: &[u8]) -> Option<(usize, &'static CommandSpec)> {
    /// Longer than the longest name.
    const NAME_BYTES_MAX: usize = 16;
    let mut lower = [0_u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let index = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    COMMANDS.get(index).map(|spec| (index, spec))
}

impl CommandSpec {
    /// Reads a request whose first word is this command's name.
    pub(crate) fn read(&'static self, args: &[Bytes]) -> Result<Command, ParseError> {
        let words = i64::try_from(args.len()).unwrap_or(i64::MAX);
        let fits = if self.arity < 0 { words >= -self.arity } else { words == self.arity };
        if !fits {
            return Err(ParseError::Arity(self.name.into()));
        }
        (self.parse)(args)
    }
}

#[cfg(test)]
mod tests;
