//! The whole life, and which of its points are run.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::chapter::Chapter;
use super::point::{Morning, Played, Point, PointReport};
use crate::sim::options::Log;

/// A part of a sweep: shares of one sweep run every point together, and each
/// point once. Neighbouring points are in different shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u64,
    count: u64,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Share `index`, counted from zero, of `count`, if there is one.
    #[must_use]
    pub const fn new(index: u64, count: u64) -> Option<Self> {
        if index < count { Some(Self { index, count }) } else { None }
    }

    /// Whether a point belongs to it.
    #[must_use]
    pub const fn has(self, point: u64) -> bool {
        point % self.count == self.index
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let share =
            parts.and_then(|(index, count)| Self::new(index.parse().ok()?, count.parse().ok()?));
        share.ok_or_else(|| format!("a share is INDEX/COUNT, counted from 0, not '{text}'"))
    }
}

/// A life that was lived once without a death: where each chapter begins, and
/// how much node 1's disk has to do in it.
pub struct Life {
    log: Log,
    mornings: BTreeMap<Chapter, Morning>,
    healthy: BTreeMap<Chapter, PointReport>,
}

impl Life {
    /// Lives it, up to the end of a chapter, with logs of a kind.
    ///
    /// # Errors
    /// What is wrong without any death.
    pub fn until(last: Chapter, log: Log) -> Result<Self, String> {
        let mut life = Self { log, mornings: BTreeMap::new(), healthy: BTreeMap::new() };
        let mut morning = Morning::default();
        for chapter in Chapter::ALL.into_iter().filter(|chapter| *chapter <= last) {
            life.mornings.insert(chapter, morning.clone());
            let Played { report, trace, evening } = Point::healthy(chapter).play(log, &morning);
            let next = evening.filter(|_| report.findings.is_empty());
            let Some(next) = next else {
                let lines = trace.map(|trace| trace.lines()).unwrap_or_default();
                let end = lines[lines.len().saturating_sub(40)..].join("\n");
                return Err(format!("{end}\nchapter {chapter} fails: {:?}", report.findings));
            };
            life.healthy.insert(chapter, report);
            morning = next;
        }
        Ok(life)
    }

    /// The chapters as they were lived without a death.
    pub fn chapters(&self) -> impl Iterator<Item = &PointReport> {
        self.healthy.values()
    }

    /// Operations of node 1's disk in a chapter: the points at which it dies.
    #[must_use]
    pub fn operations(&self, chapter: Chapter) -> u64 {
        self.healthy.get(&chapter).map_or(0, |report| report.operations)
    }

    /// Runs a point. Returns its trace as well.
    ///
    /// # Panics
    /// When its chapter was not lived.
    #[must_use]
    pub fn run(&self, point: &Point) -> (PointReport, Vec<String>) {
        let morning = self.mornings.get(&point.chapter).expect("a chapter that was lived");
        let played = point.play(self.log, morning);
        (played.report, played.trace.map(|trace| trace.lines()).unwrap_or_default())
    }
}
