//! How a node becomes a member: founding a cluster with others, joining one
//! that runs, or coming back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_meta::{Bootstrap, Command, Label, METADATA_GROUP, NodeSpec, ZONE_LABEL};
use quorate_types::{ClusterId, NodeId, ReplicaId};

use crate::control::{ControlReply, ControlRequest};
use crate::error::{AdminError, NodeError};
use crate::node::NodeInner;

/// The metadata and sequencer groups have at most so many founding voters.
const SYSTEM_VOTERS_MAX: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// The newest cluster format this build supports.
const SUPPORTS: u32 = 1;

/// What founding members have reported to the lowest of them.
#[derive(Default)]
pub(crate) struct Reports {
    founders: Mutex<BTreeMap<NodeId, NodeSpec>>,
}

impl NodeInner {
    fn founders(&self) -> Vec<NodeId> {
        let mut founders: Vec<NodeId> = match self.config.initial_cluster.as_slice() {
            [] => vec![self.node],
            listed => listed.iter().map(|(node, _)| *node).collect(),
        };
        founders.sort_unstable();
        founders.dedup();
        founders
    }

    fn system_voters(&self) -> Vec<NodeId> {
        self.founders().into_iter().take(SYSTEM_VOTERS_MAX).collect()
    }

    fn own_spec(&self) -> NodeSpec {
        let zone = self
            .config
            .zone
            .iter()
            .map(|zone| Label { name: ZONE_LABEL.to_owned(), value: zone.clone() });
        NodeSpec {
            node: self.node,
            disk: self.disk_id(),
            address: self.address.clone(),
            labels: zone.collect(),
            supports: SUPPORTS,
        }
    }

    /// Works until the node is a member of a cluster and knows it.
    pub(crate) async fn become_member(self: &Arc<Self>) -> Result<(), NodeError> {
        if self.cluster().is_some() {
            return self.announce().await;
        }
        if self.config.join.is_empty() {
            self.found().await?;
        } else {
            self.join().await?;
        }
        let mut views = self.directory.views();
        let joined = views
            .wait_for(|view| view.cluster().is_some())
            .await
            .map_err(|error| NodeError::layer("metadata", error))?;
        self.adopt(joined.cluster())
    }

    fn adopt(&self, cluster: Option<ClusterId>) -> Result<(), NodeError> {
        let Some(cluster) = cluster else { return Ok(()) };
        self.gossip.set_cluster(cluster);
        self.cluster.send(Some(cluster));
        Ok(self.identity.adopt(cluster)?)
    }

    /// Founds the cluster: the lowest node initializes it once all founders
    /// have reported, so that their disks are in the first metadata entry.
    async fn found(self: &Arc<Self>) -> Result<(), NodeError> {
        let voters = quorate_meta::metadata_replicas(self.system_voters());
        if let Some((replica, _)) = voters.iter().find(|(_, node)| *node == self.node) {
            self.hosting.open(METADATA_GROUP, *replica).await?;
        }
        let founders = self.founders();
        let Some(lowest) = founders.first().copied() else { return Ok(()) };
        if lowest == self.node {
            self.reports.founders.lock().insert(self.node, self.own_spec());
            self.lead_founding(&founders, voters).await
        } else {
            self.report_to(lowest).await
        }
    }

