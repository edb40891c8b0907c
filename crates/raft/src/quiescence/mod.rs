//! Groups that nobody uses cost nothing.
//!
//! A leader whose group was not used for a while, and whose followers have all of
//! its log, asks them to rest with it. Who rests has its timers stopped: no
//! heartbeats, no elections, no work at all. What timers did for each group, nodes
//! do for all of them together, see [`roster::Roster`].
//!
//! A leader wakes when somebody uses its group, when a message comes for it, or
//! when too few of its followers' nodes answer; a round of heartbeats then gives
//! it back the lease without which it may not write. A follower wakes when it
//! hears from its leader. When it loses trust in its leader, it asks it to show
//! itself, and waits as long as any follower does before it stands for election.
//!
//! # Safety
//! Resting stops timers and refuses pre-votes, both of which a replica may do at
//! any time; nothing that Raft's safety rests on is touched. What can go wrong is
//! that a group without a leader rests for ever. It does not:
//! - A follower rests only while beats come from its leader's node, and only if
//!   they claim its group: a leader that is deposed, halted, removed or awake is
//!   not among the claims, and a difference is settled by name.
//! - A leader rests only while the nodes of a quorum answer its beats.
//! - Any message of a group's replica to another wakes it.

mod driver;
#[cfg(test)]
mod fuzz;
mod group;
mod roster;
mod wire;

pub(crate) use driver::{Groups, Quiescence};
pub(crate) use group::Resting;
pub(crate) use wire::{NODE_CALL, NodeCall};
