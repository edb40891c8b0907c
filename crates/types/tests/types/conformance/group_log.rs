use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::conformance::{Replica, group_log_suite};
use quorate_types::group_log::{GroupLog, Leadership, ProposeError, ReadIndex};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{NodeId, watch};
use tokio::task::AbortHandle;

const LEADER: NodeId = NodeId(1);
/// What it takes until an entry is applied.
const COMMIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    AnswersEarly,
    Reorders,
    AppendsTwice,
    ReadIndexIsOld,
    FollowerConfirms,
    AppliedAtOnce,
    FollowerTakes,
    RefusesAndTakes,
    AllLead,
    EndIsSilent,
}

#[tokio::test(start_paused = true)]
async fn the_flawless_log_conforms() {
    group_log_suite(|| async { group(Flaw::None) }).await;
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test(start_paused = true)]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            group_log_suite(|| async { group(Flaw::$flaw) }).await;
        }
    )+};
}

refused! {
    an_answer_before_its_time_is_refused, AnswersEarly,
        "`GroupLog::propose` resolves once the command is applied by this replica";
    a_replica_with_an_order_of_its_own_is_refused, Reorders, "a group's log has one order";
    a_command_appended_twice_is_refused, AppendsTwice, "`GroupLog::propose`";
    an_old_read_index_is_refused, ReadIndexIsOld,
        "`ReadIndex::index`: everything committed when the confirmation began is at or below";
    a_follower_that_confirms_is_refused, FollowerConfirms, "a follower has none";
    what_is_said_to_be_applied_and_is_not_is_refused, AppliedAtOnce, "`GroupLog::applied`";
    a_follower_that_takes_is_refused, FollowerTakes, "`GroupLog::propose` of who does not lead";
    what_is_refused_and_taken_is_refused, RefusesAndTakes, "not in the log and never will be";
    two_leaders_are_refused, AllLead, "a term has one leader";
    an_end_that_nobody_hears_of_is_refused, EndIsSilent,
        "`GroupLog::applied` after the end has not come within";
}

/// The entries of a group, as if its leader's word were everybody's.
struct Group {
    flaw: Flaw,
    entries: watch::Sender<Vec<Bytes>>,
}

struct ModelLog {
    node: NodeId,
    group: Arc<Group>,
    applied: Mutex<Option<watch::Sender<u64>>>,
    leadership: watch::Sender<Leadership>,
    task: AbortHandle,
}

fn group(flaw: Flaw) -> Vec<Replica> {
    let (entries, _) = watch::channel(Vec::new());
    let group = Arc::new(Group { flaw, entries });
    [1, 2, 3].map(|node| replica(&group, NodeId(node))).into()
}

fn replica(group: &Arc<Group>, node: NodeId) -> Replica {
    let leads = node == LEADER || group.flaw == Flaw::AllLead;
    let leader = if leads { node } else { LEADER };
    let first = Leadership { term: 1, leader: Some(leader), leads };
    let commands: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (applied, _) = watch::channel(0);
    let reorders = group.flaw == Flaw::Reorders && node == NodeId(3);
    let apply = apply(group.entries.subscribe(), Arc::clone(&commands), applied.clone(), reorders);
    let log = Arc::new(ModelLog {
        node,
        group: Arc::clone(group),
        applied: Mutex::new(Some(applied)),
        leadership: watch::channel(first).0,
        task: runtime::spawn(apply).abort_handle(),
    });
    let ending = Arc::clone(&log);
    let end = move || -> BoxFuture<()> {
        Box::pin(async move {
            ending.task.abort();
            if ending.group.flaw == Flaw::EndIsSilent {
                return;
            }
            ending.applied.lock().take();
            // The task lets go of its end at its next turn.
            tokio::time::sleep(COMMIT).await;
        })
    };
    let applied = Box::new(move || commands.lock().clone());
    Replica { node, log, applied, end: Some(Box::new(end)) }
}

async fn apply(
    mut entries: watch::Receiver<Vec<Bytes>>,
    commands: Arc<Mutex<Vec<Bytes>>>,
    applied: watch::Sender<u64>,
    reorders: bool,
) {
    let mut index = 0;
    while entries.changed().await.is_ok() {
        tokio::time::sleep(COMMIT).await;
        let log = entries.borrow_and_update().clone();
        let mut batch = log[index..].to_vec();
        if reorders {
            batch.reverse();
        }
        commands.lock().extend(batch);
        index = log.len();
        applied.send(index as u64);
    }
}

impl ModelLog {
    fn append(&self, command: &Bytes) -> u64 {
        self.group.entries.modify(|entries| {
            entries.push(command.clone());
            if self.group.flaw == Flaw::AppendsTwice {
                entries.push(command.clone());
            }
            true
        });
        self.group.entries.borrow().len() as u64
    }

    fn leads(&self) -> bool {
        self.leadership.borrow().leads && self.applied.lock().is_some()
    }
}

impl GroupLog for ModelLog {
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>> {
        let flaw = self.group.flaw;
        if !self.leads() && flaw != Flaw::FollowerTakes {
            if flaw == Flaw::RefusesAndTakes && self.applied.lock().is_some() {
                self.append(&command);
            }
            let leader = Some(LEADER).filter(|leader| *leader != self.node);
            return Box::pin(async move { Err(ProposeError::NotLeader(leader)) });
        }
        let index = self.append(&command);
        let applied = self.applied(index);
        Box::pin(async move {
            if flaw == Flaw::AnswersEarly || applied.await {
                Ok(())
            } else {
                Err(ProposeError::Unknown)
            }
        })
    }

    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>> {
        let flaw = self.group.flaw;
        let is_confirmed = self.leads() || flaw == Flaw::FollowerConfirms;
        let index = match flaw {
            Flaw::ReadIndexIsOld => 1,
            _ => self.group.entries.borrow().len() as u64,
        };
        Box::pin(async move {
            if is_confirmed { Ok(ReadIndex { term: 1, index }) } else { Err(Some(LEADER)) }
        })
    }

    fn applied(&self, index: u64) -> BoxFuture<bool> {
        if self.group.flaw == Flaw::AppliedAtOnce && self.node != LEADER {
            return Box::pin(std::future::ready(true));
        }
        let applied = self.applied.lock().as_ref().map(watch::Sender::subscribe);
        Box::pin(async move {
            let Some(mut applied) = applied else { return false };
            applied.wait_for(|applied| *applied >= index).await.is_ok()
        })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}
