//! The way of one message, and of the answer back.

use bytes::Bytes;
use quorate_types::NodeId;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{CallError, SimNetwork};

/// What was decided about a message when it was sent.
pub(super) struct Departure {
    pub(super) number: u64,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) due: Instant,
    pub(super) is_lost: bool,
    pub(super) is_cut: bool,
    /// Closed when the message before it on an ordered link has arrived.
    pub(super) previous: Option<oneshot::Receiver<()>>,
    /// Closes when dropped, which tells the message after it.
    pub(super) arrived: Option<oneshot::Sender<()>>,
}

/// A message under way.
pub(super) struct Flight {
    pub(super) network: SimNetwork,
    pub(super) departure: Departure,
}

impl Flight {
    /// Carries a request there and its answer back; `None` when either is
    /// lost.
    pub(super) async fn exchange(mut self, request: Bytes) -> Option<Result<Bytes, CallError>> {
        let (from, to) = (self.departure.from, self.departure.to);
        let outcome = match self.hand_over(request).await? {
            None => {
                let reason = "connection refused".to_owned();
                Err(CallError::NotDelivered { to, reason })
            }
            Some(handling) => match handling.await {
                Ok(answer) => answer.map_err(|reason| CallError::Rejected { to, reason }),
                Err(_) => {
                    let reason = "connection reset: it died over the request".to_owned();
                    Err(CallError::Unknown { to, reason })
                }
            },
        };
        let payload = outcome.as_deref().unwrap_or_default();
        let departure = self.network.depart(to, from, "reply", payload).ok()?;
        let mut back = Self { network: self.network.clone(), departure };
        back.travel().await.then_some(outcome)
    }

    /// Carries a message one way.
    pub(super) async fn deliver(mut self, message: Bytes) {
        // The handler's task goes on by itself.
        drop(self.hand_over(message).await);
    }

    /// Starts the receiver's handler on the message. The outer `None` is a
    /// lost message, the inner one a receiver that is not there.
    async fn hand_over(
        &mut self,
        payload: Bytes,
    ) -> Option<Option<JoinHandle<Result<Bytes, String>>>> {
        let Departure { number, from, to, .. } = self.departure;
        if !self.travel().await {
            return None;
        }
        let endpoint = self.network.state.lock().endpoint(to);
        let handling = endpoint.map(|endpoint| {
            let handler = endpoint.handler;
            endpoint.node.spawn(async move { handler(from, payload).await })
        });
        if handling.is_none() {
            self.network.state.lock().counters.refused += 1;
            self.network.trace.record(format_args!("m{number} {from} -> {to} refused"));
        }
        self.departure.arrived = None;
        Some(handling)
    }

    /// Takes the message to the other end; false if it was lost on the way.
    async fn travel(&mut self) -> bool {
        let Departure { number, from, to, due, .. } = self.departure;
        sleep_until(due).await;
        if let Some(previous) = self.departure.previous.take() {
            // An error is how it says that it has arrived.
            let _ = previous.await;
        }
        loop {
            let held = self.network.state.lock().links.wait_if_held(from, to);
            let Some(released) = held else { break };
            let _ = released.await;
        }
        let arrives = {
            let mut state = self.network.state.lock();
            let is_cut = self.departure.is_cut || state.links.is_cut(from, to);
            let arrives = !self.departure.is_lost && !is_cut;
            state.counters.arrived += u64::from(arrives);
            state.counters.lost += u64::from(!arrives);
            state.counters.cut += u64::from(is_cut);
            arrives
        };
        let fate = if arrives { "arrived" } else { "lost" };
        self.network.trace.record(format_args!("m{number} {from} -> {to} {fate}"));
        arrives
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.network.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}
