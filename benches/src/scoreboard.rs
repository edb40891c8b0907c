//! Rates beside each other.
//!
//! criterion compares a bench with its own past. What a rate is worth shows
//! only beside what the machine allows, measured in the same run: the
//! scoreboard keeps what criterion measures and prints the ratios at the end.

use std::fmt;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

/// criterion as the benches use it: a few seconds for each. What the disk does
/// varies more between runs than longer ones would smooth.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// The rates of one group of benches.
#[derive(Debug)]
pub struct Scoreboard {
    /// What is counted, in the plural: `entries`, `bytes`.
    unit: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    /// The rows that this one is measured against.
    peers: Vec<String>,
    per_second: f64,
}

impl Scoreboard {
    /// An empty one.
    #[must_use]
    pub fn of(unit: &'static str) -> Self {
        Self { unit, rows: Vec::new() }
    }

    /// Benches `run`, which does so many iterations of `units` units each and
    /// returns how long they took. `peers` name the benches that set limits.
    pub fn bench(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        peers: &[&str],
        units: u64,
        mut run: impl FnMut(u64) -> Duration,
    ) {
        let mut rates = Vec::new();
        group.throughput(match self.unit {
            "bytes" => Throughput::Bytes(units),
            _ => Throughput::Elements(units),
        });
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let taken = run(iterations);
                rates.push((iterations * units) as f64 / taken.as_secs_f64().max(1e-9));
                taken
            });
        });
        // A filter on the command line may have left this one out.
        if let Some(per_second) = median(&mut rates) {
            let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
            self.rows.push(Row { name: name.to_owned(), peers, per_second });
        }
    }

    /// The peers of a row that were measured, and its rate in terms of theirs.
    fn ratios<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a str, f64)> {
        let measured = |peer: &String| self.rows.iter().find(|other| other.name == *peer);
        let peers = row.peers.iter().filter_map(measured);
        peers.map(|peer| (peer.name.as_str(), row.per_second / peer.per_second))
    }
}

impl fmt::Display for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &self.rows {
            write!(f, "  {:<width$}  {:>14.0} {}/s", row.name, row.per_second, self.unit)?;
            for (peer, ratio) in self.ratios(row) {
                write!(f, "   {ratio:.3} of '{peer}'")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn median(rates: &mut [f64]) -> Option<f64> {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

#[cfg(test)]
mod tests;
