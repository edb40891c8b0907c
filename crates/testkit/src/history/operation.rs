//! Events paired into operations.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Event, EventKind, MicroOp, ProcessId};
use crate::TestkitError;

/// Events in the order in which they happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened between its invocation and its end.
    Ok,
    /// It did not happen.
    Fail,
    /// It may have happened at any time after its invocation, or never.
    Unknown,
}

/// A point of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The event's position: this alone orders operations.
    pub position: usize,
    /// The time it was recorded with, for the reader.
    pub time: Duration,
}

/// An invocation and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its rank among the operations of its history, by invocation.
    pub id: usize,
    /// Who asked.
    pub process: ProcessId,
    /// What sort of operation, for the reader.
    pub f: Cow<'static, str>,
    /// The steps: as answered if it is `Ok`, as asked otherwise.
    pub txn: Vec<MicroOp>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was sent.
    pub invoked: Moment,
    /// When its end was known; none for an unknown outcome, which has an open
    /// end.
    pub completed: Option<Moment>,
}

impl Operation {
    /// Whether it was over before `other` began.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        self.completed.is_some_and(|end| end.position < other.invoked.position)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.txn.iter().map(MicroOp::to_string).collect();
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Fail => "failed",
            Outcome::Unknown => "unknown",
        };
        let from = self.invoked.time;
        write!(f, "#{} {} {} [{}]", self.id, self.process, self.f, steps.join(", "))?;
        match self.completed {
            Some(end) => write!(f, " {outcome}, from {from:?} to {:?}", end.time),
            None => write!(f, " {outcome}, from {from:?}"),
        }
    }
}

impl History {
    /// Pairs each invocation with its end. One without an end is unknown.
    ///
    /// # Errors
    /// `MalformedHistory` when a process has two operations in flight, or an
    /// end has no beginning.
    pub fn operations(&self) -> Result<Vec<Operation>, TestkitError> {
        let mut operations: Vec<Operation> = Vec::new();
        let mut in_flight: BTreeMap<ProcessId, usize> = BTreeMap::new();
        for (position, event) in self.events.iter().enumerate() {
            let malformed = |reason: String| TestkitError::MalformedHistory { position, reason };
            let moment = Moment { position, time: event.time };
            if event.kind == EventKind::Invoke {
                let id = operations.len();
                if in_flight.insert(event.process, id).is_some() {
                    return Err(malformed(format!("{} is not done yet", event.process)));
                }
                operations.push(Operation {
                    id,
                    process: event.process,
                    f: event.f.clone(),
                    txn: event.txn.clone(),
                    outcome: Outcome::Unknown,
                    invoked: moment,
                    completed: None,
                });
                continue;
            }
            let operation = in_flight
                .remove(&event.process)
                .and_then(|id| operations.get_mut(id))
                .ok_or_else(|| malformed(format!("{} has nothing in flight", event.process)))?;
            match event.kind {
                EventKind::Ok => {
                    operation.outcome = Outcome::Ok;
                    operation.completed = Some(moment);
                    operation.txn.clone_from(&event.txn);
                }
                EventKind::Fail => {
                    operation.outcome = Outcome::Fail;
                    operation.completed = Some(moment);
                }
                EventKind::Info | EventKind::Invoke => {}
            }
        }
        Ok(operations)
    }

    /// Puts histories of one clock together. Of events at the same instant,
    /// invocations come first: what might be concurrent counts as concurrent.
    #[must_use]
    pub fn merged(histories: impl IntoIterator<Item = Self>) -> Self {
        let mut events: Vec<Event> =
            histories.into_iter().flat_map(|history| history.events).collect();
        events.sort_by_key(|event| (event.time, event.kind != EventKind::Invoke));
        Self { events }
    }
}
