//! What operators ask for while the cluster works, and how it has to end.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::{NodeId, ShardId};
use quorate::{AdminError, Node};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::load::KEYS;
use super::options::{CUTS, Draw};

/// In virtual time, and more than anything here takes: the placement waits five
/// minutes before it replaces the replicas of a dead node.
const DONE_WITHIN: Duration = Duration::from_secs(900);
/// What is under way once operators have nothing to do is over within so long.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// How long an operator tries to be heard by a cluster under fire.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a system group has at most.
const VOTERS_MAX: u64 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// Whoever operates the cluster, and remembers what it asked for. Clones are
/// the same.
#[derive(Clone)]
pub struct Operator {
    cluster: Cluster,
    asked: Arc<Mutex<Asked>>,
}

/// What has to come true.
#[derive(Default)]
struct Asked {
    /// Cuts that were asked for, done or not.
    cuts: BTreeSet<&'static str>,
    /// Those that were accepted, each with the shard that was to be cut.
    splits: Vec<&'static str>,
    /// Nodes that are to be empty.
    emptied: BTreeSet<NodeId>,
}

impl Operator {
    /// Of a cluster, with nothing asked for yet.
    pub fn of(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), asked: Arc::default() }
    }

    /// Hands the leadership of some shard to another of its voters. `None`,
    /// here and below, when nobody would hear of it in time.
    pub(super) async fn transfer(&self, chance: &mut Draw) -> Option<()> {
        let (key, turn) = (chance.pick(&KEYS), chance.one_in(2));
        self.ask(|node| async move {
            let (shard, leader, mut voters) = route(&node, key)?;
            voters.retain(|voter| Some(*voter) != leader);
            let to = if turn { voters.first() } else { voters.last() };
            let to = *to.ok_or("there is nobody to lead")?;
            tell(node.transfer_leader(shard, to).await)
        })
        .await
    }

    /// Begins to split some shard, if there is a cut left to make.
    pub(super) async fn split(&self, chance: &mut Draw) -> Option<()> {
        let left: Vec<&'static str> = {
            let asked = self.asked.lock();
            let is_left = |cut: &&str| {
                !asked.cuts.contains(cut) && !self.cluster.options.cuts.iter().any(|it| it == cut)
            };
            CUTS.into_iter().filter(is_left).collect()
        };
        self.split_at(chance.choose(&left)?).await
    }

    /// Begins to split the shard of a key, there.
    pub async fn split_at(&self, cut: &'static str) -> Option<()> {
        self.asked.lock().cuts.insert(cut);
        // It may have begun although the answer says otherwise: the map tells,
        // and one that is behind asks for what the metadata refuses.
        self.ask(|node| async move {
            let parent = route(&node, cut)?.0;
            if is_split(&node, cut) {
                return Ok(());
            }
            tell(node.split_shard(parent, Some(cut.into())).await.map(drop))
        })
        .await?;
        self.asked.lock().splits.push(cut);
        Some(())
    }

    /// Begins to move some replica to a node that has none of its group.
    pub(super) async fn move_replica(&self, chance: &mut Draw) -> Option<()> {
        let (key, turn) = (chance.pick(&KEYS), chance.below(60));
        let present = self.ids();
        let turn = usize::try_from(turn).unwrap();
        self.ask(|node| {
            let present = present.clone();
            async move {
                let (shard, _, voters) = route(&node, key)?;
                let view = node.view();
                let homes: Vec<NodeId> = present
                    .into_iter()
                    .filter(|id| !voters.contains(id) && view.node(*id).is_some())
                    .collect();
                if homes.is_empty() || voters.is_empty() {
                    return Err("there is no other home".to_owned());
                }
                let (from, to) = (voters[turn % voters.len()], homes[turn % homes.len()]);
                tell(node.move_replica(shard, from, to).await.map(drop))
            }
        })
        .await
    }

    /// Begins to empty some node, if another one may take its replicas.
    pub(super) async fn drain(&self, chance: &mut Draw) -> Option<()> {
        self.may_empty_another()?;
        let id = chance.choose(&self.ids())?;
        self.empty(id).await
    }

    /// Takes a machine away with its disk, lets another one join, and has the
    /// lost one's replicas replaced.
    pub(super) async fn replace(&self, chance: &mut Draw) -> Option<()> {
        self.may_empty_another()?;
        let present: Vec<usize> = self.cluster.present().collect();
        let place = chance.choose(&present)?;
        self.cluster.join().await?;
        let id = self.cluster.id(place);
        self.cluster.lose(place);
        self.asked.lock().emptied.insert(id);
        // What is not heard now is said again once the cluster is healed.
        let _ = self.empty(id).await;
        Some(())
    }

    /// Nodes enough for all replicas remain, and only one is lost or emptied:
    /// the loss of a second one could be that of a majority.
    fn may_empty_another(&self) -> Option<()> {
        let is_first = self.asked.lock().emptied.is_empty();
        (is_first && self.cluster.options.machines() > self.homes()).then_some(())
    }

    /// So many nodes have replicas of one group, that of the metadata included.
    fn homes(&self) -> u64 {
        let options = &self.cluster.options;
        options.founders.min(VOTERS_MAX).max(u64::from(options.replicas))
    }

    async fn empty(&self, id: NodeId) -> Option<()> {
        let others = || self.ids().into_iter().filter(|other| *other != id).count() as u64;
        while others() < self.homes() {
            self.cluster.join().await?;
        }
        let told = self
            .ask(move |node| async move {
                if node.view().node(id).is_none() {
                    return Err(format!("{id} is no member yet"));
                }
                tell(node.drain_node(id).await)
            })
            .await;
        if told.is_some() {
            self.asked.lock().emptied.insert(id);
        }
        told
    }

    fn ids(&self) -> Vec<NodeId> {
        self.cluster.present().map(|place| self.cluster.id(place)).collect()
    }

    /// Waits until everything that was asked for is done, on every node's map,
    /// and nothing else is under way.
    pub async fn settled(&self) {
        let lost: Vec<NodeId> = self.asked.lock().emptied.iter().copied().collect();
        for id in lost {
            let _ = self.empty(id).await;
        }
        for place in self.cluster.running() {
            let seen = eventually(|| self.unsettled(place)).await;
            if let Err(instead) = seen {
                self.cluster.find("what operators asked for is done", instead);
            }
        }
    }

    fn unsettled(&self, place: usize) -> Result<(), String> {
        let (_, node) = self.cluster.node(place).ok_or("the node is down")?;
        let asked = self.asked.lock();
        if let Some(cut) = asked.splits.iter().find(|cut| !is_split(&node, cut)) {
            return Err(format!("no shard begins at {cut} on {}", node.id()));
        }
        let view = node.view();
        if let Some(operator) = view.running_operators().next() {
            return Err(format!("{} still knows of {operator:?}", node.id()));
        }
        if let Some((id, row)) = view.open_journal().next() {
            return Err(format!("{} has an open journal of {id:?}: {row:?}", node.id()));
        }
        let members = self.cluster.options.founders.min(self.cluster.options.replicas.into());
        let replicas = usize::try_from(members).unwrap();
        for (id, shard) in view.shards() {
            let voters: Vec<NodeId> = view
                .group(shard.group)
                .map(|group| group.replicas.iter().map(|replica| replica.node).collect())
                .unwrap_or_default();
            let is_emptied = !voters.iter().any(|voter| asked.emptied.contains(voter));
            if !is_emptied || voters.len() != replicas {
                return Err(format!(
                    "{} is at {voters:?} on {}; {:?} are to be empty",
                    id,
                    node.id(),
                    asked.emptied
                ));
            }
        }
        Ok(())
    }

    /// Waits until the replicas of each shard have one state.
    pub async fn agreed(&self) {
        if let Err(instead) = soon(|| self.disagreement()).await {
            self.cluster.find("the replicas of each shard agree", instead);
        }
    }

    fn disagreement(&self) -> Result<(), String> {
        let nodes = || self.cluster.running().filter_map(|place| self.cluster.node(place));
        let (_, first) = nodes().next().ok_or("no node runs")?;
        let view = first.view();
        for (id, shard) in view.shards() {
            let mut states = Vec::new();
            for (_, node) in nodes() {
                let state = node.state_hash(id).map_err(|error| error.to_string())?;
                states.extend(state.map(|state| (node.id(), state)));
            }
            let is_one = states.windows(2).all(|pair| pair[0].1 == pair[1].1);
            let voters = view.group(shard.group).map_or(0, |group| group.replicas.len());
            if !is_one || states.len() != voters {
                return Err(format!("{id}: {states:?}"));
            }
        }
        Ok(())
    }

    /// Asks one node after the other until one answers, or for too long.
    pub(super) async fn ask<T: Send + 'static, F>(
        &self,
        question: impl Fn(Arc<Node>) -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let until = Instant::now() + PATIENCE;
        let mut turn = 0;
        while Instant::now() < until {
            if let Some((life, node)) = self.cluster.node(turn % self.cluster.members()) {
                // A task of the node, so that it ends with it.
                let answer = life.spawn(question(node));
                if let Ok(Ok(Ok(answer))) = tokio::time::timeout(PATIENCE, answer).await {
                    return Some(answer);
                }
            }
            turn += 1;
            sleep(PAUSE).await;
        }
        None
    }
}

