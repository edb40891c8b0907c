//! Places of the code that the fixed set of seeds must reach.
//!
//! A rare place that no run reaches any more is a place that is no longer
//! tested, and nothing else would tell. So each `sometimes!` of the code either
//! stands here, with those that are demanded, or with those that are excused,
//! with the test that reaches it instead.

use std::collections::BTreeMap;

use quorate_testkit::sim::SiteCounts;

/// The seeds of the fixed set.
pub(super) const FIXED_SEEDS: std::ops::RangeInclusive<u64> = 1..=50;

/// Every run of the fixed set must reach these.
const DEMANDED: [&str; 54] = [
    "a checkpoint meets another",
    "a client hears that its request has expired",
    "a command finds its shard split",
    "a command has expired",
    "a command waits a second for its locks",
    "a contribution comes early",
    "a coordinator is lost before a promotion",
    "a coordinator is lost during a cutover",
    "a coordinator is lost during a transfer",
    "a coordinator is lost during catch-up",
    "a coordinator is lost while adding a learner",
    "a fence finds its request pending",
    "a fence poisons its request",
    "a follower truncates its log",
    "a group rests",
    "a group rests without a voter that is gone",
    "a home answers ahead of its log",
    "a leader is elected in a joint membership",
    "a leader rests and has lost its quorum",
    "a leader wakes",
    "a log is purged while a follower lags",
    "a machine is ahead of its log",
    "a projection is behind its table of migrations",
    "a read must be logged",
    "a read's contributions are gone",
    "a replica that is gone is called",
    "a replica that rested stands for election",
    "a replica that rests refuses its vote",
    "a replica votes for nobody yet",
    "a retry finds its request in the gate",
    "a retry finds its result",
    "a sender asks again whether its snapshot is installed",
    "a segment of the log is opened by its index",
    "a segment of the log is rewritten",
    "a shard is split while work waits",
    "a snapshot goes on where it broke off",
    "a snapshot is begun anew",
    "a snapshot is installed",
    "a snapshot is sent",
    "a split waits for its child",
    "a staged shard is put in place of another",
    "a submission finds its place",
    "a submission has expired",
    "an answer is gone",
    "an answer waits for that of a request without entries",
    "an election ends without a leader",
    "heartbeats of several groups travel together",
    "the node of a resting leader is silent",
    "the reply gate holds a reply back",
    "the reply gate holds a reply for a second",
    "the sequencer is full",
    "the sequencer refuses work for a shard that is down",
    "watermarks come behind what is known",
    "work waits for its locks",
];

/// What no run of the fixed set needs to reach, and why.
#[cfg(test)]
const EXCUSED: [(&str, &str); 21] = [
    ("a client finds its request poisoned", "rare: a retry has to meet the fence of a retry"),
    (
        "a coordinator is lost while undoing a move",
        "rare: planted bugs and the executor's tests do",
    ),
    ("a damaged migration row is set aside", "rare: a row has to lie on the disk that is damaged"),
    (
        "a fork finds its child there",
        "the engine's own tests: a log names a fork twice only after damage",
    ),
    (
        "a follower is too slow to be sent entries",
        "the cluster tests of quorate-raft: here nobody writes so much",
    ),
    (
        "a group rests that its leader's node does not claim",
        "the cluster tests of quorate-raft: here a message soon wakes it",
    ),
    (
        "a metadata entry is applied already",
        "the registry's own tests: its engine keeps the index with the state",
    ),
    (
        "a leader is deposed while it rests",
        "rare: what deposes it has to be an answer and not a question",
    ),
    (
        "a heartbeat that came with others is answered too late",
        "its own tests: one group's core would have to be stuck",
    ),
    ("a move begins again", "rare: a target has to be out of reach for long"),
    ("a move finds nobody to lead", "rare: as above"),
    ("a move is given up", "rare: as above"),
    ("a reset is completed", "simulated registries: clusters are too small for a reset"),
    (
        "a slice is refused for the gap before it",
        "the shard machine's own tests: feeders do not offer such a slice",
    ),
    ("a split is given up", "the registry's own tests: nobody cancels a split"),
    ("a store is missed", "tests of the owner's mark: no operator mixes directories here"),
    ("a store of another directory is refused", "as above"),
    ("a stored row is found damaged", "rare: a flipped bit has to hit a row and not a page"),
    ("a tombstone is collected", "simulated registries"),
    ("inputs come before the locks", "rare: a contribution has to overtake a lock"),
    ("two writes have one stamp", "simulated registries"),
];

/// The rare branches, each of which the fixed set must take at least once.
const STUMBLES: [&str; 28] = [
    "calvin client loses a reply",
    "calvin drops an early contribution",
    "calvin feeds one slice at a time",
    "calvin lets two slices wait",
    "calvin loses a push of slices",
    "calvin loses a report of progress",
    "engine commit is slow",
    "engine commits at once",
    "engine snapshots one row a chunk",
    "gossip loses a frame",
    "metadata loses a reply",
    "migration waits between checkpoint and effect",
    "raft answers before a snapshot is installed",
    "raft applies one entry at a time",
    "raft finds a chunk of a snapshot damaged",
    "raft has no room for a proposal",
    "raft keeps a follower awake",
    "raft log indexes early",
    "raft log notes places late",
    "raft log rewrites early",
    "raft log sync is slow",
    "raft log writer takes one operation",
    "raft loses a half-received snapshot",
    "raft loses an answer about a snapshot",
    "raft purges its log early",
    "raft reads one entry of its log",
    "raft receives no snapshot now",
    "raft tells of each commit at once",
];

/// The rare branches that nobody has taken.
pub(super) fn never_taken(sites: &BTreeMap<String, SiteCounts>) -> Vec<&'static str> {
    let is_missed = |site: &&str| sites.get(*site).is_none_or(|counts| counts.fired == 0);
    STUMBLES.into_iter().filter(is_missed).collect()
}

/// The demanded places that nobody has reached.
pub(super) fn missed(reached: &BTreeMap<String, SiteCounts>) -> Vec<&'static str> {
    let is_missed = |place: &&str| reached.get(*place).is_none_or(|counts| counts.reached == 0);
    DEMANDED.into_iter().filter(is_missed).collect()
}

#[cfg(test)]
mod tests;
