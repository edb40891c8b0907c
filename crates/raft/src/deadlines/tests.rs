use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Deadlines, LATE_MAX, LOOKS_EVERY};
use crate::consensus::tests::support::simulate;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_wait_ends_at_its_deadline_and_no_other_does() {
    simulate(async {
        let deadlines = Deadlines::start();
        let began = Instant::now();
        let waits = [3_700, 5, 900, 40, 40, 12_000].map(|after| {
            let deadlines = &deadlines;
            async move {
                let until = began + millis(after);
                assert!(deadlines.bound(until, pending::<()>()).await.is_none());
                let late = Instant::now() - until;
                assert!(late <= LATE_MAX + millis(2), "{after} ms: {late:?} late");
            }
        });
        join_all(waits).await;
    });
}

#[test]
fn waits_that_are_over_when_they_begin_are_not_looked_at_one_by_one() {
    simulate(async {
        let deadlines = Deadlines::start();
        let began = Instant::now();
        for round in 0..20 {
            let until = Instant::now();
            assert!(deadlines.bound(until, pending::<()>()).await.is_none());
            let late = Instant::now() - until;
            assert!(late <= LATE_MAX + millis(2), "round {round}: {late:?} late");
        }
        assert!(began.elapsed() >= LATE_MAX * 19, "{:?}", began.elapsed());
    });
}

#[test]
fn room_for_many_waits_is_given_back() {
    simulate(async {
        let deadlines = Deadlines::start();
        let until = Instant::now() + millis(10);
        join_all((0..1_000).map(|_| deadlines.bound(until, pending::<()>()))).await;
        assert_eq!(deadlines.waits.lock().places.len(), 1_000);
        sleep(LOOKS_EVERY * 2).await;
        let waits = deadlines.waits.lock();
        assert_eq!((waits.places.capacity(), waits.free.capacity()), (0, 0));
    });
}

#[test]
fn work_that_is_done_in_time_is_not_cut_off() {
    simulate(async {
        let deadlines = Deadlines::start();
        for after in [0, 1, 700, 2_500] {
            let until = Instant::now() + millis(after + 5);
            let done = deadlines.bound(until, sleep(millis(after))).await;
            assert!(done.is_some(), "{after} ms");
        }
        assert_eq!(deadlines.bound(Instant::now(), ready(7)).await, Some(7));
        let waits = deadlines.waits.lock();
        assert!(waits.places.len() <= 1 && waits.free.len() == waits.places.len());
    });
}

#[test]
fn waits_that_are_given_up_leave_nothing_to_look_at() {
    simulate(async {
        let deadlines = Deadlines::start();
        for _ in 0..3 {
            let until = Instant::now() + millis(60_000);
            let given_up = deadlines.bound(until, pending::<()>());
            assert!(tokio::time::timeout(millis(1), given_up).await.is_err());
        }
        sleep(LOOKS_EVERY * 3).await;
        assert_eq!(deadlines.waits.lock().looks_at, None);
        assert_eq!(Arc::strong_count(&deadlines.earlier), 2);
        let earlier = Arc::clone(&deadlines.earlier);
        drop(deadlines);
        sleep(millis(1)).await;
        assert_eq!(Arc::strong_count(&earlier), 1, "nobody keeps them");
    });
}

#[test]
fn a_wait_takes_the_place_of_one_that_ended_and_nothing_else_of_it() {
    simulate(async {
        let deadlines = Deadlines::start();
        for round in 0..50 {
            let until = Instant::now() + millis(10);
            let ended = deadlines.bound(until, pending::<()>()).await;
            assert!(ended.is_none(), "round {round}");
            let done = deadlines.bound(Instant::now() + millis(40), sleep(millis(20))).await;
            assert!(done.is_some(), "round {round}: ended with the wait before it");
        }
        assert_eq!(deadlines.waits.lock().places.len(), 1);
    });
}
