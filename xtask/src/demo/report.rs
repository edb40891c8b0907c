//! What the demo says at its end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::admin::MigrationView;
use super::checks::Agreed;
use super::range::Range;
use super::workload::{Journal, Kind, Write as Acknowledged};

/// Everything that was seen and measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// How long the clients ran.
    pub(super) load: Duration,
    /// What they lived through.
    pub(super) journals: Vec<Journal>,
    /// The node that joined.
    pub(super) join: Option<Join>,
    /// Leader transfers that took place: how long each took.
    pub(super) transfers: Vec<Duration>,
    /// The shard that was split.
    pub(super) split: Option<Split>,
    /// The node that was killed.
    pub(super) crash: Option<Crash>,
    /// All migrations that the cluster remembers.
    pub(super) migrations: Vec<MigrationView>,
    /// The sum of all accounts on each node.
    pub(super) totals: Vec<(u64, i64)>,
    /// Nodes that show every acknowledged write.
    pub(super) complete: Vec<u64>,
    /// The agreement of replicas.
    pub(super) agreed: Option<Agreed>,
    /// From the first process to the last check.
    pub(super) took: Duration,
    /// What is off.
    pub(super) problems: Vec<String>,
}

/// A node that joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    /// From its start until it serves.
    pub(super) serves: Duration,
    /// From its start until the first move of a replica to it was complete.
    pub(super) holds: Duration,
}

/// A shard that was split.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// The shard.
    pub(super) shard: u64,
    /// Until it was two.
    pub(super) took: Duration,
    /// What its keys were before, if that could be read.
    pub(super) range: Option<Range>,
    /// When nothing was done to the cluster yet.
    pub(super) calm_since: Instant,
    /// When the split was asked for.
    pub(super) asked: Instant,
    /// When something else was done to the cluster.
    pub(super) until: Instant,
}

/// A node that was killed and started again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    /// The node.
    pub(super) node: u64,
    /// Shards it led.
    pub(super) led: usize,
    /// From the kill until every other node saw it dead.
    pub(super) dead: Duration,
    /// From its start until it served.
    pub(super) serves: Duration,
    /// From its start until every other node saw it alive.
    pub(super) alive: Duration,
}

