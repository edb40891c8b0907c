//! What simulated nodes do in several tests.

#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_testkit::sim::{Sim, SimNetwork, SimNode};
use quorate_types::{NodeId, runtime};
use tokio::time::sleep;

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A task of a task of the node that counts milliseconds.
pub fn ticks(node: &Arc<SimNode>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    drop(node.spawn(async move {
        drop(runtime::spawn(async move {
            loop {
                sleep(millis(1)).await;
                counting.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }));
    count
}

pub fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Lets a node chatter with all `count` nodes, itself included: it answers what
/// it hears, and calls and tells others by chance. The trace has all of it.
pub fn chatter(sim: &Sim, network: &SimNetwork, node: &Arc<SimNode>, count: u64) {
    let (trace, id) = (sim.trace().clone(), node.id());
    let heard = trace.clone();
    network.register(
        node,
        Arc::new(move |from, payload| {
            heard.record(format_args!("{id} heard {payload:?} from {from}"));
            Box::pin(async move {
                runtime::sync_delay().await;
                Ok(payload)
            })
        }),
    );
    let network = network.clone();
    drop(node.spawn(async move {
        loop {
            sleep(Duration::from_micros(runtime::random() % 5000)).await;
            let to = NodeId(runtime::random() % count);
            let payload = runtime::random().to_string().into();
            if runtime::random().is_multiple_of(2) {
                network.send(id, to, payload);
                continue;
            }
            let call = network.call(id, to, payload, millis(10));
            let trace = trace.clone();
            drop(runtime::spawn(async move {
                trace.record(format_args!("{id}: {:?}", call.await));
            }));
        }
    }));
}
