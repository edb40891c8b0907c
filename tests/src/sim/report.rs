//! What many runs say together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quorate_testkit::sim::SiteCounts;

use super::cluster::Struck;
use super::faults::Fault;
use super::finding::Finding;
use super::places::missed;
use super::run::Run;

/// Many runs.
#[derive(Debug, Default)]
pub struct Report {
    /// What replays a seed, if that is not the usual command.
    replay: Option<&'static str>,
    runs: u64,
    counted: u64,
    virtual_millis: Vec<u64>,
    wall_millis: u64,
    completed: Vec<u64>,
    strikes: Vec<u64>,
    committed: u64,
    judged: u64,
    power_cuts: u64,
    writes_torn: u64,
    messages: u64,
    struck: BTreeMap<Fault, Struck>,
    sites: BTreeMap<String, SiteCounts>,
    violations: Vec<(u64, Vec<Finding>)>,
}

impl Report {
    /// A report of runs that this command replays, followed by their seed.
    #[must_use]
    pub fn replayed_by(command: &'static str) -> Self {
        Self { replay: Some(command), ..Self::default() }
    }

    /// Adds a run.
    pub fn add(&mut self, run: Run) {
        self.runs += 1;
        self.wall_millis += run.wall_millis;
        self.committed += run.committed;
        self.judged += run.judged;
        self.power_cuts += run.power_cuts;
        self.writes_torn += run.writes_torn;
        self.messages += run.messages;
        for (fault, struck) in &run.struck {
            let sum = self.struck.entry(*fault).or_default();
            sum.times += struck.times;
            sum.in_vain += struck.in_vain;
        }
        for (site, counts) in &run.sites {
            let sum = self.sites.entry(site.clone()).or_default();
            sum.reached += counts.reached;
            sum.fired += counts.fired;
        }
        if run.counts() {
            self.counted += 1;
        }
        self.virtual_millis.push(run.virtual_millis);
        self.completed.push(run.completed);
        self.strikes.push(run.strikes());
        if !run.findings.is_empty() {
            self.violations.push((run.seed, run.findings));
        }
    }

    /// Notes that a run left nothing behind: its process died over it.
    pub fn add_lost(&mut self, seed: u64, why: String) {
        self.runs += 1;
        let finding = Finding { rule: "a run ends".to_owned(), at_millis: 0, what: why };
        self.violations.push((seed, vec![finding]));
    }

    /// The seeds in which something was found.
    #[must_use]
    pub fn violations(&self) -> &[(u64, Vec<Finding>)] {
        &self.violations
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
        let virtual_millis: u64 = self.virtual_millis.iter().sum();
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
        let completed: u64 = self.completed.iter().sum();
        writeln!(
            f,
            "operations       {completed} answered, {} committed, {} judged",
            self.committed, self.judged
        )?;
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
        writeln!(f, "places           reached, made to stumble")?;
        for (site, counts) in &self.sites {
            writeln!(f, "  {site:<60} {:>9} {:>9}", counts.reached, counts.fired)?;
        }
        let demanded = if self.replay.is_none() { missed(&self.sites) } else { Vec::new() };
        for place in demanded {
            writeln!(f, "  {place:<60}     never")?;
        }
        match self.violations.as_slice() {
            [] => writeln!(f, "violations       none"),
            violations => {
                writeln!(f, "violations       {} seeds", violations.len())?;
                for (seed, findings) in violations {
                    for finding in findings.iter().take(1) {
                        writeln!(f, "  seed {seed}: {finding}")?;
                    }
                    let replay = self.replay.unwrap_or("cargo xtask sim replay");
                    writeln!(f, "    replay: {replay} {seed}")?;
                }
                Ok(())
            }
        }
    }
}
