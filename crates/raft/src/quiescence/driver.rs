//! What a node does for all its groups that rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard, RwLock};
use quorate_types::{GroupId, NodeId, Seq, runtime, sometimes};
use tokio::time::Instant;

use super::group::Asking;
use super::roster::{Doubt, Roster};
use super::wire::{Beat, Heard, Lull};
use crate::config::{GroupClass, HostConfig};
use crate::consensus::wire::Reply;
use crate::group::Group;
use crate::heartbeats::Heartbeats;
use crate::nodes::NodeCall;
use crate::transport::{Lane, Transport};

/// The groups of a host.
pub(crate) type Groups = RwLock<BTreeMap<GroupId, Group>>;

/// So many groups are asked to rest at a time: what one message names.
const ASKED_MAX: usize = 1024;

/// How often a group is looked at until it rests.
const LOOKS_UNTIL_QUIET: u32 = 5;

/// So many beats at least come before silence is taken for one.
const BEATS_IN_PATIENCE: u32 = 4;

/// Lets the groups of a node rest, and vouches for them to other nodes.
pub(crate) struct Quiescence {
    /// After so long without use a group rests; never without.
    after: Option<Duration>,
    /// Between beats.
    beat: Duration,
    /// How long silence of a node is borne.
    patience: Duration,
    transport: Arc<dyn Transport>,
    heartbeats: Arc<Heartbeats>,
    groups: Weak<Groups>,
    roster: Mutex<Roster>,
}

impl Quiescence {
    pub(crate) fn start(
        config: &HostConfig,
        transport: Arc<dyn Transport>,
        heartbeats: &Arc<Heartbeats>,
        groups: &Arc<Groups>,
    ) -> Arc<Self> {
        let timings = || GroupClass::ALL.map(|class| config.timing(class)).into_iter();
        let beat = timings().map(|timing| timing.heartbeat).min().unwrap_or_default();
        let patience = timings().map(|timing| timing.lease()).max().unwrap_or_default();
        let beat = beat.min(patience / BEATS_IN_PATIENCE).max(Duration::from_millis(1));
        let house = Arc::new(Self {
            after: config.quiet_after,
            beat,
            patience,
            transport,
            heartbeats: Arc::clone(heartbeats),
            groups: Arc::downgrade(groups),
            roster: Mutex::new(Roster::new(patience, beat)),
        });
        drop(runtime::spawn(keep_beating(Arc::downgrade(&house))));
        drop(runtime::spawn(keep_ticking(Arc::downgrade(&house))));
        if config.quiet_after.is_some() {
            drop(runtime::spawn(keep_lulling(Arc::downgrade(&house))));
        }
        house
    }

