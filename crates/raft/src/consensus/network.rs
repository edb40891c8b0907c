//! Calls from a replica to its peers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    ErrorSource, NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, StorageError};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId, planted, sometimes, watch};
use tokio::sync::OwnedSemaphorePermit;

use super::applier::SnapshotData;
use super::probe::Probe;
use super::streaming::{last_of, stream};
use super::types::{Member, RaftVoteOf, TypeConfig, log_id, our_vote, position, raft_vote};
use super::wire::{
    Append, Body, Message, Refusal, Reply, Transfer, VoteCall, host_row, to_wire_entry,
};
use crate::config::HostConfig;
use crate::group::Counters;
use crate::heartbeats::{Haste, Heartbeats, Way};
use crate::snapshots::{Feeding, Outgoing, SendError, Sending, send};
use crate::transport::{Lane, Transport, TransportError};

type RpcError = RPCError<TypeConfig>;
type Streaming = StreamingError<TypeConfig>;

/// What all links of a replica share.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) config: Arc<HostConfig>,
    /// How long an append may wait for the follower's disk.
    pub(crate) append_deadline: Duration,
    /// Whether heartbeats are to be sent.
    pub(crate) probe: Arc<Probe>,
    /// Those of all groups of this node.
    pub(crate) heartbeats: Arc<Heartbeats>,
    /// Whether those of this group may wait.
    pub(crate) haste: Arc<Haste>,
    /// What bounds the snapshots this node sends.
    pub(crate) sending: Arc<Sending>,
    /// How followers of this replica come to what they lack.
    pub(crate) feeding: Arc<Feeding>,
    /// As in [`GroupLog`](super::storage::GroupLog).
    pub(crate) end: watch::Sender<u64>,
    pub(crate) counters: Arc<Counters>,
}

impl Links {
    fn link(&self, target: u64, member: Member, lane: Lane) -> Link {
        let (links, to, node) = (self.clone(), ReplicaId(target), member.node_id());
        let way = Way::of(&links.haste);
        Link { links, to, node, lane, way, turn: None }
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, *node, Lane::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, *node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, *node, Lane::Snapshot)
    }
}

/// The way to one peer. Connects nothing: the transport does, when needed.
pub(crate) struct Link {
    pub(crate) links: Links,
    to: ReplicaId,
    pub(crate) node: NodeId,
    lane: Lane,
    way: Way,
    /// The right to send a snapshot, for the next call.
    turn: Option<OwnedSemaphorePermit>,
}

/// Why there is no usable reply.
pub(crate) enum CallError {
    /// What the follower lacks is about to be purged.
    TooFarBehind,
    /// A leader without a quorum keeps silent for a while.
    HeldBack,
    Transport(TransportError),
    Refused(Refusal),
    Malformed(String),
}

impl CallError {
    fn text(&self) -> String {
        match self {
            Self::TooFarBehind => "it needs a snapshot, the log is too long to wait".to_owned(),
            Self::HeldBack => "no quorum answers, so the leader is silent for a while".to_owned(),
            Self::Transport(error) => error.to_string(),
            Self::Refused(refusal) => refusal.to_string(),
            Self::Malformed(what) => what.clone(),
        }
    }

    /// Everything that will not be better at once makes openraft back off.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Transport(TransportError::Deadline { .. }) | Self::TooFarBehind => false,
            Self::HeldBack | Self::Transport(_) | Self::Refused(_) | Self::Malformed(_) => true,
        }
    }

    fn rpc(self) -> RpcError {
        if self.is_lasting() {
            Unreachable::from_string(self.text()).into()
        } else {
            NetworkError::from_string(self.text()).into()
        }
    }

    fn streaming(self) -> Streaming {
        if self.is_lasting() {
            Unreachable::from_string(self.text()).into()
        } else {
            NetworkError::from_string(self.text()).into()
        }
    }
}

pub(crate) fn unexpected(reply: &Reply) -> CallError {
    match reply {
        Reply::Refused(refusal) => CallError::Refused(refusal.clone()),
        other => CallError::Malformed(format!("unexpected reply {other:?}")),
    }
}

