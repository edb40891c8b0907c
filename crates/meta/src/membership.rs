//! How a node becomes a member: founding a cluster with others, joining one
//! that runs, or coming back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::{ClusterId, NodeId, ReplicaId};

use crate::bootstrap::metadata_replicas;
use crate::client::{AdminError, MetadataClient};
use crate::command::Command;
use crate::directory::Directory;
use crate::error::MetaError;
use crate::identity::{IdentityError, IdentityFile};
use crate::initial::InitialCluster;
use crate::nodes::NodeSpec;
use crate::ports::{BoxError, Host, Peers};
use crate::wire::{Request, Response};

/// The pause between tries, while others start.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a node cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The cluster does not take it; the text says why and what to do.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// The first command was refused.
    #[error("the cluster cannot be founded")]
    Founding(#[source] AdminError),
    /// The directory cannot be bound to the cluster.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Something behind a port failed.
    #[error(transparent)]
    Failed(BoxError),
    /// The node ends.
    #[error("the node is stopping")]
    Stopping,
}

/// What a node knows before it is a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembershipConfig {
    /// The node itself.
    pub own: NodeSpec,
    /// The cluster that it founds with others, unless it joins one.
    pub initial: InitialCluster,
    /// Addresses of running members, for a further node.
    pub join: Vec<String>,
}

impl MembershipConfig {
    /// Asks every address in it whether this disk is welcome there, so that
    /// one that is not fails before it has done anything, and not as a silent
    /// member. Who does not answer has nothing against it.
    ///
    /// # Errors
    /// [`MembershipError::Refused`]
    pub async fn ask_around(&self, peers: &dyn Peers) -> Result<(), MembershipError> {
        let others = self.initial.members.iter().filter(|(node, _)| *node != self.own.node);
        for address in others.map(|(_, address)| address).chain(&self.join) {
            peers.introduce(address).await?;
        }
        Ok(())
    }
}

/// Makes the node a member and admits others.
pub struct Membership {
    config: MembershipConfig,
    client: Arc<MetadataClient>,
    identity: Arc<IdentityFile>,
    host: Arc<dyn Host>,
    /// What founding members have reported to the lowest of them.
    reports: Mutex<BTreeMap<NodeId, NodeSpec>>,
}

impl Membership {
    /// The membership of the node that `config` describes.
    #[must_use]
    pub fn new(
        config: MembershipConfig,
        client: Arc<MetadataClient>,
        identity: Arc<IdentityFile>,
        host: Arc<dyn Host>,
    ) -> Self {
        Self { config, client, identity, host, reports: Mutex::default() }
    }

    /// Works until the node is a member of a cluster, knows it, and has bound
    /// its directory to it.
    ///
    /// # Errors
    /// [`MembershipError`]; what is only not there yet is waited for.
    pub async fn become_member(&self) -> Result<ClusterId, MembershipError> {
        if let Some(cluster) = self.identity.identity().cluster {
            self.announce().await?;
            return Ok(cluster);
        }
        if self.config.join.is_empty() {
            self.found().await?;
        } else {
            self.join().await?;
        }
        let cluster = self.cluster().await?;
        self.identity.adopt(cluster)?;
        Ok(cluster)
    }

    /// Serves a request of another node, to its encoded response.
    ///
    /// # Errors
    /// [`MetaError::Encoding`] for bytes that are no request.
    pub async fn handle(&self, request: &[u8]) -> Result<Bytes, MetaError> {
        let response = match Request::from_bytes(request)? {
            Request::Report { spec, digest } => self.reported(spec, digest),
            Request::Join(spec) => self.admit(spec).await,
            Request::Propose(entry) => self.client.propose(entry.0).await,
            Request::View(known) => self.client.show(known),
        };
        Ok(response.to_bytes())
    }

    /// The addresses to ask for the cluster's members.
    #[must_use]
    pub fn seeds(&self) -> Vec<String> {
        let founders = self.config.initial.members.iter().map(|(_, address)| address.clone());
        let members = self.directory().members();
        let known = members.into_iter().filter_map(|member| self.directory().address(member));
        let mut seeds: Vec<String> =
            founders.chain(self.config.join.iter().cloned()).chain(known).collect();
        seeds.retain(|address| *address != self.config.own.address);
        seeds.sort();
        seeds.dedup();
        seeds
    }

    fn directory(&self) -> &Directory {
        self.client.directory()
    }

    fn own(&self) -> NodeId {
        self.config.own.node
    }

    fn is_founded(&self) -> bool {
        self.directory().view().cluster().is_some()
    }

    /// The cluster, once the metadata has reached this node.
    async fn cluster(&self) -> Result<ClusterId, MembershipError> {
        let mut views = self.directory().views();
        let view = views.wait_for(|view| view.cluster().is_some()).await;
        view.ok().and_then(|view| view.cluster()).ok_or(MembershipError::Stopping)
    }

