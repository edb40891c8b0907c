//! Every limit of the registry. The whole of it lives in the memory of every
//! metadata replica and travels to every node, so nothing in it may grow
//! without a bound.

/// Nodes that are members at the same time. Each one talks to every metadata
/// replica; beyond this, run several clusters.
pub const NODES_MAX: usize = 1_000;

/// Node ids ever used, removed ones included. They are kept for ever so that
/// a returning disk is recognized; this many take some 10 MB.
pub const NODE_IDS_MAX: usize = 100_000;

/// Bytes of a node's address: a DNS name (253) with a port.
pub const ADDRESS_BYTES_MAX: usize = 264;

/// Labels of one node. Failure domains nest a few levels deep, not dozens.
pub const LABELS_MAX: usize = 16;

/// Bytes of a label's name, and of its value.
pub const LABEL_BYTES_MAX: usize = 64;

/// Shards, those that a running split will create included.
pub const SHARDS_MAX: usize = 100_000;

/// Shards that a bootstrap may create: as many as the server has slots. More
/// come by splitting.
pub const INITIAL_SHARDS_MAX: usize = 16_384;

/// Bytes of a key at which a shard is split. Any prefix of a longer key
/// splits as well.
pub const SPLIT_KEY_BYTES_MAX: usize = 1_024;

/// Voters of one group. A majority of nine already waits for five disks.
pub const REPLICAS_PER_GROUP_MAX: usize = 9;

/// Retired replicas that a group remembers together with their node. Older
/// ones are still known as retired, because ids are never reused
/// ([`ClusterView::is_retired`](crate::ClusterView::is_retired)).
pub const RETIRED_KEPT_PER_GROUP: usize = 32;

/// Splits and moves that run at the same time.
pub const OPERATORS_RUNNING_MAX: usize = 1_000;

/// Ended splits and moves that are kept for operators to read and for late
/// retries to find; the oldest go first.
pub const OPERATORS_ENDED_KEPT: usize = 1_000;

/// Bytes of one journal row: a checkpoint, never data.
pub const JOURNAL_ROW_BYTES_MAX: usize = 16 << 10;

/// Unfinished journal rows.
pub const JOURNAL_OPEN_MAX: usize = 1_000;

/// Finished journal rows that are kept; the oldest go first.
pub const JOURNAL_FINISHED_KEPT: usize = 1_000;

/// Named settings.
pub const SETTINGS_MAX: usize = 256;

/// Bytes of a setting's name.
pub const SETTING_NAME_BYTES_MAX: usize = 64;

/// Bytes of a setting's text.
pub const SETTING_TEXT_BYTES_MAX: usize = 1_024;

/// Bytes of one encoded command. The largest is a bootstrap: a thousand nodes
/// with all their labels, or 16,384 split keys of 250 bytes.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// Bytes of an encoded registry. A hundred thousand shards with keys of the
/// greatest length and full lists of retired replicas stay below it.
pub const ENCODED_BYTES_MAX: usize = 512 << 20;

/// Nodes that a refusal names before it stops counting.
pub const REFUSAL_NODES_NAMED_MAX: usize = 8;
