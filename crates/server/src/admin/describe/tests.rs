#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use quorate_crdt::ShardLoad;
use quorate_meta::{
    BeginMove, BeginSplit, Bootstrap, Command, JournalRow, JournalWrite, Label, NodeSpec, Registry,
    ReplicaChange, Reply, shard_group,
};
use quorate_migration::{AbortReason, Checkpoint, Place};
use quorate_types::{Blob, ClusterId, DiskId, Hlc, MigrationId, Seq, ShardEpoch};

use super::*;

const MOVE: MigrationId = MigrationId(7);

struct Cluster {
    registry: Registry,
    index: u64,
}

impl Cluster {
    /// Four nodes, of which three hold both shards, cut at "m".
    fn founded() -> Self {
        let spec = |id: u64| NodeSpec {
            node: NodeId(id),
            disk: DiskId(u128::from(id)),
            address: format!("node-{id}:7000"),
            labels: Seq::new(),
            supports: 1,
        };
        let voters: Seq<NodeId> = (1..=3).map(NodeId).collect();
        let mut cluster = Self { registry: Registry::default(), index: 0 };
        cluster.run(Command::Bootstrap(Bootstrap {
            cluster: ClusterId(1),
            nodes: (1..=3).map(spec).collect(),
            metadata_voters: voters.clone(),
            sequencer_voters: voters,
            replicas_per_shard: 3,
            split_keys: vec!["m".into()].into(),
        }));
        let doors = [(GATEWAY_LABEL, "node-4:6400"), (ADMIN_LABEL, "node-4:8100")];
        let label = |(name, value): (&str, &str)| Label { name: name.into(), value: value.into() };
        cluster
            .run(Command::Join(NodeSpec { labels: doors.map(label).to_vec().into(), ..spec(4) }));
        cluster
    }

    fn run(&mut self, command: Command) -> Reply {
        self.index += 1;
        let reply = self.registry.apply(self.index, &command.encode().unwrap()).unwrap().reply;
        assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
        reply
    }

    fn view(&self) -> &ClusterView {
        self.registry.view()
    }

    fn first(&self) -> ShardId {
        self.view().locate(b"a").unwrap().0
    }

    fn generation(&self) -> u64 {
        self.view().group(shard_group(self.first())).unwrap().generation
    }

    fn begin_move(&mut self) {
        let (from, to) = (NodeId(1), NodeId(4));
        let (group, generation) = (shard_group(self.first()), self.generation());
        let change = ReplicaChange::Replace { from, to };
        self.run(Command::BeginMove(BeginMove { migration: MOVE, group, change, generation }));
    }

    /// Journals a row of the move at a checkpoint.
    fn reach(&mut self, checkpoint: Checkpoint) {
        let shard = self.first();
        let group = self.view().group(shard_group(shard)).unwrap();
        let place = |node| Place { node, replica: group.replica_on(node).unwrap().id };
        let places = (place(NodeId(1)), place(NodeId(4)));
        let hlc = Hlc { millis: 1, counter: 0, node: NodeId(1) };
        let in_group = (shard, shard_group(shard));
        let mut row = MigrationRow::planned(MOVE, in_group, places.0, places.1, 1, hlc);
        row.checkpoint = checkpoint;
        row.attempt = 2;
        row.pause.longest_micros = 1_500;
        let expected = self.view().journal_row(MOVE).map(|stored| stored.revision);
        let row = Blob(row.seal());
        self.run(Command::Journal(JournalWrite { id: MOVE, expected, row, finished: false }));
    }

    /// What a node's table holds of it.
    fn rows(&self) -> BTreeMap<MigrationId, MigrationRow> {
        let open = |(id, stored): (MigrationId, &JournalRow)| {
            MigrationRow::open(&id.0.to_be_bytes(), &stored.row).map(|row| (id, row)).unwrap()
        };
        self.view().journal().map(open).collect()
    }

