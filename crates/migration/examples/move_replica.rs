//! Moves a replica of an in-memory group. The first coordinator loses its
//! authority on the way; the second finds the row in the table and finishes.
//!
//! `cargo run -p quorate-migration --example move_replica`

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_migration::{
    Config, ControlError, Executor, Fence, Journal, LocalJournal, MigrationRow,
    MigrationStateTable, Phase, Place, Progress, Refusal, Removal, ReplicaControl, ReplicaProgress,
    Status, TableConfig, VoterChange,
};
use quorate_types::disk::DirectoryDisk;
use quorate_types::env::SystemClock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId, watch};

/// One group whose replicas all answer. A learner receives a few hundred
/// entries between two measurements.
struct Group {
    leader: ReplicaId,
    voters: BTreeSet<ReplicaId>,
    learners: BTreeSet<ReplicaId>,
    matched: BTreeMap<ReplicaId, u64>,
    last_log: u64,
    newest: Option<Fence>,
}

impl Group {
    fn admit(&mut self, fence: Fence) -> Result<(), ControlError> {
        if self.newest.is_some_and(|newest| fence.is_older_than(&newest)) {
            return Err(ControlError::Refused(Refusal::Fenced));
        }
        self.newest = Some(fence);
        Ok(())
    }

    fn progress(&mut self) -> Progress {
        self.last_log += 10;
        for matched in self.matched.values_mut() {
            *matched = self.last_log.min(*matched + 300);
        }
        let fresh = |matched: &u64| ReplicaProgress { matched: *matched, is_fresh: true };
        Progress {
            leader: Some(self.leader),
            last_log: self.last_log,
            replicas: self.matched.iter().map(|(id, matched)| (*id, fresh(matched))).collect(),
            voters: self.voters.clone(),
            outgoing: None,
            learners: self.learners.clone(),
        }
    }
}

#[derive(Clone)]
struct OneGroup(Arc<Mutex<Group>>);

impl OneGroup {
    fn act<T: Send + 'static>(
        &self,
        fence: Fence,
        act: impl FnOnce(&mut Group) -> T,
    ) -> BoxFuture<Result<T, ControlError>> {
        let mut group = self.0.lock();
        let done = group.admit(fence).map(|()| act(&mut group));
        Box::pin(async move { done })
    }
}

impl ReplicaControl for OneGroup {
    fn progress(&self, _: GroupId) -> BoxFuture<Result<Progress, ControlError>> {
        let progress = self.0.lock().progress();
        Box::pin(async move { Ok(progress) })
    }

    fn add_learner(
        &self,
        fence: Fence,
        _: GroupId,
        replica: ReplicaId,
        _: NodeId,
    ) -> BoxFuture<Result<(), ControlError>> {
        self.act(fence, |group| {
            if !group.voters.contains(&replica) && group.learners.insert(replica) {
                group.matched.insert(replica, 0);
            }
        })
    }

    fn change_voters(
        &self,
        fence: Fence,
        _: GroupId,
        change: VoterChange,
    ) -> BoxFuture<Result<(), ControlError>> {
        self.act(fence, |group| {
            if let Some(add) = change.add.filter(|add| group.learners.remove(add)) {
                group.voters.insert(add);
            }
            if let Some(remove) = change.remove {
                group.voters.remove(&remove);
                group.matched.remove(&remove);
            }
        })
    }

    fn transfer_leader(
        &self,
        fence: Fence,
        _: GroupId,
        to: ReplicaId,
    ) -> BoxFuture<Result<Duration, ControlError>> {
        self.act(fence, |group| {
            group.leader = to;
            Duration::from_millis(3)
        })
    }

    fn remove(
        &self,
        fence: Fence,
        _: GroupId,
        replica: ReplicaId,
    ) -> BoxFuture<Result<Removal, ControlError>> {
        self.act(fence, |group| {
            if group.learners.remove(&replica) {
                group.matched.remove(&replica);
            }
            Removal::Destroyed
        })
    }
}

fn describe(group: &OneGroup) -> String {
    let group = group.0.lock();
    format!("voters {:?}, learners {:?}, led by {}", group.voters, group.learners, group.leader)
}

fn coordinator(
    node: u64,
    term: u64,
    journal: &LocalJournal,
    group: &OneGroup,
) -> (Executor, watch::Sender<Option<u64>>) {
    let (authority, receiver) = watch::channel(Some(term));
    let mut config = Config::new(NodeId(node), SystemClock::shared());
    config.poll_interval = Duration::from_millis(20);
    let (journal, control) = (Arc::new(journal.clone()), Arc::new(group.clone()));
    (Executor::spawn(journal, control, receiver, config), authority)
}

async fn until(executor: &Executor, accept: impl Fn(&Status) -> bool) -> Result<(), watch::Closed> {
    executor.status().wait_for(accept).await.map(drop)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("quorate-move-{}", std::process::id()));
    let disk = DirectoryDisk::open(&directory)?;
    let table = MigrationStateTable::open(&disk, TableConfig::default())?;
    let journal = LocalJournal::spawn(table)?;

    let voters: BTreeSet<_> = [11, 12, 13].map(ReplicaId).into();
    let group = OneGroup(Arc::new(Mutex::new(Group {
        leader: ReplicaId(11),
        matched: voters.iter().map(|voter| (*voter, 5_000)).collect(),
        voters,
        learners: BTreeSet::new(),
        last_log: 5_000,
        newest: None,
    })));
    println!("before:   {}", describe(&group));

    let from = Place { node: NodeId(1), replica: ReplicaId(11) };
    let to = Place { node: NodeId(4), replica: ReplicaId(14) };
    let of = (ShardId(7), GroupId(7));
    let planned = MigrationRow::planned(MigrationId::random(), of, from, to, 1, Hlc::default());
    journal.record(planned, None, 1).await?;

    let (first, authority) = coordinator(1, 1, &journal, &group);
    let is_catching_up = |status: &Status| {
        status.running.values().any(|running| running.row.phase() == Phase::CatchUp)
    };
    until(&first, is_catching_up).await?;
    authority.send(None);
    first.stop().await;
    println!("left at:  {}", describe(&group));
    for row in journal.rows().await? {
        println!("the row:  {} by term {}", row.position(), row.term);
    }

    let (second, _authority) = coordinator(2, 2, &journal, &group);
    until(&second, |status| status.completed == 1).await?;
    println!("after:    {}", describe(&group));
    println!("writes paused for {:?}", second.status().get().pause_longest);
    second.stop().await;
    drop(journal);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
