//! From words to commands.

use bytes::Bytes;
use quorate_types::{Blob, Seq};

use super::key::{KEY_PREFIX_BYTES, partition_key};
use super::number::parse_integer;
use super::op::{Condition, ExpireCondition, Expiry, Op, SetReply, TimeUnit};
use super::set::parse_set;
use crate::resp::Protocol;

/// Longest key: it is a row's name, a lock's name and a range's border. With
/// its slot it is as long as the transaction layer takes.
pub(crate) const KEY_BYTES_MAX: usize = quorate_calvin::limits::KEY_BYTES_MAX - KEY_PREFIX_BYTES;

/// No shard's clock is beyond this for another two centuries (2^43 ms), so a
/// time to live that is too long for it is refused without asking a clock.
const CLOCK_MILLIS_MAX: i64 = 1 << 43;

/// A request that is understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Reads or writes data.
    Data(Op),
    /// Walks over the keys.
    Scan(ScanRequest),
    /// Is answered from what this node knows.
    Local(Local),
    /// Watches keys.
    Watch(Vec<Blob>),
    /// Forgets watched keys.
    Unwatch,
    /// Begins a transaction.
    Multi,
    /// Executes it.
    Exec,
    /// Drops it.
    Discard,
    /// Chooses the protocol.
    Hello(Hello),
    /// Starts the session over.
    Reset,
    /// Ends it.
    Quit,
}

/// What is answered without the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Local {
    /// `PING [text]`.
    Ping(Option<Blob>),
    /// `ECHO text`.
    Echo(Blob),
    /// `OK`, because there is nothing to do.
    Accepted,
    /// `AUTH [user] password`.
    Auth {
        /// Who it is, if named.
        user: Option<Blob>,
    },
    /// `CLIENT subcommand ...`.
    Client(Vec<Blob>),
    /// `CLUSTER subcommand ...`.
    Cluster(Vec<Blob>),
    /// `COMMAND [subcommand ...]`.
    Command(Vec<Blob>),
    /// `CONFIG subcommand ...`.
    Config(Vec<Blob>),
    /// `INFO [section ...]`.
    Info(Vec<Blob>),
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hello {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) user: Option<Blob>,
    pub(crate) name: Option<Blob>,
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ScanRequest {
    pub(crate) cursor: u64,
    pub(crate) pattern: Option<Blob>,
    pub(crate) count: usize,
    /// Whether the type asked for is the only one there is.
    pub(crate) strings: bool,
}

/// Why a request is not understood; the text is what Redis says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    #[error("ERR invalid cursor")]
    InvalidCursor,
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    #[error("ERR key is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    IncompatibleExpire,
    #[error("ERR GT and LT options at the same time are not compatible")]
    GreaterAndLess,
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    #[error("NOPROTO unsupported protocol version")]
    NoProtocol,
    #[error("ERR Protocol version is not an integer or out of range")]
    ProtocolVersion,
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    #[error("ERR DB index is out of range")]
    DatabaseIndex,
}

type Parsed = Result<Command, ParseError>;

/// The argument at `index`. The table has checked that there are as many as
/// each command needs; what is beyond reads as empty.
fn word(args: &[Bytes], index: usize) -> &[u8] {
    args.get(index).map(|arg| &arg[..]).unwrap_or_default()
}

fn blob(args: &[Bytes], index: usize) -> Blob {
    args.get(index).cloned().map(Blob).unwrap_or_default()
}

/// The arguments after the command's name.
fn rest(args: &[Bytes]) -> &[Bytes] {
    args.get(1..).unwrap_or_default()
}

pub(super) fn key_of(word: &[u8]) -> Result<Blob, ParseError> {
    if word.len() > KEY_BYTES_MAX {
        return Err(ParseError::KeyTooLong);
    }
    Ok(partition_key(word))
}

fn key(args: &[Bytes]) -> Result<Blob, ParseError> {
    key_of(word(args, 1))
}

fn all_keys(args: &[Bytes]) -> Result<Vec<Blob>, ParseError> {
    rest(args).iter().map(|word| key_of(word)).collect()
}

fn integer(args: &[Bytes], index: usize) -> Result<i64, ParseError> {
    parse_integer(word(args, index)).ok_or(ParseError::NotAnInteger)
}

fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

pub(super) fn get(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Get { key: key(args)? }))
}

pub(super) fn set(args: &[Bytes]) -> Parsed {
    parse_set(args).map(Command::Data)
}

fn plain_set(args: &[Bytes], value: Blob, condition: Condition, reply: SetReply) -> Parsed {
    let key = key(args)?;
    Ok(Command::Data(Op::Set { key, value, condition, expiry: Expiry::Never, reply }))
}

pub(super) fn setnx(args: &[Bytes]) -> Parsed {
    plain_set(args, blob(args, 2), Condition::IfMissing, SetReply::Flag)
}

pub(super) fn getset(args: &[Bytes]) -> Parsed {
    plain_set(args, blob(args, 2), Condition::Always, SetReply::Previous)
}

pub(super) fn setex(args: &[Bytes]) -> Parsed {
    set_for(args, "setex", TimeUnit::Seconds)
}

pub(super) fn psetex(args: &[Bytes]) -> Parsed {
    set_for(args, "psetex", TimeUnit::Millis)
}

fn set_for(args: &[Bytes], name: &'static str, unit: TimeUnit) -> Parsed {
    let after = positive_expiry(integer(args, 2)?, unit, Expiry::AfterMillis, name)?;
    Ok(Command::Data(Op::Set {
        key: key(args)?,
        value: blob(args, 3),
        condition: Condition::Always,
        expiry: after,
        reply: SetReply::Ok,
    }))
}

/// An expiry that `SET` accepts.
pub(super) fn positive_expiry(
    time: i64,
    unit: TimeUnit,
    expiry: fn(i64) -> Expiry,
    command: &'static str,
) -> Result<Expiry, ParseError> {
    if time <= 0 {
        return Err(ParseError::InvalidExpire(command));
    }
    checked_expiry(time, unit, expiry, command)
}

/// An expiry whose point in time is a number of milliseconds.
fn checked_expiry(
    time: i64,
    unit: TimeUnit,
    expiry: fn(i64) -> Expiry,
    command: &'static str,
) -> Result<Expiry, ParseError> {
    match time.checked_mul(unit.millis()).map(expiry) {
        Some(Expiry::AfterMillis(after)) if after > i64::MAX - CLOCK_MILLIS_MAX => {
            Err(ParseError::InvalidExpire(command))
        }
        expiry => expiry.ok_or(ParseError::InvalidExpire(command)),
    }
}

pub(super) fn getdel(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::GetDel { key: key(args)? }))
}

pub(super) fn mget(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::MGet { keys: all_keys(args)?.into() }))
}

pub(super) fn mset(args: &[Bytes]) -> Parsed {
    set_pairs(args, "mset", false)
}

pub(super) fn msetnx(args: &[Bytes]) -> Parsed {
    set_pairs(args, "msetnx", true)
}

fn set_pairs(args: &[Bytes], name: &str, if_missing: bool) -> Parsed {
    let pairs: Result<Seq<_>, _> = rest(args)
        .chunks(2)
        .map(|pair| match pair {
            [key, value] => Ok((key_of(key)?, Blob(value.clone()))),
            _ => Err(ParseError::Arity(name.into())),
        })
        .collect();
    Ok(Command::Data(Op::MSet { pairs: pairs?, if_missing }))
}

pub(super) fn del(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Del { keys: all_keys(args)?.into() }))
}

pub(super) fn exists(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Exists { keys: all_keys(args)?.into() }))
}

fn add(args: &[Bytes], by: i64) -> Parsed {
    Ok(Command::Data(Op::IncrBy { key: key(args)?, by }))
}

pub(super) fn incr(args: &[Bytes]) -> Parsed {
    add(args, 1)
}

pub(super) fn decr(args: &[Bytes]) -> Parsed {
    add(args, -1)
}

pub(super) fn incrby(args: &[Bytes]) -> Parsed {
    add(args, integer(args, 2)?)
}

pub(super) fn decrby(args: &[Bytes]) -> Parsed {
    add(args, integer(args, 2)?.checked_neg().ok_or(ParseError::DecrementOverflow)?)
}