    async fn lead_founding(
        &self,
        founders: &[NodeId],
        voters: Vec<(ReplicaId, NodeId)>,
    ) -> Result<(), NodeError> {
        loop {
            if self.directory.view().cluster().is_some() {
                return Ok(());
            }
            if founders.iter().all(|node| self.reports.founders.lock().contains_key(node)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(group) = self.metadata.group() {
            // Refused when an earlier life got this far; then it is formed.
            if let Err(error) = group.initialize(&voters).await {
                tracing::debug!(%error, "the metadata group was formed before");
            }
        }
        let command = Command::Bootstrap(self.first_entry(founders));
        loop {
            match self.metadata.run(&command).await {
                Ok(_) => return Ok(()),
                Err(AdminError::Unavailable(reason)) => {
                    tracing::info!(%reason, "waiting for the metadata group");
                }
                Err(error) => return Err(NodeError::layer("metadata", error)),
            }
        }
    }

    fn first_entry(&self, founders: &[NodeId]) -> Bootstrap {
        let specs = self.reports.founders.lock().clone();
        let system_voters: Vec<NodeId> = self.system_voters();
        let replicas = usize::try_from(self.config.replicas).unwrap_or(usize::MAX);
        Bootstrap {
            // Drawn from the founding node's disk, so that a founding that is
            // interrupted goes on with the same identity.
            cluster: ClusterId(self.disk_id().0),
            nodes: founders.iter().filter_map(|node| specs.get(node).cloned()).collect(),
            metadata_voters: system_voters.iter().copied().collect(),
            sequencer_voters: system_voters.iter().copied().collect(),
            replicas_per_shard: u32::try_from(replicas.min(founders.len())).unwrap_or(1),
            split_keys: self.config.split_keys().into_iter().map(Into::into).collect(),
        }
    }

    async fn report_to(&self, lowest: NodeId) -> Result<(), NodeError> {
        let request =
            ControlRequest::Report { spec: self.own_spec(), digest: self.config.digest() };
        loop {
            if self.directory.view().cluster().is_some() {
                return Ok(());
            }
            match self.peers.control(lowest, &request, CALL_DEADLINE).await {
                Ok(ControlReply::Cluster(Some(_))) => {
                    self.metadata.fetch(lowest).await;
                }
                Ok(ControlReply::Refused(reason)) => {
                    let reason = String::from_utf8_lossy(&reason).into_owned();
                    return Err(NodeError::Refused(reason));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%lowest, %error, "the founding node does not answer");
                    for founder in self.founders() {
                        if founder != self.node && self.metadata.fetch(founder).await {
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes a founding member's report.
    pub(crate) fn reported(&self, spec: NodeSpec, digest: u64) -> ControlReply {
        let cluster = self.directory.view().cluster();
        if cluster.is_some() {
            return ControlReply::Cluster(cluster);
        }
        if digest != self.config.digest() {
            let reason = "this node was started with another initial cluster, shard or replica \
                          count than the founding node";
            return ControlReply::Refused(reason.into());
        }
        self.reports.founders.lock().insert(spec.node, spec);
        ControlReply::Cluster(None)
    }

    /// Joins a running cluster through any of the given members.
    async fn join(&self) -> Result<(), NodeError> {
        let request = ControlRequest::Join(self.own_spec());
        loop {
            for address in &self.config.join {
                let Some(member) = self.introduce(address).await? else { continue };
                match self.peers.control(member, &request, CALL_DEADLINE).await {
                    Ok(ControlReply::Cluster(Some(_))) => {
                        if self.metadata.fetch(member).await {
                            return Ok(());
                        }
                    }
                    Ok(ControlReply::Refused(reason)) => {
                        let reason = String::from_utf8_lossy(&reason).into_owned();
                        return Err(NodeError::Refused(reason));
                    }
                    Ok(_) => {}
                    Err(error) => tracing::info!(%address, %error, "cannot join there yet"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Admits a node on its request, on behalf of whichever member it asked.
    pub(crate) async fn admit(&self, spec: NodeSpec) -> ControlReply {
        if self.directory.view().cluster().is_none() {
            return ControlReply::Unavailable("the cluster is being founded".into());
        }
        let node = spec.node;
        let address = spec.address.clone();
        match self.metadata.run(&Command::Join(spec)).await {
            Ok(_) => {
                self.directory.learn_address(node, &address);
                ControlReply::Cluster(self.directory.view().cluster())
            }
            Err(AdminError::Unavailable(reason)) => {
                ControlReply::Unavailable(reason.as_str().into())
            }
            Err(error) => ControlReply::Refused(error.to_string().as_str().into()),
        }
    }

    /// A member that came back tells the metadata where it listens now.
    async fn announce(&self) -> Result<(), NodeError> {
        let mut views = self.directory.views();
        let known = views.wait_for(|view| view.cluster().is_some()).await;
        let known = known.map_err(|error| NodeError::layer("metadata", error))?;
        if known.node(self.node).is_some_and(|record| record.address == self.address) {
            return Ok(());
        }
        match self.metadata.run(&Command::Join(self.own_spec())).await {
            Err(AdminError::Refused(reason)) => Err(NodeError::Refused(reason)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
