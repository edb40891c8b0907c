//! One client: how it asks, and what it concludes from what it is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::types::env::SplitMix;
use quorate::types::{Blob, ClientId, RequestId};
use quorate::{Answer, ExecuteError, Node, Session, Transaction};
use quorate_testkit::history::{Datum, Invocation, MicroOp, ProcessId, Recorder};
use quorate_testkit::sim::SimNode;
use tokio::task::JoinError;
use tokio::time::sleep;

use super::Shared;
use super::order::Told;
use crate::sim::options::Draw;

/// Other nodes are asked so often about an outcome that is unknown.
const RETRIES: usize = 3;
/// Before it is looked again for a node that runs.
const NOBODY_PAUSE: Duration = Duration::from_millis(200);
/// So often a healed node is asked that refuses: on a slow disk it may have too
/// much to do for a while.
const PATIENCE: usize = 10;

/// How a call ended.
pub(super) enum End {
    Answered(Answer),
    Refused(String),
    Unknown(String),
}

/// One client. It asks one node at a time, and another one after a failure.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) process: ProcessId,
    pub(super) chance: Draw,
    /// The node that it asks.
    pub(super) place: usize,
    /// Whether it asks no other node than that.
    pub(super) only_here: bool,
    /// Where it stays, if it does not open a session for each call.
    stay: Option<Stay>,
}

/// A session that is used for several calls.
struct Stay {
    session: Arc<Session>,
    /// Where, and in which of its lives.
    at: (quorate::types::NodeId, u64),
    /// The sequence of its next request.
    next: u64,
}

impl Client {
    pub(super) fn new(shared: &Arc<Shared>, number: u64) -> Self {
        let chance = Draw(SplitMix::new(shared.cluster.sim.seed().rotate_left(17) ^ number));
        let place = usize::try_from(number).unwrap();
        let shared = Arc::clone(shared);
        let process = ProcessId(shared.processes.fetch_add(1, Ordering::Relaxed));
        Self { shared, number, process, chance, place, only_here: false, stay: None }
    }

    /// A number that no other write of the run has.
    pub(super) fn element(&self) -> i64 {
        self.shared.element.fetch_add(1, Ordering::Relaxed)
    }

    /// Two of them, in any order.
    pub(super) fn pair<T: Copy>(&mut self, keys: &[T]) -> [T; 2] {
        let count = keys.len() as u64;
        let first = self.chance.below(count);
        let second = (first + 1 + self.chance.below(count - 1)) % count;
        [first, second].map(|at| keys[usize::try_from(at).unwrap()])
    }

    /// Writes, and records what the answer shows: nothing, where it says that
    /// nothing happened.
    pub(super) async fn write(
        &mut self,
        invocation: Invocation,
        call: &Transaction,
        shows: impl FnOnce(&Answer) -> Option<Vec<MicroOp>>,
    ) -> Option<Answer> {
        let end = self.execute(call).await;
        self.end_write(invocation, end, shows)
    }

    pub(super) fn end_write(
        &mut self,
        invocation: Invocation,
        end: End,
        shows: impl FnOnce(&Answer) -> Option<Vec<MicroOp>>,
    ) -> Option<Answer> {
        let now = self.shared.cluster.sim.elapsed();
        match end {
            End::Answered(answer) => {
                self.shared.completed.fetch_add(1, Ordering::Relaxed);
                let committed = u64::from(answer.committed);
                self.shared.committed.fetch_add(committed, Ordering::Relaxed);
                match shows(&answer) {
                    Some(done) => invocation.ok(now, done),
                    None => invocation.fail(now, "a condition did not hold"),
                }
                return Some(answer);
            }
            End::Refused(reason) => invocation.fail(now, reason),
            End::Unknown(reason) => {
                invocation.unknown(now, reason);
                self.process = ProcessId(self.shared.processes.fetch_add(1, Ordering::Relaxed));
            }
        }
        None
    }

