//! One life of a simulated node.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::{self, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::disk::CrashDisk;

/// A sync takes up to so long, unless told otherwise.
pub const SYNC_DELAY_MAX_DEFAULT: Duration = Duration::from_millis(5);

/// Finished tasks are looked for when so many have been added since.
const TASKS_BETWEEN_SWEEPS: usize = 256;

/// The runtime of one life of a node. Everything spawned in its scope is
/// aborted, in the order in which it was spawned, when the node crashes; its
/// chance follows from its seed.
pub struct SimNode {
    id: NodeId,
    life: u64,
    sync_delay_max: Duration,
    state: Mutex<State>,
}

struct State {
    chance: SplitMix,
    /// Draws for `restarted` and for crashes, apart from what the node's own
    /// code draws.
    fate: SplitMix,
    tasks: Vec<AbortHandle>,
    tasks_at_sweep: usize,
    disks: Vec<CrashDisk>,
    is_alive: bool,
}

impl SimNode {
    /// The first life of a node.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Arc<Self> {
        Self::with_sync_delay(id, seed, SYNC_DELAY_MAX_DEFAULT)
    }

    /// The same, with disk syncs that take up to `sync_delay_max`.
    #[must_use]
    pub fn with_sync_delay(id: NodeId, seed: u64, sync_delay_max: Duration) -> Arc<Self> {
        Self::live(id, 1, seed ^ id.0.rotate_left(32), sync_delay_max)
    }

    fn live(id: NodeId, life: u64, seed: u64, sync_delay_max: Duration) -> Arc<Self> {
        let mut fate = SplitMix::new(seed);
        let chance = SplitMix::new(fate.next_u64());
        let state = State {
            chance,
            fate,
            tasks: Vec::new(),
            tasks_at_sweep: 0,
            disks: Vec::new(),
            is_alive: true,
        };
        Arc::new(Self { id, life, sync_delay_max, state: Mutex::new(state) })
    }

    /// Ends this life, if it has not ended, and begins the next, with chance of
    /// its own. Its disks have to be attached again, after their reboot.
    #[must_use]
    pub fn restarted(&self) -> Arc<Self> {
        self.crash();
        let seed = self.state.lock().fate.next_u64();
        Self::live(self.id, self.life + 1, seed, self.sync_delay_max)
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Which of the node's lives this is, counted from 1.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether it has not crashed yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.lock().is_alive
    }

    /// Lets a disk lose power when this node crashes.
    pub fn attach(&self, disk: &CrashDisk) {
        self.state.lock().disks.push(disk.clone());
    }

    /// Runs `future` as part of this node, in the caller's task. (That task is
    /// the caller's: what must die with the node has to be spawned.)
    pub async fn run<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let runtime: Arc<dyn Runtime> = Arc::clone(self) as Arc<dyn Runtime>;
        runtime::scope(runtime, future).await
    }

    /// Spawns a task of this node.
    #[expect(clippy::disallowed_methods, reason = "spawns into the node's own scope")]
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime: Arc<dyn Runtime> = Arc::clone(self) as Arc<dyn Runtime>;
        let task = tokio::spawn(runtime::scope(runtime, future));
        self.spawned(task.abort_handle());
        task
    }

    /// The node loses power. Its disks are cut first: dropping a store's tasks
    /// would otherwise close it in good order. Then all its tasks are aborted,
    /// each at its next await.
    pub fn crash(&self) {
        let (tasks, disks, seed) = {
            let mut state = self.state.lock();
            if !state.is_alive {
                return;
            }
            state.is_alive = false;
            let seed = state.fate.next_u64();
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.disks), seed)
        };
        for (disk, at) in disks.iter().zip(0..) {
            if disk.is_live() {
                disk.crash(seed.wrapping_add(at));
            }
        }
        for task in tasks {
            task.abort();
        }
    }
}

impl Runtime for SimNode {
    fn spawned(&self, task: AbortHandle) {
        let mut state = self.state.lock();
        if !state.is_alive {
            task.abort();
            return;
        }
        state.tasks.push(task);
        if state.tasks.len() >= state.tasks_at_sweep + TASKS_BETWEEN_SWEEPS {
            state.tasks.retain(|task| !task.is_finished());
            state.tasks_at_sweep = state.tasks.len();
        }
    }

    fn random(&self) -> u64 {
        self.state.lock().chance.next_u64()
    }

    fn sync_delay(&self) -> Duration {
        let micros = u64::try_from(self.sync_delay_max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.state.lock().chance.below(micros + 1))
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNode({}, life {})", self.id, self.life)
    }
}
