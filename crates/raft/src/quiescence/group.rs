//! How one replica comes to rest and wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::{Mutex, MutexGuard};
use quorate_types::group_log::ReadIndex;
use quorate_types::{GroupId, NodeId, ReplicaId, buggify, runtime, sometimes};
use tokio::time::Instant;

use super::driver::Quiescence;
use super::roster::{Company, Doubt, Roster};
use super::wire::Lull;
use crate::config::Timing;
use crate::consensus::types::{LogId, RaftOf, TypeConfig, log_id, our_vote, position, raft_vote};
use crate::consensus::wire::{Body, Message, Reply, Voted};
use crate::error::ReadError;
use crate::group::{Group, Leadership, is_leading, silence};
use crate::log::Vote;
use crate::transport::Lane;

/// A voter that was silent for so many times what is borne otherwise is gone, and
/// its group rests without it. It will be heard when it comes back: it stands for
/// election.
const GONE_AFTER: u32 = 5;

/// When a message of a leader came.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    moment: u64,
    lulls: u64,
}

/// Whether a replica rests, for those who use it, and whether its timers run.
pub(crate) struct Resting {
    house: Arc<Quiescence>,
    group: GroupId,
    raft: RaftOf,
    /// Whether it can be used as it is.
    is_awake: AtomicBool,
    is_ticking: Mutex<bool>,
    /// Whether it stops, so that nobody may count on it.
    is_retired: AtomicBool,
    began: Instant,
    /// For so long from then on it keeps what it may have promised a leader in an
    /// earlier life, which forgot it: to vote for nobody else, itself included.
    bound_for: Duration,
    /// When it was used last, in milliseconds from when it began.
    used: AtomicU64,
    /// When it heard from its leader last, likewise.
    heard: AtomicU64,
    /// How often its leader had it rest. Changes while the roster is held.
    lulls: AtomicU64,
    /// When a leader woke, and with whom it had rested.
    left: Mutex<Option<(Instant, BTreeSet<NodeId>)>>,
}

impl Resting {
    /// Of a replica that begins. One that is bound begins without timers.
    pub(crate) fn new(
        house: Arc<Quiescence>,
        group: GroupId,
        raft: RaftOf,
        bound_for: Duration,
    ) -> Self {
        Self {
            house,
            group,
            raft,
            is_awake: AtomicBool::new(true),
            is_ticking: Mutex::new(bound_for.is_zero()),
            is_retired: AtomicBool::new(false),
            began: Instant::now(),
            bound_for,
            used: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            lulls: AtomicU64::new(0),
            left: Mutex::default(),
        }
    }

    /// Who rests on this node; nobody's any more for a replica that stops.
    fn roster(&self) -> Option<MutexGuard<'_, Roster>> {
        let roster = self.house.roster();
        (!self.is_retired.load(Ordering::SeqCst)).then_some(roster)
    }

    /// How long it is still bound.
    pub(crate) fn still_bound_for(&self) -> Duration {
        self.bound_for.saturating_sub(self.began.elapsed())
    }

    /// Now, in milliseconds since it began.
    pub(crate) fn moment(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A message that comes now, for [`Group::note_leader`].
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival { moment: self.moment(), lulls: self.lulls.load(Ordering::SeqCst) }
    }

    fn ago(&self, moment: &AtomicU64) -> Duration {
        let moment = Duration::from_millis(moment.load(Ordering::SeqCst));
        self.began.elapsed().saturating_sub(moment)
    }

    /// Notes that somebody uses the replica now.
    pub(crate) fn note_use(&self) {
        self.note_use_at(Instant::now());
    }

    fn note_use_at(&self, now: Instant) {
        let moment = now.saturating_duration_since(self.began).as_millis();
        self.used.store(u64::try_from(moment).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.is_awake.load(Ordering::SeqCst)
    }

    /// Stops and starts the replica's timers: those of elections, and of a leader's
    /// heartbeats.
    fn tick(&self, is_ticking: bool) {
        let mut now = self.is_ticking.lock();
        *now = is_ticking;
        self.raft.runtime_config().tick(is_ticking);
    }

    fn is_ticking(&self) -> bool {
        *self.is_ticking.lock()
    }

    /// Stops the rest of whoever rests. Ticks from now on.
    fn end(&self, roster: &mut Roster) {
        roster.wake(self.group);
        self.tick(true);
        self.is_awake.store(true, Ordering::SeqCst);
    }

    /// The replica stops: nobody may count on it.
    pub(crate) fn retire(&self) {
        let mut roster = self.house.roster();
        if !self.is_retired.swap(true, Ordering::SeqCst) {
            roster.wake(self.group);
        }
    }

    /// Hears what the replica's office is: who rests as the leader of a term, and
    /// is that no more, rests on nobody's word. Who leads has to tick.
    pub(crate) fn learn(&self, now: Leadership) {
        if self.is_awake() {
            if now.leading && !self.is_ticking() {
                self.tick(true);
            }
            return;
        }
        let Some(mut roster) = self.roster() else { return };
        let office = roster.office(self.group);
        let is_deposed = office.is_some_and(|term| !now.leading || now.term != term);
        let is_elected = office.is_none() && now.leading && roster.rests(self.group);
        if is_deposed || is_elected {
            sometimes!("a leader is deposed while it rests", is_deposed);
            self.end(&mut roster);
        }
    }
}