/// The limit on the resulting value is filled in by the gateway, which knows
/// its configuration.
pub(super) fn append(args: &[Bytes]) -> Parsed {
    let (key, value) = (key(args)?, blob(args, 2));
    Ok(Command::Data(Op::Append { key, value, value_bytes_max: u64::MAX }))
}

pub(super) fn strlen(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::StrLen { key: key(args)? }))
}

pub(super) fn type_of(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Type { key: key(args)? }))
}

pub(super) fn dbsize(_: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::DbSize))
}

pub(super) fn keys(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Keys { pattern: blob(args, 1) }))
}

pub(super) fn flush(args: &[Bytes]) -> Parsed {
    match rest(args) {
        [] => Ok(Command::Data(Op::FlushAll)),
        [how] if how.eq_ignore_ascii_case(b"async") || how.eq_ignore_ascii_case(b"sync") => {
            Ok(Command::Data(Op::FlushAll))
        }
        _ => Err(ParseError::Syntax),
    }
}

fn ttl_of(args: &[Bytes], unit: TimeUnit, absolute: bool) -> Parsed {
    Ok(Command::Data(Op::Ttl { key: key(args)?, unit, absolute }))
}

pub(super) fn ttl(args: &[Bytes]) -> Parsed {
    ttl_of(args, TimeUnit::Seconds, false)
}

pub(super) fn pttl(args: &[Bytes]) -> Parsed {
    ttl_of(args, TimeUnit::Millis, false)
}

pub(super) fn expiretime(args: &[Bytes]) -> Parsed {
    ttl_of(args, TimeUnit::Seconds, true)
}

pub(super) fn pexpiretime(args: &[Bytes]) -> Parsed {
    ttl_of(args, TimeUnit::Millis, true)
}

pub(super) fn expire(args: &[Bytes]) -> Parsed {
    expire_at(args, "expire", TimeUnit::Seconds, Expiry::AfterMillis)
}

pub(super) fn pexpire(args: &[Bytes]) -> Parsed {
    expire_at(args, "pexpire", TimeUnit::Millis, Expiry::AfterMillis)
}

pub(super) fn expireat(args: &[Bytes]) -> Parsed {
    expire_at(args, "expireat", TimeUnit::Seconds, Expiry::AtMillis)
}

pub(super) fn pexpireat(args: &[Bytes]) -> Parsed {
    expire_at(args, "pexpireat", TimeUnit::Millis, Expiry::AtMillis)
}

fn expire_at(
    args: &[Bytes],
    name: &'static str,
    unit: TimeUnit,
    expiry: fn(i64) -> Expiry,
) -> Parsed {
    let condition = expire_condition(args.get(3..).unwrap_or_default())?;
    let expiry = checked_expiry(integer(args, 2)?, unit, expiry, name)?;
    Ok(Command::Data(Op::Expire { key: key(args)?, expiry, condition }))
}

fn expire_condition(options: &[Bytes]) -> Result<ExpireCondition, ParseError> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options {
        match option.to_ascii_lowercase().as_slice() {
            b"nx" => nx = true,
            b"xx" => xx = true,
            b"gt" => gt = true,
            b"lt" => lt = true,
            _ => return Err(ParseError::UnsupportedOption(lossy(option))),
        }
    }
    match (nx, xx, gt, lt) {
        (true, ..) if xx || gt || lt => Err(ParseError::IncompatibleExpire),
        (_, _, true, true) => Err(ParseError::GreaterAndLess),
        (true, ..) => Ok(ExpireCondition::IfNone),
        // What has no expiry has the latest, so GT implies XX.
        (_, _, true, _) => Ok(ExpireCondition::IfLater),
        (_, true, _, true) => Ok(ExpireCondition::IfSomeAndEarlier),
        (_, _, _, true) => Ok(ExpireCondition::IfEarlier),
        (_, true, ..) => Ok(ExpireCondition::IfSome),
        _ => Ok(ExpireCondition::Always),
    }
}

pub(super) fn persist(args: &[Bytes]) -> Parsed {
    Ok(Command::Data(Op::Persist { key: key(args)? }))
}

