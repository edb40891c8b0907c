//! What waits for one outgoing connection.

use std::collections::VecDeque;

use parking_lot::Mutex;
use quorate_types::frame::Frame;
use quorate_types::watch;
use tokio::sync::Notify;

use crate::wire::{is_rumour, wire_bytes};

/// A bounded queue between the core, which never waits, and the task that
/// writes to one peer, which may wait long. When it is full, rumours go
/// first, then what is oldest: a stale probe helps nobody.
pub(crate) struct LinkQueue {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Frames not yet written, over all links.
    unwritten: watch::Sender<usize>,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    closed: bool,
}

impl LinkQueue {
    pub(crate) fn new(
        unwritten: watch::Sender<usize>,
        frames_max: usize,
        bytes_max: usize,
    ) -> Self {
        Self { waiting: Mutex::default(), news: Notify::new(), unwritten, frames_max, bytes_max }
    }

    /// Takes a frame; false when the link has ended and needs a successor.
    pub(crate) fn push(&self, frame: Frame) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        let room_for = |waiting: &Waiting| {
            waiting.frames.len() < self.frames_max
                && waiting.bytes + wire_bytes(&frame) <= self.bytes_max
        };
        while !room_for(&waiting) {
            let victim = waiting.frames.iter().position(is_rumour);
            if waiting.frames.is_empty() || (victim.is_none() && is_rumour(&frame)) {
                return true;
            }
            self.drop_frame(&mut waiting, victim.unwrap_or(0));
        }
        waiting.bytes += wire_bytes(&frame);
        waiting.frames.push_back(frame);
        self.count(1, 0);
        drop(waiting);
        self.news.notify_one();
        true
    }

    /// The next frame to write. Whoever takes it reports [`LinkQueue::done`].
    pub(crate) async fn next(&self) -> Frame {
        loop {
            let frame = {
                let mut waiting = self.waiting.lock();
                let frame = waiting.frames.pop_front();
                waiting.bytes -= frame.as_ref().map_or(0, wire_bytes);
                frame
            };
            if let Some(frame) = frame {
                return frame;
            }
            self.news.notified().await;
        }
    }

    /// Whether nothing waits; if so nothing ever will, as the queue is closed.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.closed |= waiting.frames.is_empty();
        waiting.closed
    }

    /// A frame taken by [`LinkQueue::next`] was written or lost.
    pub(crate) fn done(&self) {
        self.count(0, 1);
    }

    /// Drops what waits: it was meant for a moment that has passed.
    pub(crate) fn clear(&self) {
        let mut waiting = self.waiting.lock();
        while !waiting.frames.is_empty() {
            self.drop_frame(&mut waiting, 0);
        }
    }

    fn drop_frame(&self, waiting: &mut Waiting, place: usize) {
        if let Some(frame) = waiting.frames.remove(place) {
            waiting.bytes -= wire_bytes(&frame);
            self.count(0, 1);
        }
    }

    fn count(&self, more: usize, less: usize) {
        self.unwritten.modify(|unwritten| {
            *unwritten = (*unwritten + more).saturating_sub(less);
            *unwritten == 0
        });
    }
}

#[cfg(test)]
mod tests;
