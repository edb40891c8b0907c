//! The volatile role of a shard's leader: exchanging inputs (rules 8 and 9).
//!
//! Everything here can be lost: a new leader starts empty, sees in its machine
//! what waits, and asks again. Messages may be lost, doubled or late.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::{Epoch, RequestId, ShardId, TxnId, buggify, sometimes};

use super::early::Early;
use super::gate::{contributors, foresee, has_writer};
use super::machine::ShardMachine;
use super::rows::{SequencedWork, Verdict};
use crate::command::{Contribution, ShardCommand, ShardContribution, TxnInputs};

/// How long to wait for a contribution before asking for it, and for logged
/// inputs before proposing them again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What the leader wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaderOutput {
    /// Hand a contribution to another shard's leader.
    Contribute {
        /// The shard that needs it.
        to: ShardId,
        /// For which transaction.
        txn: TxnId,
        /// What was read here.
        contribution: Contribution,
    },
    /// Ask another shard's leader for its contribution.
    Ask {
        /// The shard asked.
        to: ShardId,
        /// For which transaction.
        txn: TxnId,
    },
    /// Put this into the shard's log.
    Propose(ShardCommand),
    /// The decision of a transaction whose home is here is known.
    Answer {
        /// Whose.
        request: RequestId,
        /// The decision.
        verdict: Verdict,
        /// What the watermark must cover.
        position: Epoch,
    },
    /// What a transaction without writes read was dropped everywhere before it
    /// was collected here, its home: nobody will ever answer it.
    Gone {
        /// Whose.
        request: RequestId,
    },
}

#[derive(Clone, Debug)]
struct Collecting {
    work: SequencedWork,
    have: BTreeMap<ShardId, Contribution>,
    acted_at: Duration,
}

/// The leader's memory of one term.
#[derive(Clone, Debug, Default)]
pub struct ShardLeader {
    collecting: BTreeMap<TxnId, Collecting>,
    early: Early,
    outputs: Vec<LeaderOutput>,
}

impl ShardLeader {
    /// Takes over: everything that waits is collected for anew.
    #[must_use]
    pub fn new(machine: &ShardMachine, now: Duration) -> Self {
        let mut leader = Self::default();
        let waiting: Vec<_> =
            machine.awaiting_inputs().chain(machine.answerable()).cloned().collect();
        for work in waiting {
            leader.collect(machine, work, now);
        }
        leader.ask_for_missing(now, Duration::ZERO);
        leader
    }

    /// Transactions whose inputs or reads are collected.
    #[must_use]
    pub fn collecting_count(&self) -> usize {
        self.collecting.len()
    }

    /// A transaction was granted here: hand our contribution to those who need
    /// it, and collect the others' if we need them.
    pub fn granted(
        &mut self,
        machine: &ShardMachine,
        txn: TxnId,
        needed_by: &[ShardId],
        now: Duration,
    ) {
        for shard in needed_by {
            self.asked(machine, txn, *shard);
        }
        if let Some(work) = machine.sequenced(txn).or_else(|| machine.answers(txn)).cloned() {
            self.collect(machine, work, now);
        }
    }

    /// Another shard's leader asks for our contribution.
    pub fn asked(&mut self, machine: &ShardMachine, txn: TxnId, by: ShardId) {
        if let Some(contribution) = machine.contribution(txn).cloned() {
            self.outputs.push(LeaderOutput::Contribute { to: by, txn, contribution });
        }
    }

    /// A contribution arrived.
    pub fn contributed(
        &mut self,
        machine: &ShardMachine,
        txn: TxnId,
        from: ShardId,
        contribution: Contribution,
        now: Duration,
    ) {
        match self.collecting.get_mut(&txn) {
            // Whoever else sends one has no part in it.
            Some(collecting) if contributors(&collecting.work.txn).contains(&from) => {
                let was_complete = is_complete(collecting);
                collecting.have.entry(from).or_insert(contribution);
                if !was_complete {
                    self.act_if_complete(machine, txn, now);
                }
            }
            None if txn.epoch > machine.done() => {
                if buggify!("calvin drops an early contribution") {
                    return;
                }
                sometimes!("a contribution comes early");
                self.early.keep(txn, from, contribution);
            }
            Some(_) | None => {}
        }
    }

