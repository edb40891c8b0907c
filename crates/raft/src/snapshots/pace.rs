//! How fast snapshots leave a node.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One chunk after another, whoever sends it: in any time no more leaves than the
/// rate allows for it and for what a timer is late, and one chunk.
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::default() }
    }

    /// Waits until so many bytes may leave. A caller that does not wait so long has
    /// used its share all the same.
    pub(crate) async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let begins_at = {
            let mut free_at = self.free_at.lock();
            let now = Instant::now();
            let begins_at = free_at.map_or(now, |free_at| free_at.max(now));
            *free_at = Some(begins_at + duration_of(bytes, rate));
            begins_at
        };
        tokio::time::sleep_until(begins_at).await;
    }
}

fn duration_of(bytes: u64, per_second: u64) -> Duration {
    const NANOS: u128 = 1_000_000_000;
    let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(per_second.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
