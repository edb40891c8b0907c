//! `cargo xtask demo`: the main job of the whole house, in front of one's
//! eyes.

mod admin;
mod checks;
mod cluster;
mod folder;
mod interrupt;
mod progress;
mod range;
mod report;
mod resp;
mod story;
mod workload;

pub(crate) use story::{Args, run};

#[cfg(test)]
mod fake;
