//! How one replica comes to rest and wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use quorate_types::{GroupId, NodeId, ReplicaId, buggify, runtime, sometimes};
use tokio::time::Instant;

use super::driver::Quiescence;
use super::roster::{Company, Doubt};
use super::wire::Lull;
use crate::config::Timing;
use crate::consensus::types::{LogId, TypeConfig, log_id, our_vote, position, raft_vote};
use crate::consensus::wire::{Body, Message, Reply, Voted};
use crate::group::{Group, is_leading, silence};
use crate::transport::Lane;

/// A voter that was silent for so many times what is borne otherwise is gone, and
/// its group rests without it. It will be heard when it comes back: it stands for
/// election.
const GONE_AFTER: u32 = 5;

/// Whether a replica rests, for those who use it.
pub(crate) struct Resting {
    house: Arc<Quiescence>,
    /// Whether it can be used as it is.
    is_awake: AtomicBool,
    began: Instant,
    /// When it was used last, in milliseconds from when it began.
    used: AtomicU64,
}

impl Resting {
    pub(crate) fn new(house: Arc<Quiescence>) -> Self {
        Self {
            house,
            is_awake: AtomicBool::new(true),
            began: Instant::now(),
            used: AtomicU64::new(0),
        }
    }

    /// Notes that somebody uses the replica now.
    pub(crate) fn note_use(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(now, Ordering::SeqCst);
    }

    fn idle_for(&self) -> Duration {
        let used = Duration::from_millis(self.used.load(Ordering::SeqCst));
        self.began.elapsed().saturating_sub(used)
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.is_awake.load(Ordering::SeqCst)
    }

    /// The replica of this group stops: nobody may count on it.
    pub(crate) fn retire(&self, group: GroupId) {
        self.house.roster().wake(group);
    }
}

/// What a leader asks its followers for.
pub(super) struct Asking {
    group: GroupId,
    vote: crate::log::Vote,
    last: LogId,
    voters_needed: usize,
    followers: BTreeMap<ReplicaId, Follower>,
}

struct Follower {
    node: NodeId,
    votes: bool,
}

impl Asking {
    /// What to ask a leader's followers for, if its group may rest: all of its
    /// log is applied, and whoever is there has it.
    fn new(
        group: GroupId,
        own: ReplicaId,
        metrics: &RaftMetrics<TypeConfig>,
        patience: Duration,
    ) -> Option<Self> {
        let last = metrics.last_applied?;
        let membership = metrics.membership_config.membership();
        let is_settled = metrics.last_log_index == Some(last.index)
            && metrics.cluster_committed == Some(last)
            && membership.get_joint_config().len() == 1;
        if !is_settled || !is_leading(metrics, own) {
            return None;
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut followers = BTreeMap::new();
        for (&replica, member) in membership.nodes().filter(|(replica, _)| **replica != own.0) {
            let votes = voters.contains(&replica);
            let matched = metrics.replication.as_ref()?.get(&replica).copied().flatten();
            let silence = silence(metrics, replica);
            let is_here = silence.is_some_and(|silence| silence <= patience);
            if is_here && matched == Some(last) {
                followers.insert(ReplicaId(replica), Follower { node: member.node_id(), votes });
            } else if !votes || silence.is_some_and(|silence| silence <= patience * GONE_AFTER) {
                return None;
            }
        }
        let voters_needed =
            (voters.len() / 2 + 1).saturating_sub(usize::from(voters.contains(&own.0)));
        let voters_here = followers.values().filter(|follower| follower.votes).count();
        sometimes!("a group rests without a voter that is gone", voters_here + 1 < voters.len());
        let vote = our_vote(&metrics.vote);
        (voters_here >= voters_needed).then_some(Self {
            group,
            vote,
            last,
            voters_needed,
            followers,
        })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.followers.values().map(|follower| &follower.node)
    }

    pub(super) fn lulls(&self) -> impl Iterator<Item = (NodeId, Lull)> {
        let (group, vote, last) = (self.group, self.vote, position(&self.last));
        self.followers
            .iter()
            .map(move |(&to, follower)| (follower.node, Lull { group, to, vote, last }))
    }

    fn company(&self) -> Company {
        let voters = self.followers.values().filter(|follower| follower.votes);
        Company {
            term: self.vote.term,
            with: self.nodes().copied().collect(),
            voters: voters.map(|follower| follower.node).collect(),
            voters_needed: self.voters_needed,
        }
    }
}

impl Group {
    /// Wakes a leader that rests, before it is used. It has lost its lease, and
    /// gets it back by a round of heartbeats. Who follows can be asked as it is.
    pub(crate) async fn rise(&self) {
        self.resting().note_use();
        if self.resting().is_awake() {
            return;
        }
        if self.wake_as_leader() {
            // Without a quorum it will say so itself.
            drop(self.confirm_leadership().await);
        }
        self.mark_awake();
    }

