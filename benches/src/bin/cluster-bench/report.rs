//! The table, the ratios, the file.

use std::fmt::Write;
use std::path::Path;

use quorate_benches::{Machine, Measured, SyncRate, percentile};
use serde::Serialize;

use crate::Outcome;

/// The system whose figures all of this is about.
pub(crate) const OURS: &str = "quorate";

/// Processors that others may keep busy beside a measurement. The system's own
/// work for it is less.
const OTHER_CORES_MAX: f64 = 0.25;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) work: String,
    pub(crate) clients: u32,
    pub(crate) per_second: f64,
    pub(crate) p50_millis: f64,
    pub(crate) p95_millis: f64,
    pub(crate) p99_millis: f64,
    pub(crate) max_millis: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) cost: Cost,
}

/// What a line's operations cost the machine. `None` where the system does not
/// tell.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cost {
    /// Processors that the servers kept busy, all together.
    pub(crate) server_cores: Option<f64>,
    /// So for the clients.
    pub(crate) client_cores: Option<f64>,
    /// So for everyone else on the machine, the system's own work included.
    pub(crate) other_cores: Option<f64>,
    /// Flushes of the disk for each operation, those of others included.
    pub(crate) flushes: Option<f64>,
}

impl Row {
    /// A line from what was measured in so many seconds.
    pub(crate) fn new(
        system: &str,
        work: &str,
        clients: u32,
        seconds: f64,
        measured: Measured,
    ) -> Self {
        let Measured { micros, errors, first_error } = measured;
        let millis = |percent| percentile(&micros, percent) as f64 / 1e3;
        Self {
            system: system.to_owned(),
            work: work.to_owned(),
            clients,
            per_second: micros.len() as f64 / seconds,
            p50_millis: millis(50),
            p95_millis: millis(95),
            p99_millis: millis(99),
            max_millis: millis(100),
            errors,
            first_error,
            cost: Cost::default(),
        }
    }

    /// Whether others took so much of the machine that the line says more
    /// about them.
    fn is_disturbed(&self) -> bool {
        self.cost.other_cores.is_some_and(|cores| cores > OTHER_CORES_MAX)
    }
}

/// How fast the disk syncs while nobody else writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    /// One file.
    pub(crate) one: SyncRate,
    /// A file for each node.
    pub(crate) each: SyncRate,
}

/// Everything measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) nodes: u64,
    pub(crate) shards: usize,
    pub(crate) seconds: u64,
    /// Processors that the cluster kept busy before anyone asked anything.
    pub(crate) idle_cores: Option<f64>,
    /// Before the cluster was started and after it had ended.
    pub(crate) limits: Vec<Limits>,
    pub(crate) rows: Vec<Row>,
    /// Other systems, and why they are not in the table.
    pub(crate) absent: Vec<String>,
}

impl Report {
    /// Everything for a person.
    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "{}\n{} durable nodes on loopback, {} shards; {} s for each line; the clients share \
             the processors\n\n",
            self.machine.describe(),
            self.nodes,
            self.shards,
            self.seconds
        );
        text.push_str(&table(&self.rows));
        if let Some(cores) = self.idle_cores {
            let _ = writeln!(text, "idle, the nodes kept {cores:.2} cores busy");
        }
        let disturbed = self.rows.iter().filter(|row| row.is_disturbed()).count();
        if disturbed > 0 {
            let _ = writeln!(
                text,
                "NOT A QUIET MACHINE: in {disturbed} of {} lines others kept more than \
                 {OTHER_CORES_MAX} cores busy; neither rates nor ratios mean much",
                self.rows.len()
            );
        }
        self.write_limits(&mut text);
        self.write_ratios(&mut text);
        for absent in &self.absent {
            let _ = writeln!(text, "{absent}");
        }
        text
    }

    fn write_limits(&self, text: &mut String) {
        text.push_str("\nthe disk, 4 KiB appended and fdatasync:\n");
        for limits in &self.limits {
            for SyncRate { files, per_second, p50_micros, p99_micros } in [limits.one, limits.each]
            {
                let _ = writeln!(
                    text,
                    "  {files} growing file(s): {per_second:.0}/s, p50 {p50_micros} us, p99 {p99_micros} us",
                );
            }
        }
    }

    /// The mean of the rates before and after: disks have moods.
    fn sync_rate(&self) -> f64 {
        let sum: f64 = self.limits.iter().map(|limits| limits.one.per_second).sum();
        sum / self.limits.len().max(1) as f64
    }

    fn write_ratios(&self, text: &mut String) {
        let rate = self.sync_rate();
        let _ = writeln!(text, "\nratios (the disk: {rate:.0} fdatasync/s, mean of the runs):");
        for row in self.rows.iter().filter(|row| row.system == OURS) {
            let mut ratios = Vec::new();
            if row.work == "set" {
                ratios.push(format!("{:.2} of the disk's fdatasync/s", row.per_second / rate));
            }
            let same = |peer: &&Row| {
                peer.system != OURS && peer.work == row.work && peer.clients == row.clients
            };
            for peer in self.rows.iter().filter(same) {
                let ratio = row.per_second / peer.per_second;
                let p99 = row.p99_millis / peer.p99_millis;
                ratios.push(format!("{ratio:.2} of {} with {p99:.2} of its p99", peer.system));
            }
            if !ratios.is_empty() {
                let name = format!("{} x {}", row.work, row.clients);
                let _ = writeln!(text, "  {name:<16} {}", ratios.join(", "));
            }
        }
    }

    /// Everything for a program.
    pub(crate) fn write_json(&self, file: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(self)?;
        let written = std::fs::write(file, text + "\n");
        Ok(written.map_err(|error| format!("cannot write {}: {error}", file.display()))?)
    }
}

/// The heading of the table.
fn heading() -> String {
    let [server, client, other, flushes] = ["srv cores", "cli cores", "oth cores", "flush/op"];
    format!(
        "{:<13} {:<9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {server:>10} {client:>10} {other:>10} {flushes:>9}\n",
        "system", "work", "clients", "ops/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors"
    )
}

/// One line of the table.
pub(crate) fn line(row: &Row) -> String {
    let cost = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:<13} {:<9} {:>7} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>10} {:>10} {:>10} {:>9}\n",
        row.system,
        row.work,
        row.clients,
        row.per_second,
        row.p50_millis,
        row.p95_millis,
        row.p99_millis,
        row.max_millis,
        row.errors,
        cost(row.cost.server_cores),
        cost(row.cost.client_cores),
        cost(row.cost.other_cores),
        cost(row.cost.flushes),
    )
}

fn table(rows: &[Row]) -> String {
    let mut text = heading();
    text.extend(rows.iter().map(line));
    for row in rows {
        if let Some(error) = &row.first_error {
            let _ = writeln!(
                text,
                "first error of {} {} x {}: {error}",
                row.system, row.work, row.clients
            );
        }
    }
    text
}

#[cfg(test)]
mod tests;
