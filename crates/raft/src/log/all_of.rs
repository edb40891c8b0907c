//! One completion for several appends.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Completion, LogError};

/// Calls a completion when nobody holds it any more: with success if it is
/// [complete](AllOf::complete) and each of its [parts](AllOf::part) was called with
/// that; else with the first error that one was called with, if any was.
pub(super) struct AllOf(Mutex<Outcome>);

struct Outcome {
    completion: Option<Completion>,
    /// Parts that have not succeeded, and one until all parts are there.
    missing: usize,
    failed: Option<LogError>,
}

impl AllOf {
    pub(super) fn new(completion: Completion) -> Arc<Self> {
        let outcome = Outcome { completion: Some(completion), missing: 1, failed: None };
        Arc::new(Self(Mutex::new(outcome)))
    }

    pub(super) fn part(self: &Arc<Self>) -> Completion {
        self.0.lock().missing += 1;
        let all = Arc::clone(self);
        Box::new(move |result| all.one(result))
    }

    /// There are no more parts.
    pub(super) fn complete(&self) {
        self.one(Ok(()));
    }

    fn one(&self, result: Result<(), LogError>) {
        let mut outcome = self.0.lock();
        match result {
            Ok(()) => outcome.missing -= 1,
            Err(error) => drop(outcome.failed.get_or_insert(error)),
        }
    }
}

impl Drop for AllOf {
    fn drop(&mut self) {
        let Outcome { completion, missing, failed } = self.0.get_mut();
        let Some(completion) = completion.take() else { return };
        completion(match failed.take() {
            Some(error) => Err(error),
            None if *missing > 0 => Err(LogError::Closed),
            None => Ok(()),
        });
    }
}