    /// Stops a leader's rest; its followers hear of it by what it sends them.
    /// Whether it leads, and has to be heard by them before it is used.
    pub(crate) fn wake_as_leader(&self) -> bool {
        let mut roster = self.resting().house.roster();
        if roster.leads(self.id()) {
            roster.wake(self.id());
            self.probe().begin_anew();
            self.raft().runtime_config().tick(true);
            sometimes!("a leader wakes");
        }
        let metrics = self.raft().metrics();
        is_leading(&metrics.borrow_watched(), self.replica())
    }

    /// Unless it rests: again already, or as one that follows.
    pub(crate) fn mark_awake(&self) {
        let roster = self.resting().house.roster();
        if !roster.rests(self.id()) {
            self.resting().is_awake.store(true, Ordering::SeqCst);
        }
    }

    /// Stops a replica's rest: what it waits for happens in time again.
    pub(crate) fn wake(&self) {
        let mut roster = self.resting().house.roster();
        if roster.wake(self.id()) {
            self.raft().runtime_config().tick(true);
        }
        self.resting().is_awake.store(true, Ordering::SeqCst);
    }

    pub(crate) fn wake_in_background(&self) {
        let group = self.clone();
        drop(runtime::spawn(async move { group.rise().await }));
    }

    /// What to ask followers for, if this replica leads and its group was not
    /// used for long.
    pub(super) fn ask_to_rest(&self) -> Option<Asking> {
        let resting = self.resting();
        let after = resting.house.after()?;
        let is_tired = || resting.idle_for() >= after && self.proposals_open() == 0;
        if !is_tired() {
            return None;
        }
        if !resting.is_awake() {
            // Perhaps woken by somebody who did not wait for the end of it.
            self.mark_awake();
            return None;
        }
        let metrics = self.metrics();
        let patience = resting.house.patience();
        let asking = Asking::new(self.id(), self.replica(), &metrics, patience)?;
        let mut roster = resting.house.roster();
        resting.is_awake.store(false, Ordering::SeqCst);
        // Who uses it notes that first and asks whether it is awake second: one
        // of us sees the other.
        if !is_tired() {
            resting.is_awake.store(true, Ordering::SeqCst);
            return None;
        }
        roster.ask(self.id(), asking.vote.term);
        self.raft().runtime_config().tick(false);
        Some(asking)
    }

    /// Rests, now that all followers do; unless it was woken while they were asked.
    pub(super) fn rest(&self, asking: Asking) {
        let is_unchanged = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            our_vote(&metrics.vote) == asking.vote
                && metrics.last_log_index == Some(asking.last.index)
        };
        let company = asking.company();
        let rests =
            is_unchanged && self.resting().house.roster().lead(self.id(), company, Instant::now());
        sometimes!("a group rests", rests);
        if !rests {
            self.wake_in_background();
        }
    }