pub(super) fn scan(args: &[Bytes]) -> Parsed {
    const COUNT_DEFAULT: usize = 10;
    let cursor = std::str::from_utf8(word(args, 1)).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or(ParseError::InvalidCursor)?;
    let mut request = ScanRequest { cursor, pattern: None, count: COUNT_DEFAULT, strings: true };
    for option in args.get(2..).unwrap_or_default().chunks(2) {
        let [name, value] = option else {
            return Err(ParseError::Syntax);
        };
        match name.to_ascii_lowercase().as_slice() {
            b"match" => request.pattern = Some(Blob(value.clone())),
            b"count" => {
                let count = parse_integer(value).ok_or(ParseError::NotAnInteger)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                request.count = count.ok_or(ParseError::Syntax)?;
            }
            b"type" => request.strings = value.eq_ignore_ascii_case(b"string"),
            _ => return Err(ParseError::Syntax),
        }
    }
    Ok(Command::Scan(request))
}

pub(super) fn ping(args: &[Bytes]) -> Parsed {
    match rest(args) {
        [] => Ok(Command::Local(Local::Ping(None))),
        [text] => Ok(Command::Local(Local::Ping(Some(Blob(text.clone()))))),
        _ => Err(ParseError::Arity("ping".into())),
    }
}

pub(super) fn echo(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Echo(blob(args, 1))))
}

pub(super) fn accepted(_: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Accepted))
}

pub(super) fn auth(args: &[Bytes]) -> Parsed {
    match rest(args) {
        [_password] => Ok(Command::Local(Local::Auth { user: None })),
        [user, _password] => Ok(Command::Local(Local::Auth { user: Some(Blob(user.clone())) })),
        _ => Err(ParseError::Syntax),
    }
}

/// There is one database; clients that select it explicitly may.
pub(super) fn select(args: &[Bytes]) -> Parsed {
    match integer(args, 1)? {
        0 => Ok(Command::Local(Local::Accepted)),
        _ => Err(ParseError::DatabaseIndex),
    }
}

fn words(args: &[Bytes]) -> Vec<Blob> {
    rest(args).iter().cloned().map(Blob).collect()
}

pub(super) fn client(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Client(words(args))))
}

pub(super) fn cluster(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Cluster(words(args))))
}

pub(super) fn command(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Command(words(args))))
}

pub(super) fn config(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Config(words(args))))
}

pub(super) fn info(args: &[Bytes]) -> Parsed {
    Ok(Command::Local(Local::Info(words(args))))
}

pub(super) fn hello(args: &[Bytes]) -> Parsed {
    let mut hello = Hello::default();
    let Some((version, mut options)) = rest(args).split_first() else {
        return Ok(Command::Hello(hello));
    };
    hello.protocol = Some(match parse_integer(version) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        Some(_) => return Err(ParseError::NoProtocol),
        None => return Err(ParseError::ProtocolVersion),
    });
    while let Some((option, _)) = options.split_first() {
        match (option.to_ascii_lowercase().as_slice(), options) {
            (b"auth", [_, user, _password, after @ ..]) => {
                hello.user = Some(Blob(user.clone()));
                options = after;
            }
            (b"setname", [_, name, after @ ..]) => {
                hello.name = Some(client_name(name)?);
                options = after;
            }
            _ => return Err(ParseError::HelloOption(lossy(option))),
        }
    }
    Ok(Command::Hello(hello))
}

/// Names are printed in lists, so they must be plain and short.
pub(crate) fn client_name(name: &[u8]) -> Result<Blob, ParseError> {
    const NAME_BYTES_MAX: usize = 256;
    let plain = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if !plain || name.len() > NAME_BYTES_MAX {
        return Err(ParseError::ClientName);
    }
    Ok(name.into())
}

pub(super) fn watch(args: &[Bytes]) -> Parsed {
    all_keys(args).map(Command::Watch)
}

pub(super) fn unwatch(_: &[Bytes]) -> Parsed {
    Ok(Command::Unwatch)
}

pub(super) fn multi(_: &[Bytes]) -> Parsed {
    Ok(Command::Multi)
}

pub(super) fn exec(_: &[Bytes]) -> Parsed {
    Ok(Command::Exec)
}

pub(super) fn discard(_: &[Bytes]) -> Parsed {
    Ok(Command::Discard)
}

pub(super) fn reset(_: &[Bytes]) -> Parsed {
    Ok(Command::Reset)
}

pub(super) fn quit(_: &[Bytes]) -> Parsed {
    Ok(Command::Quit)
}
