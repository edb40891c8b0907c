//! A connection's commands between their arrival and their answer: executed as
//! their keys allow, answered in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quorate_calvin::Call;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Seq};
use tokio::time::Instant;

use super::limits::GatewayLimits;
use super::order::{Order, Scope, Ticket};
use super::scan;
use crate::backend::{Backend, BackendError};
use crate::commands::{ScanRequest, Watch};
use crate::metrics::Metrics;
use crate::procedures::Verdict;
use crate::resp::{Protocol, Reply};

/// What a command still has to do.
pub(super) enum Work {
    /// Execute a call.
    Call(Call),
    /// Walk over keys.
    Scan(ScanRequest),
}

/// What becomes of a program's verdict.
pub(super) enum Finish {
    /// Its only reply is the answer.
    Single,
    /// It is the part of an `EXEC` that concerns data: `None` stands for the
    /// next of its replies.
    Exec(Vec<Option<Reply>>),
    /// The versions of these keys are to be remembered.
    Watch(Vec<Blob>),
}

/// What a finished `WATCH` tells its session.
pub(super) enum Watched {
    /// The keys as they stand.
    Keys(Vec<Watch>),
    /// They could not be read.
    Refused,
}

/// The value of a call or the answer to a scan.
enum Done {
    Call(Result<Blob, BackendError>),
    Scan(Result<Reply, BackendError>),
}

struct Slot {
    state: State,
    finish: Finish,
    protocol: Protocol,
    request_bytes: usize,
    arrived: Instant,
}

enum State {
    /// Waits until it may run.
    Waiting(Ready),
    Running,
    Answered(Reply),
    /// The outcome is unknown: here the connection ends.
    Unknown,
}

enum Ready {
    Call(Call),
    Scan(ScanRequest),
}

/// See the module.
pub(super) struct Pipeline {
    backend: Arc<dyn Backend>,
    limits: GatewayLimits,
    metrics: Metrics,
    /// Commands not answered yet, in order; the front one has ticket `first`.
    slots: VecDeque<Slot>,
    first: Ticket,
    order: Order,
    running: FuturesUnordered<BoxFuture<(Ticket, Done)>>,
    request_bytes: usize,
    /// Bytes of replies that wait for earlier ones.
    reply_bytes: usize,
    /// The first command whose outcome is unknown. Nothing after it starts.
    unknown: Option<Ticket>,
    /// Nobody may be there any more to take an answer: walks over keys, which
    /// have no effect, end as soon as they can.
    cut: Arc<AtomicBool>,
}

impl Pipeline {
    pub(super) fn new(backend: Arc<dyn Backend>, limits: GatewayLimits, metrics: Metrics) -> Self {
        Self {
            backend,
            limits,
            metrics,
            slots: VecDeque::new(),
            first: 0,
            order: Order::default(),
            running: FuturesUnordered::new(),
            request_bytes: 0,
            reply_bytes: 0,
            unknown: None,
            cut: Arc::default(),
        }
    }

