//! Heartbeats of all groups to a node travel together.
//!
//! Each group in use sends each of its followers some heartbeats a second, at
//! moments of its own. They are small, and a message with an answer for each of them
//! costs more than what they do. So one waits a while for others to the same node:
//! one message takes them all, and one answer comes for all, in their order. They
//! count from when their leader made them, so what waits makes no lease longer.
//!
//! A heartbeat that a reader waits for goes at once and alone: it waits for nobody's
//! company, and for nobody else's answer. So does one of a group whose last answer was
//! late, since those that travel with it would hear of theirs when it has come, or is
//! given up.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt, iter};
use parking_lot::Mutex;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, NodeId, Seq, runtime, sometimes};
use tokio::sync::oneshot;
use tokio::time::Instant;
use zerompk::{FromMessagePack, ToMessagePack};

use crate::config::{GroupClass, HostConfig};
use crate::consensus::wire::{Refusal, Reply};
use crate::group::{Counters, count};
use crate::nodes::NodeCall;
use crate::transport::{Lane, Transport, TransportError};

/// So many travel together at most.
pub(crate) const TOGETHER_MAX: usize = 1024;

/// So many of them are answered at a time.
const ANSWERED_MAX: usize = 64;

/// The part of the time between two heartbeats that one of them may wait.
const LINGER_PART: u32 = 10;

type Answer = Result<Bytes, TransportError>;

/// Messages of replicas, each as it would travel by itself.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Together {
    /// What has no answer by then stays without one: none waits for another long.
    pub(crate) within_millis: u32,
    pub(crate) messages: Seq<Blob>,
}

/// What a group has to do with how its heartbeats travel.
#[derive(Debug, Default)]
pub(crate) struct Haste {
    /// Somebody waits for what they tell.
    is_asked: AtomicBool,
    /// Those of them that wait for others.
    lingering: AtomicUsize,
}

/// The way of a group's heartbeats to one follower.
#[derive(Clone, Default)]
pub(crate) struct Way {
    haste: Arc<Haste>,
    /// The last answer took longer than those that travel together may.
    is_late: Arc<AtomicBool>,
}

impl Way {
    pub(crate) fn of(haste: &Arc<Haste>) -> Self {
        Self { haste: Arc::clone(haste), is_late: Arc::default() }
    }
}

/// The heartbeats of a host.
pub(crate) struct Heartbeats {
    transport: Arc<dyn Transport>,
    counters: Arc<Counters>,
    linger: Duration,
    lots: Mutex<BTreeMap<NodeId, Lot>>,
}

/// What waits for others to a node.
#[derive(Default)]
struct Lot {
    waiting: Vec<Waiting>,
    /// Somebody sends it after a while.
    is_timed: bool,
}

struct Waiting {
    message: Bytes,
    until: Instant,
    reply: Reporting,
    group: Lingers,
}

/// Who waits for an answer, and where it is noted that one is late.
struct Reporting {
    answer: oneshot::Sender<Answer>,
    is_late: Arc<AtomicBool>,
}

impl Waiting {
    fn time_left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

/// Counts as lingering while it is there.
struct Lingers(Arc<Haste>);

impl Lingers {
    fn begin(haste: &Arc<Haste>) -> Self {
        haste.lingering.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(haste))
    }
}

impl Drop for Lingers {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Heartbeats {
    pub(crate) fn new(
        config: &HostConfig,
        transport: Arc<dyn Transport>,
        counters: Arc<Counters>,
    ) -> Self {
        let heartbeats = GroupClass::ALL.map(|class| config.timing(class).heartbeat);
        let shortest = heartbeats.into_iter().min().unwrap_or_default();
        Self { transport, counters, linger: shortest / LINGER_PART, lots: Mutex::default() }
    }

