//! How much of one kind may be in work at a time, by number and by bytes: a
//! thousand small requests are as many as a few large ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for requests.
#[derive(Clone)]
pub(super) struct Load {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
}

/// The room that a request takes until this is dropped.
pub(super) struct Held {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Load {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        Self {
            requests: Arc::new(Semaphore::new(requests_max.max(1))),
            bytes: Arc::new(Semaphore::new(usize::try_from(bytes_max).unwrap_or(usize::MAX))),
            bytes_max,
        }
    }

    /// Room for a request of so many bytes, if there is any and nobody waits. One that
    /// is larger than all of it takes all.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Held> {
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.counted(bytes)).ok()?;
        Some(Held { _request: request, _bytes: bytes })
    }

    /// The same, behind those who came before.
    pub(super) async fn take(&self, bytes: usize) -> Option<Held> {
        let request = Arc::clone(&self.requests).acquire_owned().await.ok()?;
        let bytes = self.counted(bytes);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?;
        Some(Held { _request: request, _bytes: bytes })
    }

    fn counted(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max)
    }
}