/// A leader that wakes, until it has, or nobody waits for it any more.
struct Waking<'a>(&'a Group);

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        self.0.mark_awake();
    }
}

/// What a leader asks its followers for.
pub(super) struct Asking {
    group: GroupId,
    vote: Vote,
    last: LogId,
    voters_needed: usize,
    lacks_a_voter: bool,
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
        let lacks_a_voter = voters_here + usize::from(voters.contains(&own.0)) < voters.len();
        let vote = our_vote(&metrics.vote);
        let asking = Self { group, vote, last, voters_needed, lacks_a_voter, followers };
        (voters_here >= voters_needed).then_some(asking)
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
    /// Notes that the replica is used, and whether it is awake already.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        self.resting().note_use_at(now);
        self.resting().is_awake()
    }

    /// Wakes a leader that rests, before it is used. It has lost its lease, and
    /// gets it back by a round of heartbeats. Who follows can be asked as it is.
    pub(crate) async fn rise(&self) {
        if self.is_up(Instant::now()) {
            return;
        }
        let _waking = Waking(self);
        if self.wake_as_leader() {
            // Without a quorum it will say so itself.
            drop(self.confirm_leadership().await);
        }
    }

    /// The same for a read, which is such a round.
    pub(crate) async fn rise_to_read(&self) -> Result<ReadIndex, ReadError> {
        self.resting().note_use();
        let _waking = (!self.resting().is_awake()).then(|| {
            self.wake_as_leader();
            Waking(self)
        });
        self.confirm_leadership().await
    }

    /// Stops a leader's rest; its followers hear of it by what it sends them.
    /// Whether it leads, and has to be heard by them before it is used.
    fn wake_as_leader(&self) -> bool {
        let resting = self.resting();
        let Some(mut roster) = resting.roster() else { return false };
        if roster.office(self.id()).is_some() {
            if let Some(company) = roster.company(self.id()) {
                *resting.left.lock() = Some((Instant::now(), company.clone()));
            }
            roster.wake(self.id());
            self.probe().begin_anew();
            resting.tick(true);
            sometimes!("a leader wakes");
        }
        self.is_leading_now()
    }

    fn is_leading_now(&self) -> bool {
        let metrics = self.raft().metrics();
        is_leading(&metrics.borrow_watched(), self.replica())
    }

    /// Unless it rests: again already, or as one that follows.
    fn mark_awake(&self) {
        let Some(roster) = self.resting().roster() else { return };
        if !roster.rests(self.id()) {
            self.resting().is_awake.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn wake_in_background(&self) {
        let group = self.clone();
        drop(runtime::spawn(async move { group.rise().await }));
    }

    /// The leader was heard, and believed. A follower that hears its leader needs no
    /// timers. What came before the leader wanted to rest does not end the rest.
    pub(crate) fn note_leader(&self, arrival: Arrival) {
        let resting = self.resting();
        resting.heard.fetch_max(arrival.moment, Ordering::SeqCst);
        if !resting.is_awake() {
            let Some(mut roster) = resting.roster() else { return };
            if resting.lulls.load(Ordering::SeqCst) != arrival.lulls {
                return;
            }
            resting.end(&mut roster);
        }
        if resting.is_ticking() && !self.is_leading_now() {
            resting.tick(false);
        }
    }

    /// Starts the timers of a replica that has not heard its leader for a lease:
    /// soon it has to stand for election. Called often.
    pub(super) fn tick_unless_heard(&self) {
        let resting = self.resting();
        if resting.is_ticking()
            || !resting.is_awake()
            || resting.ago(&resting.heard) < self.timing().lease()
        {
            return;
        }
        let Some(roster) = resting.roster() else { return };
        if !roster.rests(self.id()) {
            resting.tick(true);
        }
    }

    /// What to ask followers for, if this replica leads and its group was not
    /// used for long.
    pub(super) fn ask_to_rest(&self) -> Option<Asking> {
        let resting = self.resting();
        let after = resting.house.after()?;
        let is_tired = || resting.ago(&resting.used) >= after && self.proposals_open() == 0;
        if !is_tired() {
            return None;
        }
        if !resting.is_awake() {
            if resting.is_ticking() {
                // Woken by somebody who did not wait for the end of it.
                self.mark_awake();
            }
            return None;
        }
        if !self.is_leading_now() {
            return None;
        }
        let metrics = self.metrics();
        let patience = resting.house.patience();
        let asking = Asking::new(self.id(), self.replica(), &metrics, patience)?;
        let mut roster = resting.roster()?;
        resting.is_awake.store(false, Ordering::SeqCst);
        // Who uses it notes that first and asks whether it is awake second: one
        // of us sees the other.
        if !is_tired() {
            resting.is_awake.store(true, Ordering::SeqCst);
            return None;
        }
        roster.ask(self.id(), asking.vote.term);
        resting.tick(false);
        Some(asking)
    }

    /// Rests, now that all followers do; unless it was woken while they were asked.
    pub(super) fn rest(&self, asking: Asking) {
        let is_unchanged = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            is_leading(&metrics, self.replica())
                && our_vote(&metrics.vote) == asking.vote
                && metrics.last_log_index == Some(asking.last.index)
        };
        let lacks_one = asking.lacks_a_voter;
        let company = asking.company();
        let rests = is_unchanged
            && self
                .resting()
                .roster()
                .is_some_and(|mut roster| roster.lead(self.id(), company, Instant::now()));
        sometimes!("a group rests", rests);
        sometimes!("a group rests without a voter that is gone", rests && lacks_one);
        if !rests {
            self.wake_in_background();
        }
    }

    /// Rests, if a leader that wants to has nothing that this replica lacks.
    pub(super) fn is_lulled(&self, from: NodeId, lull: &Lull) -> bool {
        if buggify!("raft keeps a follower awake") || self.replica() != lull.to {
            return false;
        }
        let Some(mut roster) = self.resting().roster() else { return false };
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
        self.resting().lulls.fetch_add(1, Ordering::SeqCst);
        self.resting().is_awake.store(false, Ordering::SeqCst);
        self.resting().tick(false);
        true
    }

    /// What a message means to a replica that rests. Votes may be refused without
    /// asking it, as they are by who hears its leader.
    pub(crate) fn stir(&self, body: &Body<'_>) -> Option<Reply> {
        if let Body::Transfer(transfer) = body {
            self.expect_election(transfer.vote);
        }
        let (Body::PreVote(call) | Body::Vote(call)) = body else { return None };
        if call.is_transfer {
            return None;
        }
        if !self.resting().still_bound_for().is_zero() {
            sometimes!("a replica votes for nobody yet");
            return Some(self.refuse_vote());
        }
        if self.resting().is_awake() {
            return None;
        }
        let believes = {
            let roster = self.resting().roster()?;
            // A leader that wakes is one, whatever has become of its lease.
            let is_waking = || !roster.rests(self.id()) && self.is_leading_now();
            roster.believes(self.id(), Instant::now()) || is_waking()
        };
        self.doubt();
        sometimes!("a replica that rests refuses its vote", believes);
        believes.then(|| self.refuse_vote())
    }

    /// A leader gives way: somebody is elected, or everybody's timers decide.
    fn expect_election(&self, of: Vote) {
        let resting = self.resting();
        let Some(mut roster) = resting.roster() else { return };
        let metrics = self.raft().metrics();
        if our_vote(&metrics.borrow_watched().vote) == of {
            resting.end(&mut roster);
        }
    }

    /// Whoever believes in its leader would not vote for another.
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
        let (leads, doubt) = {
            let Some(mut roster) = self.resting().roster() else { return };
            (roster.office(self.id()).is_some(), roster.doubt(self.id()))
        };
        if leads {
            self.wake_in_background();
        }
        if let Some(doubt) = doubt {
            self.spread_doubt(doubt);
        }
    }

    /// Asks the leader to show itself, and stands for election if it does not.
    pub(super) fn spread_doubt(&self, doubt: Doubt) {
        let house = Arc::clone(&self.resting().house);
        if doubt.asks {
            let (group, from, to) = (doubt.group, self.replica(), doubt.leader);
            let wake = Message { group, from, to, body: Body::Wake }.to_bytes();
            let asked = house.transport().call(doubt.under, Lane::Heartbeat, wake, house.beat());
            // Whatever it answers: it is heard, or not.
            drop(runtime::spawn(async move { drop(asked.await) }));
        }
        let (group, patience) = (self.clone(), doubting(self.timing()));
        drop(runtime::spawn(async move {
            tokio::time::sleep(patience).await;
            let Some(mut roster) = group.resting().roster() else { return };
            if roster.doubts(doubt.group, doubt.turn) {
                sometimes!("a replica that rested stands for election");
                group.resting().end(&mut roster);
            }
        }));
    }

    /// Where the replicas live that rest with this one, which leads them, or did
    /// until just now: they answered beats then.
    pub(crate) fn company(&self) -> Option<BTreeSet<NodeId>> {
        let resting = self.resting();
        let now = resting.house.roster().company(self.id()).cloned();
        now.or_else(|| {
            let left = resting.left.lock();
            let (when, company) = left.as_ref()?;
            (when.elapsed() <= resting.house.patience()).then(|| company.clone())
        })
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
