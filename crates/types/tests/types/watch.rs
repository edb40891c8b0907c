//! A watcher sees the last value, and learns when there will be no other.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use quorate_types::runtime::spawn;
use quorate_types::watch::{Closed, channel};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, bell: &Arc<Bell>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(bell));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_change_between_looking_and_waiting_is_not_lost() {
    let (sender, mut receiver) = channel(0);
    assert_eq!(receiver.get(), 0);
    sender.send(1);
    let mut changed = Box::pin(receiver.changed());
    assert_eq!(poll(&mut changed, &Arc::default()), Poll::Ready(Ok(())));
}

#[test]
fn a_change_wakes_whoever_waits_once() {
    let (sender, mut first) = channel(0);
    let mut second = first.clone();
    let bells: [Arc<Bell>; 2] = Default::default();
    let (mut one, mut two) = (Box::pin(first.changed()), Box::pin(second.changed()));
    assert!(poll(&mut one, &bells[0]).is_pending() && poll(&mut two, &bells[1]).is_pending());
    sender.send(1);
    sender.send(2);
    assert_eq!([bells[0].rung(), bells[1].rung()], [1, 1]);
    assert!(poll(&mut one, &bells[0]).is_ready() && poll(&mut two, &bells[1]).is_ready());
    drop((one, two));
    assert_eq!((first.get(), second.get()), (2, 2));
}

#[test]
fn several_changes_are_seen_as_one() {
    let (sender, mut receiver) = channel(0);
    (1..=9).for_each(|value| sender.send(value));
    let bell = Arc::default();
    assert!(poll(&mut Box::pin(receiver.changed()), &bell).is_ready());
    assert_eq!(*receiver.borrow(), 9);
    assert!(poll(&mut Box::pin(receiver.changed()), &bell).is_pending());
}

#[test]
fn a_change_that_changes_nothing_wakes_nobody() {
    let (sender, mut receiver) = channel(7);
    let bell = Arc::default();
    let mut changed = Box::pin(receiver.changed());
    assert!(poll(&mut changed, &bell).is_pending());
    assert!(!sender.modify(|value| std::mem::replace(value, 7) != 7));
    assert_eq!(bell.rung(), 0);
    assert!(poll(&mut changed, &bell).is_pending());
}

#[test]
fn looking_does_not_count_as_seeing_unless_said() {
    let (sender, mut receiver) = channel(0);
    sender.send(1);
    assert_eq!(*receiver.borrow(), 1);
    assert!(poll(&mut Box::pin(receiver.changed()), &Arc::default()).is_ready());
    sender.send(2);
    assert_eq!(*receiver.borrow_and_update(), 2);
    assert!(poll(&mut Box::pin(receiver.changed()), &Arc::default()).is_pending());
}

#[test]
fn the_last_value_is_seen_before_the_end() {
    let (sender, mut receiver) = channel(0);
    let another = sender.clone();
    drop(sender);
    another.send(1);
    drop(another);
    let bell = Arc::default();
    assert_eq!(poll(&mut Box::pin(receiver.changed()), &bell), Poll::Ready(Ok(())));
    assert_eq!(poll(&mut Box::pin(receiver.changed()), &bell), Poll::Ready(Err(Closed)));
    assert_eq!(receiver.get(), 1);
}

#[test]
fn the_end_wakes_whoever_waits() {
    let (sender, mut receiver) = channel(0);
    let bell = Arc::default();
    let mut changed = Box::pin(receiver.changed());
    assert!(poll(&mut changed, &bell).is_pending());
    drop(sender);
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll(&mut changed, &bell), Poll::Ready(Err(Closed)));
}

#[test]
fn a_sender_knows_when_nobody_listens() {
    let (sender, receiver) = channel(0);
    let another = receiver.clone();
    drop(receiver);
    assert!(!sender.is_closed());
    drop(another);
    assert!(sender.is_closed());
    let late = sender.subscribe();
    assert!(!sender.is_closed());
    drop(late);
}

#[test]
fn a_subscriber_counts_what_is_there_as_seen() {
    let (sender, _receiver) = channel(0);
    sender.send(1);
    let mut late = sender.subscribe();
    assert!(poll(&mut Box::pin(late.changed()), &Arc::default()).is_pending());
    assert_eq!(*sender.borrow(), 1);
}

#[test]
fn a_wait_that_is_given_up_is_not_woken() {
    let (sender, mut receiver) = channel(0);
    let bell = Arc::<Bell>::default();
    for _ in 0..3 {
        let mut given_up = Box::pin(receiver.changed());
        assert!(poll(&mut given_up, &bell).is_pending());
    }
    assert_eq!(Arc::strong_count(&bell), 1, "nothing keeps the waker");
    sender.send(1);
    assert_eq!(bell.rung(), 0);
}

#[test]
fn waiters_wake_in_the_order_in_which_they_came() {
    struct Named(usize, Arc<parking_lot::Mutex<Vec<usize>>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().push(self.0);
        }
    }
    let (sender, receiver) = channel(0);
    let order = Arc::default();
    let mut receivers: Vec<_> = (0..20).map(|_| receiver.clone()).collect();
    let mut waits: Vec<_> = receivers.iter_mut().map(|one| Box::pin(one.changed())).collect();
    for (number, wait) in waits.iter_mut().enumerate() {
        let waker = Waker::from(Arc::new(Named(number, Arc::clone(&order))));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    sender.send(1);
    assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_condition_that_holds_needs_no_change() {
    let (sender, mut receiver) = channel(5);
    assert_eq!(receiver.wait_for(|value| *value >= 5).await, Ok(5));
    let mut impossible = pin!(receiver.wait_for(|value| *value > 5));
    assert!(poll(&mut impossible, &Arc::default()).is_pending());
    drop(sender);
    assert_eq!(impossible.await, Err(Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_between_threads() {
    const VALUES: u64 = 20_000;
    let (sender, receiver) = channel(0_u64);
    let watchers: Vec<_> = (0..3)
        .map(|_| {
            let mut receiver = receiver.clone();
            spawn(async move {
                let mut last = 0;
                while receiver.changed().await.is_ok() {
                    let value = receiver.get();
                    assert!(value >= last, "{value} after {last}");
                    last = value;
                }
                last
            })
        })
        .collect();
    let writing = spawn(async move {
        for value in 1..=VALUES {
            sender.send(value);
            if value % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    writing.await.unwrap();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), VALUES);
    }
}
