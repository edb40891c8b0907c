//! Bringing a map change into the order, from any node.

use std::time::Duration;

use quorate_types::{Epoch, NodeId};

use crate::command::{MapChange, ShardMap};
use crate::ports::{Peers, Router};
use crate::wire::{Reply, Request};

/// How long one call to the sequencer may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);

/// How a map change stands in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeOrder {
    /// It was ordered now, at this epoch.
    Now(Epoch),
    /// The map shows its child since an earlier attempt.
    Before,
}

/// Why it cannot be told how a map change stands. Asking again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nobody who leads the sequencer answers.
    #[error("the sequencer does not answer")]
    NoSequencer,
    /// The change may or may not be ordered.
    #[error("the map change is not known to be ordered: {0}")]
    Unknown(String),
}

/// Sequences a map change, unless the sequencer's map shows its child already.
/// The version is the sequencer's to give: that of `change` is not looked at.
///
/// # Errors
/// [`ChangeError`]. What has happened is decided by the map that the next
/// attempt reads.
pub async fn order_change(
    peers: &dyn Peers,
    router: &dyn Router,
    change: MapChange,
) -> Result<ChangeOrder, ChangeError> {
    let (leader, map) = sequencer_map(peers, router).await.ok_or(ChangeError::NoSequencer)?;
    if map.shards.iter().any(|shard| shard.shard == change.child) {
        return Ok(ChangeOrder::Before);
    }
    let change = MapChange { version: map.version + 1, ..change };
    match peers.call(leader, Request::Change(change), CALL_DEADLINE).await {
        Ok(Reply::Changed(epoch)) => Ok(ChangeOrder::Now(epoch)),
        other => Err(ChangeError::Unknown(format!("{other:?}"))),
    }
}

/// The map from the sequencer's leader, which has applied every change that
/// was ever acknowledged.
async fn sequencer_map(peers: &dyn Peers, router: &dyn Router) -> Option<(NodeId, ShardMap)> {
    let route = router.sequencer();
    let others = route.voters.into_iter().filter(|voter| Some(*voter) != route.leader);
    for node in route.leader.into_iter().chain(others) {
        if let Ok(Reply::Map(map)) = peers.call(node, Request::Map, CALL_DEADLINE).await {
            return Some((node, map));
        }
    }
    None
}
