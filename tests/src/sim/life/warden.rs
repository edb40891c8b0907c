//! Turns machines on and off, and looks after node 1's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_testkit::disk::{CrashDisk, Faults, SyncFault};
use tokio::time::sleep;

use super::chapter::NODE_1;
use crate::sim::cluster::Cluster;

/// How long node 1 is off after its disk has lost power.
const OFF: Duration = Duration::from_millis(300);
/// How soon the rest of the machine follows its disk.
const DIES_WITHIN: Duration = Duration::from_millis(1);
/// How often it is looked whether all serve.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked before it counts as never.
const LOOKS_MAX: usize = 3_000;
/// So many times a look at node 1's disk is one at everything else.
const LOOKS_PER_ROUND: u64 = 50;

/// When the disk of node 1 loses power.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Aim {
    /// During this operation of its whole life, counted from 1.
    pub(super) at: Option<u64>,
    /// And during this operation of the start after that.
    pub(super) again_at: Option<u64>,
    /// What survives.
    pub(super) seed: u64,
    /// Whether its syncs do nothing, in every life.
    pub(super) is_lying: bool,
}

/// Whoever has the keys to the machine room. Clones are the same.
#[derive(Clone)]
pub(super) struct Warden {
    cluster: Cluster,
    aim: Aim,
    deaths: Arc<Mutex<u64>>,
    /// The operation for which its disk is armed, counted as in [`Aim::at`].
    armed: Arc<Mutex<Option<u64>>>,
    /// Held by whoever turns node 1 on or off.
    at_work: Arc<tokio::sync::Mutex<()>>,
}

impl Warden {
    pub(super) fn new(cluster: &Cluster, aim: Aim) -> Self {
        let (deaths, armed, at_work) = (Arc::default(), Arc::default(), Arc::default());
        Self { cluster: cluster.clone(), aim, deaths, armed, at_work }
    }

    /// How often node 1 has died.
    pub(super) fn deaths(&self) -> u64 {
        *self.deaths.lock()
    }

    /// Starts a node on what its disk holds. Node 1 may die over it, and is
    /// started again until it lives.
    pub(super) async fn start(&self, place: usize) {
        if place == NODE_1 {
            let _at_work = self.at_work.lock().await;
            if self.cluster.node(NODE_1).is_none() {
                self.raise().await;
            }
            return;
        }
        if self.cluster.node(place).is_some() {
            return;
        }
        let _ = self.cluster.reboot(place);
        if let Err(error) = self.cluster.boot(place).await {
            self.find_no_start(place, &error);
        }
    }

    async fn raise(&self) {
        loop {
            let _ = self.cluster.reboot(NODE_1);
            self.take_aim();
            let disk = self.cluster.disk(NODE_1);
            let started = tokio::select! {
                biased;
                () = death(&disk) => None,
                started = self.cluster.boot(NODE_1) => Some(started),
            };
            match started {
                Some(Ok(())) => return,
                Some(Err(error)) if disk.is_live() => {
                    return self.find_no_start(NODE_1, &error);
                }
                Some(Err(_)) | None => self.bury().await,
            }
        }
    }

    fn find_no_start(&self, place: usize, error: &str) {
        let what = format!("{}: {error}", self.cluster.id(place));
        self.cluster.find("a node starts on what its disk kept", what);
    }

    /// Arms the disk for what is still to come. A boot ends what was armed in
    /// the boot before.
    fn take_aim(&self) {
        let Aim { at, again_at, seed, is_lying } = self.aim;
        let done = self.cluster.disk(NODE_1).counters().operations;
        let next = match self.deaths() {
            0 => at.and_then(|at| at.checked_sub(done)),
            1 => again_at,
            _ => None,
        };
        let next = next.filter(|operations| *operations > 0);
        *self.armed.lock() = next.map(|operations| done + operations);
        if let Some(operations) = next {
            self.cluster.tear(NODE_1, operations, seed ^ self.deaths());
        }
        if is_lying {
            let sync = Some((1, SyncFault::Lie));
            self.cluster.set_disk_faults(NODE_1, |_| Faults { sync, ..Faults::default() });
        }
    }

    /// The machine follows its disk, and stays off for a while.
    async fn bury(&self) {
        self.cluster.crash(NODE_1);
        *self.deaths.lock() += 1;
        sleep(OFF).await;
    }

    /// Ends a node in good order.
    pub(super) async fn stop(&self, place: usize) {
        if place != NODE_1 {
            return self.cluster.stop(place).await;
        }
        let _at_work = self.at_work.lock().await;
        let disk = self.cluster.disk(NODE_1);
        tokio::select! {
            biased;
            () = death(&disk) => {}
            () = self.cluster.stop(NODE_1) => {}
        }
        // A node that is ending may end of it before anybody else notices.
        let armed = *self.armed.lock();
        if armed.is_some_and(|armed| disk.counters().operations >= armed) {
            self.bury().await;
        }
    }

    /// Brings node 1 back whenever its disk has lost power, and looks whether
    /// all is well, for as long as it is polled.
    pub(super) async fn guard(&self) {
        for look in 1_u64.. {
            sleep(DIES_WITHIN).await;
            {
                let _at_work = self.at_work.lock().await;
                let is_on = self.cluster.node(NODE_1).is_some();
                if is_on && !self.cluster.disk(NODE_1).is_live() {
                    self.bury().await;
                    self.raise().await;
                }
            }
            if look.is_multiple_of(LOOKS_PER_ROUND) {
                self.look_around();
            }
        }
    }

    /// Waits until every node serves, node 1 in whichever life.
    pub(super) async fn serving(&self) {
        let mut instead = String::new();
        for _ in 0..LOOKS_MAX {
            let idle = (0..self.cluster.members()).find_map(|place| {
                let id = self.cluster.id(place);
                match self.cluster.node(place) {
                    Some((_, node)) => Some(format!("{id}: {}", node.readiness().err()?)),
                    None => Some(format!("{id} is off")),
                }
            });
            match idle {
                None => return,
                Some(idle) => instead = idle,
            }
            sleep(LOOK_EVERY).await;
        }
        self.cluster.find("a healed cluster serves", instead);
    }

    fn look_around(&self) {
        self.cluster.look_at_migrations();
        for place in self.cluster.running() {
            let failure = self.cluster.node(place).and_then(|(_, node)| node.failure());
            // One whose disk has just died is about to be buried.
            let Some(failure) = failure.filter(|_| self.cluster.disk(place).is_live()) else {
                continue;
            };
            let what = format!("{} gave up: {failure}", self.cluster.id(place));
            self.cluster.find("a node on a healthy disk goes on", what);
        }
    }
}

/// Comes back when a disk has lost its power.
async fn death(disk: &CrashDisk) {
    while disk.is_live() {
        sleep(DIES_WITHIN).await;
    }
}
