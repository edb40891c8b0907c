//! What came of a load, and what the checkers say to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_testkit::check::bank::Bank;
use quorate_testkit::check::list_append::Consistency;
use quorate_testkit::check::{
    Anomaly, AnomalyKind, Verdict, bank, durability, linearizable, list_append,
};
use quorate_testkit::history::{Datum, Key, MicroOp, Operation};

use super::{ACCOUNTS, BALANCE, Load, account_key, insist, number_of};
use crate::resp::{Failure, words};

/// How long the search for an order of the registers' operations may be.
const SEARCH_STEPS_MAX: u64 = 20 * linearizable::STEPS_MAX_DEFAULT;

/// What came of a load, to be judged.
#[derive(Debug)]
pub struct LoadReport {
    /// Operations that succeeded.
    pub done: u64,
    /// Transactions that gave way to another.
    pub conflicts: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// The longest time in which nothing succeeded, and when it began.
    pub longest_silence: (Duration, Duration),
    lists: Vec<Operation>,
    bank: Vec<Operation>,
    puts: Vec<Operation>,
    registers: Vec<Operation>,
    nonsense: Option<String>,
}

/// The judgement on replies that are none, whatever the work.
pub(crate) const REPLIES: &str = "replies: each answers what was asked";

/// What one checker says.
#[derive(Debug)]
pub struct Judgement {
    /// What was checked.
    pub what: &'static str,
    /// How many operations it looked at.
    pub operations: usize,
    /// What it found.
    pub verdict: Verdict,
}

impl LoadReport {
    pub(super) fn of(load: &Load) -> Self {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let silence = *load.silence.lock();
        Self {
            done: count(&load.done),
            conflicts: count(&load.conflicts),
            refused: count(&load.refused),
            unknown: count(&load.unknown),
            longest_silence: (silence.longest, silence.longest_began),
            lists: load.lists.history().operations().unwrap(),
            bank: load.bank.history().operations().unwrap(),
            puts: load.puts.history().operations().unwrap(),
            registers: load.registers.history().operations().unwrap(),
            nonsense: load.nonsense.lock().clone(),
        }
    }

    /// Judges everything the load did. `gateway` is asked for what was put.
    ///
    /// # Panics
    /// With the checkers' findings, or when hardly anything was done.
    #[track_caller]
    pub fn assert_correct(&self, gateway: SocketAddr) {
        println!(
            "the load: {} done, {} refused, {} of unknown outcome",
            self.done, self.refused, self.unknown
        );
        assert!(self.done > 0, "nothing succeeded");
        for Judgement { what, verdict, .. } in self.judge(gateway) {
            verdict.into_result().unwrap_or_else(|findings| panic!("{what}: {findings}"));
        }
    }

    /// Has every checker look at what the load did. `gateway` is asked for what
    /// was put.
    #[must_use]
    pub fn judge(&self, gateway: SocketAddr) -> Vec<Judgement> {
        let judgement = |what, operations: &[Operation], verdict: Verdict| Judgement {
            what,
            operations: operations.len(),
            verdict,
        };
        let mut judgements = vec![judgement(
            "lists: strictly serializable",
            &self.lists,
            list_append::check(&self.lists, Consistency::StrictSerializable),
        )];
        if !self.bank.is_empty() {
            let bank = Bank {
                accounts: (0..ACCOUNTS).map(|account| Key::from(account_key(account))).collect(),
                total: i64::try_from(ACCOUNTS).unwrap() * BALANCE,
                allows_negative: true,
                needs_final_read: true,
            };
            let verdict = bank::check(&self.bank, &bank);
            judgements.push(judgement("bank: no money comes or goes", &self.bank, verdict));
        }
        if !self.registers.is_empty() {
            let verdict = linearizable::check(&self.registers, &BTreeMap::new(), SEARCH_STEPS_MAX);
            judgements.push(judgement("registers: linearizable", &self.registers, verdict));
        }
        let mut nonsense = self.nonsense.clone();
        let last = self.read_puts(gateway).unwrap_or_else(|failure| {
            nonsense.get_or_insert(format!("{failure:?}"));
            BTreeMap::new()
        });
        let verdict = durability::check(&self.puts, &last, durability::Writes::Latest);
        judgements.push(judgement("puts: what was acknowledged is there", &self.puts, verdict));
        judgements.push(Judgement {
            what: REPLIES,
            operations: usize::try_from(self.done).unwrap(),
            verdict: nonsense.map_or(Verdict::Valid, |what| Verdict::Invalid(vec![nobodys(what)])),
        });
        judgements
    }

    /// What stands at the keys that were put.
    fn read_puts(&self, gateway: SocketAddr) -> Result<BTreeMap<Key, Datum>, Failure> {
        const KEYS_AT_ONCE: usize = 200;
        let keys: Vec<&Key> =
            self.puts.iter().flat_map(|put| put.txn.iter().flat_map(MicroOp::keys)).collect();
        let mut last = BTreeMap::new();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut command = words("MGET");
            command.extend(keys.iter().map(|key| key.as_str().to_owned()));
            let reply = insist(&[gateway], &command);
            for (key, value) in keys.iter().zip(reply.as_elements(keys.len())?) {
                last.insert((*key).clone(), number_of(value)?);
            }
        }
        Ok(last)
    }
}

/// What nobody can have written was read.
fn nobodys(explanation: String) -> Anomaly {
    Anomaly { kind: AnomalyKind::PhantomElement, explanation, operations: Vec::new() }
}
