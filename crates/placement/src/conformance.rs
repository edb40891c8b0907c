//! The suite that every [`PlacementPolicy`](crate::PlacementPolicy) must pass,
//! and the model cluster it runs on.
//!
//! Each case is a random cluster drawn from a seed. For a while nodes join,
//! drain, fall silent, die and come back while operators are accepted or
//! refused at random and advance a step at a time; then the cluster is left
//! alone and must come to rest. Checked throughout: the same view gives the
//! same plan, in any order of its lists; every operator is safe by
//! [`safety::check`](crate::safety::check); a plan touches no group twice and
//! none in flight; no step of any interleaving costs a group its quorum.

mod model;
mod suite;

pub use model::{ModelCluster, Running};
pub use suite::{Failure, ROUNDS_MAX, Violation, check, check_seed};
