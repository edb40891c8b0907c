//! How large things may be. A log entry and a stored row have at most 4 MiB
//! ([the host's and the engine's limits]); these keep everything that a machine
//! builds from its log well below, so that no entry that was admitted can ever
//! fail to be applied. What exceeds one of them at apply is an abort, the same
//! on every replica.
//!
//! [the host's and the engine's limits]: https://docs.rs/quorate-raft

/// A call's arguments and keys, each key with [`KEY_OVERHEAD_BYTES`]. Refused
/// before admission.
pub const CALL_BYTES_MAX: usize = 768 << 10;
/// What a key or the end of a range costs in a call besides its bytes: at least
/// what its encoding adds. A footprint of very many short keys would otherwise
/// pass for small, and what it is ordered in would exceed an entry or a row.
pub const KEY_OVERHEAD_BYTES: usize = 8;
/// Ranges of one call. Refused before admission: each that is read is one pass
/// over the shard's rows, within apply.
pub const RANGES_MAX: usize = 256;
/// A key. Refused before admission.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// A value that a transaction writes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The result of a transaction that is remembered for its retry.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// The logged inputs of a transaction, all participants together.
pub const INPUTS_BYTES_MAX: usize = 1 << 20;
/// What one participant reads for a transaction of several shards without
/// writes, whose inputs are not logged.
pub const READ_BYTES_MAX: usize = 2 << 20;
/// What a command of one shard reads: nothing of it is logged or sent on.
pub const DIRECT_READ_BYTES_MAX: usize = 6 << 20;
/// The result of a command that is not logged: it must fit a frame, which has
/// at most 8 MiB, on its way to the client's node.
pub const READ_RESULT_BYTES_MAX: usize = 7 << 20;
/// Slices that are logged, offered or handed over at once; one always fits.
pub const SLICES_BYTES_MAX: usize = 2 << 20;
/// What a transaction costs in a batch and its slices besides its call.
pub const TXN_OVERHEAD_BYTES: usize = 256;
