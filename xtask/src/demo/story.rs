//! The demo from its first process to its report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{Admin, ShardView};
use super::checks;
use super::cluster::{Cluster, FOUNDERS, JOINER};
use super::progress::{Progress, wait_until};
use super::report::{Crash, Join, Report};
use super::workload::{BALANCE, Load, Plan, load_accounts};
use crate::{Outcome, artifacts};

/// What `demo` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the cluster running and say how to connect.
    #[arg(long)]
    keep: bool,
    /// The clients work at least this long; longer if what happens meanwhile
    /// takes longer.
    #[arg(long, value_name = "N", default_value_t = 25)]
    seconds: u64,
    /// Connections, half of them for transfers and half for plain writes.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=256))]
    connections: u16,
}

/// Accounts; one `MGET` reads them all.
const ACCOUNTS: u64 = 500;

/// Load before anything happens, for comparison, and between what happens.
const CALM: Duration = Duration::from_secs(2);

/// How long placement may take to fill a node that joined.
const MOVE_MAX: Duration = Duration::from_secs(40);
/// How long a change of leader, or a split, may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
/// How long to wait for what should take 5 s, so that the report can tell how
/// long it took.
const DETECT_MAX: Duration = Duration::from_secs(20);
/// Within this a small cluster sees a killed node dead, and a restarted one
/// alive.
const DETECT_PROMISE: Duration = Duration::from_secs(5);

/// Leaders to transfer.
const TRANSFERS: usize = 3;

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Outcome {
    let built = artifacts::build_server()?;
    let mut cluster = Cluster::create(built.server()?, args.keep)?;
    let progress = Arc::new(Progress::new());
    progress.say(&format!("data and logs are in {}", cluster.dir().display()));

    let mut demo = Demo { cluster: &mut cluster, progress, report: Report::default() };
    let outcome = demo.play(args);
    let Demo { progress, mut report, .. } = demo;
    if let Err(error) = outcome {
        report.problems.push(error.to_string());
    }
    let seconds = progress.elapsed().as_secs_f64();
    println!(
        "\n{}{seconds:.0} s in all",
        report.render(|from, duration| progress.within(from, duration))
    );
    let is_fine = report.problems.is_empty();
    if args.keep {
        print!("{}", cluster.leave_running());
    } else if is_fine {
        cluster.remove()?;
    } else {
        eprintln!("the nodes' logs are kept in {}", cluster.dir().display());
    }
    if is_fine { Ok(()) } else { Err("the demo found something off".into()) }
}

struct Demo<'a> {
    cluster: &'a mut Cluster,
    progress: Arc<Progress>,
    report: Report,
}

