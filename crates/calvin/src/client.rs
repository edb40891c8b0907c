//! The client core: routing, retries with one request id, fences, and what a
//! caller may conclude (rules 1, 12 and 15).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::{
    Blob, ClientId, Epoch, NodeId, RequestId, ShardId, TxnId, buggify, planted, runtime, sometimes,
};
use tokio::time::Instant;

use crate::command::Submission;
use crate::ports::{CallError, Destination, Peers, Route, Router};
use crate::procedure::{Call, Footprint};
use crate::reply_gate::ReplyGate;
use crate::shard::Verdict;
use crate::wire::{Execute, Reply, Request};

/// How a call ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// It was not executed and will not be; it may be tried again.
    #[error("not executed: {0}")]
    Refused(String),
    /// It was ordered and ended without effect, for a reason that would be the
    /// same again.
    #[error("aborted: {0}")]
    Aborted(String),
    /// The request is older than what the cluster remembers; whether it took
    /// effect long ago cannot be told any more.
    #[error("the request is too old to be resolved")]
    Expired,
    /// It may or may not have taken effect. [`Session::retry`] with this id
    /// and the same call resolves it.
    #[error("outcome unknown (request {0})")]
    Unknown(RequestId),
}

/// Deadlines of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// How long a call is retried before its outcome is given as unknown. It
    /// holds whatever the cluster and the ports do.
    pub deadline: Duration,
    /// How long one attempt waits for its reply, if the deadline is not nearer.
    pub attempt_deadline: Duration,
    /// The pause before the next attempt.
    pub pause: Duration,
    /// The longest pause after refusals for want of room: with each in a row
    /// it doubles, so that those who are refused do not keep busy whoever has
    /// too much to do.
    pub pause_max: Duration,
}

impl ClientConfig {
    /// The pause after so many refusals in a row: from half of it to all of
    /// it, so that those who were refused together do not return together.
    fn pause_after(&self, refusals: u32) -> Duration {
        const DOUBLINGS_MAX: u32 = 16;
        if refusals == 0 {
            return self.pause;
        }
        let full = self.pause.saturating_mul(1 << refusals.min(DOUBLINGS_MAX));
        let full = full.min(self.pause_max).max(self.pause);
        let share = u32::try_from(runtime::random() % 1024).unwrap_or(0);
        full / 2 + full.mul_f64(f64::from(share) / 2048.0)
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempt_deadline: Duration::from_secs(3),
            pause: Duration::from_millis(20),
            pause_max: Duration::from_millis(640),
        }
    }
}

/// What all sessions of a node share.
pub struct Client {
    peers: Arc<dyn Peers>,
    router: Arc<dyn Router>,
    gate: Arc<ReplyGate>,
    config: ClientConfig,
}

impl Client {
    /// A client that reaches the cluster through these.
    #[must_use]
    pub fn new(
        peers: Arc<dyn Peers>,
        router: Arc<dyn Router>,
        gate: Arc<ReplyGate>,
        config: ClientConfig,
    ) -> Arc<Self> {
        Arc::new(Self { peers, router, gate, config })
    }

    /// Lists up to `limit` live keys from `from` on, and where to go on, if
    /// there may be more. The one weak read: each page is what one leader had
    /// applied at some recent moment.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] when no leader answers in time.
    pub async fn keys(
        &self,
        from: Blob,
        limit: u32,
    ) -> Result<(Vec<Blob>, Option<Blob>), ExecuteError> {
        let until = self.deadline();
        let (mut tries, mut refusals) = (0_usize, 0);
        while Instant::now() < until {
            let mut is_busy = false;
            if let Some(route) = self.router.locate(&from) {
                let shard = route.shard;
                let turn = tries.checked_rem(route.voters.len());
                let turn = turn.and_then(|turn| route.voters.get(turn)).copied();
                let request = Request::Keys { shard, from: from.clone(), limit };
                let destination = Destination::Shard(shard);
                let reply = match route.leader.or(turn) {
                    Some(node) => self.call(node, request, until).await,
                    None => Err(CallError::Unreachable),
                };
                match reply {
                    Ok(Reply::Keys(keys, next)) => return Ok((keys.0, next.or(route.range.end))),
                    Ok(Reply::NotLeader(leader)) => self.router.learned(destination, leader),
                    Ok(Reply::Moved) => self.router.moved(shard),
                    Ok(Reply::Busy(_)) => is_busy = true,
                    Ok(_) | Err(_) => self.router.learned(destination, None),
                }
            }
            tries += 1;
            refusals = if is_busy { refusals + 1 } else { 0 };
            tokio::time::sleep_until(until.min(Instant::now() + self.config.pause_after(refusals)))
                .await;
        }
        Err(ExecuteError::Refused("no leader lists the keys; try again".into()))
    }

