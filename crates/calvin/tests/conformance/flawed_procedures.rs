//! The procedures of these tests with a flaw of one's choice.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_calvin::{Call, Inputs, Outcome, Procedures, Rows};
use quorate_types::{Blob, KeyRange};

use crate::support::procedures::Service;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProceduresFlaw {
    Counts,
    KnowsNode,
    KnowsThread,
    ScanCounts,
    ClearsBeyond,
}

pub struct FlawedProcedures {
    flaw: ProceduresFlaw,
    node: u64,
    runs: AtomicU64,
}

static NODES: AtomicU64 = AtomicU64::new(0);

impl FlawedProcedures {
    pub fn new(flaw: ProceduresFlaw) -> Self {
        let node = NODES.fetch_add(1, Ordering::Relaxed);
        Self { flaw, node, runs: AtomicU64::new(0) }
    }

    fn count(&self) -> Blob {
        Blob::from(self.runs.fetch_add(1, Ordering::Relaxed).to_string().as_str())
    }
}

impl Procedures for FlawedProcedures {
    fn scan(&self, call: &Call, range: &KeyRange, rows: &mut Rows<'_>) -> Blob {
        match self.flaw {
            ProceduresFlaw::ScanCounts => self.count(),
            _ => Service.scan(call, range, rows),
        }
    }

    fn run(&self, call: &Call, inputs: &Inputs, time_millis: u64, seed: u64) -> Outcome {
        let mut outcome = Service.run(call, inputs, time_millis, seed);
        match self.flaw {
            ProceduresFlaw::Counts => outcome.result = self.count(),
            ProceduresFlaw::KnowsNode => {
                outcome.result = Blob::from(self.node.to_string().as_str());
            }
            ProceduresFlaw::KnowsThread => {
                let thread = format!("{:?}", std::thread::current().id());
                outcome.result = Blob::from(thread.as_str());
            }
            ProceduresFlaw::ScanCounts => {}
            ProceduresFlaw::ClearsBeyond => {
                outcome.clears.iter_mut().for_each(|clear| clear.end = None);
            }
        }
        outcome
    }
}
