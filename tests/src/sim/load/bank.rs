//! Money that moves between accounts and is neither made nor lost.

use quorate::Transaction;
use quorate_testkit::check::bank::{self, Bank};
use quorate_testkit::history::{Key, MicroOp, Operation};

use super::Shared;
use super::client::{Client, End, count, if_committed, number};
use super::judging::tell;

/// On three shards, so that most pairs are on two.
pub(super) const ACCOUNTS: [&str; 6] =
    ["account-1", "ballast-2", "iceberg-3", "kettle-4", "quarry-5", "zebra-6"];
/// What an account begins with.
const BALANCE: i64 = 100;
/// Attempts to open the accounts, before anything strikes.
const OPENINGS: usize = 10;

impl Client {
    pub(super) async fn open_accounts(&mut self) {
        let mut opening = Transaction::new();
        for account in ACCOUNTS {
            opening = opening.put(account, BALANCE.to_string().as_str());
        }
        for _ in 0..OPENINGS {
            if matches!(self.execute(&opening).await, End::Answered(_)) {
                return;
            }
        }
        self.shared.cluster.find("a founded cluster answers", "the accounts cannot be opened");
    }

    pub(super) async fn audit(&mut self) -> bool {
        let shared = self.shared.clone();
        self.read_into(&shared.bank, "audit", &ACCOUNTS, number).await
    }

    pub(super) async fn transfer(&mut self, accounts: &[&'static str]) {
        let [from, to] = self.pair(accounts);
        let amount = 1 + i64::try_from(self.chance.below(20)).unwrap();
        let Some(before) = self.read(&[from, to]).await else { return };
        let (paying, paid) = (count(&before[0]) - amount, count(&before[1]) + amount);
        if paying < 0 {
            return;
        }
        let call = Transaction::new()
            .expect(from, before[0].clone())
            .expect(to, before[1].clone())
            .put(from, paying.to_string().as_str())
            .put(to, paid.to_string().as_str());
        let txn = vec![MicroOp::transfer(from, to, amount)];
        let invocation = self.invoke(&self.shared.bank, "transfer", txn.clone());
        self.write(invocation, &call, if_committed(txn)).await;
    }
}

pub(super) fn judge(shared: &Shared, operations: &[Operation]) {
    let accounts: Vec<Key> = ACCOUNTS.map(Key::from).to_vec();
    let total = BALANCE * i64::try_from(accounts.len()).unwrap();
    let rules = Bank { accounts, total, allows_negative: false, needs_final_read: true };
    let verdict = bank::check(operations, &rules);
    tell(&shared.cluster, "money is neither made nor lost", &verdict);
}
