//! The smallest histories that need the reply gate, run by the production
//! services: each is strictly serializable behind the gate, and is not when
//! the gates let everything pass.

use std::sync::Arc;

use quorate_calvin::{Execute, Peers, Reply, Request, ServiceConfig};
use quorate_types::fault::{Canary, HAS_CANARIES};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{Epoch, ShardEpoch, ShardId};

use super::wires::{End, Held, node_of};
use super::world::{PATIENCE, World, ends, run, run_with};
use crate::support::checker::{Observed, is_strictly_serializable};
use crate::support::procedures::Op;
use crate::support::{blob, blobs, map_cut_at, request};

pub const A: ShardId = ShardId(1);
pub const B: ShardId = ShardId(2);

pub fn read(keys: &[&str]) -> Op {
    Op::Read(blobs(keys).into())
}

pub fn write(keys: &[&str], value: &str) -> Op {
    Op::Write { keys: blobs(keys).into(), value: blob(value) }
}

fn read_write(reads: &[&str], writes: &[&str], value: &str) -> Op {
    let (reads, writes) = (blobs(reads).into(), blobs(writes).into());
    Op::ReadWrite { reads, writes, value: blob(value) }
}

pub async fn start() -> Arc<World> {
    World::start(map_cut_at(&["b"]), ServiceConfig::default(), 0).await
}

/// Whether the last operation of the scenario ends while part of T is held
/// back, and whether the history has an explanation.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    ends_early: bool,
    is_strictly_serializable: bool,
}

/// T[w a, w b], logged at A only; `r a` sees it, a later `r b` does not.
async fn plain(world: Arc<World>) -> bool {
    world.wires.hold(Held::Slices(B));
    let t = world.spawn(vec![write(&["a", "b"], "T")]);
    world.logs_after(A, Epoch(0)).await;
    let mut reader = world.spawn(vec![read(&["a"]), read(&["b"])]);
    let ends_early = ends(&mut reader).await;
    world.wires.release_everything();
    finish(t, reader, ends_early).await
}

/// T[r b, w a], logged at B only; `w b` overwrites blindly what T read, and a
/// later `r a` is old.
async fn blind_overwrite(world: Arc<World>) -> bool {
    world.wires.hold(Held::Slices(A));
    let t = world.spawn(vec![read_write(&["b"], &["a"], "T")]);
    world.logs_after(B, Epoch(0)).await;
    let mut other = world.spawn(vec![write(&["b"], "1"), read(&["a"])]);
    let ends_early = ends(&mut other).await;
    world.wires.release_everything();
    finish(t, other, ends_early).await
}

/// As the blind overwrite, but nobody has heard of `w b` itself: `r b` has
/// seen it, and a later `r a` is old.
async fn chain(world: Arc<World>) -> bool {
    world.wires.hold(Held::Slices(A));
    let t = world.spawn(vec![read_write(&["b"], &["a"], "T")]);
    world.logs_after(B, Epoch(0)).await;
    let session = Arc::new(world.session());
    world.wires.hold(Held::RepliesTo(session.id()));
    let logged = world.log(B).entries().len();
    let overwrite = world.spawn_in(session, vec![write(&["b"], "1")]);
    world.log(B).until(|| world.log(B).entries().len() > logged).await;
    let mut reader = world.spawn(vec![read(&["b"]), read(&["a"])]);
    let ends_early = ends(&mut reader).await;
    world.wires.release_everything();
    assert!(matches!(overwrite.await.unwrap(), Observed::Result(_)));
    finish(t, reader, ends_early).await
}

/// The answer to T[r b, w b, w a] itself leaves while T is logged at its home
/// only; its client then reads the old a.
async fn early_verdict(world: Arc<World>) -> bool {
    world.wires.hold(Held::Slices(A));
    let t = read_write(&["b"], &["b", "a"], "T");
    let mut client = world.spawn(vec![t, read(&["a"])]);
    let ends_early = ends(&mut client).await;
    world.wires.release_everything();
    if !ends_early {
        assert!(matches!(client.await.unwrap(), Observed::Result(_)));
    }
    ends_early
}

