//! What a sweep did and found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::chapter::Chapter;
use super::point::PointReport;
use crate::sim::options::Log;

/// Many points.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    log: Log,
    chapters: BTreeMap<Chapter, Sum>,
    violations: Vec<PointReport>,
}

/// The points of a chapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    operations: u64,
    syncs: u64,
    points: u64,
    /// Points at which node 1 did not die.
    missed: u64,
    deaths: u64,
    unsynced: u64,
    torn: u64,
    acknowledged: u64,
    verified: u64,
    virtual_millis: u64,
}

impl SweepReport {
    /// Nothing so far, with logs of a kind.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log, ..Self::default() }
    }

    /// Notes how much there is to do in a chapter.
    pub fn expect(&mut self, healthy: &PointReport) {
        let sum = self.chapters.entry(healthy.chapter).or_default();
        (sum.operations, sum.syncs) = (healthy.operations, healthy.syncs);
    }

    /// Adds a point.
    pub fn add(&mut self, point: PointReport) {
        let sum = self.chapters.entry(point.chapter).or_default();
        sum.points += 1;
        sum.missed += u64::from(point.deaths == 0);
        sum.deaths += point.deaths;
        sum.unsynced += point.unsynced;
        sum.torn += point.torn;
        sum.acknowledged += point.acknowledged;
        sum.verified += point.verified;
        sum.virtual_millis += point.virtual_millis;
        if !point.findings.is_empty() {
            self.violations.push(point);
        }
    }

    /// Adds what another share of the same sweep did.
    pub fn merge(&mut self, other: Self) {
        for (chapter, part) in other.chapters {
            let sum = self.chapters.entry(chapter).or_default();
            (sum.operations, sum.syncs) = (part.operations, part.syncs);
            sum.points += part.points;
            sum.missed += part.missed;
            sum.deaths += part.deaths;
            sum.unsynced += part.unsynced;
            sum.torn += part.torn;
            sum.acknowledged += part.acknowledged;
            sum.verified += part.verified;
            sum.virtual_millis += part.virtual_millis;
        }
        self.violations.extend(other.violations);
    }

    /// The points at which something was found.
    #[must_use]
    pub fn violations(&self) -> &[PointReport] {
        &self.violations
    }

    /// Points that were run.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.chapters.values().map(|sum| sum.points).sum()
    }

    /// Points at which node 1 did not die although it should have.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.chapters.values().map(|sum| sum.missed).sum()
    }
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "chapter  I/Os  syncs  points  deaths  unsynced    torn   acknowledged   read back   simulated"
        )?;
        for (chapter, sum) in &self.chapters {
            writeln!(
                f,
                "{chapter:?}       {:>6} {:>6} {:>7} {:>7} {:>9} {:>7} {:>14} {:>11} {:>9.0} s",
                sum.operations,
                sum.syncs,
                sum.points,
                sum.deaths,
                sum.unsynced,
                sum.torn,
                sum.acknowledged,
                sum.verified,
                sum.virtual_millis as f64 / 1000.0,
            )?;
        }
        let total = |of: fn(&Sum) -> u64| self.chapters.values().map(of).sum::<u64>();
        writeln!(
            f,
            "{} I/Os, {} points run, {} deaths that struck, {} points without one",
            total(|sum| sum.operations),
            self.points(),
            total(|sum| sum.deaths),
            self.missed(),
        )?;
        writeln!(
            f,
            "{} operations acknowledged, {} values read back",
            total(|sum| sum.acknowledged),
            total(|sum| sum.verified)
        )?;
        for point in &self.violations {
            let at = point.at.map(|at| format!(" --at {at}")).unwrap_or_default();
            for finding in point.findings.iter().take(1) {
                writeln!(f, "VIOLATION {finding}")?;
            }
            writeln!(
                f,
                "    cargo xtask sim sweep --log {} --chapter {}{at}",
                self.log, point.chapter
            )?;
        }
        Ok(())
    }
}
