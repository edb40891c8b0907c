//! A small service: registers, lists, accounts, conditions and scans.

use quorate_calvin::{
    Access, Call, Footprint, Inputs, Outcome, Procedures, RangeAccess, Rows, Write,
};
use quorate_types::codec::{decode, encode};
use quorate_types::{Blob, KeyRange, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

/// What clients ask for.
#[derive(Clone, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, ToMessagePack, FromMessagePack)]
pub enum Op {
    /// The values of keys.
    Read(Seq<Blob>),
    /// Sets keys without looking at them.
    Write { keys: Seq<Blob>, value: Blob },
    /// Reads some keys and sets others; answers what was read.
    ReadWrite { reads: Seq<Blob>, writes: Seq<Blob>, value: Blob },
    /// Appends to the lists at keys; answers the lists before.
    Append { keys: Seq<Blob>, item: Blob },
    /// Moves an amount between accounts if the first has it.
    Transfer { from: Blob, to: Blob, amount: u64 },
    /// The values of keys and their versions.
    Watch(Seq<Blob>),
    /// Sets keys if the first still has the version.
    WriteIf { keys: Seq<Blob>, version: u64, value: Blob },
    /// Deletes keys.
    Delete(Seq<Blob>),
    /// Sets a key until some time from now.
    WriteExpiring { key: Blob, value: Blob, ttl_millis: u64 },
    /// Counts the live rows of a range.
    Count(KeyRange),
    /// Empties a range.
    Clear(KeyRange),
    /// Panics, holding locks on keys.
    Panic(Seq<Blob>),
    /// Writes a key that it did not declare.
    Stray { declared: Blob, written: Blob },
}

/// What an account holds before anything was moved.
pub const FUNDS: u64 = 100;

impl Op {
    pub fn footprint(&self) -> Footprint {
        let both = |keys: &Seq<Blob>| Footprint {
            reads: keys.clone(),
            writes: keys.clone(),
            ..Footprint::default()
        };
        let range = |range: &KeyRange, access| Footprint {
            ranges: vec![RangeAccess { range: range.clone(), access }].into(),
            ..Footprint::default()
        };
        match self {
            Self::Read(keys) | Self::Watch(keys) => {
                Footprint { reads: keys.clone(), ..Footprint::default() }
            }
            Self::Write { keys, .. } | Self::Delete(keys) | Self::Panic(keys) => {
                Footprint { writes: keys.clone(), ..Footprint::default() }
            }
            Self::ReadWrite { reads, writes, .. } => {
                Footprint { reads: reads.clone(), writes: writes.clone(), ..Footprint::default() }
            }
            Self::Append { keys, .. } | Self::WriteIf { keys, .. } => both(keys),
            Self::Transfer { from, to, .. } => both(&vec![from.clone(), to.clone()].into()),
            Self::WriteExpiring { key, .. } => {
                Footprint { writes: vec![key.clone()].into(), ..Footprint::default() }
            }
            Self::Count(keys) => range(keys, Access::Read),
            Self::Clear(keys) => range(keys, Access::Write),
            Self::Stray { declared, .. } => {
                Footprint { writes: vec![declared.clone()].into(), ..Footprint::default() }
            }
        }
    }

    pub fn call(&self) -> Call {
        Call { procedure: 0, args: encode(self).into(), footprint: self.footprint() }
    }
}

/// `-` for a missing value.
fn shown(value: Option<&Blob>) -> String {
    value.map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned())
}

pub fn joined(values: impl Iterator<Item = String>) -> Blob {
    Blob::from(values.collect::<Vec<_>>().join(",").as_str())
}

/// The service's side of [`Op`].
#[derive(Debug)]
pub struct Service;

impl Procedures for Service {
    fn scan(&self, _: &Call, _: &KeyRange, rows: &mut Rows<'_>) -> Blob {
        Blob::from(rows.count().to_string().as_str())
    }

    fn run(&self, call: &Call, inputs: &Inputs, time_millis: u64, _: u64) -> Outcome {
        let op: Op = decode(&call.args).expect("the tests encode their calls");
        let put = |key: &Blob, value: Option<Blob>| Write {
            key: key.clone(),
            value,
            expires_millis: None,
        };
        let set_all = |keys: &Seq<Blob>, value: &Blob| -> Vec<Write> {
            keys.iter().map(|key| put(key, Some(value.clone()))).collect()
        };
        let values = |keys: &Seq<Blob>| joined(keys.iter().map(|key| shown(inputs.value(key))));
        let done = |writes: Vec<Write>, result: Blob| Outcome { writes, result, clears: vec![] };
        let ok = Blob::from_static(b"ok");
        match op {
            Op::Read(keys) => done(vec![], values(&keys)),
            Op::Write { keys, value } => done(set_all(&keys, &value), ok),
            Op::ReadWrite { reads, writes, value } => {
                done(set_all(&writes, &value), values(&reads))
            }
            Op::Append { keys, item } => {
                let longer = |key: &Blob| {
                    let mut list = inputs.value(key).map(|list| list.to_vec()).unwrap_or_default();
                    list.extend_from_slice(b".");
                    list.extend_from_slice(&item);
                    put(key, Some(list.into()))
                };
                done(keys.iter().map(longer).collect(), values(&keys))
            }
            Op::Transfer { from, to, amount } => {
                let funds = |key: &Blob| match inputs.value(key) {
                    Some(funds) => String::from_utf8_lossy(funds).parse().unwrap(),
                    None => FUNDS,
                };
                let Some(rest) = funds(&from).checked_sub(amount) else {
                    return done(vec![], Blob::from_static(b"poor"));
                };
                let value = |funds: u64| Some(Blob::from(funds.to_string().as_str()));
                let writes = vec![put(&from, value(rest)), put(&to, value(funds(&to) + amount))];
                done(writes, ok)
            }
            Op::Watch(keys) => {
                let seen = |key: &Blob| {
                    let version = inputs.reads.get(key).map_or(0, |read| read.version);
                    format!("{}@{version}", shown(inputs.value(key)))
                };
                done(vec![], joined(keys.iter().map(seen)))
            }
            Op::WriteIf { keys, version, value } => {
                let is = inputs.reads.get(&keys[0]).map_or(0, |read| read.version);
                if is == version {
                    done(set_all(&keys, &value), ok)
                } else {
                    done(vec![], Blob::from_static(b"changed"))
                }
            }
            Op::Delete(keys) => done(keys.iter().map(|key| put(key, None)).collect(), ok),
            Op::WriteExpiring { key, value, ttl_millis } => {
                let expires_millis = Some(time_millis.saturating_add(ttl_millis));
                done(vec![Write { key, value: Some(value), expires_millis }], ok)
            }
            Op::Count(_) => {
                let part = |part: &Blob| String::from_utf8_lossy(part).parse::<u64>().unwrap();
                let sum: u64 = inputs.scans.iter().map(part).sum();
                done(vec![], Blob::from(sum.to_string().as_str()))
            }
            Op::Clear(range) => Outcome { writes: vec![], clears: vec![range], result: ok },
            Op::Panic(_) => panic!("the procedure was asked to panic"),
            Op::Stray { written, .. } => done(vec![put(&written, Some(ok.clone()))], ok),
        }
    }
}

/// Keeps contained panics of [`Op::Panic`] out of the output.
pub fn quiet_contained_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let contained =
            info.payload().downcast_ref::<&str>() == Some(&"the procedure was asked to panic");
        if !contained {
            report(info);
        }
    }));
}
