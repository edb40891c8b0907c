//! A snapshot's way from a leader to a follower, on a lane of its own.
//!
//! ```text
//! Begin  -> Held n      the follower makes room, or says what it has
//! Chunk n -> Held n + 1  one at a time, each with a checksum
//! End    -> Installing | Installed   number of chunks, checksum of them all
//! ```
//!
//! One attempt to bring one snapshot to one follower is a transfer. Its id is the
//! leader's term and a number that the leader's process gives to no other one. A
//! term has one leader, and a leader that is started again leads in a later term,
//! so ids name transfers for good, and the later one of two is the greater.
//!
//! **What the follower keeps** is one transfer for each replica at most, and as
//! many in all as `snapshots_receiving_max`. It is dropped for a greater one,
//! when nothing has come of it for `snapshot_staging_idle_max`, and with the
//! process. The greatest id is remembered, so that no transfer begins twice.
//!
//! **What the leader keeps** is its view of the state and the one chunk that is
//! not acknowledged. It cannot go back further, and never has to: the follower has
//! all before it, or has dropped the transfer.
//!
//! **A connection breaks, or an answer is late.** The leader sends the same `Begin`
//! again until the follower says how many chunks it has: the unacknowledged one is
//! among them, or is sent again. Nothing before it is. If nothing goes on for
//! `snapshot_staging_idle_max`, the leader gives up. When it has asked for as long as
//! a chunk may take it holds no permit any more, so a follower that is gone does not
//! keep others from being fed; one that answers then waits for its turn, and no
//! longer than it would for an answer.
//!
//! **A message comes twice, late, or out of order.** A `Begin` of an id that is not
//! the greatest is refused; that of the greatest makes nothing anew. A chunk whose
//! number is not the next one is answered with what is there, and not written. An
//! `End` of another transfer is refused; that of this one, once more, is told how
//! the one installation goes. So each chunk reaches the machine's writer once, and
//! in order.
//!
//! **A byte changes on the way.** The chunk is refused and sent again. What gets by
//! the checksums of chunks, or is lost among them, is noticed by the one of the
//! whole, and the transfer ends.
//!
//! **The follower crashes.** What it received was in nobody's way and is nobody's
//! (see [`StateMachine::install`](crate::StateMachine::install)); it knows no
//! transfer, and the leader, told of a beginning where it was in the middle, takes
//! a new view. An installation is atomic and durable when it is answered.
//!
//! **The leader changes, or two lead at once.** Of two transfers the one of the
//! later term is the greater, so it displaces, and is not displaced. The follower
//! also looks at the term that it is in, with each message, and openraft once more
//! when it installs: nothing of a deposed leader is installed after a later term
//! was heard of. What it sends before is a state that was committed.
//!
//! **The leader writes on.** While a transfer goes on, its log is not purged
//! ([`Feeding`]), up to a limit: the follower will need what comes behind the
//! snapshot, and would need the next snapshot otherwise, and so on.

mod pace;
pub(crate) mod receiving;
mod sending;
#[cfg(test)]
mod tests;

pub(crate) use receiving::StagingSlot;
pub(crate) use sending::{Feeding, Outgoing, SendError, Sending, send};
