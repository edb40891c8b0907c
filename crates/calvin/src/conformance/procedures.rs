//! What all [`Procedures`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where the procedures under test are wrong"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_types::{Blob, KeyRange};

use crate::procedure::{Access, Call, Inputs, Outcome, Procedures, Read};

/// Times and chances in the log, with which each call is run.
const MOMENTS: [(u64, u64); 4] =
    [(0, 0), (1_700_000_000_000, 7), (u64::MAX, u64::MAX), (86_400_000, 1 << 63)];

/// Runs the suite. `make` makes the procedures of one node, `calls` are as
/// many kinds of calls as there are, and `rows` the data that they meet.
///
/// Each call is run with the rows and without any, on several nodes, on
/// several threads, before and after all others: what comes of it must be the
/// same, and within the call's footprint.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use quorate_calvin::conformance::procedures_suite;
/// use quorate_calvin::kv::{KeyValue, Transaction};
///
/// let put = Transaction::new().put("a", "1").delete("b");
/// let swap = Transaction::new().get("a").expect("a", Some("0".into())).put("a", "1");
/// let rows = BTreeMap::from([("a".into(), "0".into())]);
/// procedures_suite(|| Arc::new(KeyValue), &[put.call(), swap.call()], &rows);
/// ```
///
/// # Panics
/// When the procedures do not conform.
pub fn procedures_suite(
    make: impl Fn() -> Arc<dyn Procedures>,
    calls: &[Call],
    rows: &BTreeMap<Blob, Blob>,
) {
    let empty = BTreeMap::new();
    for rows in [rows, &empty] {
        let (one, other) = (make(), make());
        let expected = all(&*one, calls.iter(), rows);
        for (outcomes, call) in expected.iter().zip(calls) {
            outcomes.iter().for_each(|outcome| keeps_to_its_footprint(call, outcome));
        }
        let again = all(&*one, calls.iter(), rows);
        same(&expected, &again, "run again on the same node");
        let mut backwards = all(&*other, calls.iter().rev(), rows);
        backwards.reverse();
        same(&expected, &backwards, "run on another node, after other calls");
        let elsewhere =
            std::thread::scope(|threads| threads.spawn(|| all(&*other, calls.iter(), rows)).join());
        match elsewhere {
            Ok(elsewhere) => same(&expected, &elsewhere, "run on another thread"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn same(one: &[Vec<Outcome>], other: &[Vec<Outcome>], how: &str) {
    for (call, (one, other)) in one.iter().zip(other).enumerate() {
        assert!(
            one == other,
            "`Procedures` must be deterministic; call {call}, {how}: {one:?} and {other:?}"
        );
    }
}

/// Each call at each moment.
fn all<'a>(
    procedures: &dyn Procedures,
    calls: impl Iterator<Item = &'a Call>,
    rows: &BTreeMap<Blob, Blob>,
) -> Vec<Vec<Outcome>> {
    let run = |call: &Call| {
        let inputs = inputs(procedures, call, rows);
        let run = |(time, seed)| {
            let running = AssertUnwindSafe(|| procedures.run(call, &inputs, time, seed));
            let outcome = catch_unwind(running);
            outcome.unwrap_or_else(|_| panic!("`Procedures` must be total, and {call:?} panicked"))
        };
        MOMENTS.map(run).to_vec()
    };
    calls.map(run).collect()
}

/// What a shard would hand to a call, if these were its rows.
fn inputs(procedures: &dyn Procedures, call: &Call, rows: &BTreeMap<Blob, Blob>) -> Inputs {
    let read = |key: &Blob| {
        let value = rows.get(key).cloned();
        let version = 1 + value.as_ref().map_or(0, |value| value.len() as u64);
        (key.clone(), Read { key: key.clone(), version, value, expires_millis: None })
    };
    let reads = call.footprint.reads.iter().map(read).collect();
    let ranges = call.footprint.ranges.iter().filter(|range| range.access == Access::Read);
    let scan = |range: &KeyRange| {
        let within = || rows.iter().filter(|(key, _)| range.contains(key));
        let mut twice = [(); 2].map(|()| {
            let mut rows = within().map(|(key, value)| (key.clone(), value.clone()));
            procedures.scan(call, range, &mut rows)
        });
        assert!(twice[0] == twice[1], "`Procedures::scan` must be deterministic: {range:?}");
        std::mem::take(&mut twice[0])
    };
    Inputs { reads, scans: ranges.map(|range| scan(&range.range)).collect() }
}

fn keeps_to_its_footprint(call: &Call, outcome: &Outcome) {
    let footprint = &call.footprint;
    let written = || {
        let ranges = footprint.ranges.iter().filter(|range| range.access == Access::Write);
        ranges.map(|range| &range.range)
    };
    for write in &outcome.writes {
        assert!(
            footprint.writes.contains(&write.key)
                || written().any(|range| range.contains(&write.key)),
            "`Write::key` must be in the footprint's writes or write ranges, and {:?} is not",
            write.key
        );
    }
    for clear in &outcome.clears {
        assert!(
            written().any(|range| range.covers(clear)),
            "`Outcome::clears` must be within the footprint's write ranges, and {clear:?} is not"
        );
    }
}
