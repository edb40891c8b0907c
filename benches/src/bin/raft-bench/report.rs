//! The tables.

use std::fmt::{self, Write};
use std::path::Path;

use quorate_benches::{Machine, Spread, percentile};
use serde::Serialize;

use crate::Outcome;
use crate::bars::{self, Figure};
use crate::drive::{Measured, Shape};
use crate::run::{RAW, SEGMENTS};

/// The log that the others are compared with.
const OURS: &str = SEGMENTS;

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    pub(crate) tables: Vec<Table>,
    pub(crate) openings: Vec<Opening>,
}

/// How long one log took to open after a kill, in each round.
#[derive(Serialize)]
pub(crate) struct Opening {
    pub(crate) name: String,
    pub(crate) seconds: Vec<f64>,
}

impl Report {
    pub(crate) const fn new(machine: Machine) -> Self {
        Self { machine, tables: Vec::new(), openings: Vec::new() }
    }

    pub(crate) fn write(&self, file: Option<&Path>) -> Outcome {
        if let Some(file) = file {
            std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        }
        Ok(())
    }

    pub(crate) fn of_openings(&self, mib: u64) -> String {
        let mut table =
            format!("\n| opening {mib} MiB after a kill | seconds | bar |\n|---|---|---|\n");
        for Opening { name, seconds } in &self.openings {
            let seconds = Spread::of(seconds.iter().copied());
            let bar = bars::opening(mib).map(|bar| bar.judge(seconds)).unwrap_or_default();
            let _ = writeln!(table, "| {name} | {seconds:.2} | {bar} |");
        }
        table
    }
}

/// One way of appending.
#[derive(Serialize)]
pub(crate) struct Table {
    shape: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    rounds: Vec<Round>,
}

/// One turn of one log.
#[derive(Serialize)]
pub(crate) struct Round {
    per_second: f64,
    p50_micros: u64,
    p99_micros: u64,
    /// Bytes that reached the device for each byte of payload.
    amplification: Option<f64>,
}

impl Round {
    pub(crate) fn new(measured: Measured, amplification: Option<f64>) -> Self {
        let Measured { entries, seconds, mut micros } = measured;
        micros.sort_unstable();
        Self {
            per_second: entries as f64 / seconds,
            p50_micros: percentile(&micros, 50),
            p99_micros: percentile(&micros, 99),
            amplification,
        }
    }
}

impl Row {
    fn rates(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.per_second).collect()
    }

    fn amplification(&self) -> Spread {
        Spread::of(self.rounds.iter().filter_map(|round| round.amplification))
    }
}

impl Table {
    pub(crate) fn new<'a>(shape: Shape, names: impl Iterator<Item = &'a str>) -> Self {
        let row = |name: &str| Row { name: name.to_owned(), rounds: Vec::new() };
        Self { shape: shape.to_string(), rows: names.map(row).collect() }
    }

    /// Adds a turn of the log at a place.
    pub(crate) fn add(&mut self, at: usize, round: Round) {
        if let Some(row) = self.rows.get_mut(at) {
            row.rounds.push(round);
        }
    }

    fn rates(&self, name: &str) -> Vec<f64> {
        let row = self.rows.iter().find(|row| row.name == name);
        row.map(Row::rates).unwrap_or_default()
    }

    /// The bars of a log, and whether it meets them.
    fn verdicts(&self, row: &Row) -> String {
        let its = bars::APPENDING.iter().filter(|it| it.shape == self.shape && it.log == row.name);
        let verdicts = its.map(|it| {
            it.bar.judge(match it.figure {
                Figure::RateBeside(peer) => Spread::of_ratios(&row.rates(), &self.rates(peer)),
                Figure::Amplification => row.amplification(),
            })
        });
        verdicts.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| {} | entries/s | p50, p99 µs | bytes | of raw | {OURS} beside it | bar |",
            self.shape
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        let (raw, ours) = (self.rates(RAW), self.rates(OURS));
        for row in &self.rows {
            let of = |value: fn(&Round) -> f64| Spread::of(row.rounds.iter().map(value));
            let rates = row.rates();
            writeln!(
                f,
                "| {} | {} | {:.0}, {:.0} | {:.2} | {:.2} | {:.2} | {} |",
                row.name,
                of(|round| round.per_second),
                of(|round| round.p50_micros as f64).median,
                of(|round| round.p99_micros as f64).median,
                row.amplification().median,
                Spread::of_ratios(&rates, &raw),
                Spread::of_ratios(&ours, &rates),
                self.verdicts(row),
            )?;
        }
        Ok(())
    }
}
