//! What happens, told while it happens.

use std::sync::Mutex;
use std::time::{Duration, Instant};

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

    /// What began within a span of time, or what had begun last before it.
    /// An interruption is blamed on what set it off, not on what was going on
    /// when it ended.
    pub(super) fn within(&self, from: Instant, duration: Duration) -> String {
        let Ok(diary) = self.diary.lock() else { return String::new() };
        let until = from + duration;
        let within = diary.iter().find(|(begin, _)| (from..=until).contains(begin));
        let begun = within.or_else(|| diary.iter().rev().find(|(begin, _)| *begin < from));
        begun.map(|(_, what)| what.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