    /// Founds the cluster: the lowest node initializes it once all founders
    /// have reported, so that their disks are in the first metadata entry.
    async fn found(&self) -> Result<(), MembershipError> {
        let voters = metadata_replicas(self.config.initial.system_voters(self.own()));
        if let Some((replica, _)) = voters.iter().find(|(_, node)| *node == self.own()) {
            self.host.open_metadata(*replica).await.map_err(MembershipError::Failed)?;
        }
        let founders = self.config.initial.founders(self.own());
        match founders.first() {
            Some(lowest) if *lowest != self.own() => self.report_to(*lowest, &founders).await,
            _ => self.lead_founding(&founders, voters).await,
        }
    }

    async fn lead_founding(
        &self,
        founders: &[NodeId],
        voters: Vec<(ReplicaId, NodeId)>,
    ) -> Result<(), MembershipError> {
        self.reports.lock().insert(self.own(), self.config.own.clone());
        while !founders.iter().all(|node| self.reports.lock().contains_key(node)) {
            if self.is_founded() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        if self.is_founded() {
            return Ok(());
        }
        if let Some(replica) = self.client.replica() {
            // Refused when an earlier life got this far; then it is formed.
            if let Err(error) = replica.initialize(voters).await {
                tracing::debug!(%error, "the metadata group was formed before");
            }
        }
        let specs = self.reports.lock().clone();
        let reported = founders.iter().filter_map(|node| specs.get(node).cloned()).collect();
        let first = self.config.initial.bootstrap(&self.config.own, reported);
        let command = Command::Bootstrap(first);
        loop {
            match self.client.run(&command).await {
                Ok(_) => return Ok(()),
                Err(AdminError::Unavailable(reason)) => {
                    tracing::info!(%reason, "waiting for the metadata group");
                }
                Err(error) => return Err(MembershipError::Founding(error)),
            }
        }
    }

    async fn report_to(&self, lowest: NodeId, founders: &[NodeId]) -> Result<(), MembershipError> {
        let spec = self.config.own.clone();
        let request = Request::Report { spec, digest: self.config.initial.digest() };
        while !self.is_founded() {
            match self.client.ask(lowest, &request).await {
                Ok(Response::Cluster(Some(_))) => {
                    self.client.fetch(lowest).await;
                }
                Ok(Response::Refused(reason)) => return Err(MembershipError::Refused(reason)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%lowest, %error, "the founding node does not answer");
                    for founder in founders {
                        if *founder != self.own() && self.client.fetch(*founder).await {
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Takes a founding member's report.
    fn reported(&self, spec: NodeSpec, digest: u64) -> Response {
        let cluster = self.directory().view().cluster();
        if cluster.is_some() {
            return Response::Cluster(cluster);
        }
        // The same digest means the same list; who is not on it has no say.
        let is_founder = self.config.initial.founders(self.own()).contains(&spec.node);
        if digest != self.config.initial.digest() || !is_founder {
            let reason = "this node was started with another initial cluster, shard or replica \
                          count than the founding node; start all founders with the same";
            return Response::Refused(reason.to_owned());
        }
        self.reports.lock().insert(spec.node, spec);
        Response::Cluster(None)
    }

    /// Joins a running cluster through any of the given members.
    async fn join(&self) -> Result<(), MembershipError> {
        let request = Request::Join(self.config.own.clone());
        loop {
            for address in &self.config.join {
                let Some(member) = self.client.peers().introduce(address).await? else { continue };
                self.directory().learn_address(member, address);
                match self.client.ask(member, &request).await {
                    Ok(Response::Cluster(Some(_))) => {
                        if self.client.fetch(member).await {
                            return Ok(());
                        }
                    }
                    Ok(Response::Refused(reason)) => return Err(MembershipError::Refused(reason)),
                    Ok(_) => {}
                    Err(error) => tracing::info!(%address, %error, "cannot join there yet"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Admits a node on its request, on behalf of whichever member it asked.
    async fn admit(&self, spec: NodeSpec) -> Response {
        if !self.is_founded() {
            return Response::Unavailable("the cluster is being founded".to_owned());
        }
        let (node, address) = (spec.node, spec.address.clone());
        match self.client.run(&Command::Join(spec)).await {
            Ok(_) => {
                self.directory().learn_address(node, &address);
                Response::Cluster(self.directory().view().cluster())
            }
            Err(AdminError::Unavailable(reason)) => Response::Unavailable(reason),
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    /// A member that came back tells the metadata where it listens now, and
    /// what else it says of itself.
    async fn announce(&self) -> Result<(), MembershipError> {
        self.cluster().await?;
        let view = self.directory().view();
        if view.node(self.own()).is_some_and(|known| self.config.own.describes(known)) {
            return Ok(());
        }
        let command = Command::Join(self.config.own.clone());
        loop {
            match self.client.run(&command).await {
                Err(AdminError::Refused(reason)) => return Err(MembershipError::Refused(reason)),
                // Others would look for it at its old address.
                Err(AdminError::Unavailable(reason)) => {
                    tracing::info!(%reason, "waiting to announce this node's address");
                }
                Ok(_) | Err(AdminError::NotFound(_)) => return Ok(()),
            }
        }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("config", &self.config).finish()
    }
}
