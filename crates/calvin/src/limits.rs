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
/// Members of a shard that a split makes. At least one; the metadata allows a
/// group fewer than this.
pub const MEMBERS_MAX: usize = 16;
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
/// What a participant costs in a slice that names it.
pub const PARTICIPANT_BYTES: usize = 16;
/// A call and the names of all participants: some 98,000 of them for a call of
/// a few bytes. A row of the home holds them and what the home read.
pub const TXN_BYTES_MAX: usize = ROW_BYTES_MAX - READ_BYTES_MAX - (512 << 10);
/// The transactions of one slice. With the keys of its range it is one row, and
/// one entry of its shard's log.
pub const SLICE_BYTES_MAX: usize = 3 << 20;
/// The transactions of all slices that are cut from one batch. A transaction that exceeds it alone is refused: at
/// most 170 shards take part in a call of [`CALL_BYTES_MAX`], and some 2,800 in
/// one of a few bytes that needs all of them to read for all of them to write.
pub const BATCH_SLICES_BYTES_MAX: usize = 128 << 20;

const ROW_BYTES_MAX: usize = 4 << 20;
const _: () = assert!(CALL_BYTES_MAX + TXN_OVERHEAD_BYTES + (256 << 10) <= TXN_BYTES_MAX);
const _: () = assert!(TXN_BYTES_MAX <= SLICE_BYTES_MAX);
const _: () = assert!(SLICE_BYTES_MAX + 2 * KEY_BYTES_MAX + (64 << 10) <= ROW_BYTES_MAX);
