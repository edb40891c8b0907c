//! What many runs say together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quorate_testkit::sim::SiteCounts;

use super::cluster::Struck;
use super::faults::Fault;
use super::finding::{Finding, INVARIANTS};
use super::places::missed;
use super::run::Run;

/// Many runs.
#[derive(Debug, Default)]
pub struct Report {
    /// Whether nobody expects these runs to reach what clusters do.
    is_of_registries: bool,
    runs: u64,
    counted: u64,
    all_virtual_millis: u64,
    all_completed: u64,
    // Of those that count.
    virtual_millis: Vec<u64>,
    wall_millis: u64,
    completed: Vec<u64>,
    strikes: Vec<u64>,
    committed: u64,
    judged: u64,
    undecided: u64,
    power_cuts: u64,
    writes_torn: u64,
    messages: u64,
    struck: BTreeMap<Fault, Struck>,
    checks: BTreeMap<String, u64>,
    sites: BTreeMap<String, SiteCounts>,
    violations: Vec<Violation>,
}

/// A run in which something was found.
#[derive(Debug)]
struct Violation {
    seed: u64,
    /// The command that runs it again.
    replay: String,
    findings: Vec<Finding>,
}

impl Report {
    /// A report of runs without a cluster.
    #[must_use]
    pub fn of_registries() -> Self {
        Self { is_of_registries: true, ..Self::default() }
    }

    /// Adds a run, with the command that runs it again.
    pub fn add(&mut self, run: Run, replay: String) {
        self.runs += 1;
        self.wall_millis += run.wall_millis;
        self.committed += run.committed;
        self.undecided += run.undecided;
        if run.undecided == 0 {
            self.judged += run.judged;
        }
        self.power_cuts += run.power_cuts;
        self.writes_torn += run.writes_torn;
        self.messages += run.messages;
        for (fault, struck) in &run.struck {
            let sum = self.struck.entry(*fault).or_default();
            sum.times += struck.times;
            sum.in_vain += struck.in_vain;
        }
        for (id, count) in &run.checks {
            *self.checks.entry(id.clone()).or_default() += count;
        }
        for (site, counts) in &run.sites {
            let sum = self.sites.entry(site.clone()).or_default();
            sum.reached += counts.reached;
            sum.fired += counts.fired;
        }
        self.all_virtual_millis += run.virtual_millis;
        self.all_completed += run.completed;
        if run.counts() {
            self.counted += 1;
            self.virtual_millis.push(run.virtual_millis);
            self.completed.push(run.completed);
            self.strikes.push(run.strikes());
        }
        if !run.findings.is_empty() {
            self.violations.push(Violation { seed: run.seed, replay, findings: run.findings });
        }
    }

    /// Notes that a run left nothing behind: its process died over it.
    pub fn add_lost(&mut self, seed: u64, replay: String, why: String) {
        self.runs += 1;
        let finding = Finding { rule: "a run ends".to_owned(), at_millis: 0, what: why };
        self.violations.push(Violation { seed, replay, findings: vec![finding] });
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many runs were long and busy enough to say something.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// How many runs there were.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many operations were judged, in runs of which nothing is undecided.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// How many histories no checker could decide about.
    #[must_use]
    pub fn undecided(&self) -> u64 {
        self.undecided
    }

    /// The invariants that no run has checked.
    #[must_use]
    pub fn unchecked(&self) -> Vec<&'static str> {
        let ids = INVARIANTS.into_iter().map(|(id, _)| id);
        ids.filter(|id| self.checks.get(*id).is_none_or(|count| *count == 0)).collect()
    }

    /// How often each place was reached, in all runs together.
    #[must_use]
    pub fn sites(&self) -> &BTreeMap<String, SiteCounts> {
        &self.sites
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let virtual_millis = self.all_virtual_millis;
        let hours = Duration::from_millis(virtual_millis).as_secs_f64() / 3600.0;
        let speed = virtual_millis as f64 / self.wall_millis.max(1) as f64;
        writeln!(f, "seeds            {} run, {} of them count", self.runs, self.counted)?;
        writeln!(f, "simulated        {hours:.2} h, {speed:.1} virtual seconds per second")?;
        writeln!(
            f,
            "medians          {:.1} s simulated, {} operations answered, {} faults",
            median(&self.virtual_millis) as f64 / 1000.0,
            median(&self.completed),
            median(&self.strikes)
        )?;
        let completed = self.all_completed;
        writeln!(
            f,
            "operations       {completed} answered, {} committed, {} judged",
            self.committed, self.judged
        )?;
        writeln!(f, "undecided        {} histories", self.undecided)?;
        writeln!(
            f,
            "disks            {} power cuts, {} writes torn by them",
            self.power_cuts, self.writes_torn
        )?;
        writeln!(f, "messages         {}", self.messages)?;
        writeln!(f, "faults           struck, found nobody")?;
        for (fault, struck) in &self.struck {
            writeln!(
                f,
                "  {:<21} {:>6} {:>6}",
                format!("{fault:?}"),
                struck.times,
                struck.in_vain
            )?;
        }
        write!(f, "checks          ")?;
        for (id, count) in &self.checks {
            write!(f, " {id} {count}")?;
        }
        writeln!(f)?;
        writeln!(f, "places           reached, made to stumble")?;
        for (site, counts) in &self.sites {
            writeln!(f, "  {site:<60} {:>9} {:>9}", counts.reached, counts.fired)?;
        }
        let demanded = if self.is_of_registries { Vec::new() } else { missed(&self.sites) };
        for place in demanded {
            writeln!(f, "  {place:<60}     never")?;
        }
        match self.violations.as_slice() {
            [] => writeln!(f, "violations       none"),
            violations => {
                writeln!(f, "violations       {} seeds", violations.len())?;
                for Violation { seed, replay, findings } in violations {
                    for finding in findings.iter().take(1) {
                        writeln!(f, "  seed {seed}: {finding}")?;
                    }
                    writeln!(f, "    replay: {replay}")?;
                }
                Ok(())
            }
        }
    }
}
