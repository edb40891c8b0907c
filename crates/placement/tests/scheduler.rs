//! The scheduler's core, and its driver on a paused clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_placement::conformance::ModelCluster;
use quorate_placement::{
    Action, Authority, ClusterSource, ClusterView, Group, History, InFlight, LexicographicPolicy,
    Operator, OperatorId, PlacementError, PlacementPolicy, Plan, Proposal, Proposer, Refused,
    Scheduler, SchedulerConfig, SchedulerCore, SchedulerHandle,
};
use quorate_types::runtime::BoxFuture;

const TERM: Authority = Authority { term: 7 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two nodes; the first holds `shards` shards and the second none.
fn lopsided(shards: usize) -> ModelCluster {
    let mut cluster = ModelCluster::new(1);
    cluster.add_node(1, "a");
    cluster.add_node(2, "b");
    for _ in 0..shards {
        cluster.add_shard(&[1]);
    }
    cluster
}

fn core_with(policy: Arc<dyn PlacementPolicy>) -> SchedulerCore {
    let mut core = SchedulerCore::new(policy, SchedulerConfig::default(), 1).unwrap();
    core.handle_authority(Some(TERM));
    core
}

fn core() -> SchedulerCore {
    core_with(Arc::new(LexicographicPolicy::default()))
}

fn look(core: &mut SchedulerCore, now: Duration, view: &ClusterView, listed: &[InFlight]) {
    core.handle_look(now, Ok((view.clone(), listed.to_vec())));
}

fn proposals(core: &mut SchedulerCore) -> Vec<Proposal> {
    std::iter::from_fn(|| core.poll_action())
        .map(|action| match action {
            Action::Propose(authority, proposal) => {
                assert_eq!(authority, TERM);
                proposal
            }
            Action::Cancel(..) => panic!("nothing to cancel"),
        })
        .collect()
}

#[test]
fn no_operator_proposed_twice() {
    let (mut core, cluster) = (core(), lopsided(4));
    look(&mut core, at(0), &cluster.view, &[]);
    let first = proposals(&mut core);
    assert_eq!(first.len(), 2);
    for (id, proposal) in (1..).zip(&first) {
        core.handle_proposed(at(0), TERM, proposal, Ok(OperatorId(id)));
    }
    // The proposer's own list lags behind its answers.
    for seconds in [1, 10, 25] {
        look(&mut core, at(seconds), &cluster.view, &[]);
        assert_eq!(proposals(&mut core), []);
    }
    // Now it lists them.
    let listed: Vec<InFlight> = (1..)
        .zip(&first)
        .map(|(id, p)| InFlight { id: OperatorId(id), operator: p.operator.clone() })
        .collect();
    look(&mut core, at(29), &cluster.view, &listed);
    assert_eq!(proposals(&mut core), []);
}

#[test]
fn a_policy_that_repeats_itself_is_held_back() {
    struct Stubborn(Plan);
    impl PlacementPolicy for Stubborn {
        fn plan(&self, _: &ClusterView, _: &[InFlight], _: &History) -> Plan {
            self.0.clone()
        }
    }
    let mut cluster = lopsided(4);
    let mut plan = cluster.plan(&LexicographicPolicy::default());
    let twice = plan.operators[0].clone();
    plan.operators = vec![twice.clone(), twice];
    let mut core = core_with(Arc::new(Stubborn(plan)));
    look(&mut core, at(0), &cluster.view, &[]);
    let proposed = proposals(&mut core);
    assert_eq!(proposed.len(), 1);
    core.handle_proposed(at(0), TERM, &proposed[0], Ok(OperatorId(1)));
    look(&mut core, at(10), &cluster.view, &[]);
    assert_eq!(proposals(&mut core), []);
}

#[test]
fn refusal_does_not_wedge() {
    let (mut core, cluster) = (core(), lopsided(8));
    look(&mut core, at(0), &cluster.view, &[]);
    let refused = proposals(&mut core);
    for proposal in &refused {
        core.handle_proposed(at(0), TERM, proposal, Err(Refused::Precondition));
    }
    assert_eq!(core.status().refused, 2);
    // Others go on at once, and the refused ones come back after their rest.
    look(&mut core, at(1), &cluster.view, &[]);
    let others = proposals(&mut core);
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|proposal| !refused.contains(proposal)));
    look(&mut core, at(6), &cluster.view, &[]);
    assert_eq!(proposals(&mut core), refused);
}

