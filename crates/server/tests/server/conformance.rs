//! The procedures of Redis's commands against the suite that all procedures
//! must pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_calvin::Call;
use quorate_calvin::conformance::procedures_suite;
use quorate_server::{
    Condition, Expiry, Op, Program, RedisProcedures, SetReply, Watch, partition_key,
};
use quorate_types::{Blob, Seq};

fn key(name: &str) -> Blob {
    partition_key(name.as_bytes())
}

fn set(name: &str, condition: Condition) -> Op {
    let (value, expiry, reply) = ("v".into(), Expiry::Never, SetReply::Previous);
    Op::Set { key: key(name), value, condition, expiry, reply }
}

fn calls() -> Vec<Call> {
    let keys = || -> Seq<Blob> { ["a", "b", "missing"].map(key).into_iter().collect() };
    let pairs = || -> Seq<(Blob, Blob)> {
        ["a", "missing"].map(|name| (key(name), "new".into())).into_iter().collect()
    };
    let all = vec![
        Op::Get { key: key("a") },
        set("a", Condition::IfExists),
        set("missing", Condition::IfMissing),
        Op::GetDel { key: key("b") },
        Op::MGet { keys: keys() },
        Op::MSet { pairs: pairs(), if_missing: true },
        Op::MSet { pairs: pairs(), if_missing: false },
        Op::Del { keys: keys() },
        Op::Exists { keys: keys() },
        Op::IncrBy { key: key("number"), by: i64::MAX },
        Op::Append { key: key("a"), value: "tail".into(), value_bytes_max: 12 },
        Op::StrLen { key: key("a") },
        Op::Type { key: key("a") },
        Op::DbSize,
        Op::Keys { pattern: "[ab]*".into() },
        Op::FlushAll,
    ];
    let watch = Watch { key: key("a"), version: 4, present: true };
    let changed = Watch { version: 5, ..watch.clone() };
    let watching = [watch, changed].map(|watch| Program {
        watches: vec![watch].into(),
        ops: vec![set("missing", Condition::Always)].into(),
        ..Program::default()
    });
    let whole = Program { ops: all.clone().into(), ..Program::default() };
    let programs = all.into_iter().map(Program::single).chain(watching);
    let programs = programs.chain([whole, Program::versions_of(vec![key("a"), key("missing")])]);
    programs.map(|program| program.call()).collect()
}

#[test]
fn the_commands_of_redis_conform() {
    let rows = [("a", "old"), ("b", ""), ("number", "7"), ("text", "no number")];
    let rows: BTreeMap<Blob, Blob> = rows.map(|(name, value)| (key(name), value.into())).into();
    procedures_suite(|| Arc::new(RedisProcedures), &calls(), &rows);
}
