//! What is done in a chapter, each step until it is acknowledged, and what has
//! been acknowledged so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::{Blob, NodeId, RequestId};
use quorate::{Answer, ExecuteError, Node, Transaction};
use quorate_testkit::sim::SimNode;
use tokio::time::{sleep, timeout};

use super::warden::Warden;
use crate::sim::cluster::Cluster;
use crate::sim::operators::{Operator, route};
use crate::sim::rest;

/// Attempts of one step. Each takes up to a second of virtual time: a node that
/// died is long back before they are over.
const ATTEMPTS: usize = 60;
/// Longer than a call's own deadline.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked before it counts as never.
const LOOKS_MAX: usize = 3_000;

/// What the clients of a life were told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// What each key that was ever written has to hold.
    content: BTreeMap<String, Option<String>>,
    /// The last transaction that was acknowledged, and its result.
    last: Option<(RequestId, Transaction, Blob)>,
    /// Values that were ever drawn: no two writes write the same.
    values: u64,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    /// Values that were read back and were right.
    pub(super) verified: u64,
}

/// Plays a chapter's steps. Clones are the same.
#[derive(Clone)]
pub(super) struct Script {
    cluster: Cluster,
    warden: Warden,
    operator: Operator,
    told: Arc<Mutex<Told>>,
}

impl Script {
    pub(super) fn new(cluster: &Cluster, warden: &Warden, told: Told) -> Self {
        let operator = Operator::of(cluster);
        let told = Arc::new(Mutex::new(told));
        Self { cluster: cluster.clone(), warden: warden.clone(), operator, told }
    }

    /// What the clients were told so far.
    pub(super) fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// Writes a key.
    pub(super) async fn put(&self, key: &str) {
        self.put_all(&[key]).await;
    }

    /// Writes keys, all at once and each on its own.
    pub(super) async fn put_all(&self, keys: &[&str]) {
        let mut puts = Vec::new();
        for (turn, key) in keys.iter().enumerate() {
            let (script, key) = (self.clone(), (*key).to_owned());
            puts.push(self.cluster.sim.harness().spawn(async move {
                let value = script.next_value();
                let call = Transaction::new().put(key.as_str(), value.as_str());
                if script.acknowledged(turn, call).await {
                    script.told.lock().content.insert(key, Some(value));
                }
            }));
        }
        for put in puts {
            put.await.expect("no step panics");
        }
    }

    /// Deletes a key.
    pub(super) async fn delete(&self, key: &str) {
        // Read as well, so that no two deletions are the same call.
        let value = self.told.lock().content.get(key).cloned().flatten();
        let call = Transaction::new().expect(key, value.map(|value| value.as_str().into()));
        if self.acknowledged(0, call.delete(key)).await {
            self.told.lock().content.insert(key.to_owned(), None);
        }
    }

    /// Counts up two counters in one transaction, which does nothing unless
    /// both are where they should be: done twice, it tells.
    pub(super) async fn count(&self, first: &str, second: &str) {
        let value = |key: &str| self.told.lock().content.get(key).cloned().flatten();
        let keys = [first, second];
        let (before, mut call) = (keys.map(value), Transaction::new());
        let mut after = Vec::new();
        for (key, before) in keys.into_iter().zip(before) {
            let count = before.as_ref().map_or(0, |count| count.parse::<u64>().unwrap()) + 1;
            after.push((key.to_owned(), Some(count.to_string())));
            call = call
                .expect(key, before.map(|before| before.as_str().into()))
                .put(key, count.to_string().as_str());
        }
        if self.acknowledged(1, call).await {
            self.told.lock().content.extend(after);
        }
    }

    /// Repeats the last transaction under its request id.
    pub(super) async fn repeat(&self) {
        let Some((request, call, result)) = self.told.lock().last.clone() else { return };
        for turn in 0..self.cluster.members() {
            let Some((_, again)) = self.run(turn, Some(request), &call).await else { continue };
            if again != result {
                let what = format!("{request} was answered {result:?}, and now {again:?}");
                self.cluster.find("a retry gets the first result", what);
            }
        }
    }

    /// Runs a transaction until it is acknowledged. False if something is wrong
    /// with it.
    async fn acknowledged(&self, turn: usize, call: Transaction) -> bool {
        let Some((request, result)) = self.run(turn, None, &call).await else { return false };
        let is_committed = Answer::of(&result).is_ok_and(|answer| answer.committed);
        if !is_committed {
            let what = format!("{request}: {call:?} finds its conditions broken");
            self.cluster.find("a request takes effect once", what);
        }
        let mut told = self.told.lock();
        told.last = Some((request, call, result));
        told.acknowledged += 1;
        is_committed
    }