impl Link {
    /// Sends at once, unless it is a heartbeat, which may wait for others; the
    /// returned future waits for the reply.
    pub(crate) fn call(
        &self,
        lane: Lane,
        body: Body<'_>,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + 'static + use<> {
        let message =
            Message { group: self.links.group, from: self.links.replica, to: self.to, body };
        let links = &self.links;
        let reply = if lane == Lane::Heartbeat && message.is_heartbeat() {
            links.heartbeats.call(self.node, message.to_bytes(), deadline, &self.way)
        } else {
            links.transport.call(self.node, lane, message.to_bytes(), deadline)
        };
        async move {
            let reply = reply.await.map_err(CallError::Transport)?;
            Reply::from_bytes(&reply).map_err(|error| CallError::Malformed(error.to_string()))
        }
    }

    fn append_call(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        option: &RPCOption,
    ) -> impl Future<Output = Result<AppendEntriesResponse<TypeConfig>, RpcError>> + Send + 'static + use<>
    {
        // A heartbeat that is late is useless; entries wait for a disk.
        let deadline = match self.lane {
            Lane::Heartbeat => option.hard_ttl(),
            Lane::Data | Lane::Snapshot | Lane::Request => {
                option.hard_ttl().max(self.links.append_deadline)
            }
        };
        let is_held_back = self.lane == Lane::Heartbeat
            && self.links.probe.holds_back(request.vote.leader_id.term);
        let carries_entries = self.lane == Lane::Data && !request.entries.is_empty();
        let next = request.prev_log_id.map_or(0, |previous| previous.index + 1);
        let last = last_of(request);
        let reply = if is_held_back {
            Err(CallError::HeldBack)
        } else if carries_entries && self.links.feeding.has_given_up(next) {
            sometimes!("a follower is too slow to be sent entries");
            Err(CallError::TooFarBehind)
        } else {
            Ok(self.call(self.lane, Body::Append(to_append(request)), deadline))
        };
        let is_next = (self.to.0 % 3 + 3 - self.links.replica.0 % 3) % 3 == 1;
        async move {
            if planted!(QuorumOffByOne) && carries_entries && is_next {
                return Ok(AppendEntriesResponse::Success);
            }
            match reply.map_err(CallError::rpc)?.await.map_err(CallError::rpc)? {
                Reply::Appended => Ok(AppendEntriesResponse::Success),
                Reply::AppendedPartly(upto) if upto.map(log_id) <= last => {
                    Ok(AppendEntriesResponse::PartialSuccess(upto.map(log_id)))
                }
                Reply::AppendConflict => Ok(AppendEntriesResponse::Conflict),
                Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(raft_vote(vote))),
                other => Err(unexpected(&other).rpc()),
            }
        }
    }

    async fn vote_call(
        &self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
        wrap: fn(VoteCall) -> Body<'static>,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let call = VoteCall {
            vote: our_vote(&request.vote),
            last: request.last_log_id.as_ref().map(position),
            is_transfer: request.leadership_transfer,
        };
        let reply = self.call(Lane::Heartbeat, wrap(call), option.hard_ttl());
        match reply.await.map_err(CallError::rpc)? {
            Reply::Voted(voted) => Ok(VoteResponse {
                vote: raft_vote(voted.vote),
                vote_granted: voted.granted,
                last_log_id: voted.last.map(log_id),
            }),
            other => Err(unexpected(&other).rpc()),
        }
    }
}

impl Link {
    async fn send_snapshot(
        &mut self,
        outgoing: Outgoing,
    ) -> Result<SnapshotResponse<TypeConfig>, Streaming> {
        let Some(turn) = self.turn.take().or_else(|| self.links.sending.try_permit()) else {
            // What waits for its turn holds no view of the state, which would grow
            // old, and which the machine would have to keep: openraft takes another.
            drop(outgoing);
            self.turn = self.links.sending.permit().await;
            return Err(NetworkError::from_string("it was not its turn").into());
        };
        match send(self, outgoing, turn).await {
            Ok(vote) => Ok(SnapshotResponse::new(raft_vote(vote))),
            Err(SendError::Call(error)) => Err(error.streaming()),
            Err(SendError::Read(error)) => {
                let error = openraft::impls::BoxedErrorSource::from_string(error.to_string());
                Err(Streaming::StorageError(StorageError::read_snapshot(None, error)))
            }
        }
    }
}

fn to_append(request: &AppendEntriesRequest<TypeConfig>) -> Append<'_> {
    Append {
        vote: our_vote(&request.vote),
        previous: request.prev_log_id.as_ref().map(position),
        committed: request.leader_commit.as_ref().map(position),
        entries: request.entries.iter().map(to_wire_entry).collect(),
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        self.append_call(&request, &option).await
    }

    /// Keeps a few calls under way; replies come back in the order of calls.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let in_flight = self.links.config.appends_in_flight_max.max(1);
        let end = (self.lane == Lane::Data).then(|| self.links.end.subscribe());
        let call =
            move |request: &AppendEntriesRequest<TypeConfig>| self.append_call(request, &option);
        let replies: BoxStream<'s, _> = Box::pin(stream(input, end, in_flight, call));
        Box::pin(std::future::ready(Ok(replies)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.vote_call(request, option, Body::Vote).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.vote_call(request, option, Body::PreVote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVoteOf,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, Streaming> {
        let SnapshotData::Reader(reader) = snapshot.snapshot else {
            return Err(
                CallError::Malformed("a staged snapshot cannot be sent".to_owned()).streaming()
            );
        };
        let Some(last) = snapshot.meta.last_log_id else {
            return Err(CallError::Malformed("a snapshot of nothing".to_owned()).streaming());
        };
        sometimes!("a snapshot is sent");
        let row = Blob(host_row(position(&last), &snapshot.meta.last_membership));
        let outgoing = Outgoing { vote: our_vote(&vote), host_row: row, reader };
        let send = self.send_snapshot(outgoing);
        match select(Box::pin(cancel), Box::pin(send)).await {
            Either::Left((closed, _)) => Err(closed.into()),
            Either::Right((result, _)) => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let transfer = Transfer {
            vote: our_vote(request.from_leader()),
            to: ReplicaId(*request.to_node_id()),
            last: request.last_log_id().map(position),
        };
        let reply = self.call(Lane::Heartbeat, Body::Transfer(transfer), option.hard_ttl());
        match reply.await.map_err(CallError::rpc)? {
            Reply::TransferAccepted => Ok(Ok(())),
            Reply::TransferVoteChanged(actual) => Ok(Err(TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: raft_vote(actual),
            })),
            Reply::TransferLogBehind(actual) => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: actual.map(log_id),
            })),
            other => Err(unexpected(&other).rpc()),
        }
    }
}