/// Looks until it sees what it looks for, which operators were asked for.
///
/// # Errors
/// What it saw last instead, after far too long.
pub async fn eventually(look: impl Fn() -> Result<(), String>) -> Result<(), String> {
    within(DONE_WITHIN, look).await
}

/// The same for what nobody has to be patient with.
pub(super) async fn soon(look: impl Fn() -> Result<(), String>) -> Result<(), String> {
    within(SETTLES_WITHIN, look).await
}

async fn within(patience: Duration, look: impl Fn() -> Result<(), String>) -> Result<(), String> {
    let until = Instant::now() + patience;
    loop {
        match look() {
            Ok(()) => return Ok(()),
            Err(instead) if Instant::now() > until => return Err(instead),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// A key's shard, its leader and its voters, as a node's map has them.
pub fn route(node: &Node, key: &str) -> Result<(ShardId, Option<NodeId>, Vec<NodeId>), String> {
    let (shard, leader, mut voters) =
        node.route(key.as_bytes()).ok_or_else(|| format!("{key} has no shard"))?;
    voters.sort();
    Ok((shard, leader, voters))
}

/// Whether a shard begins at a key, as far as a node knows.
fn is_split(node: &Node, cut: &str) -> bool {
    node.view().shards().any(|(_, shard)| &shard.range.start[..] == cut.as_bytes())
}

fn tell(outcome: Result<(), AdminError>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}
