//! The demo from its first process to its report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{Admin, MigrationView, ShardView};
use super::checks;
use super::cluster::{Cluster, FOUNDERS, JOINER};
use super::interrupt::{Interrupt, Wait};
use super::progress::Progress;
use super::range::Range;
use super::report::{Crash, Join, Report, Split};
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
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u64,
    /// Connections, half of them for transfers and half for plain writes.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=256))]
    connections: u16,
}

/// How long the clients work unless told otherwise.
const SECONDS: u64 = 25;

/// Accounts; one `MGET` reads them all.
const ACCOUNTS: u64 = 500;

/// Load before anything happens, for comparison, and between what happens.
const CALM: Duration = Duration::from_secs(2);

/// A demo that takes longer is off: nobody watches for longer. What the clients
/// are asked to work beyond their usual time is added.
const DURATION_MAX: Duration = Duration::from_secs(90);

/// How often shards are looked at: the node that is asked hashes all its rows,
/// which must not be what the load is measured against.
const SHARDS_EVERY: Duration = Duration::from_millis(500);

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
/// Who does not lead a shard so long after it was transferred to it does not any more.
const TAKEN_ON_AFTER: Duration = Duration::from_secs(2);

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Outcome {
    let built = artifacts::build_server()?;
    let interrupt = Interrupt::by_signals()?;
    let cluster = Cluster::create(built.server()?, args.keep, &interrupt)?;
    let progress = Arc::new(Progress::new());
    progress.say(&format!("data and logs are in {}", cluster.dir().display()));

    let mut demo = Demo { cluster, progress, interrupt, looked: None, report: Report::default() };
    let outcome = demo.play(args);
    // What was found before the interruption is worth its logs.
    if demo.interrupt.is_set() {
        let is_kept = args.keep || !demo.report.problems.is_empty();
        return give_up(demo.cluster, is_kept);
    }
    if let Err(error) = outcome {
        demo.report.problems.push(error.to_string());
    }
    demo.judge_duration(args);
    let Demo { cluster, progress, report, .. } = demo;
    println!("\n{}", report.render(|from, duration| progress.within(from, duration)));
    let is_fine = report.problems.is_empty();
    if args.keep {
        print!("{}", cluster.leave_running());
    } else if is_fine {
        cluster.remove()?;
    } else {
        eprintln!("the nodes' logs are in {} until the next demo", cluster.dir().display());
    }
    if is_fine { Ok(()) } else { Err("the demo found something off".into()) }
}

/// Ends what was interrupted.
fn give_up(mut cluster: Cluster, is_kept: bool) -> Outcome {
    cluster.end();
    if is_kept {
        let dir = cluster.dir().display();
        return Err(format!("interrupted; no node runs, logs and data are in {dir}").into());
    }
    cluster.remove()?;
    Err("interrupted; no node runs, and their data is removed".into())
}

struct Demo {
    cluster: Cluster,
    progress: Arc<Progress>,
    interrupt: Interrupt,
    /// When shards were last looked at.
    looked: Option<Instant>,
    report: Report,
}

