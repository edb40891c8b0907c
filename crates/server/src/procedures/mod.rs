//! The deterministic interpreter: what every replica runs for a transaction.

mod digest;
#[cfg(test)]
mod fuzz;
mod interpreter;
mod redis;
mod verdict;
mod view;

pub use redis::{REDIS_PROCEDURE, RedisProcedures};
pub use verdict::{KeyVersion, Verdict, VerdictError};
