//! Administration of groups from any node: what whoever plans a group's
//! membership asks of its leader, how the leader does it, and how it is found.

mod client;
mod fence;
#[cfg(test)]
mod fuzz;
mod leader;
mod wire;

pub use client::AdminClient;
pub use fence::FENCES_MAX;
pub(crate) use fence::Fences;
pub use wire::MemberChange;

pub use quorate_types::membership::{Fence, GroupProgress, MemberProgress, VoterChange};
