//! What happens, told while it happens.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long after its cause an interruption may begin: a client that was not
/// waiting when a node was killed begins to wait a little later.
const EFFECT_MAX: Duration = Duration::from_secs(1);

/// The demo's clock and diary.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    /// What began when, in order.
    diary: Mutex<Vec<(Instant, String)>>,
}

impl Progress {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), diary: Mutex::new(Vec::new()) }
    }

    /// As if it had begun earlier.
    #[cfg(test)]
    pub(super) fn begun(start: Instant) -> Self {
        Self { start, diary: Mutex::default() }
    }

    /// Says that something begins. Interruptions are blamed on it.
    pub(super) fn begin(&self, what: impl Into<String>) {
        let what = what.into();
        self.say(&what);
        if let Ok(mut diary) = self.diary.lock() {
            diary.push((Instant::now(), what));
        }
    }

    /// Says something.
    pub(super) fn say(&self, what: &str) {
        eprintln!("[{:5.1} s] {what}", self.elapsed().as_secs_f64());
    }

    /// The time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// When a span of time began, and what set it off: the first thing that
    /// began within it or shortly before, or else the last one before that. What
    /// was going on when it ended is not to blame.
    pub(super) fn within(&self, from: Instant, duration: Duration) -> String {
        let Ok(diary) = self.diary.lock() else { return String::new() };
        let since = from.checked_sub(EFFECT_MAX).unwrap_or(from);
        let within = diary.iter().find(|(begin, _)| (since..=from + duration).contains(begin));
        let begun = within.or_else(|| diary.iter().rev().find(|(begin, _)| *begin < since));
        let what = begun.map(|(_, what)| what.as_str()).unwrap_or_default();
        let at = from.saturating_duration_since(self.start).as_secs_f64();
        format!("from {at:.1} s on, when: {what}")
    }
}

#[cfg(test)]
mod tests;