    pub(super) async fn read(&mut self, keys: &[&str]) -> Option<Vec<Option<Blob>>> {
        let call = keys.iter().fold(Transaction::new(), |call, key| call.get(*key));
        let attempts = if self.only_here { PATIENCE } else { 1 };
        for _ in 0..attempts {
            if let End::Answered(answer) = self.execute(&call).await {
                self.shared.completed.fetch_add(1, Ordering::Relaxed);
                return Some(answer.values.0);
            }
        }
        None
    }

    /// Reads keys in one transaction, and records what stands there.
    pub(super) async fn read_into(
        &mut self,
        recorder: &Recorder,
        what: &'static str,
        keys: &[&str],
        datum: fn(&Option<Blob>) -> Datum,
    ) -> bool {
        let asked = keys.iter().map(|key| MicroOp::read(*key)).collect();
        let invocation = self.invoke(recorder, what, asked);
        let read = self.read(keys).await.map(|values| {
            let seen = keys.iter().zip(&values);
            seen.map(|(key, value)| MicroOp::saw(*key, datum(value))).collect()
        });
        let (now, is_read) = (self.shared.cluster.sim.elapsed(), read.is_some());
        match read {
            Some(seen) => invocation.ok(now, seen),
            None => invocation.fail(now, "nothing was read"),
        }
        is_read
    }

    pub(super) fn invoke(
        &self,
        recorder: &Recorder,
        what: &'static str,
        txn: Vec<MicroOp>,
    ) -> Invocation {
        recorder.invoke(self.process, self.shared.cluster.sim.elapsed(), what, txn).unwrap()
    }

    /// Executes on some node; an outcome that is unknown is asked of others.
    pub(super) async fn execute(&mut self, transaction: &Transaction) -> End {
        self.execute_as(None, transaction).await
    }

    /// The same under a request id that was drawn before.
    pub(super) async fn execute_as(
        &mut self,
        request: Option<RequestId>,
        transaction: &Transaction,
    ) -> End {
        let invoked = self.shared.calls.moment();
        let mut named = request.map(|request| request.key());
        let end = self.attempt(request, transaction, &mut named).await;
        if let Some(named) = named.filter(|_| !transaction.call().footprint.is_read_only()) {
            let told = match &end {
                End::Answered(answer) => Told::Answer(answer.clone()),
                End::Refused(_) => Told::Refused,
                End::Unknown(_) => Told::Nothing,
            };
            self.shared.calls.note(named, invoked, told);
        }
        end
    }

    async fn attempt(
        &mut self,
        mut request: Option<RequestId>,
        transaction: &Transaction,
        named: &mut Option<(ClientId, u64)>,
    ) -> End {
        let mut reason = String::new();
        for attempt in 0..=RETRIES {
            let Some((life, node)) = self.some_node() else {
                sleep(NOBODY_PAUSE).await;
                continue;
            };
            let (session, sequence) = self.session(&life, &node);
            if request.is_none() {
                *named = Some((session.id(), sequence));
            }
            let (call, retried) = (transaction.call(), request);
            let task = life.spawn(async move {
                match retried {
                    None => session.execute(call).await,
                    Some(request) => session.retry(request, call).await,
                }
            });
            let outcome = task.await;
            self.trace(attempt, &outcome);
            match outcome {
                Ok(Ok(result)) => {
                    if let Some(ledger) = self.shared.cluster.ledger() {
                        ledger.answered(&transaction.call());
                    }
                    if let Some(stay) = self.stay.as_mut().filter(|_| retried.is_none()) {
                        stay.next += 1;
                    }
                    return End::Answered(Answer::of(&result).unwrap());
                }
                Ok(Err(ExecuteError::Unknown(id))) => request = Some(id),
                Ok(Err(ExecuteError::Refused(why))) if request.is_none() => {
                    self.go_on();
                    return End::Refused(why);
                }
                Ok(Err(ExecuteError::Aborted(why))) => {
                    // It was ordered, and had no effect.
                    *named = None;
                    return End::Refused(why);
                }
                Ok(Err(error @ ExecuteError::Expired)) => {
                    // It may have taken effect long ago: whoever asks anew asks
                    // for something else, and hears of that.
                    self.go_on();
                    return End::Unknown(error.to_string());
                }
                Ok(Err(error)) => reason = error.to_string(),
                // Its node died over it.
                Err(_) if request.is_none() => {
                    self.go_on();
                    return End::Unknown("the node died".to_owned());
                }
                Err(_) => reason = "the node died".to_owned(),
            }
            self.go_on();
        }
        if request.is_none() && reason.is_empty() {
            return End::Refused("no node runs".to_owned());
        }
        End::Unknown(reason)
    }

