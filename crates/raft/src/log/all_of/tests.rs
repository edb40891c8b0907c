use quorate_types::GroupId;
use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn the_first_error_of_all_is_told_when_all_are_done() {
    let (done, mut outcome) = oneshot::channel();
    let all = AllOf::new(Box::new(move |result| drop(done.send(result))));
    let parts = [all.part(), all.part(), all.part()];
    all.complete();
    drop(all);
    let results = [Ok(()), Err(LogError::UnknownGroup(GroupId(1))), Err(LogError::Closed)];
    for (part, result) in parts.into_iter().zip(results) {
        assert!(outcome.try_recv().is_err(), "not before the last");
        part(result);
    }
    assert!(matches!(outcome.await.unwrap(), Err(LogError::UnknownGroup(_))));
}

#[tokio::test]
async fn nothing_is_done_at_once() {
    let (done, outcome) = oneshot::channel();
    AllOf::new(Box::new(move |result| drop(done.send(result)))).complete();
    outcome.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_not_done_is_no_success() {
    for (calls_last, is_complete) in [(false, true), (true, false)] {
        let (done, outcome) = oneshot::channel();
        let all = AllOf::new(Box::new(move |result| drop(done.send(result))));
        all.part()(Ok(()));
        let last = all.part();
        if calls_last {
            last(Ok(()))
        } else {
            drop(last)
        }
        if is_complete {
            all.complete();
        }
        drop(all);
        assert!(matches!(outcome.await.unwrap(), Err(LogError::Closed)));
    }
}
