//! What a run found wrong.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// So many are kept: the first says what happened, the rest follows from it.
const FINDINGS_MAX: usize = 20;

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
        write!(f, "{} at {} ms: {}", self.rule, self.at_millis, self.what)
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
