//! What operators ask for while the cluster works, and how it has to end.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::env::{Rng, SplitMix};
use quorate::types::{NodeId, ShardId};
use quorate::{AdminError, Node};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::load::KEYS;

/// Where shards may be split: between keys of the load.
const CUTS: [&str; 3] = ["b", "k", "y"];
/// In virtual time, and far more than anything here takes.
const DONE_WITHIN: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);
/// What a shard has where nodes enough are alive.
const VOTERS: usize = 3;

/// Whoever operates the cluster, and remembers what it asked for.
pub struct Operator {
    cluster: Cluster,
    splits: Mutex<Vec<(&'static str, ShardId)>>,
    drained: Mutex<Option<NodeId>>,
}

impl Operator {
    /// Of a cluster, with nothing asked for yet.
    pub fn of(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), splits: Mutex::default(), drained: Mutex::default() }
    }

    /// Hands the leadership of some shard to another of its voters.
    pub async fn transfer(&self, chance: &mut SplitMix) {
        let (key, turn) = (pick(&KEYS, chance), chance.below(2) == 0);
        self.ask("a leadership moves", |node| async move {
            let (shard, leader, mut voters) = route(&node, key)?;
            voters.retain(|voter| Some(*voter) != leader);
            let to = if turn { voters.first() } else { voters.last() };
            let to = *to.ok_or("there is nobody to lead")?;
            tell(node.transfer_leader(shard, to).await)
        })
        .await;
    }

    /// Begins to split some shard, if there is a cut left to make.
    pub async fn split(&self, chance: &mut SplitMix) {
        let made: Vec<&str> = self.splits.lock().iter().map(|(cut, _)| *cut).collect();
        let left: Vec<&'static str> = CUTS.into_iter().filter(|cut| !made.contains(cut)).collect();
        if !left.is_empty() {
            self.split_at(pick(&left, chance)).await;
        }
    }

    /// Begins to split the shard of a key, there.
    pub async fn split_at(&self, cut: &'static str) {
        let parent =
            self.ask("a key has a shard", |node| async move { Ok(route(&node, cut)?.0) }).await;
        // It may have begun although the answer says otherwise: the map tells.
        self.ask("a split begins", |node| async move {
            if route(&node, cut)?.0 != parent {
                return Ok(());
            }
            tell(node.split_shard(parent, Some(cut.into())).await.map(drop))
        })
        .await;
        self.splits.lock().push((cut, parent));
    }

    /// Lets the fourth node join, and begins to empty some node; once.
    pub async fn drain(&self, chance: &mut SplitMix) {
        if self.drained.lock().is_some() {
            return;
        }
        self.cluster.join().await;
        let id =
            self.cluster.id(usize::try_from(chance.below(self.cluster.members() as u64)).unwrap());
        self.ask("a node begins to drain", |node| async move { tell(node.drain_node(id).await) })
            .await;
        *self.drained.lock() = Some(id);
    }

    /// Waits until everything that was asked for is done, on every node's map.
    pub async fn settled(&self) {
        for place in 0..self.cluster.members() {
            eventually("what operators asked for is done", || self.unsettled(place)).await;
        }
    }

    fn unsettled(&self, place: usize) -> Result<(), String> {
        let (_, node) = self.cluster.node(place).ok_or("the node is down")?;
        for (cut, parent) in self.splits.lock().iter() {
            if route(&node, cut)?.0 == *parent {
                return Err(format!("{parent} is not split at {cut} on {}", node.id()));
            }
        }
        let drained = *self.drained.lock();
        for key in KEYS {
            let (shard, _, voters) = route(&node, key)?;
            let is_empty = drained.is_none_or(|drained| !voters.contains(&drained));
            if !is_empty || voters.len() != VOTERS {
                return Err(format!("{shard} is at {voters:?}; {drained:?} drains"));
            }
        }
        Ok(())
    }

    /// Waits until the replicas of each shard have one state.
    pub async fn agreed(&self) {
        eventually("the replicas of each shard agree", || self.disagreement()).await;
    }

    fn disagreement(&self) -> Result<(), String> {
        let running = || (0..self.cluster.members()).filter_map(|place| self.cluster.node(place));
        let (_, first) = running().next().ok_or("no node runs")?;
        let shards: Result<BTreeSet<ShardId>, String> =
            KEYS.iter().map(|key| Ok(route(&first, key)?.0)).collect();
        for shard in shards? {
            let mut states = Vec::new();
            for (_, node) in running() {
                let state = node.state_hash(shard).map_err(|error| error.to_string())?;
                states.extend(state.map(|state| (node.id(), state)));
            }
            let is_one = states.windows(2).all(|pair| pair[0].1 == pair[1].1);
            if !is_one || states.len() != VOTERS {
                return Err(format!("{shard}: {states:?}"));
            }
        }
        Ok(())
    }

    /// Asks one node after the other until one answers.
    async fn ask<T, F: Future<Output = Result<T, String>>>(
        &self,
        what: &str,
        question: impl Fn(Arc<Node>) -> F,
    ) -> T {
        let until = Instant::now() + DONE_WITHIN;
        let mut turn = 0;
        loop {
            let answer = match self.cluster.node(turn % self.cluster.members()) {
                Some((life, node)) => life.run(question(node)).await,
                None => Err("the node is down".to_owned()),
            };
            match answer {
                Ok(answer) => return answer,
                Err(instead) => {
                    assert!(Instant::now() < until, "never: {what}; last: {instead}");
                }
            }
            turn += 1;
            sleep(PAUSE).await;
        }
    }
}

/// Looks until it sees what it looks for.
pub async fn eventually(what: &str, look: impl Fn() -> Result<(), String>) {
    let until = Instant::now() + DONE_WITHIN;
    while let Err(instead) = look() {
        assert!(Instant::now() < until, "never: {what}; last: {instead}");
        sleep(PAUSE).await;
    }
}

fn pick(among: &[&'static str], chance: &mut SplitMix) -> &'static str {
    among[usize::try_from(chance.below(among.len() as u64)).unwrap()]
}

/// A key's shard, its leader and its voters, as a node's map has them.
pub fn route(node: &Node, key: &str) -> Result<(ShardId, Option<NodeId>, Vec<NodeId>), String> {
    let (shard, leader, mut voters) =
        node.route(key.as_bytes()).ok_or_else(|| format!("{key} has no shard"))?;
    voters.sort();
    Ok((shard, leader, voters))
}

fn tell(outcome: Result<(), AdminError>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}
