//! Places where a simulator looks into the code, or makes it stumble.
//!
//! Three macros mark such places. [`buggify!`](crate::buggify) asks whether a
//! rare but legal branch shall be taken now, [`sometimes!`](crate::sometimes)
//! notes that a place was reached, and [`planted!`](crate::planted) asks
//! whether a bug is to be had. Each of them asks the [`Runtime`] of the task,
//! and only in a build with the feature named below; in every other build they
//! are constants, of which the compiler leaves nothing. Even with the features
//! a process that is no simulation has no such runtime, and is not disturbed.
//!
//! | macro | feature |
//! |---|---|
//! | `buggify!`, `sometimes!` | `simulation` |
//! | `planted!` | `canary` |
//!
//! Code that every replica must run alike draws no chance of its own: in
//! replicated machines `buggify!` has no place.
//!
//! [`Runtime`]: crate::runtime::Runtime

use std::collections::BTreeMap;
#[cfg(feature = "canary")]
use std::sync::{Arc, Weak};

#[cfg(feature = "canary")]
use parking_lot::Mutex;

#[cfg(feature = "canary")]
use crate::runtime::Runtime;
#[cfg(feature = "simulation")]
use crate::runtime::ambient;

/// Whether this build can be disturbed by a simulator at all.
pub const IS_SIMULATED: bool = cfg!(feature = "simulation");

/// Whether this build contains planted bugs. Such a build is for showing that
/// the simulator finds them, and for nothing else.
pub const HAS_CANARIES: bool = cfg!(feature = "canary");

/// Bugs that can be planted, one at a time, to show that they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canary {
    /// A vote is answered before it is durable.
    VoteNotSynced,
    /// An entry is acknowledged before the sync that makes it durable.
    AcknowledgedBeforeSync,
    /// A read is answered by a leader that did not ask whether it still leads.
    ReadWithoutIndex,
    /// An entry is committed one acknowledgement short of a majority.
    QuorumOffByOne,
    /// What was applied last before a restart is applied again after it.
    AppliedTwice,
    /// A transaction gives up its locks before it has all its inputs.
    LockReleasedEarly,
    /// A slice is dropped when many of them wait.
    SliceLost,
    /// A shard takes a slice although it never got the one before it.
    SliceGapAccepted,
    /// Inputs of other shards are forgotten at a restart.
    InputsForgotten,
    /// A read is answered before everything it depends on is durable.
    EarlyReply,
    /// The same for the reply to a write that reads nothing.
    EarlyReplyBlind,
    /// The same for a reply that waits for the last sequenced writer of its
    /// keys only, and not for those which that one followed.
    EarlyReplyChain,
    /// A request that comes again is executed again.
    RetryWithoutDedup,
    /// A request whose shard was split is sent again without asking what
    /// became of it.
    RetryWithoutFence,
    /// A move that is given up leaves both replicas.
    MoveHalfAborted,
    /// The identifier of a replica that is gone is given to another one.
    ReplicaIdReused,
    /// The log is purged up to what is applied, durable or not.
    PurgePastDurable,
    /// A migration's row is taken as it stands, whatever its checksum says.
    RowNotVerified,
    /// Of two values with the same timestamp each node keeps its own.
    TieKeptLocal,
    /// A tombstone is dropped before every node has seen it.
    TombstoneCollectedEarly,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::VoteNotSynced,
        Self::AcknowledgedBeforeSync,
        Self::ReadWithoutIndex,
        Self::QuorumOffByOne,
        Self::AppliedTwice,
        Self::LockReleasedEarly,
        Self::SliceLost,
        Self::SliceGapAccepted,
        Self::InputsForgotten,
        Self::EarlyReply,
        Self::EarlyReplyBlind,
        Self::EarlyReplyChain,
        Self::RetryWithoutDedup,
        Self::RetryWithoutFence,
        Self::MoveHalfAborted,
        Self::ReplicaIdReused,
        Self::PurgePastDurable,
        Self::RowNotVerified,
        Self::TieKeptLocal,
        Self::TombstoneCollectedEarly,
    ];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VoteNotSynced => "vote-not-synced",
            Self::AcknowledgedBeforeSync => "acknowledged-before-sync",
            Self::ReadWithoutIndex => "read-without-index",
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::AppliedTwice => "applied-twice",
            Self::LockReleasedEarly => "lock-released-early",
            Self::SliceLost => "slice-lost",
            Self::SliceGapAccepted => "slice-gap-accepted",
            Self::InputsForgotten => "inputs-forgotten",
            Self::EarlyReply => "early-reply",
            Self::EarlyReplyBlind => "early-reply-blind",
            Self::EarlyReplyChain => "early-reply-chain",
            Self::RetryWithoutDedup => "retry-without-dedup",
            Self::RetryWithoutFence => "retry-without-fence",
            Self::MoveHalfAborted => "move-half-aborted",
            Self::ReplicaIdReused => "replica-id-reused",
            Self::PurgePastDurable => "purge-past-durable",
            Self::RowNotVerified => "row-not-verified",
            Self::TieKeptLocal => "tie-kept-local",
            Self::TombstoneCollectedEarly => "tombstone-collected-early",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|canary| canary.name() == name)
    }
}

