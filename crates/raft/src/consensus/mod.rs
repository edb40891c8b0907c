//! The adapters between openraft and the ports. Nothing of openraft leaves
//! this module but by types of our own.

pub(crate) mod applier;
pub(crate) mod network;
pub(crate) mod probe;
pub(crate) mod storage;
pub(crate) mod streaming;
pub(crate) mod types;
pub(crate) mod wire;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub(crate) mod tests;
