//! One life of a simulated node.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::fault::Canary;
use quorate_types::runtime::{self, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use super::Coverage;
use crate::disk::CrashDisk;

/// A sync takes up to so long, unless told otherwise.
pub const SYNC_DELAY_MAX_DEFAULT: Duration = Duration::from_millis(5);

/// Finished tasks are looked for when so many have been added since.
const TASKS_BETWEEN_SWEEPS: usize = 256;

/// Of so many places with a rare branch a run enables one.
const SITES_PER_ENABLED: u64 = 4;

/// Of so many times that an enabled one is passed its branch is taken once.
const PASSES_PER_FIRE: u64 = 8;

/// The runtime of one life of a node. Everything spawned in its scope is
/// aborted, in the order in which it was spawned, when the node crashes; its
/// chance follows from its seed.
///
/// A node can also be *paused*, like a process under SIGSTOP: nothing of it
/// runs, neither its tasks nor what [`SimNode::run`] runs. Its timers expire
/// late, and what arrives for it waits at its door, where the sender cannot
/// tell it from one that is slow.
pub struct SimNode {
    id: NodeId,
    life: u64,
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
    sync_delay_max: Duration,
    hooks: Hooks,
    /// Draws for rare branches, so that one place more or less in the code
    /// does not change what else the node draws.
    whims: SplitMix,
    is_alive: bool,
    is_paused: bool,
    /// Who wanted to run while the node was paused, in that order. One that
    /// wanted to several times may be in it several times: it is woken once.
    stopped: Vec<Waker>,
}

/// What a simulation does inside the node's code; the same in all its lives.
#[derive(Debug, Clone, Default)]
struct Hooks {
    coverage: Option<Coverage>,
    rare_branches_seed: Option<u64>,
    canary: Option<Canary>,
}

impl Hooks {
    /// Whether the run enables a place: the same answer on every node.
    fn enables(&self, site: &str) -> bool {
        let name = |hash: u64, byte: u8| SplitMix::new(hash ^ u64::from(byte)).next_u64();
        let hash = self.rare_branches_seed.map(|seed| site.bytes().fold(seed, name));
        hash.is_some_and(|hash| hash.is_multiple_of(SITES_PER_ENABLED))
    }
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
        Self::live(id, 1, seed ^ id.0.rotate_left(32), sync_delay_max, Hooks::default())
    }

    fn live(id: NodeId, life: u64, seed: u64, sync_delay_max: Duration, hooks: Hooks) -> Arc<Self> {
        let whims = hooks.rare_branches_seed.unwrap_or_default() ^ id.0.rotate_left(32) ^ life;
        let mut fate = SplitMix::new(seed);
        let chance = SplitMix::new(fate.next_u64());
        let state = State {
            chance,
            fate,
            tasks: Vec::new(),
            tasks_at_sweep: 0,
            disks: Vec::new(),
            sync_delay_max,
            hooks,
            whims: SplitMix::new(whims),
            is_alive: true,
            is_paused: false,
            stopped: Vec::new(),
        };
        Arc::new(Self { id, life, state: Mutex::new(state) })
    }

    /// The same node, which counts in `coverage` which places of its code it
    /// has been to, in this life and in those to come.
    #[must_use]
    pub fn with_coverage(self: Arc<Self>, coverage: Coverage) -> Arc<Self> {
        self.state.lock().hooks.coverage = Some(coverage);
        self
    }

    /// The same node, whose code takes rare branches
    /// ([`buggify!`](quorate_types::buggify)) now and then, in this life and in
    /// those to come. All nodes of a run get one `seed`, which enables the same
    /// places everywhere; when those fire differs from node to node.
    #[must_use]
    pub fn with_rare_branches(self: Arc<Self>, seed: u64) -> Arc<Self> {
        {
            let mut state = self.state.lock();
            state.hooks.rare_branches_seed = Some(seed);
            state.whims = SplitMix::new(seed ^ self.id.0.rotate_left(32) ^ self.life);
        }
        self
    }

    /// The same node with a bug planted in it, in this life and in those to
    /// come. It shows only in a build with canaries.
    #[must_use]
    pub fn with_canary(self: Arc<Self>, canary: Canary) -> Arc<Self> {
        self.state.lock().hooks.canary = Some(canary);
        self
    }

    /// Ends this life, if it has not ended, and begins the next, with chance of
    /// its own. Its disks have to be attached again, after their reboot; they
    /// are as slow as they were.
    #[must_use]
    pub fn restarted(&self) -> Arc<Self> {
        self.crash();
        let mut state = self.state.lock();
        let (seed, hooks) = (state.fate.next_u64(), state.hooks.clone());
        Self::live(self.id, self.life + 1, seed, state.sync_delay_max, hooks)
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

    /// Where it counts the places it has been to, if it does.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        self.state.lock().hooks.coverage.clone()
    }

    /// From now on disk syncs take up to so long: a disk becomes slow, and fast
    /// again. Syncs under way are not affected.
    pub fn set_sync_delay_max(&self, sync_delay_max: Duration) {
        self.state.lock().sync_delay_max = sync_delay_max;
    }

    /// The longest time a sync takes.
    #[must_use]
    pub fn sync_delay_max(&self) -> Duration {
        self.state.lock().sync_delay_max
    }

    /// Stops the node where it stands: each of its tasks at its next await.
    /// Nothing happens to a dead one.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        state.is_paused = state.is_alive;
    }

    /// Lets a paused node go on. Its tasks are woken in the order in which they
    /// wanted to run meanwhile.
    pub fn resume(&self) {
        let stopped = {
            let mut state = self.state.lock();
            state.is_paused = false;
            std::mem::take(&mut state.stopped)
        };
        stopped.into_iter().for_each(Waker::wake);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.lock().is_paused
    }

    /// Lets a disk lose power when this node crashes.
    pub fn attach(&self, disk: &CrashDisk) {
        self.state.lock().disks.push(disk.clone());
    }

    /// Runs `future` as part of this node, in the caller's task. (That task is
    /// the caller's: what must die with the node has to be spawned. It stands
    /// still while the node is paused, and goes on when it crashes.)
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
    /// each at its next await, or where it stands if the node is paused.
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
        self.resume();
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
        let mut state = self.state.lock();
        let micros = u64::try_from(state.sync_delay_max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(state.chance.below(micros + 1))
    }

    fn poll_awake(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.is_paused {
            return Poll::Ready(());
        }
        state.stopped.push(cx.waker().clone());
        Poll::Pending
    }

    fn buggify(&self, site: &'static str) -> bool {
        let mut state = self.state.lock();
        let fires = state.hooks.enables(site) && state.whims.below(PASSES_PER_FIRE) == 0;
        if let Some(coverage) = &state.hooks.coverage {
            coverage.reach(site);
            if fires {
                coverage.fired(site);
            }
        }
        fires
    }

    fn reached(&self, site: &'static str) {
        if let Some(coverage) = &self.state.lock().hooks.coverage {
            coverage.reach(site);
        }
    }

    fn canary(&self) -> Option<Canary> {
        self.state.lock().hooks.canary
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNode({}, life {})", self.id, self.life)
    }
}
