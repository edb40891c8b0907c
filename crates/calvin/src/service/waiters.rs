//! Requests that wait for an event at this node.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Waiters by key; each event answers all waiters of its key. Bounded.
#[derive(Debug)]
pub(super) struct Waiters<K, V> {
    waiting: Mutex<BTreeMap<K, Vec<oneshot::Sender<V>>>>,
    max: usize,
}

impl<K: Ord + Clone, V: Clone> Waiters<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: Mutex::default(), max }
    }

    /// Waits for the key's event; `None` at the limit.
    pub(super) fn register(&self, key: K) -> Option<oneshot::Receiver<V>> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.max {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let waiters = waiting.entry(key).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        Some(receiver)
    }

    /// Keys that somebody waits for, or has until a moment ago.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Answers everyone who waits for the key.
    pub(super) fn answer(&self, key: &K, value: V) {
        let waiters = self.waiting.lock().remove(key);
        for waiter in waiters.into_iter().flatten() {
            // A waiter that gave up meanwhile needs no answer.
            let _ = waiter.send(value.clone());
        }
    }

    /// Drops every waiter: each sees its channel closed and says "unknown".
    pub(super) fn fail_all(&self) {
        self.waiting.lock().clear();
    }

    /// Drops waiters that gave up.
    pub(super) fn sweep(&self) {
        self.waiting.lock().retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
    }
}
