#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::poll_immediate;
use futures_util::stream::{self, BoxStream, StreamExt};
use openraft::raft::{AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, sleep};

use super::{COMMIT_WAIT, Request};
use crate::consensus::tests::support::simulate;
use crate::consensus::types::{Command, LogId, Payload, RaftEntry, TypeConfig, log_id, raft_vote};
use crate::log::{LogPosition, Vote};
use quorate_types::{ReplicaId, watch};

type Reply = Result<AppendEntriesResponse<TypeConfig>, &'static str>;

/// A call to the follower: the index that it ends with, and how it is answered.
type Call = (u64, oneshot::Sender<Reply>);

fn at(index: u64) -> LogId {
    log_id(LogPosition { term: 1, index })
}

/// A request with the entries behind one index up to another, which both may be.
fn request(after: u64, upto: u64) -> Request {
    let entry = |index| RaftEntry {
        log_id: at(index),
        payload: Payload::Normal(Command::new(b"a command")),
    };
    Request {
        vote: raft_vote(Vote { term: 1, candidate: ReplicaId(1), committed: true }),
        prev_log_id: Some(at(after)),
        entries: (after + 1..=upto).map(entry).collect(),
        leader_commit: None,
    }
}

/// A stream between an openraft and a follower that do as they are told.
struct Rig {
    requests: mpsc::UnboundedSender<Request>,
    end: watch::Sender<u64>,
    calls: Arc<Mutex<VecDeque<Call>>>,
    answers: BoxStream<'static, Result<StreamAppendResult<TypeConfig>, &'static str>>,
}

impl Rig {
    fn new() -> Self {
        let (requests, mut taken) = mpsc::unbounded_channel();
        let (end, _) = watch::channel(0);
        let calls: Arc<Mutex<VecDeque<Call>>> = Arc::default();
        let called = Arc::clone(&calls);
        let call = move |request: &Request| {
            let (reply, replied) = oneshot::channel();
            let last = super::last_of(request).unwrap();
            called.lock().push_back((last.index, reply));
            async move { replied.await.unwrap() }
        };
        let requests_in = stream::poll_fn(move |cx| taken.poll_recv(cx));
        let answers = super::stream(requests_in, Some(end.subscribe()), 4, call);
        Self { requests, end, calls, answers: Box::pin(answers) }
    }

    /// Something that openraft has to send, which ends the log unless it has no entries.
    fn offer(&self, after: u64, upto: u64) {
        self.requests.send(request(after, upto)).unwrap();
        self.end.send(upto + 1);
    }

    /// Something that it has to send because more is committed.
    fn offer_commit(&self, last: u64) {
        self.requests.send(request(last, last)).unwrap();
    }

    /// What openraft hears by now: the index that an answer matches, or what is wrong.
    async fn heard(&mut self) -> Option<Result<u64, String>> {
        let answer = poll_immediate(Pin::new(&mut self.answers).next()).await??;
        Some(match answer {
            Ok(Ok(matching)) => Ok(matching.unwrap().index),
            Ok(Err(StreamAppendError::Conflict(at))) => Err(format!("conflict at {}", at.index)),
            Ok(Err(StreamAppendError::HigherVote(_))) => Err("a higher vote".to_owned()),
            Err(error) => Err(error.to_owned()),
        })
    }

    /// Where the calls end that are not answered.
    fn called(&self) -> Vec<u64> {
        self.calls.lock().iter().map(|(last, _)| *last).collect()
    }

    /// Answers the first of them.
    fn answer(&self, reply: Reply) {
        let (_, first) = self.calls.lock().pop_front().unwrap();
        first.send(reply).unwrap();
    }
}

const SUCCESS: Reply = Ok(AppendEntriesResponse::Success);

#[test]
fn appends_overlap_and_are_answered_in_order() {
    simulate(async {
        let mut rig = Rig::new();
        rig.offer(0, 1);
        rig.offer(1, 3);
        assert_eq!(rig.heard().await, None);
        assert_eq!(rig.called(), [1, 3]);
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, Some(Ok(1)));
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, Some(Ok(3)));
    });
}

