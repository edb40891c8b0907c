//! The tables.

use std::fmt::Write;
use std::path::Path;

use quorate_benches::{Machine, Spread, percentile};
use serde::Serialize;

use crate::options::Options;
use crate::{Outcome, bars};

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    pub(crate) idle: Vec<Idle>,
    pub(crate) connections: Option<Connections>,
    pub(crate) killed: Vec<Killed>,
    pub(crate) caught_up: Vec<CaughtUp>,
    pub(crate) clients: Option<Clients>,
}

/// Three processes whose groups nobody uses.
#[derive(Serialize)]
pub(crate) struct Idle {
    pub(crate) groups: u64,
    /// Whether they were kept from resting.
    pub(crate) awake: bool,
    pub(crate) rounds: Vec<Taken>,
}

/// What they took in one round.
#[derive(Serialize)]
pub(crate) struct Taken {
    /// Processor time of all together, in parts of one core's.
    pub(crate) of_a_core: Option<f64>,
    /// Memory of the one that holds the most.
    pub(crate) resident_bytes: Option<u64>,
}

impl Taken {
    fn megabytes(&self) -> Option<f64> {
        Some(self.resident_bytes? as f64 / 1e6)
    }
}

impl Idle {
    fn percent_of_a_core(&self) -> Spread {
        let parts = self.rounds.iter().filter_map(|taken| taken.of_a_core);
        Spread::of(parts.map(|part| part * 100.0))
    }

    fn megabytes(&self) -> Spread {
        Spread::of(self.rounds.iter().filter_map(Taken::megabytes))
    }

    /// How much more it is than that of others, of the same rounds.
    fn megabytes_beyond(&self, few: &Self) -> Spread {
        let pairs = self.rounds.iter().zip(&few.rounds);
        Spread::of(pairs.filter_map(|(many, few)| Some(many.megabytes()? - few.megabytes()?)))
    }

    /// Its bars beside few groups, and whether it meets them.
    fn verdicts(&self, few: &Self) -> String {
        if !bars::are_for_idle(self.groups, self.awake) {
            return String::new();
        }
        let cpu = bars::IDLE.judge(self.percent_of_a_core());
        let memory = bars::MEMORY.judge(self.megabytes_beyond(few));
        format!("{cpu}; {memory}")
    }
}

/// Connections of a mesh that are not used at the moment.
#[derive(Serialize)]
pub(crate) struct Connections {
    pub(crate) count: u64,
    /// Memory that each takes of the process at one of its ends.
    pub(crate) bytes_each_end: Option<u64>,
}

impl Connections {
    pub(crate) fn table(&self) -> String {
        let bytes = self.bytes_each_end.map(|bytes| format!("{:.1} KiB", bytes as f64 / 1024.0));
        format!(
            "\n| connections | memory of each, at one end |\n|---|---|\n| {} | {} |",
            self.count,
            bytes.unwrap_or_else(|| "?".to_owned())
        )
    }
}

/// Groups whose leaders' process was killed.
#[derive(Serialize)]
pub(crate) struct Killed {
    pub(crate) led: u64,
    /// Commands per second of all groups before.
    pub(crate) per_second: f64,
    /// The most elections that one of them took.
    pub(crate) elections: u64,
    /// From the signal until each took a command again.
    pub(crate) millis: Vec<u64>,
}

impl Killed {
    fn seconds_until_all_serve(&self) -> f64 {
        self.millis.iter().max().map_or(0.0, |millis| *millis as f64 / 1e3)
    }
}

/// A follower that came back behind a purge.
#[derive(Serialize)]
pub(crate) struct CaughtUp {
    /// Commands per second of the leader while both followers were there, without
    /// one of them, and while that one caught up.
    pub(crate) all: f64,
    pub(crate) without: f64,
    pub(crate) meanwhile: f64,
    /// From when it was there until it was as close as the other one.
    pub(crate) seconds: f64,
    /// What it was sent, and in how many snapshots.
    pub(crate) bytes: u64,
    pub(crate) snapshots: u64,
}

/// Puts and reads of clients on connections, of a group and of etcd in turns.
#[derive(Serialize)]
pub(crate) struct Clients {
    /// The version of etcd, or why it is not there.
    pub(crate) etcd: Result<String, String>,
    pub(crate) works: Vec<Called>,
}

/// One kind of work with so many clients, round by round.
#[derive(Serialize)]
pub(crate) struct Called {
    pub(crate) work: &'static str,
    pub(crate) callers: u32,
    pub(crate) ours: Vec<Served>,
    pub(crate) etcd: Vec<Served>,
}

