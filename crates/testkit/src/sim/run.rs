//! Runs one simulation.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::NodeId;
use tokio::time::Instant;

use super::{SimNode, Trace};
use crate::TestkitError;

/// An hour of virtual time is more than any scenario here needs; one that
/// waits longer waits for something that never comes.
pub const DURATION_MAX_DEFAULT: Duration = Duration::from_secs(3600);

/// The node as which the test itself runs.
const HARNESS: NodeId = NodeId(u64::MAX);

/// How to run a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// The simulation fails when it has not ended after so much virtual time.
    pub duration_max: Duration,
}

/// What a simulation is given.
#[derive(Debug, Clone)]
pub struct Sim {
    seed: u64,
    begun: Instant,
    trace: Trace,
    harness: Arc<SimNode>,
    tolerated: Arc<Mutex<Vec<String>>>,
}

/// What a simulation that ended well leaves.
#[derive(Debug)]
pub struct Finished<T> {
    /// What it returned.
    pub value: T,
    /// What it recorded.
    pub trace: Trace,
    /// The virtual time it took.
    pub elapsed: Duration,
}

impl Sim {
    /// The simulation's seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// When it began, in virtual time.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The virtual time since.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its trace.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Lets panics pass whose message contains `text`, for what the system
    /// under test contains on purpose.
    pub fn tolerate_panics(&self, text: impl Into<String>) {
        self.tolerated.lock().push(text.into());
    }

    /// The node as which the test itself runs; it never crashes.
    #[must_use]
    pub fn harness(&self) -> &Arc<SimNode> {
        &self.harness
    }
}

/// Runs a simulation from `seed` on this thread and returns what it left.
///
/// # Errors
/// `Panicked` when it or any task in it panicked, `OutOfTime` when it did not
/// end within [`DURATION_MAX_DEFAULT`], `Io` when no runtime could be built.
pub fn run<T, F: Future<Output = T>>(
    seed: u64,
    test: impl FnOnce(Sim) -> F,
) -> Result<Finished<T>, TestkitError> {
    run_with(SimOptions { seed, duration_max: DURATION_MAX_DEFAULT }, test)
}

/// As [`run`], with every option.
///
/// # Errors
/// As [`run`].
pub fn run_with<T, F: Future<Output = T>>(
    options: SimOptions,
    test: impl FnOnce(Sim) -> F,
) -> Result<Finished<T>, TestkitError> {
    let SimOptions { seed, duration_max } = options;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let panics = Panics::collect();
    let tolerated: Arc<Mutex<Vec<String>>> = Arc::default();
    let whole = async {
        let begun = Instant::now();
        let harness = SimNode::new(HARNESS, seed);
        let trace = Trace::new(begun);
        let sim = Sim {
            seed,
            begun,
            trace: trace.clone(),
            harness: Arc::clone(&harness),
            tolerated: Arc::clone(&tolerated),
        };
        // The limit also keeps the runtime from waiting without any timer,
        // which in paused time is for ever.
        let end = harness.run(tokio::time::timeout(duration_max, async { test(sim).await })).await;
        let elapsed = begun.elapsed();
        trace.freeze();
        end.map(|value| Finished { value, trace, elapsed })
    };
    let end = catch_unwind(AssertUnwindSafe(|| runtime.block_on(whole)));
    drop(runtime);
    let tolerated = tolerated.lock();
    let mut panics = panics.taken();
    panics.retain(|panic| !tolerated.iter().any(|text| panic.contains(text.as_str())));
    match end {
        Ok(Ok(finished)) if panics.is_empty() => Ok(finished),
        Ok(Err(_)) if panics.is_empty() => {
            Err(TestkitError::OutOfTime { seed, limit: duration_max })
        }
        _ => Err(TestkitError::Panicked { seed, panics }),
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// The panics of this thread while it lives. A task's panic would otherwise
/// hide in a join handle that nobody asks. The process's panic hook is shared
/// by all test threads, so it is set once, asks the thread, and passes on.
struct Panics {
    outer: Option<Vec<String>>,
}

impl Panics {
    fn collect() -> Self {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                PANICS.with_borrow_mut(|panics| {
                    if let Some(panics) = panics {
                        panics.push(info.to_string().replace('\n', " "));
                    }
                });
                previous(info);
            }));
        });
        Self { outer: PANICS.replace(Some(Vec::new())) }
    }

    fn taken(self) -> Vec<String> {
        PANICS.replace(self.outer).unwrap_or_default()
    }
}
