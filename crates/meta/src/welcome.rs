//! Who is let in: the registry's verdict on a caller.

use quorate_types::ClusterId;
use quorate_types::hello::Hello;

use crate::nodes::NodeState;
use crate::view::ClusterView;

impl ClusterView {
    /// Decides about a peer by what is known of it. Whoever is not known yet
    /// is welcome: it may be about to join.
    ///
    /// # Errors
    /// The refusal, for the peer's operator to read: it is of another cluster
    /// than `ours`, came with another disk than it joined with, or was removed.
    pub fn judge(&self, ours: Option<ClusterId>, theirs: &Hello) -> Result<(), String> {
        if let (Some(ours), Some(theirs)) = (ours, theirs.cluster)
            && ours != theirs
        {
            return Err(format!("this node belongs to cluster {ours}, not {theirs}"));
        }
        let node = theirs.node;
        match self.node(node) {
            Some(known) if known.disk != theirs.disk => Err(format!(
                "{node} joined with another disk; this disk is not the one that joined; join \
                 under a new id"
            )),
            Some(known) if known.state == NodeState::Removed => {
                Err(format!("{node} was removed; join under a new id"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
