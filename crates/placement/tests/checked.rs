//! What is held against the present before an operator begins.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_placement::{
    Authority, CheckedProposer, ClusterSource, ClusterView, Executor, Group, InFlight, Members,
    Operator, OperatorId, PlacementError, Precondition, Proposal, Proposer, Reason, Refused,
    ShardView,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId};

const SHARD: ShardId = ShardId(1);
const TERM: Authority = Authority { term: 7 };
const ID: OperatorId = OperatorId(9);

/// One shard on nodes 1 to 3, and what was begun and given up.
struct Cluster {
    authority: Option<Authority>,
    is_seen: bool,
    in_flight: Vec<InFlight>,
    answer: Result<OperatorId, Refused>,
    begun: Mutex<Vec<Operator>>,
    cancelled: Mutex<Vec<OperatorId>>,
}

impl Cluster {
    fn new() -> Self {
        Self {
            authority: Some(TERM),
            is_seen: true,
            in_flight: Vec::new(),
            answer: Ok(ID),
            begun: Mutex::default(),
            cancelled: Mutex::default(),
        }
    }

    /// What becomes of a proposal, and what was begun by it.
    async fn propose(self, proposal: Proposal) -> (Result<OperatorId, Refused>, Vec<Operator>) {
        let cluster = Arc::new(self);
        let answer = CheckedProposer::new(Arc::clone(&cluster)).propose(TERM, proposal).await;
        let begun = cluster.begun.lock().clone();
        (answer, begun)
    }
}

fn unseen() -> PlacementError {
    PlacementError::ViewUnavailable("no quorum".into())
}

impl ClusterSource for Cluster {
    fn view(&self) -> BoxFuture<Result<ClusterView, PlacementError>> {
        let shard = ShardView {
            id: SHARD,
            range: KeyRange::all(),
            epoch: ShardEpoch(3),
            members: Members { voters: [1, 2, 3].map(NodeId).to_vec(), ..Members::default() },
            bytes: 0,
            rows: 0,
            load_ops: 0,
            split_key: None,
        };
        let view = ClusterView { shards: vec![shard], ..ClusterView::default() };
        Box::pin(std::future::ready(if self.is_seen { Ok(view) } else { Err(unseen()) }))
    }

    fn authority(&self) -> Option<Authority> {
        self.authority
    }
}

impl Executor for Cluster {
    fn in_flight(&self) -> Result<Vec<InFlight>, PlacementError> {
        if self.is_seen { Ok(self.in_flight.clone()) } else { Err(unseen()) }
    }

    fn begin(&self, operator: Operator) -> BoxFuture<Result<OperatorId, Refused>> {
        self.begun.lock().push(operator);
        Box::pin(std::future::ready(self.answer))
    }

    fn cancel(&self, id: OperatorId) {
        self.cancelled.lock().push(id);
    }
}

fn split() -> Operator {
    Operator::Split { shard: SHARD, at: None }
}

/// A split of the shard, planned while it had these voters.
fn planned_on<const N: usize>(voters: [u64; N]) -> Proposal {
    let precondition = Precondition {
        group: Group::Shard(SHARD),
        epoch: Some(ShardEpoch(3)),
        voters: voters.map(NodeId).to_vec(),
        leader: None,
    };
    Proposal { operator: split(), preconditions: vec![precondition], reason: Reason::ShardTooLarge }
}

#[tokio::test]
async fn what_is_as_expected_begins() {
    let outcome = Cluster::new().propose(planned_on([1, 2, 3])).await;
    assert_eq!(outcome, (Ok(ID), vec![split()]));
}

#[tokio::test]
async fn what_the_executor_refuses_is_refused_in_its_words() {
    let cluster = Cluster { answer: Err(Refused::Unsupported), ..Cluster::new() };
    let (answer, _) = cluster.propose(planned_on([1, 2, 3])).await;
    assert_eq!(answer, Err(Refused::Unsupported));
}

#[tokio::test]
async fn nothing_begins_under_another_term_or_none() {
    for authority in [None, Some(Authority { term: 8 })] {
        let cluster = Cluster { authority, ..Cluster::new() };
        let outcome = cluster.propose(planned_on([1, 2, 3])).await;
        assert_eq!(outcome, (Err(Refused::NotLeader), vec![]));
    }
}

#[tokio::test]
async fn nothing_begins_on_a_group_that_has_changed() {
    let outcome = Cluster::new().propose(planned_on([1, 2, 4])).await;
    assert_eq!(outcome, (Err(Refused::Precondition), vec![]));
}

#[tokio::test]
async fn nothing_begins_on_a_group_that_is_busy() {
    let in_flight = vec![InFlight { id: OperatorId(1), operator: split() }];
    let cluster = Cluster { in_flight, ..Cluster::new() };
    let outcome = cluster.propose(planned_on([1, 2, 3])).await;
    assert_eq!(outcome, (Err(Refused::GroupBusy), vec![]));
}

#[tokio::test]
async fn nothing_begins_in_the_dark() {
    let cluster = Cluster { is_seen: false, ..Cluster::new() };
    let outcome = cluster.propose(planned_on([1, 2, 3])).await;
    assert_eq!(outcome, (Err(Refused::Precondition), vec![]));
    let blind = Arc::new(Cluster { is_seen: false, ..Cluster::new() });
    let operators = CheckedProposer::new(blind).operators().await;
    assert!(matches!(operators, Err(PlacementError::ViewUnavailable(_))), "{operators:?}");
}

#[tokio::test]
async fn only_who_leads_gives_an_operator_up() {
    let cluster = Arc::new(Cluster::new());
    let proposer = CheckedProposer::new(Arc::clone(&cluster));
    let late = proposer.cancel(Authority { term: 6 }, ID).await;
    assert_eq!((late, cluster.cancelled.lock().len()), (Err(Refused::NotLeader), 0));
    assert_eq!(proposer.cancel(TERM, ID).await, Ok(()));
    assert_eq!(*cluster.cancelled.lock(), [ID]);
}