    /// Asks one node after the other, under one request id.
    async fn run(
        &self,
        turn: usize,
        request: Option<RequestId>,
        call: &Transaction,
    ) -> Option<(RequestId, Blob)> {
        let mut request = request;
        let mut instead = String::new();
        for attempt in 0..ATTEMPTS {
            let Some((life, node)) = self.server(turn + attempt) else {
                sleep(LOOK_EVERY).await;
                continue;
            };
            let id = match request {
                Some(id) => id,
                None => *request.insert(life.run(async { node.session().reserve() }).await),
            };
            let asked = call.call();
            let task = life.spawn(async move { node.session().retry(id, asked).await });
            instead = match timeout(ATTEMPT_MAX, task).await {
                Ok(Ok(Ok(result))) => {
                    if let Some(ledger) = self.cluster.ledger() {
                        ledger.answered(&call.call());
                    }
                    return Some((id, result));
                }
                Ok(Ok(Err(error @ (ExecuteError::Aborted(_) | ExecuteError::Expired)))) => {
                    let what = format!("{id}: {error}");
                    self.cluster.find("a transaction of the script is executed", what);
                    return None;
                }
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) => "the node died".to_owned(),
                Err(_) => "no answer".to_owned(),
            };
            self.cluster.sim.trace().record(format_args!("{id} on {}: {instead}", life.id()));
            sleep(LOOK_EVERY).await;
        }
        self.cluster.find("a transaction of the script is executed", instead);
        None
    }

    /// A node that serves: from one that does not no request id may be drawn.
    fn server(&self, turn: usize) -> Option<(Arc<SimNode>, Arc<Node>)> {
        let count = self.cluster.members();
        let mut servers = (0..count).filter_map(|step| self.cluster.node((turn + step) % count));
        servers.find(|(_, node)| node.is_serving())
    }

    fn next_value(&self) -> String {
        let mut told = self.told.lock();
        told.values += 1;
        format!("value-{}", told.values)
    }

    /// Waits until logs were purged.
    pub(super) async fn is_purged(&self) {
        let Some(ledger) = self.cluster.ledger() else { return };
        let look = || {
            // Each purge is checked once.
            let purges = ledger.counts().get("R7").copied().unwrap_or_default();
            (purges > 0).then_some(()).ok_or_else(|| "nothing was purged".to_owned())
        };
        self.wait("logs are purged", look).await;
    }

    /// Lets a further node join, and waits until it serves.
    pub(super) async fn join(&self) {
        self.cluster.join().await;
        self.warden.serving().await;
    }

    /// Moves the replica of a key's shard.
    pub(super) async fn move_replica(&self, key: &'static str, from: usize, to: usize) {
        let (from, to) = (self.cluster.id(from), self.cluster.id(to));
        for _ in 0..LOOKS_MAX {
            if self.is_at_home(key, from, to) {
                return;
            }
            let is_begun = self.operator.ask(move |node| async move {
                let (shard, _, voters) = route(&node, key)?;
                let is_due = node.view().running_operators().next().is_none()
                    && voters.contains(&from)
                    && !voters.contains(&to);
                if is_due {
                    node.move_replica(shard, from, to).await.map_err(|error| error.to_string())?;
                }
                Ok(())
            });
            // What was not heard, or given up, is asked again.
            let _ = is_begun.await;
            sleep(LOOK_EVERY).await;
        }
        self.cluster.find("what operators asked for is done", format!("{from} to {to}"));
    }

    fn is_at_home(&self, key: &str, from: NodeId, to: NodeId) -> bool {
        let nodes = self.cluster.running().filter_map(|place| self.cluster.node(place));
        let mut count = 0;
        for (_, node) in nodes {
            let Ok((_, _, voters)) = route(&node, key) else { return false };
            let is_there = voters.contains(&to) && !voters.contains(&from);
            if !is_there || node.view().running_operators().next().is_some() {
                return false;
            }
            count += 1;
        }
        count == self.cluster.members()
    }

    /// Splits the shard of a key there, and waits until every node knows.
    pub(super) async fn split(&self, cut: &'static str) {
        if self.operator.split_at(cut).await.is_none() {
            self.cluster.find("what operators asked for is done", format!("a split at {cut}"));
        }
        self.operator.settled().await;
    }

    /// Stops a node in good order, and starts it again.
    pub(super) async fn stop_and_start(&self, place: usize) {
        self.warden.stop(place).await;
        self.warden.start(place).await;
        self.warden.serving().await;
    }

    /// Stops all nodes in good order, one after the other.
    pub(super) async fn stop_all(&self) {
        for place in 0..self.cluster.members() {
            self.warden.stop(place).await;
        }
    }

    async fn wait(&self, what: &str, look: impl Fn() -> Result<(), String>) {
        let mut instead = String::new();
        for _ in 0..LOOKS_MAX {
            match look() {
                Ok(()) => return,
                Err(seen) => instead = seen,
            }
            sleep(LOOK_EVERY).await;
        }
        self.cluster.find(what, instead);
    }

    /// What has to be so after every chapter, whatever happened in it.
    pub(super) async fn verify(&self) {
        self.operator.settled().await;
        for place in self.cluster.running() {
            self.read_back(place).await;
        }
        self.operator.agreed().await;
        self.cluster.look_at_migrations();
        rest::as_ordered(&self.cluster).await;
    }

    /// Reads every key that was ever written, on one node.
    async fn read_back(&self, place: usize) {
        let content = self.told.lock().content.clone();
        let call = content.keys().fold(Transaction::new(), |call, key| call.get(key.as_str()));
        let id = self.cluster.id(place);
        let Some(values) = self.read(place, &call).await else {
            self.cluster.find("a healed cluster answers", format!("{id} does not"));
            return;
        };
        for ((key, expected), found) in content.iter().zip(values) {
            let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
            if found == *expected {
                self.told.lock().verified += 1;
            } else {
                let what = format!("{id} reads {found:?} at {key}, and {expected:?} was written");
                self.cluster.find("what was acknowledged is there, once", what);
            }
        }
    }

    async fn read(&self, place: usize, call: &Transaction) -> Option<Vec<Option<Blob>>> {
        for _ in 0..ATTEMPTS {
            let (life, node) = self.cluster.node(place)?;
            let asked = call.call();
            let task = life.spawn(async move { node.session().execute(asked).await });
            if let Ok(Ok(Ok(result))) = timeout(ATTEMPT_MAX, task).await {
                return Answer::of(&result).ok().map(|answer| answer.values.0);
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }
}
