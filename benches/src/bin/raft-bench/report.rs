//! The tables.

use std::fmt;
use std::path::Path;

use quorate_benches::{Machine, Spread, percentile};
use serde::Serialize;

use crate::Outcome;
use crate::drive::{Measured, Shape};
use crate::run::{RAW, SEGMENTS};

/// The log that the others are compared with.
const OURS: &str = SEGMENTS;

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    pub(crate) tables: Vec<Table>,
    /// Seconds that opening took.
    pub(crate) openings: Vec<(String, f64)>,
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
        row.map(|row| row.rounds.iter().map(|round| round.per_second).collect()).unwrap_or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| {} | entries/s | p50, p99 µs | bytes | of raw | {OURS} beside it |",
            self.shape
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        let (raw, ours) = (self.rates(RAW), self.rates(OURS));
        for row in &self.rows {
            let of = |value: fn(&Round) -> f64| Spread::of(row.rounds.iter().map(value));
            let rates = self.rates(&row.name);
            let written = Spread::of(row.rounds.iter().filter_map(|round| round.amplification));
            writeln!(
                f,
                "| {} | {} | {:.0}, {:.0} | {:.2} | {:.2} | {:.2} |",
                row.name,
                of(|round| round.per_second),
                of(|round| round.p50_micros as f64).median,
                of(|round| round.p99_micros as f64).median,
                written.median,
                Spread::of_ratios(&rates, &raw),
                Spread::of_ratios(&ours, &rates),
            )?;
        }
        Ok(())
    }
}
