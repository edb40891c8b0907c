use bytes::Bytes;
use quorate_types::Seq;

use super::*;
use crate::wire::{Join, Message, Rumours};

fn rumour() -> Frame {
    Message::Rumours(Rumours { records: Seq::new() }).to_frame()
}

fn join(incarnation: u64) -> Frame {
    Message::Join(Join { incarnation }).to_frame()
}

fn queue(frames_max: usize) -> (LinkQueue, watch::Receiver<usize>) {
    let (unwritten, watched) = watch::channel(0);
    (LinkQueue::new(unwritten, frames_max, 1 << 20), watched)
}

#[tokio::test]
async fn rumours_go_first_then_the_oldest() {
    let (queue, _) = queue(2);
    queue.push(rumour());
    queue.push(join(1));
    queue.push(join(2));
    queue.push(rumour());
    assert_eq!([queue.next().await, queue.next().await], [join(1), join(2)]);
    queue.push(join(3));
    queue.push(join(4));
    queue.push(join(5));
    assert_eq!([queue.next().await, queue.next().await], [join(4), join(5)]);
}

#[tokio::test]
async fn whatever_happens_to_a_frame_is_counted_once() {
    let (queue, unwritten) = queue(2);
    for incarnation in 0..5 {
        queue.push(join(incarnation));
    }
    assert_eq!(*unwritten.borrow(), 2);
    queue.next().await;
    queue.done();
    queue.clear();
    assert_eq!(*unwritten.borrow(), 0);
}

#[test]
fn a_frame_larger_than_the_queue_is_dropped() {
    let (unwritten, watched) = watch::channel(0);
    let queue = LinkQueue::new(unwritten, 10, 100);
    assert!(queue.push(Frame::new(9, Bytes::from(vec![0; 200]))));
    assert_eq!(*watched.borrow(), 0);
}

#[test]
fn a_closed_queue_asks_for_a_successor() {
    let (queue, _) = queue(2);
    assert!(queue.push(join(1)));
    assert!(!queue.close_if_empty());
    queue.clear();
    assert!(queue.close_if_empty());
    assert!(!queue.push(join(2)));
}