#[test]
fn a_commit_alone_waits_for_entries_to_travel_with() {
    simulate(async {
        let mut rig = Rig::new();
        rig.offer(0, 1);
        assert_eq!(rig.heard().await, None);
        rig.offer_commit(1);
        sleep(COMMIT_WAIT * 2).await;
        assert_eq!(rig.heard().await, None);
        assert_eq!(rig.called(), [1], "nothing is told while an answer is to come");
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, Some(Ok(1)));
        let idle_from = Instant::now();
        assert_eq!(rig.heard().await, None);
        sleep(COMMIT_WAIT / 2).await;
        assert_eq!(rig.heard().await, None);
        assert_eq!(rig.called(), [] as [u64; 0], "{:?}", idle_from.elapsed());
        sleep(COMMIT_WAIT).await;
        assert_eq!(rig.heard().await, None);
        assert_eq!(rig.called(), [1], "{:?}", idle_from.elapsed());
    });
}

#[test]
fn entries_do_not_wait() {
    simulate(async {
        let mut rig = Rig::new();
        rig.offer(0, 1);
        assert_eq!(rig.heard().await, None);
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, Some(Ok(1)));
        let answers = rig.answers;
        let waiting =
            quorate_types::runtime::spawn(async move { drop(answers.into_future().await) });
        sleep(Duration::from_micros(100)).await;
        rig.requests.send(request(1, 2)).unwrap();
        rig.end.send(3);
        for _ in 0..10 {
            yield_now().await;
        }
        let called: Vec<u64> = rig.calls.lock().iter().map(|(last, _)| *last).collect();
        assert_eq!(called, [2]);
        waiting.abort();
    });
}

/// Openraft would take the answer for one to the request behind it, too, which nobody
/// has answered, and rely on a time at which the follower may have had another leader.
#[test]
fn an_answer_is_not_told_before_that_of_a_request_that_ends_where_it_does() {
    simulate(async {
        let mut rig = Rig::new();
        rig.offer(0, 1);
        assert_eq!(rig.heard().await, None);
        // The log has more, and openraft does not know it yet.
        rig.end.send(3);
        rig.offer_commit(1);
        assert_eq!(rig.heard().await, None);
        assert_eq!(rig.called(), [1, 1]);
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, None, "half of it is answered");
        rig.answer(SUCCESS);
        assert_eq!(rig.heard().await, Some(Ok(1)));
        assert_eq!(rig.heard().await, None);
    });
}

#[test]
fn an_answer_is_lost_with_that_of_a_request_that_ends_where_it_does() {
    simulate(async {
        let mut rig = Rig::new();
        rig.offer(0, 1);
        assert_eq!(rig.heard().await, None);
        rig.end.send(3);
        rig.offer_commit(1);
        assert_eq!(rig.heard().await, None);
        rig.answer(SUCCESS);
        rig.answer(Err("the connection is gone"));
        assert_eq!(rig.heard().await, Some(Err("the connection is gone".to_owned())));
        assert!(rig.answers.next().await.is_none());
    });
}

#[test]
fn nothing_is_told_behind_an_answer_that_did_not_take_everything() {
    let partly = || Ok(AppendEntriesResponse::PartialSuccess(Some(at(1))));
    let conflict = || Ok(AppendEntriesResponse::Conflict);
    let replies: [(fn() -> Reply, _); 2] =
        [(partly, Ok(1)), (conflict, Err("conflict at 0".to_owned()))];
    for (reply, heard) in replies {
        simulate(async move {
            let mut rig = Rig::new();
            rig.offer(0, 2);
            rig.offer(2, 3);
            assert_eq!(rig.heard().await, None);
            rig.answer(reply());
            rig.answer(SUCCESS);
            assert_eq!(rig.heard().await, Some(heard));
            assert!(rig.answers.next().await.is_none());
        });
    }
}
