//! Two layers replaced by others: the engine by one that keeps everything in
//! memory, the placement policy by one that leaves everything where it is.

use std::sync::Arc;

use quorate::types::NodeId;
use quorate::{Answer, Node, NodeConfig, Transaction};
use quorate_engine::MemEngine;
use quorate_placement::{ClusterView, History, InFlight, PlacementPolicy, Plan};

/// Never moves anything.
struct LeaveInPlace;

impl PlacementPolicy for LeaveInPlace {
    fn plan(&self, _view: &ClusterView, _running: &[InFlight], _history: &History) -> Plan {
        Plan::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("quorate-swap-{}", std::process::id()));
    let node = Node::builder(NodeConfig::new(NodeId(1), &directory))
        .engine(Arc::new(MemEngine::new()))
        .placement(Arc::new(LeaveInPlace))
        .start()
        .await?;
    node.serving().await?;
    let session = node.session();
    session.execute(Transaction::new().put("key", "value").call()).await?;
    let answer = session.execute(Transaction::new().get("key").call()).await?;
    println!("read {:?} from an engine of our own", Answer::of(&answer)?.values);
    node.shutdown().await?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
