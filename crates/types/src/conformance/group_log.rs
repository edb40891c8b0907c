//! What every [`GroupLog`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test suite: it panics where the log under test is wrong"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::NodeId;
use crate::group_log::{GroupLog, Leadership, ProposeError, ReadIndex};
use crate::runtime::{self, BoxFuture};

/// What should come, comes within this: on real time a healthy group needs far
/// less, on virtual time nobody waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(200);
/// How often to look for a leader.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Proposals one after the other, and side by side.
const PROPOSALS: usize = 50;
/// An index that no log of the suite comes to.
const FAR: u64 = 1_000_000_000;

/// A replica of a group under test.
pub struct Replica {
    /// Where it is.
    pub node: NodeId,
    /// The group's log as it sees it.
    pub log: Arc<dyn GroupLog>,
    /// The commands that its machine has applied so far, in that order.
    pub applied: Box<dyn Fn() -> Vec<Bytes> + Send + Sync>,
    /// Ends it for good, as when its node stops; `None` where nothing can.
    pub end: Option<Box<dyn FnOnce() -> BoxFuture<()> + Send>>,
}

/// Runs the suite. `fresh` makes a new group, whose machines take any command,
/// and returns all its replicas; nothing is broken between them.
///
/// ```text
/// group_log_suite(|| async { my_replicas_of_a_new_group().await }).await;
/// ```
///
/// # Panics
/// When the log does not conform.
pub async fn group_log_suite<F>(mut fresh: impl FnMut() -> F)
where
    F: Future<Output = Vec<Replica>>,
{
    one_replica_leads_and_is_named(&fresh().await).await;
    an_answer_comes_once_it_is_applied(&fresh().await).await;
    proposals_side_by_side_are_applied_once_each(&fresh().await).await;
    replicas_apply_the_same_in_one_order(&fresh().await).await;
    a_read_index_covers_what_was_answered(&fresh().await).await;
    who_does_not_lead_refuses_and_nothing_comes_of_it(&fresh().await).await;
    nothing_is_applied_before_it_is_there(&fresh().await).await;
    after_its_end_nothing_is_applied(fresh().await).await;
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} has not come within {PATIENCE:?}"))
}

fn command(text: impl std::fmt::Display) -> Bytes {
    Bytes::from(text.to_string())
}

fn now(replica: &Replica) -> Leadership {
    *replica.log.leadership().borrow()
}

