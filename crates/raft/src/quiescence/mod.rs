//! Groups that nobody uses cost next to nothing.
//!
//! A leader whose group was not used for a while, and whose followers have all of
//! its log, asks them to rest with it. Who rests has its timers stopped: no
//! heartbeats, no elections. (A voter that is gone and lacks entries is tried again
//! five times a second as ever.) What timers did for each group, nodes do for all of
//! them together, see [`roster::Roster`].
//!
//! Followers that do not rest have no timers either while they hear their leaders:
//! openraft's would look at the clock for each of them 25 times a second, to find
//! nothing. They run from a lease after the leader's last word.
//!
//! A leader wakes when somebody uses its group, when a message comes for it, or
//! when too few of its followers' nodes answer; a round of heartbeats then gives
//! it back the lease without which it may not write. A follower wakes when it
//! hears from its leader. When it loses trust in its leader, it asks it to show
//! itself, and waits as long as any follower does before it stands for election.
//!
//! # Safety
//! Resting stops timers and refuses votes, both of which a replica may do at
//! any time; nothing that Raft's safety rests on is touched. What can go wrong is
//! that a group without a leader rests for ever. It does not:
//! - A follower rests only while beats come from its leader's node, and only if
//!   they claim its group: a leader that is deposed, halted, removed or awake is
//!   not among the claims, and a difference is settled by name.
//! - A leader rests only while the nodes of a quorum answer its beats, and not with
//!   replicas that these nodes say are awake.
//! - What the core appends for a leader wakes its follower (if it did not come before
//!   the follower was asked to rest; the leader then sends a heartbeat behind it, for
//!   it wakes by a round of them), and so does a leader that hands over; a vote that is asked for has a leader wake and a follower doubt.
//!   Until that doubt is over they refuse it, as they would with the lease that their
//!   rest has cost them.

mod driver;
#[cfg(test)]
mod fuzz;
mod group;
mod roster;
mod wire;

pub(crate) use driver::{Groups, Quiescence};
pub(crate) use group::{Arrival, Resting};
#[cfg(test)]
pub(crate) use wire::Claim;
pub(crate) use wire::{Beat, Heard, Lull};
