//! Fuzz targets: programs and verdicts out of any bytes, and what any program
//! does with any inputs.

use quorate_calvin::{Access, Call, Inputs, Procedures, Read};
use quorate_testkit::fuzz::{self, Choices, Corpus, value};
use quorate_types::{Blob, Seq};

use super::digest::{Digest, Matches};
use super::{KeyVersion, REDIS_PROCEDURE, RedisProcedures, Verdict};
use crate::commands::{
    Condition, ExpireCondition, Expiry, Op, Program, SetReply, TimeUnit, Watch, partition_key,
};
use crate::resp::Reply;

/// An operation is 5 bytes on the wire at least, and 80 in a list that
/// doubles; the keys of an `MSET` are 5, and 64.
const OPS_BYTES_PER_BYTE: usize = 64;

fn programs() -> Vec<Program> {
    let key = |name: &str| partition_key(name.as_bytes());
    let value = || Blob::from("value");
    let set = |condition, expiry, reply| Op::Set {
        key: key("k"),
        value: value(),
        condition,
        expiry,
        reply,
    };
    let ops = vec![
        Op::Get { key: key("k") },
        set(Condition::Always, Expiry::Never, SetReply::Ok),
        set(Condition::IfExists, Expiry::AfterMillis(7), SetReply::Previous),
        set(Condition::IfMissing, Expiry::AtMillis(i64::MAX), SetReply::Flag),
        Op::GetDel { key: key("k") },
        Op::MGet { keys: Seq(vec![key("a"), key("{a}b")]) },
        Op::MSet { pairs: Seq(vec![(key("a"), value())]), if_missing: true },
        Op::Del { keys: Seq(vec![key("a")]) },
        Op::Exists { keys: Seq(vec![key("a"), key("a")]) },
        Op::IncrBy { key: key("n"), by: i64::MIN },
        Op::Append { key: key("k"), value: value(), value_bytes_max: 8 },
        Op::StrLen { key: key("k") },
        Op::Type { key: key("k") },
        Op::DbSize,
        Op::Keys { pattern: "*[a-k]".into() },
        Op::FlushAll,
        Op::Ttl { key: key("k"), unit: TimeUnit::Seconds, absolute: false },
        Op::Expire {
            key: key("k"),
            expiry: Expiry::AtMillis(3),
            condition: ExpireCondition::IfLater,
        },
        Op::Persist { key: key("k") },
    ];
    let watch = Watch { key: key("k"), version: 3, present: true };
    let mut programs: Vec<Program> = ops.iter().cloned().map(Program::single).collect();
    programs.push(Program::versions_of(vec![key("k"), key("a")]));
    programs.push(Program { watches: Seq(vec![watch]), ops: Seq(ops), versions: Seq::new() });
    programs
}

#[test]
fn any_bytes_are_a_program_or_none() {
    quorate_testkit::fuzz!(
        Corpus::of(programs().iter().map(|p| p.encode()[1..].to_vec())),
        |input| {
            if let Some(program) = value::<Program>(OPS_BYTES_PER_BYTE, input) {
                let args = program.encode();
                assert_eq!(Program::decode(&args).unwrap(), program);
            }
            let _ =
                fuzz::frugal_by(OPS_BYTES_PER_BYTE, input.len(), || Program::decode(input).is_ok());
        }
    );
}

#[test]
fn any_bytes_are_a_verdict_or_none() {
    let versions = vec![KeyVersion { version: 300, present: true }; 3];
    let replies = vec![Reply::ok(), Reply::array([Reply::Null, Reply::bulk("x")])];
    let digest = Digest {
        count: 3,
        matches: Seq(vec![Matches { keys: Seq(vec!["a".into()]), truncated: true }]),
    };
    let corpus = [
        Verdict::Replies(Seq(replies)).encode()[1..].to_vec(),
        Verdict::Versions(Seq(versions)).encode()[1..].to_vec(),
        Verdict::Changed.encode()[1..].to_vec(),
        digest.encode().to_vec(),
    ];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        if let Some(verdict) = value::<Verdict>(OPS_BYTES_PER_BYTE, input) {
            assert_eq!(Verdict::decode(&verdict.encode()).unwrap(), verdict);
        }
        value::<Digest>(OPS_BYTES_PER_BYTE, input);
        let _ = fuzz::frugal_by(OPS_BYTES_PER_BYTE, input.len(), || Verdict::decode(input).is_ok());
        let _ = fuzz::frugal_by(OPS_BYTES_PER_BYTE, input.len(), || Digest::decode(input));
    });
}

/// What the shards may have read for a call.
fn inputs(call: &Call, choices: &mut Choices<'_>) -> Inputs {
    let mut inputs = Inputs::default();
    for key in &call.footprint.reads {
        let value = match choices.below(4) {
            0 => None,
            1 => Some(Blob::from("9223372036854775807")),
            2 => Some(Blob::from("-5")),
            _ => Some(Blob::from(choices.bytes(8))),
        };
        let expires_millis = choices.flag().then(|| choices.edge());
        let version = choices.edge();
        let read = Read { key: key.clone(), version, value, expires_millis };
        inputs.reads.insert(key.clone(), read);
    }
    for range in &call.footprint.ranges {
        let scan = if choices.flag() {
            let mut rows = inputs
                .reads
                .clone()
                .into_iter()
                .map(|(key, read)| (key, read.value.unwrap_or_default()));
            RedisProcedures.scan(call, &range.range, &mut rows)
        } else {
            choices.bytes(12).into()
        };
        inputs.scans.push(scan);
    }
    inputs
}

#[test]
fn any_program_stays_within_its_footprint_and_decides_alike() {
    let bodies =
        programs().iter().map(|program| program.encode()[1..].to_vec()).collect::<Vec<_>>();
    quorate_testkit::fuzz!(Corpus::of(bodies), |input| {
        let args = Blob::from([&[1], input].concat());
        let footprint = Program::decode(&args).map(|program| program.footprint());
        let footprint = footprint.unwrap_or_default();
        let call = Call { procedure: REDIS_PROCEDURE, args, footprint };
        // The choices come from the same bytes: other programs, other inputs.
        let mut choices = Choices::new(input);
        let inputs = inputs(&call, &mut choices);
        let time_millis = choices.edge();
        let outcome = RedisProcedures.run(&call, &inputs, time_millis, 0);
        assert_eq!(outcome, RedisProcedures.run(&call, &inputs, time_millis, 1));
        assert!(Verdict::decode(&outcome.result).is_ok());
        let clears = call.footprint.ranges.iter().any(|range| range.access == Access::Write);
        assert!(outcome.clears.is_empty() || clears);
        for write in &outcome.writes {
            assert!(call.footprint.writes.contains(&write.key) || clears, "{write:?}");
        }
    });
}
