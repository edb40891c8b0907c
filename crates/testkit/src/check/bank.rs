//! Money moves between accounts and is neither made nor lost.

use std::collections::BTreeMap;

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// A bank's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    /// Every account.
    pub accounts: Vec<Key>,
    /// What they hold together, always.
    pub total: i64,
    /// Whether an account may be overdrawn.
    pub allows_negative: bool,
    /// Whether the history must end with a read of all accounts that began
    /// after every transfer was over.
    pub needs_final_read: bool,
}

/// Checks every read of all accounts for the total, and every read for
/// overdrafts. Undecided when nothing read all accounts, or the final read is
/// missing.
#[must_use]
pub fn check(operations: &[Operation], bank: &Bank) -> Verdict {
    let mut findings = Findings::default();
    let mut last_complete: Option<&Operation> = None;
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        let balances = balances(operation);
        for account in &bank.accounts {
            let balance = balances.get(account).copied().unwrap_or(0);
            if balance < 0 && !bank.allows_negative {
                let what = format!("#{} saw {balance} in account {account}", operation.id);
                findings.add(AnomalyKind::NegativeBalance, what, [operation]);
            }
        }
        let all: Option<Vec<i64>> =
            bank.accounts.iter().map(|account| balances.get(account).copied()).collect();
        let Some(all) = all else { continue };
        let total: i128 = all.iter().copied().map(i128::from).sum();
        if total != i128::from(bank.total) {
            let what = format!("#{} saw {total} in all instead of {}", operation.id, bank.total);
            findings.add(AnomalyKind::WrongTotal, what, [operation]);
        }
        let is_later = |last: &Operation| operation.invoked.position > last.invoked.position;
        if last_complete.is_none_or(is_later) {
            last_complete = Some(operation);
        }
    }
    match (findings.verdict(), last_complete) {
        (Verdict::Valid, None) => Verdict::Undecided("nothing read all accounts".to_owned()),
        (Verdict::Valid, Some(last)) if bank.needs_final_read => {
            let is_over =
                |transfer: &Operation| transfer.completed.is_none() || transfer.precedes(last);
            let mut transfers = operations.iter().filter(|operation| {
                operation.txn.iter().any(|step| matches!(step, MicroOp::Transfer { .. }))
            });
            match transfers.find(|transfer| !is_over(transfer)) {
                None => Verdict::Valid,
                Some(late) => Verdict::Undecided(format!(
                    "no read of all accounts began after transfer #{} was over",
                    late.id
                )),
            }
        }
        (verdict, _) => verdict,
    }
}

/// What an operation read; the last of several reads of an account.
fn balances(operation: &Operation) -> BTreeMap<&Key, i64> {
    let reads = operation.txn.iter().filter_map(|step| match step {
        MicroOp::Read { key, seen: Some(Datum::Int(balance)) } => Some((key, *balance)),
        MicroOp::Read { key, seen: Some(Datum::Nil) } => Some((key, 0)),
        _ => None,
    });
    reads.collect()
}
