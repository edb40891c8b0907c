//! The interpreter alone: a function of its inputs, and the right one.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_calvin::{Call, Procedures};
use quorate_server::{
    Condition, Expiry, Op, Program, ProgramError, RedisProcedures, Reply, SetReply, Verdict, Watch,
    partition_key,
};
use quorate_types::Blob;

use crate::memory::Store;

fn key() -> impl Strategy<Value = Blob> {
    (0_u8..5).prop_map(|key| partition_key(&[b'k', b'0' + key]))
}

fn value() -> impl Strategy<Value = Blob> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().as_str().into()),
        (0_i64..100).prop_map(|number| number.to_string().as_str().into()),
        vec(any::<u8>(), 0..6).prop_map(Blob::from),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![Just(Condition::Always), Just(Condition::IfMissing), Just(Condition::IfExists)]
}

fn reply() -> impl Strategy<Value = SetReply> {
    prop_oneof![Just(SetReply::Ok), Just(SetReply::Previous), Just(SetReply::Flag)]
}

/// Operations without expiry: time has tests of its own.
fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        key().prop_map(|key| Op::Get { key }),
        (key(), value(), condition(), reply()).prop_map(|(key, value, condition, reply)| {
            Op::Set { key, value, condition, expiry: Expiry::Never, reply }
        }),
        key().prop_map(|key| Op::GetDel { key }),
        vec(key(), 1..4).prop_map(|keys| Op::MGet { keys: keys.into() }),
        (vec((key(), value()), 1..4), any::<bool>())
            .prop_map(|(pairs, if_missing)| Op::MSet { pairs: pairs.into(), if_missing }),
        vec(key(), 1..4).prop_map(|keys| Op::Del { keys: keys.into() }),
        vec(key(), 1..4).prop_map(|keys| Op::Exists { keys: keys.into() }),
        (key(), -3_i64..3).prop_map(|(key, by)| Op::IncrBy { key, by }),
        (key(), value()).prop_map(|(key, value)| Op::Append { key, value, value_bytes_max: 12 }),
        key().prop_map(|key| Op::StrLen { key }),
        key().prop_map(|key| Op::Type { key }),
        Just(Op::DbSize),
        "k[0-4*?]".prop_map(|pattern| Op::Keys { pattern: pattern.as_str().into() }),
        Just(Op::FlushAll),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    vec(op(), 1..8).prop_map(|ops| Program { ops: ops.into(), ..Program::default() })
}

/// The simplest thing that could be right: a map, changed in place.
#[derive(Default)]
struct Model(BTreeMap<Blob, Blob>);

impl Model {
    fn apply(&mut self, op: &Op) -> Reply {
        match op {
            Op::Get { key } => Reply::bulk_or_null(self.0.get(key).cloned()),
            Op::Set { key, value, condition, reply, .. } => {
                let old = self.0.get(key).cloned();
                let set = match condition {
                    Condition::Always => true,
                    Condition::IfMissing => old.is_none(),
                    Condition::IfExists => old.is_some(),
                };
                if set {
                    self.0.insert(key.clone(), value.clone());
                }
                match (reply, set) {
                    (SetReply::Ok, true) => Reply::ok(),
                    (SetReply::Ok, false) => Reply::Null,
                    (SetReply::Previous, _) => Reply::bulk_or_null(old),
                    (SetReply::Flag, set) => Reply::Integer(i64::from(set)),
                }
            }
            Op::GetDel { key } => Reply::bulk_or_null(self.0.remove(key)),
            Op::MGet { keys } => {
                Reply::array(keys.iter().map(|key| Reply::bulk_or_null(self.0.get(key).cloned())))
            }
            Op::MSet { pairs, if_missing } => {
                if *if_missing && pairs.iter().any(|(key, _)| self.0.contains_key(key)) {
                    return Reply::Integer(0);
                }
                self.0.extend(pairs.iter().cloned());
                if *if_missing { Reply::Integer(1) } else { Reply::ok() }
            }
            Op::Del { keys } => {
                Reply::count(keys.iter().filter(|key| self.0.remove(*key).is_some()).count())
            }
            Op::Exists { keys } => {
                Reply::count(keys.iter().filter(|key| self.0.contains_key(*key)).count())
            }
            Op::IncrBy { key, by } => self.add(key, *by),
            Op::Append { key, value, value_bytes_max } => {
                let joined = [self.0.get(key).map_or(&b""[..], |old| old), value].concat();
                if joined.len() as u64 > *value_bytes_max {
                    let text = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
                    return Reply::error(text);
                }
                self.0.insert(key.clone(), joined.clone().into());
                Reply::count(joined.len())
            }
            Op::StrLen { key } => Reply::count(self.0.get(key).map_or(0, |value| value.len())),
            Op::Type { key } => {
                Reply::simple(if self.0.contains_key(key) { "string" } else { "none" })
            }
            Op::DbSize => Reply::count(self.0.len()),
            Op::Keys { pattern } => {
                let matches = |key: &[u8]| match pattern[1] {
                    b'*' | b'?' => true,
                    digit => key[1] == digit,
                };
                let keys = self.0.keys().map(|stored| &stored[2..]);
                Reply::array(keys.filter(|key| matches(key)).map(Reply::bulk))
            }
            Op::FlushAll => {
                self.0.clear();
                Reply::ok()
            }
            Op::Ttl { .. } | Op::Expire { .. } | Op::Persist { .. } => unreachable!(),
        }
    }