/// What three processes served.
#[derive(Serialize)]
pub(crate) struct Served {
    pub(crate) per_second: f64,
    pub(crate) p99_millis: f64,
    /// Processors that they kept busy.
    pub(crate) cores: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Called {
    /// A figure of ours beside etcd's of the same round.
    fn beside(&self, figure: fn(&Served) -> f64) -> Spread {
        let each = |served: &[Served]| -> Vec<f64> { served.iter().map(figure).collect() };
        Spread::of_ratios(&each(&self.ours), &each(&self.etcd))
    }

    /// Its bars, and whether ours meets them.
    fn verdicts(&self) -> String {
        let verdicts = bars::of_calls(self).map(|it| it.bar.judge(self.beside(it.figure)));
        verdicts.collect::<Vec<_>>().join("; ")
    }
}

impl Clients {
    pub(crate) fn table(&self) -> String {
        let mut table = match &self.etcd {
            Ok(version) => format!("\nbeside etcd {version}:\n"),
            Err(reason) => format!("\nwithout etcd: {reason}\n"),
        };
        let columns = "per second | p99 ms | cores of its processes";
        let _ = write!(
            table,
            "\n| work | clients | a group: {columns} | etcd: {columns} | a group beside etcd | its p99 | bar |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for called in &self.works {
            let Called { work, callers, ours, etcd } = called;
            let _ = write!(table, "| `{work}` | {callers} |");
            for served in [ours, etcd] {
                let rates = Spread::of(served.iter().map(|served| served.per_second));
                let p99 = Spread::of(served.iter().map(|served| served.p99_millis));
                let cores = Spread::of(served.iter().filter_map(|served| served.cores));
                let _ = write!(table, " {rates} | {p99:.2} | {:.2} |", cores.median);
            }
            let rates = called.beside(|served| served.per_second);
            let p99 = called.beside(|served| served.p99_millis);
            let _ = writeln!(table, " {rates:.2} | {p99:.2} | {} |", called.verdicts());
        }
        for (whose, served) in self.works.iter().flat_map(|called| {
            let ours = called.ours.iter().map(|served| ("the group", served));
            ours.chain(called.etcd.iter().map(|served| ("etcd", served)))
        }) {
            if let Some(error) = &served.first_error {
                let _ = writeln!(table, "{} requests to {whose} failed: {error}", served.errors);
            }
        }
        table
    }
}

impl Report {
    pub(crate) const fn new(machine: Machine) -> Self {
        Self {
            machine,
            idle: Vec::new(),
            connections: None,
            killed: Vec::new(),
            caught_up: Vec::new(),
            clients: None,
        }
    }

    pub(crate) fn write(&self, file: Option<&Path>) -> Outcome {
        if let Some(file) = file {
            std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        }
        Ok(())
    }

    pub(crate) fn of_idle(&self) -> String {
        let mut table = String::from(
            "\n| groups, three replicas each | all processes, % of one core | MB of one process | bar |\n\
             |---|---|---|---|\n",
        );
        let Some(few) = self.idle.first() else { return table };
        for idle in &self.idle {
            let kept = if idle.awake { ", kept awake" } else { "" };
            let _ = writeln!(
                table,
                "| {}{kept} | {:.1} | {:.0} | {} |",
                idle.groups,
                idle.percent_of_a_core(),
                idle.megabytes(),
                idle.verdicts(few),
            );
        }
        table
    }

    pub(crate) fn of_killed(&self, options: &Options) -> String {
        let mut table = String::from(
            "\n| groups led by the killed process | commands/s before | until half, all serve again | \
             elections at most |\n|---|---|---|---|\n",
        );
        for Killed { led, per_second, elections, millis } in &self.killed {
            let mut millis = millis.clone();
            millis.sort_unstable();
            let (half, all) = (percentile(&millis, 50), percentile(&millis, 100));
            let _ =
                writeln!(table, "| {led} | {per_second:.0} | {half} ms, {all} ms | {elections} |");
        }
        let seconds = Spread::of(self.killed.iter().map(Killed::seconds_until_all_serve));
        let _ = writeln!(table, "\nall serve again after {seconds:.2} s");
        if bars::are_for_killed(options) {
            let _ = writeln!(table, "bar: {}", bars::SERVING_AGAIN.judge(seconds));
            // That of elections is about every group of every round.
            let most = self.killed.iter().map(|killed| killed.elections as f64).reduce(f64::max);
            let most = Spread::of(most.into_iter());
            let _ = writeln!(table, "bar: {}", bars::ELECTIONS.judge(most));
        }
        table
    }

    pub(crate) fn of_caught_up(&self, options: &Options) -> String {
        let each = |of: fn(&CaughtUp) -> f64, digits| {
            let spread = Spread::of(self.caught_up.iter().map(of));
            format!("{spread:.digits$}")
        };
        let of_all_three = Spread::of(self.caught_up.iter().map(|it| it.meanwhile / it.all));
        let bar = if bars::is_for_catching_up(options) {
            bars::CATCHING_UP.judge(of_all_three)
        } else {
            String::new()
        };
        format!(
            "\nA follower behind a purge, a state of {} MiB; medians of {} rounds:\n\n\
             | | commands/s | of all three | of two | bar |\n|---|---|---|---|---|\n\
             | all three | {} | | | |\n\
             | one is killed | {} | {} | | |\n\
             | it catches up | {} | {of_all_three:.2} | {} | {bar} |\n\n\
             caught up after {} s, with {} MiB of {} snapshots\n",
            options.state_mib,
            self.caught_up.len(),
            each(|it| it.all, 0),
            each(|it| it.without, 0),
            each(|it| it.without / it.all, 2),
            each(|it| it.meanwhile, 0),
            each(|it| it.meanwhile / it.without, 2),
            each(|it| it.seconds, 1),
            each(|it| it.bytes as f64 / f64::from(1 << 20), 0),
            each(|it| it.snapshots as f64, 0),
        )
    }
}
