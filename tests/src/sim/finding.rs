//! What a run found wrong.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// So many are kept: the first says what happened, the rest follows from it.
const FINDINGS_MAX: usize = 20;

/// What the names of the invariants stand for that are checked at every step
/// of a watched run.
pub(super) const INVARIANTS: [(&str, &str); 20] = [
    ("R1", "one leader per term"),
    ("R2", "one entry per term and index"),
    ("R3", "a leader has all that is committed"),
    ("R4", "what is applied is durable on a majority"),
    ("R5", "what a log acknowledged is in it"),
    ("R6", "a vote is not forgotten"),
    ("R7", "what is purged is durable in the engine"),
    ("E1", "an engine applies each index once and keeps what is durable"),
    ("O1", "a shard's slices are those of the sequencer, in its order"),
    ("O2", "the state at an index is a function of the log"),
    ("O3", "locks are granted in order, and nobody waits for good"),
    ("O4", "watermarks are not ahead of the logs"),
    ("O5", "no answer before the logs have what it depends on"),
    ("O6", "a shard executes what is its own"),
    ("O7", "one shard executes a request"),
    ("O8", "outcomes are those of one thread in the order of the logs"),
    ("O9", "the order respects real time, and is what clients were told"),
    ("M1", "a replica lives in one place, once"),
    ("M2", "a move that ended leaves one home"),
    ("M3", "a node shows the migrations that were recorded"),
];

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule is broken; the same for every instance of it.
    pub rule: String,
    /// When it was noticed, in virtual time.
    pub at_millis: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at_millis, what } = self;
        match INVARIANTS.iter().find(|(id, _)| id == rule) {
            Some((_, meaning)) => write!(f, "{rule} ({meaning}) at {at_millis} ms: {what}"),
            None => write!(f, "{rule} at {at_millis} ms: {what}"),
        }
    }
}

/// The findings of one run. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<Vec<Finding>>>);

impl Findings {
    /// Adds one.
    pub fn add(&self, rule: &str, at_millis: u64, what: impl Into<String>) {
        let mut findings = self.0.lock();
        if findings.len() < FINDINGS_MAX {
            findings.push(Finding { rule: rule.to_owned(), at_millis, what: what.into() });
        }
    }

    /// Whether nothing was found so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// All of them, in the order in which they were found.
    #[must_use]
    pub fn all(&self) -> Vec<Finding> {
        self.0.lock().clone()
    }
}
