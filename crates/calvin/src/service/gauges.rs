//! How much the services hold at the moment.

/// What the services of a node hold for a while only. All of it goes when
/// nothing is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    /// Transactions in the gates of shards.
    pub pending: usize,
    /// Transactions that hold locks or wait for some.
    pub locking: usize,
    /// Contributions kept for other shards.
    pub contributions: usize,
    /// Transactions whose inputs a leader collects.
    pub collecting: usize,
    /// Slices that wait to be proposed to a shard's log.
    pub slices_waiting: usize,
    /// Slices that the sequencer keeps for shards.
    pub slices_kept: usize,
    /// Transactions in the sequencer's inbox.
    pub queued: usize,
    /// Requests that wait for what becomes of them.
    pub waiting: usize,
}

impl Gauges {
    /// All of them with the names that metrics give them.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, usize); 8] {
        [
            ("transactions_pending", self.pending),
            ("transactions_locking", self.locking),
            ("contributions_kept", self.contributions),
            ("transactions_collecting", self.collecting),
            ("slices_waiting", self.slices_waiting),
            ("slices_kept", self.slices_kept),
            ("inbox_transactions", self.queued),
            ("requests_waiting", self.waiting),
        ]
    }
}
