//! Map changes that meet at the sequencer's leader.

use std::sync::Arc;

use quorate_calvin::{
    ChangeOrder, MapChange, Member, Misfit, NeverFits, Reply, Request, SequencerCommand,
    order_change,
};
use quorate_types::{Blob, Epoch, NodeId, ReplicaId, ShardEpoch, ShardId, runtime};

use super::gate::{A, B, start};
use super::wires::{End, SEQUENCER};
use super::world::{World, run};
use crate::support::blob;

/// The first map's version; every test here proposes for the next one.
const VERSION: u64 = 1;
const X: ShardId = ShardId(101);
const Y: ShardId = ShardId(102);

fn cut(parent: ShardId, at: &str, child: ShardId) -> MapChange {
    MapChange {
        version: VERSION + 1,
        parent,
        at: blob(at),
        child,
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    }
}

async fn propose(world: &World, change: MapChange) -> Reply {
    world.services(SEQUENCER).serve(Request::Change(change)).await
}

/// Proposes a change whose caller gives up while it is in the log and not
/// applied yet.
async fn propose_and_give_up(world: &Arc<World>, change: MapChange) {
    let proposed = Arc::clone(world);
    let logged = world.sequencer().entries().len();
    let asking = runtime::spawn(async move { propose(&proposed, change).await });
    while world.sequencer().entries().len() == logged {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled(), "it waits still");
}

async fn order(world: &World, change: MapChange) -> ChangeOrder {
    let end = End(Arc::clone(&world.wires));
    order_change(&end, &end, change).await.unwrap()
}

/// The index of a child's change in the sequencer's log, the last one if it
/// was proposed again.
fn epoch_of(world: &World, child: ShardId) -> Epoch {
    let entries = world.sequencer().entries();
    let is_its = |entry: &bytes::Bytes| {
        matches!(SequencerCommand::from_bytes(entry).unwrap(),
            SequencerCommand::Change { change, .. } if change.child == child)
    };
    Epoch(entries.iter().rposition(is_its).unwrap() as u64 + 1)
}

#[test]
fn a_change_is_not_told_the_outcome_of_another_for_the_same_version() {
    run(1, async {
        let world = start().await;
        propose_and_give_up(&world, cut(A, "aa", X)).await;
        let reply = propose(&world, cut(B, "bb", Y)).await;
        let refused = Blob::from(Misfit::OtherVersion.to_string().as_str());
        assert_eq!(reply, Reply::NotChanged(refused));
        let ordered = order(&world, cut(B, "bb", Y)).await;
        assert_eq!(ordered, ChangeOrder::Now(epoch_of(&world, Y)));
        assert_eq!(order(&world, cut(A, "aa", X)).await, ChangeOrder::Before);
    });
}

#[test]
fn a_change_whose_first_copy_is_ordered_is_told_so() {
    run(1, async {
        let world = start().await;
        propose_and_give_up(&world, cut(A, "aa", X)).await;
        let first = epoch_of(&world, X);
        assert_eq!(propose(&world, cut(A, "aa", X)).await, Reply::Changed(first));
        assert!(epoch_of(&world, X) > first, "the copy is in the log too");
    });
}

#[test]
fn what_never_fits_is_told_so_and_not_logged() {
    run(1, async {
        let world = start().await;
        let logged = world.sequencer().entries().len();
        let outside = order(&world, cut(A, "zz", X)).await;
        assert_eq!(outside, ChangeOrder::Never(NeverFits::KeyOutside));
        assert_eq!(world.sequencer().entries().len(), logged);
    });
}

#[test]
fn a_change_with_too_few_or_too_many_members_is_refused_and_not_logged() {
    run(1, async {
        let world = start().await;
        let logged = world.sequencer().entries().len();
        let member = Member { replica: ReplicaId(1), node: NodeId(1) };
        let refused = Blob::from(Misfit::Members.to_string().as_str());
        for count in [0, 17, 100_000] {
            let change = MapChange { members: vec![member; count].into(), ..cut(A, "aa", X) };
            assert_eq!(propose(&world, change).await, Reply::NotChanged(refused.clone()));
        }
        assert_eq!(world.sequencer().entries().len(), logged);
        let most = MapChange { members: vec![member; 16].into(), ..cut(A, "aa", X) };
        assert!(matches!(propose(&world, most).await, Reply::Changed(_)));
    });
}
