//! What runs a target: the same inputs each time, or bolero's engine.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bolero::bolero_engine::driver::Options;
use bolero::bolero_engine::input::Bytes;
use bolero::bolero_engine::panic::{PanicError, catch, forward_panic, set_hook};
use bolero::bolero_engine::{Failure, Input};
use bolero::{DefaultEngine, Engine, TargetLocation, Test};
use quorate_types::env::{Rng, SplitMix};

use super::Corpus;

/// How many inputs a target tries, unless it is told to take longer.
pub const INPUTS_MAX: u64 = 20_000;

/// How long a target takes, unless it is told to take longer: forty targets
/// are a minute of two cores.
pub const TIME_MAX: Duration = Duration::from_millis(1_500);

/// How long a finding is made smaller.
const SHRINK_TIME: Duration = Duration::from_secs(5);

/// Runs the check on the target's inputs: what [`fuzz!`](crate::fuzz!) expands
/// to.
///
/// # Panics
/// When the check does, with the input made smaller.
pub fn run(location: TargetLocation, corpus: Corpus, check: impl FnMut(&[u8])) {
    // Who asks for the list of targets gets it, and nothing runs.
    if !location.should_run() {
        return;
    }
    let mut options = Options::default();
    options.set_max_len(usize::MAX);
    options.set_shrink_time(SHRINK_TIME);
    let target = Target { corpus, check };
    if is_coverage_guided() {
        DefaultEngine::new(location).run(target, options);
    } else {
        Repeatable::new(location).run(target, options);
    }
}

/// Whether bolero's engine is one that watches what an input reaches.
#[expect(unexpected_cfgs, reason = "cargo bolero sets it")]
const fn is_coverage_guided() -> bool {
    cfg!(fuzzing)
}

/// A check and what it is fed with.
struct Target<F> {
    corpus: Corpus,
    check: F,
}

impl<F: FnMut(&[u8])> Test for Target<F> {
    type Value = Shown;

    fn test<T: Input<Result<bool, PanicError>>>(
        &mut self,
        drawn: &mut T,
    ) -> Result<bool, PanicError> {
        drawn.with_slice(&mut |drawn| {
            let input = self.corpus.input(drawn);
            // After a panic the check is only called to make the input smaller.
            catch(AssertUnwindSafe(|| {
                (self.check)(&input);
                Ok(true)
            }))
        })
    }

    fn generate_value<T: Input<Shown>>(&self, drawn: &mut T) -> Shown {
        drawn.with_slice(&mut |drawn| Shown(self.corpus.input(drawn)))
    }
}

/// An input as a test would write it down.
struct Shown(Vec<u8>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes: b\"{}\"", self.0.len(), self.0.escape_ascii())
    }
}

/// Draws input `i` of a target from its name, the seed, and `i`.
struct Repeatable {
    location: TargetLocation,
    budget: Budget,
}

/// What the environment asks for.
struct Budget {
    seed: u64,
    only: Option<u64>,
    inputs_max: u64,
    time_max: Duration,
}

impl Budget {
    fn from_environment() -> Self {
        let seconds = variable("QUORATE_FUZZ_SECONDS");
        let (inputs_max, time_max) =
            seconds.map_or((INPUTS_MAX, TIME_MAX), |s| (u64::MAX, Duration::from_secs(s)));
        Self {
            seed: variable("QUORATE_FUZZ_SEED").unwrap_or(0),
            only: variable("QUORATE_FUZZ_INPUT"),
            inputs_max,
            time_max,
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name}={text}: a number is expected"),
    }
}

impl<F: FnMut(&[u8])> Engine<Target<F>> for Repeatable {
    type Output = ();

    fn run(self, mut target: Target<F>, options: Options) {
        set_hook();
        let was_forwarded = forward_panic(false);
        let found = self.search(&mut target, &options);
        forward_panic(was_forwarded);
        if let Some(finding) = found {
            panic!("{finding}");
        }
    }
}

impl Repeatable {
    fn new(location: TargetLocation) -> Self {
        Self { location, budget: Budget::from_environment() }
    }

    /// The first finding, described.
    fn search<F: FnMut(&[u8])>(&self, target: &mut Target<F>, options: &Options) -> Option<String> {
        for path in self.crashes() {
            let drawn = std::fs::read(&path).unwrap_or_default();
            if let Err(error) = target.test(&mut Bytes::new(&drawn, options)) {
                let finding = smallest(target, drawn, error, options);
                return Some(format!("{finding}\nThe input is {}.", path.display()));
            }
        }
        let (first, count) = self.budget.only.map_or((0, self.budget.inputs_max), |only| (only, 1));
        #[expect(clippy::disallowed_methods, reason = "how long a test takes is real time")]
        let started = Instant::now();
        for index in first..first.saturating_add(count) {
            if started.elapsed() > self.budget.time_max {
                break;
            }
            let drawn = self.draw(index, target.corpus.bytes_max());
            if let Err(error) = target.test(&mut Bytes::new(&drawn, options)) {
                let finding = smallest(target, drawn, error, options);
                return Some(format!("{finding}\n{}", self.how_to_repeat(index)));
            }
        }
        None
    }

    /// Bytes for input `index`: short ones as often as long ones, because a
    /// short input that matters is found sooner.
    fn draw(&self, index: u64, bytes_max: usize) -> Vec<u8> {
        let seed = crc32c::crc32c(self.location.item_path().as_bytes());
        let mut rng = SplitMix::new(self.budget.seed ^ (u64::from(seed) << 32));
        let mut rng = SplitMix::new(rng.next_u64().wrapping_add(index));
        let longest = bytes_max >> (2 * rng.below(4));
        let len = usize::try_from(rng.below(longest.max(16) as u64 + 1)).unwrap_or(longest);
        let mut drawn: Vec<u8> =
            (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        drawn.truncate(len);
        drawn
    }

    /// What a run guided by coverage found, and somebody kept.
    fn crashes(&self) -> Vec<PathBuf> {
        let folder = self.location.work_dir().map(|folder| folder.join("crashes"));
        let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
        let mut paths: Vec<PathBuf> =
            entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    }

    fn how_to_repeat(&self, index: u64) -> String {
        let Self { location, budget } = self;
        let (package, path) = (location.package_name, location.item_path());
        let seed = match budget.seed {
            0 => String::new(),
            seed => format!("QUORATE_FUZZ_SEED={seed} "),
        };
        format!("Again: {seed}QUORATE_FUZZ_INPUT={index} cargo test -p {package} {path}")
    }
}

/// Makes the input of a finding smaller and describes it.
fn smallest<F: FnMut(&[u8])>(
    target: &mut Target<F>,
    drawn: Vec<u8>,
    error: PanicError,
    options: &Options,
) -> String {
    // Shrinking the input itself leaves what counts; shrinking the decisions
    // by which it was mutated would not.
    let input = target.corpus.input(&drawn);
    let itself = target.corpus.drawn_for(&input);
    let failure = target.shrink(itself, None, options);
    format!("{:#}", failure.unwrap_or(Failure { seed: None, error, input: Shown(input) }))
}
