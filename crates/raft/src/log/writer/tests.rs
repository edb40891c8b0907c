#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use quorate_types::{GroupId, ReplicaId};
use tokio::sync::oneshot;

use super::super::{DurableLog, LogEngine, LogEntry, LogError, LogPosition};
use crate::consensus::tests::support::{RamDisk, small_log};

const GROUP: GroupId = GroupId(1);

fn entry(index: u64) -> LogEntry {
    LogEntry { position: LogPosition { term: 1, index }, payload: b"x"[..].into() }
}

/// The thread of the writer ends with the completion. Those that come behind it hear
/// of it, and so does who closes the log.
#[tokio::test]
async fn a_writer_that_panics_leaves_a_log_that_failed_and_nobody_waiting() {
    let log = DurableLog::open(Arc::new(RamDisk::default()), "raft", small_log()).unwrap();
    log.admit(GROUP, ReplicaId(11)).await.unwrap();
    let panics = Box::new(|_: Result<(), LogError>| panic!("a completion of somebody else's"));
    log.append(GROUP, vec![entry(0)], panics).await.unwrap();
    let (done, answer) = oneshot::channel();
    let answered = Box::new(move |result| drop(done.send(result)));
    // It may be refused at once, if the writer was as fast.
    let _refused = log.append(GROUP, vec![entry(1)], answered).await;
    answer.await.unwrap().unwrap_err();
    log.append(GROUP, vec![entry(2)], Box::new(drop)).await.unwrap_err();
    let error = log.close().await.unwrap_err();
    assert!(error.to_string().contains("the log's writer panicked"), "{error}");
}
