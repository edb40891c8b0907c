//! Ends waits that last too long, without a timer for each of them: a proposal or a
//! request nearly always has its outcome long before its deadline, and setting a timer and
//! taking it back costs more than the rest of its admission.

#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::runtime;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the keeper sleeps at most while somebody waits, so that it does not
/// have to be woken for each wait that is the only one.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// A patience without end is as good as this, the longest that a request can say.
const PATIENCE_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// When a wait is over that begins now.
pub(crate) fn after(patience: Duration) -> Instant {
    Instant::now() + patience.min(PATIENCE_MAX)
}

/// How late a wait may end: however many end, so often they are all looked at.
const LATE_MAX: Duration = Duration::from_millis(5);

/// The deadlines of a host, or of a mesh.
pub(crate) struct Deadlines {
    waits: Arc<Mutex<Waits>>,
    /// Wakes the keeper before it would look next.
    earlier: Arc<Notify>,
}

#[derive(Default)]
struct Waits {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Somebody began to wait since the keeper looked last.
    is_used: bool,
    /// When the keeper looks next; not before it is woken, if there is no such time.
    looks_at: Option<Instant>,
    /// Not before, however soon somebody's wait is over: to look takes longer the more
    /// there are.
    looks_from: Option<Instant>,
}

enum Place {
    Free,
    Waiting { until: Instant, waker: Waker },
    Over,
}

impl Deadlines {
    pub(crate) fn start() -> Self {
        let (waits, earlier) = (Arc::default(), Arc::new(Notify::new()));
        drop(runtime::spawn(keep(Arc::downgrade(&waits), Arc::clone(&earlier))));
        Self { waits, earlier }
    }

    /// What `work` comes to; nothing if it has not come to anything by `until`.
    pub(crate) async fn bound<F: Future>(&self, until: Instant, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut wait = Wait { deadlines: self, place: None };
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if wait.is_over(until, cx.waker()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        // The keeper finds nothing to keep.
        self.waits = Arc::default();
        self.earlier.notify_one();
    }
}

/// A wait, forgotten when it is dropped.
struct Wait<'a> {
    deadlines: &'a Deadlines,
    place: Option<usize>,
}

impl Wait<'_> {
    fn is_over(&mut self, until: Instant, waker: &Waker) -> bool {
        let mut waits = self.deadlines.waits.lock();
        let Some(at) = self.place else {
            self.place = Some(waits.begin(until, waker.clone()));
            let wanted = waits.looks_from.map_or(until, |from| until.max(from));
            if waits.looks_at.is_none_or(|next| wanted < next) {
                waits.looks_at = Some(wanted);
                self.deadlines.earlier.notify_one();
            }
            return false;
        };
        let Some(Place::Waiting { waker: known, .. }) = waits.places.get_mut(at) else {
            return true;
        };
        if !known.will_wake(waker) {
            let former = std::mem::replace(known, waker.clone());
            drop(waits);
            drop(former);
        }
        false
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(at) = self.place else { return };
        let mut waits = self.deadlines.waits.lock();
        let left = waits.places.get_mut(at).map(|place| std::mem::replace(place, Place::Free));
        waits.free.push(at);
        // A waker may have a task to drop, and that another wait.
        drop(waits);
        drop(left);
    }
}

impl Waits {
    fn begin(&mut self, until: Instant, waker: Waker) -> usize {
        self.is_used = true;
        let waiting = Place::Waiting { until, waker };
        let Some(at) = self.free.pop() else {
            self.places.push(waiting);
            return self.places.len() - 1;
        };
        if let Some(place) = self.places.get_mut(at) {
            *place = waiting;
        }
        at
    }

    /// Ends what lasts too long, and sets when to look again.
    fn look(&mut self, now: Instant) -> Vec<Waker> {
        if self.free.len() == self.places.len() {
            // Room for as many as there ever were is not kept.
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
        let from = now + LATE_MAX;
        let mut over = Vec::new();
        let mut next = std::mem::take(&mut self.is_used).then(|| now + LOOKS_EVERY);
        for place in &mut self.places {
            let Place::Waiting { until, .. } = place else { continue };
            let until = *until;
            if until > now {
                let earliest = until.min(now + LOOKS_EVERY);
                next = Some(next.map_or(earliest, |next| next.min(earliest)));
            } else if let Place::Waiting { waker, .. } = std::mem::replace(place, Place::Over) {
                over.push(waker);
            }
        }
        self.looks_at = next.map(|next| next.max(from));
        self.looks_from = Some(from);
        over
    }
}

/// Looks now and then, for as long as there are deadlines.
async fn keep(waits: Weak<Mutex<Waits>>, earlier: Arc<Notify>) {
    loop {
        let next = {
            let Some(waits) = waits.upgrade() else { return };
            let mut waits = waits.lock();
            let now = Instant::now();
            if waits.looks_at.is_some_and(|at| at <= now) {
                let over = waits.look(now);
                let next = waits.looks_at;
                drop(waits);
                over.into_iter().for_each(Waker::wake);
                next
            } else {
                let latest = now + LOOKS_EVERY;
                waits.looks_at = waits.looks_at.map(|at| at.min(latest));
                waits.looks_at
            }
        };
        tokio::select! {
            biased;
            () = earlier.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
