//! The same with openraft alone, in the way of its own benchmark (`benchmarks/minimal`
//! in its repository, which is not published): a map for a log, a machine without a
//! state, and calls for messages.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::future::Future;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::type_config::alias::{
    EntryOf, LogIdOf, PayloadOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::{Config, LogState, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::run::Leader;

const MEMBERS: [u64; 3] = [0, 1, 2];
const PATIENCE: Duration = Duration::from_secs(10);

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Done,
        Node = (),
);

/// An empty command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Command {}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }
}

/// Its empty outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {}

type Member = Raft<Types, Machine>;

/// Starts them, and waits for a leader.
pub(crate) async fn start() -> Outcome<Member> {
    // What that benchmark sets.
    let config = Config {
        election_timeout_min: 200,
        election_timeout_max: 2_000,
        purge_batch_size: 1_024,
        max_payload_entries: 1_024,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    let calls = Calls::default();
    let mut all = Vec::new();
    for id in MEMBERS {
        let (log, machine) = (Log::default(), Machine::default());
        all.push(Raft::new(id, Arc::clone(&config), calls.clone(), log, machine).await?);
    }
    let all = calls.0.get_or_init(|| all);
    let leader = all.first().ok_or("no member")?;
    leader.initialize(BTreeMap::from(MEMBERS.map(|id| (id, ())))).await?;
    for member in all {
        // The membership, and the leader's first entry.
        member.wait(Some(PATIENCE)).applied_index_at_least(Some(1), "a leader").await?;
    }
    Ok(leader.clone())
}

impl Leader for Member {
    async fn write(&self) -> Outcome {
        self.client_write(Command {}).await?;
        Ok(())
    }
}

/// Calls the other member.
#[derive(Clone, Default)]
struct Calls(Arc<OnceLock<Vec<Member>>>);

struct Call {
    calls: Calls,
    target: usize,
}

impl Call {
    fn member(&self) -> Result<&Member, Unreachable<Types>> {
        let member = self.calls.0.get().and_then(|all| all.get(self.target));
        member.ok_or_else(|| unreachable("not started"))
    }
}

fn unreachable(reason: impl fmt::Display) -> Unreachable<Types> {
    Unreachable::from_string(reason.to_string())
}

impl RaftNetworkFactory<Types> for Calls {
    type Network = Call;

    async fn new_client(&mut self, target: u64, _node: &()) -> Call {
        let target = usize::try_from(target).unwrap_or(usize::MAX);
        Call { calls: self.clone(), target }
    }
}

impl RaftNetworkV2<Types> for Call {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.member()?.append_entries(request).await.map_err(unreachable)?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.member()?.vote(request).await.map_err(unreachable)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Ok(self.member()?.install_full_snapshot(vote, snapshot).await.map_err(unreachable)?)
    }
}

/// The log of a member.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    vote: Option<VoteOf<Types>>,
    purged: Option<LogIdOf<Types>>,
    entries: BTreeMap<u64, EntryOf<Types>>,
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<EntryOf<Types>>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.0.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.0.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let rows = self.0.lock();
        let last = rows.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: rows.purged, last_log_id: last.or(rows.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        self.0.lock().entries.extend(entries);
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let first_gone = last.map_or(0, |last| last.index + 1);
        drop(self.0.lock().entries.split_off(&first_gone));
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> Result<(), io::Error> {
        let mut rows = self.0.lock();
        rows.entries = rows.entries.split_off(&(upto.index + 1));
        rows.purged = Some(upto);
        Ok(())
    }
}

/// A machine without a state.
#[derive(Clone, Default)]
pub(crate) struct Machine(Arc<Mutex<SnapshotMetaOf<Types>>>);

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let applied = self.0.lock();
        Ok((applied.last_log_id, applied.last_membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut applied = self.0.lock().clone();
        while let Some((entry, responder)) = entries.try_next().await? {
            applied.last_log_id = Some(entry.log_id);
            if let PayloadOf::<Types>::Membership(membership) = entry.payload {
                applied.last_membership =
                    StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Done {});
            }
        }
        *self.0.lock() = applied;
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        (): (),
    ) -> Result<(), io::Error> {
        *self.0.lock() = meta.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        let meta = self.0.lock().clone();
        Ok(meta.last_log_id.is_some().then_some(Snapshot { meta, snapshot: () }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(Snapshot { meta: self.0.lock().clone(), snapshot: () })
    }
}
