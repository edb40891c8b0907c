//! What clients say of their operations.

use std::error::Error;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// What a step of a bench ends with. Its error is one message for a person.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Load before anything counts: connections are made, caches filled.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// When what clients do counts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What began before it does not.
    pub begin: Instant,
    /// Nor does what ended behind it.
    pub end: Instant,
}

impl Window {
    /// One of this length, behind a warm-up that begins now.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + duration }
    }

    /// Waits for its begin, calls `begun`, and gathers what clients bring at its end.
    ///
    /// # Errors
    /// A message for a person, when one of them panicked.
    pub async fn pass(
        self,
        begun: impl FnOnce(),
        clients: Vec<JoinHandle<Measured>>,
    ) -> Outcome<Measured> {
        tokio::time::sleep_until(self.begin.into()).await;
        begun();
        tokio::time::sleep_until(self.end.into()).await;
        let mut all = Measured::default();
        for client in clients {
            let Measured { micros, errors, first_error } =
                client.await.map_err(|_| "a client panicked")?;
            all.micros.extend(micros);
            all.errors += errors;
            all.first_error = all.first_error.or(first_error);
        }
        all.micros.sort_unstable();
        Ok(all)
    }
}

/// What came of operations.
#[derive(Debug, Default)]
pub struct Measured {
    /// How long every one took that succeeded in time, in microseconds.
    pub micros: Vec<u64>,
    /// Those that did not.
    pub errors: u64,
    /// What the first of those said.
    pub first_error: Option<String>,
}

impl Measured {
    /// Counts an operation that began then and has succeeded now.
    pub fn done(&mut self, start: Instant, window: Window) {
        let now = Instant::now();
        if start >= window.begin && now <= window.end {
            let micros = now.duration_since(start).as_micros();
            self.micros.push(u64::try_from(micros).unwrap_or(u64::MAX));
        }
    }

    /// Counts an operation that did not.
    pub fn failed(&mut self, why: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| why.to_owned());
    }
}
