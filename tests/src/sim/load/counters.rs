//! Counters on both sides of each cut: an increment reads them, and writes
//! them if they are unchanged. Each takes effect once, however often it is
//! asked for, and whatever is split meanwhile.

use std::collections::BTreeMap;

use quorate::types::RequestId;
use quorate::{Answer, Transaction};
use quorate_testkit::check::{exactly_once, internal, long_fork, monotonic};
use quorate_testkit::history::{Datum, Key, MicroOp, Operation};

use super::Recorded;
use super::client::{Client, End, count, number};
use super::judging::{Judgement, tell};

/// Pairs of neighbours that a cut comes between.
const PAIRS: [[&str; 2]; 5] =
    [["axle", "bolt"], ["gyro", "hall"], ["jump", "kale"], ["oval", "pear"], ["xenon", "yarn"]];

impl Client {
    /// Adds one to a counter or to both of a pair, or reads some.
    pub(super) async fn use_counters(&mut self) {
        let hot = self.shared.cluster.options.load.hot_keys.clamp(2, PAIRS.len());
        let [pair, other] = self.pair(&PAIRS[..hot]);
        if self.chance.one_in(4) {
            self.read_counters(&[pair, other].concat()).await;
            return;
        }
        let is_both = !self.chance.one_in(3);
        let one = self.chance.pick(&pair);
        if is_both { self.increment(&pair).await } else { self.increment(&[one]).await }
    }

    async fn read_counters(&mut self, counters: &[&str]) -> bool {
        let shared = self.shared.clone();
        self.read_into(&shared.counters, "read", counters, number).await
    }

    async fn increment(&mut self, counters: &[&str]) {
        let Some(before) = self.read(counters).await else { return };
        let name = format!("increment-{}", self.element());
        let (mut call, mut adds) = (Transaction::new(), Vec::new());
        for (key, value) in counters.iter().zip(&before) {
            let more = (count(value) + 1).to_string();
            call = call.expect(*key, value.clone()).get(*key).put(*key, more.as_str());
            adds.push(MicroOp::add_once(*key, 1, name.as_str()));
        }
        let invocation = self.invoke(&self.shared.counters, "increment", adds.clone());
        // One that a client gives its id may have been asked for before, and
        // goes another way than one that is new.
        let request = if self.chance.one_in(2) { self.reserve() } else { None };
        let end = self.execute_as(request, &call).await;
        if let End::Answered(answer) = &end
            && answer.committed != (answer.values.0 == before)
        {
            let what = format!("{call:?} found {before:?}, and is told {answer:?}");
            self.shared.cluster.find("what is conditional is so", what);
        }
        // What a condition found is a read, whether it held or not, and is
        // told as one: an absent counter that nobody ever added to is nothing.
        let shows = |answer: &Answer| {
            let values = counters.iter().zip(answer.values.iter());
            let seen = values.map(|(key, value)| MicroOp::saw(*key, number(value)));
            let adds = adds.into_iter().filter(|_| answer.committed);
            Some(seen.chain(adds).collect())
        };
        let answer = self.end_write(invocation, end, shows);
        if let (Some(request), Some(answer)) = (request, answer)
            && self.chance.one_in(3)
        {
            self.ask_again(request, &call, &answer).await;
        }
    }

    /// Whoever asks again is told the same.
    async fn ask_again(&mut self, request: RequestId, call: &Transaction, first: &Answer) {
        let again = self.repeat(request, call).await;
        if let Some(again) = again.filter(|again| again != first) {
            let what = format!("{request} was told {first:?}, and then {again:?}");
            self.shared.cluster.find("a request that comes again is told the same", what);
        }
    }

    /// No increment was lost or made twice, as one node has it.
    pub(super) async fn judge_counters(&mut self) {
        let counters = PAIRS.concat();
        if !self.read_counters(&counters).await {
            self.has_no_answer();
            return;
        }
        let operations = self.shared.counters.operations();
        let last = operations.last().map(final_values).unwrap_or_default();
        let verdict = exactly_once::check(&operations, &last);
        tell(&self.shared.cluster, "an increment takes effect once", &verdict);
    }
}

/// What a read of them saw.
fn final_values(read: &Operation) -> BTreeMap<Key, i64> {
    let mut values = BTreeMap::new();
    for step in &read.txn {
        if let MicroOp::Read { key, seen: Some(Datum::Int(value)) } = step {
            values.insert(key.clone(), *value);
        }
    }
    values
}

pub(super) fn judge(operations: &[Operation]) -> Judgement {
    let counts = |_: &Key| true;
    vec![
        ("counters only rise", monotonic::check(operations, counts, monotonic::Scope::RealTime)),
        ("readers of counters agree", long_fork::check(operations, counts)),
        ("a transaction agrees with itself", internal::check(operations)),
    ]
}
