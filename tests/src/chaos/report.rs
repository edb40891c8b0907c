//! What a run did, for people.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_testkit::check::Verdict;

use super::strikes::{Effect, Kind};
use crate::load::{Judgement, LoadReport};

/// Notes what is done, as it is done: on standard output and in a file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<File>,
    strikes: Mutex<BTreeMap<&'static str, Count>>,
}

/// Strikes of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    tried: u64,
    took_effect: u64,
}

impl Journal {
    pub(super) fn new(folder: &Path) -> std::io::Result<Self> {
        let file = Mutex::new(File::create(folder.join("strikes.txt"))?);
        Ok(Self { file, strikes: Mutex::default() })
    }

    /// A strike, from when to when it was felt, and what came of it.
    pub(super) fn note(
        &self,
        kind: &'static str,
        began: Duration,
        ended: Duration,
        what: &str,
        effect: &Effect,
    ) {
        let mut strikes = self.strikes.lock();
        let count = strikes.entry(kind).or_default();
        count.tried += 1;
        count.took_effect += u64::from(effect.is_ok());
        drop(strikes);
        let effect = match effect {
            Ok(evidence) => format!("took effect: {evidence}"),
            Err(why) => format!("NO EFFECT: {why}"),
        };
        let (began, ended) = (began.as_secs_f64(), ended.as_secs_f64());
        self.say(&format!("{began:7.1} to {ended:7.1} s  {kind}: {what}; {effect}"));
    }

    /// Anything else that is worth a line.
    pub(super) fn say(&self, line: &str) {
        println!("{line}");
        // A journal that cannot be written is no reason to stop.
        let _ = writeln!(self.file.lock(), "{line}");
    }

    /// Strikes that were tried, and that took effect.
    pub(super) fn totals(&self) -> (u64, u64) {
        let strikes = self.strikes.lock();
        let sum = |count: fn(&Count) -> u64| strikes.values().map(count).sum();
        (sum(|count| count.tried), sum(|count| count.took_effect))
    }

    /// Whether a kind took effect at all.
    pub(super) fn took_effect(&self, kind: Kind) -> bool {
        self.strikes.lock().get(kind.name()).is_some_and(|count| count.took_effect > 0)
    }

    /// How often each kind was tried, and took effect.
    fn table(&self) -> String {
        let strikes = self.strikes.lock();
        let mut table = format!("  {:<24} {:>7} {:>12}\n", "strikes", "tried", "took effect");
        for kind in Kind::ALL {
            let count = strikes.get(kind.name()).copied().unwrap_or_default();
            let Count { tried, took_effect } = count;
            table.push_str(&format!("  {:<24} {tried:>7} {took_effect:>12}\n", kind.name()));
        }
        table
    }
}

/// A check that is no checker's: what, and what was seen.
pub(super) type Check = (&'static str, String);

/// The whole run on a page.
pub(super) fn render(
    headline: &str,
    journal: &Journal,
    load: &LoadReport,
    judgements: &[Judgement],
    checks: &[Check],
) -> String {
    let LoadReport { done, conflicts, refused, unknown, .. } = load;
    let (longest, began) = load.longest_silence;
    let mut page = format!("\n{headline}\n\n{}\n", journal.table());
    page.push_str(&format!(
        "  operations: {done} done, {conflicts} gave way to others, {refused} refused, \
         {unknown} of unknown outcome\n  longest interruption: {:.1} s, from {:.1} s on\n\n",
        longest.as_secs_f64(),
        began.as_secs_f64()
    ));
    for Judgement { what, operations, verdict } in judgements {
        let outcome = match verdict {
            Verdict::Valid => "holds",
            Verdict::Invalid(_) => "VIOLATED",
            Verdict::Undecided(_) => "UNDECIDED",
        };
        page.push_str(&format!("  {what:<42} {outcome}, of {operations} operations\n"));
    }
    for (what, seen) in checks {
        page.push_str(&format!("  {what:<42} {seen}\n"));
    }
    page
}