impl Report {
    /// Writes that were acknowledged, by all clients.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = &str> {
        self.writes().map(|write| write.key.as_str())
    }

    fn writes(&self) -> impl Iterator<Item = &Acknowledged> {
        self.journals.iter().flat_map(|journal| journal.acknowledged.iter())
    }

    /// The report as text. `blame` says when an interruption was, and what set
    /// it off.
    pub(super) fn render(&self, blame: impl Fn(Instant, Duration) -> String) -> String {
        let mut text = format!(
            "{:<12} {:>9} {:>8} {:>10} {:>10} {:>10} {:>10}\n",
            "", "count", "per s", "p50", "p99", "p99.9", "longest"
        );
        text.push_str(&self.render_kind("transfers", Kind::Transfer));
        text.push_str(&self.render_kind("writes", Kind::Write));
        for (name, value) in self.facts(blame) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<22} {value}");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "OFF: {problem}");
        }
        text.push_str(match self.problems.len() {
            0 => "everything holds\n",
            _ => "something is off\n",
        });
        text
    }

    fn render_kind(&self, name: &str, kind: Kind) -> String {
        let of_kind = self.journals.iter().filter(|journal| journal.kind == kind);
        let latencies = Latencies::new(of_kind.flat_map(|j| j.latencies_micros.iter().copied()));
        let count = latencies.sorted_micros.len();
        let per_second = count as f64 / self.load.as_secs_f64().max(f64::EPSILON);
        let [p50, p99, p999, longest] =
            [500, 990, 999, 1_000].map(|permille| show(latencies.percentile(permille)));
        format!(
            "{name:<12} {count:>9} {per_second:>8.0} {p50:>10} {p99:>10} {p999:>10} {longest:>10}\n"
        )
    }

    fn facts(&self, blame: impl Fn(Instant, Duration) -> String) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        let sum = |count: fn(&Journal) -> u64| self.journals.iter().map(count).sum::<u64>();
        let (conflicts, refused, unknown) =
            (sum(|j| j.conflicts), sum(|j| j.refused), sum(|j| j.unknown));
        facts.push((
            "begun again",
            format!("{conflicts} conflicts, {refused} refused, {unknown} connections lost"),
        ));
        let longest = self.journals.iter().map(|journal| journal.longest).max_by_key(|gap| gap.1);
        if let Some((since, duration)) = longest {
            let cause = blame(since, duration);
            facts.push(("longest interruption", format!("{}, {cause}", show(duration))));
        }
        if let Some(Join { serves, holds }) = self.join {
            let (serves, holds) = (show(serves), show(holds));
            let what = format!("serves after {serves}, holds a replica after {holds}");
            facts.push(("joined node", what));
        }
        for migration in &self.migrations {
            facts.push(("migration", show_migration(migration)));
        }
        if !self.transfers.is_empty() {
            let durations: Vec<String> = self.transfers.iter().copied().map(show).collect();
            facts.push(("leader transfers", durations.join(", ")));
        }
        if let Some(split) = &self.split {
            facts.push(("split", self.show_split(split)));
        }
        if let Some(Crash { node, led, dead, serves, alive }) = self.crash {
            let (dead, serves, alive) = (show(dead), show(serves), show(alive));
            let what = format!(
                "node {node}, leader of {led} shards: seen dead after {dead}; \
                 restarted, serves after {serves}, seen alive after {alive}"
            );
            facts.push(("killed node", what));
        }
        facts.extend(self.checks());
        facts.push(("all of it took", show(self.took)));
        facts
    }

    /// How long no write to the shard was acknowledged, seen from the clients,
    /// because no node can tell: a client that waits counts as well as a shard
    /// that stands still. The same without a split, for comparison.
    fn show_split(&self, split: &Split) -> String {
        let Split { shard, took, calm_since, asked, until, .. } = split;
        let took = format!("shard {shard}, two after {}", show(*took));
        let Some(range) = &split.range else { return format!("{took}; pause not measured") };
        let writes = self.writes().filter(|write| range.contains(&write.key));
        let mut times: Vec<Instant> = writes.map(|write| write.at).collect();
        times.sort_unstable();
        let [before, meanwhile] = [(calm_since, asked), (asked, until)]
            .map(|(from, until)| show(longest_gap(&times, *from, *until)));
        format!("{took}; longest gap of writes in it {meanwhile}, before that {before}")
    }

    fn checks(&self) -> Vec<(&'static str, String)> {
        let totals: Vec<String> =
            self.totals.iter().map(|(node, total)| format!("{total} on node {node}")).collect();
        let complete: Vec<String> = self.complete.iter().map(u64::to_string).collect();
        let acknowledged = self.acknowledged().count();
        // What was not seen is not told as if it had been.
        let or_unchecked = |found: Vec<String>| match found.is_empty() {
            true => "not checked".to_owned(),
            false => found.join(", "),
        };
        let mut checks = vec![
            ("sum of all accounts", or_unchecked(totals)),
            (
                "acknowledged writes",
                format!("{acknowledged}; nodes that show them all: {}", or_unchecked(complete)),
            ),
        ];
        if let Some(Agreed { shards, replicas }) = self.agreed {
            let what = format!("equal on {replicas} replicas of {shards} shards");
            checks.push(("state hashes", what));
        } else {
            checks.push(("state hashes", "not seen to agree".to_owned()));
        }
        checks
    }
}

fn show_migration(migration: &MigrationView) -> String {
    let node = |node: Option<u64>| node.map_or("?".to_owned(), |node| node.to_string());
    let way = match (migration.from, migration.to) {
        (None, None) => String::new(),
        (from, to) => format!(" from node {} to {}", node(from), node(to)),
    };
    let pause = match migration.write_pause_micros {
        Some(micros) => format!("write pause {}", show(Duration::from_micros(micros))),
        None => "write pause not measured by the node".to_owned(),
    };
    let MigrationView { kind, group, phase, .. } = migration;
    format!("{kind} of {group}{way}: {phase}, {pause}")
}

/// The longest time within a span in which nothing happened.
fn longest_gap(sorted: &[Instant], from: Instant, until: Instant) -> Duration {
    let within = sorted.iter().copied().filter(|at| (from..until).contains(at));
    let mut longest = Duration::ZERO;
    let last = within.fold(from, |last, at| {
        longest = longest.max(at - last);
        at
    });
    longest.max(until - last)
}

/// Durations in order.
#[derive(Debug)]
struct Latencies {
    sorted_micros: Vec<u64>,
}

impl Latencies {
    fn new(micros: impl Iterator<Item = u64>) -> Self {
        let mut sorted_micros: Vec<u64> = micros.collect();
        sorted_micros.sort_unstable();
        Self { sorted_micros }
    }

    /// The shortest duration that so many of a thousand do not exceed
    /// (nearest rank); zero when there are none.
    fn percentile(&self, permille: usize) -> Duration {
        let rank = (self.sorted_micros.len() * permille).div_ceil(1_000);
        let micros = self.sorted_micros.get(rank.saturating_sub(1)).copied();
        Duration::from_micros(micros.unwrap_or_default())
    }
}

/// A duration in the unit that reads best.
fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.001 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{:.0} us", seconds * 1e6)
    }
}

#[cfg(test)]
mod tests;