    pub(crate) const fn after(&self) -> Option<Duration> {
        self.after
    }

    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) const fn beat(&self) -> Duration {
        self.beat
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock()
    }

    /// Replicas that rest.
    pub(crate) fn resting(&self) -> u64 {
        self.roster.lock().len() as u64
    }

    pub(super) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    fn group(&self, group: GroupId) -> Option<Group> {
        self.groups.upgrade()?.read().get(&group).cloned()
    }

    /// Whether each of these followers rests now.
    pub(crate) fn lulled(&self, from: NodeId, lulls: &[Lull]) -> Seq<bool> {
        let rests =
            |lull: &Lull| self.group(lull.group).is_some_and(|group| group.is_lulled(from, lull));
        lulls.iter().map(rests).collect()
    }

    /// Another node vouches for its leaders that rest.
    pub(crate) fn hear(&self, from: NodeId, beat: &Beat) -> Heard {
        let (heard, doubts) = self.roster.lock().hear(from, beat, Instant::now());
        sometimes!("a group rests that its leader's node does not claim", !doubts.is_empty());
        self.act_on(doubts);
        heard
    }

    fn answered(&self, by: NodeId, heard: &Heard) {
        let alone = self.roster.lock().answered(by, heard, Instant::now());
        self.wake(alone);
    }

    /// Leaders that cannot rest any longer.
    fn wake(&self, groups: Vec<GroupId>) {
        for group in groups {
            if let Some(group) = self.group(group) {
                group.wake_in_background();
            }
        }
    }

    fn act_on(&self, doubts: Vec<Doubt>) {
        for doubt in doubts {
            if let Some(group) = self.group(doubt.group) {
                group.spread_doubt(doubt);
            }
        }
    }

    /// Beats, and looks who is silent.
    fn tend(self: &Arc<Self>) {
        let (silence, beats) = {
            let mut roster = self.roster.lock();
            (roster.look(Instant::now()), roster.beats())
        };
        sometimes!("a leader rests and has lost its quorum", !silence.alone.is_empty());
        self.wake(silence.alone);
        sometimes!("the node of a resting leader is silent", !silence.doubts.is_empty());
        self.act_on(silence.doubts);
        for (node, beat) in beats {
            drop(runtime::spawn(beat_to(Arc::clone(self), node, beat)));
        }
    }

    /// Starts the timers of whoever has to stand for election soon.
    fn tick(&self) {
        let Some(groups) = self.groups.upgrade() else { return };
        for group in groups.read().values() {
            group.tick_unless_heard();
        }
    }

    /// Has every group rest that may.
    async fn lull(&self) {
        let Some(groups) = self.groups.upgrade() else { return };
        let groups: Vec<Group> = groups.read().values().cloned().collect();
        let asking: Vec<(Group, Asking)> = groups
            .into_iter()
            .filter_map(|group| group.ask_to_rest().map(|asking| (group, asking)))
            .take(ASKED_MAX)
            .collect();
        let mut lulls: BTreeMap<NodeId, Vec<Lull>> = BTreeMap::new();
        for (node, lull) in asking.iter().flat_map(|(_, asking)| asking.lulls()) {
            lulls.entry(node).or_default().push(lull);
        }
        let asked = lulls.into_iter().map(|(node, lulls)| async move {
            let answers = self.ask(node, lulls.clone()).await;
            (node, lulls.iter().map(|lull| lull.group).zip(answers).collect::<BTreeMap<_, _>>())
        });
        let answers: BTreeMap<NodeId, BTreeMap<GroupId, bool>> =
            join_all(asked).await.into_iter().collect();
        for (group, asking) in asking {
            let agrees = |node: &NodeId| {
                answers.get(node).and_then(|answers| answers.get(&group.id())) == Some(&true)
            };
            if asking.nodes().all(agrees) {
                group.rest(asking);
            } else {
                group.wake_in_background();
            }
        }
    }

    /// Asks followers on a node to rest; nothing where there is no answer.
    async fn ask(&self, node: NodeId, lulls: Vec<Lull>) -> Vec<bool> {
        // A heartbeat that came behind it would wake whom it has rest.
        self.heartbeats.hurry(node);
        let call = NodeCall::Lull(Seq(lulls)).to_bytes();
        match self.transport.call(node, Lane::Heartbeat, call, self.beat * 2).await {
            Ok(reply) => match Reply::from_bytes(&reply) {
                Ok(Reply::Lulled(answers)) => answers.0,
                _ => Vec::new(),
            },
            Err(_) => Vec::new(),
        }
    }
}

async fn beat_to(house: Arc<Quiescence>, node: NodeId, beat: Beat) {
    let call = NodeCall::Beat(beat).to_bytes();
    let reply = house.transport.call(node, Lane::Heartbeat, call, house.patience).await;
    if let Ok(reply) = reply
        && let Ok(Reply::BeatHeard(heard)) = Reply::from_bytes(&reply)
    {
        house.answered(node, &heard);
    }
}

async fn keep_beating(house: Weak<Quiescence>) {
    while let Some(house) = house.upgrade() {
        let pause = house.beat;
        house.tend();
        drop(house);
        tokio::time::sleep(pause).await;
    }
}

/// Apart from the others: on this all elections depend, on those only who rests.
async fn keep_ticking(house: Weak<Quiescence>) {
    while let Some(house) = house.upgrade() {
        let pause = house.beat;
        house.tick();
        drop(house);
        tokio::time::sleep(pause).await;
    }
}

async fn keep_lulling(house: Weak<Quiescence>) {
    while let Some(house) = house.upgrade() {
        let pause = house.after.map_or(house.beat, |after| after / LOOKS_UNTIL_QUIET);
        house.lull().await;
        drop(house);
        tokio::time::sleep(pause).await;
    }
}