    /// Asks a node, for no longer than one attempt may take and `until` allows.
    /// The port is told, but not relied on.
    async fn call(
        &self,
        node: NodeId,
        request: Request,
        until: Instant,
    ) -> Result<Reply, CallError> {
        let left = until.saturating_duration_since(Instant::now());
        let deadline = left.min(self.config.attempt_deadline);
        if deadline.is_zero() {
            return Err(CallError::Unreachable);
        }
        let call = self.peers.call(node, request, deadline);
        let reply = tokio::time::timeout(deadline, call).await;
        if buggify!("calvin client loses a reply") {
            return Err(CallError::NoReply);
        }
        reply.unwrap_or(Err(CallError::NoReply))
    }

    /// Opens a session.
    #[must_use]
    pub fn session(self: &Arc<Self>) -> Session {
        Session {
            client: Arc::clone(self),
            id: ClientId::random(),
            window: Mutex::new(Window::default()),
            keeps_unresolved: true,
        }
    }

    /// Opens a session whose calls are never resolved once they ended as
    /// unknown: the cluster may forget them at once instead of keeping
    /// everything that came after them for a retry.
    #[must_use]
    pub fn forgetful_session(self: &Arc<Self>) -> Session {
        Session { keeps_unresolved: false, ..self.session() }
    }
}

impl Client {
    /// When a call that begins now is to have ended.
    fn deadline(&self) -> Instant {
        Instant::now() + self.config.deadline
    }
}

/// Requests that ended as unknown and may still be retried. Beyond it the
/// oldest can no longer be.
const UNRESOLVED_MAX: usize = 1_024;

/// The sequences in flight: the lowest of them bounds what is acknowledged.
#[derive(Debug, Default)]
struct Window {
    next: u64,
    in_flight: BTreeSet<u64>,
    unresolved: BTreeSet<u64>,
}

impl Window {
    fn open(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.in_flight.insert(sequence);
        sequence
    }

    fn ack_below(&self) -> u64 {
        let first = |set: &BTreeSet<u64>| set.first().copied().unwrap_or(self.next);
        first(&self.in_flight).min(first(&self.unresolved))
    }

    fn close(&mut self, sequence: u64, is_resolved: bool) {
        self.in_flight.remove(&sequence);
        if is_resolved {
            self.unresolved.remove(&sequence);
            return;
        }
        self.unresolved.insert(sequence);
        if self.unresolved.len() > UNRESOLVED_MAX {
            self.unresolved.pop_first();
        }
    }
}

/// Runs transactions; any number at a time.
pub struct Session {
    client: Arc<Client>,
    id: ClientId,
    window: Mutex<Window>,
    keeps_unresolved: bool,
}

/// Keeps a sequence in the window for as long as its call runs, also when the
/// caller drops the call.
struct Slot<'a> {
    session: &'a Session,
    sequence: u64,
    is_resolved: bool,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let is_over = self.is_resolved || !self.session.keeps_unresolved;
        self.session.window.lock().close(self.sequence, is_over);
    }
}

impl Session {
    /// The session's identity: the scope of its request numbers.
    #[must_use]
    pub const fn id(&self) -> ClientId {
        self.id
    }

    /// Runs a call exactly once and returns its result.
    ///
    /// # Errors
    /// [`ExecuteError`]; only [`ExecuteError::Unknown`] leaves open whether it
    /// took effect.
    pub async fn execute(&self, call: Call) -> Result<Blob, ExecuteError> {
        // A request is dated by the watermark. One from before any was heard of
        // would count as older than everything that is remembered.
        let until = self.client.deadline();
        if tokio::time::timeout_at(until, self.client.gate.pass(Epoch(1))).await.is_err() {
            return Err(ExecuteError::Refused("this node has not heard of the sequencer".into()));
        }
        let sequence = self.window.lock().open();
        let request = self.request(sequence, self.client.gate.known().logged);
        self.run(Attempt::new(&self.client, request, call, false, until)).await
    }

