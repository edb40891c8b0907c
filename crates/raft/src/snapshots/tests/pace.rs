use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::runtime::spawn;
use tokio::time::Instant;

use super::super::pace::Pace;
use super::support::simulate;

const RATE: u64 = 100_000;

/// How long these take, all at once.
async fn taken(pace: Pace, sizes: &[u64]) -> Duration {
    let (pace, began) = (Arc::new(pace), Instant::now());
    let mut tasks = Vec::new();
    for &bytes in sizes {
        let pace = Arc::clone(&pace);
        tasks.push(spawn(async move { pace.take(bytes).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed()
}

#[test]
fn each_waits_for_those_before_it() {
    simulate(async {
        let took = taken(Pace::new(Some(RATE)), &[50_000, 20_000, 30_000, 1]).await;
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(took <= Duration::from_millis(1_010), "{took:?}");
    });
}

#[test]
fn without_a_rate_nobody_waits() {
    simulate(async {
        assert_eq!(taken(Pace::new(None), &[u64::MAX; 3]).await, Duration::ZERO);
    });
}

#[test]
fn a_time_in_which_nothing_was_sent_is_not_saved_up() {
    simulate(async {
        let pace = Arc::new(Pace::new(Some(RATE)));
        pace.take(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let sent = Arc::new(Mutex::new(0));
        let (sender, counted) = (Arc::clone(&pace), Arc::clone(&sent));
        let sending = spawn(async move {
            loop {
                sender.take(10_000).await;
                *counted.lock() += 10_000;
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        sending.abort();
        assert!(*sent.lock() <= RATE + 10_000, "{} in a second", sent.lock());
    });
}
