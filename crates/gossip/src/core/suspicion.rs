//! The time a suspected member has to refute, and how it shrinks as others
//! independently come to the same view (Lifeguard, section 4.2).

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_types::NodeId;

use crate::config::Config;
use crate::member::Status;

/// Confirmations after which suspicion is at its shortest.
const CONFIRMATIONS_MAX: usize = 3;

/// One member's suspicion.
#[derive(Debug)]
pub(crate) struct Suspicion {
    started: Duration,
    min: Duration,
    max: Duration,
    /// Confirmations that would bring it down to `min`.
    wanted: usize,
    /// Who accuses; the first one is no confirmation.
    accusers: BTreeSet<NodeId>,
    verdict: Status,
}

impl Suspicion {
    /// `active` counts the members that take part, this node included.
    pub(crate) fn new(
        config: &Config,
        active: usize,
        accuser: NodeId,
        verdict: Status,
        now: Duration,
    ) -> Self {
        // log10 of the cluster in thousandths; 301 is log10(2).
        let scale = active.checked_ilog2().unwrap_or(0).saturating_mul(301).max(1000);
        let scaled = |time: Duration| time.saturating_mul(scale) / 1000;
        Self {
            started: now,
            min: scaled(config.suspicion_min),
            max: scaled(config.suspicion_max),
            // Neither the accused nor the accuser can confirm.
            wanted: active.saturating_sub(2).min(CONFIRMATIONS_MAX),
            accusers: BTreeSet::from([accuser]),
            verdict,
        }
    }

    /// Counts an accuser and the verdict it proposes; says whether either is
    /// new. A goodbye outranks a death.
    pub(crate) fn confirm(&mut self, accuser: NodeId, verdict: Status) -> bool {
        let milder = verdict > self.verdict;
        self.verdict = self.verdict.max(verdict);
        let wanted = self.accusers.len() <= self.wanted;
        let confirmed = wanted && self.accusers.insert(accuser);
        milder || confirmed
    }

    /// When the member is given up.
    pub(crate) fn deadline(&self) -> Duration {
        let spread = self.max.saturating_sub(self.min);
        self.started + self.max.saturating_sub(spread.saturating_mul(self.certainty()) / 1000)
    }

    /// What it is given up as.
    pub(crate) const fn verdict(&self) -> Status {
        self.verdict
    }

    pub(crate) fn postpone(&mut self, by: Duration) {
        self.started += by;
    }

    /// `log(c + 1) / log(k + 1)` in thousandths for `c` of `k` confirmations,
    /// as a table: floating logarithms differ between machines.
    fn certainty(&self) -> u32 {
        let confirmations = self.accusers.len().saturating_sub(1);
        match (confirmations, self.wanted) {
            (c, k) if c >= k => 1000,
            (1, 2) => 631,
            (1, 3) => 500,
            (2, 3) => 792,
            _ => 0,
        }
    }
}