#[test]
fn an_operator_that_ends_without_effect_is_not_repeated_at_once() {
    let (mut core, cluster) = (core(), lopsided(2));
    look(&mut core, at(0), &cluster.view, &[]);
    let proposal = proposals(&mut core).remove(0);
    let listed = InFlight { id: OperatorId(1), operator: proposal.operator.clone() };
    core.handle_proposed(at(0), TERM, &proposal, Ok(OperatorId(1)));
    look(&mut core, at(10), &cluster.view, &[listed]);
    look(&mut core, at(20), &cluster.view, &[]);
    assert!(!proposals(&mut core).contains(&proposal), "it was aborted; let the group rest");
    look(&mut core, at(30), &cluster.view, &[]);
    assert!(proposals(&mut core).contains(&proposal));
}

#[test]
fn an_operator_that_ended_before_it_was_listed_makes_room_for_the_next() {
    let (mut core, mut cluster) = (core(), lopsided(8));
    let mut moved = 0;
    for second in 0..4 {
        look(&mut core, at(second), &cluster.view, &[]);
        for proposal in proposals(&mut core) {
            let id = cluster.accept(&proposal).unwrap();
            core.handle_proposed(at(second), TERM, &proposal, Ok(id));
            moved += 1;
        }
        // The list is empty again when it is looked at next.
        cluster.run_all().unwrap();
    }
    assert_eq!(moved, 4, "two at a time, one look after the other, until both hold four");
}

#[test]
fn a_shard_that_just_appeared_is_not_cut_before_it_is_measured() {
    let (mut core, mut cluster) = (core(), lopsided(1));
    look(&mut core, at(0), &cluster.view, &[]);
    cluster.add_shard(&[2]).load_ops = 1_000_000;
    look(&mut core, at(10), &cluster.view, &[]);
    assert_eq!(proposals(&mut core), []);
    look(&mut core, at(71), &cluster.view, &[]);
    assert_eq!(proposals(&mut core).len(), 1);
}

#[test]
fn everything_stops_when_authority_is_lost() {
    let (mut core, cluster) = (core(), lopsided(8));
    look(&mut core, at(0), &cluster.view, &[]);
    assert!(core.poll_action().is_some());
    core.handle_authority(None);
    assert_eq!(core.poll_action(), None);
    assert!(!core.is_look_due(at(1_000)));
    look(&mut core, at(1_000), &cluster.view, &[]);
    assert_eq!(core.poll_action(), None);
}

#[test]
fn a_new_term_forgets_what_the_old_one_was_about_to_do() {
    let (mut core, cluster) = (core(), lopsided(8));
    look(&mut core, at(0), &cluster.view, &[]);
    core.handle_authority(Some(Authority { term: 8 }));
    assert_eq!(core.poll_action(), None);
    assert!(core.is_look_due(at(0)));
}

#[test]
fn a_blind_look_is_counted_and_tried_again() {
    let mut core = core();
    core.handle_look(at(0), Err(PlacementError::ViewUnavailable("no quorum".into())));
    assert_eq!(core.status().looks_failed, 1);
    assert!(!core.is_look_due(at(1)));
    assert!(core.is_look_due(at(12)));
}

/// Both ports over one model cluster.
struct Ports {
    cluster: Mutex<ModelCluster>,
    authority: Mutex<Option<Authority>>,
    refuse_every: Mutex<Option<usize>>,
    asked: Mutex<Vec<Operator>>,
}

impl Ports {
    fn new(cluster: ModelCluster) -> Arc<Self> {
        Arc::new(Self {
            cluster: Mutex::new(cluster),
            authority: Mutex::new(Some(TERM)),
            refuse_every: Mutex::new(None),
            asked: Mutex::new(Vec::new()),
        })
    }

    fn spawn(self: &Arc<Self>) -> SchedulerHandle {
        let policy = Arc::new(LexicographicPolicy::default());
        let config = SchedulerConfig::default();
        Scheduler::spawn(Arc::clone(self) as _, Arc::clone(self) as _, policy, config).unwrap()
    }

    fn take(&self, proposal: &Proposal) -> Result<OperatorId, Refused> {
        let mut asked = self.asked.lock();
        asked.push(proposal.operator.clone());
        if self.refuse_every.lock().is_some_and(|every| asked.len().is_multiple_of(every)) {
            return Err(Refused::Limit);
        }
        self.cluster.lock().accept(proposal).map_err(|_| Refused::Precondition)
    }
}