/// The replica that serves, once there is one.
async fn leader(replicas: &[Replica]) -> &Replica {
    let found = async {
        loop {
            if let Some(leader) = replicas.iter().find(|replica| now(replica).leads) {
                return leader;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon("`Leadership::leads` of any replica", found).await
}

/// Proposes until a leader has taken it: those of `text` that were refused
/// differ from the one that was not by what follows the colon.
async fn propose(replicas: &[Replica], text: &str) -> Bytes {
    for attempt in 0..1_000 {
        let proposed = command(format_args!("{text}:{attempt}"));
        let log = Arc::clone(&leader(replicas).await.log);
        match soon("`GroupLog::propose`", log.propose(proposed.clone())).await {
            Ok(()) => return proposed,
            // An election has come between.
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    panic!("`GroupLog::propose`: no proposal of a healthy group was ever taken");
}

/// A position to read at, and the leader that confirmed it.
async fn confirm(replicas: &[Replica]) -> (&Replica, ReadIndex) {
    let confirmed = async {
        loop {
            let leader = leader(replicas).await;
            match leader.log.read_index().await {
                Ok(confirmed) => return (leader, confirmed),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    soon("`GroupLog::read_index` of the leader", confirmed).await
}

/// Waits until every replica has applied what was answered so far.
async fn settle(replicas: &[Replica]) {
    propose(replicas, "the last").await;
    let (_, confirmed) = confirm(replicas).await;
    for replica in replicas {
        let is_applied = soon("`GroupLog::applied`", replica.log.applied(confirmed.index)).await;
        assert!(is_applied, "`GroupLog::applied` is false only when it cannot be any more");
    }
}

fn count(applied: &[Bytes], wanted: &[u8]) -> usize {
    applied.iter().filter(|command| **command == wanted).count()
}

async fn one_replica_leads_and_is_named(replicas: &[Replica]) {
    leader(replicas).await;
    let mut leaders: BTreeMap<u64, NodeId> = BTreeMap::new();
    for replica in replicas {
        let now = now(replica);
        if now.leads {
            assert_eq!(
                now.leader,
                Some(replica.node),
                "`Leadership::leader` is the leader of the term, and this replica leads it"
            );
            let other = leaders.insert(now.term, replica.node);
            assert_eq!(other, None, "`Leadership::leads`: a term has one leader");
        }
    }
    let (leader, confirmed) = confirm(replicas).await;
    for replica in replicas {
        let mut leadership = replica.log.leadership();
        let named = leadership.wait_for(|now| {
            now.term > confirmed.term
                || (now.term == confirmed.term && now.leader == Some(leader.node))
        });
        soon("`GroupLog::leadership`: the leader, as every replica sees it,", named)
            .await
            .expect("a replica that runs says who leads");
    }
}

async fn an_answer_comes_once_it_is_applied(replicas: &[Replica]) {
    for number in 0..PROPOSALS {
        let leader = leader(replicas).await;
        let proposed = command(number);
        if leader.log.propose(proposed.clone()).await.is_ok() {
            assert_eq!(
                count(&(leader.applied)(), &proposed),
                1,
                "`GroupLog::propose` resolves once the command is applied by this replica"
            );
        }
    }
}

async fn proposals_side_by_side_are_applied_once_each(replicas: &[Replica]) {
    let leader = leader(replicas).await;
    let mut running = Vec::new();
    for number in 0..PROPOSALS {
        let proposing = leader.log.propose(command(number));
        running.push((command(number), runtime::spawn(proposing)));
    }
    let mut outcomes = Vec::new();
    for (proposed, outcome) in running {
        let outcome = soon("`GroupLog::propose`", outcome).await.unwrap();
        if outcome.is_ok() {
            assert_eq!(
                count(&(leader.applied)(), &proposed),
                1,
                "`GroupLog::propose` resolves once the command is applied by this replica"
            );
        }
        outcomes.push((proposed, outcome));
    }
    assert!(
        outcomes.iter().any(|(_, outcome)| outcome.is_ok()),
        "`GroupLog::propose`: a healthy group took none of {PROPOSALS}"
    );
    settle(replicas).await;
    for (replica, (proposed, outcome)) in
        replicas.iter().flat_map(|replica| outcomes.iter().map(move |outcome| (replica, outcome)))
    {
        let times = count(&(replica.applied)(), proposed);
        let is_right = match outcome {
            Ok(()) => times == 1,
            Err(ProposeError::NotLeader(_) | ProposeError::Refused(_)) => times == 0,
            Err(ProposeError::Unknown) => times <= 1,
        };
        assert!(
            is_right,
            "`GroupLog::propose` appends a command, once, and never one that it refused; one that \
             ended as {outcome:?} was applied {times} times"
        );
    }
}

async fn replicas_apply_the_same_in_one_order(replicas: &[Replica]) {
    let mut answered = Vec::new();
    for number in 0..PROPOSALS {
        answered.push(propose(replicas, &number.to_string()).await);
        // Besides what is waited for, what is not.
        let log = &leader(replicas).await.log;
        drop(runtime::spawn(log.propose(command(format_args!("beside {number}")))));
    }
    settle(replicas).await;
    let expected = (replicas[0].applied)();
    for replica in replicas {
        let applied = (replica.applied)();
        let both = expected.len().min(applied.len());
        assert!(
            expected[..both] == applied[..both],
            "a group's log has one order, and two replicas have applied in two"
        );
        let places = answered.iter().map(|command| {
            let place = applied.iter().position(|applied| applied == command);
            place.expect("`GroupLog::applied` resolves once the entry is applied here")
        });
        assert!(
            places.is_sorted(),
            "a command that was proposed after the answer to another stands behind it"
        );
    }
}

async fn a_read_index_covers_what_was_answered(replicas: &[Replica]) {
    let mut last = ReadIndex { term: 0, index: 0 };
    for number in 0..PROPOSALS {
        let proposed = propose(replicas, &number.to_string()).await;
        let (leader, confirmed) = confirm(replicas).await;
        assert!(
            confirmed.term <= now(leader).term,
            "`ReadIndex::term`: the term in which leadership was confirmed, not one to come"
        );
        assert!(
            confirmed.index > last.index && confirmed.term >= last.term,
            "`ReadIndex::index`: everything committed when the confirmation began is at or below; \
             it was {last:?} before another command and {confirmed:?} after it"
        );
        last = confirmed;
        for replica in replicas {
            let waited = soon("`GroupLog::applied`", replica.log.applied(confirmed.index)).await;
            assert!(waited, "`GroupLog::applied` is false only when it cannot be any more");
            assert_eq!(
                count(&(replica.applied)(), &proposed),
                1,
                "`GroupLog::read_index`: who has applied up to it has applied what was committed \
                 before"
            );
        }
    }
}

async fn who_does_not_lead_refuses_and_nothing_comes_of_it(replicas: &[Replica]) {
    let mut refused = Vec::new();
    for (replica, number) in replicas.iter().zip(0..) {
        leader(replicas).await;
        let before = now(replica);
        let proposed = command(format_args!("not here {number}"));
        let outcome = soon("`GroupLog::propose`", replica.log.propose(proposed.clone())).await;
        let reading = soon("`GroupLog::read_index`", replica.log.read_index()).await;
        let was_led = before.leads || now(replica).term != before.term;
        if was_led {
            continue;
        }
        assert!(
            reading.is_err(),
            "`GroupLog::read_index` confirms leadership: a follower has none"
        );
        match outcome {
            Err(ProposeError::NotLeader(leader)) => {
                assert_ne!(leader, Some(replica.node), "`ProposeError::NotLeader` names another");
                refused.push(proposed);
            }
            Err(ProposeError::Refused(_)) => refused.push(proposed),
            Ok(()) | Err(ProposeError::Unknown) => {
                panic!("`GroupLog::propose` of who does not lead: {outcome:?}")
            }
        }
    }
    settle(replicas).await;
    for (replica, proposed) in
        replicas.iter().flat_map(|replica| refused.iter().map(move |refused| (replica, refused)))
    {
        assert_eq!(
            count(&(replica.applied)(), proposed),
            0,
            "`ProposeError`: what was refused is not in the log and never will be"
        );
    }
}

async fn nothing_is_applied_before_it_is_there(replicas: &[Replica]) {
    settle(replicas).await;
    for replica in replicas {
        let waiting = tokio::time::timeout(A_WHILE, replica.log.applied(FAR)).await;
        assert!(
            waiting.is_err(),
            "`GroupLog::applied` resolves once the entry is applied here; no log is that long, and \
             it was {waiting:?}"
        );
    }
}

async fn after_its_end_nothing_is_applied(mut replicas: Vec<Replica>) {
    settle(&replicas).await;
    for replica in &mut replicas {
        let Some(end) = replica.end.take() else { continue };
        let waiting = runtime::spawn(replica.log.applied(FAR));
        soon("the end of a replica", end()).await;
        for applied in [
            soon("`GroupLog::applied` after the end", waiting).await.unwrap(),
            soon("`GroupLog::applied` after the end", replica.log.applied(FAR)).await,
        ] {
            assert!(!applied, "`GroupLog::applied` is false when it cannot be any more");
        }
        let proposed = command("after the end");
        let outcome = soon("`GroupLog::propose`", replica.log.propose(proposed.clone())).await;
        assert!(outcome.is_err(), "`GroupLog::propose` resolves once applied, and nothing is");
        assert_eq!(count(&(replica.applied)(), &proposed), 0, "an ended replica applies nothing");
        let confirmed = soon("`GroupLog::read_index`", replica.log.read_index()).await;
        assert!(confirmed.is_err(), "`GroupLog::read_index` confirms leadership: the end has none");
    }
}