    /// The client may be gone, or the node stops.
    pub(super) fn cut_scans(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether every command is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another command may be taken in while `unsent_bytes` of replies
    /// wait for the client.
    pub(super) fn has_room(&self, unsent_bytes: usize) -> bool {
        self.unknown.is_none()
            && self.slots.len() < self.limits.pipeline_commands_max
            && self.request_bytes < self.limits.pipeline_bytes_max
            && self.reply_bytes + unsent_bytes < self.limits.reply_bytes_max
    }

    /// Whether the next answer is that there is none: the connection must end.
    pub(super) fn is_broken(&self) -> bool {
        self.slots.front().is_some_and(|slot| matches!(slot.state, State::Unknown))
    }

    /// Adds a command that is answered already.
    pub(super) fn push_reply(&mut self, reply: Reply, protocol: Protocol) {
        if reply.is_error() {
            self.metrics.error_reply();
        }
        self.reply_bytes += reply.weight_bytes();
        self.push(State::Answered(reply), Finish::Single, protocol, 0);
    }

    /// Adds a command that has to be executed.
    pub(super) fn push_work(
        &mut self,
        work: Work,
        finish: Finish,
        protocol: Protocol,
        request_bytes: usize,
    ) {
        let ticket = self.first + self.slots.len() as Ticket;
        let (ready, scope) = match work {
            Work::Call(call) => {
                let scope = Scope::of(&call.footprint);
                (Ready::Call(call), scope)
            }
            Work::Scan(request) => (Ready::Scan(request), Scope::Everything),
        };
        self.push(State::Waiting(ready), finish, protocol, request_bytes);
        self.order.add(ticket, scope);
    }

    fn push(&mut self, state: State, finish: Finish, protocol: Protocol, request_bytes: usize) {
        self.request_bytes += request_bytes;
        let arrived = Instant::now();
        self.slots.push_back(Slot { state, finish, protocol, request_bytes, arrived });
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        let index = usize::try_from(ticket.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Starts what the order and the limits allow. The command at the front
    /// may always start, so answers that wait for it cannot block it.
    pub(super) fn start(&mut self, unsent_bytes: usize) {
        while let Some(ticket) = self.order.first_runnable() {
            let replies_fit = self.reply_bytes + unsent_bytes < self.limits.reply_bytes_max;
            let may_run = self.running.len() < self.limits.concurrency_max && replies_fit;
            let reported = self.unknown.is_none_or(|unknown| ticket < unknown);
            if !reported || !(may_run || ticket == self.first) {
                return;
            }
            self.order.take(ticket);
            let Some(slot) = self.slot(ticket) else {
                return;
            };
            if let State::Waiting(ready) = std::mem::replace(&mut slot.state, State::Running) {
                self.running.push(self.execute(ticket, ready));
            }
        }
    }

    fn execute(&self, ticket: Ticket, ready: Ready) -> BoxFuture<(Ticket, Done)> {
        match ready {
            Ready::Call(call) => {
                let result = self.backend.execute(call);
                Box::pin(async move { (ticket, Done::Call(result.await)) })
            }
            Ready::Scan(request) => {
                let (backend, cut) = (Arc::clone(&self.backend), Arc::clone(&self.cut));
                Box::pin(async move {
                    (ticket, Done::Scan(scan::scan(&*backend, &request, &cut).await))
                })
            }
        }
    }

    /// Whether anything runs.
    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Waits for one running command to finish. Safe to drop.
    pub(super) async fn finished(&mut self) -> Option<Watched> {
        let (ticket, done) = self.running.next().await?;
        self.order.finish(ticket);
        self.settle(ticket, done)
    }

    fn settle(&mut self, ticket: Ticket, done: Done) -> Option<Watched> {
        let metrics = self.metrics.clone();
        let slot = self.slot(ticket)?;
        metrics.latency(slot.arrived.elapsed());
        let finish = std::mem::replace(&mut slot.finish, Finish::Single);
        let (state, watched) = match done {
            Done::Call(Ok(result)) => {
                let (reply, watched) = interpret(&result, finish);
                (State::Answered(reply), watched)
            }
            Done::Scan(Ok(reply)) => (State::Answered(reply), None),
            Done::Call(Err(error)) | Done::Scan(Err(error)) => {
                let watched = matches!(finish, Finish::Watch(_)).then_some(Watched::Refused);
                (failed(&error, &metrics), watched)
            }
        };
        match &state {
            State::Answered(reply) => {
                if reply.is_error() {
                    metrics.error_reply();
                }
                self.reply_bytes += reply.weight_bytes();
            }
            _ => self.unknown = Some(self.unknown.map_or(ticket, |first| first.min(ticket))),
        }
        if let Some(slot) = self.slot(ticket) {
            slot.state = state;
        }
        watched
    }

    /// Encodes the answers whose turn it is.
    pub(super) fn answer(&mut self, out: &mut BytesMut) {
        while let Some(Slot { state: State::Answered(reply), protocol, .. }) = self.slots.front() {
            reply.encode(*protocol, out);
            self.reply_bytes -= reply.weight_bytes();
            if let Some(slot) = self.slots.pop_front() {
                self.request_bytes -= slot.request_bytes;
            }
            self.first += 1;
        }
    }
}

fn failed(error: &BackendError, metrics: &Metrics) -> State {
    match error {
        BackendError::Refused(reason) => {
            metrics.refused();
            let text = format!("REFUSED not executed: {reason}, retry");
            State::Answered(Reply::error(text.as_str()))
        }
        BackendError::Aborted(reason) => {
            let text = format!("ERR aborted without effect: {reason}");
            State::Answered(Reply::error(text.as_str()))
        }
        BackendError::Unknown => {
            metrics.unknown();
            State::Unknown
        }
    }
}

/// From a call's result to a reply.
fn interpret(result: &[u8], finish: Finish) -> (Reply, Option<Watched>) {
    match (Verdict::decode(result), finish) {
        (Ok(Verdict::Replies(replies)), Finish::Single) if replies.len() == 1 => {
            (replies.into_iter().next().unwrap_or(Reply::Null), None)
        }
        (Ok(Verdict::Replies(replies)), Finish::Exec(entries)) => (fill(entries, replies), None),
        (Ok(Verdict::Changed), Finish::Exec(_)) => (Reply::NullArray, None),
        (Ok(Verdict::Versions(versions)), Finish::Watch(keys)) if versions.len() == keys.len() => {
            let watches = keys.into_iter().zip(versions).map(|(key, found)| Watch {
                key,
                version: found.version,
                present: found.present,
            });
            (Reply::ok(), Some(Watched::Keys(watches.collect())))
        }
        // The procedure panicked and was contained, or ran out of its limits:
        // an abort on every replica, without effect.
        (_, finish) => {
            let watched = matches!(finish, Finish::Watch(_)).then_some(Watched::Refused);
            (Reply::error("ERR the command was aborted and has had no effect"), watched)
        }
    }
}

/// Puts the data's replies where they belong among the local ones. An
/// operation that was refused as a whole answers once for all.
fn fill(entries: Vec<Option<Reply>>, replies: Seq<Reply>) -> Reply {
    let expected = entries.iter().filter(|entry| entry.is_none()).count();
    if replies.len() != expected {
        return replies.into_iter().find(Reply::is_error).unwrap_or(Reply::NullArray);
    }
    let mut replies = replies.into_iter();
    Reply::array(
        entries.into_iter().map(|entry| entry.or_else(|| replies.next()).unwrap_or(Reply::Null)),
    )
}