impl Demo<'_> {
    fn play(&mut self, args: &Args) -> Outcome {
        self.start_founders()?;
        let plan = Plan {
            accounts: ACCOUNTS,
            connections: usize::from(args.connections),
            gateways: FOUNDERS.map(|node| self.cluster.gateway(node)).to_vec(),
        };
        self.progress.begin(format!("{ACCOUNTS} accounts are loaded"));
        load_accounts(&plan)?;

        self.progress.begin(format!("{} clients begin", plan.connections));
        let load = Load::start(&plan, &self.progress)?;
        self.disturb();
        let left = Duration::from_secs(args.seconds).saturating_sub(load.elapsed());
        std::thread::sleep(left);
        (self.report.load, self.report.journals) = load.stop()?;
        self.progress.begin("clients have stopped");
        self.judge_clients();
        self.expect_all_run()?;
        self.check();
        self.expect_all_run()
    }

    fn start_founders(&mut self) -> Outcome {
        self.progress.begin(format!("{} nodes start", FOUNDERS.len()));
        for node in FOUNDERS {
            self.cluster.start(node)?;
        }
        for node in FOUNDERS {
            self.cluster.wait_ready(node)?;
        }
        Ok(())
    }

    /// Everything that happens under load. What does not come to pass is off,
    /// and the rest is tried all the same.
    fn disturb(&mut self) {
        for event in [Self::join, Self::transfer_leaders, Self::split, Self::crash] {
            std::thread::sleep(CALM);
            if let Err(error) = event(self) {
                self.off(error.to_string());
            }
        }
        std::thread::sleep(CALM);
    }

    /// No node has ended that nobody ended. What one that is gone cannot
    /// answer is not asked: its end is the finding.
    fn expect_all_run(&mut self) -> Outcome {
        match self.cluster.fallen().as_slice() {
            [] => Ok(()),
            fallen => Err(fallen.join("; ").into()),
        }
    }

    fn off(&mut self, problem: String) {
        self.progress.say(&format!("OFF: {problem}"));
        self.report.problems.push(problem);
    }

    /// A fourth node joins, and placement moves replicas to it.
    fn join(&mut self) -> Outcome {
        self.progress.begin(format!("node {JOINER} joins"));
        let start = Instant::now();
        self.cluster.start(JOINER)?;
        self.cluster.wait_ready(JOINER)?;
        let serves = start.elapsed();

        let admin = self.any_admin();
        wait_until(&format!("a replica moves to node {JOINER}"), MOVE_MAX, || {
            let moved = |shards: &[ShardView]| shards.iter().any(|s| s.has_voter_on(JOINER));
            Ok(expect(admin.shards(), moved, "no shard has a voter there"))
        })?;
        self.report.join = Some(Join { serves, votes: start.elapsed() });
        Ok(())
    }

    /// Several shards get another leader.
    fn transfer_leaders(&mut self) -> Outcome {
        self.progress.begin("leaders are transferred");
        let mut moved = Vec::new();
        for _ in 0..TRANSFERS {
            let admin = self.any_admin();
            let start = Instant::now();
            // Placement may be at work on the same shard, so another one is
            // taken when one is refused.
            let (shard, to) = wait_until("a leader transfer is accepted", CHANGE_MAX, || {
                let candidates = match admin.shards() {
                    Ok(shards) => transfers(&shards, &moved),
                    Err(error) => return Ok(Err(error.to_string())),
                };
                Ok(first_accepted(&candidates, |(shard, to)| admin.transfer(*shard, *to)))
            })?;
            moved.push(shard);
            wait_until(&format!("node {to} leads shard {shard}"), CHANGE_MAX, || {
                let leads = |shards: &[ShardView]| {
                    shards.iter().any(|s| s.id == shard && s.leader == Some(to))
                };
                Ok(expect(admin.shards(), leads, "another node does"))
            })?;
            self.report.transfers.push(start.elapsed());
        }
        Ok(())
    }

    /// A shard becomes two.
    fn split(&mut self) -> Outcome {
        self.progress.begin("a shard is split");
        let admin = self.any_admin();
        let before: Vec<u64> = admin.shards()?.iter().map(|shard| shard.id).collect();
        let start = Instant::now();
        wait_until("a split is accepted", CHANGE_MAX, || {
            Ok(first_accepted(&before, |shard| admin.split(*shard)))
        })?;
        wait_until("the shard is two", CHANGE_MAX, || {
            let is_led = |s: &ShardView| s.leader.is_some();
            let split =
                |shards: &[ShardView]| shards.len() > before.len() && shards.iter().all(is_led);
            Ok(expect(admin.shards(), split, "there is no further shard with a leader"))
        })?;
        self.report.split = Some(start.elapsed());
        Ok(())
    }

    /// A node that leads shards is killed and started again.
    fn crash(&mut self) -> Outcome {
        let led = |shards: &[ShardView], node| {
            shards.iter().filter(|shard| shard.leader == Some(node)).count()
        };
        let shards = self.any_admin().shards()?;
        let most = FOUNDERS.into_iter().max_by_key(|node| led(&shards, *node));
        let node = most.filter(|node| led(&shards, *node) > 0).ok_or("no founder leads a shard")?;
        let led = led(&shards, node);

        self.progress.begin(format!("node {node}, leader of {led} shards, is killed"));
        let killed = Instant::now();
        self.cluster.kill(node)?;
        self.wait_seen(node, "dead")?;
        let dead = killed.elapsed();

        self.progress.begin(format!("node {node} starts again"));
        let started = Instant::now();
        self.cluster.start(node)?;
        self.cluster.wait_ready(node)?;
        let serves = started.elapsed();
        self.wait_seen(node, "alive")?;
        let alive = started.elapsed();
        for (duration, state) in [(dead, "dead"), (alive, "alive again")] {
            if duration > DETECT_PROMISE {
                let seconds = duration.as_secs_f64();
                self.off(format!("node {node} was seen {state} only after {seconds:.1} s"));
            }
        }
        self.report.crash = Some(Crash { node, led, dead, serves, alive });
        Ok(())
    }

    /// Waits until every other node sees a node in a state.
    fn wait_seen(&self, node: u64, state: &str) -> Outcome {
        let others: Vec<u64> = self.cluster.nodes().into_iter().filter(|id| *id != node).collect();
        wait_until(&format!("all see node {node} {state}"), DETECT_MAX, || {
            for other in &others {
                let nodes = match self.cluster.admin(*other).nodes() {
                    Ok(nodes) => nodes,
                    Err(error) => return Ok(Err(error.to_string())),
                };
                let seen =
                    nodes.iter().find(|seen| seen.id == node).map(|seen| seen.state.as_str());
                if seen != Some(state) {
                    let seen = seen.unwrap_or("unknown");
                    return Ok(Err(format!("to node {other} it is {seen}")));
                }
            }
            Ok(Ok(()))
        })
    }

    fn judge_clients(&mut self) {
        for journal in &self.report.journals {
            if let Some(first) = journal.wrong.first() {
                let count = journal.wrong.len();
                self.report.problems.push(format!("a client got {count} wrong answers: {first}"));
            }
            if journal.latencies_micros.is_empty() {
                self.report.problems.push("a client got nothing done".to_owned());
            }
        }
    }

    /// What must hold on every node.
    fn check(&mut self) {
        self.progress.begin("replicas are compared");
        match checks::agreement(self.cluster) {
            Ok(agreed) => self.report.agreed = Some(agreed),
            Err(error) => self.off(error.to_string()),
        }
        match self.any_admin().migrations() {
            Ok(migrations) => self.report.migrations = migrations,
            Err(error) => self.off(error.to_string()),
        }
        self.progress.begin("every node is asked for accounts and acknowledged writes");
        let keys: Vec<&str> = self.report.acknowledged().collect();
        let findings: Vec<(u64, Finding)> = std::thread::scope(|scope| {
            let cluster = &*self.cluster;
            let keys = keys.as_slice();
            let ask = |node| (node, scope.spawn(move || Finding::of(cluster, node, keys)));
            let asked: Vec<_> = cluster.nodes().into_iter().map(ask).collect();
            let findings = asked.into_iter().filter_map(|(node, it)| Some((node, it.join().ok()?)));
            findings.collect()
        });
        if findings.len() != FOUNDERS.len() + 1 {
            self.off(format!("only {} nodes could be checked", findings.len()));
        }
        for (node, finding) in findings {
            self.judge(node, finding);
        }
    }

    fn judge(&mut self, node: u64, Finding { total, missing }: Finding) {
        let expected = ACCOUNTS.cast_signed() * BALANCE;
        match total {
            Ok(total) => {
                self.report.totals.push((node, total));
                if total != expected {
                    self.off(format!("on node {node} the accounts hold {total}, not {expected}"));
                }
            }
            Err(error) => self.off(format!("accounts on node {node}: {error}")),
        }
        match missing {
            Ok(None) => self.report.complete.push(node),
            Ok(Some((count, first))) => {
                self.off(format!("node {node} lacks {count} acknowledged writes: {first}"));
            }
            Err(error) => self.off(format!("acknowledged writes on node {node}: {error}")),
        }
    }

    /// Any node answers for all; the founders are there from the beginning.
    fn any_admin(&self) -> Admin {
        self.cluster.admin(self.cluster.nodes().first().copied().unwrap_or(JOINER))
    }
}

