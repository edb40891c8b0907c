//! One completion for several appends.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Completion, LogError};

/// Calls a completion when nobody holds it any more: with the first error that
/// one of its [parts](AllOf::part) was called with, if any was.
pub(super) struct AllOf(Mutex<Outcome>);

struct Outcome {
    completion: Option<Completion>,
    result: Result<(), LogError>,
}

impl AllOf {
    pub(super) fn new(completion: Completion) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Outcome { completion: Some(completion), result: Ok(()) })))
    }

    pub(super) fn part(self: &Arc<Self>) -> Completion {
        let all = Arc::clone(self);
        Box::new(move |result| {
            let mut outcome = all.0.lock();
            if outcome.result.is_ok() {
                outcome.result = result;
            }
        })
    }
}

impl Drop for AllOf {
    fn drop(&mut self) {
        let Outcome { completion, result } = self.0.get_mut();
        if let Some(completion) = completion.take() {
            completion(result.clone());
        }
    }
}