    /// Rests, if a leader that wants to has nothing that this replica lacks.
    pub(super) fn is_lulled(&self, from: NodeId, lull: &Lull) -> bool {
        if buggify!("raft keeps a follower awake") || self.replica() != lull.to {
            return false;
        }
        let mut roster = self.resting().house.roster();
        let last = log_id(lull.last);
        let is_alike = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            metrics.running_state.is_ok()
                && lull.vote.committed
                && metrics.vote == raft_vote(lull.vote)
                && metrics.last_log_index == Some(last.index)
                && metrics.local_committed == Some(last)
        };
        let (term, leader) = (lull.vote.term, lull.vote.candidate);
        if !is_alike
            || leader == self.replica()
            || !roster.follow(self.id(), term, leader, from, Instant::now())
        {
            return false;
        }
        self.resting().is_awake.store(false, Ordering::SeqCst);
        self.raft().runtime_config().tick(false);
        true
    }

    /// What a message means to a replica that rests. Some are answered without
    /// asking the replica.
    pub(crate) fn stir(&self, body: &Body) -> Option<Reply> {
        let house = &self.resting().house;
        match body {
            Body::Wake => {}
            _ if self.resting().is_awake() => {}
            Body::Append(_)
            | Body::Transfer(_)
            | Body::SnapshotBegin(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotEnd(_) => self.wake(),
            Body::Vote(_) | Body::PreVote(_) => {
                let believes = house.roster().believes(self.id(), Instant::now());
                self.doubt();
                if believes && matches!(body, Body::PreVote(_)) {
                    sometimes!("a replica that rests refuses a pre-vote");
                    return Some(self.refuse_vote());
                }
            }
        }
        None
    }

    /// Whose leader shows itself to this replica would not vote for another.
    fn refuse_vote(&self) -> Reply {
        let metrics = self.metrics();
        Reply::Voted(Voted {
            vote: our_vote(&metrics.vote),
            granted: false,
            last: metrics.last_applied.as_ref().map(position),
        })
    }

    /// A leader wakes; a follower doubts whether it has one.
    fn doubt(&self) {
        let doubt = {
            let mut roster = self.resting().house.roster();
            if roster.leads(self.id()) { None } else { Some(roster.doubt(self.id())) }
        };
        match doubt {
            None => self.wake_in_background(),
            Some(Some(doubt)) => self.spread_doubt(doubt),
            Some(None) => {}
        }
    }

    /// Asks the leader to show itself, and stands for election if it does not.
    pub(super) fn spread_doubt(&self, doubt: Doubt) {
        let house = Arc::clone(&self.resting().house);
        let wake = Message {
            group: doubt.group,
            from: self.replica(),
            to: doubt.leader,
            body: Body::Wake,
        };
        let asked =
            house.transport().call(doubt.under, Lane::Heartbeat, wake.to_bytes(), house.beat());
        // Whatever it answers: it is heard, or not.
        drop(runtime::spawn(async move { drop(asked.await) }));
        let (group, patience) = (self.clone(), doubting(self.timing()));
        drop(runtime::spawn(async move {
            tokio::time::sleep(patience).await;
            let mut roster = group.resting().house.roster();
            if roster.doubts(doubt.group, doubt.turn) {
                sometimes!("a replica that rested stands for election");
                roster.wake(doubt.group);
                group.raft().runtime_config().tick(true);
                group.resting().is_awake.store(true, Ordering::SeqCst);
            }
        }));
    }

    /// The replicas that rest with this one, which leads them.
    pub(crate) fn company(&self) -> Option<BTreeSet<NodeId>> {
        self.resting().house.roster().company(self.id()).cloned()
    }
}

/// What a follower's patience with its leader is longer than a lease, by chance:
/// the followers of a node that is lost do not stand for election all at once.
fn doubting(timing: Timing) -> Duration {
    let least = timing.election_min.saturating_sub(timing.lease());
    let span = timing.election_max.saturating_sub(timing.election_min);
    let share = runtime::random() % 1024;
    least + span.mul_f64(f64::from(u32::try_from(share).unwrap_or_default()) / 1024.0)
}
