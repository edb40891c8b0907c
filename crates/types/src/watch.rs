//! A single value that many may wait on, waking waiters in the order in which
//! they registered. tokio's `watch` wakes in an order drawn from the operating
//! system, which no seed can replay.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{RwLock, RwLockReadGuard};

/// The other side is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the watch is gone")]
pub struct Closed;

struct Shared<T> {
    value: T,
    version: u64,
    senders: usize,
    receivers: usize,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    fn wake(&mut self) -> BTreeMap<u64, Waker> {
        std::mem::take(&mut self.waiters)
    }
}

/// The writing half; clones share the value.
pub struct Sender<T> {
    shared: Arc<RwLock<Shared<T>>>,
}

/// The reading half; remembers which value it has seen.
pub struct Receiver<T> {
    shared: Arc<RwLock<Shared<T>>>,
    seen: u64,
}

/// A view of the current value. Do not hold it across an await.
pub struct Ref<'a, T> {
    guard: RwLockReadGuard<'a, Shared<T>>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard.value
    }
}

/// A value to watch. The receiver counts the initial value as seen.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(RwLock::new(Shared {
        value,
        version: 0,
        senders: 1,
        receivers: 1,
        next_waiter: 0,
        waiters: BTreeMap::new(),
    }));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, seen: 0 })
}

impl<T> Sender<T> {
    /// Replaces the value and wakes everyone who waits.
    pub fn send(&self, value: T) {
        self.modify(|current| {
            *current = value;
            true
        });
    }

    /// Changes the value in place; waiters wake when `change` returns true.
    pub fn modify(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let (changed, woken) = {
            let mut shared = self.shared.write();
            if change(&mut shared.value) {
                shared.version += 1;
                (true, shared.wake())
            } else {
                (false, BTreeMap::new())
            }
        };
        woken.into_values().for_each(Waker::wake);
        changed
    }

    /// The current value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { guard: self.shared.read() }
    }

    /// Whether anyone could still see a change.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.read().receivers == 0
    }

    /// A new receiver that counts the current value as seen.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let mut shared = self.shared.write();
        shared.receivers += 1;
        let seen = shared.version;
        drop(shared);
        Receiver { shared: Arc::clone(&self.shared), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.write().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let woken = {
            let mut shared = self.shared.write();
            shared.senders -= 1;
            if shared.senders > 0 {
                return;
            }
            shared.wake()
        };
        woken.into_values().for_each(Waker::wake);
    }
}

impl<T> Receiver<T> {
    /// The current value, without counting it as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { guard: self.shared.read() }
    }

    /// The current value, counted as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let guard = self.shared.read();
        self.seen = guard.version;
        Ref { guard }
    }

    /// A copy of the current value, counted as seen.
    pub fn get(&mut self) -> T
    where
        T: Clone,
    {
        self.borrow_and_update().clone()
    }

    /// Waits until the value differs from the last one seen and counts it as
    /// seen. Safe to drop at any time.
    ///
    /// # Errors
    /// [`Closed`] when nobody can change the value any more.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let mut waiter = Waiter { shared: Arc::clone(&self.shared), id: None };
        poll_fn(|cx| {
            let mut shared = self.shared.write();
            if shared.version != self.seen {
                self.seen = shared.version;
                return Poll::Ready(Ok(()));
            }
            if shared.senders == 0 {
                return Poll::Ready(Err(Closed));
            }
            let id = *waiter.id.get_or_insert_with(|| {
                shared.next_waiter += 1;
                shared.next_waiter
            });
            shared.waiters.insert(id, cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until `accept` holds for the value and returns a copy of it.
    ///
    /// # Errors
    /// [`Closed`] when it can no longer come to hold.
    pub async fn wait_for(&mut self, accept: impl Fn(&T) -> bool) -> Result<T, Closed>
    where
        T: Clone,
    {
        loop {
            let value = self.get();
            if accept(&value) {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

/// Takes its waker along when the waiting future is dropped, so that a loop of
/// abandoned waits leaves nothing behind.
struct Waiter<T> {
    shared: Arc<RwLock<Shared<T>>>,
    id: Option<u64>,
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.write().waiters.remove(&id);
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.write().receivers += 1;
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.write().receivers -= 1;
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("watch::Sender").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("watch::Receiver").finish_non_exhaustive()
    }
}