    /// A client waits for a transaction without writes whose home is here:
    /// answers it at once if everything has been collected.
    pub fn awaited(&mut self, machine: &ShardMachine, txn: TxnId, now: Duration) {
        if machine.answers(txn).is_some() {
            self.act_if_complete(machine, txn, now);
        }
    }

    /// Asks again, proposes again, and lets go of what is finished.
    pub fn tick(&mut self, machine: &ShardMachine, now: Duration) {
        let done = machine.floors().done;
        self.drop_finished(machine);
        self.early.drop_done(done);
        self.ask_for_missing(now, RETRY_AFTER);
        let stalled: Vec<TxnId> = self
            .collecting
            .iter()
            .filter(|(_, collecting)| {
                has_writer(&collecting.work.txn)
                    && now.saturating_sub(collecting.acted_at) >= RETRY_AFTER
            })
            .map(|(txn, _)| *txn)
            .collect();
        for txn in stalled {
            self.act_if_complete(machine, txn, now);
        }
    }

    /// Takes what the leader wants done.
    pub fn take_outputs(&mut self) -> Vec<LeaderOutput> {
        std::mem::take(&mut self.outputs)
    }

    fn collect(&mut self, machine: &ShardMachine, work: SequencedWork, now: Duration) {
        let txn = work.id();
        let mut have = BTreeMap::new();
        if let Some(own) = machine.contribution(txn) {
            have.insert(machine.shard(), own.clone());
        }
        for shard in contributors(&work.txn) {
            if let Some(early) = self.early.take(txn, shard) {
                have.insert(shard, early);
            }
        }
        self.collecting.insert(txn, Collecting { work, have, acted_at: now });
        self.act_if_complete(machine, txn, now);
    }

    /// With all inputs at hand, a shard that writes logs them, and the home
    /// already knows the answer: the outcome is a function of committed logs.
    fn act_if_complete(&mut self, machine: &ShardMachine, txn: TxnId, now: Duration) {
        let Some(collecting) = self.collecting.get_mut(&txn) else { return };
        if !is_complete(collecting) {
            return;
        }
        collecting.acted_at = now;
        let contributions = contributions(collecting);
        let work = &collecting.work;
        if work.txn.home == machine.shard() {
            sometimes!("a home answers ahead of its log", has_writer(&work.txn));
            self.outputs.push(LeaderOutput::Answer {
                request: work.txn.request,
                verdict: foresee(&*machine.procedures, work, &contributions),
                position: work.epoch,
            });
        }
        if has_writer(&work.txn) {
            let inputs = TxnInputs { txn, contributions: contributions.into() };
            self.outputs.push(LeaderOutput::Propose(ShardCommand::Inputs(inputs)));
        }
    }

    fn drop_finished(&mut self, machine: &ShardMachine) {
        let outputs = &mut self.outputs;
        self.collecting.retain(|txn, collecting| {
            let is_kept = machine.sequenced(*txn).is_some() || machine.answers(*txn).is_some();
            let sequenced = &collecting.work.txn;
            let is_read = sequenced.home == machine.shard() && !has_writer(sequenced);
            if !is_kept && is_read && !is_complete(collecting) {
                sometimes!("a read's contributions are gone");
                outputs.push(LeaderOutput::Gone { request: sequenced.request });
            }
            is_kept
        });
    }

    fn ask_for_missing(&mut self, now: Duration, after: Duration) {
        for (txn, collecting) in &mut self.collecting {
            if is_complete(collecting) || now.saturating_sub(collecting.acted_at) < after {
                continue;
            }
            collecting.acted_at = now;
            for shard in contributors(&collecting.work.txn) {
                if !collecting.have.contains_key(&shard) {
                    self.outputs.push(LeaderOutput::Ask { to: shard, txn: *txn });
                }
            }
        }
    }
}

fn is_complete(collecting: &Collecting) -> bool {
    contributors(&collecting.work.txn).iter().all(|shard| collecting.have.contains_key(shard))
}

fn contributions(collecting: &Collecting) -> Vec<ShardContribution> {
    let needed = contributors(&collecting.work.txn);
    collecting
        .have
        .iter()
        .filter(|(shard, _)| needed.contains(shard))
        .map(|(shard, contribution)| ShardContribution {
            shard: *shard,
            contribution: contribution.clone(),
        })
        .collect()
}