    /// Sends a heartbeat, after a while if it has no haste. It counts as begun when
    /// this function returns.
    pub(crate) fn call(
        self: &Arc<Self>,
        to: NodeId,
        message: Bytes,
        deadline: Duration,
        way: &Way,
    ) -> BoxFuture<Answer> {
        let Way { haste, is_late } = way;
        count(&self.counters.heartbeats);
        // Noted first and asked second, as who asks does it the other way round: one
        // of us sees the other.
        let group = Lingers::begin(haste);
        if haste.is_asked.load(Ordering::SeqCst) {
            return self.send(to, message, deadline);
        }
        if is_late.load(Ordering::SeqCst) {
            let (began, is_late) = (Instant::now(), Arc::clone(is_late));
            let answer = self.send(to, message, deadline);
            return Box::pin(async move {
                let answer = answer.await;
                is_late.store(began.elapsed() > within(deadline), Ordering::SeqCst);
                answer
            });
        }
        let (reply, answer) = oneshot::channel();
        let reply = Reporting { answer: reply, is_late: Arc::clone(is_late) };
        let until = Instant::now() + deadline;
        let (full, is_first) = {
            let mut lots = self.lots.lock();
            let lot = lots.entry(to).or_default();
            lot.waiting.push(Waiting { message, until, reply, group });
            let is_full = lot.waiting.len() >= TOGETHER_MAX;
            let full = is_full.then(|| std::mem::take(&mut lot.waiting));
            let is_first = full.is_none() && !std::mem::replace(&mut lot.is_timed, true);
            (full, is_first)
        };
        if haste.is_asked.load(Ordering::SeqCst) {
            self.hurry_group(haste);
        }
        self.send_lot(to, full.unwrap_or_default());
        if is_first {
            drop(runtime::spawn(send_after_a_while(Arc::downgrade(self), to)));
        }
        Box::pin(async move { answer.await.unwrap_or(Err(TransportError::Deadline { to })) })
    }

    /// Somebody waits for what a group's heartbeats tell, until this is dropped.
    pub(crate) fn ask(&self, haste: &Arc<Haste>) -> Asking {
        haste.is_asked.store(true, Ordering::SeqCst);
        if haste.lingering.load(Ordering::SeqCst) > 0 {
            self.hurry_group(haste);
        }
        Asking(Arc::clone(haste))
    }

    /// Sends what waits of a group, each message alone.
    fn hurry_group(&self, haste: &Arc<Haste>) {
        let is_of_group = |waiting: &mut Waiting| Arc::ptr_eq(&waiting.group.0, haste);
        let taken: Vec<_> = {
            let mut lots = self.lots.lock();
            let of_lot = |(to, lot): (&NodeId, &mut Lot)| {
                let taken: Vec<_> = lot.waiting.extract_if(.., is_of_group).collect();
                taken.into_iter().map(|waiting| (*to, waiting)).collect::<Vec<_>>()
            };
            lots.iter_mut().flat_map(of_lot).collect()
        };
        for (to, waiting) in taken {
            self.send_lot(to, vec![waiting]);
        }
    }

    /// Sends what waits for others to a node, before something that it must not come
    /// behind.
    pub(crate) fn hurry(&self, to: NodeId) {
        let lot = self.lots.lock().get_mut(&to).map(|lot| std::mem::take(&mut lot.waiting));
        self.send_lot(to, lot.unwrap_or_default());
    }

    fn send(&self, to: NodeId, message: Bytes, deadline: Duration) -> BoxFuture<Answer> {
        count(&self.counters.heartbeat_messages);
        self.transport.call(to, Lane::Heartbeat, message, deadline)
    }