impl Demo {
    fn play(&mut self, args: &Args) -> Outcome {
        self.start_founders()?;
        let plan = Plan {
            accounts: ACCOUNTS,
            connections: usize::from(args.connections),
            gateways: FOUNDERS.map(|node| self.cluster.gateway(node)).to_vec(),
        };
        self.progress.begin(format!("{ACCOUNTS} accounts are loaded"));
        load_accounts(&plan, &self.interrupt)?;

        self.progress.begin(format!("{} clients begin", plan.connections));
        let load = Load::start(&plan, &self.progress)?;
        let disturbed = self.disturb();
        let left = Duration::from_secs(args.seconds).saturating_sub(load.elapsed());
        let worked = disturbed.and_then(|()| self.interrupt.sleep(left));
        if worked.is_err() {
            // A client waits for its answer, and gets none any more.
            self.cluster.end();
        }
        (self.report.load, self.report.journals) = load.stop()?;
        worked?;
        self.progress.begin("clients have stopped");
        self.judge_clients();
        self.expect_all_run()?;
        self.check()?;
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
    ///
    /// # Errors
    /// When the demo is to end.
    fn disturb(&mut self) -> Outcome {
        for event in [Self::join, Self::transfer_leaders, Self::split, Self::crash] {
            self.interrupt.sleep(CALM)?;
            if let Err(error) = event(self) {
                self.interrupt.check()?;
                self.off(error.to_string());
            }
        }
        self.interrupt.sleep(CALM)
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

    /// All shards, as often as one may look at them.
    fn shards(&mut self) -> Outcome<Vec<ShardView>> {
        if let Some(looked) = self.looked {
            self.interrupt.sleep(SHARDS_EVERY.saturating_sub(looked.elapsed()))?;
        }
        let shards = self.any_admin().shards();
        self.looked = Some(Instant::now());
        shards
    }

    /// Waits until the shards are as expected.
    fn wait_shards(
        &mut self,
        wait: &Wait<'_>,
        is_expected: impl Fn(&[ShardView]) -> bool,
        otherwise: &str,
    ) -> Outcome {
        let interrupt = self.interrupt.clone();
        interrupt.wait_until(wait, || Ok(expect(self.shards(), &is_expected, otherwise)))
    }

    /// Waits until a migration is over, and well.
    fn wait_migration(
        &self,
        wait: &Wait<'_>,
        is_meant: impl Fn(&MigrationView) -> bool,
        otherwise: &str,
    ) -> Outcome {
        let admin = self.any_admin();
        let is_done = |migrations: &[MigrationView]| {
            migrations.iter().any(|it| is_meant(it) && it.finished && it.error.is_none())
        };
        self.interrupt.wait_until(wait, || Ok(expect(admin.migrations(), is_done, otherwise)))
    }

    /// A fourth node joins, and placement moves replicas to it.
    fn join(&mut self) -> Outcome {
        self.progress.begin(format!("node {JOINER} joins"));
        let start = Instant::now();
        self.cluster.start(JOINER)?;
        self.cluster.wait_ready(JOINER)?;
        let serves = start.elapsed();

        let what = format!("a replica moves to node {JOINER}");
        let wait = Wait::new(&what, MOVE_MAX);
        let is_meant = |it: &MigrationView| it.to == Some(JOINER);
        self.wait_migration(&wait, is_meant, "no move to it is complete")?;
        let holds = start.elapsed();
        let has_voter = |shards: &[ShardView]| shards.iter().any(|s| s.has_voter_on(JOINER));
        self.wait_shards(&wait, has_voter, "no shard has a voter there")?;
        self.report.join = Some(Join { serves, holds });
        Ok(())
    }

    /// Several shards get another leader.
    fn transfer_leaders(&mut self) -> Outcome {
        self.progress.begin("leaders are transferred");
        let mut tried = Vec::new();
        let interrupt = self.interrupt.clone();
        for _ in 0..TRANSFERS {
            let admin = self.any_admin();
            let mut asked: Option<Asked> = None;
            let wait = Wait::new("a leader is transferred", CHANGE_MAX);
            // Placement, which spreads leaders over the nodes, may be at work on the
            // same shard: another one is taken when it has refused one, or has given
            // it on to a third node before anybody looked.
            let took = interrupt.wait_until(&wait, || {
                let shards = match self.shards() {
                    Ok(shards) => shards,
                    Err(error) => return Ok(Err(error.to_string())),
                };
                if let Some(Asked { shard, to, took, at }) = asked {
                    if shards.iter().any(|it| it.id == shard && it.leader == Some(to)) {
                        return Ok(Ok(took));
                    }
                    if at.elapsed() < TAKEN_ON_AFTER {
                        return Ok(Err(format!("node {to} does not lead shard {shard}")));
                    }
                }
                let candidates = transfers(&shards, &tried);
                let accepted = first_accepted(&candidates, |(shard, to)| {
                    let start = Instant::now();
                    admin.transfer(*shard, *to).map(|()| start.elapsed())
                });
                Ok(accepted.and_then(|((shard, to), took)| {
                    tried.push(shard);
                    asked = Some(Asked { shard, to, took, at: Instant::now() });
                    Err(format!("node {to} does not lead shard {shard}"))
                }))
            })?;
            self.report.transfers.push(took);
        }
        Ok(())
    }

    /// A shard becomes two.
    fn split(&mut self) -> Outcome {
        let before = self.shards()?;
        self.progress.begin("a shard is split");
        let admin = self.any_admin();
        let ids: Vec<u64> = before.iter().map(|shard| shard.id).collect();
        let asked = Instant::now();
        let wait = Wait::new("a split is accepted", CHANGE_MAX);
        let (shard, migration) = self
            .interrupt
            .wait_until(&wait, || Ok(first_accepted(&ids, |shard| admin.split(*shard))))?;
        let wait = Wait::new("the shard is two", CHANGE_MAX);
        self.wait_migration(&wait, |it| it.id == migration, "the split is not complete")?;
        let took = asked.elapsed();
        let is_led = |s: &ShardView| s.leader.is_some();
        let is_split = |shards: &[ShardView]| shards.len() > ids.len() && shards.iter().all(is_led);
        self.wait_shards(&wait, is_split, "there is no further shard with a leader")?;

        let parent = before.iter().find(|parent| parent.id == shard);
        self.report.split = Some(Split {
            shard,
            took,
            range: parent.and_then(|parent| Range::parse(&parent.range)),
            // Before and after an event there is calm.
            calm_since: asked - CALM,
            asked,
            until: Instant::now() + CALM,
        });
        Ok(())
    }

    /// A node that leads shards is killed and started again.
    fn crash(&mut self) -> Outcome {
        let shards = self.shards()?;
        let led = |node| shards.iter().filter(|shard| shard.leader == Some(node)).count();
        let most = FOUNDERS.into_iter().max_by_key(|node| led(*node));
        let node = most.filter(|node| led(*node) > 0).ok_or("no founder leads a shard")?;
        let led = led(node);

        self.progress.begin(format!("node {node}, leader of {led} shards, is killed"));
        let killed = Instant::now();
        self.cluster.kill(node)?;
        self.wait_dead(node)?;
        let dead = killed.elapsed();

        self.progress.begin(format!("node {node} starts again"));
        let (serves, alive) = self.restart(node)?;
        for (duration, state) in [(dead, "dead"), (alive, "alive again")] {
            if duration > DETECT_PROMISE {
                let seconds = duration.as_secs_f64();
                self.off(format!("node {node} was seen {state} only after {seconds:.1} s"));
            }
        }
        self.report.crash = Some(Crash { node, led, dead, serves, alive });
        Ok(())
    }

    fn wait_dead(&self, node: u64) -> Outcome {
        let what = format!("all see node {node} dead");
        let wait = Wait::new(&what, DETECT_MAX);
        self.interrupt.wait_until(&wait, || Ok(self.seen(node, "dead")))
    }

    /// Starts a node again: how long until it served, and until every other
    /// node saw it alive. One may come before the other.
    fn restart(&mut self, node: u64) -> Outcome<(Duration, Duration)> {
        let start = Instant::now();
        self.cluster.start(node)?;
        let (mut serves, mut alive) = (None, None);
        let what = format!("node {node} serves, and all see it alive");
        let interrupt = self.interrupt.clone();
        interrupt.wait_until(&Wait::new(&what, DETECT_MAX), || {
            let ready = if serves.is_some() { Ok(()) } else { self.cluster.ready(node)? };
            if ready.is_ok() {
                serves.get_or_insert_with(|| start.elapsed());
            }
            let seen = if alive.is_some() { Ok(()) } else { self.seen(node, "alive") };
            if seen.is_ok() {
                alive.get_or_insert_with(|| start.elapsed());
            }
            Ok(ready.and(seen).and_then(|()| serves.zip(alive).ok_or_else(String::new)))
        })
    }

    /// Whether every other node sees a node in a state; why not, otherwise.
    fn seen(&self, node: u64, state: &str) -> Result<(), String> {
        for other in self.cluster.nodes().into_iter().filter(|other| *other != node) {
            let nodes = self.cluster.admin(other).nodes().map_err(|error| error.to_string())?;
            let seen = nodes.iter().find(|seen| seen.id == node).map(|seen| seen.state.as_str());
            if seen != Some(state) {
                let seen = seen.unwrap_or("unknown");
                return Err(format!("to node {other} it is {seen}"));
            }
        }
        Ok(())
    }

    fn judge_duration(&mut self, args: &Args) {
        self.report.took = self.progress.elapsed();
        let more = Duration::from_secs(args.seconds.saturating_sub(SECONDS));
        let max = DURATION_MAX + more;
        if self.report.took > max {
            let (took, max) = (self.report.took.as_secs_f64(), max.as_secs());
            self.off(format!("all of it took {took:.0} s, more than {max} s"));
        }
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
    ///
    /// # Errors
    /// When the demo is to end.
    fn check(&mut self) -> Outcome {
        self.progress.begin("placement comes to rest");
        if let Err(error) = checks::rest(&self.any_admin(), &self.interrupt) {
            self.interrupt.check()?;
            self.off(error.to_string());
        }
        self.progress.begin("replicas are compared");
        match checks::agreement(&self.cluster, &self.interrupt, SHARDS_EVERY) {
            Ok(agreed) => self.report.agreed = Some(agreed),
            Err(error) => {
                self.interrupt.check()?;
                self.off(error.to_string());
            }
        }
        match self.any_admin().migrations() {
            Ok(migrations) => self.report.migrations = migrations,
            Err(error) => self.off(error.to_string()),
        }
        self.progress.begin("every node is asked for accounts and acknowledged writes");
        let keys: Vec<&str> = self.report.acknowledged().collect();
        let findings: Vec<(u64, Finding)> = std::thread::scope(|scope| {
            let cluster = &self.cluster;
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
        Ok(())
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

/// A transfer that was accepted.
#[derive(Clone, Copy)]
struct Asked {
    shard: u64,
    to: u64,
    took: Duration,
    at: Instant,
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

/// Tries candidates in order; the first that is accepted and the answer, or the
/// last refusal.
fn first_accepted<T: Copy, A>(
    candidates: &[T],
    mut request: impl FnMut(&T) -> Outcome<A>,
) -> Result<(T, A), String> {
    let mut reason = "there is no candidate".to_owned();
    for candidate in candidates {
        match request(candidate) {
            Ok(answer) => return Ok((*candidate, answer)),
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