impl ClusterSource for Ports {
    fn view(&self) -> BoxFuture<Result<ClusterView, PlacementError>> {
        let mut cluster = self.cluster.lock();
        // What was accepted before the last look has happened by this one.
        cluster.run_all().unwrap();
        let view = cluster.view.clone();
        Box::pin(async move { Ok(view) })
    }

    fn authority(&self) -> Option<Authority> {
        *self.authority.lock()
    }
}

impl Proposer for Ports {
    fn propose(
        &self,
        authority: Authority,
        proposal: Proposal,
    ) -> BoxFuture<Result<OperatorId, Refused>> {
        let holds = *self.authority.lock() == Some(authority);
        let answer = if holds { self.take(&proposal) } else { Err(Refused::NotLeader) };
        Box::pin(async move { answer })
    }

    fn operators(&self) -> BoxFuture<Result<Vec<InFlight>, PlacementError>> {
        let in_flight = self.cluster.lock().in_flight();
        Box::pin(async move { Ok(in_flight) })
    }

    fn cancel(&self, _: Authority, id: OperatorId) -> BoxFuture<Result<(), Refused>> {
        self.cluster.lock().cancel(id);
        Box::pin(async { Ok(()) })
    }
}

fn hosted_by_second(ports: &Ports) -> usize {
    let cluster = ports.cluster.lock();
    cluster.view.shards.iter().filter(|shard| shard.members.voters.contains(&2.into())).count()
}

async fn looks(handle: &SchedulerHandle, looks: u64) {
    handle.status().wait_for(|status| status.looks >= looks).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_driver_balances_a_cluster_though_every_third_proposal_is_refused() {
    let ports = Ports::new(lopsided(20));
    *ports.refuse_every.lock() = Some(3);
    let handle = ports.spawn();
    looks(&handle, 60).await;
    assert_eq!(hosted_by_second(&ports), 10);
    let status = handle.status().get();
    assert!(status.refused > 0 && status.accepted >= 10);
    handle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_driver_does_nothing_without_authority() {
    let ports = Ports::new(lopsided(20));
    *ports.authority.lock() = None;
    let handle = ports.spawn();
    tokio::time::advance(at(100)).await;
    tokio::task::yield_now().await;
    assert!(ports.asked.lock().is_empty());
    *ports.authority.lock() = Some(TERM);
    handle.kick();
    looks(&handle, 1).await;
    assert!(!ports.asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_paused_driver_proposes_nothing_until_it_is_resumed() {
    let ports = Ports::new(lopsided(20));
    let handle = ports.spawn();
    handle.pause();
    handle.status().wait_for(|status| status.paused).await.unwrap();
    let asked = ports.asked.lock().len();
    tokio::time::advance(at(100)).await;
    tokio::task::yield_now().await;
    assert_eq!(ports.asked.lock().len(), asked);
    handle.resume();
    looks(&handle, 3).await;
    assert!(ports.asked.lock().len() > asked);
}

#[tokio::test(start_paused = true)]
async fn a_proposer_that_never_answers_does_not_wedge_and_can_be_stopped() {
    struct Mute(Arc<Ports>);
    impl Proposer for Mute {
        fn propose(&self, _: Authority, p: Proposal) -> BoxFuture<Result<OperatorId, Refused>> {
            self.0.asked.lock().push(p.operator);
            Box::pin(std::future::pending())
        }
        fn operators(&self) -> BoxFuture<Result<Vec<InFlight>, PlacementError>> {
            self.0.operators()
        }
        fn cancel(&self, _: Authority, _: OperatorId) -> BoxFuture<Result<(), Refused>> {
            Box::pin(std::future::pending())
        }
    }
    let ports = Ports::new(lopsided(8));
    let policy = Arc::new(LexicographicPolicy::default());
    let mute = Arc::new(Mute(Arc::clone(&ports)));
    let config = SchedulerConfig::default();
    let handle = Scheduler::spawn(Arc::clone(&ports) as _, mute, policy, config).unwrap();
    handle.status().wait_for(|status| status.refused >= 4).await.unwrap();
    let asked = ports.asked.lock().clone();
    let groups: std::collections::BTreeSet<Group> = asked.iter().map(Operator::group).collect();
    assert!(groups.len() >= 4, "others had their turn: {asked:?}");
    handle.stop().await;
}