/// Whether the branch at `site` shall be taken now: what
/// [`buggify!`](crate::buggify) calls.
#[cfg(feature = "simulation")]
#[must_use]
pub fn buggify(site: &'static str) -> bool {
    ambient().is_some_and(|runtime| runtime.buggify(site))
}

/// Never, in a build that nothing simulates.
#[cfg(not(feature = "simulation"))]
#[must_use]
pub const fn buggify(_site: &'static str) -> bool {
    false
}

/// Notes that `site` was reached: what [`sometimes!`](crate::sometimes) calls.
#[cfg(feature = "simulation")]
pub fn reach(site: &'static str) {
    if let Some(runtime) = ambient() {
        runtime.reached(site);
    }
}

/// Nobody takes note, in a build that nothing simulates.
#[cfg(not(feature = "simulation"))]
pub const fn reach(_site: &'static str) {}

/// Whether a bug is planted here: what [`planted!`](crate::planted) calls.
#[cfg(feature = "canary")]
#[must_use]
pub fn is_planted(canary: Canary) -> bool {
    ambient().and_then(|runtime| runtime.canary()) == Some(canary)
}

/// Never, in a build without canaries.
#[cfg(not(feature = "canary"))]
#[must_use]
pub const fn is_planted(_canary: Canary) -> bool {
    false
}

/// Numbers that a planted bug notes down, which code without it does not know.
pub type Notes = BTreeMap<Vec<u8>, u64>;

/// Notes that a planted bug takes, apart for each life of a simulated node: a
/// [`planted!`](crate::planted) branch may look there for what the sound code
/// has no need to remember.
#[cfg(feature = "canary")]
pub fn scratch<T: Default>(work: impl FnOnce(&mut Notes) -> T) -> T {
    static PADS: Mutex<Vec<(Weak<dyn Runtime>, Notes)>> = Mutex::new(Vec::new());
    let Some(runtime) = ambient() else { return T::default() };
    let mut pads = PADS.lock();
    pads.retain(|(owner, _)| owner.strong_count() > 0);
    let is_ours = |owner: &Weak<dyn Runtime>| std::ptr::addr_eq(owner.as_ptr(), &*runtime);
    if let Some((_, notes)) = pads.iter_mut().find(|(owner, _)| is_ours(owner)) {
        return work(notes);
    }
    let mut notes = Notes::new();
    let result = work(&mut notes);
    pads.push((Arc::downgrade(&runtime), notes));
    result
}

/// Nothing is noted in a build without canaries.
#[cfg(not(feature = "canary"))]
pub fn scratch<T: Default>(_work: impl FnOnce(&mut Notes) -> T) -> T {
    T::default()
}

/// Whether a branch that is rare, and legal at any time, shall be taken now.
///
/// The name of the place is unique in the workspace. A run of a simulation
/// enables some of the places, and those fire now and then.
///
/// ```
/// let batch_max = if quorate_types::buggify!("example small batches") { 1 } else { 100 };
/// assert_eq!(batch_max, 100, "nothing simulates this");
/// ```
#[macro_export]
macro_rules! buggify {
    ($site:literal) => {
        $crate::fault::buggify($site)
    };
}

/// Notes that a place was reached that a good set of simulations must reach,
/// perhaps only where a condition holds, which is not even evaluated in other
/// builds.
///
/// ```
/// # let (waited, limit) = (3, 2);
/// quorate_types::sometimes!("example waits long", waited > limit);
/// ```
#[macro_export]
macro_rules! sometimes {
    ($site:literal) => {
        $crate::fault::reach($site)
    };
    ($site:literal, $condition:expr) => {
        if $crate::fault::IS_SIMULATED && $condition {
            $crate::fault::reach($site);
        }
    };
}

/// Whether the named [`Canary`](crate::fault::Canary) is planted: the condition
/// of an `if` around the bug.
///
/// ```
/// let is_synced = !quorate_types::planted!(VoteNotSynced);
/// assert!(is_synced);
/// ```
#[macro_export]
macro_rules! planted {
    ($canary:ident) => {
        $crate::fault::is_planted($crate::fault::Canary::$canary)
    };
}