    /// Draws a request id for a call that is to be run with
    /// [`Session::retry`]: for callers who keep ids of their own, so that a
    /// call can be repeated after they themselves were restarted. Until that
    /// call has ended, the session's later requests are remembered with it.
    /// Only on a node that serves: before, the id counts as forgotten.
    #[must_use]
    pub fn reserve(&self) -> RequestId {
        let mut window = self.window.lock();
        let sequence = window.open();
        let birth = self.client.gate.known().logged;
        RequestId { client: self.id, sequence, birth, ack_below: window.ack_below() }
    }

    /// Resolves a call that ended as [`ExecuteError::Unknown`]: returns the
    /// result of its only execution, executing it now if it never was. May be
    /// asked of any node's session, with the request id of the first attempt.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn retry(&self, request: RequestId, call: Call) -> Result<Blob, ExecuteError> {
        let until = self.client.deadline();
        if request.client == self.id {
            self.window.lock().in_flight.insert(request.sequence);
            let request = self.request(request.sequence, request.birth);
            return self.run(Attempt::new(&self.client, request, call, true, until)).await;
        }
        Attempt::new(&self.client, request, call, true, until).run().await
    }

    /// A request of this session's as of now.
    fn request(&self, sequence: u64, birth: Epoch) -> RequestId {
        let ack_below = self.window.lock().ack_below();
        RequestId { client: self.id, sequence, birth, ack_below }
    }

    async fn run(&self, mut attempt: Attempt<'_>) -> Result<Blob, ExecuteError> {
        let sequence = attempt.request.sequence;
        let mut slot = Slot { session: self, sequence, is_resolved: false };
        let outcome = attempt.run().await;
        slot.is_resolved = !matches!(outcome, Err(ExecuteError::Unknown(_)));
        outcome
    }
}

/// How a call is to be executed by the map as known now.
enum Plan {
    /// By one shard.
    Single(Route),
    /// By several, in the sequencer's order.
    Sequenced,
}

/// What one try brought.
enum Step {
    /// The end.
    Done(Result<Blob, ExecuteError>),
    /// Nothing was done, for this reason; try again.
    Again(Cow<'static, str>),
    /// Nothing was done for want of room, in the words of the one who refused;
    /// try again later.
    Busy(String),
    /// Something may have been done; try again with the same id.
    Unclear,
}

/// One call's way to its end.
struct Attempt<'a> {
    client: &'a Client,
    request: RequestId,
    call: Call,
    /// An earlier try, perhaps of another process, may have left the command
    /// in a shard's log.
    maybe_direct: bool,
    /// It was submitted to the sequencer and stays with it.
    is_sequenced: bool,
    /// Some try may have taken effect.
    maybe_executed: bool,
    /// It was tried before, by this session or another.
    is_retry: bool,
    /// Counts tries, to go round the replicas when no leader is known.
    tries: usize,
    /// Refusals for want of room since anything else was heard.
    refusals: u32,
    /// When its caller is told something, come what may.
    until: Instant,
}

impl<'a> Attempt<'a> {
    fn new(
        client: &'a Client,
        request: RequestId,
        call: Call,
        is_retry: bool,
        until: Instant,
    ) -> Self {
        Self {
            client,
            request,
            call,
            maybe_direct: is_retry,
            is_sequenced: false,
            maybe_executed: is_retry,
            is_retry,
            tries: 0,
            refusals: 0,
            until,
        }
    }