    fn migration(&self) -> MigrationInfo {
        let mut found = migrations(self.view(), &self.rows());
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

#[test]
fn a_node_is_told_by_the_metadata_by_gossip_and_by_its_own_report() {
    let mut cluster = Cluster::founded();
    cluster.run(Command::SetNodeState { node: NodeId(2), state: NodeState::Draining });
    let liveness = BTreeMap::from([(NodeId(1), Status::Alive), (NodeId(2), Status::Suspect)]);
    let report = |leader| ShardLoad { shard: ShardId(1), leader, ..ShardLoad::default() };
    let shards = vec![report(true), report(false)].into();
    let load = NodeLoad { node: NodeId(1), shards, ..NodeLoad::default() };
    let seen = nodes(cluster.view(), &liveness, &BTreeMap::from([(NodeId(1), load)]));
    let told = |info: &NodeInfo| (info.state.clone(), info.draining, info.replicas, info.leaders);
    assert_eq!(told(&seen[0]), ("alive".into(), false, 4, 1));
    assert_eq!(told(&seen[1]), ("suspect".into(), true, 4, 0));
    assert_eq!(told(&seen[3]), ("unknown".into(), false, 0, 0));
    assert_eq!(seen[3].address, "node-4:7000");
    let doors = |info: &NodeInfo| (info.gateway.clone(), info.admin.clone());
    assert_eq!(doors(&seen[0]), (None, None));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(doors(&seen[3]), (text("node-4:6400"), text("node-4:8100")));
}

#[test]
fn the_dead_lead_nothing_and_no_shard_is_led_twice() {
    let cluster = Cluster::founded();
    let led = |node, shards: &[u64]| {
        let report = |shard: &u64| ShardLoad {
            shard: ShardId(*shard),
            leader: true,
            ..ShardLoad::default()
        };
        let shards = shards.iter().map(report).collect::<Vec<_>>().into();
        (NodeId(node), NodeLoad { node: NodeId(node), shards, ..NodeLoad::default() })
    };
    let loads = BTreeMap::from([led(1, &[1, 2]), led(2, &[2, 3]), led(3, &[4])]);
    let status = |status| (1..=3).zip([Status::Alive, Status::Suspect, status]);
    let liveness = |last| status(last).map(|(node, seen)| (NodeId(node), seen)).collect();
    assert_eq!(shards_led(&liveness(Status::Alive), &loads), 4);
    for gone in [Status::Dead, Status::Left] {
        assert_eq!(shards_led(&liveness(gone), &loads), 3);
        let seen = nodes(cluster.view(), &liveness(gone), &loads);
        assert_eq!(seen.iter().map(|node| node.leaders).collect::<Vec<_>>(), [2, 2, 0, 0]);
    }
}

#[test]
fn a_node_is_drained_only_if_others_have_room() {
    let mut cluster = Cluster::founded();
    check_drain(cluster.view(), NodeId(2)).unwrap();
    check_drain(cluster.view(), NodeId(4)).unwrap();
    let missing = check_drain(cluster.view(), NodeId(9)).unwrap_err();
    assert_eq!(missing, AdminError::NotFound("there is no node 9".into()));
    // The only node without a replica is to be emptied too.
    cluster.run(Command::SetNodeState { node: NodeId(4), state: NodeState::Draining });
    let refused = check_drain(cluster.view(), NodeId(2)).unwrap_err();
    assert!(matches!(&refused, AdminError::Refused(why) if why.contains("--join")), "{refused}");
    check_drain(cluster.view(), NodeId(4)).unwrap();
}

#[test]
fn a_shard_is_told_with_the_state_of_the_own_replica_if_there_is_one() {
    let cluster = Cluster::founded();
    let (view, first) = (cluster.view(), cluster.first());
    let own = StateHash { index: 9, hash: 0xab };
    let seen = shard(view, first, Some(NodeId(3)), Some(own)).unwrap();
    assert_eq!((seen.range.as_str(), seen.leader, seen.applied), ("[0x, 0x6d)", Some(3), Some(9)));
    assert_eq!(seen.state_hash.unwrap(), format!("{:032x}", 0xab));
    assert!(seen.replicas.iter().all(|replica| replica.voter) && seen.replicas.len() == 3);
    let last = view.locate(b"z").unwrap().0;
    let without = shard(view, last, None, None).unwrap();
    assert_eq!((without.range.as_str(), without.applied), ("[0x6d, ∞)", None));
    assert_eq!(shard(view, ShardId(99), None, None), None);
}

#[test]
fn a_move_is_told_by_its_row_and_before_there_is_one_as_planned() {
    let mut cluster = Cluster::founded();
    cluster.begin_move();
    let seen = cluster.migration();
    assert_eq!((seen.kind.as_str(), seen.phase.as_str(), seen.attempt), ("move", "Planned", 1));
    let shard = cluster.first().0;
    assert_eq!((seen.from, seen.to, seen.shard), (Some(1), Some(4), Some(shard)));
    assert_eq!(seen.group, format!("shard {shard}"));
    cluster.reach(Checkpoint::CatchUp);
    let seen = cluster.migration();
    assert_eq!((seen.phase.as_str(), seen.attempt, seen.finished), ("CatchUp", 2, false));
    assert_eq!((seen.write_pause_micros, seen.error), (Some(1_500), None));
}

#[test]
fn an_aborted_move_says_why() {
    let mut cluster = Cluster::founded();
    cluster.begin_move();
    let reason = AbortReason::Cancelled;
    cluster.reach(Checkpoint::Aborted { reason, target_destroyed: true });
    cluster.run(Command::AbandonMove { migration: MOVE });
    let seen = cluster.migration();
    assert_eq!((seen.phase.as_str(), seen.finished), ("Aborted: it was cancelled", true));
    assert_eq!(seen.error.as_deref(), Some("it was cancelled"));
}

#[test]
fn a_split_is_told_by_its_phase() {
    let mut cluster = Cluster::founded();
    let (shard, generation) = (cluster.first(), cluster.generation());
    let (operator, epoch) = (MigrationId(8), ShardEpoch(1));
    let split = BeginSplit { operator, shard, at: "d".into(), epoch, generation };
    cluster.run(Command::BeginSplit(split));
    let seen = cluster.migration();
    assert_eq!((seen.kind.as_str(), seen.phase.as_str()), ("split", "Planned"));
    assert_eq!((seen.from, seen.to, seen.write_pause_micros), (None, None, None));
    let (expected, reason) = (SplitPhase::Planned, CutRefusal::KeyOutside);
    cluster.run(Command::AbortSplit { operator, expected, reason });
    let seen = cluster.migration();
    assert_eq!(seen.phase, "Aborted: the key is not inside the shard");
    assert_eq!(
        (seen.error.unwrap().as_str(), seen.finished),
        ("the key is not inside the shard", true)
    );
}