async fn finish(
    t: tokio::task::JoinHandle<Observed>,
    other: tokio::task::JoinHandle<Observed>,
    ends_early: bool,
) -> bool {
    assert!(matches!(t.await.unwrap(), Observed::Result(_)), "what is admitted ends");
    if !ends_early {
        assert!(matches!(other.await.unwrap(), Observed::Result(_)), "what was gated ends");
    }
    ends_early
}

type Scenario = fn(Arc<World>) -> BoxFuture<bool>;

fn see(scenario: Scenario, has_gate: bool, canary: Option<Canary>) -> Seen {
    run_with(canary, 1, async move {
        let world = start().await;
        if !has_gate {
            world.open_gates();
        }
        let ends_early = scenario(Arc::clone(&world)).await;
        let history = world.history();
        Seen { ends_early, is_strictly_serializable: is_strictly_serializable(&history) }
    })
}

fn needs_the_gate(scenario: Scenario) {
    assert_eq!(see(scenario, true, None), GATED, "behind the gate");
    assert_eq!(see(scenario, false, None), OPEN, "without a gate");
}

const GATED: Seen = Seen { ends_early: false, is_strictly_serializable: true };
const OPEN: Seen = Seen { ends_early: true, is_strictly_serializable: false };

#[test]
fn a_plain_read_of_half_a_transaction_waits_at_the_services_gate() {
    needs_the_gate(|world| Box::pin(plain(world)));
}

#[test]
fn a_blind_overwrite_waits_at_the_services_gate() {
    needs_the_gate(|world| Box::pin(blind_overwrite(world)));
}

#[test]
fn a_chain_of_operations_waits_at_the_services_gate() {
    needs_the_gate(|world| Box::pin(chain(world)));
}

#[test]
fn each_hole_planted_in_the_gate_lets_its_history_pass() {
    let holes: [(Canary, Scenario); 3] = [
        (Canary::EarlyReply, |world| Box::pin(plain(world))),
        (Canary::EarlyReplyBlind, |world| Box::pin(blind_overwrite(world))),
        (Canary::EarlyReplyChain, |world| Box::pin(chain(world))),
    ];
    let expected = if HAS_CANARIES { OPEN } else { GATED };
    for (canary, scenario) in holes {
        assert_eq!(see(scenario, true, Some(canary)), expected, "{canary:?}");
    }
}

#[test]
fn an_early_verdict_waits_at_the_services_gate() {
    needs_the_gate(|world| Box::pin(early_verdict(world)));
}

#[test]
fn a_node_without_watermarks_answers_nothing_that_depends_on_the_order() {
    run(1, async {
        let world = start().await;
        world.wires.hold(Held::Watermarks(node_of(A)));
        let t = world.spawn(vec![write(&["b", "a"], "T")]);
        assert_eq!(t.await.unwrap(), Observed::Result(blob("ok")), "B, the home, knows L");
        let mut reader = world.spawn(vec![read(&["a"])]);
        assert!(!ends(&mut reader).await, "A does not, though all is logged");
        let elsewhere = world.spawn(vec![read(&["b"])]);
        assert_eq!(elsewhere.await.unwrap(), Observed::Result(blob("T")));
        world.wires.release_everything();
        assert_eq!(reader.await.unwrap(), Observed::Result(blob("T")));
    });
}

#[test]
fn a_reply_that_waits_at_the_gate_ends_with_its_term() {
    run(1, async {
        let world = start().await;
        world.wires.hold(Held::Slices(B));
        let t = world.spawn(vec![write(&["a", "b"], "T")]);
        world.logs_after(A, Epoch(0)).await;
        for op in [read(&["a"]), write(&["a"], "1")] {
            let execute = Execute {
                shard: A,
                epoch: ShardEpoch(1),
                request: request(7, u64::from(op.footprint().is_read_only())),
                call: op.call(),
            };
            let peers = End(Arc::clone(&world.wires));
            let deadline = 100 * PATIENCE;
            let call = peers.call(node_of(A), Request::Execute(execute), deadline);
            let mut asked = runtime::spawn(call);
            assert!(tokio::time::timeout(PATIENCE, &mut asked).await.is_err(), "it is gated");
            world.log(A).begin_term();
            assert_eq!(asked.await.unwrap(), Ok(Reply::Unknown), "whatever A knows");
        }
        world.wires.release_everything();
        assert!(matches!(t.await.unwrap(), Observed::Result(_)));
    });
}
