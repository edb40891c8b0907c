//! Bringing a map change into the order, from any node.

use std::time::Duration;

use quorate_types::{Epoch, NodeId};

use crate::command::{MapChange, Misfit, NeverFits, ShardMap};
use crate::ports::{Peers, Router};
use crate::wire::{Reply, Request};

/// How long one call to the sequencer may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);

/// How a map change stands in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeOrder {
    /// It was ordered now, at this epoch.
    Now(Epoch),
    /// The map shows its cut since an earlier attempt.
    Before,
    /// The map does not show it and never will, whatever is still on its way.
    Never(NeverFits),
}

/// Why it cannot be told how a map change ends. Asking again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nobody who leads the sequencer answers.
    #[error("the sequencer does not answer")]
    NoSequencer,
    /// The change may or may not be ordered.
    #[error("the map change is not known to be ordered: {0}")]
    Unknown(String),
    /// The map has no place for the change, which may come.
    #[error("the map change is not ordered: {0}")]
    NotYet(Misfit),
}

/// Sequences a map change, unless the sequencer's map shows its cut already.
/// The version is the sequencer's to give: that of `change` is not looked at.
/// Of two changes that are asked for at once the second may have to be asked
/// for again.
///
/// Whatever is answered here was read from a map: a reply to the change itself
/// only says when to look, and the epoch of a cut that is there.
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
    if let Some(order) = standing(&map, &change)? {
        return Ok(order);
    }
    let change = MapChange { version: map.version.saturating_add(1), ..change };
    let reply = peers.call(leader, Request::Change(change.clone()), CALL_DEADLINE).await;
    let unknown = || ChangeError::Unknown(format!("{reply:?}"));
    if !matches!(reply, Ok(Reply::Changed(_) | Reply::NotChanged(_))) {
        return Err(unknown());
    }
    let (_, map) = sequencer_map(peers, router).await.ok_or_else(unknown)?;
    match (standing(&map, &change)?.ok_or_else(unknown)?, &reply) {
        (ChangeOrder::Before, Ok(Reply::Changed(epoch))) => Ok(ChangeOrder::Now(*epoch)),
        (order, _) => Ok(order),
    }
}

/// How a change stands by a map; `None` while it fits. A leader that was
/// deposed unawares shows an old map, which does no harm: what it says of a
/// change that is in force, or never will be, stays so.
fn standing(map: &ShardMap, change: &MapChange) -> Result<Option<ChangeOrder>, ChangeError> {
    match map.halves(change) {
        Ok(_) => Ok(None),
        Err(Misfit::InForce) => Ok(Some(ChangeOrder::Before)),
        Err(Misfit::Never(reason)) => Ok(Some(ChangeOrder::Never(reason))),
        Err(misfit) => Err(ChangeError::NotYet(misfit)),
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
