use quorate_types::GroupId;
use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn the_first_error_of_all_is_told_when_all_are_done() {
    let (done, mut outcome) = oneshot::channel();
    let all = AllOf::new(Box::new(move |result| drop(done.send(result))));
    let parts = [all.part(), all.part(), all.part()];
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
    drop(AllOf::new(Box::new(move |result| drop(done.send(result)))));
    outcome.await.unwrap().unwrap();
}
