//! What is refused before admission because a shard is down.

use std::sync::Arc;
use std::time::Duration;

use quorate_calvin::{Execute, ExecuteError, Peers, Reply, Request, ServiceConfig, Submission};
use quorate_types::{Epoch, NodeId, RequestId, ShardEpoch, ShardId};

use super::gate::{read, write};
use super::wires::{End, Held, SEQUENCER};
use super::world::{World, ends, run};
use crate::support::checker::Observed;
use crate::support::{blob, map_cut_at, request};

const C: ShardId = ShardId(3);

/// Three shards with the keys a, b and c. C has lost its quorum with the first
/// transaction's slice on the way to it, longer ago than it may wait.
async fn start_without_c(config: ServiceConfig) -> (Arc<World>, tokio::task::JoinHandle<Observed>) {
    let world = World::start(map_cut_at(&["b", "c"]), config, 0).await;
    world.wires.hold(Held::Slices(C));
    let first = world.spawn(vec![write(&["a", "c"], "1")]);
    tokio::time::sleep(2 * config.sequencer.unlogged_wait_max).await;
    (world, first)
}

#[test]
fn what_names_a_shard_that_is_down_is_refused_and_stays_out_of_the_log() {
    run(1, async {
        let (world, first) = start_without_c(ServiceConfig::default()).await;
        let session = world.session();
        let outcome = session.execute(write(&["b", "c"], "2").call()).await;
        let Err(ExecuteError::Refused(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with(&format!("shard {C} does not log its work")), "{reason}");
        assert_eq!(world.ordered(session.id()), [], "nothing of it is admitted");
        // So it holds no locks: b can be written, as if it had not been asked.
        let free = world.spawn(vec![write(&["b"], "3"), read(&["b"])]);
        assert_eq!(free.await.unwrap(), Observed::Result(blob("3")));
        world.wires.release_everything();
        assert_eq!(first.await.unwrap(), Observed::Result(blob("ok")));
    });
}

#[test]
fn a_shard_that_is_back_is_admitted_again() {
    run(1, async {
        let (world, first) = start_without_c(ServiceConfig::default()).await;
        let mut second = world.spawn(vec![write(&["b", "c"], "2"), read(&["b", "c"])]);
        assert!(!ends(&mut second).await);
        world.wires.release_everything();
        assert_eq!(first.await.unwrap(), Observed::Result(blob("ok")));
        assert_eq!(second.await.unwrap(), Observed::Result(blob("2,2")), "its client kept on");
    });
}

#[test]
fn what_does_not_name_the_shard_is_admitted() {
    run(1, async {
        let (world, first) = start_without_c(ServiceConfig::default()).await;
        let session = Arc::new(world.session());
        let other = world.spawn_in(Arc::clone(&session), vec![write(&["a", "b"], "2")]);
        world.sequencer().until(|| !world.ordered(session.id()).is_empty()).await;
        world.wires.release_everything();
        first.await.unwrap();
        assert_eq!(other.await.unwrap(), Observed::Result(blob("ok")));
    });
}

#[test]
fn a_new_sequencer_leader_waits_before_it_calls_a_shard_down() {
    run(1, async {
        let (world, first) = start_without_c(ServiceConfig::default()).await;
        world.sequencer().begin_term();
        let session = Arc::new(world.session());
        let second = world.spawn_in(Arc::clone(&session), vec![write(&["b", "c"], "2")]);
        let admitted = world.sequencer().until(|| !world.ordered(session.id()).is_empty());
        let wait = Duration::from_secs(1);
        tokio::time::timeout(wait, admitted).await.expect("nobody knows how long C is down");
        world.wires.release_everything();
        first.await.unwrap();
        assert_eq!(second.await.unwrap(), Observed::Result(blob("ok")));
    });
}

/// Its row would never expire.
#[test]
fn a_request_from_the_future_is_refused_wherever_it_goes_and_leaves_no_trace() {
    run(1, async {
        let world = World::start(map_cut_at(&["b", "c"]), ServiceConfig::default(), 0).await;
        let session = Arc::new(world.session());
        let settled = world.spawn_in(Arc::clone(&session), vec![write(&["a"], "1")]);
        assert_eq!(settled.await.unwrap(), Observed::Result(blob("ok")));
        let unborn = RequestId { birth: Epoch(u64::MAX), ..request(77, 0) };
        let peers = End(Arc::clone(&world.wires));
        let (shard, epoch) = (ShardId(1), ShardEpoch(1));
        let call = write(&["a"], "2").call();
        let execute = Execute { shard, epoch, request: unborn, call: call.clone() };
        for asked in [
            Request::Execute(execute),
            Request::Fence { shard, request: unborn, home: blob("a") },
            Request::Submit(Submission { request: unborn, call }),
        ] {
            let node = if matches!(asked, Request::Submit(_)) { SEQUENCER } else { NodeId(1) };
            let reply = peers.call(node, asked.clone(), Duration::from_secs(1)).await;
            let Ok(Reply::Busy(reason)) = reply else { panic!("{asked:?}: {reply:?}") };
            assert!(reason.starts_with(b"the request is dated later"), "{reason:?}");
        }
        let seen = world.spawn_in(session, vec![read(&["a"])]);
        assert_eq!(seen.await.unwrap(), Observed::Result(blob("1")));
    });
}

#[test]
fn a_retry_of_what_was_ordered_before_is_told_its_place() {
    run(1, async {
        let (world, first) = start_without_c(ServiceConfig::default()).await;
        let submission = world.all_ordered().remove(0);
        let peers = End(Arc::clone(&world.wires));
        let again = Request::Submit(submission);
        let reply = peers.call(SEQUENCER, again, Duration::from_secs(1)).await;
        assert!(matches!(reply, Ok(Reply::Ordered { .. })), "{reply:?}");
        world.wires.release_everything();
        assert_eq!(first.await.unwrap(), Observed::Result(blob("ok")));
    });
}
