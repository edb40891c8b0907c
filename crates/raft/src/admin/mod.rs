//! Administration of groups from any node: what whoever plans a group's
//! membership asks of its leader, how the leader does it, and how it is found.

mod client;
mod fence;
mod leader;
mod wire;

pub use client::AdminClient;
pub(crate) use fence::Fences;
pub use fence::{FENCES_MAX, Fence};
pub use wire::{GroupProgress, MemberChange, MemberProgress};
