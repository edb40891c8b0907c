//! Collects events while clients run.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Event, EventKind, History, MicroOp, ProcessId};
use crate::TestkitError;

/// Enough for an hour of a thousand operations a second, and for a machine's
/// memory at some hundred bytes each.
pub const EVENTS_MAX_DEFAULT: usize = 8_000_000;

/// Takes events from any thread.
///
/// The order of the calls is the order of the history: record an invocation
/// before sending the request and its end after the answer arrived, and an
/// operation that stands before another really was over before the other began.
/// Times are kept for the reader.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Mutex<Recorded>>,
    events_max: usize,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<Event>,
    in_flight: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(EVENTS_MAX_DEFAULT)
    }
}

impl Recorder {
    /// A recorder that refuses to begin what would not fit in `events_max`.
    #[must_use]
    pub fn new(events_max: usize) -> Self {
        Self { shared: Arc::default(), events_max }
    }

    /// Notes that `process` is about to send an operation.
    ///
    /// # Errors
    /// `HistoryFull`; the operation must not be sent then.
    pub fn invoke(
        &self,
        process: ProcessId,
        time: Duration,
        f: impl Into<Cow<'static, str>>,
        txn: Vec<MicroOp>,
    ) -> Result<Invocation, TestkitError> {
        let f = f.into();
        let event =
            Event { kind: EventKind::Invoke, process, time, f, txn: txn.clone(), error: None };
        let mut recorded = self.shared.lock();
        // Everything in flight has its last event reserved.
        if recorded.events.len() + recorded.in_flight + 2 > self.events_max {
            return Err(TestkitError::HistoryFull { events_max: self.events_max });
        }
        let f = event.f.clone();
        recorded.in_flight += 1;
        recorded.events.push(event);
        drop(recorded);
        Ok(Invocation { recorder: self.clone(), process, f, txn, is_over: false })
    }

    /// What was recorded so far. What is in flight has no end yet.
    #[must_use]
    pub fn history(&self) -> History {
        History { events: self.shared.lock().events.clone() }
    }

    fn end(&self, event: Event) {
        let mut recorded = self.shared.lock();
        recorded.in_flight = recorded.in_flight.saturating_sub(1);
        recorded.events.push(event);
    }
}

/// An operation in flight. Dropped without an end, its outcome is unknown:
/// that is what the death of a client amounts to.
#[derive(Debug)]
#[must_use = "say how the operation ended"]
pub struct Invocation {
    recorder: Recorder,
    process: ProcessId,
    f: Cow<'static, str>,
    txn: Vec<MicroOp>,
    is_over: bool,
}

impl Invocation {
    /// It happened; `txn` is what was asked, with what was read filled in.
    pub fn ok(mut self, time: Duration, txn: Vec<MicroOp>) {
        self.txn = txn;
        self.end(EventKind::Ok, time, None);
    }

    /// It did not happen and never will.
    pub fn fail(mut self, time: Duration, error: impl Into<String>) {
        self.end(EventKind::Fail, time, Some(error.into()));
    }

    /// It may have happened, or may still.
    pub fn unknown(mut self, time: Duration, error: impl Into<String>) {
        self.end(EventKind::Info, time, Some(error.into()));
    }

    fn end(&mut self, kind: EventKind, time: Duration, error: Option<String>) {
        self.is_over = true;
        self.recorder.end(Event {
            kind,
            process: self.process,
            time,
            f: std::mem::take(&mut self.f),
            txn: std::mem::take(&mut self.txn),
            error,
        });
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        if !self.is_over {
            let last = self.recorder.shared.lock().events.last().map(|event| event.time);
            self.end(EventKind::Info, last.unwrap_or_default(), Some("abandoned".to_owned()));
        }
    }
}