    /// Sends what waited, now, and brings the answers to who waits for them.
    fn send_lot(&self, to: NodeId, mut lot: Vec<Waiting>) {
        lot.retain(|waiting| !waiting.reply.answer.is_closed());
        let now = Instant::now();
        let left = || lot.iter().map(|waiting| waiting.time_left(now));
        let (Some(shortest), Some(longest)) = (left().min(), left().max()) else { return };
        if lot.len() == 1
            && let Some(Waiting { message, reply, .. }) = lot.pop()
        {
            let answer = self.send(to, message, longest);
            drop(runtime::spawn(async move {
                // Who gave up is gone.
                drop(reply.answer.send(answer.await));
            }));
            return;
        }
        sometimes!("heartbeats of several groups travel together");
        let (messages, replies): (Vec<Blob>, Vec<_>) =
            lot.into_iter().map(|waiting| (Blob(waiting.message), waiting.reply)).unzip();
        let within_millis = u32::try_from(within(shortest).as_millis()).unwrap_or(u32::MAX);
        let call = NodeCall::Heartbeats(Together { within_millis, messages: Seq(messages) });
        let answer = self.send(to, call.to_bytes(), longest);
        drop(runtime::spawn(async move { give_out(to, answer.await, replies) }));
    }
}

/// How long heartbeats that travel together may take to be answered, of the time that
/// is left to one of them: the rest is for both ways.
fn within(time_left: Duration) -> Duration {
    time_left / 2
}

/// Who waits for what a group's heartbeats tell.
pub(crate) struct Asking(Arc<Haste>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.is_asked.store(false, Ordering::SeqCst);
    }
}

async fn send_after_a_while(heartbeats: Weak<Heartbeats>, to: NodeId) {
    let Some(linger) = heartbeats.upgrade().map(|heartbeats| heartbeats.linger) else { return };
    tokio::time::sleep(linger).await;
    let Some(heartbeats) = heartbeats.upgrade() else { return };
    let lot = heartbeats.lots.lock().remove(&to).unwrap_or_default();
    heartbeats.send_lot(to, lot.waiting);
}

/// Gives everyone an own answer, or the reason why there is none.
fn give_out(to: NodeId, answer: Answer, replies: Vec<Reporting>) {
    let answers = answer.and_then(|answer| {
        let rejected = |reason| TransportError::Rejected { to, reason };
        match Reply::from_bytes(&answer) {
            Ok(Reply::Heartbeats(answers)) if answers.len() == replies.len() => Ok(answers),
            Ok(other) => Err(rejected(format!("unexpected reply to heartbeats: {other:?}"))),
            Err(error) => Err(rejected(error.to_string())),
        }
    });
    match answers {
        Ok(answers) => {
            for (reply, Blob(answer)) in replies.into_iter().zip(answers) {
                let is_late = answer.is_empty();
                if is_late {
                    // Alone it has all of its deadline, even if the whole node is slow: a
                    // leader that hears no answers in time loses its lease.
                    reply.is_late.store(true, Ordering::SeqCst);
                }
                let answer =
                    if is_late { Err(TransportError::Deadline { to }) } else { Ok(answer) };
                // Who gave up is gone, here and below.
                drop(reply.answer.send(answer));
            }
        }
        Err(error) => {
            for reply in replies {
                drop(reply.answer.send(Err(error.clone())));
            }
        }
    }
}

/// Answers heartbeats that came together. All are received at once; they are answered
/// in their order, some at a time. What is not done in time is given up, and has an
/// empty answer.
pub(crate) async fn answer_all<R, F>(
    together: Together,
    within_max: Duration,
    receive: impl Fn(&Bytes) -> R,
    answer_one: impl Fn(Bytes, R) -> F,
) -> Reply
where
    F: Future<Output = Reply>,
{
    let Together { within_millis, messages } = together;
    if messages.len() > TOGETHER_MAX {
        return Reply::Refused(Refusal::Malformed);
    }
    let within = Duration::from_millis(within_millis.into()).min(within_max);
    let mut answers = Seq(vec![Blob(Bytes::new()); messages.len()]);
    let received: Vec<R> = messages.iter().map(|message| receive(&message.0)).collect();
    let all = iter(messages.into_iter().zip(received).zip(answers.iter_mut()));
    let all = all.for_each_concurrent(ANSWERED_MAX, |((Blob(message), received), place)| {
        let answer = answer_one(message, received);
        async move { place.0 = answer.await.to_bytes() }
    });
    let is_late = tokio::time::timeout(within, all).await.is_err();
    sometimes!("a heartbeat that came with others is answered too late", is_late);
    Reply::Heartbeats(answers)
}
