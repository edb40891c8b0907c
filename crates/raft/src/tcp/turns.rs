//! Whose turn it is to ask a peer.
//!
//! A peer refuses requests beyond what it has room for. Were they all sent and
//! tried again after each refusal, some would be served at once and others
//! never. So they wait here, in the order in which they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::load::{Held, Load};
use super::mesh::MeshConfig;

/// The turns on one connection, for each channel its own: requests of one kind
/// may be what those of another wait for.
pub(super) struct Turns {
    under_way_max: usize,
    under_way_bytes_max: usize,
    waiting_max: usize,
    waiting_bytes_max: u32,
    channels: Mutex<BTreeMap<u8, Channel>>,
}

#[derive(Clone)]
struct Channel {
    turns: Load,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new(config: &MeshConfig) -> Self {
        Self {
            under_way_max: config.outbound_requests_max,
            under_way_bytes_max: config.outbound_bytes_max,
            waiting_max: config.queued_messages_max.max(1),
            waiting_bytes_max: u32::try_from(config.queued_bytes_max).unwrap_or(u32::MAX),
            channels: Mutex::default(),
        }
    }

    /// A turn, if it can be had at once. Those who wait are served before.
    pub(super) fn try_take(&self, channel: u8, bytes: usize) -> Option<Held> {
        self.channel(channel).turns.try_take(bytes)
    }

    /// Waits for a turn with a request of so many bytes; `None` when too many
    /// do.
    pub(super) async fn take(&self, channel: u8, bytes: usize) -> Option<Held> {
        let Channel { turns, places, bytes: room } = self.channel(channel);
        let counted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.waiting_bytes_max);
        let _place = places.try_acquire().ok()?;
        let _room = room.try_acquire_many(counted).ok()?;
        turns.take(bytes).await
    }

    fn channel(&self, channel: u8) -> Channel {
        let mut channels = self.channels.lock();
        let opened = channels.entry(channel).or_insert_with(|| Channel {
            turns: Load::new(self.under_way_max, self.under_way_bytes_max),
            places: Arc::new(Semaphore::new(self.waiting_max)),
            bytes: Arc::new(Semaphore::new(usize::try_from(self.waiting_bytes_max).unwrap_or(0))),
        });
        opened.clone()
    }
}