/// What a node shows at the end.
struct Finding {
    total: Outcome<i64>,
    missing: Outcome<Option<(usize, String)>>,
}

impl Finding {
    fn of(cluster: &Cluster, node: u64, keys: &[&str]) -> Self {
        let gateway = cluster.gateway(node);
        Self { total: checks::total(gateway, ACCOUNTS), missing: checks::missing(gateway, keys) }
    }
}

/// Shards not yet taken, each with a node that could lead it instead.
fn transfers(shards: &[ShardView], taken: &[u64]) -> Vec<(u64, u64)> {
    let fresh = shards.iter().filter(|shard| !taken.contains(&shard.id));
    let transfer = |shard: &ShardView| {
        let other = shard.replicas.iter().find(|r| r.voter && Some(r.node) != shard.leader)?;
        shard.leader.map(|_| (shard.id, other.node))
    };
    fresh.filter_map(transfer).collect()
}

/// Tries candidates in order; the first that is accepted, or the last refusal.
fn first_accepted<T: Copy>(
    candidates: &[T],
    mut request: impl FnMut(&T) -> Outcome,
) -> Result<T, String> {
    let mut reason = "there is no candidate".to_owned();
    for candidate in candidates {
        match request(candidate) {
            Ok(()) => return Ok(*candidate),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// Whether an answer came and is as expected; why not, otherwise.
fn expect<T>(
    answer: Outcome<Vec<T>>,
    is_expected: impl Fn(&[T]) -> bool,
    otherwise: &str,
) -> Result<(), String> {
    match answer {
        Ok(answer) if is_expected(&answer) => Ok(()),
        Ok(_) => Err(otherwise.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
