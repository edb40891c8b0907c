//! The life of a small cluster as its registry sees it: three nodes start it,
//! a fourth joins, a shard is split, a node is drained and leaves.
//!
//! Here one replica applies every command at once; in a cluster they come out
//! of the metadata group's log.

use std::error::Error;

use quorate_meta::{
    BeginMove, BeginSplit, Bootstrap, Command, Label, NodeSpec, NodeState, Operator, Registry,
    ReplicaChange, Reply, SplitPhase, ZONE_LABEL,
};
use quorate_types::{
    ClusterId, DiskId, Epoch, GroupId, MigrationId, NodeId, Seq, ShardEpoch, ShardId,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut log = Log { registry: Registry::default(), index: 0 };
    log.propose(Command::Bootstrap(three_nodes()))?;
    log.propose(Command::Join(node(4, "north")))?;
    split_first_shard(&mut log)?;
    drain(&mut log, NodeId(1), NodeId(4))?;
    print_map(&log.registry);
    Ok(())
}

/// A log of one replica.
struct Log {
    registry: Registry,
    index: u64,
}

impl Log {
    fn propose(&mut self, command: Command) -> Result<Reply, Box<dyn Error>> {
        self.index += 1;
        let applied = self.registry.apply(self.index, &command.encode()?)?;
        match applied.reply {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => {
                println!("{:>3}  {} rows", self.index, applied.mutations.len());
                Ok(reply)
            }
        }
    }
}

fn node(id: u64, zone: &str) -> NodeSpec {
    NodeSpec {
        node: NodeId(id),
        disk: DiskId::random(),
        address: format!("node-{id}:7000"),
        labels: vec![Label { name: ZONE_LABEL.into(), value: zone.into() }].into(),
        supports: 1,
    }
}

fn three_nodes() -> Bootstrap {
    let nodes: Seq<NodeSpec> = vec![node(1, "east"), node(2, "west"), node(3, "south")].into();
    let voters: Seq<NodeId> = nodes.iter().map(|spec| spec.node).collect();
    Bootstrap {
        cluster: ClusterId::random(),
        nodes,
        metadata_voters: voters.clone(),
        sequencer_voters: voters,
        replicas_per_shard: 3,
        split_keys: vec!["k".into()].into(),
    }
}

/// Plans, orders and installs a split. Between the steps a real coordinator
/// lets the sequencer order the map change and waits for the child.
fn split_first_shard(log: &mut Log) -> Result<(), Box<dyn Error>> {
    let operator = MigrationId::random();
    let (shard, generation) = (ShardId(1), 1);
    let epoch = ShardEpoch(1);
    let at = "f".into();
    log.propose(Command::BeginSplit(BeginSplit { operator, shard, at, epoch, generation }))?;
    let (from, to) = (SplitPhase::Planned, SplitPhase::Ordering);
    log.propose(Command::AdvanceSplit { operator, from, to })?;
    let (from, to) = (to, SplitPhase::Ordered { epoch: Epoch(17) });
    log.propose(Command::AdvanceSplit { operator, from, to })?;
    let (parent_epoch, child_epoch) = (ShardEpoch(2), ShardEpoch(2));
    log.propose(Command::InstallSplit { operator, parent_epoch, child_epoch })?;
    log.propose(Command::FinishSplit { operator })?;
    Ok(())
}

/// Moves everything off a node, services of the cluster included, and
/// removes it. Between the two steps of a move Raft changes the membership.
fn drain(log: &mut Log, from: NodeId, to: NodeId) -> Result<(), Box<dyn Error>> {
    log.propose(Command::SetNodeState { node: from, state: NodeState::Draining })?;
    let groups: Vec<GroupId> =
        log.registry.view().replicas_on(from).map(|(group, _)| group).collect();
    for group in groups {
        let generation = log.registry.view().group(group).map_or(0, |group| group.generation);
        let migration = MigrationId::random();
        let change = ReplicaChange::Replace { from, to };
        log.propose(Command::BeginMove(BeginMove { migration, group, change, generation }))?;
        let reply = log.propose(Command::CommitMove { migration })?;
        if let Reply::Operator(Operator { group, task, .. }) = reply {
            println!("     {group}: {task:?}");
        }
    }
    log.propose(Command::SetNodeState { node: from, state: NodeState::Removed })?;
    Ok(())
}

fn print_map(registry: &Registry) {
    let view = registry.view();
    println!("map version {}", view.version());
    for (id, shard) in view.shards_in_key_order() {
        let nodes: Vec<NodeId> = view
            .group(shard.group)
            .map(|group| group.voters().map(|voter| voter.node).collect())
            .unwrap_or_default();
        println!("{id} {:?} at {} on {nodes:?}", shard.range, shard.epoch);
    }
}