    fn add(&mut self, key: &Blob, by: i64) -> Reply {
        let text = self.0.get(key).map_or("0".into(), |old| String::from_utf8_lossy(old));
        let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        match number.map(|number| number.checked_add(by)) {
            None => Reply::error("ERR value is not an integer or out of range"),
            Some(None) => Reply::error("ERR increment or decrement would overflow"),
            Some(Some(sum)) => {
                self.0.insert(key.clone(), sum.to_string().as_str().into());
                Reply::Integer(sum)
            }
        }
    }
}

proptest! {
    #[test]
    fn programs_do_what_the_model_does(programs in vec(program(), 1..12)) {
        let (mut store, mut model) = (Store::default(), Model::default());
        for program in &programs {
            let replies = program.ops.iter().map(|op| model.apply(op)).collect();
            let verdict = Verdict::decode(&store.execute(&program.call())).unwrap();
            prop_assert_eq!(verdict, Verdict::Replies(replies));
            let stored: BTreeMap<Blob, Blob> = store
                .rows
                .iter()
                .filter_map(|(key, row)| Some((key.clone(), row.value.clone()?)))
                .collect();
            prop_assert_eq!(&stored, &model.0);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_outcome(
        setup in vec(program(), 0..4),
        program in program(),
        time in any::<u64>(),
        seeds in any::<(u64, u64)>(),
    ) {
        let mut store = Store::default();
        for earlier in &setup {
            store.execute(&earlier.call());
        }
        let call = program.call();
        let inputs = store.inputs(&call);
        let first = RedisProcedures.run(&call, &inputs, time, seeds.0);
        // No command draws lots, so not even the seed matters.
        prop_assert_eq!(first, RedisProcedures.run(&call, &inputs, time, seeds.1));
    }

    #[test]
    fn a_program_survives_its_encoding(program in program()) {
        prop_assert_eq!(Program::decode(&program.encode()).unwrap(), program);
    }

    #[test]
    fn hostile_arguments_are_an_error_and_never_a_panic(bytes in vec(any::<u8>(), 0..60)) {
        let call = Call { procedure: 1, args: bytes.into(), footprint: Default::default() };
        let outcome = RedisProcedures.run(&call, &Default::default(), 0, 0);
        prop_assert!(outcome.writes.is_empty() || Program::decode(&call.args).is_ok());
        RedisProcedures.scan(&call, &Default::default(), &mut std::iter::empty());
    }
}

#[test]
fn plain_sets_are_blind_writes() {
    let set = |condition, expiry, reply| {
        let key = partition_key(b"k");
        Program::single(Op::Set { key, value: Blob::new(), condition, expiry, reply }).footprint()
    };
    let plain = set(Condition::Always, Expiry::AfterMillis(5), SetReply::Ok);
    assert!(plain.reads.is_empty() && plain.writes.len() == 1);
    for reading in [
        set(Condition::IfMissing, Expiry::Never, SetReply::Ok),
        set(Condition::Always, Expiry::Keep, SetReply::Ok),
        set(Condition::Always, Expiry::Never, SetReply::Previous),
    ] {
        assert_eq!((reading.reads.len(), reading.writes.len()), (1, 1));
    }
}

#[test]
fn a_program_of_a_newer_format_is_refused() {
    let mut bytes = Program::single(Op::DbSize).encode().to_vec();
    bytes[0] = 9;
    assert!(matches!(Program::decode(&bytes), Err(ProgramError::Version(9))));
    bytes[0] = 1;
    bytes.push(0);
    assert!(matches!(Program::decode(&bytes), Err(ProgramError::Malformed(_))));
}

#[test]
fn a_condition_on_a_key_that_nobody_read_does_not_hold() {
    let watch = Watch { key: partition_key(b"k"), version: 0, present: false };
    let program = Program {
        watches: vec![watch].into(),
        ops: vec![Op::FlushAll].into(),
        ..Program::default()
    };
    let outcome = RedisProcedures.run(&program.call(), &Default::default(), 0, 0);
    assert_eq!(Verdict::decode(&outcome.result).unwrap(), Verdict::Changed);
    assert!(outcome.clears.is_empty());
}