    /// Asks another node from now on, if it may.
    fn go_on(&mut self) {
        self.place += usize::from(!self.only_here);
        self.stay = None;
    }

    /// The session for a call, and the sequence that it gives to a new one:
    /// half of the clients open one for each call, the others stay, so that
    /// what they were answered is forgotten.
    fn session(&mut self, life: &SimNode, node: &Node) -> (Arc<Session>, u64) {
        let at = (life.id(), life.life());
        if let Some(stay) = self.stay.as_ref().filter(|stay| stay.at == at) {
            return (Arc::clone(&stay.session), stay.next);
        }
        let session = Arc::new(node.session());
        let stays = !self.number.is_multiple_of(2);
        self.stay = stays.then(|| Stay { session: Arc::clone(&session), at, next: 0 });
        (session, 0)
    }

    /// Draws a request id on the node that would be asked.
    pub(super) fn reserve(&self) -> Option<RequestId> {
        let (_, node) = self.some_node()?;
        Some(node.session().reserve())
    }

    /// Asks for a request that was answered once more. `None` if nobody knows
    /// of it any more.
    pub(super) async fn repeat(
        &mut self,
        request: RequestId,
        transaction: &Transaction,
    ) -> Option<Answer> {
        self.go_on();
        let (life, node) = self.some_node()?;
        let (call, invoked) = (transaction.call(), self.shared.calls.moment());
        let task = life.spawn(async move { node.session().retry(request, call).await });
        let answer = Answer::of(&task.await.ok()?.ok()?).unwrap();
        if let Some(ledger) = self.shared.cluster.ledger() {
            ledger.answered(&transaction.call());
        }
        self.shared.calls.note(request.key(), invoked, Told::Answer(answer.clone()));
        Some(answer)
    }

    fn some_node(&self) -> Option<(Arc<SimNode>, Arc<Node>)> {
        if self.only_here {
            return self.shared.cluster.node(self.place);
        }
        let count = self.shared.cluster.members();
        (0..count).find_map(|step| self.shared.cluster.node((self.place + step) % count))
    }

    fn trace(&self, attempt: usize, outcome: &Result<Result<Blob, ExecuteError>, JoinError>) {
        let trace = self.shared.cluster.sim.trace();
        let client = self.number;
        match outcome {
            Ok(Ok(result)) => trace.record(format_args!(
                "client {client}.{attempt}: {:?}",
                Answer::of(result).unwrap()
            )),
            Ok(Err(error)) => trace.record(format_args!("client {client}.{attempt}: {error}")),
            Err(_) => trace.record(format_args!("client {client}.{attempt}: the node died")),
        }
    }
}

/// What an answer shows of writes that are made or not.
pub(super) fn if_committed(done: Vec<MicroOp>) -> impl FnOnce(&Answer) -> Option<Vec<MicroOp>> {
    |answer| answer.committed.then_some(done)
}

pub(super) fn number(value: &Option<Blob>) -> Datum {
    let text = value.as_ref().map(|value| std::str::from_utf8(value).unwrap());
    text.map_or(Datum::Nil, |text| Datum::Int(text.parse().unwrap()))
}

/// A number that is zero where nothing stands.
pub(super) fn count(value: &Option<Blob>) -> i64 {
    match number(value) {
        Datum::Int(count) => count,
        _ => 0,
    }
}

pub(super) fn list(value: &Option<Blob>) -> Datum {
    let text = value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap());
    Datum::List(text.split_whitespace().map(|element| element.parse().unwrap()).collect())
}