    async fn run(&mut self) -> Result<Blob, ExecuteError> {
        loop {
            let mut refusals = 0;
            let reason = match self.step().await {
                Step::Done(outcome) => return outcome,
                Step::Again(reason) => reason,
                Step::Busy(reason) => {
                    refusals = self.refusals + 1;
                    Cow::Owned(reason)
                }
                Step::Unclear => {
                    self.maybe_executed = true;
                    "no reply".into()
                }
            };
            self.tries += 1;
            self.refusals = refusals;
            let pause = self.client.config.pause_after(refusals);
            if Instant::now() + pause >= self.until {
                return Err(self.give_up(&reason));
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn give_up(&self, reason: &str) -> ExecuteError {
        if self.maybe_executed && !self.call.footprint.is_read_only() {
            ExecuteError::Unknown(self.request)
        } else {
            ExecuteError::Refused(format!("{reason}; try again"))
        }
    }

    async fn step(&mut self) -> Step {
        match self.plan() {
            None => again("no shard map yet"),
            Some(Plan::Single(route)) if !self.is_sequenced && !self.is_foreign_write() => {
                self.execute(route).await
            }
            Some(_) => self.sequence().await,
        }
    }

    /// A retry may come from anywhere, with a map older than that of an
    /// earlier try: what that one sequenced must not run directly. The fence
    /// and the sequencer find out together what became of it.
    fn is_foreign_write(&self) -> bool {
        self.is_retry && !self.call.footprint.is_read_only()
    }

    fn plan(&self) -> Option<Plan> {
        let routes = routes(&*self.client.router, &self.call.footprint)?;
        let mut shards = routes.into_iter();
        let first = shards.next()?;
        let is_single = shards.all(|route| route.shard == first.shard);
        Some(if is_single { Plan::Single(first) } else { Plan::Sequenced })
    }

    async fn execute(&mut self, route: Route) -> Step {
        let shard = route.shard;
        let execute =
            Execute { shard, epoch: route.epoch, request: self.request, call: self.call.clone() };
        let reply = self.call_shard(&route, Request::Execute(execute)).await;
        if !matches!(reply, Ok(Reply::NotLeader(_) | Reply::Moved | Reply::Busy(_))) {
            self.maybe_direct = true;
        }
        self.conclude(shard, reply)
    }

    /// The sequenced way: fence first if the call may have gone the direct way
    /// before, then order, then wait for the decision at the home.
    async fn sequence(&mut self) -> Step {
        if self.call.footprint.is_read_only() && self.maybe_executed {
            // A read repeats under a new id: what it read the first time may
            // be gone, and nobody has seen it.
            self.request.sequence = self.request.sequence.wrapping_add(READ_RETRY_STRIDE);
            self.maybe_executed = false;
        } else if self.maybe_direct && !self.call.footprint.is_read_only() {
            let fenced = if planted!(RetryWithoutFence) && !self.is_retry {
                Ok(())
            } else {
                self.fence().await
            };
            match fenced {
                Ok(()) => self.maybe_direct = false,
                Err(step) => return step,
            }
        }
        self.is_sequenced = true;
        let submission = Submission { request: self.request, call: self.call.clone() };
        let (txn, home) = match self.call_sequencer(Request::Submit(submission)).await {
            Ok(Reply::Ordered { txn, home }) => (txn, home),
            Ok(Reply::NotLeader(leader)) => {
                self.client.router.learned(Destination::Sequencer, leader);
                return again("the sequencer has no leader yet");
            }
            Ok(Reply::Busy(reason)) => return busy(&reason),
            Ok(Reply::Expired) => return Step::Done(Err(ExecuteError::Expired)),
            Ok(Reply::TooLarge) => return too_large(),
            Err(CallError::Unreachable) => {
                self.client.router.learned(Destination::Sequencer, None);
                return again("the sequencer cannot be reached");
            }
            Ok(_) | Err(CallError::NoReply) => {
                self.client.router.learned(Destination::Sequencer, None);
                return Step::Unclear;
            }
        };
        self.maybe_executed = true;
        self.await_decision(txn, home).await
    }

    /// Waits at the home: the shard of the order time, or whoever owns the
    /// home key by now.
    async fn await_decision(&mut self, txn: TxnId, home: ShardId) -> Step {
        let Some(home_key) = self.call.footprint.home_key().cloned() else {
            return Step::Done(Err(ExecuteError::Refused("the call touches nothing".into())));
        };
        let owner = self.client.router.locate(&home_key);
        let Some(route) = owner else { return Step::Unclear };
        // A transaction without writes is answered by the home at order time;
        // its key's owner is the best guess for where that shard's nodes are.
        let shard = if self.call.footprint.is_read_only() { home } else { route.shard };
        let route = Route { shard, ..route };
        let request = Request::Await { shard, request: self.request, txn };
        let reply = self.call_shard(&route, request).await;
        if matches!(reply, Ok(Reply::Gone)) && !self.call.footprint.is_read_only() {
            // The shard keeps nothing of it. If that is because the memory
            // left with its key, the route is old.
            self.client.router.moved(shard);
        }
        // It is ordered, and `maybe_executed` says so: that its home cannot be
        // asked undoes nothing.
        self.conclude(shard, reply)
    }

    async fn fence(&mut self) -> Result<(), Step> {
        let Some(home) = self.call.footprint.home_key().cloned() else { return Ok(()) };
        let Some(route) = self.client.router.locate(&home) else {
            return Err(again("no shard map yet"));
        };
        let shard = route.shard;
        let request = Request::Fence { shard, request: self.request, home };
        match self.call_shard(&route, request).await {
            Ok(Reply::Poisoned) => Ok(()),
            reply => Err(self.conclude(shard, reply)),
        }
    }

    /// What a shard's reply means for the call.
    fn conclude(&mut self, shard: ShardId, reply: Result<Reply, CallError>) -> Step {
        let destination = Destination::Shard(shard);
        match reply {
            Ok(Reply::Verdict(Verdict::Done(result))) => Step::Done(Ok(result)),
            Ok(Reply::Verdict(Verdict::Aborted(reason))) => {
                let reason = String::from_utf8_lossy(&reason).into_owned();
                Step::Done(Err(ExecuteError::Aborted(reason)))
            }
            Ok(Reply::Expired) => {
                sometimes!("a client hears that its request has expired");
                Step::Done(Err(ExecuteError::Expired))
            }
            Ok(Reply::TooLarge) => too_large(),
            Ok(Reply::NotLeader(leader)) => {
                self.client.router.learned(destination, leader);
                again("the shard has no leader yet")
            }
            Ok(Reply::Moved) => {
                self.client.router.moved(shard);
                again("the shard map changed")
            }
            Ok(Reply::Busy(reason)) => busy(&reason),
            Ok(Reply::Poisoned) => {
                sometimes!("a client finds its request poisoned");
                // Another try fenced this request off; only the sequencer may
                // execute it now.
                self.maybe_direct = false;
                self.is_sequenced = true;
                Step::Unclear
            }
            Err(CallError::Unreachable) => {
                self.client.router.learned(destination, None);
                again("the shard's leader cannot be reached")
            }
            // Its leader may be as good as ever: what it answered is no cause
            // to look for another.
            Ok(Reply::Gone) => Step::Unclear,
            Ok(_) | Err(CallError::NoReply) => {
                self.client.router.learned(destination, None);
                Step::Unclear
            }
        }
    }

    async fn call_shard(&self, route: &Route, request: Request) -> Result<Reply, CallError> {
        self.call_one(route.leader, &route.voters, request).await
    }

    async fn call_sequencer(&self, request: Request) -> Result<Reply, CallError> {
        let route = self.client.router.sequencer();
        self.call_one(route.leader, &route.voters, request).await
    }

    /// Calls the leader, or the replicas in turn while none is known.
    async fn call_one(
        &self,
        leader: Option<NodeId>,
        voters: &[NodeId],
        request: Request,
    ) -> Result<Reply, CallError> {
        let turn = self.tries.checked_rem(voters.len()).and_then(|turn| voters.get(turn));
        let node = leader.or(turn.copied()).ok_or(CallError::Unreachable)?;
        self.client.call(node, request, self.until).await
    }
}

fn again(reason: &'static str) -> Step {
    Step::Again(Cow::Borrowed(reason))
}

fn busy(reason: &[u8]) -> Step {
    Step::Busy(String::from_utf8_lossy(reason).into_owned())
}

fn too_large() -> Step {
    let reason = "the call or a key of it is too large, or it has too many ranges or shards";
    Step::Done(Err(ExecuteError::Aborted(reason.into())))
}

/// Reads repeat under sequences of their own, far above those of the session.
const READ_RETRY_STRIDE: u64 = 1 << 48;

/// The routes of everything a footprint names; `None` while the map has holes.
fn routes(router: &dyn Router, footprint: &Footprint) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    for key in footprint.reads.iter().chain(&footprint.writes) {
        routes.push(router.locate(key)?);
    }
    for access in &footprint.ranges {
        let overlapping = router.overlapping(&access.range);
        if overlapping.is_empty() {
            return None;
        }
        routes.extend(overlapping);
    }
    Some(routes)
}
