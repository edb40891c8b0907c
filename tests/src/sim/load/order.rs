//! O9: the order of the logs, held against what clients were told and when.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate::Answer;
use quorate::types::ClientId;
use quorate_calvin::Call;
use quorate_calvin::shard::Verdict as Decision;
use quorate_testkit::check::{Verdict, oracle};

use crate::sim::model::{KeyValueModel, Model};

/// A request, as clients and logs know it.
type RequestKey = (ClientId, u64);

/// What a client was told of a call.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Answer(Answer),
    Refused,
    Nothing,
}

/// Every call that writes, and when it was under way.
#[derive(Default)]
pub(super) struct Calls {
    moments: AtomicU64,
    calls: Mutex<Vec<oracle::Call<RequestKey, Answer>>>,
}

impl Calls {
    /// The next moment: they are in order, and no two are the same.
    pub(super) fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    /// A call has ended now.
    pub(super) fn note(&self, id: RequestKey, invoked: u64, told: Told) {
        let end = match told {
            Told::Answer(reply) => oracle::End::Replied { at: self.moment(), reply },
            Told::Refused => oracle::End::Refused,
            Told::Nothing => oracle::End::Unknown,
        };
        self.calls.lock().push(oracle::Call { id, invoked, end });
    }

    /// Whether the order of the logs respects real time, and executing it brings
    /// what clients were told.
    pub(super) fn judge(&self, order: Vec<(RequestKey, Call)>) -> Verdict {
        let mut model = Replayed::default();
        let witnesses: [oracle::Witness<&str>; 0] = [];
        oracle::replay(&mut model, order, &self.calls.lock(), &witnesses)
    }
}

/// The model of transactions, as a replay needs it.
#[derive(Default)]
struct Replayed(KeyValueModel);

impl oracle::Model for Replayed {
    type Command = Call;
    type Reply = Answer;

    fn apply(&mut self, call: &Call) -> Answer {
        match self.0.execute(call) {
            Decision::Done(result) => Answer::of(&result).unwrap_or_default(),
            Decision::Aborted(_) | Decision::Poisoned => Answer::default(),
        }
    }

    fn digest(&self, _part: u64) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests;
