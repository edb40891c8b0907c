//! Being asked to end, and waiting that ends then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Outcome;

/// How often a sleeper looks whether the demo is to end.
const NAP: Duration = Duration::from_millis(50);

/// Set once the demo is asked to end. The nodes are ended and their folder is
/// removed by the way that every end takes; a signal alone would leave both.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Set by Ctrl-C, by a request to end, and by a terminal that closes.
    pub(super) fn by_signals() -> Outcome<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// Whether the demo is to end.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once the demo is to end.
    pub(super) fn check(&self) -> Outcome {
        if self.is_set() { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Sleeps, unless the demo is to end.
    pub(super) fn sleep(&self, duration: Duration) -> Outcome {
        let start = Instant::now();
        loop {
            self.check()?;
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Asks again and again. `ask` answers what was waited for, or why it is
    /// not there yet; an error ends the waiting.
    ///
    /// # Errors
    /// Those of `ask`, the last reason when time is up, and the interruption.
    pub(super) fn wait_until<T>(
        &self,
        wait: &Wait<'_>,
        mut ask: impl FnMut() -> Outcome<Result<T, String>>,
    ) -> Outcome<T> {
        let start = Instant::now();
        loop {
            self.check()?;
            let reason = match ask()? {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            };
            if start.elapsed() >= wait.limit {
                let (what, seconds) = (wait.what, wait.limit.as_secs());
                return Err(format!("{what}: not within {seconds} s: {reason}").into());
            }
            self.sleep(wait.poll)?;
        }
    }

    /// As a signal would.
    #[cfg(test)]
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is waited for, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait<'a> {
    /// What shall come to pass, in words.
    pub(super) what: &'a str,
    /// How long to wait.
    pub(super) limit: Duration,
    /// How long to rest between two looks.
    pub(super) poll: Duration,
}

impl<'a> Wait<'a> {
    /// Looks as often as one may at what costs a node next to nothing.
    pub(super) fn new(what: &'a str, limit: Duration) -> Self {
        Self { what, limit, poll: NAP }
    }
}

#[cfg(test)]
mod tests;
