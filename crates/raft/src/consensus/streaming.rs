//! A stream of appends to one follower: when they are taken from openraft, and what
//! openraft hears of their answers.
//!
//! Openraft has something to send whenever there are entries, and whenever more is
//! committed. It notes when each request was taken, and takes an answer for one to all
//! requests that end where the answer does (`drain_acked` in its
//! `replication/inflight_append_queue.rs`). What it concludes about time, a read relies
//! on. So, and for fewer messages:
//!
//! * **An answer counts when every request that it is taken to answer has one.** A request
//!   that only tells of a commit ends where the entries before it end. Were their answer
//!   passed on while that request is on its way, openraft would believe that the follower
//!   knew its leader at a time when it may have had another one for long. An answer that
//!   waits is lost if the one that it waits for is: the entries are sent once more.
//! * What is committed travels with entries. It is sent without any when everything has
//!   been answered for [`COMMIT_WAIT`]. Where one command follows the other, that saves
//!   four messages of ten. While an answer is to come, heartbeats tell of it.
//!
//! Openraft sends what was appended a moment after it was. A stream that looks in
//! between finds a commit only, and sends that: the first rule is for this, too.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, unfold};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use parking_lot::Mutex;
use quorate_types::{buggify, sometimes, watch};
use tokio::time::sleep;

use super::types::{LogId, TypeConfig};

/// How long a follower with nothing to do may not know what is committed: longer than
/// most clients take to send the next command once they have an answer.
const COMMIT_WAIT: Duration = Duration::from_millis(2);

type Request = AppendEntriesRequest<TypeConfig>;

/// The last entries of the requests that were taken and are not answered, in order.
type Unanswered = Arc<Mutex<VecDeque<Option<LogId>>>>;

/// Where a request ends.
pub(super) fn last_of(request: &Request) -> Option<LogId> {
    request.entries.last().map_or(request.prev_log_id, |entry| Some(entry.log_id))
}

/// Sends what `requests` has, at most so many at a time, and tells of the answers in
/// order. `end` is the index behind the leader's log; without it, each request is sent at
/// once, as a heartbeat has to be.
pub(super) fn stream<S, C, F, E>(
    requests: S,
    end: Option<watch::Receiver<u64>>,
    in_flight: usize,
    mut call: C,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, E>>
where
    S: Stream<Item = Request> + Unpin,
    C: FnMut(&Request) -> F,
    F: Future<Output = Result<AppendEntriesResponse<TypeConfig>, E>>,
{
    let unanswered = Unanswered::default();
    let pace = Pace { requests, end, unanswered: Arc::clone(&unanswered), taken: None };
    let calls = pace.into_stream().map(move |request| {
        let (previous, last) = (request.prev_log_id, last_of(&request));
        let reply = call(&request);
        async move { (previous, last, reply.await) }
    });
    let replies = Some(Box::pin(calls.buffered(in_flight)));
    unfold((replies, unanswered), |(replies, unanswered)| async move {
        let mut replies = replies?;
        loop {
            let (previous, last, reply) = replies.next().await?;
            let follows = {
                let mut unanswered = unanswered.lock();
                unanswered.pop_front();
                unanswered.front().copied()
            };
            let reply = match reply {
                Ok(reply) => reply,
                Err(error) => return Some((Err(error), (None, unanswered))),
            };
            let partly = matches!(&reply,
                AppendEntriesResponse::PartialSuccess(upto) if *upto != last);
            let result = reply.into_stream_result(previous, last);
            // Whatever was sent behind a reply that did not take everything builds on
            // what the follower does not have.
            let goes_on = result.is_ok() && !partly;
            if goes_on && follows == Some(last) {
                sometimes!("an answer waits for that of a request without entries");
                continue;
            }
            return Some((Ok(result), (goes_on.then_some(replies), unanswered)));
        }
    })
}

/// Takes requests when there is a reason to.
struct Pace<S> {
    requests: S,
    end: Option<watch::Receiver<u64>>,
    unanswered: Unanswered,
    /// The index behind the last entry that was taken; nothing was before the first.
    taken: Option<u64>,
}

impl<S: Stream<Item = Request> + Unpin> Pace<S> {
    fn into_stream(self) -> impl Stream<Item = Request> {
        unfold(self, |mut pace| async move {
            pace.wait().await;
            let request = pace.requests.next().await?;
            let last = last_of(&request);
            pace.unanswered.lock().push_back(last);
            pace.taken = Some(last.map_or(0, |last| last.index + 1));
            Some((request, pace))
        })
    }

    /// Waits for entries that were not taken, or until there have been none for a while.
    async fn wait(&mut self) {
        let (Some(taken), Some(end)) = (self.taken, &mut self.end) else { return };
        if buggify!("raft tells of each commit at once") {
            return;
        }
        let unanswered = &self.unanswered;
        let more = end.wait_for(|end| *end > taken);
        let idle = async {
            // Whoever hears of an answer asks for the next, and so comes by here.
            let is_idle = || unanswered.lock().is_empty();
            poll_fn(|_| if is_idle() { Poll::Ready(()) } else { Poll::Pending }).await;
            sleep(COMMIT_WAIT).await;
        };
        tokio::select! {
            biased;
            // Without a log there is nothing to wait for.
            _more_or_closed = more => {}
            () = idle => {}
        }
    }
}
